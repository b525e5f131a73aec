"""What would have been seen: the smallest MI found in 19 of 20 samples, by kind of dependence, rows and columns.

Where nothing is found this is what can be said: dependence of these kinds above its limit would have shown. Others may hide
more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flomi.support.settings import setting

_LAW = (
    "scale, power of rows and power of columns of the smallest MI found in 19 of 20, in nats, by maximum likelihood over {runs} "
    "samples of 300 to 3,000 rows and {columns} columns a side, effort 'fast' (benchmarks/sight.py, 2026-11-30)"
)


@dataclass(frozen=True)
class SightSettings:
    linear: tuple[float, float, float] = setting((1.0, -1.0, 1.0), _LAW.format(runs=126, columns="1 to 25"))
    pair: tuple[float, float, float] = setting((10.0, -1.0, 0.5), _LAW.format(runs=126, columns="1 to 25"))
    three: tuple[float, float, float] = setting((100.0, -0.8, 0.8), _LAW.format(runs=126, columns="3 to 30"))


SETTINGS = SightSettings()


def limits(n: int, dim_x: int, dim_y: int) -> dict[str, float]:
    """Nats by kind, for `n` independent rows: a linear dependence in any direction, a smooth one of one pair of columns, and
    a smooth one between sums of three columns a side.

    Columns count by the geometric mean of the two sides, as the number of their pairs does. One column against one has
    nothing to spread over: the limit is that of one pair there.

    >>> found = limits(1000, 5, 5)
    >>> found["linear"] < found["three"] < limits(300, 5, 5)["three"]
    True
    """
    columns = math.sqrt(dim_x * dim_y)
    found = {
        kind: scale * n**by_rows * columns**by_columns
        for kind, (scale, by_rows, by_columns) in vars(SETTINGS).items()
    }
    if columns == 1:
        found["three"] = found["pair"]
    return found
