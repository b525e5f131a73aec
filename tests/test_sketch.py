"""The quantile sketch: exact while it holds everything, close in ranks beyond, the same however rows come."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flomi.data.sketch import QuantileSketch
from flomi.preprocess import RankNormal

RNG = np.random.default_rng(0)


def sketched(x: np.ndarray, size: int, step: int = 777) -> QuantileSketch:
    sketch = QuantileSketch(x.shape[1], size)
    for start in range(0, len(x), step):
        sketch.add(x[start : start + step])
    return sketch


def ranks_of(z: torch.Tensor) -> torch.Tensor:
    return torch.special.ndtr(z)


def columns(n: int) -> np.ndarray:
    """Gaussian, heavy-tailed, discrete."""
    a, b, c = RNG.normal(size=(3, n))
    return np.stack([a, np.sinh(3 * b), np.round(2 * c)], 1)


@pytest.mark.parametrize("n", [2, 10, 500, 999])
def test_nothing_is_lost_while_it_fits(n: int) -> None:
    x = columns(n)
    exact, ours = RankNormal.fit(torch.from_numpy(x)), sketched(x, 500).normal_scores()
    new = torch.from_numpy(columns(50))
    assert torch.equal(exact(new), ours(new))


@pytest.mark.parametrize("n", [1000, 1001, 70_003])
def test_ranks_stay_right(n: int) -> None:
    x = columns(n)
    sketch = sketched(x, 500)
    z = sketch.normal_scores()(torch.from_numpy(x))
    exact = RankNormal.fit(torch.from_numpy(x), max_knots=n)(torch.from_numpy(x))
    error = (ranks_of(z) - ranks_of(exact)).abs()
    assert float(error.max()) < 6 / (2 * 500)  # six standard deviations at most
    assert float(error.mean()) < 1 / 500
    # two blocks of a level at most, so memory grows with log n
    assert sum(block is not None for block in sketch.blocks) <= np.log2(n / 500) + 2


def test_the_order_in_which_rows_come_together_does_not_matter() -> None:
    x = columns(30_000)
    one, other = (sketched(x, 500, step).normal_scores().state_dict() for step in (30_000, 613))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_order_is_kept_and_the_ends_are_known() -> None:
    x = columns(50_000)[:, :1]
    ranks = sketched(x, 256).normal_scores()
    z = ranks(torch.from_numpy(np.sort(x, 0)))
    assert bool((z[1:] >= z[:-1]).all())
    assert float(ranks.knots[0, 0]) == x.min() and float(ranks.knots[0, -1]) == x.max()


def test_correlations_of_normal_scores_are_those_of_all_rows() -> None:
    a, b = RNG.normal(size=(2, 200_000))
    x = np.stack([a, 0.8 * a + 0.6 * b], 1)
    exact = np.corrcoef(RankNormal.fit(torch.from_numpy(x))(torch.from_numpy(x)).numpy().T)[0, 1]
    ours = np.corrcoef(sketched(np.exp(x), 8192).normal_scores()(torch.from_numpy(np.exp(x))).numpy().T)[0, 1]
    assert abs(ours - exact) < 1e-4


def test_errors() -> None:
    with pytest.raises(ValueError, match="at least one column"):
        QuantileSketch(0)
    with pytest.raises(ValueError, match=r"\[n, 2\], found \[3, 1\]"):
        QuantileSketch(2).add(np.zeros((3, 1)))
    with pytest.raises(ValueError, match="found 0"):
        QuantileSketch(2).normal_scores()
