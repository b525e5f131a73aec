"""Two estimators from before networks, by row: nearest neighbours and kernel densities. Each takes the columns as they are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["kde", "ksg"]

_TREE_COLUMNS = 6  # up to here a tree finds neighbours faster than all distances do
_BLOCK = 500  # rows whose distances to all others are held at a time


def ksg(x: Tensor, y: Tensor, k: int = 5) -> Tensor:
    r"""MI of each row by nearest neighbours, [n], in nats; its mean is the estimate.

    .. math:: \psi(k) + \psi(n) - \psi(n_x + 1) - \psi(n_y + 1)

    where n_x counts the rows strictly nearer in x than the k-th neighbour in (x, y), maximum norm. Too low where there are
    many columns or much MI. x [n, d], y [n, e] with more than k rows. Reference: Kraskov, Stoegbauer, Grassberger 2004, their
    first algorithm.

    >>> x = torch.randn(2000, 2)
    >>> 0.5 < float(ksg(x, x + torch.randn(2000, 2)).mean()) < 0.8  # the truth is log 2
    True
    """
    few = x.shape[1] + y.shape[1] <= _TREE_COLUMNS
    near_x, near_y = (_by_tree if few else _by_all_pairs)(x.double(), y.double(), k)
    psi_k, psi_n = torch.special.digamma(torch.tensor([k, len(x)], dtype=torch.float64))
    local: Tensor = psi_k + psi_n - torch.special.digamma(near_x) - torch.special.digamma(near_y)
    return local


def kde(x: Tensor, y: Tensor, rows: int | None = None) -> Tensor:
    r"""Log ratio of kernel densities at each row, [n], in nats; its mean is the estimate.

    .. math:: \log p(x, y) - \log p(x) - \log p(y)

    Each density leaves the row itself out of its sum: with it, independent rows read far above 0. Gaussian kernels of the
    shape of the sample covariance and of Scott's width n^(-1/(d+4)). x [n, d], y [n, e] without exact linear relations
    between columns. All rows make the densities; `rows` says how many of them, the first ones, are looked at.

    >>> x = torch.randn(2000, 1)
    >>> 0.25 < float(kde(x, x + torch.randn(2000, 1)).mean()) < 0.45  # the truth is log(2) / 2
    True
    """
    log_p = [_log_density(v.double(), rows) for v in (torch.cat([x, y], 1), x, y)]
    return log_p[0] - log_p[1] - log_p[2]


def _by_tree(x: Tensor, y: Tensor, k: int) -> list[Tensor]:
    """How many rows are nearer than the k-th neighbour, in x and in y; the row itself stands for the + 1."""
    from scipy.spatial import cKDTree

    points = torch.cat([x, y], 1).numpy()
    radius = torch.as_tensor(cKDTree(points).query(points, [k + 1], p=math.inf)[0])[:, 0]
    counts = []
    for side in (x, y):
        if side.shape[1] == 1:
            column = side[:, 0]
            ordered = column.contiguous().sort().values
            near = torch.searchsorted(ordered, column + radius) - torch.searchsorted(
                ordered, column - radius, right=True
            )
        else:
            inside = torch.nextafter(radius, torch.zeros_like(radius)).numpy()
            tree = cKDTree(side.numpy())
            near = torch.as_tensor(
                tree.query_ball_point(side.numpy(), inside, p=math.inf, return_length=True)
            )
        counts.append(near.clamp(min=1).double())
    return counts


def _by_all_pairs(x: Tensor, y: Tensor, k: int) -> list[Tensor]:
    """The same from all distances: trees are ten times slower in many columns."""
    parts = []
    for rows in torch.arange(len(x)).split(_BLOCK):
        apart = [torch.cdist(side[rows], side, p=math.inf) for side in (x, y)]
        radius = (
            torch.maximum(*apart).kthvalue(k + 1, dim=1, keepdim=True).values
        )  # the row itself is the first
        parts.append(torch.stack([(distance < radius).sum(1) for distance in apart]))
    return list(torch.cat(parts, 1).clamp(min=1).double())


def _log_density(v: Tensor, rows: int | None) -> Tensor:
    """Log density at each of the first rows, made of all others."""
    n, d = v.shape
    root = torch.linalg.cholesky(torch.cov(v.T).reshape(d, d)) * n ** (-1 / (d + 4))
    z = torch.linalg.solve_triangular(root, (v - v.mean(0)).T, upper=False).T.contiguous()
    constant = d / 2 * math.log(2 * math.pi) + float(root.diagonal().log().sum()) + math.log(n - 1)
    found = []
    for some in torch.arange(n)[:rows].split(_BLOCK):
        apart = torch.cdist(z[some], z, compute_mode="donot_use_mm_for_euclid_dist")
        apart[torch.arange(len(some)), some] = math.inf
        found.append(torch.logsumexp(-0.5 * apart.square(), dim=1))
    return torch.cat(found) - constant
