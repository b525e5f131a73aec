"""Anything a user has -> typed columns -> float arrays: readers, column choice, checks, streaming."""

from __future__ import annotations

from flomi.data.pairs import MIN_ROWS, Pairs, Whole, choose, from_arrays, matrix, new_rows, pairs, read

__all__ = ["MIN_ROWS", "Pairs", "Whole", "choose", "from_arrays", "matrix", "new_rows", "pairs", "read"]
