"""Local critics side by side, for columns that go together in pairs: signals and their noisy copies, before and after."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from flomi.critics.copula import CAP_ROWS, highest
from flomi.critics.kernel_density import LocalCritic
from flomi.preprocess import RankNormal

__all__ = ["MatchedCritic", "match_columns"]

_BINS = 8  # a column, equally full
_MOST = 10  # pairs of columns
_SIGNIFICANT = 4.0  # standard deviations of a pair's statistic under independence


class MatchedCritic(nn.Module):
    r"""Sum of the `LocalCritic`s of matched columns, less the constant that normalises it: g = PMI if the pairs are independent.

    .. math:: g(x, y) = \sum_k \mathrm{PMI}_k(x_{i_k}, y_{j_k}) - c

    Each dependence may have any shape. No column is in two pairs, and a column without a partner is left out. u = -g.

    >>> x = torch.randn(2000, 2).double()
    >>> y = torch.cat([x[:, 1:].square(), x[:, :1].sin()], 1) + 0.1 * torch.randn(2000, 2)
    >>> MatchedCritic.fit(x, y).columns
    tensor([[0, 1],
            [1, 0]])
    """

    columns: Tensor
    shift: Tensor
    high: Tensor

    def __init__(self, parts: list[LocalCritic], *, columns: Tensor, shift: Tensor, high: Tensor) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.register_buffer("columns", columns)  # [k, 2]
        self.register_buffer("shift", shift)
        self.register_buffer("high", high)  # no pair of rows scores more

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> MatchedCritic:
        columns = match_columns(x, y)
        parts = [LocalCritic.fit(x[:, [i]], y[:, [j]], estimate=False) for i, j in columns.tolist()]
        critic = cls(parts, columns=columns, shift=torch.tensor(0.0).to(x), high=torch.tensor(math.inf).to(x))
        if not parts:
            return critic
        some = critic.matrix(*critic.encode(x[:CAP_ROWS], y[:CAP_ROWS]))
        n = len(some)
        off = some.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()
        critic.shift = off.logsumexp(0) - math.log(len(off))
        critic.high = highest(some - critic.shift, critic(x, y))
        return critic

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        codes = [
            part.encode(x[:, [i]], y[:, [j]])  # type: ignore[operator]
            for part, (i, j) in zip(self.parts, self.columns.tolist(), strict=True)
        ]
        empty = x.new_zeros(len(x), 0), y.new_zeros(len(y), 0)
        return torch.cat([empty[0], *(a for a, _ in codes)], 1), torch.cat(
            [empty[1], *(b for _, b in codes)], 1
        )

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        start = (a[..., :0].sum(-1) + b[..., :0].sum(-1)).to(self.shift)  # 0, in the shape of both
        return self._sum([part.pairs(a[..., [k]], b[..., [k]]) for k, part in enumerate(self.parts)], start)  # type: ignore[operator]

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        start = torch.zeros(len(a), len(b)).to(self.shift)
        return self._sum([part.matrix(a[:, [k]], b[:, [k]]) for k, part in enumerate(self.parts)], start)  # type: ignore[operator]

    def _sum(self, scores: list[Tensor], start: Tensor) -> Tensor:
        return (sum(scores, start) - self.shift).clamp(max=self.high)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        g = self.pairs(a, b)
        return g, -g

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.pairs(*self.encode(x, y))


def match_columns(x: Tensor, y: Tensor) -> Tensor:
    """[k, 2] columns of x and of y that go together, so that the sum of their MI is largest; none by chance.

    MI here is that of counts in `_BINS` equally full bins, and chance the chi-square law of 2 n MI with (bins - 1)^2 degrees
    of freedom. Where that law also holds for the distance of every pair from a Gaussian copula, or of all columns of x and y from
    one Student copula, none is returned: a formula explains them.
    """
    from scipy.optimize import linear_sum_assignment

    scores = [RankNormal.fit(side)(side) for side in (x, y)]
    ones = [
        nn.functional.one_hot((torch.special.ndtr(z) * _BINS).long().clamp(0, _BINS - 1), _BINS)
        .float()
        .flatten(1)
        for z in scores
    ]
    shares = (
        (ones[0].T @ ones[1] / len(x)).unflatten(0, (-1, _BINS)).unflatten(2, (-1, _BINS)).permute(0, 2, 1, 3)
    )
    expected = shares.sum(3, keepdim=True) * shares.sum(2, keepdim=True)  # [dx, dy, bins of x, bins of y]
    mi = _divergence(shares, expected)
    i, j = (torch.as_tensor(v) for v in linear_sum_assignment(-mi.numpy()))
    freedom = (_BINS - 1) ** 2
    chance = (freedom + _SIGNIFICANT * math.sqrt(2 * freedom)) / (2 * len(x))
    keep = mi[i, j] > chance
    rho = torch.stack(
        [
            torch.corrcoef(torch.stack([scores[0][:, k], scores[1][:, m]]))[0, 1]
            for k, m in zip(i, j, strict=True)
        ]
    )
    if keep.any() and (
        (_divergence(shares[i, j], _shares(rho, math.inf)) <= chance)[keep].all()
        or _one_student(shares.flatten(0, 1), shares[i, j][keep], chance)
    ):
        keep = torch.zeros_like(keep)
    best = (
        mi[i, j]
        .masked_fill(~keep, -1.0)
        .argsort(descending=True)[: min(_MOST, int(keep.sum()))]
        .sort()
        .values
    )
    return torch.stack([i[best], j[best]], 1)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Kullback-Leibler divergence of tables, the last two axes."""
    return torch.where(p > 0, p * (p / q.clamp(min=1e-30)).log(), 0.0).sum((-2, -1))


