"""Gaussian pairs of known MI with their exact scores, as the certificate and the U-statistics take them."""

from __future__ import annotations

import numpy as np

from flomi.inference.certificate import PairScores
from flomi.inference.u_statistic import PartitionTerm, fold_summary, pooled


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


def of_matrix(matrix, groups=None):
    """All pairs of a matrix [n, n] with matrix[i, j] = p(x_i, y_j)."""
    shifts, rows = np.arange(1, len(matrix)), np.arange(len(matrix))[:, None]
    return PairScores(np.diagonal(matrix).copy(), matrix[rows, (rows + shifts) % len(matrix)], shifts, groups)


def summarise(folds):
    """The bound and its companions from all given pairs, folds weighted by rows."""
    return pooled([fold_summary(f.pos, PartitionTerm.of_pairs(f), f.groups) for f in folds])
