"""A local critic for one column against one: an adaptive kernel density ratio on a grid, with a nearest-neighbour estimate.

It assumes nothing about the shape of the dependence (edges, rings, waves), where a formula is wrong and a network slow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from flomi.critics.copula import InSample
from flomi.critics.nearest_neighbours import ksg
from flomi.preprocess import RankNormal

__all__ = ["LocalCritic", "nearest_neighbour_mi"]

_EDGE, _NODES = 4.5, 513  # the grid, in normal scores: nodes 0.018 apart
_FLOOR = 0.01  # share of independence mixed in, so that no pair is impossible
_NEIGHBOURS = (8, 24, 80)  # widths tried
_JUDGED = 500  # rows that choose among them
_MOST = 20_000  # rows that the densities are made of


class LocalCritic(nn.Module):
    r"""Log ratio of kernel densities on normal scores, for x and y of one column each; g = PMI, u = -g.

    .. math:: e^{g(x, y)} = 0.99 \, \frac{n \sum_l K_l(x - x_l) K_l(y - y_l)}{\sum_l K_l(x - x_l) \, \sum_l K_l(y - y_l)} + 0.01

    K_l is Gaussian, half as wide as the distance from row l to its k-th neighbour (one node or more), k by left-out likelihood.
    The margins are the joint density's own, so the ratio averages 1 over them. Its log is tabulated on a grid and interpolated.
    References: Abramson 1982 (adaptive widths); Kraskov, Stoegbauer, Grassberger 2004 for `in_sample`.

    >>> x = torch.randn(2000, 1)
    >>> y = torch.where(torch.rand(2000, 1) < 0.5, x, -x) + 0.1 * torch.randn(2000, 1)  # a cross: no correlation
    >>> 1.2 < float(LocalCritic.fit(x, y)(x, y).mean()) < 1.9
    True
    """

    table: Tensor
    in_sample: InSample

    def __init__(self, ranks_x: RankNormal, ranks_y: RankNormal, *, table: Tensor) -> None:
        super().__init__()
        self.ranks_x, self.ranks_y = ranks_x, ranks_y
        self.register_buffer("table", table)  # [nodes, nodes], log ratio

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, *, estimate: bool = True) -> LocalCritic:
        """`estimate` says whether `in_sample` is wanted too."""
        if x.ndim != 2 or x.shape[1] != 1 or y.shape != x.shape or len(x) < 100:
            raise ValueError(
                f"x and y must have one column each and at least 100 rows, found {list(x.shape)} and {list(y.shape)}; "
                "use another critic"
            )
        from scipy.spatial import cKDTree

        ranks = RankNormal.fit(x), RankNormal.fit(y)
        every = torch.cat([r(v) for r, v in zip(ranks, (x, y), strict=True)], 1)
        z = every[:_MOST]
        distance, _ = cKDTree(z.double().numpy()).query(z.double().numpy(), [k + 1 for k in _NEIGHBOURS])
        z = z.float()  # kernels need no more digits, and cost half as much
        widths = torch.as_tensor(distance / 2).to(z).clamp(min=2 * _EDGE / (_NODES - 1))
        judged = torch.arange(0, len(z), max(1, len(z) // _JUDGED))
        best = max(widths.T, key=lambda h: _left_out(z, h, judged))
        nodes = torch.linspace(-_EDGE, _EDGE, _NODES).to(z)
        a, b = (_kernel(nodes, z[:, i], best) for i in (0, 1))
        mean_a, mean_b = a.mean(1, keepdim=True).clamp(min=1e-30), b.mean(1, keepdim=True).clamp(min=1e-30)
        ratio = a.div_(mean_a) @ b.div_(mean_b).T / len(z)
        critic = cls(*ranks, table=((1 - _FLOOR) * ratio + _FLOOR).log())
        if estimate:
            critic.in_sample = nearest_neighbour_mi(every)
        return critic

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        place = (_NODES - 1) / (2 * _EDGE)
        z = self.ranks_x(x), self.ranks_y(y)
        a, b = (((v.clamp(-_EDGE, _EDGE) + _EDGE) * place).clamp(max=_NODES - 1.001) for v in z)
        return a, b

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = torch.broadcast_tensors(a[..., 0].to(self.table), b[..., 0].to(self.table))
        i, j = a.long(), b.long()
        part = b - j
        low, high = (torch.lerp(self.table[k, j], self.table[k, j + 1], part) for k in (i, i + 1))
        return torch.lerp(low, high, a - i)

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        """As `pairs` gives it, by whole rows of the table, which is faster."""
        a, b = a.to(self.table), b.to(self.table)
        i, j = a[:, 0].long(), b[:, 0].long()
        rows = torch.lerp(self.table[i], self.table[i + 1], a - i[:, None]).T.contiguous()
        return torch.lerp(rows[j], rows[j + 1], b - j[:, None]).T

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        g = self.pairs(a, b)
        return g, -g

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.pairs(*self.encode(x, y))


def _kernel(at: Tensor, centers: Tensor, widths: Tensor) -> Tensor:
    """Gaussian kernels, [at, centers], cut off before denormal numbers; their common constant cancels from the ratio."""
    # in place: each temporary is as large as the result, and new memory costs more than the arithmetic
    apart = (at[:, None] - centers).div_(widths).square_().mul_(-0.5)
    return apart.clamp_(min=-60).exp_().div_(widths)


def _left_out(z: Tensor, widths: Tensor, rows: Tensor) -> float:
    """Mean log ratio of some rows, each left out of the densities that score it."""
    a, b = (_kernel(z[rows, i], z[:, i], widths) for i in (0, 1))
    a[torch.arange(len(rows)), rows] = 0
    expected = (a.sum(1) * b.sum(1)).clamp(min=1e-30)
    ratio = (len(z) - 1) * a.mul_(b).sum(1) / expected
    return float(((1 - _FLOOR) * ratio + _FLOOR).log().mean())


def nearest_neighbour_mi(z: Tensor, k: int = 5) -> InSample:
    r"""MI of the two columns of z by nearest neighbours, extrapolated to infinitely many rows.

    .. math:: I_n = \psi(k) + \psi(n) - \langle \psi(n_x + 1) + \psi(n_y + 1) \rangle, \qquad I = 2 I_n - I_{n/4}

    where n_x counts the rows nearer in x than the k-th neighbour in (x, y), maximum norm. The bias falls like n^{-1/2} at
    edges of the support and is small elsewhere, so the second formula removes it. The standard error counts the
    sampling of the rows once, the noise of the neighbours five times (4 + 1), and a quarter of what the formula moved.
    """
    n = len(z)
    local = ksg(z[:, :1], z[:, 1:], k)
    quarter = torch.cat([ksg(z[i::4, :1], z[i::4, 1:], k) for i in range(4)])
    plain, moved = float(local.mean()), float(local.mean() - quarter.mean())
    noise = min(
        float(torch.special.polygamma(1, torch.tensor(float(k)))), float(local.var())
    )  # of the neighbours alone
    stderr = math.sqrt((float(local.var()) + 4 * noise) / n + moved**2 / 16)
    return InSample(
        plain + moved, stderr, -moved, f"{k} nearest neighbours, extrapolated in the number of rows"
    )
