r"""What networks and the expanded Gaussian critic see of x: canonical variates z of normal scores, and functions of them.

.. math:: \phi(x) = (z, \ r, \ r z), \qquad r = \sqrt{d/2} \, (|z|^2 / d - 1), \text{ levelled off at 3}

The norm r and its product with z let a linear map turn, stretch or scatter y by the norm of x. A side of at most two columns is
also given sines and cosines of its ranks, for sharp edges (networks only).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flomi.critics.base import Critic, PairScorer
from flomi.critics.copula import EllipticalCritic
from flomi.preprocess import RankNormal, Whiten
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class FeatureSettings:
    waves: tuple[int, ...] = setting((1, 2, 4, 8, 16), f"{UNMEASURED}half turns over the range of a column")
    wave_columns: int = setting(2, f"{UNMEASURED}of a side at most, so that it is given waves")
    norm_limit: float = setting(3.0, f"{UNMEASURED}standard deviations at which the norm levels off")


SETTINGS = FeatureSettings()


class Inputs(nn.Module):
    """Rows [n, d] -> canonical variates of normal scores [n, dim], and with `expand` what a network sees [n, width]."""

    submodules = (("ranks", RankNormal),)

    center: Tensor
    weight: Tensor
    limit: Tensor

    def __init__(self, ranks: RankNormal, center: Tensor, weight: Tensor, limit: Tensor) -> None:
        super().__init__()
        self.ranks = ranks
        self.register_buffer("center", center)
        self.register_buffer("weight", weight)
        self.register_buffer("limit", limit)  # [dim], the largest size in training: no network sees beyond
        self.dim = weight.shape[1]
        self.waves = SETTINGS.waves if len(center) <= SETTINGS.wave_columns else ()
        self.width = 2 * self.dim + 1 + 2 * len(self.waves) * self.dim

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.ranks(x).to(self.weight)
        return ((z - self.center) @ self.weight).clamp(-self.limit, self.limit)

    def second_order(self, z: Tensor) -> Tensor:
        """z, its norm, and the product of the two."""
        # mean 0 and variance 1 for a Gaussian, levelled off so that outliers are not extrapolated
        norm = (z.square().mean(-1, keepdim=True) - 1) * math.sqrt(self.dim / 2)
        norm = SETTINGS.norm_limit * torch.tanh(norm / SETTINGS.norm_limit)
        return torch.cat([z, norm, z * norm], -1)

    def expand(self, z: Tensor) -> Tensor:
        """All that a network sees: `second_order`, and the waves."""
        features = self.second_order(z)
        if not self.waves:
            return features
        turns = torch.cat([torch.erf(z / math.sqrt(2)) * (math.pi / 2 * k) for k in self.waves], -1)
        return torch.cat([features, turns.sin(), turns.cos()], -1)


def canonical_inputs(x: Tensor, y: Tensor, *, rotate: bool) -> tuple[Inputs, Inputs]:
    """Fit both sides: normal scores, whitened, and with `rotate` turned to the canonical variates. Needs float64 rows."""
    ranks = [RankNormal.fit(v) for v in (x, y)]
    scores = [rank(v) for rank, v in zip(ranks, (x, y), strict=True)]
    whiten = [Whiten.reduce(z) for z in scores]
    scores = [white(z) for white, z in zip(whiten, scores, strict=True)]
    turns = [torch.eye(z.shape[1]).to(z) for z in scores]
    if rotate:
        left, _, right = torch.linalg.svd(scores[0].T @ scores[1] / len(x))
        turns = [left, right.T]
    sides = [
        Inputs(rank, white.center.float(), (white.weight @ turn).float(), (z @ turn).abs().amax(0).float())
        for rank, white, z, turn in zip(ranks, whiten, scores, turns, strict=True)
    ]
    return sides[0], sides[1]


class ExpandedCritic(Critic):
    r"""The Gaussian copula critic on the features :math:`\phi(x), \phi(y)` in place of x and y.

    Where y given x is Gaussian around a linear map of phi(x), with one covariance, this is its exact PMI; elsewhere its held-out
    value says what it is worth, as for any critic. x: [n, dim_x], y: [n, dim_y], float64.

    >>> x = torch.randn(2000, 1, dtype=torch.float64)
    >>> critic = ExpandedCritic.fit(x, x**2 + 0.5 * torch.randn(2000, 1, dtype=torch.float64))
    >>> float(critic(x, x**2).mean()) > 0.5
    True
    """

    row = "expanded"
    submodules = (("inputs_x", Inputs), ("inputs_y", Inputs), ("form", EllipticalCritic))
    inner = 0

    inputs_x: Inputs
    inputs_y: Inputs
    form: EllipticalCritic

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> ExpandedCritic:
        inputs = canonical_inputs(x, y, rotate=True)
        fx, fy = (i.second_order(i(v)).to(v) for i, v in zip(inputs, (x, y), strict=True))
        return cls(inputs_x=inputs[0], inputs_y=inputs[1], form=EllipticalCritic.fit(fx, fy))

    def addends(self) -> Sequence[PairScorer]:
        return (self.form,)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        fx, fy = (i.second_order(i(v)).to(v) for i, v in ((self.inputs_x, x), (self.inputs_y, y)))
        return self.form.encode(fx, fy)
