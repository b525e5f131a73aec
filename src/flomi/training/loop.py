"""The one training loop, from top to bottom, and what it trains.

`Model` bundles what is learned on one set of training rows: the critic with its dual u(x, y), a baseline a(x) where the
bound asks for one, and the drift c(x), which makes a PMI score of any critic: p(x, y) = g(x, y) - c(x). `train` fits the
first two by the bound, `calibrate` then fits c.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from flomi.bounds import Bound, Scores
from flomi.critics import Baseline, dtype_of
from flomi.critics.base import PairScorer
from flomi.scores import score

__all__ = ["History", "Model", "Recipe", "calibrate", "train", "training_mode"]

CALIBRATION = 2000  # rows, and scores a row, that the drift is fitted to
JUDGED = 10_000  # validation rows: more would not change where training stops, and take as much longer


@dataclass(frozen=True)
class Recipe:
    """How a critic is trained. `negatives` and `m` name the scheme of a step; `eval_pairs` the negatives a row in validation.

    `precision` is torch's for the float32 matrix products of a step: "medium" lets a processor that can take bfloat16.
    """

    steps: int = 2000
    batch_size: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.1  # strong decay against a high rate is what keeps held-out values up
    warmup: int = 50
    clip_norm: float = 1.0
    negatives: str = "shifts"
    m: int = 8
    eval_every: int = 50
    eval_pairs: int = 64
    patience: int = 12
    precision: str = "highest"

    def __post_init__(self) -> None:
        least = {
            "steps": 1,
            "batch_size": 2,
            "m": 1,
            "eval_every": 1,
            "eval_pairs": 1,
            "patience": 1,
            "weight_decay": 0,
        }
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ValueError(f"{name} must be at least {value}; found {getattr(self, name)}")
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; found {getattr(self, name)}")


@dataclass
class History:
    """Training curves: the bound's monitor on training batches and on validation rows, in nats, by step.

    `ceiling` is the most that the validation curve can reach, where the bound has a cap.
    """

    step: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_step: int = 0
    ceiling: float | None = None
    interrupted: bool = False


class Model(nn.Module):
    """Critic, baseline and drift on preprocessed rows: what a fold trains, evaluates and saves.

    With `bound=None` g is the PMI and the critic does its own preprocessing: a closed form, or a network on top of one.
    """

    def __init__(self, critic: nn.Module, shape_x: tuple[int, ...], bound: Bound | None) -> None:
        super().__init__()
        self.critic = critic
        self.exact = bound is None  # takes rows as they are, in float64
        self.is_density = hasattr(critic, "marginal")
        self.owns_baseline = getattr(critic, "has_baseline", False)
        dim_x, dtype = math.prod(shape_x), dtype_of(critic)
        wants = bound is not None and "baseline" in bound.needs and not self.owns_baseline
        self.baseline = Baseline(dim_x).to(dtype) if wants else None
        self.drift = None if bound is None or self.is_density else Baseline(dim_x).to(dtype)

    def cast(self, v: Tensor) -> Tensor:
        """Rows of the type, and on the device, of what scores them."""
        like = next((p for p in self.parameters() if p.is_floating_point()), None)
        return v.to(dtype_of(self)) if like is None else v.to(like.device, like.dtype)

    def a(self, x: Tensor) -> Tensor:
        """The baseline a(x) [n] that the bound uses; 0 where there is none."""
        if self.owns_baseline:
            return self.critic.baseline(x)  # type: ignore[operator, no-any-return]
        return self.baseline(x) if self.baseline is not None else x.new_zeros(len(x))

    def c(self, x: Tensor) -> Tensor:
        """The drift c(x) [n]; 0 where the critic is a density ratio already."""
        return self.drift(x) if self.drift is not None else x.new_zeros(len(x))

    def marginal(self, y: Tensor) -> Tensor | None:
        """log q(y) [n] of a density model, None otherwise."""
        return self.critic.marginal(y) if self.is_density else None  # type: ignore[operator]

    def scores(
        self, x: Tensor, y: Tensor, negatives: str, m: int = 1, generator: torch.Generator | None = None
    ) -> Scores:
        """Scores of aligned rows and their negatives, with all that a bound may need."""
        return score(
            self.critic,  # type: ignore[arg-type]
            x,
            y,
            negatives,
            m=min(m, len(x) - 1),
            baseline=self.a,
            generator=generator,
        )


def train(
    model: Model,
    bound: Bound,
    rows: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor],
    recipe: Recipe,
    seed: int,
    progress: str | None = None,
) -> History:
    """Maximise the bound on `rows`, stop by `held`, and leave the best state in `model`.

    AdamW with linear warm-up, cosine decay and clipped gradients; every `eval_every` steps the monitor on the validation
    rows `held`, or the first 10,000 of them, which get no gradient. Stops after `patience` evaluations without a new best.
    Ctrl-C ends the loop early: the best state so far stays, and `History.interrupted` says so. `progress` labels a bar that
    shows the held-out bound.
    """
    x, y = rows
    n = len(x)
    device = x.device
    batch = min(recipe.batch_size, n)
    if min(n, len(held[0])) < 2:
        raise ValueError(f"training and validation need 2 rows each at least; found {n} and {len(held[0])}")
    held = (held[0][:JUDGED], held[1][:JUDGED])
    recipe = replace(recipe, m=min(recipe.m, batch - 1))
    generator = torch.Generator().manual_seed(seed)
    state = bound.state() if bound.state else None
    if state is not None:
        state.to(device, x.dtype)
    named = [(k, p) for k, p in model.named_parameters() if p.requires_grad and not k.startswith("drift.")]
    parameters = [p for _, p in named]
    groups: list[dict[str, Any]] = [
        {"params": [p for k, p in named if k.endswith("weight")]},
        {
            "params": [p for k, p in named if not k.endswith("weight")],
            "weight_decay": 0.0,
        },  # biases, forms, temperatures
    ]
    history = History(ceiling=bound.cap(_judged(recipe, len(held[0]))) if bound.cap else None)
    optimiser = torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, recipe))

    best, best_value, waited = copy.deepcopy(model.state_dict()), -math.inf, 0
    training_mode(model)
    running = torch.zeros((), device=device)
    order = torch.empty(0, dtype=torch.long)
    bar = tqdm(total=recipe.steps, desc=progress, disable=progress is None, leave=False, mininterval=0)
    try:
        for step in range(1, recipe.steps + 1):
            if len(order) < batch:
                order = torch.randperm(n, generator=generator)  # the order of the rows, not the pairing
            index, order = order[:batch].to(device), order[batch:]
            with _products(recipe.precision):
                s = model.scores(x[index], y[index], recipe.negatives, recipe.m, generator)
                gain = bound.maximise(s, state)
                if not gain.requires_grad:  # a closed formula
                    break
                optimiser.zero_grad(set_to_none=True)
                (-gain).backward()
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            optimiser.step()
            schedule.step()
            shown = gain.detach()
            if state is not None or bound.criterion is not None:  # the objective is not what validation shows
                with torch.no_grad():
                    shown = bound.monitor(s)
            running += shown

            if step % recipe.eval_every and step != recipe.steps:
                continue
            value = _validate(model, bound, held, recipe)
            history.step.append(step)
            history.train.append(float(running) / ((step - 1) % recipe.eval_every + 1))
            history.validation.append(value)
            running.zero_()
            if value > best_value:
                best, best_value, waited = copy.deepcopy(model.state_dict()), value, 0
                history.best_step = step
            else:
                waited += 1
            ceiling = "" if history.ceiling is None else f" of at most {history.ceiling:.2f}"
            bar.set_postfix_str(f"held-out bound {value:.3f}{ceiling}, best {best_value:.3f}", refresh=False)
            bar.update(step - bar.n)

            if waited >= recipe.patience:
                break
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        bar.close()
    if history.step and best_value == -math.inf:
        raise ValueError(
            f"training diverged: on validation rows the bound {bound.name!r} was not a finite number at any of "
            f"{len(history.step)} evaluations; lower lr=, standardise the data, or mend your own critic or bound"
        )
    model.load_state_dict(best)
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


def training_mode(model: nn.Module) -> None:
    """`model.train()`, but parts with frozen parameters alone stay in evaluation: no dropout, and statistics as they were."""
    model.train()
    for part in model.modules():
        if not any(p.requires_grad for p in part.parameters()) and any(True for _ in part.parameters()):
            part.eval()


def calibrate(
    model: Model, rows: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], steps: int = 300
) -> None:
    """Fit the drift, c(x) = log Z(x), which is its optimum under FLO with u = c - g and g fixed, by least squares.

    Z is averaged over the validation rows' y, whose scores training has not flattered. `rows` and `held` as in `train`.
    """
    if model.drift is None:
        return
    model.eval()
    critic: PairScorer = model.critic  # type: ignore[assignment]
    with torch.no_grad():
        x = torch.cat([held[0], rows[0]])[:CALIBRATION]
        known = min(len(held[0]), CALIBRATION)
        a, b = critic.encode(x, held[1][:CALIBRATION])
        table = torch.cat([critic.matrix(block, b) for block in a.split(64)])
        table[:known].fill_diagonal_(-math.inf)  # the validation rows' own pairs
        log_z = torch.logsumexp(table, 1) - torch.log(
            len(b) - (torch.arange(len(x), device=x.device) < known).to(x)
        )
        if not log_z.isfinite().all():
            raise ValueError(
                f"the critic's scores of {int((~log_z.isfinite()).sum())} of {len(x)} rows with all others are not finite: it "
                "diverged in training, or is infinite for some pairs; lower lr=, standardise the data, or mend your own critic"
            )
        center = log_z.mean()
    optimiser = torch.optim.AdamW(model.drift.parameters(), lr=1e-2, weight_decay=1e-3, fused=True)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        (model.drift.net(x.flatten(1)).squeeze(-1) - (log_z - center)).square().mean().backward()
        optimiser.step()
    with torch.no_grad():
        model.drift.net[-1].bias += center  # type: ignore[operator]


def _rate(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / recipe.steps)))


def _judged(recipe: Recipe, n: int) -> int:
    """Negatives a row in validation."""
    return min(recipe.eval_pairs, n - 1) if recipe.negatives in ("shifts", "derangements") else n - 1


@torch.no_grad()
def _validate(model: Model, bound: Bound, held: tuple[Tensor, Tensor], recipe: Recipe) -> float:
    """The monitor on all validation rows, always with the same pairs."""
    model.eval()
    scheme = "shifts" if recipe.negatives in ("shifts", "derangements") else "all"
    s = model.scores(*held, scheme, recipe.eval_pairs, torch.Generator().manual_seed(0))
    value = float(bound.monitor(s))
    training_mode(model)
    return value if math.isfinite(value) else -math.inf
