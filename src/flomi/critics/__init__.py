"""Every model that scores a pair (x, y) on the log scale, and the one table of them, `CRITICS`."""

from __future__ import annotations

from flomi.critics.base import Critic, Formula
from flomi.critics.density import ConditionalGaussian
from flomi.critics.networks import (
    Baseline,
    JointCritic,
    PlainCritic,
    QuadraticCritic,
    SeparableCritic,
    SeparateCritic,
    SumCritic,
    dtype_of,
    mlp,
)
from flomi.critics.table import CRITICS, CriticKind

__all__ = [
    "CRITICS",
    "Baseline",
    "ConditionalGaussian",
    "Critic",
    "CriticKind",
    "Formula",
    "JointCritic",
    "PlainCritic",
    "QuadraticCritic",
    "SeparableCritic",
    "SeparateCritic",
    "SumCritic",
    "dtype_of",
    "mlp",
]
