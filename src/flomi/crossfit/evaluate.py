"""A model on rows that it has not seen: the referee, which is the FLO bound, and what the report says of the winner.

Whatever made the critic g, its dual is u(x, y), or c(x) - g(x, y) with the fitted drift c, and the referee is the FLO bound
1 - u - e^{log t - u}. So every model is also a PMI score p(x, y) = -u or g - c, which the certificate and new rows use.
Of n (n - 1) pairs a model is judged on all where memory holds them, and otherwise on m cyclic shifts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flomi.bounds import Bound, Scores
from flomi.critics.base import PairScorer
from flomi.inference.u_statistic import LARGEST, Exponential, FoldSummary, PairScores, fold_summary
from flomi.scores import Dense, Table, shifts, table_scores
from flomi.training.loop import Model

__all__ = ["HeldOut", "Measured", "measure", "pair_scores", "report"]

CERTIFIED = 128  # pairs a row that the certificate looks at
BLOCK = 2**17  # pairs of a matrix that are worked on at a time: they stay in the cache
DENSE = 4  # from a fourth of a row on an exact critic takes all pairs
Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Measured:
    """What the referee says of one model: the FLO bound, [n] by row and in summary, and the bound at its best constant shift,
    which is the Donsker-Varadhan value E[p] - log E_m[e^p] of the score. Every row stood against `negatives` others.
    """

    by_row: np.ndarray
    summary: FoldSummary
    recalibrated: float
    negatives: int


@dataclass(frozen=True)
class HeldOut:
    """The report on one model: the bound asked for and its PMI read-out by row, [n], and the score p on rows and some pairs."""

    value: np.ndarray
    pmi: np.ndarray
    score: PairScores


class _Encoded:
    """Rows as the model sees them: what its scores of all their pairs are made of."""

    def __init__(self, model: Model, bound: Bound, rows: Rows) -> None:
        x, y = rows
        self.model, self.bound, self.n = model, bound, len(x)
        self.critic: PairScorer = model.critic  # type: ignore[assignment]
        self.a, self.b = self.critic.encode(x, y)
        self.g, self.u = self.critic.positives(self.a, self.b)
        self.marginal, self.baseline, self.c = model.marginal(y), model.a(x), model.c(x)
        self.ratio = self.g if self.marginal is None else self.g - self.marginal  # g as a log density ratio
        learned = self.u if "u" in bound.needs else None
        self.dual = self.c - self.ratio if learned is None else learned
        # the exponential's term is e^(g' - away); away is c where u = c - g, learned or not: then it is that of the score too
        self.away = self.c if learned is None else self.ratio + learned

    def at(self, m: int, seed: int) -> Table:
        """Scores g' of every row with m others. More are added to those before: the first ones do not depend on the scores."""
        columns = shifts(self.n, m, torch.Generator().manual_seed(seed)).to(self.a.device)
        return Table(table_scores(self.critic, self.a, self.b, columns, self.model.exact), columns)

    def ratios(self, some: Table) -> Tensor:
        """[n, m] the scores as log density ratios."""
        return some.scores if self.marginal is None else some.scores - self.marginal[some.columns]

    def matrix(self) -> Tensor:
        """[n, n] scores of all pairs."""
        step = max(1, BLOCK // self.n)
        return torch.cat([self.critic.matrix(part, self.b) for part in self.a.split(step)])

    def blocks(self, away: Tensor, labels: Tensor | None, out: Tensor | None = None) -> Iterator[Tensor]:
        """g' - away in float64, some rows at a time, -inf where i = j or both are of one group; in `out` [n, n] if given."""
        step = max(1, BLOCK // self.n)
        for start in range(0, self.n, step):
            rows = slice(start, min(start + step, self.n))
            block = self.critic.matrix(self.a[rows], self.b).double()
            if self.marginal is not None:
                block -= self.marginal
            block = torch.sub(block, away[rows, None], out=None if out is None else out[rows])
            block.diagonal(start).fill_(-math.inf)
            if labels is not None:
                block.masked_fill_(labels[rows, None] == labels, -math.inf)
            yield block

    def exponential(self, groups: np.ndarray | None) -> Exponential:
        """What all pairs' terms e^(g' - away) leave."""
        labels = None if groups is None else torch.from_numpy(groups).to(self.a.device)
        e = torch.empty(self.n, self.n, dtype=torch.float64, device=self.a.device)
        top = -LARGEST
        for block in self.blocks(self.away, labels, e):
            top = max(top, _checked(float(block.max())))
        top = min(top, LARGEST)
        for part in e.split(max(1, BLOCK // self.n)):
            part.sub_(top).exp_()
        return Exponential.of_matrix(e.cpu().numpy(), top, groups)

    def log_sum(self, some: Table | None, labels: Tensor | None) -> float:
        """log of the sum of e^p over some pairs, or over all of them, p = g' - c the score."""
        parts = self.blocks(self.c, labels)
        if some is not None:
            p = (self.ratios(some) - self.c[:, None]).double()
            parts = iter(
                [p if labels is None else p.masked_fill(labels[:, None] == labels[some.columns], -math.inf)]
            )
        return float(torch.stack([part.logsumexp((0, 1)) for part in parts]).logsumexp(0))

    def measured(self, terms: Exponential, m: int, some: Table | None, groups: np.ndarray | None) -> Measured:
        pos, p = _numpy(-self.dual), _numpy(self.ratio - self.c)
        _checked(float(pos.sum() + p.sum()))
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            sums = np.where(terms.rows > 0, np.exp(terms.top) * terms.rows, 0.0)
            by_row = pos + 1 - sums * (self.n / terms.pairs)
            log_sum = terms.top + float(np.log(terms.rows.sum()))
        if not torch.equal(self.away, self.c):
            # a learned u may be so far off in one row that these sums tell nothing of the others' scores
            labels = None if groups is None else torch.from_numpy(groups).to(self.a.device)
            log_sum = self.log_sum(some, labels)
        dv = float(p.mean()) - (log_sum - math.log(terms.pairs))
        return Measured(by_row, fold_summary(pos, terms, groups), dv, m)


@torch.no_grad()
def measure(
    model: Model,
    bound: Bound,
    rows: Rows,
    *,
    pairs: int,
    most: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> tuple[Measured, Table | None]:
    """Score rows that the model has not seen against all others, or by m cyclic shifts where that is over `pairs` pairs.

    m starts at pairs / n and doubles until sampling pairs adds less than half of the standard error of the bound, or there
    would be more than `most` pairs, which memory has to hold; what they leave open is part of the standard error. An exact
    critic takes all pairs instead of twice as many, where `most` allows. The rows should be in random order. Returns the
    scores of some pairs too, for `report`.
    """
    seen, n = _Encoded(model, bound, rows), len(rows[0])
    labels = None if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    if labels is not None and labels.max() == 0:
        raise ValueError("groups must hold at least 2 groups in each held-out part, found 1")
    m = n - 1 if n * (n - 1) <= pairs else min(n - 1, max(CERTIFIED, pairs // n))
    whole = model.exact and n * (n - 1) <= most
    while True:
        if m == n - 1 or (whole and m > n // DENSE):
            return seen.measured(seen.exponential(labels), n - 1, None, labels), None
        some = seen.at(m, seed)
        contrast = (seen.ratios(some) - seen.away[:, None]).double()
        # mean and variance of the terms by row, a few rows at a time
        mean, spread = (
            torch.cat(v) for v in zip(*((e.mean(1), e.var(1)) for e in _exp(contrast)), strict=True)
        )
        sampling, by_row = float(spread.mean()) / m, 1 - seen.dual - mean
        if (not whole and 2 * m * n > most) or sampling <= float(by_row.var()) / 4:
            break
        m = n - 1 if whole else min(2 * m, n - 1)
    terms = Exponential.of_pairs(
        PairScores(_numpy(-seen.dual), contrast.cpu().numpy(), _shifts(some), groups)
    )
    found = seen.measured(terms, m, some, labels)
    return found, _first(some) if bound.name == "flo" else some


@torch.no_grad()
def report(
    model: Model,
    bound: Bound,
    rows: Rows,
    measured: Measured,
    some: Table | None,
    *,
    seed: int,
    groups: np.ndarray | None = None,
) -> HeldOut:
    """The bound asked for on the pairs of `measured`, its PMI read-out, and the score; `some` as `measure` returned it."""
    seen, flo = _Encoded(model, bound, rows), bound.name == "flo"
    some = some or seen.at(min(measured.negatives, CERTIFIED), seed)
    every = measured.negatives == seen.n - 1 and not flo  # FLO's values by row are there already
    scores = Scores(seen.g, Dense(seen.matrix()) if every else some, seen.u, seen.baseline, seen.marginal)
    value = measured.by_row if flo else _numpy(bound.value(scores))
    return HeldOut(value, _numpy(bound.pmi(scores)), _pair_scores(seen, some, groups))


@torch.no_grad()
def pair_scores(
    model: Model, bound: Bound, rows: Rows, *, seed: int, groups: np.ndarray | None = None
) -> PairScores:
    """The score p of the rows, and of as many of their pairs as the certificate looks at."""
    seen = _Encoded(model, bound, rows)
    return _pair_scores(seen, seen.at(min(seen.n - 1, CERTIFIED), seed), groups)


def _pair_scores(seen: _Encoded, some: Table, groups: np.ndarray | None) -> PairScores:
    some = _first(some)
    return PairScores(
        _numpy(seen.ratio - seen.c), _numpy(seen.ratios(some) - seen.c[:, None]), _shifts(some), groups
    )


def _first(some: Table) -> Table:
    """As many of the pairs as the certificate looks at, in memory of their own."""
    assert some.columns is not None
    return Table(some.scores[:, :CERTIFIED].clone(), some.columns[:, :CERTIFIED].clone())


def _exp(contrast: Tensor) -> Iterator[Tensor]:
    return (part.exp() for part in contrast.split(max(1, BLOCK // contrast.shape[1])))


def _checked(value: float) -> float:
    if math.isnan(value):
        raise ValueError("scores must not hold NaN: look for a critic that diverged")
    return value


def _shifts(some: Table) -> np.ndarray:
    assert some.columns is not None
    return some.columns[0].cpu().numpy()


def _numpy(v: Tensor) -> np.ndarray:
    return v.double().cpu().numpy()
