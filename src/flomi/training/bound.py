"""Networks trained by a bound, and the log-offset that makes a PMI score of any critic."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flomi.bounds import Bound
from flomi.critics.base import PairScorer
from flomi.support.settings import UNMEASURED, setting
from flomi.training.loop import History, Schedule, batches, train
from flomi.training.model import Model, training_mode

Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class BoundTraining:
    """How a network is trained by a bound. `negatives` and `m` name the scheme of a step; `eval_pairs` the negatives a row in
    validation. `precision` is torch's for the float32 matrix products of a step: "medium" lets a processor that can take
    bfloat16. benchmarks/networks.py measures all of it together (2026-11-24): held-out bounds within 0.013 nats of the truth in
    1 + 1 dimensions, and within 0.09 in 10 + 10."""

    steps: int = setting(2000, f"{UNMEASURED}patience ends most runs before")
    batch_size: int = setting(256, f"{UNMEASURED}rows a step")
    lr: float = setting(2e-3, f"{UNMEASURED}high, against strong decay")
    weight_decay: float = setting(
        0.1, f"{UNMEASURED}strong decay against a high rate is what keeps validation values up"
    )
    warmup: int = setting(50, f"{UNMEASURED}steps")
    clip_norm: float = setting(1.0, f"{UNMEASURED}a few negatives carry the gradient at high MI")
    negatives: str = setting("shifts", "never the positive, and m scores a row in place of n")
    m: int = setting(
        8, f"{UNMEASURED}negatives a row; enough for FLO, not for FlatNCE and FDV (bench/variational.py)"
    )
    eval_every: int = setting(50, f"{UNMEASURED}steps")
    eval_pairs: int = setting(64, f"{UNMEASURED}negatives a row")
    patience: int = setting(12, f"{UNMEASURED}evaluations")
    precision: str = setting("highest", "numbers of every processor agree; the gain of less is not measured")

    def __post_init__(self) -> None:
        counts = ("steps", "m", "eval_every", "eval_pairs", "patience")
        least = dict.fromkeys(counts, 1) | {"batch_size": 2, "weight_decay": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ValueError(f"{name} must be at least {value}; found {getattr(self, name)}")
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; found {getattr(self, name)}")


@dataclass(frozen=True)
class BoundSettings:
    """What is the same for every network trained by a bound, and for every log-offset."""

    validation_rows: int = setting(
        10_000, "without a limit the time grows as n^2 (benchmarks/notes.md, a million rows, 2026-11-28)"
    )
    offset_rows: int = setting(2000, f"{UNMEASURED}rows, and scores a row, that the log-offset is fitted to")
    offset_steps: int = setting(300, f"{UNMEASURED}steps over all of them")
    offset_rate: float = setting(1e-2, f"{UNMEASURED}AdamW's rate for the log-offset")
    offset_decay: float = setting(1e-3, f"{UNMEASURED}AdamW's decay for the log-offset")


SETTINGS = BoundSettings()


class _Network:
    """A module as a task of the loop: torch's optimiser, clipped gradients, and the state that did best.

    `objective()` gives what a step maximises, and the value that is shown for it; `value()` the value on validation rows, [1].
    """

    def __init__(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        objective: Callable[[], tuple[Tensor, Tensor]],
        value: Callable[[], Tensor],
        clip_norm: float | None = None,
    ) -> None:
        self.module, self.optimiser, self.clip_norm = module, optimiser, clip_norm
        self.objective, self.validation = objective, value
        self.lr: float = optimiser.defaults["lr"]
        self.keep(torch.ones(1, dtype=torch.bool))

    def update(self, rate: float) -> Tensor | None:
        objective, shown = self.objective()
        if not objective.requires_grad:
            return None
        self.optimiser.zero_grad(set_to_none=True)
        (-objective).backward()
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.module.parameters(), self.clip_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * rate
        self.optimiser.step()
        return shown.detach()

    def keep(self, better: Tensor) -> None:
        self.best = copy.deepcopy(self.module.state_dict())

    def restore(self) -> None:
        self.module.load_state_dict(self.best)


def fit_network(
    model: Model,
    bound: Bound,
    rows: Rows,
    validation: Rows,
    training: BoundTraining,
    seed: int,
    progress: str | None = None,
) -> History:
    """Maximise the bound on `rows`, stop by the `validation` rows, and leave the best state in `model`.

    AdamW on batches without replacement; early stopping watches the bound's monitor on the first 10,000 validation rows, always
    with the same pairs. Raises ValueError for fewer than 2 rows each, and where no evaluation gave a finite value.
    """
    (x, y), n = rows, len(rows[0])
    if min(n, len(validation[0])) < 2:
        raise ValueError(
            f"training and validation need 2 rows each at least; found {n} and {len(validation[0])}"
        )
    xv, yv = (v[: SETTINGS.validation_rows] for v in validation)
    # all pairs of the validation rows, where a step takes all pairs of its batch
    some = training.negatives in ("shifts", "derangements")
    generator = torch.Generator().manual_seed(seed)
    order = batches(lambda: torch.randperm(n, generator=generator), min(training.batch_size, n))
    state = bound.state().to(x.device, x.dtype) if bound.state else None
    precision = torch.get_float32_matmul_precision()

    def objective() -> tuple[Tensor, Tensor]:
        index = next(order).to(x.device)
        s = model.scores(x[index], y[index], training.negatives, training.m, generator)
        gain = bound.maximise(s, state)
        if state is None and bound.criterion is None:
            return gain, gain
        with torch.no_grad():  # the objective is not what validation shows
            return gain, bound.monitor(s)

    @torch.no_grad()
    def value() -> Tensor:
        model.eval()
        with _products(precision):
            s = model.scores(
                xv, yv, "shifts" if some else "all", training.eval_pairs, torch.Generator().manual_seed(0)
            )
            found = float(bound.monitor(s))
        training_mode(model)
        return torch.tensor([found if math.isfinite(found) else -math.inf], dtype=torch.float64)

    named = [(k, p) for k, p in model.named_parameters() if p.requires_grad and not k.startswith("drift.")]
    groups: list[dict[str, Any]] = [
        {"params": [p for k, p in named if k.endswith("weight")]},
        {"params": [p for k, p in named if not k.endswith("weight")], "weight_decay": 0.0},  # biases, forms, temperatures
    ]  # fmt: skip
    optimiser = torch.optim.AdamW(groups, lr=training.lr, weight_decay=training.weight_decay, fused=True)
    schedule = Schedule(
        training.steps, training.eval_every, training.patience, training.warmup, fall_from=training.warmup
    )
    negatives = min(training.eval_pairs, len(xv) - 1) if some else len(xv) - 1
    training_mode(model)
    with _products(training.precision):
        task = _Network(model, optimiser, objective, value, training.clip_norm)
        history = train(task, schedule, progress, bound.cap(negatives) if bound.cap else None)
    if history.step and max(history.validation) == -math.inf:
        raise ValueError(
            f"training diverged: on validation rows the bound {bound.name!r} was not a finite number at any of "
            f"{len(history.step)} evaluations; lower lr=, standardise the data, or mend your own critic or bound"
        )
    return history


@contextmanager
def _products(precision: str) -> Iterator[None]:
    """torch's precision of float32 matrix products inside the block: steps may take less, evaluation never does."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fit_log_offset(model: Model, rows: Rows, validation: Rows) -> None:
    """Fit c(x) = log Z(x), which is its optimum under FLO with u = c - g and g fixed, by least squares.

    Z is averaged over the validation rows' y, whose scores training has not flattered. `rows` and `validation` as in
    `fit_network`. Raises ValueError where the critic's scores are not finite.
    """
    if model.drift is None:
        return
    model.eval()
    offset, most = model.drift, SETTINGS.offset_rows
    critic: PairScorer = model.critic  # type: ignore[assignment]
    with torch.no_grad():
        x = torch.cat([validation[0], rows[0]])[:most]
        known = min(len(validation[0]), most)
        a, b = critic.encode(x, validation[1][:most])
        table = torch.cat([critic.matrix(block, b) for block in a.split(64)])
        table[:known].fill_diagonal_(-math.inf)  # the validation rows' own pairs
        count = len(b) - (torch.arange(len(x), device=x.device) < known).to(x)
        log_z = torch.logsumexp(table, 1) - torch.log(count)
        bad = int((~log_z.isfinite()).sum())
        if bad:
            raise ValueError(
                f"the critic's scores of {bad} of {len(x)} rows with all others are not finite: it diverged in training, or is "
                "infinite for some pairs; lower lr=, standardise the data, or mend your own critic"
            )
        center = log_z.mean()

    def objective() -> tuple[Tensor, Tensor]:
        value = -(offset.net(x.flatten(1)).squeeze(-1) - (log_z - center)).square().mean()
        return value, value

    optimiser = torch.optim.AdamW(
        offset.parameters(), lr=SETTINGS.offset_rate, weight_decay=SETTINGS.offset_decay, fused=True
    )
    task = _Network(offset, optimiser, objective, lambda: objective()[1].detach()[None])
    steps = SETTINGS.offset_steps
    if train(task, Schedule(steps, every=steps, floor=1.0)).interrupted:
        raise KeyboardInterrupt
    with torch.no_grad():
        offset.net[-1].bias += center  # type: ignore[operator]
