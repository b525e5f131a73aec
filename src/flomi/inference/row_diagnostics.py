"""What the rows themselves say: repeated rows, discrete sides, exact relations, as facts for a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flomi.inference.serial_dependence import effective_share
from flomi.support.settings import UNMEASURED, setting

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RowSettings:
    """What is looked at, and what counts as a repetition, an exact relation or a wrong scale."""

    atom: float = setting(
        0.05, f"{UNMEASURED}a value in a larger share of a column is one of its own (zero, limit)"
    )
    limit: int = setting(5, f"{UNMEASURED}rows at 0 or at a column's end, from which on that is a limit")
    many_values: float = setting(0.5, f"{UNMEASURED}values over rows, above which a column is continuous")
    few_values: float = setting(
        50.0, f"{UNMEASURED}a column with fewer values among repeated rows holds codes"
    )
    natural_ties: float = setting(
        3.0,
        "times what pairs one unit of rounding apart predict: a smooth density gives 1, but large values have fewer decimals and "
        "people prefer some digits; up to 2.5 in columns of the breast cancer data (2026-11-30)",
    )
    rounding: float = setting(
        1e-9, "of a column's range: values closer than that differ by errors of arithmetic"
    )
    units: tuple[int, ...] = setting(
        (1, 10, 100, 1000), "of rounding that are tried, in units of the smallest one"
    )
    steps: int = setting(
        10, f"{UNMEASURED}units up to which neighbouring values are looked at for being whole units apart"
    )
    least_steps: int = setting(5, f"{UNMEASURED}neighbours so near; fewer are whole units apart by chance")
    off_step: float = setting(
        0.1, f"{UNMEASURED}of a unit; without rounding four of five are further from a whole one"
    )
    broken: float = setting(
        0.2, f"{UNMEASURED}share of neighbours that are no whole units apart, in rounded values"
    )
    determined: float = setting(
        0.5, "share of a side's ties that are ties of both, from which on the other side follows from it"
    )
    tie_columns: int = setting(20, "with the fewest values, in which ties are looked for; more take seconds")
    nearly_all_values: float = setting(
        0.9, f"{UNMEASURED}values over rows, above which ties do not blur neighbours"
    )
    linear_rows: int = setting(10_000, "an exact relation shows in the first rows")
    linear_dimensions: int = setting(400, "more take seconds")
    rows_per_dimension: int = setting(10, f"{UNMEASURED}fewer fit any linear relation closely")
    linear_doubt: float = setting(1e-6, f"{UNMEASURED}below, a few extreme rows may make the relation up")
    extreme_rows: float = setting(0.05, f"{UNMEASURED}share of the rows left out where they may")
    variate_digits: int = setting(
        9, "of a combination of columns, so that rounding errors make no values of their own"
    )
    local_rows: int = setting(250, f"{UNMEASURED}a dimension; neighbours among fewer are far apart")
    far_neighbour: int = setting(
        8, f"{UNMEASURED}far enough from the first neighbour, near enough to be local"
    )
    local_shrinkage: float = setting(
        0.25,
        "derived: squared differences of a smooth function shrink from the eighth neighbour to the first by 1/16 to 1/64 in "
        "one dimension, by 1/8 in two, those of noise by 1",
    )
    grid: int = setting(30, f"{UNMEASURED}values a dimension, below which a function is one of categories")
    repeated: float = setting(0.8, f"{UNMEASURED}of the rows may differ, where x repeats often")
    fitted: int = setting(
        4, "neighbours a dimension in a linear fit: two more than it has parameters, in one dimension"
    )
    line_shrinkage: float = setting(
        0.05,
        "derived: a ring seven times as wide makes errors of a smooth function 49^2 times as large in squares in one dimension, "
        "and 49 times in two (its radius is 2.6 times), those of noise once",
    )
    line_noise: float = setting(
        0.02,
        f"{UNMEASURED}of the variance: what a ring leaves counts up to that, for noise hides beside sharp bends",
    )
    function_values: float = setting(0.4, "values over rows of a function, which may take each twice")
    column_pairs: int = setting(400, "more take seconds")
    column_pair_rows: int = setting(500_000, "rows times pairs, for the same reason")
    large: float = setting(
        10.0, f"{UNMEASURED}means, deviations, and their ratio at which networks hardly learn"
    )
    narrow: float = setting(0.01, f"{UNMEASURED}standard deviation below which they hardly learn")


SETTINGS = S = RowSettings()


class _Side:
    """One side's rows [n, d], and what several of the diagnostics ask of them, counted once."""

    def __init__(self, rows: Floats) -> None:
        self.rows = rows

    @cached_property
    def distinct_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For every row the number of its kind, and how often each kind occurs; -0.0 is 0.0."""
        rows = self.rows
        kinds = np.ascontiguousarray(rows + 0.0).view(f"V{rows.itemsize * rows.shape[1]}").ravel()
        _, kind, counts = np.unique(kinds, return_inverse=True, return_counts=True)
        return kind.ravel(), counts

    @cached_property
    def values(self) -> NDArray[np.int64]:
        """How many values each column takes [d]."""
        return np.array([len(np.unique(column)) for column in self.rows.T], dtype=np.int64)

    def columns(self, share: float) -> Floats:
        """Those that take more than `share` times as many values as there are rows."""
        return self.rows[:, self.values > share * len(self.rows)]


def describe_rows(x: Floats, y: Floats, groups: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """Repeated rows, entropies, exact relations and scales of x [n, dim_x] and y [n, dim_y], named as in `Evidence`.

    Rows of one group may repeat or resemble each other: repetitions count between groups, relations on one row of each.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((1000, 1))
        >>> describe_rows(x, x**2)["local_noise"] < 1e-4
        True
    """
    a, b = (_Side(np.asarray(side, dtype=np.float64).reshape(len(side), -1)) for side in (x, y))
    facts = {
        "duplicates": _duplicates(a, b, groups),
        "effective_share": effective_share(a.rows, b.rows) if groups is None else None,
        "entropy_x": _entropy(a.distinct_rows[1]),
        "entropy_y": _entropy(b.distinct_rows[1]),
        "unscaled_columns": _unscaled_columns(a.rows, b.rows),
    }
    if groups is not None:
        first = np.sort(np.unique(groups, return_index=True)[1])
        a, b = _Side(a.rows[first]), _Side(b.rows[first])
    return {**facts, "linear_noise": _linear_noise(a, b), "local_noise": _exact_function(a, b)}


def _duplicates(x: _Side, y: _Side, groups: NDArray[np.int64] | None) -> float:
    """Share of rows that repeat another one in a value which no honest measurement repeats, beyond the ties of rounded values."""
    both = _Side(np.concatenate([x.rows, y.rows], axis=1))
    kind, counts = both.distinct_rows
    n, distinct = len(kind), len(counts)
    if distinct == n:
        return 0.0
    telling = np.zeros(n, dtype=bool)
    least = max(
        S.few_values, math.sqrt(n), S.many_values * distinct if distinct <= S.many_values * n else 0.0
    )
    for column, values in zip(both.rows.T, np.concatenate([x.values, y.values]), strict=True):
        # continuous: most distinct rows differ in it, or most rows from each other
        # whole numbers may also be codes, which repeat with what they code
        if values > S.many_values * n or (values > least and (column % 1 != 0).any()):
            found, value, often = np.unique(column, return_inverse=True, return_counts=True)
            end = (found == 0) | (found == found[0]) | (found == found[-1])
            telling |= (often <= np.where(end, min(S.limit, S.atom * n), S.atom * n))[value.ravel()]
    units = np.arange(n) if groups is None else groups
    labels, first = np.unique(np.stack([kind, units], axis=1), axis=0, return_index=True)
    kept, first = labels[telling[first]], first[telling[first]]
    repeats = len(kept) - len(np.unique(kept[:, 0]))
    if repeats == 0:
        return 0.0
    ties, natural = _ties(both.rows[first])
    for side in (x, y):
        of_side, natural_of_side = _ties(side.rows[first])
        if ties > S.determined * of_side:  # those that are not of both, are natural all the same
            natural = max(natural, natural_of_side - (of_side - ties))
    return repeats / n * max(0.0, 1 - S.natural_ties * natural / ties)


def _ties(rows: Floats) -> tuple[float, float]:
    """Pairs of equal rows, and how many of them rounding makes: the most over columns."""
    rng = np.random.default_rng(0)
    codes = []
    for column in rows.T:  # sums of random codes tell rows apart, and rows less a column
        _, value = np.unique(column, return_inverse=True)
        codes.append(rng.integers(0, 2**64, value.max() + 1, dtype=np.uint64)[value.ravel()])
    whole = np.sum(codes, axis=0, dtype=np.uint64)
    counts = np.unique(whole, return_counts=True)[1].astype(np.float64)
    few = np.argsort([len(np.unique(code)) for code in codes], kind="stable")[: S.tie_columns]
    natural = max(_rounded_ties(rows[:, j], whole - codes[j]) for j in few)
    return float(counts @ (counts - 1)) / 2, natural


def _rounded_ties(column: Floats, others: NDArray[np.uint64]) -> float:
    """How many pairs of equal values, among rows alike in all `others`, come of rounding this column.

    A density that is smooth beside the unit of rounding makes half as many equal pairs as pairs that differ by one unit. Copies
    make equal pairs alone, and values that were not rounded lie at any fraction of a unit. Numbers with so many digits have one
    unit in each power of ten.
    """
    size = np.abs(column)
    decade = np.where(size > 0, np.floor(np.log10(np.where(size > 0, size, 1.0))), 0.0) * 2 + (column < 0)
    found = 0.0
    for place in np.unique(decade):
        mine = decade == place
        values, labels = column[mine], others[mine]
        gaps = np.diff(np.unique(values))
        gaps = gaps[gaps > S.rounding * size[mine].max(initial=0.0)]
        if not gaps.size:
            continue
        order = np.lexsort((values, labels))
        values, labels = values[order], labels[order]
        new = np.flatnonzero(np.append(True, (np.diff(values) != 0) | (labels[1:] != labels[:-1])))
        many = np.diff(np.append(new, len(values))).astype(np.float64)
        beside = labels[new[1:]] == labels[new[:-1]]
        apart, pairs = np.diff(values[new])[beside] / gaps.min(), (many[1:] * many[:-1])[beside]
        found += max(_a_unit_apart(apart / unit, pairs) for unit in S.units) / 2
    return found


def _a_unit_apart(steps: Floats, pairs: Floats) -> float:
    """How many of the `pairs` are one unit apart, if neighbouring values are whole numbers of steps apart; else 0."""
    near = steps < S.steps + 0.5
    steps, pairs = steps[near], pairs[near]
    broken = (np.abs(steps - steps.round()) > S.off_step) | (steps < 0.5)
    if len(steps) < S.least_steps or pairs[broken].sum() > S.broken * pairs.sum():
        return 0.0
    return float(pairs[steps.round() == 1].sum())


def _entropy(counts: NDArray[np.int64]) -> float | None:
    """Plug-in entropy with Miller and Madow's correction (K - 1)/2n; None where values hardly repeat."""
    n = int(counts.sum())
    if len(counts) > S.many_values * n:
        return None
    return float(np.log(n) - counts @ np.log(counts) / n + (len(counts) - 1) / (2 * n))


