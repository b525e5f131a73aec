"""A critic for classes: the chance of each class given the other side, by multinomial logistic regression."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flomi.critics.base import Critic
from flomi.preprocess import RankNormal, Standardize
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class LogisticSettings:
    least_rows: int = setting(50, f"{UNMEASURED}for a fit at all")
    classes: int = setting(30, f"{UNMEASURED}different rows of a side, at most")
    rows_per_class: int = setting(10, f"{UNMEASURED}mean number of rows a class, at least")
    rare: int = setting(5, f"{UNMEASURED}rows of a class, below which all such classes are one")
    folds: int = setting(4, f"{UNMEASURED}of rows left out, by which penalty and features are chosen")
    penalties: tuple[float, ...] = setting(
        (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1),
        f"{UNMEASURED}on half of the sum of squared weights",
    )
    trial_rows: int = setting(2000, f"{UNMEASURED}to choose by, for their time")
    rows: int = setting(20_000, f"{UNMEASURED}that the fit looks at, for its time")
    rows_per_feature: int = setting(
        5, f"{UNMEASURED}training rows a feature, from which on squares and products are tried"
    )
    steps: int = setting(60, f"{UNMEASURED}of the minimisation, at most")


SETTINGS = LogisticSettings()


class LogisticCritic(Critic):
    r"""Log ratio of the probability of a class given the other side to its mean; g = PMI, u = -g.

    .. math:: g(s, c) = \log \big( (1 - \tfrac1n) \, p(c \mid s) / \bar p(c) + \tfrac1n \big), \qquad
              p(c \mid s) \propto e^{w_c^\top \phi(s) + b_c}

    The classes are the different rows of one side, the 30 most frequent with 5 rows or more, and all others together; the side
    is that with few of them, or that which the other predicts better. A class that training did not hold scores 0. phi are normal
    scores of the other side, and their squares and products where these lower the log loss of rows left out; so is the penalty
    on w chosen, b has none. The mean over training rows makes the ratio average 1 over s. At most 20,000 rows are used.
    x: [n, dim_x], y: [n, dim_y]. References: Cox 1966; Hastie, Tibshirani, Friedman 2009, section 4.4.

    >>> x = torch.randn(1000, 2).double()
    >>> y = (x.sum(1, keepdim=True) + 0.5 * torch.randn(1000, 1) > 0).double()
    >>> 0.35 < float(LogisticCritic.fit(x, y)(x, y).mean()) < 0.55
    True
    """

    row = "logistic"
    submodules = (("ranks", RankNormal), ("unit", Standardize))

    ranks: RankNormal  # of the features' side, as `unit`
    unit: Standardize
    from_x: Tensor  # whether that is x
    second: Tensor  # whether squares and products are features too
    weight: Tensor  # [1 + features, classes], the first row is b
    mean: Tensor  # [classes], of p(c | s)
    floor: Tensor
    classes: Tensor  # [different rows, columns of their side]
    kind: Tensor  # [different rows, classes], which is which class

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> LogisticCritic:
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < SETTINGS.least_rows:
            found, least = f"{list(x.shape)} and {list(y.shape)}", SETTINGS.least_rows
            raise ValueError(f"x and y must be [n, d] with the same n, at least {least}, found {found}")
        some = _spread(len(x), SETTINGS.rows)
        x, y = x[some], y[some]
        sides = ((True, x, _Classes(y)), (False, y, _Classes(x)))
        few = [side for side in sides if len(side[2].rows) <= SETTINGS.classes] or sides
        fits = [_Fit(from_x, s, c) for from_x, s, c in few if c.kind.shape[1] > 1]
        if not fits:
            raise ValueError(
                f"neither x nor y has rows that occur {SETTINGS.rare} times, which would be classes; use another critic"
            )
        best = max(fits, key=lambda fit: fit.gain)
        critic = cls(**best.parts())
        critic.optimism = float(critic(x, y).mean()) - best.gain
        return critic

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        s, c = (x, y) if self.from_x else (y, x)
        ratio = self._log_chance(s).exp() / self.mean
        of_s = ((1 - self.floor) * ratio + self.floor).log()
        of_c = (c[:, None] == self.classes).all(-1).to(of_s) @ self.kind
        return (of_s, of_c) if self.from_x else (of_c, of_s)

    def _log_chance(self, s: Tensor) -> Tensor:
        """[n, classes] log p(c | s)."""
        features = _features(self.unit(self.ranks(s)), bool(self.second))
        return (features @ self.weight[1:] + self.weight[0]).log_softmax(1)


class _Classes:
    """The different rows of a side, and which class each of them is: those beyond the most frequent ones are one class."""

    def __init__(self, side: Tensor) -> None:
        self.rows, self.labels, counts = side.unique(dim=0, return_inverse=True, return_counts=True)
        rare = counts < SETTINGS.rare
        rare[counts.argsort(descending=True, stable=True)[SETTINGS.classes :]] = True
        number = torch.where(rare, int((~rare).sum()), (~rare).cumsum(0) - 1)
        self.kind = torch.nn.functional.one_hot(number).to(side)


class _Fit:
    """The regression of the classes of one side on the other, and the log loss that it saves on rows left out."""

    def __init__(self, from_x: bool, s: Tensor, c: _Classes) -> None:
        self.from_x, self.rows, self.kind = from_x, c.rows, c.kind
        self.hot = c.kind[c.labels]
        self.ranks = RankNormal.fit(s)
        z = self.ranks(s)
        # not whitened: a penalty that is the same for all directions then bears most on those in which columns hardly differ
        self.unit = Standardize(center=z.mean(0), scale=z.std(0).clamp(min=1e-6))
        self.z = self.unit(z)
        self.gain, self.penalty, self.second = self._choose()

    def _choose(self) -> tuple[float, float, bool]:
        """The gain on rows left out, in nats a row, and the penalty and kind of features that give the most of it."""
        some = _spread(len(self.z), SETTINGS.trial_rows)
        z, hot = self.z[some], self.hot[some]
        # every fold has its share of every class
        fold = torch.empty(len(z), dtype=torch.long)
        fold[hot.argmax(1).argsort(stable=True)] = torch.arange(len(z)) % SETTINGS.folds
        width = z.shape[1] * (z.shape[1] + 3) // 2
        best = (-math.inf, SETTINGS.penalties[0], False)
        for second in (False, True):
            if second and len(z) < SETTINGS.rows_per_feature * width:
                continue
            features = _features(z, second)
            share = hot.mean(0)
            weights: list[Tensor | None] = [None] * SETTINGS.folds
            last = -math.inf
            for penalty in SETTINGS.penalties:
                gain = 0.0
                for k in range(SETTINGS.folds):
                    inside, outside = fold != k, fold == k
                    w = _minimise(features[inside], hot[inside], penalty, weights[k])
                    chance = (features[outside] @ w[1:] + w[0]).softmax(1)
                    ratio = ((chance / share) * hot[outside]).sum(1)
                    gain += float(((1 - 1 / len(z)) * ratio + 1 / len(z)).log().sum()) / len(z)
                    weights[k] = w
                if gain > best[0]:
                    best = gain, penalty, second
                if gain < last:  # weaker penalties only lose more
                    break
                last = gain
        return best

    def parts(self) -> dict[str, Tensor | torch.nn.Module]:
        """What the critic is made of."""
        features = _features(self.z, self.second)
        weight = _minimise(features, self.hot, self.penalty, None)
        mean = (features @ weight[1:] + weight[0]).softmax(1).mean(0)
        return {
            "ranks": self.ranks, "unit": self.unit, "from_x": torch.tensor(self.from_x),
            "second": torch.tensor(self.second), "weight": weight, "mean": mean,
            "floor": mean.new_tensor(1 / len(self.z)), "classes": self.rows, "kind": self.kind,
        }  # fmt: skip


def _spread(n: int, count: int) -> Tensor:
    """At most `count` rows, evenly spaced, so that a file in some order is seen as a whole."""
    return torch.linspace(0, n - 1, min(n, count)).round().long()


def _features(z: Tensor, second: bool) -> Tensor:
    """z of unit variance, and with `second` their squares and products, which have about mean 0 and variance 1 too."""
    if not second:
        return z
    i, j = torch.triu_indices(z.shape[1], z.shape[1], 1)
    return torch.cat([z, (z.square() - 1) / math.sqrt(2), z[:, i] * z[:, j]], 1)


def _minimise(features: Tensor, hot: Tensor, penalty: float, start: Tensor | None) -> Tensor:
    """[1 + features, classes] the weights of least penalised log loss; the first row has no penalty."""
    # scikit-learn's LogisticRegression warns where it stops early, which is meant here
    from scipy.optimize import minimize

    f, h = features.numpy(), hot.numpy()
    n, shape = len(f), (f.shape[1] + 1, h.shape[1])
    counts = h.sum(0)
    if start is None:
        first = np.zeros(shape)
        first[0] = np.log((counts + 0.5) / (counts + 0.5).sum())
    else:
        first = start.numpy()

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(shape)
        logit = f @ w[1:] + w[0]
        top = logit.max(1, keepdims=True)
        e = np.exp(logit - top)
        total = e.sum(1, keepdims=True)
        value = (top + np.log(total)).sum() - (logit * h).sum() + 0.5 * penalty * np.square(w[1:]).sum()
        error = e / total - h
        slope = np.concatenate([error.sum(0)[None], f.T @ error + penalty * w[1:]])
        return value / n, slope.ravel() / n

    found = minimize(
        loss, first.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": SETTINGS.steps, "gtol": 1e-5}
    )
    return torch.from_numpy(found.x.reshape(shape)).to(features)
