"""From a critic and a batch to `Scores`: the negative schemes, and how their scores lie in memory.

Negatives never contain the positive. A plain random permutation keeps one row in its place on average, and that one true
pair caps every bound at log n + 1; so there is none here, in training or in evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from flomi.bounds import Negatives, Scores, off_diagonal
from flomi.critics.base import PairScorer

BLOCK = 2**17  # pairs of a matrix that are worked on at a time: they stay in the cache
PAIRS = 2**13  # the same one by one, each with the numbers of a network's layers
SPARSE = 8  # from an eighth of a row on an exact critic is faster by rows of its matrix than pair by pair


@dataclass(frozen=True)
class Dense:
    """All off-diagonal pairs of a score matrix G [n, n], rows x, columns y, positives on the diagonal."""

    matrix: Tensor

    @property
    def count(self) -> int:
        return self.matrix.shape[0] - 1

    def lme(self, over: Literal["y", "x"] = "y", drop: int = 0) -> Tensor:
        own = near_diagonal(len(self.matrix), drop, self.matrix.device)
        return _lse_others(self.matrix, own, 1 if over == "y" else 0) - math.log(self.count - drop)

    def lme_all(self) -> Tensor:
        off = off_diagonal(self.matrix)
        return torch.logsumexp(off.reshape(-1), 0) - math.log(off.numel())

    def mean(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        return f(off_diagonal(self.matrix)).mean()

    def probe(self, rows: int) -> Tensor:
        return self.matrix[:rows].detach().clone().fill_diagonal_(-math.inf)


@dataclass(frozen=True)
class Table:
    """m scores a row, [n, m]. `partners` [n, m] are the rows whose y they belong to, where these are of the batch itself."""

    scores: Tensor
    partners: Tensor | None = None

    @property
    def count(self) -> int:
        return self.scores.shape[1]

    def lme(self, over: Literal["y", "x"] = "y", drop: int = 0) -> Tensor:
        scores = self.scores[:, drop:]
        if over == "x":
            if self.partners is None:
                raise ValueError(
                    "the mean over x' needs negatives from the batch itself: use negatives='all' or 'shifts'"
                )
            scores = torch.zeros_like(scores).scatter(0, self.partners[:, drop:], scores)
        return torch.logsumexp(scores, 1) - math.log(self.count - drop)

    def lme_all(self) -> Tensor:
        return torch.logsumexp(self.scores.reshape(-1), 0) - math.log(self.scores.numel())

    def mean(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        return f(self.scores).mean()

    def probe(self, rows: int) -> Tensor:
        return self.scores[:rows].detach()


@dataclass(frozen=True)
class Weighted:
    """The scores of a `Dense` or a `Table` of the batch itself, where row i counts e^log_weight[i] times.

    The derivative of a bound by these weights, at 0, is what each row contributes to it, in all of its places.
    """

    scores: Dense | Table
    log_weight: Tensor

    @property
    def count(self) -> int:
        return self.scores.count

    def lme(self, over: Literal["y", "x"] = "y", drop: int = 0) -> Tensor:
        w = self._by_pair(self.log_weight, over == "y")
        return self._plus(w).lme(over, drop) - self._only(w).lme(over, drop)

    def lme_all(self) -> Tensor:
        w = self._by_pair(self.log_weight, True) + self.log_weight[:, None]
        return self._plus(w).lme_all() - self._only(w).lme_all()

    def mean(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        w = self._by_pair(self.log_weight, True) + self.log_weight[:, None]
        if isinstance(self.scores, Dense):
            w, g = off_diagonal(w), off_diagonal(self.scores.matrix)
        else:
            g = self.scores.scores
        return (w.exp() * f(g)).sum() / w.exp().sum()

    def probe(self, rows: int) -> Tensor:
        return self.scores.probe(rows)

    def _by_pair(self, w: Tensor, of_y: bool) -> Tensor:
        """Weights as the scores lie in memory."""
        if not of_y:
            return w[:, None].expand_as(self._values())
        if isinstance(self.scores, Dense):
            return w.expand_as(self._values())
        assert self.scores.partners is not None
        return w[self.scores.partners]

    def _values(self) -> Tensor:
        return self.scores.matrix if isinstance(self.scores, Dense) else self.scores.scores

    def _only(self, values: Tensor) -> Dense | Table:
        return Dense(values) if isinstance(self.scores, Dense) else Table(values, self.scores.partners)

    def _plus(self, w: Tensor) -> Dense | Table:
        return self._only(self._values() + w)


@dataclass(frozen=True)
class Streamed:
    """All off-diagonal pairs, `chunk` rows at a time and recomputed for the gradient: memory O(n chunk), not O(n^2)."""

    critic: PairScorer
    a: Tensor
    b: Tensor
    chunk: int

    @property
    def count(self) -> int:
        return len(self.b) - 1

    def lme(self, over: Literal["y", "x"] = "y", drop: int = 0) -> Tensor:
        if over == "y":
            starts = self._starts()
            rows = [self._each(start, lambda g, own: _lse_others(g, own, 1), drop) for start in starts]
            return torch.cat(rows) - math.log(self.count - drop)
        total: Tensor | None = None
        for start in self._starts():
            part = self._each(start, lambda g, own: _lse_others(g, own, 0), drop)
            total = part if total is None else torch.logaddexp(total, part)
        assert total is not None  # score() refuses fewer than two rows
        return total - math.log(self.count - drop)

    def lme_all(self) -> Tensor:
        parts = [self._each(start, lambda g, own: torch.logsumexp(g[~own], 0)) for start in self._starts()]
        return torch.logsumexp(torch.stack(parts), 0) - math.log(len(self.b) * self.count)

    def mean(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        parts = [self._each(start, lambda g, own: f(g[~own]).sum()) for start in self._starts()]
        return torch.stack(parts).sum() / (len(self.b) * self.count)

    @torch.no_grad()
    def probe(self, rows: int) -> Tensor:
        return self.critic.matrix(self.a[:rows], self.b).fill_diagonal_(-math.inf)

    def _starts(self) -> Iterator[int]:
        return iter(range(0, len(self.a), self.chunk))

    def _each(self, start: int, reduce: Callable[[Tensor, Tensor], Tensor], drop: int = 0) -> Tensor:
        own = near_diagonal(len(self.b), drop, self.b.device, start, min(start + self.chunk, len(self.a)))

        def run(a: Tensor, b: Tensor) -> Tensor:
            return reduce(self.critic.matrix(a, b), own)

        a = self.a[start : start + self.chunk]
        if torch.is_grad_enabled():
            return checkpoint(run, a, self.b, use_reentrant=False)  # type: ignore[no-any-return]
        return run(a, self.b)


def near_diagonal(n: int, drop: int, device: torch.device, start: int = 0, stop: int | None = None) -> Tensor:
    """Mask of the diagonal, and of the `drop` entries to its right (cyclically), for rows start to stop."""
    rows = (n if stop is None else stop) - start
    mask = torch.zeros(rows, n, dtype=torch.bool, device=device)
    for column in range(start, start + drop + 1):
        for offset in (column, column - n):  # the second one wraps around
            if -rows < offset < n:
                mask.diagonal(offset).fill_(True)
    return mask


def _lse_others(g: Tensor, own: Tensor, dim: int) -> Tensor:
    """log-sum-exp along `dim` of the scores outside the mask `own`."""
    return torch.logsumexp(g.masked_fill(own, -math.inf), dim)


# --- Schemes: which y' stand against each x ---------------------------------------------------------------------------


def shifts(n: int, m: int, generator: torch.Generator | None = None) -> Tensor:
    """[n, m] partners by m distinct cyclic shifts of the batch, drawn from 1 .. n-1.

    >>> bool((shifts(5, 4) == torch.arange(5)[:, None]).any())
    False
    """
    by = torch.randperm(n - 1, generator=generator)[:m] + 1
    twice = torch.arange(n).repeat(2)  # a table is much faster than the remainder
    return twice[torch.arange(n)[:, None] + by]


def derangements(n: int, m: int, generator: torch.Generator | None = None) -> Tensor:
    """[n, m] partners by m random derangements without a common entry: shifts along one random cyclic order of the rows."""
    order = torch.randperm(n, generator=generator)
    partners = torch.empty(n, m, dtype=torch.long)
    partners[order] = order[shifts(n, m, generator)]
    return partners


def _take(b: Tensor, partners: Tensor) -> Tensor:
    """b[partners], by a call whose gradient is several times faster."""
    return b.index_select(0, partners.reshape(-1)).view(*partners.shape, *b.shape[1:])


def _drawn(
    draw: Callable[..., Tensor],
    critic: PairScorer,
    a: Tensor,
    b: Tensor,
    m: int,
    chunk: int,
    generator: torch.Generator | None,
) -> Negatives:
    """m partners a row, as `draw` draws them."""
    partners = draw(len(a), m, generator).to(a.device)
    return Table(critic.pairs(a[:, None], _take(b, partners)), partners)


Scheme = Callable[[PairScorer, Tensor, Tensor, int, int, "torch.Generator | None"], Negatives]
NEGATIVES: dict[str, Scheme] = {
    "all": lambda critic, a, b, m, chunk, generator: Dense(critic.matrix(a, b)),
    "chunked": lambda critic, a, b, m, chunk, generator: Streamed(critic, a, b, chunk),
    "shifts": partial(_drawn, shifts),
    "derangements": partial(_drawn, derangements),
}


def score(
    critic: PairScorer,
    x: Tensor,
    y: Tensor,
    negatives: str = "all",
    *,
    m: int = 1,
    chunk: int = 1024,
    y_neg: Tensor | None = None,
    baseline: Callable[[Tensor], Tensor] | None = None,
    generator: torch.Generator | None = None,
) -> Scores:
    """Scores of a batch: positives on aligned rows, negatives by the scheme named.

    Schemes: "all" the n - 1 off-diagonals of each row, in memory; "chunked" the same, `chunk` rows at a time; "shifts" m
    distinct cyclic shifts; "derangements" m random derangements; "given" those in `y_neg`, [m, ...] shared by all rows or
    [n, m, ...] for each row its own, which must not contain the row's own y.

    x: [n, ...], y: [n, ...]; `baseline` maps x to a(x) [n]. Raises ValueError for an unknown scheme, fewer than two rows,
    or an m outside 1 .. n - 1.

    >>> from flomi.critics import SeparableCritic
    >>> x = torch.randn(8, 2)
    >>> score(SeparableCritic(2, 2), x, x, "shifts", m=3).negatives.count
    3
    """
    n = len(x)
    if len(y) != n or n < 2:
        raise ValueError(f"x and y must have the same number of rows, at least 2; found {n} and {len(y)}")
    if negatives == "given":
        a, b, neg = _given(critic, x, y, y_neg)
    elif negatives in NEGATIVES:
        if y_neg is not None:
            raise ValueError(f"y_neg belongs to negatives='given', not to negatives={negatives!r}")
        if not 1 <= m < n:
            raise ValueError(f"m={m} negatives a row is not possible with {n} rows: use 1 to {n - 1}")
        if chunk < 1:
            raise ValueError(f"chunk={chunk} rows at a time is not possible: use at least 1")
        a, b = critic.encode(x, y)
        neg = NEGATIVES[negatives](critic, a, b, m, chunk, generator)
    else:
        raise ValueError(
            f"negatives={negatives!r} is not known; choose one of {', '.join([*NEGATIVES, 'given'])}"
        )
    pos, u = critic.positives(a, b)
    marginal = getattr(critic, "marginal", None)
    return Scores(pos, neg, u, baseline(x) if baseline else None, marginal(y) if marginal else None)


def _given(
    critic: PairScorer, x: Tensor, y: Tensor, y_neg: Tensor | None
) -> tuple[Tensor, Tensor, Negatives]:
    if y_neg is None:
        raise ValueError("negatives='given' needs y_neg, [m, ...] or [n, m, ...]")
    if y_neg.numel() == 0:
        raise ValueError(f"y_neg has shape {tuple(y_neg.shape)}: give at least one negative")
    if y_neg.shape[1:] == y.shape[1:]:  # the same m for every row
        a, b = critic.encode(x, torch.cat([y, y_neg]))
        return a, b[: len(y)], Table(critic.matrix(a, b[len(y) :]))
    if y_neg.ndim == y.ndim + 1 and y_neg.shape[2:] == y.shape[1:] and len(y_neg) == len(y):
        a, b = critic.encode(x, torch.cat([y, y_neg.flatten(0, 1)]))
        own = b[len(y) :].unflatten(0, y_neg.shape[:2])
        return a, b[: len(y)], Table(critic.pairs(a[:, None], own))
    raise ValueError(
        f"y_neg has shape {tuple(y_neg.shape)}; for y of shape {tuple(y.shape)} use [m, ...] or [n, m, ...]"
    )


def table_scores(critic: PairScorer, a: Tensor, b: Tensor, partners: Tensor, exact: bool) -> Tensor:
    """[n, m] scores g(x_i, y_j), j = partners[i, k], some rows at a time; the matrix of an `exact` critic is one product."""
    n, m = partners.shape
    if m == n - 1 or (exact and m > n // SPARSE):
        step = max(1, BLOCK // n)
        parts = zip(a.split(step), partners.split(step), strict=True)
        return torch.cat([critic.matrix(rows, b).gather(1, mine) for rows, mine in parts])
    step = max(1, PAIRS // max(1, m))
    parts = zip(a.split(step), partners.split(step), strict=True)
    return torch.cat([critic.pairs(rows[:, None], b[mine]) for rows, mine in parts])
