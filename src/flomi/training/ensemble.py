r"""Ensembles of small networks on a base, all members in one stack, and the base that is itself learned.

Objective: the two-sided InfoNCE over all pairs of a batch,

.. math:: \frac1B \sum_i \Big[ G_{ii} - \tfrac12 \log \tfrac1B \sum_j e^{G_{ij}} - \tfrac12 \log \tfrac1B \sum_j e^{G_{ji}} \Big],

whose optimum is the PMI up to one constant (the one-sided one leaves a log-offset c(x)). It rests on decoupled weight decay with
rate x decay = prior / n: a prior on the weights whose share falls as 1/n. FLO decides on held-out rows, as for any critic.
Member e stops by its own share of the rows and trains on the others, so the average uses every row for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flomi.critics.base import Critic, log_mean_off
from flomi.critics.features import canonical_inputs
from flomi.critics.residual import QuadraticNetwork, ResidualCritic
from flomi.support.settings import UNMEASURED, setting
from flomi.training.loop import History, Schedule, batches, train


@dataclass(frozen=True)
class EnsembleTraining:
    """How an ensemble is trained. benchmarks/ablation.py and accuracy.py measure all of it together."""

    members: int = setting(4, f"{UNMEASURED}their mean varies less than one; every row both trains and stops")
    steps: int = setting(300, f"{UNMEASURED}at most; patience ends most runs before")
    width: int = setting(128, f"{UNMEASURED}of each hidden layer")
    depth: int = setting(3, f"{UNMEASURED}hidden layers")
    features: int = setting(16, f"{UNMEASURED}terms of the inner product")
    rate: float = setting(2e-2, f"{UNMEASURED}of AdamW")
    prior: float = setting(
        8.0, f"{UNMEASURED}rate x decay x n for every column of the wider side, at least 4"
    )
    warmup: int = setting(30, f"{UNMEASURED}steps")
    evaluations: int = setting(25, f"{UNMEASURED}of the validation rows in all steps")
    patience: int = setting(10, f"{UNMEASURED}evaluations")
    give_up: int = setting(
        60, "a first gain came at steps 12 to 36 (benchmarks/notes.md, When a network gives up, 2026-11-28)"
    )
    validation_rows: int = setting(1500, f"{UNMEASURED}of a member; a third more fix the constant c")
    batch: int = setting(256, f"{UNMEASURED}rows a step, twice as many for wide data")

    @property
    def schedule(self) -> Schedule:
        """When the loop steps and evaluates: the start is a member's first answer, and is kept where nothing is gained."""
        return Schedule(
            self.steps, max(1, self.steps // self.evaluations), self.patience, self.warmup, from_start=True,
            least_gain=SETTINGS.least_gain, give_up=self.give_up,
        )  # fmt: skip


@dataclass(frozen=True)
class EnsembleSettings:
    """What is the same at every effort, for ensembles and for a learned base."""

    least_gain: float = setting(1e-4, f"{UNMEASURED}nats of validation value that count as a gain")
    momentum: float = setting(0.9, "AdamW's default, Loshchilov and Hutter 2019, arXiv:1711.05101")
    memory: float = setting(
        0.99, f"{UNMEASURED}of squared gradients; runs are too short for the default of 0.999"
    )
    average: float = setting(0.98, f"{UNMEASURED}most weight of the past in the average of the weights")
    average_start: int = setting(9, f"{UNMEASURED}after k steps the past weighs k / (k + 9) at most")
    wide: int = setting(10, f"{UNMEASURED}columns beyond which a batch is twice as large")
    least_width: int = setting(4, f"{UNMEASURED}columns that the prior counts at least")
    block: int = setting(
        500,
        f"{UNMEASURED}validation rows whose pairs are scored together while members learn; fewer pairs, less time",
    )


SETTINGS = EnsembleSettings()

# The quadratic layer alone, from random weights; all UNMEASURED. It has too few parameters to need a prior.
BASE = EnsembleTraining(
    members=1, steps=400, rate=1e-2, prior=0.0, warmup=20, evaluations=20, patience=6, validation_rows=2000, batch=1024
)  # fmt: skip


@dataclass(frozen=True)
class Gain:
    """What an ensemble added to its base, as Donsker-Varadhan values in nats.

    `validation` with its standard error, on rows that no member trained on; `training`, on rows that they did.
    """

    validation: float
    stderr: float
    training: float


# --- The objective, and values ----------------------------------------------------------------------------------------


class _Contrast(torch.autograd.Function):
    """Loss [E] of score matrices [E, B, B]: minus the objective above, with its gradient from the same exponentials."""

    @staticmethod
    def forward(ctx: Any, g: Tensor) -> Tensor:
        n, top = g.shape[-1], g.amax((1, 2), keepdim=True)
        diagonal = g.diagonal(dim1=1, dim2=2).mean(1)
        w = (g - top).exp_()
        # a floor below any row that matters: one that holds nothing near the top must not give log 0
        rows, columns = (w.sum(k, keepdim=True).clamp(min=1e-30) for k in (2, 1))
        loss = (
            (rows.squeeze(2).log() + columns.squeeze(1).log()).mean(1) / 2
            + top[:, 0, 0]
            - math.log(n)
            - diagonal
        )
        w.mul_((1 / rows + 1 / columns) / (2 * n)).diagonal(dim1=1, dim2=2).sub_(1 / n)
        ctx.save_for_backward(w)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return ctx.saved_tensors[0] * grads[0][:, None, None]  # type: ignore[no-any-return]


def _contrast(g: Tensor) -> Tensor:
    loss: Tensor = _Contrast.apply(g)  # type: ignore[no-untyped-call]
    return loss


def _value(g: Tensor) -> Tensor:
    """Donsker-Varadhan value [E] of score matrices [E, n, n]."""
    return g.diagonal(dim1=1, dim2=2).mean(1) - log_mean_off(g)


def _rowwise(g: Tensor) -> Tensor:
    """FLO bound [E, n] by row, the best constant in u."""
    p = g - log_mean_off(g)[:, None, None]
    diagonal = p.diagonal(dim1=1, dim2=2)
    return 1 + diagonal - (p.exp().sum(2) - diagonal.exp()) / (g.shape[-1] - 1)


# --- The task ---------------------------------------------------------------------------------------------------------


class _Stack:
    """Parameters [E, ...] of all members as a task of the loop: AdamW, and a running average of the weights, which is evaluated
    and kept for each member on its own. torch.optim's AdamW would bring its compiler along, at 2 s a process.

    `loss()` [E] is that of a batch, `value()` [E] that of validation rows.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, Tensor]],
        rate: float,
        decay: float,
        loss: Callable[[], Tensor],
        value: Callable[[], Tensor],
    ) -> None:
        self.parameters = [p for _, p in named]
        self.decayed = [p for name, p in named if name.endswith("weight")]
        self.rate, self.decay, self.loss, self.value, self.step = rate, decay, loss, value, 0
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.average = [p.detach().clone() for p in self.parameters]
        self.kept = [p.clone() for p in self.average]

    def update(self, rate: float) -> Tensor:
        loss = self.loss()
        grads = torch.autograd.grad(loss.sum(), self.parameters)
        beta, memory = SETTINGS.momentum, SETTINGS.memory
        self.step += 1
        with torch.no_grad():
            torch._foreach_lerp_(self.first, grads, 1 - beta)
            torch._foreach_mul_(self.second, memory)
            torch._foreach_addcmul_(self.second, grads, grads, 1 - memory)
            root = torch._foreach_sqrt(self.second)
            torch._foreach_mul_(root, 1 / math.sqrt(1 - memory**self.step))
            torch._foreach_add_(root, 1e-8)
            if self.decayed:
                torch._foreach_mul_(self.decayed, 1 - rate * self.decay)
            length = rate * self.rate / (1 - beta**self.step)
            torch._foreach_addcdiv_(self.parameters, self.first, root, value=-length)
            past = min(SETTINGS.average, self.step / (self.step + SETTINGS.average_start))
            torch._foreach_lerp_(self.average, self.parameters, 1 - past)
        return -loss.detach().mean()

    @torch.no_grad()
    def validation(self) -> Tensor:
        current = [p.clone() for p in self.parameters]
        self._load(self.average)
        value = self.value().cpu()
        self._load(current)
        return value

    def keep(self, better: Tensor) -> None:
        for old, new in zip(self.kept, self.average, strict=True):
            if len(better) > 1:
                old[better] = new[better]
            else:
                old.copy_(new)

    def restore(self) -> None:
        self._load(self.kept)

    @torch.no_grad()
    def _load(self, values: Sequence[Tensor]) -> None:
        for p, value in zip(self.parameters, values, strict=True):
            p.copy_(value)


# --- An ensemble on its base ------------------------------------------------------------------------------------------


class _Rows:
    """All rows as the networks and their base see them, and the score matrices of some of them: indices [E, k] -> [E, k, k]."""

    def __init__(self, net: ResidualCritic, x: Tensor, y: Tensor, groups: Tensor | None, device: str) -> None:
        self.net, self.groups = net, groups
        with torch.no_grad():
            self.a0, self.b0 = (code.float().to(device) for code in net.base.encode(x, y))
            net.to(device)
            self.hx, self.hy = (i.expand(i(v.to(device))) for i, v in ((net.inputs_x, x), (net.inputs_y, y)))

    def cpu(self) -> None:
        self.hx, self.hy, self.a0, self.b0 = (v.cpu() for v in (self.hx, self.hy, self.a0, self.b0))

    @torch.no_grad()
    def base(self, index: Tensor) -> Tensor:
        return torch.stack(
            [self.masked(self.net.base.matrix(self.a0[k], self.b0[k]).float(), k) for k in index]
        )

    def members(self, index: Tensor, base: Tensor) -> Tensor:
        return self.net.members_matrix(self.hx[index], self.hy[index], base)

    def masked(self, g: Tensor, index: Tensor) -> Tensor:
        """-inf at pairs of different rows of one group: they are no sample of independent x and y."""
        if self.groups is None:
            return g
        label = self.groups[index].to(g.device)
        return g.masked_fill((label == label[:, None]).fill_diagonal_(False), -math.inf)


def _split(
    n: int, n_validation: int, members: int, groups: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A random order [n] of the rows, and of each member the training rows and the validation rows, [E, ...]."""
    order = torch.randperm(n, generator=generator)
    if groups is not None:  # one after another
        place = torch.randperm(int(groups.max()) + 1, generator=generator)
        order = order[place[groups[order]].argsort(stable=True)]
    # each member validates on a block of its own; the blocks are disjoint while E n_validation <= n
    validation = torch.stack([order.roll(k * n_validation)[-n_validation:] for k in range(members)])
    training = torch.stack([order.roll(k * n_validation)[:-n_validation] for k in range(members)])
    if groups is not None:  # a group at the edge of the block is not trained on: others stand in for its rows
        for mine, block in zip(training, validation, strict=True):
            free = mine[~torch.isin(groups[mine], groups[block])]
            if len(free) == 0:
                continue  # groups too large to keep apart
            again = torch.randint(len(free), (len(mine) - len(free),), generator=generator)
            mine.copy_(torch.cat([free, free[again]]))
    return order, training, validation


def fit_ensemble(
    x: Tensor,
    y: Tensor,
    n_validation: int,
    base: Critic,
    training: EnsembleTraining,
    *,
    seed: int = 0,
    device: str = "cpu",
    groups: Tensor | None = None,
    progress: str | None = None,
) -> tuple[ResidualCritic, Gain, History]:
    """The ensemble on top of `base`, which stays as it is. x, y: float64 rows [n, d] in random order; groups [n] from 0."""
    n, e, most = len(x), training.members, training.validation_rows
    generator = torch.Generator().manual_seed(seed)
    order, learned, validation = _split(n, n_validation, e, groups, generator)
    validation = validation[:, :most]
    if groups is not None:  # they stand one after another, and a block needs several
        validation = validation[:, torch.randperm(validation.shape[1], generator=generator)]
    net = ResidualCritic(
        base, *canonical_inputs(x, y, rotate=True), members=e, width=training.width, depth=training.depth,
        features=training.features, seed=seed,
    )  # fmt: skip
    rows = _Rows(net, x, y, groups, device)
    n_train, wide = learned.shape[1], max(net.inputs_x.dim, net.inputs_y.dim)
    size = training.batch if wide <= SETTINGS.wide else 2 * training.batch
    # each member in an order of its own
    orders = batches(lambda: torch.rand(e, n_train, generator=generator).argsort(1), min(size, n_train))

    def loss() -> Tensor:
        index = learned.gather(1, next(orders))
        return _contrast(rows.members(index, rows.base(index)))

    # while they learn, members are evaluated on the pairs within blocks of rows: enough to see when to stop
    size = validation.shape[1] if validation.shape[1] < 2 * SETTINGS.block else SETTINGS.block
    blocks = [(index, rows.base(index)) for index in validation.split(size, 1) if index.shape[1] == size]

    def value() -> Tensor:
        g = [rows.members(index, g0) for index, g0 in blocks]
        off = torch.stack([log_mean_off(part) for part in g]).logsumexp(0) - math.log(len(g))
        return torch.stack([part.diagonal(dim1=1, dim2=2).mean(1) for part in g]).mean(0).sub(off)

    named = [(k, p) for k, p in net.named_parameters() if k.startswith("tower")]
    decay = training.prior * max(SETTINGS.least_width, wide) / n_train
    history = train(_Stack(named, training.rate, decay, loss, value), training.schedule, progress)
    net = net.cpu().requires_grad_(False).eval()
    rows.cpu()
    with torch.no_grad():
        seen = learned[:, :most]
        g0 = rows.base(seen)
        gain = _value(rows.members(seen, g0)) - _value(g0)
        g0 = rows.base(validation)
        difference = (_rowwise(rows.members(validation, g0)) - _rowwise(g0)).flatten()
        stderr = float(difference.std()) / math.sqrt(min(difference.numel(), n))
        a, b = net.joined(rows.hx, rows.hy, rows.a0, rows.b0)
        some = order[: most * 4 // 3]
        among = rows.masked(net.matrix(a[some], b[some]), some)
        net.truncate(among, net.pairs(a, b), least_shift=-math.inf, low=-math.log(n))
    return net, Gain(float(difference.mean()), stderr, float(gain.mean())), history


# --- A base that is learned -------------------------------------------------------------------------------------------


def fit_base(
    net: QuadraticNetwork, x: Tensor, y: Tensor, n_validation: int, *, seed: int = 0
) -> QuadraticNetwork:
    """Train a quadratic layer, the last rows deciding when to stop. x, y: float64 rows [n, d] in random order."""
    with torch.no_grad():
        zx, zy = net.inputs_x(x), net.inputs_y(y)
    n_train = len(x) - n_validation
    generator = torch.Generator().manual_seed(seed)
    order = batches(lambda: torch.rand(n_train, generator=generator).argsort(), min(BASE.batch, n_train))
    validation = torch.arange(n_train, len(x))[: BASE.validation_rows]

    def matrix(index: Tensor) -> Tensor:
        return net.matrix(*net.layer(zx[index], zy[index]))[None]

    task = _Stack(
        list(net.named_parameters()), BASE.rate, 0.0,
        lambda: _contrast(matrix(next(order))), lambda: _value(matrix(validation)),
    )  # fmt: skip
    if train(task, BASE.schedule).interrupted:
        raise KeyboardInterrupt
    return net.requires_grad_(False).eval()
