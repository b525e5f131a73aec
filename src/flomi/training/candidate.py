"""One candidate: a critic fitted to training rows, with the preprocessing it was fitted behind."""

from __future__ import annotations

import copy
import time
import zlib
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from flomi.bounds import Bound
from flomi.critics import CRITICS, PlainCritic
from flomi.critics.base import Critic, PairScorer
from flomi.critics.table import Ensemble
from flomi.preprocess import IndependentColumns, RankNormal, Standardize, Whiten
from flomi.scores import table_scores
from flomi.training.bound import BoundTraining, fit_log_offset, fit_network
from flomi.training.ensemble import EnsembleTraining, Gain, fit_base, fit_ensemble
from flomi.training.loop import History
from flomi.training.model import Model
from flomi.training.user_models import check_critic

PREPROCESS = ("rank", "standardize", "none")
Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FitSettings:
    """How candidates are fitted, the same in all folds."""

    network: BoundTraining
    ensemble: EnsembleTraining
    hidden: tuple[int, ...]
    preprocess: str
    device: str


@dataclass
class Candidate:
    """A fitted critic with the preprocessing it was fitted behind.

    `prep_x` and `prep_y` map rows as the user gave them to what the model takes. They may be any module that was fitted, or
    frozen, on training rows before the critic, an encoder for one: they are applied to every row. `storage` rebuilds those of
    preprocess.py. `base` is the name of the candidate that an ensemble stands on, None where it is no candidate's.
    """

    name: str
    prep_x: nn.Module
    prep_y: nn.Module
    model: Model
    history: History | None
    seconds: float
    shape_x: tuple[int, ...]
    shape_y: tuple[int, ...]
    gain: Gain | None = None
    base: str | None = None

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training early."""
        return self.history is not None and self.history.interrupted

    @torch.no_grad()
    def scores(self, x: Tensor, y: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
        """The PMI score p, float64: of aligned rows [n], and of x_i with the y of row `partners[i, k]`, [n, m]."""
        x, y = self.prepared(x, y)
        critic: PairScorer = self.model.critic  # type: ignore[assignment]
        a, b = critic.encode(x, y)
        c, marginal = self.model.c(x), self.model.marginal(y)
        free = marginal if marginal is not None else torch.zeros_like(c)
        at = partners.to(x.device)
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
    validation: Rows,
    settings: FitSettings,
    *,
    seed: int,
    label: str | None = None,
    base: Candidate | None = None,
    groups: np.ndarray | None = None,
    progress: str | None = None,
) -> Candidate:
    """Fit one candidate to `rows` (float64, as the user gave them), stopping by the `validation` rows.

    `label` names it, the row's or the class's name if None; `base` is what an ensemble stands on, the fallback of its row if
    None; `groups` are the labels of `rows`, then of the others.
    """
    start = time.perf_counter()
    shape_x, shape_y = (tuple(v.shape[1:]) for v in rows)
    kind = CRITICS[critic] if isinstance(critic, str) else None
    prep: list[nn.Module]
    history, gain, stands_on = None, None, None
    if kind is not None and kind.fit is not None:
        prep = [_independent(v) for v in rows]
        closed = kind.fit(*(p(v) for p, v in zip(prep, rows, strict=True)))
        closed.row = kind.name  # by which what stands on it is rebuilt
        model = Model(closed, (), None)
    elif kind is not None and kind.ensemble is not None:
        every = [torch.cat(parts) for parts in zip(rows, validation, strict=True)]
        # networks see what their base sees
        prep = [_independent(v) for v in every] if base is None else [base.prep_x, base.prep_y]
        x, y = (p(v) for p, v in zip(prep, every, strict=True))
        stands_on, below = _base_of(kind.ensemble, base, x, y, len(validation[0]), seed)
        labels = None if groups is None else torch.from_numpy(np.unique(groups, return_inverse=True)[1])
        net, gain, history = fit_ensemble(
            x, y, len(validation[0]), below, settings.ensemble, seed=seed, device=settings.device, groups=labels,
            progress=progress,
        )  # fmt: skip
        model = Model(net, (), None)
    else:
        prep = [_prepare(v, "none" if kind is None else settings.preprocess) for v in rows]
        training = settings.network
        if training.negatives == "auto":
            training = replace(training, negatives="shifts" if kind is None else kind.negatives)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            if isinstance(critic, nn.Module):
                g = fresh_copy(critic, shape_x, shape_y)
            else:
                assert (
                    kind is not None and kind.build is not None
                )  # a row of CRITICS has build, fit or a base
                g = kind.build(width_of(prep[0], shape_x), width_of(prep[1], shape_y), settings.hidden)
            prepared = [[p(v) for p, v in zip(prep, part, strict=True)] for part in (rows, validation)]
            model = Model(g, tuple(prepared[0][0].shape[1:]), bound).to(settings.device)
            some, others = ((model.cast(x), model.cast(y)) for x, y in prepared)
            if isinstance(critic, nn.Module):
                check_critic(model, *some)
            history = fit_network(model, bound, some, others, training, seed, progress)
            fit_log_offset(model, some, others)
    return Candidate(
        label or (type(critic).__name__ if kind is None else kind.name), prep[0], prep[1], model.eval(), history,
        time.perf_counter() - start, shape_x, shape_y, gain, stands_on,
    )  # fmt: skip


def _base_of(
    ensemble: Ensemble, given: Candidate | None, x: Tensor, y: Tensor, n_validation: int, seed: int
) -> tuple[str | None, Critic]:
    """What the networks stand on: what training learns, the candidate given, with its name, or the row's fallback."""
    if ensemble.untrained is not None:
        return None, fit_base(ensemble.untrained(x, y, seed), x, y, n_validation, seed=seed)
    if given is not None:
        return given.name, cast(Critic, given.model.critic)
    assert ensemble.fallback is not None  # a row has one of the two
    return None, ensemble.fallback(x, y)


def fresh_copy(module: nn.Module, shape_x: tuple[int, ...], shape_y: tuple[int, ...]) -> nn.Module:
    """A copy of a user's module, as a critic, whose layers start afresh: those that know how to, and are not frozen."""
    net = copy.deepcopy(module)
    for part in net.modules():
        reset, weights = getattr(part, "reset_parameters", None), list(part.parameters(recurse=False))
        if callable(reset) and weights and all(w.requires_grad for w in weights):
            reset()
    complete = all(hasattr(net, name) for name in ("encode", "positives", "pairs", "matrix"))
    return net if complete else PlainCritic(net, shape_x, shape_y)


def _independent(v: Tensor) -> nn.Module:
    """What flattens rows and leaves out the columns that are combinations of others."""
    flat = v.flatten(1)
    found = IndependentColumns.fit(flat)
    return nn.Flatten() if len(found.columns) == flat.shape[1] else nn.Sequential(nn.Flatten(), found)


def width_of(prep: nn.Module, shape: tuple[int, ...]) -> int:
    """How many numbers a row has that was prepared."""
    return prep(torch.zeros(1, *shape, dtype=torch.float64)).flatten(1).shape[1]  # type: ignore[no-any-return]


def _prepare(v: Tensor, kind: str) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    flat = v.flatten(1)
    if kind == "standardize":
        return nn.Sequential(nn.Flatten(), Standardize.fit(flat))
    columns = _independent(v)
    flat = columns(v)
    rank = RankNormal.fit(flat)
    return nn.Sequential(*columns.children() or (nn.Flatten(),), rank, Whiten.fit(rank(flat)))
