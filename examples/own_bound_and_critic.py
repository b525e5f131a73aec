"""Your own bound and your own critic, without registering either.

A bound is one function of `Scores` that returns a value per row, [n], to be maximised in the mean; a critic is one module
whose forward(x, y) returns g for aligned rows, [n]. It need not know of u: a plain module gets a fitted one.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

import flomi
from flomi.bounds import Scores, fenchel


def own_bound(s: Scores) -> Tensor:
    """A dual half way between FLO's learned u and NWJ's u = -g: every choice of u gives a lower bound."""
    return fenchel(s.log_t, 0.5 * (s.need("u") - s.pos))


class OwnCritic(nn.Module):
    """A small network on the columns of x and y, side by side."""

    def __init__(self, dim_x: int, dim_y: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(dim_x + dim_y, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.net(torch.cat([x, y], -1)).squeeze(-1)


rho, n = 0.8, 3000
rng = np.random.default_rng(0)
x = rng.normal(size=(n, 1))
y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(n, 1))
print(f"truth                 {-0.5 * math.log(1 - rho**2):.3f} nats")

for title, options in {
    "own critic, FLO": {"critic": OwnCritic(1, 1)},
    "joint critic, own bound": {"critic": "joint", "bound": own_bound},
}.items():
    result = flomi.estimate(x, y, effort="fast", **options)
    print(
        f"{title:24}  {result.bound:.3f} +- {result.bound_stderr:.3f} ({result.bound_name}, {result.verdict})"
    )