def _unscaled_columns(x: Floats, y: Floats) -> str | None:
    """Which columns a critic that gets the rows as they are hardly learns from, in words; None if there are none."""
    found, worst = [], ""
    for name, side in (("x", x), ("y", y)):
        with np.errstate(over="ignore"):
            mean, std = side.mean(axis=0), side.std(axis=0)
        # a constant column is neither too narrow nor too far off for its width
        narrow = (std > 0) & ((std < S.narrow) | (np.abs(mean) > S.large * std))
        off = (np.abs(mean) > S.large) | (std > S.large) | narrow
        if off.any():
            k = int(off.argmax())
            found.append(f"{int(off.sum())} of {len(off)} columns of {name}")
            worst = (
                worst or f"column {k} of {name} has mean {mean[k]:.3g} and standard deviation {std[k]:.3g}"
            )
    return f"{' and '.join(found)} are far from mean 0 and standard deviation 1 ({worst})" if found else None


def _linear_noise(x: _Side, y: _Side) -> float | None:
    """1 - the largest squared canonical correlation; None where rows are too few, or values, for it to mean anything."""
    n, dimensions = len(x.rows), x.rows.shape[1] + y.rows.shape[1]
    if n < S.rows_per_dimension * dimensions or dimensions > S.linear_dimensions:
        return None
    if not (x.columns(S.many_values).size and y.columns(S.many_values).size):
        return None
    a, b = (_standardized(side.rows[: S.linear_rows]) for side in (x, y))
    share = _canonical_noise(a, b)
    if share is None or share > S.linear_doubt:
        return share
    size = np.maximum(np.abs(a).max(axis=1), np.abs(b).max(axis=1))
    usual = size <= np.quantile(size, 1 - S.extreme_rows)
    return _canonical_noise(_standardized(a[usual]), _standardized(b[usual]))


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
    for u, cosine, v in zip(left.T, cosines, right, strict=False):
        variate = a @ u
        # what categories share is finite
        if len(np.unique((variate / np.abs(variate).max()).round(S.variate_digits))) <= S.many_values * len(
            a
        ):
            continue
        difference = variate - b @ v
        return float(difference @ difference) if cosine > 0.5 else float(1 - cosine**2)
    return None


