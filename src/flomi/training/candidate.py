"""One candidate: a critic fitted to training rows, with the preprocessing it was fitted behind."""

from __future__ import annotations

import copy
import math
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from flomi.bounds import Bound
from flomi.critics import CRITICS, PlainCritic
from flomi.critics.base import PairScorer
from flomi.preprocess import RankNormal, Standardize, Whiten
from flomi.scores import table_scores
from flomi.training.ensemble import EnsembleRecipe, Gain, fit_quadratic, fit_residual
from flomi.training.loop import History, Model, Recipe, calibrate, train
from flomi.training.user_models import check_critic

__all__ = ["PREPROCESS", "Candidate", "FitSettings", "fit", "own_critic", "seed_of"]

PREPROCESS = ("rank", "standardize", "none")
Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FitSettings:
    """How candidates are fitted, the same in all folds."""

    recipe: Recipe
    ensemble: EnsembleRecipe
    hidden: tuple[int, ...]
    preprocess: str
    device: str


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
        critic: PairScorer = self.model.critic  # type: ignore[assignment]
        a, b = critic.encode(x, y)
        c, marginal = self.model.c(x), self.model.marginal(y)
        free = marginal if marginal is not None else torch.zeros_like(c)
        at = columns.to(x.device)
        positive, negative = (
            critic.pairs(a, b) - c - free,
            table_scores(critic, a, b, at, self.model.exact) - c[:, None] - free[at],
        )
        return positive.double().cpu(), negative.double().cpu()

    def prepared(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Rows as the model wants them: preprocessed in double precision, then in the model's own."""
        if self.model.exact:
            return self.prep_x(x), self.prep_y(y)
        return self.model.cast(self.prep_x(x)), self.model.cast(self.prep_y(y))


def seed_of(seed: int, *more: int | str) -> int:
    """A seed for one part of the work, the same in every process."""
    keys = [zlib.crc32(m.encode()) if isinstance(m, str) else m for m in more]
    return int(np.random.SeedSequence([seed, *keys]).generate_state(1)[0])


def fit(
    critic: str | nn.Module,
    bound: Bound,
    rows: Rows,
    held: Rows,
    settings: FitSettings,
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
    if kind is not None and kind.ensemble is not None:
        x, y = (torch.cat([a, b]).flatten(1) for a, b in zip(rows, held, strict=True))
        if kind.ensemble.untrained is not None:
            base = fit_quadratic(x, y, len(held[0]), seed=seed)
        elif base is None:
            assert kind.ensemble.fallback is not None
            base = kind.ensemble.fallback(x, y)
        labels = None if groups is None else torch.from_numpy(np.unique(groups, return_inverse=True)[1])
        net, gain, history = fit_residual(
            x, y, len(held[0]), base, settings.ensemble, seed=seed, device=settings.device, groups=labels, progress=progress
        )  # fmt: skip
        return done(Model(net, (), None), (nn.Flatten(), nn.Flatten()), history, gain)

    prep = [_prepare(v, "none" if kind is None else settings.preprocess) for v in rows]
    recipe = settings.recipe
    if recipe.negatives == "auto":
        recipe = replace(recipe, negatives=kind.negatives if kind is not None else "shifts")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        if isinstance(critic, nn.Module):
            net_: nn.Module = own_critic(critic, shape_x, shape_y)
        else:
            assert kind is not None and kind.build is not None  # a row of CRITICS has build, fit or ensemble
            net_ = kind.build(math.prod(shape_x), math.prod(shape_y), settings.hidden)
        prepared = [[p(v) for p, v in zip(prep, part, strict=True)] for part in (rows, held)]
        model = Model(net_, tuple(prepared[0][0].shape[1:]), bound).to(settings.device)
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


def _prepare(v: Tensor, kind: str) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    flat = v.flatten(1)
    if kind == "standardize":
        return nn.Sequential(nn.Flatten(), Standardize.fit(flat))
    rank = RankNormal.fit(flat)
    return nn.Sequential(nn.Flatten(), rank, Whiten.fit(rank(flat)))
