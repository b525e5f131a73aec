r"""A network on top of a simpler critic: it starts at that critic's answer, and stays there where the rows ask for no more.

.. math:: g(x, y) = g_0(x, y) + \frac1E \sum_e [ \langle \phi_e(x), \psi_e(y) \rangle + a_e(x) + b_e(y) ] - c, \qquad u = -g

The E members are small perceptrons, kept in one stack so that a step of all of them is one batched matrix product. psi and b end
in zero weights, so g starts at g_0. A tower sees the features of features.py. The finished g is truncated at -log n and
`truncation_level`, beyond which these n rows are no evidence; the FLO bound holds for any g. training/ensemble.py trains it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from flomi.critics.base import Critic, PairScorer, rebuilt, under
from flomi.critics.features import Inputs, canonical_inputs
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class ResidualSettings:
    unit: float = setting(3.0, f"{UNMEASURED}size of a fresh feature times the root of their number")
    side_term: float = setting(
        0.1, f"{UNMEASURED}size of a fresh term of x alone: it is small beside the products"
    )
    rho: float = setting(
        0.3, f"{UNMEASURED}spread of the quadratic layer's starting correlations, before tanh"
    )
    largest_rho: float = setting(0.9999, f"{UNMEASURED}correlation that the quadratic layer can reach")


SETTINGS = ResidualSettings()


class _Stack(nn.Module):
    """One linear layer of every member: [E, n, i] -> [E, n, o]."""

    def __init__(
        self, members: int, fan_in: int, fan_out: int, gain: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        start = torch.randn(members, fan_in, fan_out, generator=generator)
        self.weight = nn.Parameter(start * (gain / math.sqrt(fan_in)))
        self.bias = nn.Parameter(torch.zeros(members, 1, fan_out))

    def forward(self, h: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, h, self.weight)


class _Tower(nn.Module):
    """[E, n, width of the inputs] -> [E, n, features + 1]; the last feature is the part of this side alone."""

    def __init__(
        self,
        members: int,
        inputs: int,
        width: int,
        depth: int,
        features: int,
        gain: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        self.layers = nn.ModuleList(
            _Stack(members, i, o, math.sqrt(2), generator) for i, o in pairwise(sizes)
        )
        self.out = _Stack(members, width, features + 1, gain, generator)
        self.skip = _Stack(members, inputs, features + 1, gain, generator)

    def forward(self, inputs: Tensor) -> Tensor:
        h = inputs
        for layer in self.layers:
            h = silu(layer(h))
        return self.out(h) + self.skip(inputs)  # type: ignore[no-any-return]


class ResidualCritic(Critic):
    """A stack of small networks added to the critic `base`; see the module's docstring. x: [n, dim_x], y: [n, dim_y], float64."""

    side_terms = 1

    def __init__(
        self,
        base: Critic,
        inputs_x: Inputs,
        inputs_y: Inputs,
        *,
        members: int,
        width: int = 128,
        depth: int = 3,
        features: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.base = base
        self.inputs_x, self.inputs_y = inputs_x, inputs_y
        self.sizes = {
            "members": members,
            "width": width,
            "depth": depth,
            "features": features,
            "base": self.base.row,
            "base_sizes": self.base.sizes,
        }
        self.tower_x = _Tower(members, inputs_x.width, width, depth, features, 1.0, generator)
        self.tower_y = _Tower(members, inputs_y.width, width, depth, features, 0.0, generator)
        self.members, self.features = members, features
        self.inner = members * features

    @classmethod
    def on_base(cls, state: dict[str, Tensor], sizes: dict[str, Any], base: Critic) -> ResidualCritic:
        """`restore`, on a base that is restored already."""
        numbers = {name: int(sizes[name]) for name in ("members", "width", "depth", "features")}
        inputs_x, inputs_y = _inputs(state)
        critic = cls(base, inputs_x, inputs_y, **numbers)
        for name in set(state) & {"shift", "low", "high"}:
            critic.register_buffer(name, state[name])
        critic.load_state_dict(state)
        return critic

    def addends(self) -> Sequence[PairScorer]:
        return (self.base,)

    def towers(self, hx: Tensor, hy: Tensor) -> tuple[Tensor, Tensor]:
        """Expanded inputs [E, n, width] -> phi and psi with their side terms last, [E, n, features + 1], scaled."""
        unit = SETTINGS.unit / math.sqrt(self.features)
        scale_x = torch.tensor([unit] * self.features + [SETTINGS.side_term], device=hx.device)
        return self.tower_x(hx) * scale_x, self.tower_y(hy) * unit

    def members_matrix(self, hx: Tensor, hy: Tensor, g0: Tensor) -> Tensor:
        """[E, n, n] scores of every member by itself, on top of the base's g0 [E, n, n]."""
        fx, fy = self.towers(hx, hy)
        one = torch.ones_like(fx[..., -1:])
        left, right = torch.cat([fx, one], -1), torch.cat([fy[..., :-1], one, fy[..., -1:]], -1)
        return torch.baddbmm(g0, left, right.transpose(1, 2))

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        hx, hy = (i.expand(i(v)) for i, v in ((self.inputs_x, x), (self.inputs_y, y)))
        return self.joined(hx, hy, *self.base.encode(x, y))

    def joined(self, hx: Tensor, hy: Tensor, a0: Tensor, b0: Tensor) -> tuple[Tensor, Tensor]:
        """The encodings, from expanded inputs [n, width] and those of the base."""
        fx, fy = self.towers(*(h.expand(self.members, -1, -1) for h in (hx, hy)))
        sides = []
        for f, base, share in ((fx, a0, self.members), (fy, b0, 1)):
            inner = f[..., :-1].permute(1, 0, 2).flatten(1) / share
            sides.append(torch.cat([inner, f[..., -1].mean(0)[:, None], base.to(f)], -1))
        return sides[0], sides[1]


class QuadraticNetwork(Critic):
    r"""The PMI of a Gaussian pair as a bilinear and quadratic layer, every weight random at the start and learned by gradient.

    .. math:: g = \sum_i \frac{r_i s_i t_i - r_i^2 (s_i^2 + t_i^2) / 2}{1 - r_i^2}, \qquad s = P x,\ t = Q y,\ r = \tanh \rho

    on whitened normal scores. The base of a critic that owes nothing to a closed form.
    """

    row = "network"
    side_terms = 1

    def __init__(self, inputs_x: Inputs, inputs_y: Inputs, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.inputs_x, self.inputs_y = inputs_x, inputs_y
        p, q = inputs_x.dim, inputs_y.dim
        self.weight_x = nn.Parameter(torch.randn(p, min(p, q), generator=generator) / math.sqrt(p))
        self.weight_y = nn.Parameter(torch.randn(q, min(p, q), generator=generator) / math.sqrt(q))
        self.rho = nn.Parameter(torch.randn(min(p, q), generator=generator) * SETTINGS.rho)

    @classmethod
    def untrained(cls, x: Tensor, y: Tensor, seed: int) -> QuadraticNetwork:
        return cls(*canonical_inputs(x, y, rotate=False), seed=seed)

    @classmethod
    def restore(cls, state: dict[str, Tensor], sizes: dict[str, Any]) -> QuadraticNetwork:
        critic = cls(*_inputs(state))
        critic.load_state_dict(state)
        return critic

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(self.inputs_x(x), self.inputs_y(y))

    def layer(self, zx: Tensor, zy: Tensor) -> tuple[Tensor, Tensor]:
        """The encodings from whitened normal scores."""
        r = SETTINGS.largest_rho * torch.tanh(self.rho)
        k, s, t = r / (1 - r.square()), zx @ self.weight_x, zy @ self.weight_y
        alone = [-(v.square() * (r * k)).sum(-1, keepdim=True) / 2 for v in (s, t)]
        return torch.cat([s * k, alone[0]], -1), torch.cat([t, alone[1]], -1)


def _inputs(state: dict[str, Tensor]) -> tuple[Inputs, Inputs]:
    return rebuilt(Inputs, under(state, "inputs_x.")), rebuilt(Inputs, under(state, "inputs_y."))
