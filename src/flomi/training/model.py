"""What is learned on one set of training rows, as one module: `Model`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flomi.bounds import Bound, Scores
from flomi.critics import Baseline, dtype_of
from flomi.critics.base import PairScorer
from flomi.scores import score


class Model(nn.Module):
    """Critic, baseline and log-offset on preprocessed rows: what a fold trains, evaluates and saves.

    The critic has its dual u(x, y); a(x) is the baseline, where the bound asks for one; and the log-offset c(x) makes a PMI
    score of any critic: p(x, y) = g(x, y) - c(x). With `bound=None` g is the PMI and the critic does its own preprocessing: a
    closed form, or networks on top of one.
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
        # the log-offset; the name stands in saved models
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
        """The log-offset c(x) [n]; 0 where the critic is a density ratio already."""
        return self.drift(x) if self.drift is not None else x.new_zeros(len(x))

    def marginal(self, y: Tensor) -> Tensor | None:
        """log q(y) [n] of a density model, None otherwise."""
        return self.critic.marginal(y) if self.is_density else None  # type: ignore[operator]

    def scores(
        self, x: Tensor, y: Tensor, negatives: str, m: int = 1, generator: torch.Generator | None = None
    ) -> Scores:
        """Scores of aligned rows and their negatives, with all that a bound may need."""
        critic: PairScorer = self.critic  # type: ignore[assignment]
        m = min(m, len(x) - 1)
        return score(critic, x, y, negatives, m=m, baseline=self.a, generator=generator)


def training_mode(model: nn.Module) -> None:
    """`model.train()`, but parts with frozen parameters alone stay in evaluation: no dropout, and statistics as they were."""
    model.train()
    for part in model.modules():
        if not any(p.requires_grad for p in part.parameters()) and any(True for _ in part.parameters()):
            part.eval()