def _exact_function(x: _Side, y: _Side) -> float | None:
    """The least of `_local_noise`, for sides of one or two columns and for single columns; 0 where a column has the order of
    another, or the opposite one."""
    both = np.ascontiguousarray(np.concatenate([x.rows, y.rows], axis=1))
    first = np.sort(np.unique(_Side(both).distinct_rows[0], return_index=True)[1])
    repeats = len(first) < S.repeated * len(both)
    if S.grid <= len(first) < len(both):  # a function on a grid repeats its rows
        x, y = _Side(x.rows[first]), _Side(y.rows[first])
    a, b = (side.columns(S.many_values) for side in (x, y))
    orders = {np.argsort(column, kind="stable").tobytes() for column in a.T}
    if any(np.argsort(v, kind="stable").tobytes() in orders for column in b.T for v in (column, -column)):
        return 0.0
    found = [
        _local_noise(x, y),
        _local_noise(y, x),
        *(_noise_around_lines(*sides, repeats) for sides in ((x, y), (y, x))),
    ]
    pairs = a.shape[1] * b.shape[1]
    if 1 < pairs <= S.column_pairs:
        u, v = (_Side(side[: S.column_pair_rows // pairs + S.local_rows]) for side in (a, b))
        found += [_local_noise_by_column(u, v), _local_noise_by_column(v, u)]
    return min((value for value in found if value is not None), default=None)


def _local_noise(x: _Side, y: _Side) -> float | None:
    """Median squared difference in y's ranks between nearest neighbours in x, in units of a random pair's.

    The least over y's columns that shrink with the distance as an exact function does; None where none does, or where
    rows are too few, or dimensions too many, to tell.
    """
    n, dimensions = x.rows.shape
    if n < S.local_rows * dimensions or dimensions > 2:
        return None
    columns = y.columns(S.nearly_all_values)
    if not columns.size or len(x.distinct_rows[1]) < S.nearly_all_values * n:
        return None
    from scipy.spatial import cKDTree

    place, ranks = _ranks(x.rows), _ranks(columns)
    neighbours = np.asarray(
        cKDTree(place).query(place, k=S.far_neighbour + 1)[1]
    )  # the row itself is the first
    near, far = (np.median((ranks - ranks[neighbours[:, k]]) ** 2, axis=0) for k in (1, S.far_neighbour))
    return min(_shrinking(near, far, n), default=None)


def _noise_around_lines(x: _Side, y: _Side, repeats: bool) -> float | None:
    """The same for fewer rows: the share of variance that a linear fit to a row's nearest neighbours leaves of it.

    Of an exact function a fit to a ring of neighbours further away leaves much more, of noise as much. Where x repeats often, and
    y with it, less is asked: noise would differ.
    """
    n, dimensions = x.rows.shape
    k = S.fitted * dimensions
    columns = y.columns(S.function_values)
    if not S.grid * dimensions <= n < S.local_rows * dimensions or dimensions > 2 or not columns.size:
        return None
    if len(x.distinct_rows[1]) < n:  # one x with several y
        return None
    from scipy.spatial import cKDTree

    place, targets = _standardized(x.rows), _standardized(columns)
    neighbours = np.asarray(cKDTree(place).query(place, k=4 * k + 1)[1])[:, 1:]
    left = []
    for some in (neighbours[:, :k], neighbours[:, 3 * k :]):
        offset = place[some] - place[:, None]
        size = np.abs(offset).max(axis=(1, 2), keepdims=True)
        offset /= np.where(size > 0, size, 1.0)
        design = np.concatenate([np.ones_like(offset[..., :1]), offset], axis=2)
        fit = np.linalg.pinv(design) @ targets[some]
        left.append(np.median((targets - fit[:, 0]) ** 2, axis=0))
    near, ring = left
    limit = S.local_shrinkage * ring if repeats else S.line_shrinkage * np.minimum(ring, S.line_noise)
    return min(near[near < limit].tolist(), default=None)


def _local_noise_by_column(x: _Side, y: _Side) -> float | None:
    """The least of `_local_noise` of one column of x and y: in that column's order, neighbours are side by side."""
    n = len(x.rows)
    columns, targets = (side.columns(S.nearly_all_values) for side in (x, y))
    if n < S.local_rows or not targets.size:
        return None
    ranks = _ranks(targets)
    found: list[float] = []
    for column in columns.T:
        ordered = ranks[np.argsort(column, kind="stable")]
        # half of a row's neighbours lie on either side
        near, far = (np.median((ordered[k:] - ordered[:-k]) ** 2, axis=0) for k in (1, S.far_neighbour // 2))
        found += _shrinking(near, far, n)
    return min(found, default=None)


def _shrinking(near: Floats, far: Floats, n: int) -> list[float]:
    """Those squared rank differences `near` that shrink as an exact function's do, as shares of a random pair's."""
    difference = n * (1 - math.sqrt(0.5))  # median of two uniform ranks
    found: list[float] = (near[near < S.local_shrinkage * far] / (difference * difference)).tolist()
    return found


# scipy.stats.rankdata would take a second to import.


def _ranks(columns: Floats) -> Floats:
    """0 ... n - 1 in each column; ties, rare where this is used, in order of the rows."""
    return np.argsort(np.argsort(columns, axis=0, kind="stable"), axis=0).astype(np.float64)
