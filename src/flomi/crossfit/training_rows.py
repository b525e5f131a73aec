"""What the choice of candidates may look at, of the rows that a fold trains on."""

from __future__ import annotations

import numpy as np

from flomi.critics.table import TrainingRows
from flomi.data.kinds import all_continuous, kinds_of


def training_rows(x: np.ndarray, y: np.ndarray) -> TrainingRows:
    """Of x and y, [n, d] or [n, ...].

    >>> training_rows(np.arange(100.0)[:, None], np.arange(100.0)[:, None] % 3)
    TrainingRows(n=100, dim_x=1, dim_y=1, continuous=False, levels_x=None, levels_y=3)
    """
    kinds = kinds_of(x), kinds_of(y)
    levels = [
        len(np.unique(side.reshape(len(side), -1), axis=0)) if set(kind) == {"discrete"} else None
        for side, kind in zip((x, y), kinds, strict=True)
    ]
    return TrainingRows(
        len(x), x[0].size, y[0].size, all(all_continuous(kind) for kind in kinds), levels[0], levels[1]
    )
