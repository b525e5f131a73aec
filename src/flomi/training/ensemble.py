r"""Training of the residual critics: all members of the ensemble, and of a fold, in one stack.

Objective: the two-sided InfoNCE over all pairs of a batch,

.. math:: \frac1B \sum_i \Big[ G_{ii} - \tfrac12 \log \tfrac1B \sum_j e^{G_{ij}} - \tfrac12 \log \tfrac1B \sum_j e^{G_{ji}} \Big],

whose optimum is the PMI up to one constant (the one-sided one leaves a drift c(x)). What it rests on is decoupled weight decay
with rate x decay = prior / n: a prior on the weights whose share falls as 1/n. FLO is the referee afterwards, as for any critic.
Member e stops by its own share of the rows and trains on the others, so the average uses every row for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from flomi.bounds import off_diagonal
from flomi.critics.features import canonical_inputs
from flomi.critics.residual import QuadraticNetwork, ResidualCritic
from flomi.parallel import check_stop
from flomi.training.loop import History

__all__ = ["CONTRAST", "EnsembleRecipe", "Gain", "fit_quadratic", "fit_residual", "log_mean_off"]

CONTRAST = 256  # rows of a batch, twice as many for wide data
BLOCK = 500  # rows, among which a member is judged while it learns
SHIFT = 2000  # rows that the quadratic layer is judged on


@dataclass(frozen=True)
class EnsembleRecipe:
    """How residual critics are trained; `prior` is rate x decay x n per column of the wider side (at least 4); `judged` are the
    rows of a member on which its value is measured, and a third more fix the constant c. Where no member has gained
    anything after `probe` steps, all give up."""

    members: int = 4
    steps: int = 300
    width: int = 128
    depth: int = 3
    features: int = 16
    rate: float = 2e-2
    prior: float = 8.0
    warmup: int = 30
    checks: int = 25
    patience: int = 10
    probe: int = 60
    judged: int = 1500


@dataclass(frozen=True)
class Gain:
    """What a residual critic added to its base, as Donsker-Varadhan values in nats.

    `validation` with its standard error, on rows that no member trained on; `training`, on rows that they did.
    """

    validation: float
    stderr: float
    training: float


def log_mean_off(g: Tensor) -> Tensor:
    """log mean of e^G over the off-diagonal of [..., n, n]; pairs at -inf, which are of one group, do not count."""
    off = off_diagonal(g)
    count = (
        (off > -math.inf).sum((-2, -1))
        if off.amin() == -math.inf
        else torch.tensor(off.shape[-2] * off.shape[-1])
    )
    value: Tensor = off.logsumexp((-2, -1)) - count.log()
    return value


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


def _value(g: Tensor) -> Tensor:
    """Donsker-Varadhan value [E] of score matrices [E, n, n]."""
    return g.diagonal(dim1=1, dim2=2).mean(1) - log_mean_off(g)


class _Adam:
    """AdamW over a stack, with an average of the weights; torch.optim's would bring its compiler along, at 2 s a process."""

    def __init__(self, named: Sequence[tuple[str, Tensor]], rate: float, decay: float) -> None:
        self.parameters = [p for _, p in named]
        self.decayed = [p for name, p in named if name.endswith("weight")]
        self.rate, self.decay, self.step = rate, decay, 0
        self.first = [torch.zeros_like(p) for p in self.parameters]
        self.second = [torch.zeros_like(p) for p in self.parameters]
        self.average = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self, loss: Tensor, scale: float) -> None:
        grads = torch.autograd.grad(loss, self.parameters)
        self.step += 1
        torch._foreach_lerp_(self.first, grads, 0.1)
        torch._foreach_mul_(self.second, 0.99)
        torch._foreach_addcmul_(self.second, grads, grads, 0.01)
        root = torch._foreach_sqrt(self.second)
        torch._foreach_mul_(root, 1 / math.sqrt(1 - 0.99**self.step))
        torch._foreach_add_(root, 1e-8)
        if self.decayed:
            torch._foreach_mul_(self.decayed, 1 - scale * self.decay)
        torch._foreach_addcdiv_(
            self.parameters, self.first, root, value=-scale * self.rate / (1 - 0.9**self.step)
        )
        torch._foreach_lerp_(self.average, self.parameters, 1 - min(0.98, self.step / (self.step + 9)))

    @torch.no_grad()
    def load(self, values: list[Tensor]) -> list[Tensor]:
        """Put these values in the parameters' place; returns what was there."""
        old = [p.clone() for p in self.parameters]
        for p, value in zip(self.parameters, values, strict=True):
            p.copy_(value)
        return old


