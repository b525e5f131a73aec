"""Gaussian pairs of known MI with their exact scores, as the certificate and the U-statistics take them."""

from __future__ import annotations

import numpy as np

from flomi.inference.certificate import PairScores


def gaussian(mi, d):
    """(correlation, exact PMI) of d equally correlated pairs."""
    rho = np.sqrt(1 - np.exp(-2 * mi / d))
    return rho, lambda x, y: mi - (rho**2 * (x**2 + y**2) - 2 * rho * x * y).sum(-1) / (2 * (1 - rho**2))


def sample(n, rho, d, rng):
    x = rng.standard_normal((n, d))
    return x, rho * x + np.sqrt(1 - rho**2) * rng.standard_normal((n, d))


def part(score, x, y, m, rng, groups=None):
    """Scores with m random cyclic shifts."""
    shifts = rng.permutation(len(x) - 1)[:m] + 1
    return PairScores(
        score(x, y), score(x[:, None], y[(np.arange(len(x))[:, None] + shifts) % len(x)]), shifts, groups
    )
