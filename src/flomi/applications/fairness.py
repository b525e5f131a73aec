"""Fair decisions: a representation that serves the task and tells as little as it can of a sensitive attribute (E11).

    train, test = tables.load("adult")
    model = fit(train, PENALTIES["flo"], weight=3.0)
    judge(model, train, test)                 # error, gaps between the groups, and what another classifier finds of s in z

The objective is cross-entropy(y | z) + weight * I(z; s), both in nats, over z = encoder(x) + noise; decisions are made, and
judged, without the noise. Every penalty is a module called as penalty(z, logit, s): one of your own needs nothing else.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from flomi.applications.data.tables import People
from flomi.bounds import Bound
from flomi.critics import mlp
from flomi.losses import MIPenalty
from flomi.training.loop import cosine

__all__ = [
    "FERMI", "PENALTIES", "Adversary", "ClassCritic", "FairModel", "Judgement", "LeakPenalty", "equalised_odds_gap", "fit",
    "judge", "leakage", "opportunity_gap", "parity_gap",
]  # fmt: skip

CLASSES = 2  # of s


class FairModel(nn.Module):
    """Encoder x -> z and predictor z -> logit of y. In training z has unit variance a column plus Gaussian noise.

    The unit variance keeps what is said above the noise: an encoder that could shrink z under it would pass the game and
    still tell s to whoever reads z without noise. x: [n, dim_x]; forward gives z [n, dim_z] and the logit [n].

    >>> z, logit = FairModel(5, dim_z=3)(torch.randn(16, 5))
    >>> z.shape, logit.shape
    (torch.Size([16, 3]), torch.Size([16]))
    """

    def __init__(
        self, dim_x: int, dim_z: int = 4, hidden: Sequence[int] = (64, 64), noise: float = 1.0
    ) -> None:
        super().__init__()
        self.dim_z, self.noise = dim_z, noise
        self.encoder = nn.Sequential(mlp([dim_x, *hidden, dim_z]), nn.BatchNorm1d(dim_z, affine=False))
        self.predictor = mlp([dim_z, *hidden, 1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        if self.training:
            z = z + self.noise * torch.randn_like(z)
        return z, self.predictor(z).squeeze(-1)


class ClassCritic(nn.Module):
    r"""Critic for a few classes, as one-hot columns of s or one column of 0 and 1: linear in s, a network in z.

    .. math:: g(z, s) = h_0(z) + \sum_k h_k(z)\, s_k, \qquad u(z, s) \text{ the same with outputs of its own}

    A function of z and a class has no other form, so nothing is lost; and z passes the network once, whatever the negatives.

    >>> ClassCritic(3, 2)(torch.zeros(5, 3), torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(self, dim_z: int, dim_s: int, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        self.net = mlp([dim_z, *hidden, 2 * (dim_s + 1)])

    def forward(self, z: Tensor, s: Tensor) -> Tensor:
        return self.pairs(*self.encode(z, s))

    def encode(self, z: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(z), torch.cat([torch.ones_like(s[:, :1]), s], -1)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.pairs(a, b), (a[..., b.shape[-1] :] * b).sum(-1)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return (a[..., : b.shape[-1]] * b).sum(-1)

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return a[:, : b.shape[-1]] @ b.T


# Penalties: penalty(z [n, dim_z], logit [n], s [n]) -> a number to be made small -------------------------------------


class LeakPenalty(nn.Module):
    """I(z; s) by a variational bound: `flomi.losses.MIPenalty` with a `ClassCritic`. FLO, FDV, InfoNCE, NWJ, TUBA and others.

    >>> penalty = LeakPenalty(4, "flo")
    >>> penalty(torch.randn(64, 4), torch.zeros(64), torch.arange(64) % 2).shape
    torch.Size([])
    """

    def __init__(self, dim_z: int, bound: str | Bound = "flo", critic_steps: int = 2, m: int = 32) -> None:
        super().__init__()
        self.mi = MIPenalty(
            dim_z, 1, bound=bound, critic=ClassCritic(dim_z, 1), critic_steps=critic_steps, m=m, check_every=0
        )

    def forward(self, z: Tensor, logit: Tensor, s: Tensor) -> Tensor:
        value: Tensor = self.mi(z, s)
        return value


class Adversary(nn.Module):
    """Adversarial debiasing: H(s) minus the cross-entropy of a classifier of s that reads z, trained `steps` times a call.

    With the best classifier this is I(z; s) too (Barber and Agakov's bound). Reference: Edwards and Storkey 2016,
    arXiv:1511.05897; Zhang, Lemoine and Mitchell 2018, arXiv:1801.07593, whose adversary reads the decision instead.
    """

    def __init__(
        self, dim_z: int, hidden: Sequence[int] = (64, 64), steps: int = 2, lr: float = 5e-3
    ) -> None:
        super().__init__()
        self.net = mlp([dim_z, *hidden, CLASSES])
        self.steps = steps
        self._optimiser = torch.optim.AdamW(self.net.parameters(), lr=lr, weight_decay=1e-2, fused=True)
        self._seen: deque[tuple[Tensor, Tensor]] = deque(maxlen=4)

    def forward(self, z: Tensor, logit: Tensor, s: Tensor) -> Tensor:
        """H(s) - E[-log q(s | z)] of this batch in nats; in training the classifier first takes its steps, on earlier batches."""
        if self.training:
            past, of_past = (torch.cat(v) for v in zip(*(self._seen or [(z.detach(), s)]), strict=True))
            for _ in range(self.steps):
                drawn = torch.randperm(len(past))[: len(z)]
                self._optimiser.zero_grad()
                cross_entropy(self.net(past[drawn]), of_past[drawn]).backward()
                self._optimiser.step()
            self._optimiser.zero_grad()
            self._seen.append((z.detach(), s))
        share = one_hot(s, CLASSES).float().mean(0)
        self.net.requires_grad_(False)
        loss = cross_entropy(self.net(z), s)
        self.net.requires_grad_(True)
        entropy: Tensor = -torch.special.xlogy(share, share).sum()
        return entropy - loss


class FERMI(nn.Module):
    r"""FERMI: the exponential Rényi mutual information of the decision and s, in the min-max form of its authors.

    .. math:: D_R = \max_W\; -\operatorname{tr} W P_{\hat y} W^\top + 2 \operatorname{tr} W P_{\hat y s} P_s^{-1/2} - 1

    P are the probabilities of the (soft) decision and of s. W is set to its maximiser for running averages of P, so the value is
    an average over the rows of a batch, as in the paper, at any batch size. Reference: Lowy et al. 2021, arXiv:2102.12586.
    """

    joint: Tensor  # P of (y^, s), a running average: [2, classes]
    weight: Tensor  # of the rows seen so far, so that the average is one

    def __init__(self, dim_z: int, memory: float = 0.9) -> None:
        super().__init__()
        self.memory = memory
        self.register_buffer("joint", torch.zeros(2, CLASSES))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, z: Tensor, logit: Tensor, s: Tensor) -> Tensor:
        """The bound on D_R of this batch, 0 at parity."""
        decision = torch.stack([torch.sigmoid(-logit), torch.sigmoid(logit)], -1)
        joint = decision.T @ one_hot(s, CLASSES).to(decision) / len(s)
        if self.training:
            self.joint = self.memory * self.joint + (1 - self.memory) * joint.detach()
            self.weight = self.memory * self.weight + (1 - self.memory)
        mean = self.joint / self.weight
        root = mean.sum(0).clamp_min(1e-6).rsqrt()
        best = (mean * root).T / mean.sum(1).clamp_min(1e-6)  # W [classes, 2], the maximiser for the averages
        return 2 * (best.T * joint * root).sum() - (best.square() * joint.sum(1)).sum() - 1


LEAKS = ("flo", "fdv", "infonce", "nwj", "tuba")  # bounds of which there is a penalty
PENALTIES: Mapping[str, Callable[[int], nn.Module]] = {
    **{name: partial(LeakPenalty, bound=name) for name in LEAKS},
    "adversarial": Adversary,
    "fermi": FERMI,
}


# Training ------------------------------------------------------------------------------------------------------------


def fit(
    people: People,
    penalty: Callable[[int], nn.Module] | None = None,
    weight: float = 0.0,
    *,
    steps: int = 1000,
    batch: int = 512,
    lr: float = 3e-3,
    model: FairModel | None = None,
    seed: int = 0,
) -> FairModel:
    """A model that minimises cross-entropy(y | z) + weight * penalty(z, logit, s), both in nats, ready for judging.

    `penalty`: what makes one for z of that many columns, such as a row of `PENALTIES`; None for the task alone. The weight
    rises in the first fifth of the steps, while a critic finds its feet; the rate falls along a cosine. The last model counts:
    none is chosen by its test rows. The same seed gives the same model. Raises ValueError for a weight below 0, or one
    without a penalty.
    """
    if weight < 0 or (weight > 0 and penalty is None):
        raise ValueError(f"weight={weight}: give 0 or more, and with more than 0 a penalty")
    torch.manual_seed(seed)
    model = model or FairModel(people.x.shape[1])
    part = penalty(model.dim_z) if penalty is not None and weight > 0 else None
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    model.train()
    rows = _batches(len(people), batch, steps)
    for step, drawn in enumerate(rows):
        optimiser.param_groups[0]["lr"] = lr * cosine(step, steps)
        z, logit = model(people.x[drawn])
        loss = binary_cross_entropy_with_logits(logit, people.y[drawn].float())
        if part is not None:
            strength = weight * min(1.0, 5 * (step + 1) / steps)
            # divided, so that a large weight does not act as a large rate too
            loss = (loss + strength * part(z, logit, people.s[drawn])) / (1 + strength)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


def _batches(n: int, batch: int, steps: int) -> list[Tensor]:
    """`steps` sets of row numbers; every row is used before one is used again."""
    batch = min(batch, n)
    found: list[Tensor] = []
    while len(found) < steps:
        found += [rows for rows in torch.randperm(n).split(batch) if len(rows) == batch]
    return found[:steps]


# Judging -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """A model on test rows: error, gaps between the groups, share of positive decisions, what another classifier finds of s.

    `leak_auc` and `leak_nats` are found in z with the noise of training, on which the penalty acts; `exact_auc` in z without.
    """

    error: float
    parity_gap: float
    opportunity_gap: float
    odds_gap: float
    positives: float
    leak_auc: float
    leak_nats: float
    exact_auc: float


def judge(model: FairModel, train: People, test: People, seed: int = 0) -> Judgement:
    """Decisions without noise on test rows; the classifiers of s learn from z of the training rows."""
    model.eval()
    with torch.no_grad():
        (z_train, _), (z_test, logit) = model(train.x), model(test.x)
    decision, y, s = (v.numpy() for v in ((logit > 0).long(), test.y, test.s))
    generator = torch.Generator().manual_seed(seed)
    noisy = [z + model.noise * torch.randn(z.shape, generator=generator) for z in (z_train, z_test)]
    auc, nats = leakage(noisy[0].numpy(), train.s.numpy(), noisy[1].numpy(), s, seed)
    exact, _ = leakage(z_train.numpy(), train.s.numpy(), z_test.numpy(), s, seed)
    return Judgement(
        error=float(np.mean(decision != y)),
        parity_gap=parity_gap(decision, s),
        opportunity_gap=opportunity_gap(decision, y, s),
        odds_gap=equalised_odds_gap(decision, y, s),
        positives=float(decision.mean()),
        leak_auc=auc,
        leak_nats=nats,
        exact_auc=exact,
    )


Ints: TypeAlias = NDArray[Any]  # [n] of 0 and 1


def parity_gap(decision: Ints, s: Ints) -> float:
    """``|P(decision = 1 | s = 1) - P(decision = 1 | s = 0)|``; ValueError where a group is empty.

    >>> parity_gap(np.array([1, 1, 0, 0]), np.array([0, 1, 0, 1]))
    0.0
    """
    rates = [_rate(decision, s == k, f"s = {k}") for k in (0, 1)]
    return abs(rates[1] - rates[0])


def opportunity_gap(decision: Ints, y: Ints, s: Ints) -> float:
    """The parity gap among those with y = 1: the difference of the true positive rates."""
    return parity_gap(decision[y == 1], s[y == 1])


def equalised_odds_gap(decision: Ints, y: Ints, s: Ints) -> float:
    """The larger of the parity gaps among those with y = 1 and among those with y = 0."""
    return max(parity_gap(decision[y == k], s[y == k]) for k in (0, 1))


def _rate(decision: Ints, who: Ints, name: str) -> float:
    if not who.any():
        raise ValueError(f"no row has {name}, so its rate is unknown: give more rows")
    return float(decision[who].mean())


def leakage(
    z_train: NDArray[Any], s_train: Ints, z_test: NDArray[Any], s_test: Ints, seed: int = 0
) -> tuple[float, float]:
    """(AUC, nats) of boosted trees that learn s from z on other rows: 0.5 and about 0 where z tells nothing of s.

    The nats are H(s) minus the trees' cross-entropy on test rows, a lower bound on I(z; s), below 0 where they learned by heart.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import log_loss, roc_auc_score

    trees = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, random_state=seed)
    trees.fit(z_train, s_train)
    chance = trees.predict_proba(z_test)[:, 1]
    share = float(np.mean(s_test))
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    return float(roc_auc_score(s_test, chance)), entropy - float(log_loss(s_test, chance))
