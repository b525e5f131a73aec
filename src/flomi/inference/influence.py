"""Influence values: one number a row, whose mean is the estimate and whose spread is its sampling error.

Every reported number T has values v_i with mean T, so that se(T)^2 = Var(v) / n, summed within groups first where rows belong
together, and the difference of two numbers on the same rows has the values v_i - w_i. Reference: Hampel 1974, "The influence
curve and its role in robust estimation".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]


def mean_stderr(values: Array, groups: Labels | None = None) -> float:
    """Standard error of the mean of ``values`` [n]; with ``groups`` [n], of group sums (cluster-robust).

    s.e.^2 = G/(G-1) sum_g ( sum_{i in g} (v_i - mean) )^2 / n^2; groups of one row give the usual formula.

    Example:
        >>> import numpy as np
        >>> round(mean_stderr(np.array([1.0, 2.0, 3.0, 4.0])), 4)
        0.6455
    """
    values = np.asarray(values, dtype=np.float64)
    n = values.size
    centred = values - values.mean()
    if groups is not None:
        centred = np.bincount(np.unique(groups, return_inverse=True)[1].reshape(-1), centred)
    units, largest = centred.size, float(np.abs(centred).max(initial=0.0))
    if units < 2:
        return float("inf")
    if largest == 0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(units / (units - 1) * np.sum((centred / largest) ** 2)) / n)


def within_folds(values: Array, folds: Labels, estimate: float, groups: Labels | None = None) -> Array:
    """``values`` [n] less their fold's mean, plus the estimate.

    Folds are evaluated by models of their own, so that means differ between them for reasons other than the rows; ``interval``
    counts that apart. A mean taken away costs a degree of freedom in each fold, not one in all: deviations are scaled so that
    ``mean_stderr`` of the whole is what the folds' own standard errors make together. Rows of no fold, numbered -1, are NaN.

    Example:
        >>> within_folds(np.array([1.0, 3.0, 10.0, 12.0]), np.array([0, 0, 1, 1]), 5.0).round(2)
        array([3.78, 6.22, 3.78, 6.22])
    """
    found = np.full(len(values), np.nan)
    units = np.arange(len(values)) if groups is None else groups
    every = len(np.unique(units[folds >= 0]))
    for k in range(int(folds.max(initial=-1)) + 1):
        mine = folds == k
        count = len(np.unique(units[mine]))
        scale = np.sqrt(count / max(count - 1, 1) * (every - 1) / every)
        with np.errstate(invalid="ignore"):  # infinite terms have no mean
            found[mine] = (values[mine] - values[mine].mean()) * scale + estimate
    return found
