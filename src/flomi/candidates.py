"""What competes to be the critic: `fit` makes one candidate, `compete` lets the referee of held_out.py choose among them."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flomi.bounds import Bound
from flomi.closed_form import EllipticalCritic
from flomi.critics import CRITICS, PlainCritic
from flomi.ensemble import CONTRAST, EnsembleRecipe, Gain, fit_quadratic, fit_residual
from flomi.held_out import HeldOut, Measured, measure, pair_scores, report, table
from flomi.inference import PairScores, mean_stderr
from flomi.own import check_critic
from flomi.preprocess import RankNormal, Standardize, Whiten
from flomi.scores import Critic, Table
from flomi.threads import check_stop
from flomi.training import History, Model, Recipe, calibrate, train

__all__ = [
    "PREPROCESS",
    "Candidate",
    "Fold",
    "best",
    "compete",
    "contenders",
    "continuous",
    "fit",
    "seed_of",
]

PREPROCESS = ("rank", "standardize", "none")
Rows = tuple[Tensor, Tensor]
TRAINING_ROWS = 1500  # on which the winner's training value is measured
ATOM = 0.05  # share of a column at one value, from which on it is a value of its own
MATCHED_ROWS, MATCHED_DIMENSIONS = 500, 20  # where local critics of matched columns compete
REGRESSION_ROWS = 200
OPTIMISM = 0.05  # nats: a base that fits its own rows so much better than others leaves a network nothing to learn from
CALIBRATION_PAIRS = 250_000  # of the validation rows, which choose and calibrate


@dataclass
class Candidate:
    """A fitted critic with the preprocessing it was fitted behind."""

    name: str
    prep_x: nn.Module
    prep_y: nn.Module
    model: Model
    history: History | None
    seconds: float
    shape_x: tuple[int, ...]
    shape_y: tuple[int, ...]
    gain: Gain | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training early."""
        return self.history is not None and self.history.interrupted

    @torch.no_grad()
    def scores(self, x: Tensor, y: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The PMI score p, float64: of aligned rows [n], and of x_i with the y of `columns` [n, m]."""
        x, y = self.prepared(x, y)
        critic: Critic = self.model.critic  # type: ignore[assignment]
        a, b = critic.encode(x, y)
        c, marginal = self.model.c(x), self.model.marginal(y)
        free = marginal if marginal is not None else torch.zeros_like(c)
        at = columns.to(x.device)
        positive, negative = (
            critic.pairs(a, b) - c - free,
            table(critic, a, b, at, self.model.exact) - c[:, None] - free[at],
        )
        return positive.double().cpu(), negative.double().cpu()

    def prepared(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as the model wants them: preprocessed in double precision, then in the model's own."""
        if self.model.exact:
            return self.prep_x(x), self.prep_y(y)
        return self.model.cast(self.prep_x(x)), self.model.cast(self.prep_y(y))


@dataclass(frozen=True)
class How:
    """Everything that decides how a candidate is fitted and scored, and is the same for all folds."""

    recipe: Recipe
    ensemble: EnsembleRecipe
    hidden: tuple[int, ...]
    preprocess: str
    pairs: int
    most_pairs: int
    device: str
    without: tuple[str, ...] = ()


@dataclass
class Fold:
    """One fold after the competition: who won, and everything on the fold's own rows.

    base is the closed form that a residual critic stands on, `residual` that critic, whether it won or not. training_value is
    the winner's Donsker-Varadhan value on rows that it was trained on, `measured` what the referee says of every candidate.
    """

    index: np.ndarray
    winner: Candidate
    base: str | None
    residual: Candidate | None
    held: HeldOut
    calibration: PairScores
    training_value: float
    measured: dict[str, Measured]
    seconds: dict[str, float]
    history: list[dict[str, Any]]
    interrupted: bool

    @property
    def won(self) -> Measured:
        """What the referee says of the winner."""
        return self.measured[self.winner.name]


def contenders(bound: Bound, x: Tensor, y: Tensor, rows: int) -> tuple[str, ...]:
    """The names that compete under critic="auto", simple ones first, given the number of `rows` that each will train on.

    One column against one is what the local critic is for. It takes any shape, so no network follows it there. Forms with more
    parameters than so few rows can fit are left out: they would only cost time.
    """
    if "density" in bound.needs:
        return ("density",)
    dim_x, dim_y = (v[0].numel() for v in (x, y))
    if dim_x == dim_y == 1 and rows >= 100 and continuous(x) and continuous(y):
        return ("null", "gaussian", "student", "local")
    names = ["null", "gaussian"]
    names += ["student"] if rows >= 5 * (dim_x + dim_y) else []
    names += ["regression"] if rows >= max(REGRESSION_ROWS, 10 * (dim_x + dim_y)) else []
    wide = max(dim_x, dim_y) > MATCHED_DIMENSIONS
    names += ["matched"] if rows >= MATCHED_ROWS and not wide and continuous(x) and continuous(y) else []
    names += ["expanded"] if rows >= 10 * (dim_x + dim_y + 1) else []
    return (*names, "residual")


def continuous(v: Tensor) -> bool:
    """Whether every column takes many values, more than half as many as there are rows, and none of them often."""
    counts = (column.unique(return_counts=True)[1] for column in v.flatten(1).T)
    return all(len(c) > len(v) / 2 and int(c.max()) <= max(1, ATOM * len(v)) for c in counts)


def seed_of(seed: int, *more: int | str) -> int:
    """A seed for one part of the work, the same in every process."""
    keys = [zlib.crc32(m.encode()) if isinstance(m, str) else m for m in more]
    return int(np.random.SeedSequence([seed, *keys]).generate_state(1)[0])


def fit(
    critic: str | nn.Module,
    bound: Bound,
    rows: Rows,
    held: Rows,
    how: How,
    *,
    seed: int,
    base: nn.Module | None = None,
    groups: np.ndarray | None = None,
    progress: str | None = None,
) -> Candidate:
    """Fit one candidate to `rows` (float64, as the user gave them), stopping by the validation rows `held`.

    `base` is what a residual critic starts from, the Student copula if None; `groups` are the labels of `rows`, then of `held`.
    """
    start = time.perf_counter()
    shape_x, shape_y = (tuple(v.shape[1:]) for v in rows)
    kind = CRITICS[critic] if isinstance(critic, str) else None
    name = kind.name if kind is not None else type(critic).__name__

    def done(
        model: Model, prep: Sequence[nn.Module], history: History | None, gain: Gain | None = None
    ) -> Candidate:
        seconds = time.perf_counter() - start
        return Candidate(name, prep[0], prep[1], model.eval(), history, seconds, shape_x, shape_y, gain)

    if kind is not None and kind.fit is not None:
        return done(
            Model(kind.fit(*(v.flatten(1) for v in rows)), (), None), (nn.Flatten(), nn.Flatten()), None
        )
    if kind is not None and kind.base is not None:
        x, y = (torch.cat([a, b]).flatten(1) for a, b in zip(rows, held, strict=True))
        if kind.base == "learned":
            base = fit_quadratic(x, y, len(held[0]), seed=seed)
        elif base is None:
            base = EllipticalCritic.fit(x, y, tails="student")
        labels = None if groups is None else torch.from_numpy(np.unique(groups, return_inverse=True)[1])
        net, gain, history = fit_residual(
            x, y, len(held[0]), base, how.ensemble, seed=seed, device=how.device, groups=labels, progress=progress
        )  # fmt: skip
        return done(Model(net, (), None), (nn.Flatten(), nn.Flatten()), history, gain)

    prep = [_prepare(v, "none" if kind is None else how.preprocess) for v in rows]
    recipe = how.recipe
    if recipe.negatives == "auto":
        recipe = replace(recipe, negatives=kind.negatives if kind is not None else "shifts")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        if isinstance(critic, nn.Module):
            net_: nn.Module = own_critic(critic, shape_x, shape_y)
        else:
            assert kind is not None and kind.build is not None  # a row of CRITICS has build, fit or base
            net_ = kind.build(math.prod(shape_x), math.prod(shape_y), how.hidden)
        prepared = [[p(v) for p, v in zip(prep, part, strict=True)] for part in (rows, held)]
        model = Model(net_, tuple(prepared[0][0].shape[1:]), bound).to(how.device)
        (x, y), (xv, yv) = ([model.cast(v) for v in part] for part in prepared)
        if isinstance(critic, nn.Module):
            check_critic(model, x, y)
        history = train(model, bound, (x, y), (xv, yv), recipe, seed, progress)
        calibrate(model, (x, y), (xv, yv))
    return done(model, prep, history)


def own_critic(module: nn.Module, shape_x: tuple[int, ...], shape_y: tuple[int, ...]) -> nn.Module:
    """A copy of a user's module, as a critic, whose layers start afresh: those that know how to, and are not frozen."""
    net = copy.deepcopy(module)
    for part in net.modules():
        reset, weights = getattr(part, "reset_parameters", None), list(part.parameters(recurse=False))
        if callable(reset) and weights and all(w.requires_grad for w in weights):
            reset()
    whole = all(hasattr(net, name) for name in ("encode", "positives", "pairs", "matrix"))
    return net if whole else PlainCritic(net, shape_x, shape_y)


def _prepare(v: Tensor, how: str) -> nn.Module:
    if how == "none":
        return nn.Identity()
    flat = v.flatten(1)
    if how == "standardize":
        return nn.Sequential(nn.Flatten(), Standardize.fit(flat))
    rank = RankNormal.fit(flat)
    return nn.Sequential(nn.Flatten(), rank, Whiten.fit(rank(flat)))


def compete(
    names: Sequence[str | nn.Module],
    bound: Bound,
    data: Rows,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    how: How,
    *,
    seed: int,
    groups: np.ndarray | None = None,
    progress: str | None = None,
) -> Fold:
    """Fit every name on the first part of the rows, choose on the second, report on the third.

    The names stand in order of complexity, and `best` chooses on the second part's rows. A closed form that was chosen is
    fitted again to both parts, and so is the one that a residual critic starts from.
    """
    (x, y), (training, validation, held) = data, parts

    def at(part: np.ndarray, candidate: Candidate) -> dict[str, Any]:
        labels = None if groups is None else groups[part]
        return {"rows": candidate.prepared(x[part], y[part]), "seed": seed, "groups": labels}

    def measured(candidate: Candidate, part: np.ndarray, pairs: int) -> tuple[Measured, Table | None]:
        most = max(pairs, how.most_pairs)
        return measure(candidate.model, bound, pairs=pairs, most=most, **at(part, candidate))

    def make(name: str | nn.Module, rows: np.ndarray, base: nn.Module | None = None) -> Candidate:
        check_stop()
        text = name if isinstance(name, str) else "own"
        label = None if progress is None else f"{progress}, {text}"
        among = None if groups is None else groups[np.concatenate([rows, validation])]
        return fit(
            name, bound, (x[rows], y[rows]), (x[validation], y[validation]), how, seed=seed_of(seed, text), base=base,
            groups=among, progress=label,
        )  # fmt: skip

    fitted: dict[str, Candidate] = {}
    values: dict[str, np.ndarray] = {}  # FLO bound by validation row
    based: str | None = None
    for name in names:
        if isinstance(name, str) and CRITICS[name].base is not None:
            based = name
            continue
        candidate = make(name, training)
        by_row = measured(candidate, validation, CALIBRATION_PAIRS)[0].by_row
        if fitted and np.abs(by_row).max() < 1e-6:
            continue  # it found nothing: the null critic again
        fitted[candidate.name] = candidate
        values[candidate.name] = by_row
        if candidate.interrupted:
            break
    interrupted = any(c.interrupted for c in fitted.values())
    labels = None if groups is None else groups[validation]
    winner = best(values, labels) if values else None
    bases = {
        name: v for name, v in values.items()
        # a network has the features of the expanded form itself
        if name != "expanded" and getattr(fitted[name].model.critic, "optimism", 0.0) <= OPTIMISM
    }  # fmt: skip
    base = best(bases, labels) if based and values else None
    for chosen in {winner, base}:
        if chosen in CRITICS and CRITICS[chosen].fit is not None and not interrupted:
            fitted[chosen] = make(chosen, np.concatenate([training, validation]))
    residual: Candidate | None = None
    if based is not None and not interrupted:
        residual = make(based, training, None if base is None else fitted[base].model.critic)
        fitted[residual.name] = residual
        assert residual.gain is not None  # fit gives every candidate with a base its gain
        lead = 0.0 if base is None or winner is None else float((values[winner] - values[base]).mean())
        # near the log of a batch and beyond, a few held-out pairs carry what a network gains: no fold relies on it
        reliable = base is None or float(values[base].mean()) < math.log(CONTRAST) - 1
        if winner is None or (reliable and residual.gain.validation - lead > residual.gain.stderr):
            winner = residual.name
    assert winner is not None
    won = fitted[winner]
    on_held: dict[str, Measured] = {}
    pairs: Table | None = None
    for name, candidate in fitted.items():  # only the winner's pairs are kept, which are most of the memory
        on_held[name], some = measured(candidate, held, how.pairs)
        pairs = some if name == winner else pairs
    return Fold(
        index=held,
        winner=won,
        base=base,
        residual=residual,
        held=report(won.model, bound, measured=on_held[winner], some=pairs, **at(held, won)),
        calibration=pair_scores(won.model, bound, **at(validation, won)),
        training_value=measured(won, training[:TRAINING_ROWS], CALIBRATION_PAIRS)[0].recalibrated,
        measured=on_held,
        seconds={name: c.seconds for name, c in fitted.items()},
        history=[
            {"critic": name, **dataclasses.asdict(c.history)}
            for name, c in fitted.items()
            if c.history and c.history.step
        ],
        interrupted=any(c.interrupted for c in fitted.values()),
    )


def best(values: dict[str, np.ndarray], groups: np.ndarray | None) -> str:
    """The last name whose FLO bound is higher than the best before it by more than one standard error of the difference."""
    names = list(values)
    top = names[0]
    for name in names[1:]:
        gain = values[name] - values[top]
        if np.isfinite(values[name]).all() and gain.mean() > mean_stderr(gain, groups):
            top = name
    return top
