"""flomi's side: steps of its own training loop, the matrix products that a step can't avoid, and training as watched."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from serve import serve
from torch import Tensor

import flomi
from flomi import bounds, critics
from flomi.scores import Dense
from flomi.training.bound import BoundTraining, fit_network
from flomi.training.model import Model


def two_sided(s: bounds.Scores) -> Tensor:
    """InfoNCE over y' and over x', [n]: with both, the optimum is the PMI plus a constant, where one leaves a function of x."""
    assert isinstance(s.negatives, Dense)
    return 2 * s.pos - s.negatives.matrix.logsumexp(1) - s.negatives.matrix.logsumexp(0)


# Trained by one and valued by another: an own bound, as a user would write it.
TWO_SIDED = replace(bounds.get("dv"), name="two-sided", objective=two_sided)

HELD = 8  # rows that a block of steps is validated on, once, at its end
STOPPING = 500  # rows that a watched training is validated on


def make(what: str, **options: Any) -> Callable[[int], Any]:
    return {"step": step, "products": products, "trace": trace, "call": call}[what](**options)


def build(critic: str, dim: int, **options: Any) -> torch.nn.Module:
    if critic == "separable":
        return critics.SeparableCritic(dim, dim, **options)
    if critic == "mlp":
        return critics.JointCritic(dim, dim, **options)
    if critic == "encoders":
        network = critics.SeparableCritic(dim, dim, options["hidden"], features=8)
        return critics.SumCritic(network, critics.QuadraticCritic(dim, dim))
    if critic == "quadratic":  # the part of the others that is no perceptron
        return critics.QuadraticCritic(dim, dim)
    return critics.CRITICS[critic].build(dim, dim, options["hidden"])


def load(data: str) -> tuple[Tensor, Tensor]:
    arrays = np.load(data)
    return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])


def step(
    data: str, critic: str, bound: str, batch: int, negatives: str = "all", precision: str = "highest", **options: Any
) -> Callable[[int], None]:  # fmt: skip
    """Steps of `flomi.training.bound.fit_network`: batches, loss, gradient, clipping, AdamW, schedule."""
    torch.set_float32_matmul_precision(precision)
    torch.manual_seed(0)
    x, y = load(data)
    model = Model(build(critic, x.shape[1], **options), (x.shape[1],), bounds.get(bound))
    recipe = BoundTraining(batch_size=batch, negatives=negatives, eval_every=10**9)

    def run(steps: int) -> None:
        held = (x[:HELD], y[:HELD])
        fit_network(model, bounds.get(bound), (x, y), held, replace(recipe, steps=steps), seed=0)

    run(2)
    return run


def products(rows: int, width: int) -> Callable[[int], None]:
    """A layer's product over all pairs and the two of its gradient, into memory that is there already."""
    torch.manual_seed(0)
    h, g, w = torch.randn(rows, width), torch.randn(rows, width), torch.randn(width, width)
    out, grad = torch.empty_like(h), torch.empty_like(w)

    def run(steps: int) -> None:
        for _ in range(steps):
            torch.mm(h, w, out=out)
            torch.mm(g, w.T, out=out)
            torch.mm(h.T, g, out=grad)

    run(1)
    return run


class Watched(Model):
    """A model whose held-out estimates are taken while its training stops for validation, with that clock stopped."""

    def watch(self, bound: bounds.Bound, x: Tensor, y: Tensor, m: int) -> None:
        self.bound, self.rows, self.m = bound, (x, y), m
        self.trace: list[tuple[float, float, float]] = []  # seconds of training, the bound, the plug-in
        self.spent, self.since = 0.0, time.process_time()

    def train(self, mode: bool = True) -> Watched:
        if hasattr(self, "trace"):
            if mode:
                self.since = time.process_time()
            elif self.training:
                self.spent += time.process_time() - self.since
                super().train(False)
                with torch.no_grad():
                    s = self.scores(*self.rows, "shifts", self.m, torch.Generator().manual_seed(1))
                    value, plug_in = self.bound.value(s), self.bound.pmi(s)
                    self.trace.append((self.spent, float(value.mean()), float(plug_in.mean())))
        return super().train(mode)


def trace(
    data: str, held: str, critic: str, batch: int, lr: float, every: int, m: int, hidden: list[int], seed: int,
    bound: str = "flo", negatives: str = "shifts", n_negatives: int = 8, weight_decay: float = 0.1,
) -> Callable[[int], Any]:  # fmt: skip
    """Training with the held-out bound and plug-in every few steps, on rows apart from those it stops by."""
    (x, y), (xe, ye) = load(data), load(held)
    law = TWO_SIDED if bound == "two-sided" else bounds.get(bound)

    def run(steps: int) -> Any:
        torch.manual_seed(seed)
        model = Watched(build(critic, x.shape[1], hidden=hidden), (x.shape[1],), law)
        recipe = BoundTraining(
            steps=steps, batch_size=batch, lr=lr, negatives=negatives, m=n_negatives, eval_every=every, patience=10**6,
            weight_decay=weight_decay
        )  # fmt: skip
        half = len(xe) // 2
        model.watch(law, xe[half:], ye[half:], m)
        fit_network(model, law, (x, y), (xe[:STOPPING], ye[:STOPPING]), recipe, seed)
        return model.trace

    return run


def call(data: str, **options: Any) -> Callable[[int], float]:
    """`flomi.estimate`, from the call to the answer; once before, on few rows, so that no import is in it."""
    arrays = np.load(data)
    x, y = arrays["x"], arrays["y"]
    flomi.estimate(x[:500], y[:500], **options)
    return lambda steps: [flomi.estimate(x, y, **options).mi for _ in range(steps)][-1]


if __name__ == "__main__":
    serve(make, {"flomi": flomi.__version__, "torch": torch.__version__, "python": platform.python_version()})
