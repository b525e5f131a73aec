"""A model on rows that it has not seen: the FLO bound, by which every candidate is evaluated, and the report on the winner.

Whatever made the critic g, its dual is u(x, y), or c(x) - g(x, y) with the fitted log-normaliser c, and the evaluation is the
FLO bound 1 - u - e^{log t - u}. So every model is also a PMI score p(x, y) = -u or g - c, which the certificate and new rows use.
Of n (n - 1) pairs a model is evaluated on all where memory holds them, and otherwise on m cyclic shifts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from flomi.bounds import Bound, Scores, flo
from flomi.critics.base import PairScorer
from flomi.inference.certificate import PairScores
from flomi.inference.u_statistic import LARGEST, FoldSummary, PartitionTerm, fold_summary
from flomi.scores import Dense, Table, Weighted, shifts, table_scores
from flomi.support.settings import setting
from flomi.training.model import Model

BLOCK = 2**17  # pairs of a matrix that are worked on at a time: they stay in the cache


@dataclass(frozen=True)
class EvaluationSettings:
    """How many pairs of rows a model is evaluated on."""

    certified_pairs: int = setting(
        128,
        "partners a row that the certificate looks at: more change its average over matchings by less than its noise",
    )
    dense_share: float = setting(
        1 / 4,
        "of all pairs, from which on a critic whose matrix is one product takes all: as fast as some, and exact",
    )
    influence_pairs: int = setting(
        4_000_000,
        "of a fold whose derivatives are taken, each in half a dozen copies: 200 MB; m partners a row add 1/m of their noise",
    )
    sampling_share: float = setting(
        1 / 2, "of the bound's standard error that sampling pairs may add: the root of 1 + 1/4 is 12 %"
    )


SETTINGS = EvaluationSettings()
Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Evaluation:
    """What unseen rows say of one model: the FLO bound by row in ``values`` [n], the score ``positive`` [n] of the rows
    themselves, each row's part ``partition`` [n] in the partition term less 1, all in summary, and the Donsker-Varadhan value
    E[p] - log E_m[e^p], which is the bound at its best constant shift. Every row stood against `negatives` others.
    """

    values: np.ndarray
    positive: np.ndarray
    partition: np.ndarray
    summary: FoldSummary
    donsker_varadhan: float
    negatives: int


@dataclass(frozen=True)
class Report:
    """The report on one model: the requested bound by row, [n], its influence values, which count a row as a negative of others
    too, its PMI read-out, and the score p on rows and some pairs."""

    value: np.ndarray
    influence: np.ndarray
    pmi: np.ndarray
    scores: PairScores


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
        # the exponential's term is e^(g' - log_offset); it is c where u = c - g, learned or not: then it is that of the score too
        self.log_offset = self.c if learned is None else self.ratio + learned

    def at(self, m: int, seed: int) -> Table:
        """Scores g' of every row with m others. More are added to those before: the first ones do not depend on the scores."""
        columns = shifts(self.n, m, torch.Generator().manual_seed(seed)).to(self.a.device)
        return Table(table_scores(self.critic, self.a, self.b, columns, self.model.exact), columns)

    def ratios(self, some: Table) -> Tensor:
        """[n, m] the scores as log density ratios."""
        return some.scores if self.marginal is None else some.scores - self.marginal[some.partners]

    def matrix(self) -> Tensor:
        """[n, n] scores of all pairs."""
        step = max(1, BLOCK // self.n)
        return torch.cat([self.critic.matrix(part, self.b) for part in self.a.split(step)])

    def blocks(
        self, log_offset: Tensor, labels: Tensor | None, out: Tensor | None = None
    ) -> Iterator[Tensor]:
        """g' - log_offset in float64, some rows at a time, -inf for i = j and pairs of one group; in `out` [n, n] if given."""
        step = max(1, BLOCK // self.n)
        for start in range(0, self.n, step):
            rows = slice(start, min(start + step, self.n))
            block = self.critic.matrix(self.a[rows], self.b).double()
            if self.marginal is not None:
                block -= self.marginal
            block = torch.sub(block, log_offset[rows, None], out=None if out is None else out[rows])
            block.diagonal(start).fill_(-math.inf)
            if labels is not None:
                block.masked_fill_(labels[rows, None] == labels, -math.inf)
            yield block

    def exponential(self, groups: np.ndarray | None) -> PartitionTerm:
        """What all pairs' terms e^(g' - log_offset) leave."""
        labels = None if groups is None else torch.from_numpy(groups).to(self.a.device)
        e = torch.empty(self.n, self.n, dtype=torch.float64, device=self.a.device)
        top = -LARGEST
        for block in self.blocks(self.log_offset, labels, e):
            top = max(top, _checked(float(block.max())))
        top = min(top, LARGEST)
        for part in e.split(max(1, BLOCK // self.n)):
            part.sub_(top).exp_()
        return PartitionTerm.of_matrix(e.cpu().numpy(), top, groups)

    def log_sum(self, some: Table | None, labels: Tensor | None) -> float:
        """log of the sum of e^p over some pairs, or over all of them, p = g' - c the score."""
        parts = self.blocks(self.c, labels)
        if some is not None:
            p = (self.ratios(some) - self.c[:, None]).double()
            parts = iter(
                [p if labels is None else p.masked_fill(labels[:, None] == labels[some.partners], -math.inf)]
            )
        return float(torch.stack([part.logsumexp((0, 1)) for part in parts]).logsumexp(0))

    def evaluation(
        self, terms: PartitionTerm, m: int, some: Table | None, groups: np.ndarray | None
    ) -> Evaluation:
        pos, p = _numpy(-self.dual), _numpy(self.ratio - self.c)
        _checked(float(pos.sum() + p.sum()))
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            sums = np.where(terms.rows > 0, np.exp(terms.top) * terms.rows, 0.0)
            values = pos + 1 - sums * (self.n / terms.pairs)
            log_sum = terms.top + float(np.log(terms.rows.sum()))
        if not torch.equal(self.log_offset, self.c):
            # a learned u may be so far off in one row that these sums tell nothing of the others' scores
            labels = None if groups is None else torch.from_numpy(groups).to(self.a.device)
            log_sum = self.log_sum(some, labels)
        dv = float(p.mean()) - (log_sum - math.log(terms.pairs))
        partition = terms.influence + (terms.mean - 1)
        return Evaluation(values, pos, partition, fold_summary(pos, terms, groups), dv, m)


@torch.no_grad()
def evaluate(
    model: Model,
    bound: Bound,
    rows: Rows,
    *,
    pairs: int,
    most: int,
    seed: int,
    groups: np.ndarray | None = None,
) -> tuple[Evaluation, Table | None]:
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
    m = n - 1 if n * (n - 1) <= pairs else min(n - 1, max(SETTINGS.certified_pairs, pairs // n))
    every_pair = model.exact and n * (n - 1) <= most
    while True:
        if m == n - 1 or (every_pair and m > SETTINGS.dense_share * n):
            return seen.evaluation(seen.exponential(labels), n - 1, None, labels), None
        some = seen.at(m, seed)
        contrast = (seen.ratios(some) - seen.log_offset[:, None]).double()
        # mean and variance of the terms by row, a few rows at a time
        mean, spread = (
            torch.cat(v) for v in zip(*((e.mean(1), e.var(1)) for e in _exp(contrast)), strict=True)
        )
        sampling, values = float(spread.mean()) / m, 1 - seen.dual - mean
        if (not every_pair and 2 * m * n > most) or sampling <= SETTINGS.sampling_share**2 * float(
            values.var()
        ):
            break
        m = n - 1 if every_pair else min(2 * m, n - 1)
    terms = PartitionTerm.of_pairs(
        PairScores(_numpy(-seen.dual), contrast.cpu().numpy(), _shifts(some), groups)
    )
    found = seen.evaluation(terms, m, some, labels)
    return found, _first(some) if _is_evaluation(bound) else some


@torch.no_grad()
def report(
    model: Model,
    bound: Bound,
    rows: Rows,
    evaluation: Evaluation,
    some: Table | None,
    *,
    seed: int,
    groups: np.ndarray | None = None,
) -> Report:
    """The bound chosen on the pairs of `evaluation`, its PMI read-out, and the score; `some` as `evaluate` returned it."""
    seen, known = _Encoded(model, bound, rows), _is_evaluation(bound)
    some = some or seen.at(min(evaluation.negatives, SETTINGS.certified_pairs), seed)
    every = evaluation.negatives == seen.n - 1 and not known
    scores = Scores(seen.g, Dense(seen.matrix()) if every else some, seen.u, seen.baseline, seen.marginal)
    pmi = _numpy(bound.pmi(scores))
    if known:
        value, influence = evaluation.values, evaluation.positive - evaluation.partition
    else:
        value = _numpy(bound.value(scores))
        if every and seen.n**2 > SETTINGS.influence_pairs:
            scores = replace(scores, neg=seen.at(SETTINGS.influence_pairs // seen.n, seed))
        influence = bound_influence(bound, scores)
    return Report(value, influence, pmi, _pair_scores(seen, some, groups))


@torch.enable_grad()
def bound_influence(bound: Bound, scores: Scores) -> np.ndarray:
    """[n] influence values of the bound: its mean, plus n times the derivative by each row's weight."""
    n = len(scores.pos)
    log_weight = torch.zeros(n, dtype=torch.float64, device=scores.pos.device, requires_grad=True)
    negatives = scores.neg
    if isinstance(negatives, (Dense, Table)):
        negatives = Weighted(negatives, log_weight)
    value = bound.value(replace(scores, neg=negatives)).double()
    mean = (log_weight.softmax(0) * value).sum()
    (slope,) = torch.autograd.grad(mean, log_weight)
    return _numpy((mean + n * slope).detach())


@torch.no_grad()
def pair_scores(
    model: Model, bound: Bound, rows: Rows, *, seed: int, groups: np.ndarray | None = None
) -> PairScores:
    """The score p of the rows, and of as many of their pairs as the certificate looks at."""
    seen = _Encoded(model, bound, rows)
    return _pair_scores(seen, seen.at(min(seen.n - 1, SETTINGS.certified_pairs), seed), groups)


def _pair_scores(seen: _Encoded, some: Table, groups: np.ndarray | None) -> PairScores:
    some = _first(some)
    return PairScores(
        _numpy(seen.ratio - seen.c), _numpy(seen.ratios(some) - seen.c[:, None]), _shifts(some), groups
    )


def _is_evaluation(bound: Bound) -> bool:
    """Whether the bound that was requested is the one by which all are evaluated: its values by row are known then."""
    return bound.value is flo


def _first(some: Table) -> Table:
    """As many of the pairs as the certificate looks at, in memory of their own."""
    assert some.partners is not None
    few = slice(SETTINGS.certified_pairs)
    return Table(some.scores[:, few].clone(), some.partners[:, few].clone())


def _exp(contrast: Tensor) -> Iterator[Tensor]:
    return (part.exp() for part in contrast.split(max(1, BLOCK // contrast.shape[1])))


def _checked(value: float) -> float:
    if math.isnan(value):
        raise ValueError("scores must not hold NaN: look for a critic that diverged")
    return value


def _shifts(some: Table) -> np.ndarray:
    assert some.partners is not None
    return some.partners[0].cpu().numpy()


def _numpy(v: Tensor) -> np.ndarray:
    return v.double().cpu().numpy()
