"""What would have been seen: the smallest MI found in 19 of 20 samples, by kind of dependence, rows and columns.

Where nothing is found this is what can be said: dependence of these kinds above its limit would have shown. Others may hide
more. benchmarks/sight.py measures the table, on planted dependence between normal columns.
"""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path

import numpy as np

KINDS = {
    "linear": "a linear dependence",
    "pair": "a smooth dependence of one pair of columns",
    "three": "one spread over three columns a side",
}


def limits(n: int, dim_x: int, dim_y: int) -> dict[str, float]:
    """Nats by kind, log-linear between the sizes measured and beyond them; `n` independent rows.

    Columns count by the geometric mean of the two sides, as the number of their pairs does. With fewer than three columns a
    side nothing is spread over three: the limit is that of one pair there.

    >>> found = limits(1000, 5, 5)
    >>> found["linear"] < found["three"] < limits(300, 5, 5)["three"]
    True
    """
    at = math.log(n), math.log(dim_x * dim_y) / 2
    found = {kind: math.exp(_between(*_measured()[kind], *at)) for kind in KINDS}
    if min(dim_x, dim_y) < 3:
        found["three"] = found["pair"]
    return found


def _between(sizes: np.ndarray, columns: np.ndarray, values: np.ndarray, n: float, d: float) -> float:
    """Linear interpolation of `values` [sizes, columns] at (n, d), with the outermost slopes beyond the table."""
    by_size = [_line(columns, row, d) for row in values]
    return _line(sizes, np.array(by_size), n)


def _line(at: np.ndarray, values: np.ndarray, place: float) -> float:
    k = int(np.clip(np.searchsorted(at, place), 1, len(at) - 1))
    part = (place - at[k - 1]) / (at[k] - at[k - 1])
    return float(values[k - 1] + part * (values[k] - values[k - 1]))


@cache
def _measured() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By kind: log rows [r], log columns [c] and the log of the limits [r, c], which never fall where columns are added."""
    with Path(__file__).with_name("sight.csv").open(newline="") as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    found = {}
    for kind in KINDS:
        mine = {(int(r["n"]), int(r["columns"])): float(r["limit"]) for r in rows if r["kind"] == kind}
        sizes, columns = (sorted({key[i] for key in mine}) for i in (0, 1))
        values = np.log([[mine[n, d] for d in columns] for n in sizes])
        found[kind] = np.log(sizes), np.log(columns), np.maximum.accumulate(values, axis=1)
    return found
