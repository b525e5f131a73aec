"""What the rows themselves say: copies, discrete sides, exact relations. `describe_rows` gives it as facts for a verdict."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["describe_rows"]

Floats = NDArray[np.float64]

# A value that more than this share of a column takes repeats because it is a value of its own (a zero, a detection limit).
ATOM = 0.05
# An exact relation shows in the first rows, and a search in more dimensions takes seconds.
MAX_LINEAR_ROWS, MAX_LINEAR_DIMENSIONS = 10_000, 400
# Below this share an exact linear relation is looked at again without the most extreme rows, which can make one up.
LINEAR_DOUBT, EXTREME_ROWS = 1e-6, 0.05
# An exact function's differences between neighbours shrink with the distance, noise's do not: from the eighth neighbour to
# the first by 1/16 in one dimension and 1/8 in two, for noise by 1.
LOCAL_SHRINKAGE = 0.25
LOCAL_ROWS = 250  # a dimension: fewer can't tell
MAX_PAIRS, MAX_PAIR_ROWS = 400, 500_000  # of single columns; 1,500 rows each for 400 pairs
MAX_SERIAL_COLUMNS = 50


def describe_rows(x: Floats, y: Floats, groups: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """Copies, discrete entropies and exact relations, from x [n, dim_x] and y [n, dim_y], named as in `verdict.Evidence`.

    Rows of one group may repeat or resemble each other: copies count between groups, relations on one row of each.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1000, 1))
        >>> describe_rows(x, x**2)["local_noise"] < 1e-4
        True
    """
    x, y = (np.asarray(side, dtype=np.float64).reshape(len(side), -1) for side in (x, y))
    facts = {
        "duplicates": _copies(np.concatenate([x, y], axis=1), groups),
        "serial": _serial(x, y) if groups is None else None,
        "entropy_x": _entropy(_different(x)[1]),
        "entropy_y": _entropy(_different(y)[1]),
    }
    if groups is not None:
        first = np.sort(np.unique(groups, return_index=True)[1])
        x, y = x[first], y[first]
    return {**facts, "linear_noise": _linear_noise(x, y), "local_noise": _exact_function(x, y)}


def _different(rows: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every row the number of its kind, and how often each kind occurs; -0.0 is 0.0."""
    kinds = np.ascontiguousarray(rows + 0.0).view(f"V{rows.itemsize * rows.shape[1]}").ravel()
    _, kind, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    return kind.ravel(), counts


def _copies(rows: Floats, groups: NDArray[np.int64] | None) -> float:
    """Share of rows that repeat another one in a value which no honest measurement repeats."""
    n = len(rows)
    kind, counts = _different(rows)
    distinct = len(counts)
    if distinct == n:
        return 0.0
    telling = np.zeros(n, dtype=bool)
    for column in rows.T:
        _, value, often = np.unique(column, return_inverse=True, return_counts=True)
        # continuous: most different rows differ in it; whole numbers may also be codes, which repeat with what they code
        spread = len(often) > 0.5 * n or (
            len(often) > max(0.5 * distinct, 50.0, np.sqrt(n)) and bool((column % 1 != 0).any())
        )
        if spread:
            telling |= often[value.ravel()] <= ATOM * n
    units = np.arange(n) if groups is None else groups
    kept = np.stack([kind, units], axis=1)[telling]
    return float((len(np.unique(kept, axis=0)) - len(np.unique(kept[:, 0]))) / n)


def _entropy(counts: NDArray[np.int64]) -> float | None:
    """Plug-in entropy with Miller and Madow's correction (K - 1)/2n; None where values hardly repeat."""
    n = int(counts.sum())
    if len(counts) > n / 2:
        return None
    return float(np.log(n) - counts @ np.log(counts) / n + (len(counts) - 1) / (2 * n))


def _serial(x: Floats, y: Floats) -> float:
    """What n rows in order of time are worth: (1 - ab) / (1 + ab), with a and b the largest lag-1 rank correlations of x and y.

    That is the share of independent rows with as noisy a correlation between two autoregressive columns (Bartlett 1935).
    """
    lags = []
    for side in (x, y):
        ranks = np.stack([_middle_ranks(column) for column in side.T[:MAX_SERIAL_COLUMNS]])
        ranks -= ranks.mean(axis=1, keepdims=True)
        variance = (ranks**2).mean(axis=1)
        lag = (ranks[:, 1:] * ranks[:, :-1]).mean(axis=1)[variance > 0] / variance[variance > 0]
        lags.append(max(0.0, float(lag.max(initial=0.0))))
    return (1 - lags[0] * lags[1]) / (1 + lags[0] * lags[1])


def _many_values(side: Floats) -> NDArray[np.bool_]:
    """Which columns take more than half as many values as there are rows."""
    return np.array([len(np.unique(column)) > len(side) / 2 for column in side.T], dtype=bool)


