"""Anything a user has as paired rows of numbers: readers, column choice, kinds, checks, rows drawn from larger files.

Touch `sources` (and `text`) for a kind of file, `tables` for a kind of object in memory, `checks` for what is refused or
doubted, `settings` for the numbers that decide; `reading.read` puts them together.
"""

from __future__ import annotations

from flomi.data.pairs import MIN_ROWS, FullData, Pairs, from_arrays, new_rows
from flomi.data.reading import read

__all__ = ["MIN_ROWS", "FullData", "Pairs", "from_arrays", "new_rows", "read"]
