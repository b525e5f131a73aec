"""MI by nearest neighbours, by row, of columns as they are."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["ksg"]

TREE_COLUMNS = 6  # up to here a tree finds neighbours faster than all distances do
BLOCK = 500  # rows whose distances to all others are in memory at a time


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
    few = x.shape[1] + y.shape[1] <= TREE_COLUMNS
    near_x, near_y = (_by_tree if few else _by_all_pairs)(x.double(), y.double(), k)
    psi_k, psi_n = torch.special.digamma(torch.tensor([k, len(x)], dtype=torch.float64))
    local: Tensor = psi_k + psi_n - torch.special.digamma(near_x) - torch.special.digamma(near_y)
    return local


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
    for rows in torch.arange(len(x)).split(BLOCK):
        distances = [torch.cdist(side[rows], side, p=math.inf) for side in (x, y)]
        radius = (
            torch.maximum(*distances).kthvalue(k + 1, dim=1, keepdim=True).values
        )  # the row itself is the first
        parts.append(torch.stack([(distance < radius).sum(1) for distance in distances]))
    return list(torch.cat(parts, 1).clamp(min=1).double())
