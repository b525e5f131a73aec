"""Training on rows never seen before, and reading out a bound: what the experiments on known distributions share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from flomi.bounds import Bound, Scores
from flomi.reproduce.core import Row
from flomi.tasks import Task
from flomi.training.loop import cosine
from flomi.training.model import Model

Stream: TypeAlias = Callable[[int], tuple[Tensor, Tensor]]  # n -> n rows (x, y) never given before
Scheme: TypeAlias = Callable[[Model, Tensor, Tensor, torch.Generator], Scores]  # which negatives a step uses


def fresh(task: Task, rng: np.random.Generator) -> Stream:
    """Rows of the task as float32 tensors, new ones at each call."""

    def draw(n: int) -> tuple[Tensor, Tensor]:
        x, y = task.sampler(rng, n)
        return torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)

    return draw


def derangements(m: int) -> Scheme:
    """m negatives a row, by derangements of the batch."""
    return lambda model, x, y, generator: model.scores(x, y, "derangements", m, generator)


def every_pair(model: Model, x: Tensor, y: Tensor, generator: torch.Generator) -> Scores:
    """All off-diagonal pairs of the batch."""
    return model.scores(x, y, "all")


def learn(
    model: Model,
    bound: Bound,
    rows: Stream,
    scheme: Scheme,
    generator: torch.Generator,
    *,
    steps: int,
    batch: int,
    lr: float,
    decay: bool = True,
    watch: Callable[[int, float], None] | None = None,
) -> None:
    """Maximise the bound, each step on a batch never seen before, so that nothing can be learned by heart.

    Adam, as in the paper; the rate falls along a cosine to 1/100 (`decay=False`: it stays). Gradients are not clipped:
    at high MI the few negatives with a large weight are all that holds the estimate down. `watch(step, value)` is shown
    the bound's value on every training batch.
    """
    parameters = [p for name, p in model.named_parameters() if not name.startswith("drift.")]
    state = bound.state() if bound.state else None
    optimiser = torch.optim.Adam(parameters, lr=lr, fused=True)
    model.train()
    for step in range(1, steps + 1):
        if decay:
            optimiser.param_groups[0]["lr"] = lr * cosine(step, steps, 0.01)
        s = scheme(model, *rows(batch), generator)
        optimiser.zero_grad(set_to_none=True)
        (-bound.maximise(s, state)).backward()
        optimiser.step()
        if watch is not None:
            with torch.no_grad():
                watch(step, bound.value(s).mean().item())
    model.eval()


@dataclass(frozen=True)
class Reading:
    """A bound on fresh rows: `value` and `plug_in` are means over blocks, `stderr` comes from their spread; `each` [n] rows."""

    value: float
    stderr: float
    plug_in: float
    each: Tensor

    @property
    def columns(self) -> Row:
        """The numbers that every table has."""
        return {"value": self.value, "stderr": self.stderr, "plug_in": self.plug_in}


@torch.no_grad()
def read(
    model: Model,
    bound: Bound,
    rows: Stream,
    *,
    n: int,
    block: int,
    m: int | None = None,
    watch: Callable[[Scores], None] | None = None,
) -> Reading:
    """Read the bound on n fresh rows in blocks: on all off-diagonal pairs of each, or on m negatives a row.

    Negatives never contain the positive. The plug-in is the mean of the bound's own pointwise MI: E[-u] for FLO. `watch` is
    shown the scores of every block.
    """
    model.eval()
    generator = torch.Generator().manual_seed(0)
    scheme = every_pair if m is None else derangements(m)
    each, plug_in = [], []
    for _ in range(max(1, n // block)):
        s = scheme(model, *rows(block), generator)
        if watch is not None:
            watch(s)
        each.append(bound.value(s).double())
        plug_in.append(bound.pmi(s).double().mean())
    means = torch.stack([v.mean() for v in each])
    stderr = float(means.std()) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return Reading(float(means.mean()), stderr, float(torch.stack(plug_in).mean()), torch.cat(each))


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of one call, after a call that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))
