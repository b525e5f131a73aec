"""Every model that scores a pair (x, y) on the log scale, and the one table of them, `CRITICS`."""

from __future__ import annotations

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
    "CriticKind",
    "JointCritic",
    "PlainCritic",
    "QuadraticCritic",
    "SeparableCritic",
    "SeparateCritic",
    "SumCritic",
    "dtype_of",
    "mlp",
]
