"""Which columns of x go with which of y: a screen of all pairs, and of two columns against one, whose finds become features.

Among many columns that say nothing, a flexible model of all sees only noise; of the few that a screen finds it sees their law.
The screen looks at counts in equally full bins, so any shape of dependence shows, behind any monotone map of the columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from flomi.preprocess import RankNormal
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class ScreenSettings:
    bins: tuple[int, ...] = setting((4, 8), f"{UNMEASURED}of a column, equally full, against one other")
    coarse: int = setting(3, "of a column, where two stand against one: 27 cells, of 37 rows each at 1,000")
    coarse_rows: int = setting(2000, f"{UNMEASURED}that two columns against one look at, for their time")
    coarse_columns: int = setting(
        60, "of a side, up to which all of its pairs of columns are looked at: 1,770 take 0.2 s"
    )
    beyond: float = setting(
        1.0,
        "standard deviations beyond sqrt(2 log N), the size that the largest of N standard normals has: chance alone passes in "
        "about one screen of ten",
    )
    columns: int = setting(6, f"{UNMEASURED}of a side at most, strongest first")


SETTINGS = ScreenSettings()
PAIRS = 2**17  # tables at a time: 32 MB of 8 by 8 cells


def choose_columns(x: Tensor, y: Tensor) -> tuple[list[int], list[int]]:
    """Columns of x and of y that go together more than chance explains, strongest first, at most six a side; both may be empty.

    A column counts if its counts with one of the other side, in 4 or 8 equally full bins, depart from independence (the G
    statistic, 2 n times the MI of the counts), or if two columns of a side say more of one of the other than each alone does.
    x: [n, dim_x], y: [n, dim_y], float64.

    >>> x = torch.randn(1000, 20, dtype=torch.float64)
    >>> choose_columns(x, (x[:, 3] * x[:, 7])[:, None].sign() + 0.1 * torch.randn(1000, 1))
    ([3, 7], [0])
    """
    scores = [RankNormal.fit(side)(side) for side in (x, y)]
    finds: list[tuple[float, list[int], list[int]]] = []
    excess = torch.stack([_of_pairs(scores[0], scores[1], bins) for bins in SETTINGS.bins]).amax(0)
    finds += [
        (float(excess[i, j]), [i], [j])
        for i, j in _beyond_chance(excess, len(SETTINGS.bins) * excess.numel())
    ]
    for u, v, first in ((scores[0], scores[1], True), (scores[1], scores[0], False)):
        two, excess = _of_two_with_one(u, v)
        for k, one in _beyond_chance(excess, excess.numel()):
            sides = (two[k].tolist(), [one]) if first else ([one], two[k].tolist())
            finds.append((float(excess[k, one]), *sides))
    finds.sort(key=lambda find: -find[0])
    chosen: tuple[list[int], list[int]] = ([], [])
    copies = [_first_copy(z) for z in scores]
    for _, of_x, of_y in finds:
        more = [
            sorted({copy[k] for k in side}.difference(known))
            for side, known, copy in zip((of_x, of_y), chosen, copies, strict=True)
        ]
        if all(len(known) + len(new) <= SETTINGS.columns for known, new in zip(chosen, more, strict=True)):
            for known, new in zip(chosen, more, strict=True):
                known += new
    return chosen


def _first_copy(z: Tensor) -> list[int]:
    """Of each column the first one with the same scores, itself if there is none: a copy is no second feature."""
    known: dict[bytes, int] = {}
    return [known.setdefault(column.contiguous().numpy().tobytes(), k) for k, column in enumerate(z.T)]


def binned(z: Tensor, bins: int) -> Tensor:
    """[n, d, bins] in which of so many equally full bins each normal score [n, d] lies, one-hot, single precision."""
    place: Tensor = (torch.special.ndtr(z) * bins).long().clamp(0, bins - 1)
    return one_hot(place, bins).float()


def shares_of(a: Tensor, b: Tensor) -> Tensor:
    """[p, q, A, B] the shares of rows in each pair of cells, of one-hot a [n, p, A] and b [n, q, B]."""
    shares = a.flatten(1).T @ b.flatten(1) / len(a)
    tables: Tensor = shares.reshape(a.shape[1], a.shape[2], b.shape[1], b.shape[2]).permute(0, 2, 1, 3)
    return tables


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """Kullback-Leibler divergence of tables, the last two axes."""
    terms: Tensor = torch.where(p > 0, p * (p / q.clamp(min=1e-30)).log(), 0.0)
    return terms.sum((-2, -1))


def _information(shares: Tensor) -> tuple[Tensor, Tensor]:
    """MI of each table, the last two axes, and the degrees of freedom of its filled rows and columns."""
    rows, columns = shares.sum(-1, keepdim=True), shares.sum(-2, keepdim=True)
    freedom = ((rows > 0).sum((-2, -1)) - 1) * ((columns > 0).sum((-2, -1)) - 1)
    return divergence(shares, rows * columns), freedom.clamp(min=1)


def _as_normal(g: Tensor, freedom: Tensor) -> Tensor:
    """A chi-square statistic as a standard normal one, by the cube root of Wilson and Hilferty (1931)."""
    part = 2 / (9 * freedom)
    z: Tensor = ((g.clamp(min=0) / freedom) ** (1 / 3) - (1 - part)) / part.sqrt()
    return z


def _of_pairs(x: Tensor, y: Tensor, bins: int) -> Tensor:
    a, b = binned(x, bins), binned(y, bins)
    parts = a.split(
        max(1, PAIRS // y.shape[1]), 1
    )  # tables of all pairs of thousands of columns are gigabytes
    return torch.cat(
        [
            _as_normal(2 * len(x) * mi, freedom)
            for mi, freedom in (_information(shares_of(p, b)) for p in parts)
        ]
    )


def _of_two_with_one(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """[k, 2] pairs of columns of u, and [k, columns of v] what they say of v beyond what each says alone."""
    two = torch.combinations(torch.arange(u.shape[1]))
    if not 2 <= u.shape[1] <= SETTINGS.coarse_columns:
        return two[:0], torch.zeros(0, v.shape[1])
    u, v = u[: SETTINGS.coarse_rows], v[: SETTINGS.coarse_rows]
    a, b = binned(u, SETTINGS.coarse), binned(v, SETTINGS.coarse)
    alone, _ = _information(shares_of(a, b))
    found = []
    for some in two.split(200):
        both = (a[:, some[:, 0], :, None] * a[:, some[:, 1], None, :]).flatten(2)
        beyond = _information(shares_of(both, b))[0] - alone[some].sum(1)
        found.append(_as_normal(2 * len(u) * beyond, torch.tensor((SETTINGS.coarse - 1.0) ** 3)))
    return two, torch.cat(found)


def _beyond_chance(excess: Tensor, count: int) -> list[tuple[int, int]]:
    limit = math.sqrt(2 * math.log(max(count, 2))) + SETTINGS.beyond
    return [(int(i), int(j)) for i, j in (excess > limit).nonzero()]
