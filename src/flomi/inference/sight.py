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
SIZE = 10_000  # rows, beyond which several candidates look at no more
Table = tuple[np.ndarray, np.ndarray, np.ndarray]


def limits(n: int, dim_x: int, dim_y: int) -> dict[str, float]:
    """Nats by kind, for `n` independent rows: a linear dependence in any direction, a smooth one of one pair of columns, and
    a smooth one between sums of three columns a side.

    Log-linear between the sizes that were measured, and beyond them in proportion to columns over rows, of which at most 10,000
    count. Columns count by the geometric mean of the two sides, as the number of their pairs does. One column against one
    has nothing to spread over: the limit is that of one pair there.

    >>> found = limits(1000, 5, 5)
    >>> found["linear"] < found["three"] < limits(300, 5, 5)["three"]
    True
    """
    at = math.log(min(n, SIZE)), math.log(dim_x * dim_y) / 2
    found = {kind: math.exp(_between(_measured()[kind], *at)) for kind in KINDS}
    found["three"] = found["pair"] if dim_x == dim_y == 1 else max(found["three"], found["pair"])
    return found


def _between(table: Table, rows: float, columns: float) -> float:
    """Linear interpolation in logarithms; beyond the table in proportion to columns over rows."""
    sizes, widths, values = table
    n, d = (float(np.clip(place, at[0], at[-1])) for place, at in ((rows, sizes), (columns, widths)))
    by_size = [float(np.interp(d, widths, of_size)) for of_size in values]
    return float(np.interp(n, sizes, by_size)) + (columns - d) - (rows - n)


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
