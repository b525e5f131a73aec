"""Information bottleneck: a noisy code z of x that tells the class y and of x as little else as it can.

    model = fit(x, y, PENALTIES["flo"], beta=0.1)
    judge(model, x_test, y_test)        # error, what z tells of y, and bounds on what it tells of x from both sides

The objective is cross-entropy(y | z) + beta * I(x; z), both in nats. The variational bottleneck has a Kullback-Leibler divergence
in the place of I(x; z), which is above it; FLO is below it. Since p(z | x) is known, a test can tell what I(x; z) has become.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flomi import bounds
from flomi.bounds import Bound, Scores
from flomi.critics import mlp
from flomi.losses import MIPenalty
from flomi.scores import Table
from flomi.training.loop import cosine

__all__ = [
    "PENALTIES",
    "Bottleneck",
    "Judgement",
    "KLPenalty",
    "LeakPenalty",
    "fit",
    "judge",
    "known_mi",
    "noisy",
]


class Bottleneck(nn.Module):
    r"""Encoder with unit Gaussian noise, and a predictor of the class that reads its code.

    .. math:: z = \mu(x) + \varepsilon, \quad \varepsilon \sim N(0, 1), \qquad y \mid z \sim \operatorname{softmax} h(z)

    The noise is fixed and the scale of mu free: what z tells is a matter of their ratio alone. x: [n, dim_x]; mean and code
    [n, dim_z]; `predictor(z)` gives logits [n, classes].

    >>> model = Bottleneck(64, 10, dim_z=4)
    >>> model.predictor(noisy(model.encoder(torch.zeros(5, 64)))).shape
    torch.Size([5, 10])
    """

    def __init__(self, dim_x: int, classes: int, dim_z: int = 8, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self.dim_x, self.dim_z, self.classes = dim_x, dim_z, classes
        self.encoder = mlp([dim_x, *hidden, dim_z])
        self.predictor = mlp([dim_z, *hidden[:1], classes])


def noisy(mean: Tensor) -> Tensor:
    """A code drawn from p(z | x) = N(mean, 1)."""
    return mean + torch.randn_like(mean)


# Penalties: penalty(mean, z, x) -> nats to be made small -------------------------------------------------------------


class KLPenalty(nn.Module):
    r"""The variational bottleneck: KL of p(z | x) from the Gaussian r(z) that fits best, column by column, above I(x; z).

    .. math:: I(x; z) \le \min_r E_x\, KL(p(z \mid x) \,\|\, r(z)) = \tfrac12 \sum_k \log(1 + \operatorname{Var} \mu_k)

    Above it by the divergence of p(z) from r(z). Reference: Alemi et al. 2017, arXiv:1612.00410, whose r is fixed.

    >>> float(KLPenalty(2, 5)(torch.zeros(3, 2), torch.randn(3, 2), torch.zeros(3, 5)))
    0.0
    """

    def __init__(self, dim_z: int, dim_x: int) -> None:
        super().__init__()

    def forward(self, mean: Tensor, z: Tensor, x: Tensor) -> Tensor:
        return torch.log1p(mean.var(0, correction=0)).sum() / 2


class LeakPenalty(nn.Module):
    """I(x; z) by a bound of `BOUNDS`, from samples alone: `flomi.losses.MIPenalty`. It need not know p(z) nor p(z | x).

    Below 0 a bound says nothing, and FLO's gradient would only drive its exponentials further: then there is no penalty.

    >>> penalty, z = LeakPenalty(2, 5), torch.randn(64, 2)
    >>> penalty(z, z, torch.randn(64, 5)).shape
    torch.Size([])
    """

    def __init__(
        self, dim_z: int, dim_x: int, bound: str | Bound = "flo", critic_steps: int = 3, m: int = 32
    ) -> None:
        super().__init__()
        self.mi = MIPenalty(
            dim_z, dim_x, bound=bound, critic="separable", critic_steps=critic_steps, m=m, check_every=0
        )

    def forward(self, mean: Tensor, z: Tensor, x: Tensor) -> Tensor:
        value: Tensor = self.mi(z, x)
        return value if value > 0 else torch.zeros_like(value)


LEAKS = ("flo", "infonce")  # bounds of which there is a penalty
PENALTIES: Mapping[str, Callable[[int, int], nn.Module]] = {
    "kl": KLPenalty,
    **{name: partial(LeakPenalty, bound=name) for name in LEAKS},
}


# Training and judging ------------------------------------------------------------------------------------------------


def fit(
    x: Tensor,
    y: Tensor,
    penalty: Callable[[int, int], nn.Module] | None = None,
    beta: float = 0.0,
    *,
    steps: int = 1000,
    batch: int = 128,
    lr: float = 2e-3,
    model: Bottleneck | None = None,
    seed: int = 0,
) -> Bottleneck:
    """A model that minimises cross-entropy(y | z) + beta * penalty, in nats; x [n, dim_x], y [n] classes from 0.

    `penalty`: a row of `PENALTIES`, or what makes one for (dim_z, dim_x). Adam, the rate falling along a cosine; the last model
    counts. The same seed gives the same model. Raises ValueError for a beta below 0, one without a penalty, or too few rows.
    """
    if beta < 0 or (beta > 0 and penalty is None):
        raise ValueError(f"beta={beta}: give 0 or more, and with more than 0 a penalty")
    if not 2 <= batch <= len(x):
        raise ValueError(f"batch={batch} is not possible with {len(x)} rows: use 2 to {len(x)}")
    torch.manual_seed(seed)
    model = model or Bottleneck(x.shape[1], int(y.max()) + 1)
    part = penalty(model.dim_z, model.dim_x) if penalty is not None and beta > 0 else None
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * cosine(step, steps)
        rows = torch.randperm(len(x))[:batch]
        mean = model.encoder(x[rows])
        z = noisy(mean)
        loss = cross_entropy(model.predictor(z), y[rows])
        if part is not None:
            loss = loss + beta * part(mean, z, x[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
    return model.eval()


@dataclass(frozen=True)
class Judgement:
    """A model on test rows: share of wrong classes, and nats.

    `of_y` is at most I(z; y), by the predictor (Barber and Agakov's bound, with the entropy of the test classes); I(x; z) is
    between `of_x_least` and `of_x_most` in expectation. `kl` is what the variational bottleneck would say of it.
    """

    error: float
    of_y: float
    of_x_least: float
    of_x_most: float
    kl: float


@torch.no_grad()
def judge(model: Bottleneck, x: Tensor, y: Tensor, draws: int = 16, seed: int = 0) -> Judgement:
    """Classes by the mean probability over `draws` codes of each test row; nats are means over the draws too."""
    torch.manual_seed(seed)
    mean = model.encoder(x)
    z = torch.stack([noisy(mean) for _ in range(draws)])
    logits = model.predictor(z)
    share = torch.bincount(y).double() / len(y)
    entropy = -torch.special.xlogy(share, share).sum()
    least, most = torch.tensor([known_mi(mean, one) for one in z]).mean(0).tolist()
    return Judgement(
        error=float((logits.softmax(-1).mean(0).argmax(-1) != y).double().mean()),
        of_y=float(entropy - cross_entropy(logits.flatten(0, 1), y.repeat(draws))),
        of_x_least=least,
        of_x_most=most,
        kl=float(KLPenalty(model.dim_z, model.dim_x)(mean, z[0], x)),
    )


def known_mi(mean: Tensor, z: Tensor) -> tuple[float, float]:
    r"""Lower and upper bound on I(x; z) in nats from p(z | x) = N(mean, 1): means [n, d] of n rows, and a code z [n, d] of each.

    .. math:: E \log \frac{p(z_i \mid x_i)}{\frac1n \sum_j p(z_i \mid x_j)} \le I(x; z)
              \le E \log \frac{p(z_i \mid x_i)}{\frac1{n-1} \sum_{j \ne i} p(z_i \mid x_j)}

    InfoNCE and leave-one-out with the exact density as the critic: their expectations hold I between them, the lower one is at
    most log n. Reference: Poole et al. 2019, arXiv:1905.06922.

    >>> mean = torch.randn(2000, 1)
    >>> low, high = known_mi(mean, noisy(mean))  # the truth is log(2) / 2 = 0.347
    >>> 0.25 < low < high < 0.45
    True
    """
    n = len(z)
    density = -torch.cdist(z.double(), mean.double()).square() / 2  # log p(z_i | x_j) but for a constant
    others = density[~torch.eye(n, dtype=torch.bool)].view(n, n - 1)
    scores = Scores(density.diagonal(), Table(others))
    return float(bounds.infonce(scores).mean()), float(bounds.fdv(scores).mean())
