"""Every model that scores a pair (x, y) on the log scale, and the one table of them, `CRITICS`.

base.py holds the one shape of a critic. A new one is a class with `encode`, and `fit` or a network's layers, and a row of
table.py, which says where it is tried, what it can do and how it is restored: nothing else knows its name. Names of tensors
in a state_dict stay as they are: folders saved earlier hold them. Each file's numbers that decide are its `SETTINGS`.
"""

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