def _linear_noise(x: Floats, y: Floats) -> float | None:
    """1 - the largest squared canonical correlation; None where rows are too few, or values, for it to mean anything."""
    dimensions = x.shape[1] + y.shape[1]
    if not (_many_values(x).any() and _many_values(y).any()):
        return None
    if len(x) < 10 * dimensions or dimensions > MAX_LINEAR_DIMENSIONS:
        return None
    x, y = _standardized(x[:MAX_LINEAR_ROWS]), _standardized(y[:MAX_LINEAR_ROWS])
    share = _canonical_noise(x, y)
    if share is None or share > LINEAR_DOUBT:
        return share
    size = np.maximum(np.abs(x).max(axis=1), np.abs(y).max(axis=1))
    usual = size <= np.quantile(size, 1 - EXTREME_ROWS)
    return _canonical_noise(_standardized(x[usual]), _standardized(y[usual]))


def _standardized(side: Floats) -> Floats:
    largest = np.abs(side).max(axis=0)
    side = side / np.where(largest > 0, largest, 1.0)  # so that no square overflows
    side = side - side.mean(axis=0)
    scale = side.std(axis=0)
    return side / np.where(scale > 0, scale, 1.0)


def _canonical_noise(x: Floats, y: Floats) -> float | None:
    bases = []
    for side in (x, y):
        u, s, _ = np.linalg.svd(side, full_matrices=False)
        bases.append(u[:, s > 1e-10 * s[0]] if s[0] > 0 else u[:, :0])
    if min(basis.shape[1] for basis in bases) == 0:
        return None
    # the sine of the smallest angle, without the cancellation of 1 - cos^2
    a, b = bases
    left, cosines, right = np.linalg.svd(a.T @ b)
    difference = a @ left[:, 0] - b @ right[0]
    return float(difference @ difference) if cosines[0] > 0.5 else float(1 - cosines[0] ** 2)


def _exact_function(x: Floats, y: Floats) -> float | None:
    """The least of `_local_noise`, for sides of one or two columns and for single columns; 0 where a column has the order of
    another, or the opposite one."""
    a, b = (side[:, _many_values(side)] for side in (x, y))
    orders = {np.argsort(column, kind="stable").tobytes() for column in a.T}
    if any(np.argsort(v, kind="stable").tobytes() in orders for column in b.T for v in (column, -column)):
        return 0.0
    found = [_local_noise(x, y), _local_noise(y, x)]
    pairs = a.shape[1] * b.shape[1]
    if 1 < pairs <= MAX_PAIRS:
        a, b = (side[: MAX_PAIR_ROWS // pairs + LOCAL_ROWS] for side in (a, b))
        found += [_noise_by_column(a, b), _noise_by_column(b, a)]
    return min((value for value in found if value is not None), default=None)


def _local_noise(x: Floats, y: Floats) -> float | None:
    """Median squared difference in y's ranks between nearest neighbours in x, in units of a random pair's.

    The least over y's columns that shrink with the distance as an exact function does; None where none does, or where
    rows are too few, or dimensions too many, to tell.
    """
    from scipy.spatial import cKDTree

    n = len(x)
    if n < LOCAL_ROWS * x.shape[1] or x.shape[1] > 2:
        return None
    columns = [c for c in y.T if len(np.unique(c)) > 0.9 * n]
    if not columns or len(_different(x)[1]) < 0.9 * n:
        return None
    place: Floats = np.stack([_ranks(c) for c in x.T], axis=1)
    neighbours = np.asarray(cKDTree(place).query(place, k=9)[1])
    ranks: Floats = np.stack([_ranks(c) for c in columns], axis=1)
    near, far = (np.median((ranks - ranks[neighbours[:, k]]) ** 2, axis=0) for k in (1, 8))
    return min(_shrinking(near, far, n), default=None)


def _noise_by_column(x: Floats, y: Floats) -> float | None:
    """The least of `_local_noise` of one column of x and y: in that column's order, neighbours are side by side."""
    n = len(x)
    x, y = (side[:, [len(np.unique(c)) > 0.9 * n for c in side.T]] for side in (x, y))
    if n < LOCAL_ROWS or y.shape[1] == 0:
        return None
    ranks: Floats = np.stack([_ranks(c) for c in y.T], axis=1)
    found: list[float] = []
    for column in x.T:
        ordered = ranks[np.argsort(column, kind="stable")]
        near, far = (np.median((ordered[k:] - ordered[:-k]) ** 2, axis=0) for k in (1, 4))
        found += _shrinking(near, far, n)
    return min(found, default=None)


def _shrinking(near: Floats, far: Floats, n: int) -> list[float]:
    """Those squared rank differences `near` that shrink as an exact function's do, as shares of a random pair's."""
    difference = n * (1 - math.sqrt(0.5))  # median of two uniform ranks
    found: list[float] = (near[near < LOCAL_SHRINKAGE * far] / (difference * difference)).tolist()
    return found


def _ranks(values: Floats) -> Floats:
    """0 ... n - 1; ties, rare where this is used, in order of the rows."""
    return np.argsort(np.argsort(values, kind="stable")).astype(np.float64)


def _middle_ranks(values: Floats) -> Floats:
    """Ranks with ties at their middle."""
    _, kind, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - counts / 2)[kind.ravel()]
