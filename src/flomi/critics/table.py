"""The one table of critics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from flomi.critics.copula import EllipticalCritic, NullCritic
from flomi.critics.density import ConditionalGaussian
from flomi.critics.features import ExpandedCritic
from flomi.critics.kernel_density import LocalCritic
from flomi.critics.kernel_ridge import RegressionCritic
from flomi.critics.networks import JointCritic, QuadraticCritic, SeparableCritic, SeparateCritic, SumCritic
from flomi.critics.paired_columns import MatchedCritic

__all__ = ["CRITICS", "CriticKind"]


@dataclass(frozen=True)
class CriticKind:
    """One row of `CRITICS`: a network to `build` from (dim_x, dim_y, hidden), a closed form to `fit` to rows (x, y), or an
    ensemble of networks on top of a `base`, itself a closed form or learned.

    `negatives` is the scheme that training can afford; `formula` says whether a closed form gives an estimate of its own;
    `least_rows` are needed to train on.
    """

    name: str
    about: str
    build: Callable[[int, int, Sequence[int]], nn.Module] | None = None
    fit: Callable[[Tensor, Tensor], nn.Module] | None = None
    base: Literal["closed form", "learned"] | None = None
    negatives: str = "shifts"
    formula: bool = True
    least_rows: int = 10


def _joint(dim_x: int, dim_y: int, hidden: Sequence[int]) -> nn.Module:
    return SumCritic(JointCritic(dim_x, dim_y, hidden), QuadraticCritic(dim_x, dim_y))


_KINDS = (
    CriticKind("joint", "perceptron on concat(x, y) with heads g and u, plus a quadratic form each", _joint),
    CriticKind("mlp", "the perceptron alone: two heads on a shared trunk, the paper's default", JointCritic),
    CriticKind("separate", "a perceptron for g and another for u", SeparateCritic),
    CriticKind("separable", "inner product of two encoders", SeparableCritic, negatives="all"),
    CriticKind(
        "bilinear", "inner product of unit-norm features over a learned temperature (FLO-BiL)",
        partial(SeparableCritic, unit_norm=True), negatives="all",
    ),
    CriticKind(
        "density", "log q(y|x), a mixture of Gaussians, for CLUB, L1Out and DoE",
        partial(ConditionalGaussian, components=4), negatives="all",
    ),
    CriticKind("residual", "small networks on top of the best closed form", base="closed form"),
    CriticKind("network", "the same on top of a quadratic layer; every weight starts at random", base="learned"),
    CriticKind("null", "g = u = 0: x and y independent", fit=NullCritic.fit),
    CriticKind("local", "kernel density ratio, for one column against one", fit=LocalCritic.fit, least_rows=100),
    CriticKind(
        "matched", "sum of local critics over columns that go together", fit=MatchedCritic.fit, formula=False,
        least_rows=100,
    ),
    CriticKind("gaussian", "Gaussian copula: exact PMI from canonical correlations", fit=EllipticalCritic.fit),
    CriticKind(
        "student", "Student copula: the Gaussian's with tail dependence",
        fit=partial(EllipticalCritic.fit, tails="student"),
    ),
    CriticKind(
        "regression", "Gaussian around a smooth function of the other side, by kernel ridge regression",
        fit=RegressionCritic.fit, formula=False, least_rows=50,
    ),
    CriticKind(
        "expanded", "Gaussian copula of normal scores, their norm and the products of the two", fit=ExpandedCritic.fit,
        formula=False,
    ),
)  # fmt: skip

CRITICS: dict[str, CriticKind] = {kind.name: kind for kind in _KINDS}