def _run(
    adam: _Adam,
    loss: Callable[[int], Tensor],
    validate: Callable[[], Tensor],
    recipe: EnsembleRecipe,
    members: int,
    progress: str | None,
) -> History:
    """Warm up, decay, and leave in every member the averaged weights that did best on its validation rows."""
    history, waited = History(), 0
    best = torch.full((members,), -math.inf)
    kept = [p.clone() for p in adam.average]
    every = max(1, recipe.steps // recipe.checks)
    bar = tqdm(total=recipe.steps, desc=progress, disable=progress is None, leave=False, mininterval=0)
    try:
        for step in range(recipe.steps + 1):
            if step % every == 0 or step == recipe.steps:
                current = adam.load(adam.average)
                value = validate()
                adam.load(current)
                better = value > best + 1e-4
                for old, new in zip(kept, adam.average, strict=True):
                    if members > 1:
                        old[better] = new[better]
                    elif better.any():
                        old.copy_(new)
                best = torch.where(better, value, best)
                waited = 0 if better.any() else waited + 1
                history.step.append(step)
                history.validation.append(float(value.mean()))
                history.best_step = step if better.any() else history.best_step
                bar.set_postfix_str(f"held-out value {history.validation[-1]:.3f}", refresh=False)
                bar.update(step - bar.n)
                hopeless = history.best_step == 0 and step >= recipe.probe
                if hopeless or waited >= recipe.patience or step == recipe.steps:
                    break
            cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
            value = loss(step)
            if step % every == 0:
                history.train.append(-float(value.detach()) / members)
            check_stop()
            adam.update(value, min(1.0, (step + 1) / recipe.warmup) * cosine)
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        bar.close()
    adam.load(kept)
    history.train += history.train[-1:] * (len(history.step) - len(history.train))
    return history


def fit_residual(
    x: Tensor,
    y: Tensor,
    n_validation: int,
    base: nn.Module,
    recipe: EnsembleRecipe,
    *,
    seed: int = 0,
    device: str = "cpu",
    groups: Tensor | None = None,
    progress: str | None = None,
) -> tuple[ResidualCritic, Gain, History]:
    """The ensemble on top of `base`, which stays as it is. x, y: float64 rows [n, d] in random order; groups [n] from 0."""
    n, e = len(x), recipe.members
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(n, generator=generator)
    if groups is not None:  # one after another
        place = torch.randperm(int(groups.max()) + 1, generator=generator)
        order = order[place[groups[order]].argsort(stable=True)]
    # each member validates on a block of its own; the blocks are disjoint while e n_validation <= n
    held = torch.stack([order.roll(k * n_validation)[-n_validation:] for k in range(e)])
    rows = torch.stack([order.roll(k * n_validation)[:-n_validation] for k in range(e)])
    if groups is not None:  # a group at the edge of the block is not trained on: others stand in for its rows
        for mine, block in zip(rows, held, strict=True):
            free = mine[~torch.isin(groups[mine], groups[block])]
            if len(free) == 0:
                continue  # groups too large to keep apart
            again = torch.randint(len(free), (len(mine) - len(free),), generator=generator)
            mine.copy_(torch.cat([free, free[again]]))
    net = ResidualCritic(
        base, *canonical_inputs(x, y, rotate=True), members=e, width=recipe.width, depth=recipe.depth,
        features=recipe.features, seed=seed,
    ).to(device)  # fmt: skip
    base.cpu()
    with torch.no_grad():
        hx, hy = (i.expand(i(v.to(device))) for i, v in ((net.inputs_x, x), (net.inputs_y, y)))
        a0, b0 = (code.float().to(device) for code in base.encode(x, y))  # type: ignore[operator]
    base.to(device)

    def apart(g: Tensor, index: Tensor) -> Tensor:
        """-inf at pairs of different rows of one group: they are no sample of independent x and y."""
        if groups is None:
            return g
        label = groups[index].to(g.device)
        return g.masked_fill((label == label[:, None]).fill_diagonal_(False), -math.inf)

    @torch.no_grad()
    def of_base(index: Tensor) -> Tensor:
        return torch.stack([apart(base.matrix(a0[k], b0[k]).float(), k) for k in index])  # type: ignore[operator]

    def of_all(index: Tensor, g0: Tensor) -> Tensor:
        return net.members_matrix(hx[index], hy[index], g0)

    judged = held[:, : recipe.judged]
    judged_base = of_base(judged)
    n_train, wide = rows.shape[1], max(net.inputs_x.dim, net.inputs_y.dim)
    size = min(CONTRAST if wide <= 10 else 2 * CONTRAST, n_train)
    named = [(k, p) for k, p in net.named_parameters() if k.startswith("tower")]
    adam = _Adam(named, recipe.rate, recipe.prior * max(4, wide) / n_train)
    batches = _Batches(n_train, size, e, generator)

    def loss(step: int) -> Tensor:
        index = rows.gather(1, batches.next())
        return _Contrast.apply(of_all(index, of_base(index))).sum()  # type: ignore[no-any-return, no-untyped-call]

    # while they learn, members are judged by the pairs within blocks of rows: enough to see when to stop
    if groups is not None:  # they stand one after another, and a block needs several
        judged = judged[:, torch.randperm(judged.shape[1], generator=generator)]
        judged_base = of_base(judged)
    block = judged.shape[1] if judged.shape[1] < 2 * BLOCK else BLOCK
    blocks = [(index, of_base(index)) for index in judged.split(block, 1) if index.shape[1] == block]

    @torch.no_grad()
    def validate() -> Tensor:
        g = [of_all(index, g0) for index, g0 in blocks]
        off = torch.stack([log_mean_off(part) for part in g]).logsumexp(0) - math.log(len(g))
        return torch.stack([part.diagonal(dim1=1, dim2=2).mean(1) for part in g]).mean(0).sub(off).cpu()

    history = _run(adam, loss, validate, recipe, e, progress)
    net = net.cpu().requires_grad_(False).eval()
    hx, hy, a0, b0, judged_base = (v.cpu() for v in (hx, hy, a0, b0, judged_base))
    with torch.no_grad():
        seen = rows[:, : recipe.judged]
        seen_base = of_base(seen)
        training = float((_value(of_all(seen, seen_base)) - _value(seen_base)).mean())
        difference = (_rowwise(of_all(judged, judged_base)) - _rowwise(judged_base)).flatten()
        stderr = float(difference.std()) / math.sqrt(min(difference.numel(), n))
        a, b = net.joined(hx, hy, a0, b0)
        some = order[: recipe.judged * 4 // 3]
        among = apart(net.matrix(a[some], b[some]), some)
        net.truncate(among, net.pairs(a, b), shift=log_mean_off(among), low=-math.log(n))
    return net, Gain(float(difference.mean()), stderr, training), history


def _rowwise(g: Tensor) -> Tensor:
    """FLO bound [E, n] by row, the best constant in u."""
    p = g - log_mean_off(g)[:, None, None]
    diagonal = p.diagonal(dim1=1, dim2=2)
    return 1 + diagonal - (p.exp().sum(2) - diagonal.exp()) / (g.shape[-1] - 1)


class _Batches:
    """Index batches [E, size] without replacement, each member in an order of its own."""

    def __init__(self, n: int, size: int, members: int, generator: torch.Generator) -> None:
        self.n, self.size, self.members, self.generator, self.at = n, size, members, generator, n

    def next(self) -> Tensor:
        if self.at + self.size > self.n:
            self.order = torch.rand(self.members, self.n, generator=self.generator).argsort(1)
            self.at = 0
        self.at += self.size
        return self.order[:, self.at - self.size : self.at]


def fit_quadratic(
    x: Tensor, y: Tensor, n_validation: int, *, seed: int = 0, steps: int = 400
) -> QuadraticNetwork:
    """Train the quadratic layer alone, the last rows deciding when to stop. x, y: float64 rows [n, d] in random order."""
    net = QuadraticNetwork(*canonical_inputs(x, y, rotate=False), seed=seed)
    with torch.no_grad():
        zx, zy = net.inputs_x(x), net.inputs_y(y)
    n_train = len(x) - n_validation
    batches = _Batches(n_train, min(1024, n_train), 1, torch.Generator().manual_seed(seed))
    adam = _Adam([(name, p) for name, p in net.named_parameters()], 1e-2, decay=0.0)

    def matrix(index: Tensor) -> Tensor:
        return net.matrix(*net.layer(zx[index], zy[index]))[None]

    judged = torch.arange(n_train, len(x))[:SHIFT]
    history = _run(
        adam,
        lambda step: _Contrast.apply(matrix(batches.next()[0])).sum(),  # type: ignore[no-untyped-call]
        lambda: _value(matrix(judged)).detach(),
        EnsembleRecipe(members=1, steps=steps, checks=20, patience=6, warmup=20),
        1,
        None,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    return net.requires_grad_(False).eval()
