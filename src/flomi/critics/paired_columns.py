"""Local critics side by side, for columns that go together in pairs: signals and their noisy copies, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flomi.critics.base import SETTINGS as TRUNCATION
from flomi.critics.base import Critic, PairScorer, rebuilt, under
from flomi.critics.kernel_density import LocalCritic
from flomi.critics.screen import binned, divergence, shares_of
from flomi.preprocess import RankNormal
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class PairedColumnsSettings:
    bins: int = setting(8, f"{UNMEASURED}of a column, equally full, in the test of two columns")
    pairs: int = setting(10, f"{UNMEASURED}of columns at most, for their time")
    significant: float = setting(
        4.0,
        f"{UNMEASURED}standard deviations of a pair's statistic under independence, beyond which it counts",
    )
    beyond: float = setting(
        1.5, f"{UNMEASURED}the same beyond sqrt(2 log N), the size that the largest of N pairs has by chance"
    )
    atom: float = setting(
        0.05, f"{UNMEASURED}share of the rows that one value of a continuous column may have"
    )
    log_nu: tuple[float, float] = setting(
        (0.0, 4.0),
        f"{UNMEASURED}logarithms of the degrees of freedom of the one Student copula that is tried",
    )


SETTINGS = PairedColumnsSettings()


class MatchedCritic(Critic):
    r"""Sum of the `LocalCritic`s of matched columns, less the constant that normalises it: g = PMI if the pairs are independent.

    .. math:: g(x, y) = \sum_k \mathrm{PMI}_k(x_{i_k}, y_{j_k}) - c

    Each dependence may have any shape. No column is in two pairs, and a column without a partner is left out, as is one with
    fewer than n/2 values, or one value in 5 % of the rows. u = -g.

    >>> x = torch.randn(2000, 2).double()
    >>> y = torch.cat([x[:, 1:].square(), x[:, :1].sin()], 1) + 0.1 * torch.randn(2000, 2)
    >>> MatchedCritic.fit(x, y).columns
    tensor([[0, 1],
            [1, 0]])
    """

    row = "matched"
    inner = 0

    columns: Tensor  # [k, 2]

    def __init__(self, parts: list[LocalCritic], **buffers: Tensor) -> None:
        super().__init__(**buffers)
        self.parts = nn.ModuleList(parts)
        self.splits = [1] * len(parts), [1] * len(parts)

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> MatchedCritic:
        columns = match_columns(x, y)
        parts = [LocalCritic.fit(x[:, [i]], y[:, [j]], estimate=False) for i, j in columns.tolist()]
        critic = cls(parts, columns=columns)
        if parts:
            a, b = critic.encode(x, y)
            some = critic.matrix(a[: TRUNCATION.rows], b[: TRUNCATION.rows])
            critic.truncate(some, critic.pairs(a, b), least_shift=-math.inf)
        return critic

    @classmethod
    def restore(cls, state: dict[str, Tensor], sizes: dict[str, Any]) -> MatchedCritic:
        parts = [rebuilt(LocalCritic, under(state, f"parts.{k}.")) for k in range(len(state["columns"]))]
        return cls(parts, **{name: value for name, value in state.items() if "." not in name})

    def addends(self) -> Sequence[PairScorer]:
        return self.parts  # type: ignore[return-value]

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        codes = [
            part.encode(x[:, [i]], y[:, [j]])
            for part, (i, j) in zip(self.addends(), self.columns.tolist(), strict=True)
        ]
        return torch.cat([x[:, :0], *(a for a, _ in codes)], 1), torch.cat(
            [y[:, :0], *(b for _, b in codes)], 1
        )


def match_columns(x: Tensor, y: Tensor) -> Tensor:
    """[k, 2] columns of x and of y that go together, so that the sum of their MI is largest; none by chance.

    MI here is that of counts in `bins` equally full bins, and chance the chi-square law of 2 n MI with (bins - 1)^2 degrees of
    freedom. Where that law also holds for the distance of every pair from a Gaussian copula, or of all columns of x and y from
    one Student copula, none is returned: a formula explains them.
    """
    from scipy.optimize import linear_sum_assignment

    bins = SETTINGS.bins
    scores = [RankNormal.fit(side)(side) for side in (x, y)]
    shares = shares_of(*(binned(z, bins) for z in scores))
    expected = shares.sum(3, keepdim=True) * shares.sum(2, keepdim=True)  # [dx, dy, bins of x, bins of y]
    mi = divergence(shares, expected)
    for axis, side in enumerate((x, y)):  # a kernel density of values that repeat is no density
        mi.index_fill_(axis, (~_smooth(side)).nonzero().flatten(), 0.0)
    i, j = (torch.as_tensor(v) for v in linear_sum_assignment(-mi.numpy()))
    freedom = (bins - 1) ** 2
    significant = max(SETTINGS.significant, math.sqrt(2 * math.log(mi.numel())) + SETTINGS.beyond)
    chance = (freedom + significant * math.sqrt(2 * freedom)) / (2 * len(x))
    keep = mi[i, j] > chance
    rho = torch.corrcoef(torch.cat(scores, 1).T)[i, j + x.shape[1]]
    if keep.any() and (
        (divergence(shares[i, j], _shares(rho, math.inf)) <= chance)[keep].all()
        or _one_student(shares.flatten(0, 1), shares[i, j][keep], chance)
    ):
        keep = torch.zeros_like(keep)
    most = min(SETTINGS.pairs, int(keep.sum()))
    best = mi[i, j].masked_fill(~keep, -1.0).argsort(descending=True)[:most].sort().values
    return torch.stack([i[best], j[best]], 1)


def _smooth(side: Tensor) -> Tensor:
    """[d] whether a column has many values, and no value many rows."""
    counts = [column.unique(return_counts=True)[1] for column in side.T]
    n = len(side)
    return torch.tensor([2 * len(c) > n and int(c.max()) <= max(1.0, SETTINGS.atom * n) for c in counts])


def _one_student(tables: Tensor, paired: Tensor, chance: float) -> bool:
    """Whether one Student copula explains the tables of all pairs of columns: independent pairs with tails of their own fail."""
    from scipy.optimize import minimize_scalar

    def distance(p: Tensor, nu: float) -> Tensor:
        half = (
            SETTINGS.bins // 2
        )  # both above their medians, or both below, in 1/2 + arcsin(rho) / pi of all rows
        same = p[:, :half, :half].sum((-2, -1)) + p[:, half:, half:].sum((-2, -1))
        return divergence(p, _shares(torch.sin(math.pi * (same - 0.5)), nu))

    best = minimize_scalar(
        lambda v: float(distance(paired, math.exp(v)).sum()),
        bounds=SETTINGS.log_nu, method="bounded", options={"xatol": 0.02},
    )  # fmt: skip
    nu = math.exp(best.x)
    return bool((distance(paired, nu) <= chance).all() and (distance(tables, nu) <= chance).all())


def _shares(rho: Tensor, nu: float) -> Tensor:
    """[k, bins, bins] shares of a Student copula (Gaussian for infinite nu) in equally full bins, by the midpoint rule in x."""
    from scipy import special

    bins, fine = SETTINGS.bins, 32
    centres, edges = (np.arange(bins * fine) + 0.5) / (bins * fine), np.arange(bins + 1) / bins
    r = rho.numpy().astype(float).clip(-0.9999, 0.9999)[:, None, None]
    if math.isinf(nu):
        below = special.ndtr(
            (special.ndtri(edges) - r * special.ndtri(centres)[:, None]) / np.sqrt(1 - r * r)
        )
    else:
        x, e = special.stdtrit(nu, centres)[:, None], special.stdtrit(nu, edges)
        e[0] = -math.inf  # scipy 1.17 says inf
        spread = np.sqrt((1 - r * r) * (nu + x * x) / (nu + 1))
        below = special.stdtr(nu + 1, (e - r * x) / spread)
    shares = np.diff(below).reshape(len(r), bins, fine, bins).mean(2) / bins
    return torch.as_tensor(shares).to(rho)
