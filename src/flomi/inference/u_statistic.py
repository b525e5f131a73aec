"""From held-out scores to numbers with error bars: bound, plug-in, imbalance, their standard errors, the interval.

How to call it, for K folds of held-out scores p (``-u`` for FLO) in ``PairScores`` (see certificate.py)::

    s = summarise([fold_1, ..., fold_K])    # s.bound, s.bound_stderr, s.plug_in, s.imbalance, s.ess, s.fold_bounds, ...
    i = interval(mi, mean_stderr(pmi, groups), folds=per_fold_estimates, model=d)   # i.stderr, i.low, i.high
    c = certificate([(held_out_1, calibration_1), ...], alpha=0.05, seed=seed)               # c.value
    verdict, findings = judge(Evidence(n=n, ...))                                            # verdict.py

All values in nats. Standard errors here are asymptotic; only the certificate holds in finite samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flomi.inference.certificate import Array, Certificate, PairScores, certificate
from flomi.inference.verdict import Evidence, judge

__all__ = [
    "Certificate",
    "Evidence",
    "Exponential",
    "FoldSummary",
    "Interval",
    "PairScores",
    "Summary",
    "certificate",
    "fold_summary",
    "interval",
    "judge",
    "mean_stderr",
    "pooled",
    "summarise",
]

Labels = NDArray[np.int64]
LARGEST = 1e300  # an infinite score less this is infinite still
SHIFTS = 16  # so many columns of a table are read at a time
TILE = 256  # rows and columns of a matrix that is read with its mirror image


@dataclass(frozen=True)
class FoldSummary:
    """What one fold's held-out rows say; field names as in ``Summary``."""

    n: int
    bound: float
    bound_stderr: float
    plug_in: float
    plug_in_stderr: float
    imbalance: float
    imbalance_stderr: float
    ess: float
    pairs: int


@dataclass(frozen=True)
class Summary(FoldSummary):
    """The folds together, weighted by their rows; nats.

    ``bound = E[p] - imbalance`` with ``imbalance = A - 1``, A the mean of the exponential term over all pairs given;
    ``plug_in = E[p]``; ``ess`` the number of equally large
    pairs that the exponential term amounts to, (sum e)^2 / sum e^2, summed over folds; ``pairs`` the pairs used.
    """

    folds: tuple[FoldSummary, ...]

    @property
    def fold_bounds(self) -> tuple[float, ...]:
        """Each fold's bound."""
        return tuple(fold.bound for fold in self.folds)

    @property
    def fold_stderrs(self) -> tuple[float, ...]:
        """Each fold's standard error of the bound."""
        return tuple(fold.bound_stderr for fold in self.folds)


@dataclass(frozen=True)
class Interval:
    """Standard error and two-sided interval; ``parts`` holds each source's standard error."""

    stderr: float
    low: float
    high: float
    parts: dict[str, float]


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


