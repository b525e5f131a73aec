"""The FLO bound of a score p on all pairs, as a U-statistic: bound, plug-in, normalisation error, and their standard errors.

    bound = E[p] - (A - 1),    plug-in = E[p],    normalisation error = A - 1,    A = E[e^p] over pairs that don't match

A is the partition term. All values in nats; standard errors here are asymptotic, only the certificate holds in finite samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flomi.inference.certificate import PairScores
from flomi.inference.influence import Array, Labels, mean_stderr
from flomi.support.settings import UNMEASURED, setting

LARGEST = 1e300  # an infinite score less this is infinite still
SHIFTS = 16  # columns of a table read at a time: for the cache, no number depends on it beyond rounding
TILE = 256  # rows and columns of a matrix that is read with its mirror image: likewise


@dataclass(frozen=True)
class UStatisticSettings:
    """What the standard error of a U-statistic rests on."""

    least_share: float = setting(
        0.25,
        f"{UNMEASURED}of the variance of the rows' parts that stays where the degenerate part, which they hold twice, is taken "
        "off once: the difference of two estimates can come out too small",
    )


SETTINGS = UStatisticSettings()


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
    degenerate: float
    ess: float
    pairs: int


@dataclass(frozen=True)
class Summary(FoldSummary):
    """The folds together, weighted by their rows; nats.

    ``bound = E[p] - imbalance`` with ``imbalance = A - 1``; ``plug_in = E[p]``; ``degenerate`` the standard error that the
    second-order part of A leaves; ``ess`` the number of equally large pairs that A amounts to, (sum e)^2 / sum e^2, summed
    over folds; ``pairs`` the pairs used.
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
class PartitionTerm:
    """What the terms e_ij = e^(p_ij) of the pairs leave behind, when they are gone.

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
    def of_pairs(cls, scores: PairScores) -> PartitionTerm:
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
    def of_matrix(cls, e: Array, top: float, groups: Labels | None = None) -> PartitionTerm:
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
    ) -> PartitionTerm:
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


def fold_summary(pos: Array, e: PartitionTerm, groups: Labels | None = None) -> FoldSummary:
    """One fold's numbers, from its positives and what its pairs left; ``Summary`` explains them.

    bound = E[p] + 1 - A,  A = mean of e^neg over pairs that do not match. Its standard error is that of a U-statistic: the
    variance of p_i - (row mean)_i - (column mean)_i over rows, with groups summed within them first, less the degenerate part,
    which these hold twice. Nats.

    Example:
        >>> import numpy as np
        >>> s = fold_summary(np.zeros(5), PartitionTerm.of_matrix(np.ones((5, 5)) - np.eye(5), 0.0))
        >>> (s.bound, s.bound_stderr, s.imbalance, round(s.ess, 6))
        (0.0, 0.0, 0.0, 20.0)
    """

    def stderr(values: Array) -> float:
        return mean_stderr(values, groups) if np.all(np.isfinite(values)) else float("inf")

    def less(se: float) -> float:
        if not 0 < se < math.inf:
            return se
        return se * math.sqrt(max(1 - (e.degenerate / se) ** 2, SETTINGS.least_share))

    return FoldSummary(
        n=pos.size,
        bound=float(pos.mean() + 1.0 - e.mean),
        bound_stderr=less(stderr(pos - e.influence)),
        plug_in=float(pos.mean()),
        plug_in_stderr=stderr(pos),
        imbalance=e.mean - 1.0,
        imbalance_stderr=less(stderr(e.influence)),
        degenerate=e.degenerate,
        ess=e.ess,
        pairs=e.pairs,
    )


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
        degenerate=root("degenerate"),
        ess=sum(part.ess for part in parts),
        pairs=sum(part.pairs for part in parts),
        folds=tuple(parts),
    )
