"""What would have been seen: the smallest MI found in 19 of 20 samples, by kind of dependence, rows and columns.

Where nothing is found this is what can be said: dependence of these kinds above its limit would have shown. Others may hide
more. sight.csv is measured by benchmarks/sight.py, on dependence planted between normal columns, at effort "fast".
"""

from __future__ import annotations

import csv
import math
from functools import cache
from pathlib import Path

import numpy as np

KINDS = ("linear", "pair", "three")
Table = tuple[np.ndarray, np.ndarray, np.ndarray]


def limits(n: int, dim_x: int, dim_y: int) -> dict[str, float]:
    """Nats by kind, for `n` independent rows: a linear dependence in any direction, a smooth one of one pair of columns, and
    a smooth one between sums of three columns a side.

    Log-linear between the sizes that were measured, and beyond them with the outermost slopes. Columns count by the
    geometric mean of the two sides, as the number of their pairs does. One column against one has nothing to spread over: the
    limit is that of one pair there.

    >>> found = limits(1000, 5, 5)
    >>> found["linear"] < found["three"] < limits(300, 5, 5)["three"]
    True
    """
    at = math.log(n), math.log(dim_x * dim_y) / 2
    found = {kind: math.exp(_between(_measured()[kind], *at)) for kind in KINDS}
    if dim_x == dim_y == 1:
        found["three"] = found["pair"]
    return found


def _between(table: Table, rows: float, columns: float) -> float:
    sizes, widths, values = table
    return _line(sizes, np.array([_line(widths, of_size, columns) for of_size in values]), rows)


def _line(at: np.ndarray, values: np.ndarray, place: float) -> float:
    """Linear interpolation, with the outermost slopes beyond, which rise with columns and fall with rows."""
    k = int(np.clip(np.searchsorted(at, place), 1, len(at) - 1))
    part = (place - at[k - 1]) / (at[k] - at[k - 1])
    return float(values[k - 1] + part * (values[k] - values[k - 1]))


@cache
def _measured() -> dict[str, Table]:
    """By kind: log rows [r], log columns [c] and the log of the limits [r, c], made to rise with columns and fall with rows."""
    with Path(__file__).with_name("sight.csv").open(newline="") as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    found = {}
    for kind in KINDS:
        mine = {(int(r["n"]), int(r["columns"])): float(r["limit"]) for r in rows if r["kind"] == kind}
        sizes, columns = (sorted({key[i] for key in mine}) for i in (0, 1))
        values = np.log([[mine[n, d] for d in columns] for n in sizes])
        values = np.maximum.accumulate(values, axis=1)  # the noise of few samples
        values = np.maximum.accumulate(values[::-1])[::-1]
        found[kind] = np.log(sizes), np.log(columns), values
    return found
