"""Meta-learning with few tasks: a learner that reads a task off its examples, and is kept from knowing the tasks by heart (E15).

    minimise over the learner    E_tasks[ query loss ] + weight * sqrt( I(W; S) )        W = encode(S) + Gaussian noise

**Which two variables.** S is the support set, the few examples of a task; W is what the learner makes of it, and all that its
predictions rest on. Where W is a function of S, I(W; S) is infinite (parameters adapted by gradient steps are such a function),
so noise of a fixed size is part of W. Since that noise is ours, log p(w | s) is known; it is FLO's best critic but for a
function of w, and only the dual u has to be learned. Negatives are the support sets of the other tasks of a batch.

    >>> generator = torch.Generator().manual_seed(0)
    >>> learner = SetLearner()
    >>> fit([learner], [sinusoids(20, generator).data(20)], [0.3], steps=3, generator=generator)
    >>> error(learner, sinusoids(100, generator).data(110)).shape  # of each task, after 10 examples
    torch.Size([100])

Reference: Jose and Simeone 2021, arXiv:2005.04372 (why a root); Finn et al. 2017, arXiv:1703.03400 (tasks, MAML).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.functional import mse_loss

from flomi import bounds
from flomi.bounds import Scores
from flomi.critics import Baseline, mlp
from flomi.scores import Dense
from flomi.training.loop import cosine

__all__ = [
    "MAML", "Game", "InformationPenalty", "SetLearner", "Sinusoids", "Tasks", "error", "fit", "information", "root", "sinusoids",
]  # fmt: skip

SOFT = 0.01  # nats below which the root is made less steep


# Tasks ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tasks:
    """Data sets of n tasks: row i of x [n, rows] and y [n, rows] are the examples of task i."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: Tensor | slice) -> Tasks:
        """Some of the tasks, a task as often as it is named."""
        return Tasks(self.x[which], self.y[which])

    def episodes(
        self, shots: int, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Every task split at random: x, y [n, shots], its support set, and new_x, new_y [n, rows - shots], its queries."""
        order = torch.rand(self.x.shape[-2:], generator=generator).argsort(-1).expand(self.x.shape)
        x, y = self.x.gather(-1, order), self.y.gather(-1, order)
        return x[..., :shots], y[..., :shots], x[..., shots:], y[..., shots:]


@dataclass(frozen=True)
class Sinusoids:
    """Tasks y = amplitude * sin(x - phase), one for each entry of two tensors [n]."""

    amplitude: Tensor
    phase: Tensor

    def __len__(self) -> int:
        return len(self.amplitude)

    def __getitem__(self, which: Tensor | slice) -> Sinusoids:
        """Some of the tasks, a task as often as it is named."""
        return Sinusoids(self.amplitude[which], self.phase[which])

    def data(self, rows: int = 20, generator: torch.Generator | None = None) -> Tasks:
        """A data set of each task, new at each call: x uniform on [-5, 5]."""
        x = 10 * torch.rand(len(self), rows, generator=generator) - 5
        return Tasks(x, self.amplitude[:, None] * torch.sin(x - self.phase[:, None]))


def sinusoids(n: int, generator: torch.Generator | None = None) -> Sinusoids:
    """n tasks as in Finn et al. 2017: amplitude uniform on [0.1, 5], phase uniform on [0, pi].

    >>> sinusoids(3).data(20).y.shape
    torch.Size([3, 20])
    """
    amplitude, phase = torch.rand(2, n, generator=generator)
    return Sinusoids(0.1 + 4.9 * amplitude, math.pi * phase)


# Learners: learner(x, y, new_x) -> predictions at new_x [n, queries] from the examples (x, y) [n, shots] of n tasks ----


class SetLearner(nn.Module):
    r"""An encoder of the examples and a decoder of what it found, in the manner of a neural process.

    .. math:: r = \frac1k \sum_i \mathrm{enc}(x_i, y_i), \qquad W = r + \sigma\,\epsilon, \qquad \hat y(x) = \mathrm{dec}(x, W)

    The order of the examples does not matter. Noise is drawn in training; in evaluation W = r. `dim`: numbers in W.
    Reference: Garnelo et al. 2018, arXiv:1807.01613.

    >>> x, y, _, _ = sinusoids(4).data(20).episodes(10)
    >>> SetLearner()(x, y, torch.zeros(4, 7)).shape
    torch.Size([4, 7])
    """

    def __init__(self, dim: int = 8, hidden: Sequence[int] = (40, 40), noise: float = 1.0) -> None:
        super().__init__()
        self.dim, self.noise = dim, noise
        self.encoder, self.decoder = mlp([2, *hidden, dim]), mlp([1 + dim, *hidden, 1])

    def encode(self, x: Tensor, y: Tensor) -> Tensor:
        """r [n, dim], the mean of W."""
        found: Tensor = self.encoder(torch.stack([x, y], -1)).mean(1)
        return found

    def blur(self, r: Tensor, noise: Tensor) -> Tensor:
        """W, a draw from p(w | s): `noise` is standard normal."""
        return r + self.noise * noise

    def decode(self, w: Tensor, new_x: Tensor) -> Tensor:
        """Predictions [n, queries] from W [n, dim]."""
        w = w[:, None].expand(-1, new_x.shape[1], -1)
        found: Tensor = self.decoder(torch.cat([new_x[..., None], w], -1))
        return found.squeeze(-1)

    def forward(self, x: Tensor, y: Tensor, new_x: Tensor) -> Tensor:
        return self.decode(self.encode(x, y), new_x)


class MAML(nn.Module):
    r"""A network that is adapted to each task by gradient steps on its examples, and trained through those steps.

    .. math:: \theta_\tau = \theta - \alpha \nabla_\theta \tfrac1k \sum_i (f_\theta(x_i) - y_i)^2 \quad \text{(`steps` times)}

    `steps` may be changed after training. Second derivatives are exact. Reference: Finn et al. 2017, arXiv:1703.03400.

    >>> x, y, _, _ = sinusoids(4).data(20).episodes(10)
    >>> MAML()(x, y, torch.zeros(4, 7)).shape
    torch.Size([4, 7])
    """

    def __init__(self, hidden: Sequence[int] = (40, 40), steps: int = 1, rate: float = 0.01) -> None:
        super().__init__()
        self.net, self.steps, self.rate = mlp([1, *hidden, 1]), steps, rate

    def adapt(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The network's parameters after the steps on one task's examples, x and y [shots]."""
        parameters: dict[str, Tensor] = dict(self.net.named_parameters())
        for _ in range(self.steps):
            slope = grad(self._loss)(parameters, x, y)
            parameters = {name: p - self.rate * slope[name] for name, p in parameters.items()}
        return parameters

    def forward(self, x: Tensor, y: Tensor, new_x: Tensor) -> Tensor:
        def one(x: Tensor, y: Tensor, new_x: Tensor) -> Tensor:
            return self._predict(self.adapt(x, y), new_x)

        return vmap(one)(x, y, new_x)

    def _predict(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        found: Tensor = functional_call(self.net, parameters, (x[:, None],))
        return found.squeeze(-1)

    def _loss(self, parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return mse_loss(self._predict(parameters, x), y)


# Information ---------------------------------------------------------------------------------------------------------


def root(mi: Tensor) -> Tensor:
    r"""The square root that the penalty takes, with a slope that stays finite: a bound on MI may be 0, or below.

    .. math:: \sqrt{\max(I, 0) + s} - \sqrt{s}, \qquad s = 0.01 \text{ nats, so the slope is at most } 1 / (2\sqrt{s}) = 5

    Of a negative estimate it is 0, with slope 0.

    >>> root(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.0000, 0.0000, 0.9050])
    """
    return (mi.clamp_min(0) + SOFT).sqrt() - math.sqrt(SOFT)


class InformationPenalty(nn.Module):
    r"""FLO on I(W; S) with the exact critic and a learned dual u(w, r): the learner makes `forward` small, u makes it large.

    .. math:: g(w, s) = -\frac{|w - r(s)|^2}{2 \sigma^2} = \log p(w \mid s) + \text{const}

    As in every min-max game with a lower bound, a small value is no proof: u may lag behind. `information` tells afterwards,
    from both sides. `dim`, `noise`: those of the learner.

    >>> penalty = InformationPenalty(8)
    >>> r = torch.zeros(25, 8)
    >>> round(abs(penalty(r + torch.randn(25, 8), r).item()), 4)  # nothing is told, and u starts at 0
    0.0
    """

    def __init__(self, dim: int, noise: float = 1.0, hidden: int = 64) -> None:
        super().__init__()
        self.noise, self.u = noise, Baseline(2 * dim, (hidden,))

    def forward(self, w: Tensor, r: Tensor) -> Tensor:
        """The bound of this batch in nats, from w and r [n, dim]: rows of other tasks are the negatives."""
        scores = _scores(w, r, self.noise)
        return bounds.flo(replace(scores, u=self.u(torch.cat([w, r], -1)))).mean()


def _scores(w: Tensor, r: Tensor, noise: float) -> Scores:
    """The exact critic on all pairs: row i, column j is log p(w_i | s_j) but for a constant."""
    g = -(w[:, None] - r).square().sum(-1) / (2 * noise**2)
    return Scores(g.diagonal(), Dense(g))


@torch.no_grad()
def information(
    learner: SetLearner,
    tasks: Tasks,
    shots: int = 10,
    n: int = 1000,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """I(W; S) in nats from below and from above, in expectation, on n support sets of tasks drawn from `tasks`.

    InfoNCE, at most log n, and the leave-one-out bound: with the exact critic they enclose I, and nothing is learned.
    Reference: Poole et al. 2019, arXiv:1905.06922, section 2.
    """
    drawn = torch.randint(len(tasks), (n,), generator=generator)
    x, y, _, _ = tasks[drawn].episodes(shots, generator)
    r = learner.encode(x, y)
    scores = _scores(learner.blur(r, torch.randn(r.shape, generator=generator)), r, learner.noise)
    return float(bounds.infonce(scores).mean()), float(bounds.fdv(scores).mean())


# Training and judging ------------------------------------------------------------------------------------------------


class Game(nn.Module):
    """What one learner minimises on one batch, its dual included: a module, so that several run side by side under `vmap`."""

    def __init__(self, learner: SetLearner | MAML, penalty: InformationPenalty | None = None) -> None:
        super().__init__()
        self.learner, self.penalty = learner, penalty

    def forward(
        self, weight: Tensor, noise: Tensor, x: Tensor, y: Tensor, new_x: Tensor, new_y: Tensor
    ) -> Tensor:
        if self.penalty is None:
            return mse_loss(self.learner(x, y, new_x), new_y)
        assert isinstance(self.learner, SetLearner)
        r = self.learner.encode(x, y)
        w = self.learner.blur(r, noise)
        loss = mse_loss(self.learner.decode(w, new_x), new_y)
        # The dual's own term has the learner detached, and the learner's has the dual's parameters detached.
        frozen = {name: p.detach() for name, p in self.penalty.named_parameters()}
        told: Tensor = functional_call(self.penalty, frozen, (w, r))
        dual: Tensor = self.penalty(w.detach(), r.detach())
        return loss + weight * root(told) - dual


def fit(
    learners: Sequence[SetLearner | MAML],
    tasks: Sequence[Tasks],
    weights: Sequence[float] | None = None,
    *,
    steps: int,
    batch: int = 25,
    shots: int = 10,
    lr: float = 1e-3,
    lr_dual: float = 5e-3,
    clip: float = 10.0,
    generator: torch.Generator | None = None,
    watch: Callable[[int], None] | None = None,
    every: int = 0,
) -> None:
    """Train learners of one kind and size side by side, each on its own tasks: squared error on queries + weight * root(FLO).

    Side by side (`torch.func.vmap` over learners) because small networks spend their time on overheads; and all see the same
    random numbers, so that their differences are paired. A batch draws its tasks with replacement, so that its rows are
    independent and the other rows are draws of the marginal; a task's rows are split anew into support and queries each time.

    Adam, its rate by a cosine. `lr_dual` is that of u, which is measured on a batch before it learns from it. The
    norm of each learner's gradient is clipped at `clip`, since the root is steep near 0. `weights` None: no penalty, and no
    noise. `watch(step)` is called after every `every` steps, with learners as they are then. Raises ValueError for a
    weight below 0, weights for `MAML`, lists of unequal length, or learners that are not alike.
    """
    if len(tasks) != len(learners) or (weights is not None and len(weights) != len(learners)):
        raise ValueError(f"{len(learners)} learners need as many tasks, and as many weights or none")
    if weights is not None and (min(weights) < 0 or not isinstance(learners[0], SetLearner)):
        raise ValueError(f"weights={list(weights)}: give 0 or more, and only to learners of type SetLearner")
    if len({_settings(learner) for learner in learners}) > 1:
        raise ValueError(
            "learners trained side by side must be alike: of one type, size, noise, steps and rate"
        )
    games = []
    for learner in learners:
        penalty = None
        if weights is not None and isinstance(learner, SetLearner):
            penalty = InformationPenalty(learner.dim, learner.noise)
        games.append(Game(learner, penalty))
    state, _ = stack_module_state(games)
    own = [p for name, p in state.items() if name.startswith("learner.")]
    duals = [p for name, p in state.items() if name.startswith("penalty.")]
    optimiser = torch.optim.Adam([{"params": own, "lr": lr}, {"params": duals, "lr": lr_dual}], fused=True)
    weight, dim = torch.tensor(weights or [0.0] * len(games)), getattr(learners[0], "dim", 0)

    def loss(state: dict[str, Tensor], weight: Tensor, rows: tuple[Tensor, ...], noise: Tensor) -> Tensor:
        found: Tensor = functional_call(games[0], state, (weight, noise, *rows))
        return found

    losses = vmap(loss, in_dims=(0, 0, 0, None))
    for step in range(1, steps + 1):
        optimiser.param_groups[0]["lr"] = lr * cosine(step - 1, steps)
        place, noise = torch.rand(batch, generator=generator), torch.randn(batch, dim, generator=generator)
        drawn = [some[(place * len(some)).long()] for some in tasks]
        every_row = Tasks(torch.stack([some.x for some in drawn]), torch.stack([some.y for some in drawn]))
        rows = every_row.episodes(shots, generator)  # of all learners the same places of their tasks
        optimiser.zero_grad(set_to_none=True)
        losses(state, weight, rows, noise).sum().backward()  # of each learner its own parameters' gradient
        _clip(own, clip)
        optimiser.step()
        if step == steps or (every and step % every == 0):
            for i, game in enumerate(games):
                game.load_state_dict({name: p[i] for name, p in state.items()})
            if watch is not None:
                watch(step)


def _settings(learner: SetLearner | MAML) -> tuple[object, ...]:
    """What must be equal for one learner's code to run with another's parameters."""
    own = (learner.noise,) if isinstance(learner, SetLearner) else (learner.steps, learner.rate)
    return type(learner), *own, *(tuple(p.shape) for p in learner.parameters())


@torch.no_grad()
def _clip(parameters: Sequence[Tensor], most: float) -> None:
    """Bound the norm of each learner's gradient; learners lie along the first axis."""
    slopes = [p.grad for p in parameters if p.grad is not None]
    norm = torch.stack([slope.flatten(1).square().sum(1) for slope in slopes]).sum(0).sqrt()
    shrink = (most / norm.clamp_min(1e-12)).clamp_max(1)
    for slope in slopes:
        slope.mul_(shrink.view(-1, *[1] * (slope.ndim - 1)))


@torch.no_grad()
def error(
    learner: SetLearner | MAML, tasks: Tasks, shots: int = 10, generator: torch.Generator | None = None
) -> Tensor:
    """Mean squared error [n] of each task on its other rows after `shots` of them, without noise in W."""
    x, y, new_x, new_y = tasks.episodes(shots, generator)
    found: Tensor = (learner(x, y, new_x) - new_y).square().mean(1)
    return found
