"""Data larger than memory: every row counts where a pass over the file is enough, a random part of them where it isn't.

The critics are trained, chosen and judged on the drawn rows; the Gaussian copula's formula, for `mi`, is that of all rows. So
memory does not grow with the data, every held-out number is what an independent sample of so many rows gives, with their
standard error, and a note says so.
"""

from __future__ import annotations

import os
from typing import Any

from flomi.data.pairs import Pairs
from flomi.data.reading import read as _read
from flomi.data.settings import SETTINGS

__all__ = ["ROWS", "read"]

ROWS = SETTINGS.rows


def read(
    path: str | os.PathLike[str],
    y_path: str | os.PathLike[str] | None = None,
    *,
    rows: int | None = ROWS,
    **options: Any,
) -> Pairs:
    """`flomi.data.read`, with its `options`, but of more than `rows` rows a random part, with what is known of all."""
    return _read(path, y_path, rows=rows, **options)