@dataclass(frozen=True)
class Exponential:
    """What the pairs' terms e_ij of the exponential leave behind, when they are gone.

    ``mean`` A over all pairs, the ``rows``' sums [n] in units of exp(``top``), each row's ``influence`` [n] on A, the standard
    error that its ``degenerate`` part leaves, its effective size ``ess``, and how many ``pairs`` there were.

    With the Hoeffding decomposition e_ij = A + r_i + c_j + d_ij, a row's influence is r_i + c_i, row and column
    together. Means over m partners carry the noise of d twice, where the mean of all e_ij carries it once; the
    degenerate part is there so that one of them can be taken away.
    """

    mean: float
    rows: Array
    top: float
    influence: Array
    degenerate: float
    ess: float
    pairs: int

    @classmethod
    def of_pairs(cls, scores: PairScores) -> Exponential:
        """e = exp(neg), by cyclic shifts, a few of them at a time, so that memory is that of neg."""
        n, m = scores.neg.shape
        neg, keep = (scores.neg, None) if scores.groups is None else scores.between_groups()
        top = float(np.clip(neg.max(), -LARGEST, LARGEST))
        shifts = scores.shifts % n

        def terms(some: slice) -> Array:
            """[shifts, n] the terms of some shifts."""
            found: Array = np.ascontiguousarray(neg[:, some].T)
            np.exp(np.subtract(found, top, out=found), out=found)
            return found

        row, column, squares, products = np.zeros(n), np.zeros(n), 0.0, 0.0
        row_count, column_count = np.full((2, n), float(m))
        if keep is not None:
            row_count, column_count = keep.sum(axis=1), np.zeros(n)
        for start in range(0, m, SHIFTS):
            e = terms(slice(start, start + SHIFTS))
            row += e.sum(axis=0)
            squares += float(np.vdot(e, e))
            for k, v in enumerate(e, start):
                column += np.roll(v, shifts[k])
                if keep is not None:
                    column_count += np.roll(keep[:, k], shifts[k])
        # the degenerate part's variance needs enough partners to tell it from the projections; groups keep the larger value
        if m >= 4 and keep is None and np.isfinite(squares):
            # sum of d_ij^2, d_ij = e_ij - r_i - c_j, from sums of e and e^2
            r, c = row / m - row.sum() / (n * m), column / m
            across = sum(float(r @ np.roll(c, -shift)) for shift in shifts)
            products = squares - 2 * float(row @ r + column @ c) + m * float(r @ r + c @ c) + 2 * across
            at = {int(shift): k for k, shift in enumerate(shifts)}
            for k, shift in enumerate(shifts):
                # where the pair (j, i) is in the table too, d_ij and d_ji share both rows
                if (other := at.get(int(n - shift), -1)) >= k:
                    d = terms(slice(k, k + 1))[0] - r - np.roll(c, -shift)
                    mirror = terms(slice(other, other + 1))[0] - r - np.roll(c, shift)
                    products += (1 if other == k else 2) * float(d @ np.roll(mirror, -shift))
        return cls._made(top, row, column, row_count, column_count, squares, products)

    @classmethod
    def of_matrix(cls, e: Array, top: float, groups: Labels | None = None) -> Exponential:
        """From ``e`` [n, n], which holds exp(log e_ij - top) of all pairs, and 0 where i = j or both are of one group."""
        n = len(e)
        count = np.full(n, n - 1.0) if groups is None else n - np.bincount(groups)[groups].astype(float)
        row, column = e.sum(axis=1), e.sum(axis=0)
        squares, products = float(np.vdot(e, e)), 0.0
        if n > 4 and groups is None and np.isfinite(squares):
            # sum of d_ij (d_ij + d_ji), d_ij = e_ij - r_i - c_j, from sums of e, e^2 and e_ij e_ji
            r, c = row / (n - 1) - row.sum() / (n * (n - 1)), column / (n - 1)
            mirrored = 0.0
            for i in range(0, n, TILE):
                for j in range(i, n, TILE):
                    tile, mirror = e[i : i + TILE, j : j + TILE], e[j : j + TILE, i : i + TILE]
                    mirrored += (1 if i == j else 2) * float(np.vdot(tile, mirror.T))
            own, across = row @ r + column @ c, row @ c + column @ r
            of_d = (n - 1) * (r @ r + c @ c) + 2 * (r.sum() * c.sum() - r @ c)
            of_mirror = 2 * (n - 1) * (r @ c) + (r.sum() ** 2 - r @ r) + (c.sum() ** 2 - c @ c)
            products = float(squares - 2 * own + of_d + mirrored - 2 * across + of_mirror)
        return cls._made(top, row, column, count, count, squares, products)

    @classmethod
    def _made(
        cls,
        top: float,
        row: Array,
        column: Array,
        row_count: Array,
        column_count: Array,
        squares: float,
        products: float,
    ) -> Exponential:
        """From sums of e / exp(top), and of its degenerate part's products, 0 where they are not known."""
        n, pairs = len(row), int(row_count.sum())
        total = float(row.sum())
        with np.errstate(over="ignore"):
            scale = float(np.exp(top))
        a = scale * total / pairs
        if not np.isfinite(a):
            return cls(np.inf, row, top, np.full(n, np.inf), 0.0, 1.0, pairs)
        influence = scale * (row + column - total / pairs * (row_count + column_count)) * n / pairs
        dof = max(pairs - 2 * n + 1, 1)
        degenerate = scale * float(np.sqrt(max(products, 0.0) / dof / pairs))
        return cls(a, row, top, influence, degenerate, total**2 / squares if squares > 0 else 0.0, pairs)


