"""A critic for two discrete sides: the table of how often each value of x meets each of y."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flomi.critics.base import Critic, Formula
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class ContingencySettings:
    cells: int = setting(4_000_000, "of a table at most: 32 MB")
    cells_per_row: float = setting(
        1.0, f"{UNMEASURED}degrees of freedom of the table a row, up to which a table competes"
    )
    mixed: tuple[float, ...] = setting(
        (0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0),
        f"{UNMEASURED}shares of independence that are tried; 1 finds nothing",
    )


SETTINGS = ContingencySettings()


class ContingencyCritic(Critic):
    r"""Log ratio of the shares of a table, drawn towards independence; g = PMI, u = -g.

    .. math:: e^{g(x, y)} = (1 - \lambda) \, \frac{n \, n_{ij}}{n_i \, n_j} + \lambda, \qquad x = x_i, \ y = y_j

    A value is a whole row of its side, [dim_x] or [dim_y]; a pair of values that never met has g = log lambda, and one with a
    value that the fit has not seen 0. This adds n lambda / (1 - lambda) rows of the independent table to the data, as many
    as make the rows most likely when each is left out. The ratio averages 1 over the margins at any lambda, so that g is not
    truncated. `formula` is Grassberger's estimate; the distance from that of Miller and Madow is the error of the correction.
    x: [n, dim_x], y: [n, dim_y]; tables of more than four million cells are a ValueError.
    References: Grassberger 2003, "Entropy estimates from insufficient samplings"; Miller 1955.

    >>> x = torch.arange(1200.0)[:, None] % 4
    >>> y = torch.where(x < 2, 0.0, 1.0)
    >>> abs(ContingencyCritic.fit(x, y).formula.mi - math.log(2)) < 0.002
    True
    """

    row = "table"

    levels_x: Tensor  # [I, dim_x], the values of x
    levels_y: Tensor  # [J, dim_y]
    log_ratio: Tensor  # [I + 1, J + 1], the last of each for values not seen

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> ContingencyCritic:
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise ValueError(
                f"x and y must be [n, d] with the same n, found {list(x.shape)} and {list(y.shape)}"
            )
        (levels_x, i), (levels_y, j) = (v.unique(dim=0, return_inverse=True) for v in (x, y))
        shape = len(levels_x), len(levels_y)
        if math.prod(shape) > SETTINGS.cells:
            raise ValueError(
                f"x and y take {shape[0]:,} and {shape[1]:,} different values, too many for a table; use another critic"
            )
        counts = torch.bincount(i * shape[1] + j, minlength=math.prod(shape)).unflatten(0, shape).double()
        expected = counts.sum(1, keepdim=True) * counts.sum(0) / len(x)
        log_ratio = torch.zeros(shape[0] + 1, shape[1] + 1).to(x)
        log_ratio[:-1, :-1] = _drawn(counts, expected, _left_out(counts, expected)).log()
        critic = cls(levels_x=levels_x, levels_y=levels_y, log_ratio=log_ratio)
        critic.formula = _formula(counts, (counts / expected)[i, j].log())
        return critic

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return _place(x, self.levels_x), _place(y, self.levels_y)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        g: Tensor = self.log_ratio[a[..., 0].long(), b[..., 0].long()]
        return g

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        g: Tensor = self.log_ratio[a[:, 0].long()][:, b[:, 0].long()]
        return g


def _place(rows: Tensor, levels: Tensor) -> Tensor:
    """[n, 1] which of the levels each row is; of one that is none their number."""
    which = torch.cat([levels, rows]).unique(dim=0, return_inverse=True)[1]
    known = which.new_full((int(which.max()) + 1,), len(levels))
    known[which[: len(levels)]] = torch.arange(len(levels), device=which.device)
    place: Tensor = known[which[len(levels) :]]
    return place.to(rows)[:, None]


def _drawn(counts: Tensor, expected: Tensor, independent: float) -> Tensor:
    return (1 - independent) * counts / expected + independent


def _left_out(counts: Tensor, expected: Tensor) -> float:
    """The share of independence by which rows are most likely when left out of their cell."""
    met = counts > 0
    seen, rest, n = counts[met], expected[met], float(counts.sum())

    def height(independent: float) -> float:
        return float(seen @ _drawn((seen - 1) * n / (n - 1), rest, independent).log())

    return max(reversed(SETTINGS.mixed), key=height)


def _formula(counts: Tensor, pmi: Tensor) -> Formula:
    """MI of a table [I, J], less the bias of what is plugged in; pmi [n] that of the rows by their shares."""
    n, plug_in = len(pmi), float(pmi.mean())
    parts = counts.sum(1), counts.sum(0), counts[counts > 0]
    of_x, of_y, of_both = (_grassberger(c, n) for c in parts)
    mi = of_x + of_y - of_both
    freedom = len(parts[2]) - len(parts[0]) - len(parts[1]) + 1
    # of independent sides 2 n MI is chi-square: the shares' spread is freedom / n there, and twice that the spread of MI
    spread = max(0.0, float(pmi.var()) - max(freedom, 0) / n)
    return Formula.of_rows(
        mi, plug_in - mi, "table of all pairs of values, with Grassberger's small-sample correction", pmi,
        sampling=math.sqrt(spread / n), second_order=math.sqrt(max(freedom, 0) / 2) / n,
        model=abs(plug_in - freedom / (2 * n) - mi),
    )  # fmt: skip


def _grassberger(counts: Tensor, n: int) -> float:
    r"""Entropy from counts c above 0, log n less the mean over rows of

    .. math:: \psi(c) + \frac{(-1)^c}{2} \big( \psi(\tfrac{c + 1}{2}) - \psi(\tfrac c2) \big)
    """
    sign = 1 - 2 * (counts % 2)
    g = torch.digamma(counts) + sign / 2 * (torch.digamma((counts + 1) / 2) - torch.digamma(counts / 2))
    return math.log(n) - float(counts @ g) / n
