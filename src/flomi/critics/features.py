r"""What networks and the expanded Gaussian critic see of x: canonical variates z of normal scores, and functions of them.

.. math:: \phi(x) = (z, \ r, \ r z), \qquad r = \sqrt{d/2} \, (|z|^2 / d - 1), \text{ levelled off at 3}

The norm r and its product with z let a linear map turn, stretch or scatter y by the norm of x. A side of at most two columns is
also given sines and cosines of its ranks, for sharp edges (networks only).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flomi.critics.copula import EllipticalCritic
from flomi.preprocess import RankNormal

__all__ = ["ExpandedCritic", "Inputs", "canonical_inputs"]

WAVES = (1, 2, 4, 8, 16)  # half turns over the range of a column, where a side has at most two
NORM_LIMIT = 3.0  # standard deviations at which the norm levels off


class Inputs(nn.Module):
    """Rows [n, d] -> canonical variates of normal scores [n, dim], and with `expand` what a network sees [n, width]."""

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
        self.waves = WAVES if len(center) <= 2 else ()
        self.width = 2 * self.dim + 1 + 2 * len(self.waves) * self.dim

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.ranks(x).to(self.weight)
        return ((z - self.center) @ self.weight).clamp(-self.limit, self.limit)

    def second_order(self, z: Tensor) -> Tensor:
        """z, its norm, and the product of the two."""
        if self.dim == 0:  # all columns were constant in training
            return z.new_zeros(*z.shape[:-1], 1)
        # mean 0 and variance 1 for a Gaussian, levelled off so that outliers are not extrapolated
        norm = (z.square().mean(-1, keepdim=True) - 1) * math.sqrt(self.dim / 2)
        norm = NORM_LIMIT * torch.tanh(norm / NORM_LIMIT)
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
    ranks, centers, whites, scores = [], [], [], []
    for v in (x, y):
        rank = RankNormal.fit(v)
        z = rank(v)
        center = z.mean(0)
        z = z - center
        values, vectors = torch.linalg.eigh(z.T @ z / len(z))
        keep = values > 1e-6 * values[-1]  # directions that are constant up to rounding
        white = vectors[:, keep] / values[keep].sqrt()
        white = white @ vectors.T if keep.all() else white
        ranks.append(rank)
        centers.append(center.float())
        whites.append(white)
        scores.append(z @ white)
    if rotate:
        left, _, right = torch.linalg.svd(scores[0].T @ scores[1] / len(x))
        turns = (left, right.T)
        whites, scores = ([v @ turn for v, turn in zip(vs, turns, strict=True)] for vs in (whites, scores))
    sides = [
        Inputs(rank, center, white.float(), score.abs().amax(0).float())
        for rank, center, white, score in zip(ranks, centers, whites, scores, strict=True)
    ]
    return sides[0], sides[1]


class ExpandedCritic(nn.Module):
    r"""The Gaussian copula critic on the features :math:`\phi(x), \phi(y)` in place of x and y.

    Where y given x is Gaussian around a linear map of phi(x), with one covariance, this is its exact PMI; FLO is the referee
    elsewhere, as for any critic. x: [n, dim_x], y: [n, dim_y], float64.

    >>> x = torch.randn(2000, 1, dtype=torch.float64)
    >>> critic = ExpandedCritic.fit(x, x**2 + 0.5 * torch.randn(2000, 1, dtype=torch.float64))
    >>> float(critic(x, x**2).mean()) > 0.5
    True
    """

    def __init__(self, inputs_x: Inputs, inputs_y: Inputs, form: EllipticalCritic) -> None:
        super().__init__()
        self.inputs_x, self.inputs_y, self.form = inputs_x, inputs_y, form

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> ExpandedCritic:
        inputs = canonical_inputs(x, y, rotate=True)
        fx, fy = (i.second_order(i(v)).to(v) for i, v in zip(inputs, (x, y), strict=True))
        return cls(*inputs, EllipticalCritic.fit(fx, fy))

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        fx, fy = (i.second_order(i(v)).to(v) for i, v in ((self.inputs_x, x), (self.inputs_y, y)))
        return self.form.encode(fx, fy)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return self.form.pairs(a, b)

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return self.form.matrix(a, b)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.form.positives(a, b)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.pairs(*self.encode(x, y))
