"""Neighbours and kernels by row: against their formulas, and one way of counting against the other."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import digamma, logsumexp

from flomi import tasks
from flomi.critics import kernel_density, nearest_neighbours


def rows(name: str, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = tasks.get(name).sample(n, seed=0)
    return torch.from_numpy(x), torch.from_numpy(y)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("name", ["1v1-normal-0.75", "multinormal-sparse-3-3-2-2.0"])
def test_neighbours_by_tree_and_by_all_pairs_are_the_same(name: str, k: int) -> None:
    x, y = (
        v.float() for v in rows(name, 700)
    )  # the sums of the tree are exact then, and so are equal distances
    x, y = x.double(), y.double()
    for a, b in zip(
        nearest_neighbours._by_tree(x, y, k), nearest_neighbours._by_all_pairs(x, y, k), strict=True
    ):
        assert torch.equal(a, b)


def test_equal_rows_are_counted_alike() -> None:
    tied = torch.zeros(20, 1, dtype=torch.float64)
    assert torch.equal(
        torch.stack(nearest_neighbours._by_tree(tied, tied, 3)),
        torch.stack(nearest_neighbours._by_all_pairs(tied, tied, 3)),
    )


def test_ksg_is_its_formula() -> None:
    x, y = rows("multinormal-dense-2-2-0.5", 60)
    k, n = 3, len(x)
    found = nearest_neighbours.ksg(x, y, k)
    for i in range(n):
        of_x, of_y = ((v - v[i]).abs().amax(1) for v in (x, y))
        radius = torch.maximum(of_x, of_y).sort().values[k]
        n_x, n_y = (int((v < radius).sum()) - 1 for v in (of_x, of_y))
        assert float(found[i]) == pytest.approx(
            digamma(k) + digamma(n) - digamma(n_x + 1) - digamma(n_y + 1), abs=1e-12
        )


def test_kde_is_its_formula() -> None:
    x, y = rows("multinormal-dense-2-2-0.5", 40)

    def log_density(v: torch.Tensor, i: int) -> float:
        n, d = v.shape
        cov = torch.cov(v.T) * n ** (-2 / (d + 4))
        away = torch.cat([v[:i], v[i + 1 :]]) - v[i]
        square = (away @ torch.linalg.inv(cov) * away).sum(1)
        scale = d / 2 * math.log(2 * math.pi) + 0.5 * float(torch.logdet(cov)) + math.log(n - 1)
        return float(logsumexp(-square.numpy() / 2)) - scale

    found = kernel_density.kde(x, y)
    for i in (0, 17, 39):
        expected = log_density(torch.cat([x, y], 1), i) - log_density(x, i) - log_density(y, i)
        assert float(found[i]) == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(kernel_density.kde(x, y, rows=7), found[:7])
    torch.testing.assert_close(kernel_density.kde(3 * x + 1, y), found)  # units are not information


@pytest.mark.parametrize("estimate", [nearest_neighbours.ksg, kernel_density.kde])
def test_both_find_nothing_where_nothing_is(estimate) -> None:  # type: ignore[no-untyped-def]
    x, y = (torch.randn(1000, 3, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    assert abs(float(estimate(x, y).mean())) < 0.2