def _one_student(tables: Tensor, matched: Tensor, chance: float) -> bool:
    """Whether one Student copula explains the tables of all pairs of columns: independent pairs with tails of their own fail."""
    from scipy.optimize import minimize_scalar

    def apart(p: Tensor, nu: float) -> Tensor:
        half = _BINS // 2  # both above their medians, or both below, in 1/2 + arcsin(rho) / pi of all rows
        same = p[:, :half, :half].sum((-2, -1)) + p[:, half:, half:].sum((-2, -1))
        return _divergence(p, _shares(torch.sin(math.pi * (same - 0.5)), nu))

    best = minimize_scalar(
        lambda v: float(apart(matched, math.exp(v)).sum()),
        bounds=(0.0, 4.0), method="bounded", options={"xatol": 0.02},
    )  # fmt: skip
    nu = math.exp(best.x)
    return bool((apart(matched, nu) <= chance).all() and (apart(tables, nu) <= chance).all())


def _shares(rho: Tensor, nu: float) -> Tensor:
    """[k, bins, bins] shares of a Student copula (Gaussian for infinite nu) in equally full bins, by the midpoint rule in x."""
    from scipy import special

    fine = 32
    middle, edges = (np.arange(_BINS * fine) + 0.5) / (_BINS * fine), np.arange(_BINS + 1) / _BINS
    r = rho.numpy().astype(float).clip(-0.9999, 0.9999)[:, None, None]
    if math.isinf(nu):
        below = special.ndtr((special.ndtri(edges) - r * special.ndtri(middle)[:, None]) / np.sqrt(1 - r * r))
    else:
        x, e = special.stdtrit(nu, middle)[:, None], special.stdtrit(nu, edges)
        e[0] = -math.inf  # scipy 1.17 says inf
        spread = np.sqrt((1 - r * r) * (nu + x * x) / (nu + 1))
        below = special.stdtr(nu + 1, (e - r * x) / spread)
    shares = np.diff(below).reshape(len(r), _BINS, fine, _BINS).mean(2) / _BINS
    return torch.as_tensor(shares).to(rho)