def fold_summary(pos: Array, e: Exponential, groups: Labels | None = None) -> FoldSummary:
    """One fold's numbers, from its positives and what its pairs left; ``Summary`` explains them."""

    def stderr(values: Array) -> float:
        return mean_stderr(values, groups) if np.all(np.isfinite(values)) else float("inf")

    def less(se: float) -> float:
        # never below what the rows' own spread leaves: a difference of two estimates can come out too small
        return se * math.sqrt(max(1 - (e.degenerate / se) ** 2, 0.25)) if 0 < se < math.inf else se

    return FoldSummary(
        n=pos.size,
        bound=float(pos.mean() + 1.0 - e.mean),
        bound_stderr=less(stderr(pos - e.influence)),
        plug_in=float(pos.mean()),
        plug_in_stderr=stderr(pos),
        imbalance=e.mean - 1.0,
        imbalance_stderr=less(stderr(e.influence)),
        ess=e.ess,
        pairs=e.pairs,
    )


def summarise(folds: Sequence[PairScores]) -> Summary:
    """The bound and its companions on held-out rows, all given pairs used, folds weighted by rows.

    bound = E[p] + 1 - A,  A = mean of e^neg over non-matching pairs. Its standard error is that of a U-statistic:
    the variance of p_i - (row mean)_i - (column mean)_i over rows, plus the degenerate part over pairs; with groups the
    rows' part is summed within groups first. Nats.

    Raises ValueError for an empty list, or a part with fewer than two groups.

    Example:
        >>> import numpy as np
        >>> s = summarise([PairScores.from_matrix(np.zeros((5, 5)))])
        >>> (s.bound, s.bound_stderr, s.imbalance, round(s.ess, 6))
        (0.0, 0.0, 0.0, 20.0)
    """
    return pooled([fold_summary(f.pos, Exponential.of_pairs(f), f.groups) for f in folds])


def pooled(parts: Sequence[FoldSummary]) -> Summary:
    """The folds' summaries as one, weighted by rows; ValueError for an empty list."""
    if not parts:
        raise ValueError("folds must hold at least one part, found none")
    weight = np.array([part.n for part in parts], dtype=np.float64)
    weight /= weight.sum()

    def mean(name: str) -> float:
        return float(weight @ np.array([getattr(part, name) for part in parts]))

    def root(name: str) -> float:
        return math.hypot(*(w * getattr(part, name) for w, part in zip(weight, parts, strict=True)))

    return Summary(
        n=sum(part.n for part in parts),
        bound=mean("bound"),
        bound_stderr=root("bound_stderr"),
        plug_in=mean("plug_in"),
        plug_in_stderr=root("plug_in_stderr"),
        imbalance=mean("imbalance"),
        imbalance_stderr=root("imbalance_stderr"),
        ess=sum(part.ess for part in parts),
        pairs=sum(part.pairs for part in parts),
        folds=tuple(parts),
    )


def interval(
    mi: float, sampling: float, *, folds: Sequence[float] | None = None, model: float = 0.0
) -> Interval:
    """Standard error of a point estimate and its 95 % interval, from independent sources of error.

        stderr^2 = sampling^2 + tau^2/K + model^2

    ``sampling`` is the standard error of the mean PMI (``mean_stderr``; its leading term is Var[PMI]/n). ``folds`` are the
    K folds' estimates of the same number: tau^2 is their variance beyond the K sampling^2 that sampling explains, at least
    0, and stands for selection and training. ``model`` is what a debiasing term, or the choice among models, leaves open.
    The quantile is Student's, with Welch and Satterthwaite's degrees of freedom, so few folds widen the interval. Nats.

    Raises ValueError for negative standard errors.

    Example:
        >>> i = interval(1.0, 0.03, model=0.04)
        >>> (round(i.stderr, 3), round(i.low, 3), round(i.high, 3))
        (0.05, 0.902, 1.098)
    """
    from scipy.special import ndtri, stdtrit

    if sampling < 0 or model < 0:
        raise ValueError(f"standard errors must not be negative, found {sampling} and {model}")
    parts = {"sampling": float(sampling), "model": float(model)}
    dof = np.inf
    if folds is not None and len(folds) > 1:
        k = len(folds)
        found = float(np.var(folds, ddof=1)) / k
        parts["folds"] = float(np.sqrt(max(found - sampling**2, 0.0)))
        if parts["folds"] > 0:
            dof = (k - 1) * sum(value**2 for value in parts.values()) ** 2 / found**2
    stderr = float(np.sqrt(sum(value**2 for value in parts.values())))
    quantile = float(stdtrit(dof, 0.975) if np.isfinite(dof) else ndtri(0.975))
    return Interval(stderr, mi - quantile * stderr, mi + quantile * stderr, parts)
