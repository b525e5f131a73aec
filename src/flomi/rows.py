"""What the rows themselves say: copies, discrete sides, exact relations. `describe_rows` gives it as facts for a verdict."""

from __future__ import annotations

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
        "entropy_x": _entropy(_different(x)[1]),
        "entropy_y": _entropy(_different(y)[1]),
    }
    if groups is not None:
        first = np.sort(np.unique(groups, return_index=True)[1])
        x, y = x[first], y[first]
    local = [value for value in (_local_noise(x, y), _local_noise(y, x)) if value is not None]
    return {**facts, "linear_noise": _linear_noise(x, y), "local_noise": min(local, default=None)}


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


def _linear_noise(x: Floats, y: Floats) -> float | None:
    """1 - the largest squared canonical correlation; None where rows are too few for it to mean anything."""
    dimensions = x.shape[1] + y.shape[1]
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
    ranks: Floats = np.stack([_ranks(c) for c in x.T], axis=1)
    neighbours = np.asarray(cKDTree(ranks).query(ranks, k=9)[1])
    random_pair = (n * (1 - 0.5**0.5)) ** 2  # median squared difference of two uniform ranks
    found = []
    for rank in map(_ranks, columns):
        near, far = (float(np.median((rank - rank[neighbours[:, k]]) ** 2)) for k in (1, 8))
        if near < LOCAL_SHRINKAGE * far:
            found.append(float(near / random_pair))
    return min(found, default=None)


def _ranks(values: Floats) -> Floats:
    """0 ... n - 1; ties, rare where this is used, in order of the rows."""
    return np.argsort(np.argsort(values, kind="stable")).astype(np.float64)
