"""Kernel densities: a local critic for one column against one, and the plain estimator by row.

The critic is an adaptive density ratio on a grid, with a nearest-neighbour estimate beside it. It assumes nothing about the
shape of the dependence (edges, rings, waves), where a formula is wrong and a network slow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flomi.critics.base import Critic, Formula
from flomi.critics.nearest_neighbours import BLOCK, ksg
from flomi.preprocess import RankNormal
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class LocalSettings:
    edge: float = setting(
        4.5, "normal scores: where the grid ends, as 300,000 normal rows do; scores beyond count as there"
    )
    nodes: int = setting(
        513, "of the grid a side: 0.018 normal scores apart, finer than the kernels of 20,000 rows"
    )
    floor: float = setting(0.01, f"{UNMEASURED}share of independence mixed in, so that no pair is impossible")
    neighbours: tuple[int, ...] = setting((8, 24, 80), f"{UNMEASURED}whose distances are the widths tried")
    scored: int = setting(500, f"{UNMEASURED}rows whose left-out likelihood chooses the width, for its time")
    rows: int = setting(20_000, f"{UNMEASURED}that the densities are made of, for their time")
    least_rows: int = setting(100, f"{UNMEASURED}below which the widest kernel would take all rows in")
    nearest: int = setting(5, f"{UNMEASURED}neighbour whose distance counts in the estimate")
    noise: float = setting(
        5.0,
        "times that the neighbours' own noise counts in the variance of 2 I_n - I_{n/4}: 4 for the first and 1 for the second "
        "term, as if the two were independent",
    )
    moved: float = setting(0.25, f"{UNMEASURED}share of what the extrapolation moved that counts as an error")


SETTINGS = LocalSettings()


class LocalCritic(Critic):
    r"""Log ratio of kernel densities on normal scores, for x and y of one column each; g = PMI, u = -g.

    .. math:: e^{g(x, y)} = 0.99 \, \frac{n \sum_l K_l(x - x_l) K_l(y - y_l)}{\sum_l K_l(x - x_l) \, \sum_l K_l(y - y_l)} + 0.01

    K_l is Gaussian, half as wide as the distance from row l to its k-th neighbour (one node or more), k by left-out likelihood.
    The margins are the joint density's own, so the ratio averages 1 over them. Its log is tabulated on a grid and interpolated.
    References: Abramson 1982 (adaptive widths); Kraskov, Stoegbauer, Grassberger 2004 for `formula`.

    >>> x = torch.randn(2000, 1)
    >>> y = torch.where(torch.rand(2000, 1) < 0.5, x, -x) + 0.1 * torch.randn(2000, 1)  # a cross: no correlation
    >>> 1.2 < float(LocalCritic.fit(x, y)(x, y).mean()) < 1.9
    True
    """

    row = "local"
    submodules = (("ranks_x", RankNormal), ("ranks_y", RankNormal))

    ranks_x: RankNormal
    ranks_y: RankNormal
    table: Tensor  # [nodes, nodes], log ratio

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, *, estimate: bool = True) -> LocalCritic:
        """`estimate` says whether `formula` is wanted too."""
        if x.ndim != 2 or x.shape[1] != 1 or y.shape != x.shape or len(x) < SETTINGS.least_rows:
            found, least = f"{list(x.shape)} and {list(y.shape)}", SETTINGS.least_rows
            raise ValueError(
                f"x and y must have one column each and at least {least} rows, found {found}; use another critic"
            )
        from scipy.spatial import cKDTree

        ranks = RankNormal.fit(x), RankNormal.fit(y)
        every = torch.cat([r(v) for r, v in zip(ranks, (x, y), strict=True)], 1)
        z = every[: SETTINGS.rows]
        distance, _ = cKDTree(z.double().numpy()).query(
            z.double().numpy(), [k + 1 for k in SETTINGS.neighbours]
        )
        z = z.float()  # kernels need no more digits, and cost half as much
        widths = torch.as_tensor(distance / 2).to(z).clamp(min=2 * SETTINGS.edge / (SETTINGS.nodes - 1))
        some = torch.arange(0, len(z), max(1, len(z) // SETTINGS.scored))
        best = max(widths.T, key=lambda h: _left_out(z, h, some))
        nodes = torch.linspace(-SETTINGS.edge, SETTINGS.edge, SETTINGS.nodes).to(z)
        a, b = (_kernel(nodes, z[:, i], best) for i in (0, 1))
        mean_a, mean_b = a.mean(1, keepdim=True).clamp(min=1e-30), b.mean(1, keepdim=True).clamp(min=1e-30)
        ratio = a.div_(mean_a) @ b.div_(mean_b).T / len(z)
        critic = cls(ranks_x=ranks[0], ranks_y=ranks[1], table=_log_with_floor(ratio))
        if estimate:
            critic.formula = nearest_neighbour_mi(every)
        return critic

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        edge, last = SETTINGS.edge, SETTINGS.nodes - 1
        place = last / (2 * edge)
        z = self.ranks_x(x), self.ranks_y(y)
        a, b = (((v.clamp(-edge, edge) + edge) * place).clamp(max=last - 0.001) for v in z)
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


def _kernel(at: Tensor, centers: Tensor, widths: Tensor) -> Tensor:
    """Gaussian kernels, [at, centers], cut off before denormal numbers; their common constant cancels from the ratio."""
    # in place: each temporary is as large as the result, and new memory costs more than the arithmetic
    exponent = (at[:, None] - centers).div_(widths).square_().mul_(-0.5)
    return exponent.clamp_(min=-60).exp_().div_(widths)


def _left_out(z: Tensor, widths: Tensor, rows: Tensor) -> float:
    """Mean log ratio of some rows, each left out of the densities that score it."""
    a, b = (_kernel(z[rows, i], z[:, i], widths) for i in (0, 1))
    a[torch.arange(len(rows)), rows] = 0
    expected = (a.sum(1) * b.sum(1)).clamp(min=1e-30)
    ratio = (len(z) - 1) * a.mul_(b).sum(1) / expected
    return float(_log_with_floor(ratio).mean())


def _log_with_floor(ratio: Tensor) -> Tensor:
    return ((1 - SETTINGS.floor) * ratio + SETTINGS.floor).log()


def nearest_neighbour_mi(z: Tensor, k: int = SETTINGS.nearest) -> Formula:
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
    return Formula.of_rows(
        plain + moved, -moved, f"{k} nearest neighbours, extrapolated in the number of rows", local,
        sampling=math.sqrt(float(local.var()) / n), second_order=math.sqrt((SETTINGS.noise - 1) * noise / n),
        model=SETTINGS.moved * abs(moved),
    )  # fmt: skip


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


def _log_density(v: Tensor, rows: int | None) -> Tensor:
    """Log density at each of the first rows, made of all others."""
    n, d = v.shape
    root = torch.linalg.cholesky(torch.cov(v.T).reshape(d, d)) * n ** (-1 / (d + 4))
    z = torch.linalg.solve_triangular(root, (v - v.mean(0)).T, upper=False).T.contiguous()
    constant = d / 2 * math.log(2 * math.pi) + float(root.diagonal().log().sum()) + math.log(n - 1)
    found = []
    for some in torch.arange(n)[:rows].split(BLOCK):
        distance = torch.cdist(z[some], z, compute_mode="donot_use_mm_for_euclid_dist")
        distance[torch.arange(len(some)), some] = math.inf
        found.append(torch.logsumexp(-0.5 * distance.square(), dim=1))
    return torch.cat(found) - constant
