"""Independent components: the Amari distance, whitening, the referee and unmixing on signals whose mixing is known."""

from __future__ import annotations

import math

import pytest
import torch

from flomi.applications.data.photographs import crops
from flomi.applications.ica import amari, total_correlation, unmix, whitening
from flomi.reproduce.ica import fast_ica

MIXING = torch.tensor([[1.0, 0.6], [0.4, 1.0]])


def uniform(n: int = 2000) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(n, 2)


def test_amari_distance_forgets_order_sign_and_scale_and_nothing_else() -> None:
    torch.manual_seed(0)
    permuted = torch.diag(torch.tensor([2.0, -0.5, 3.0]))[[2, 0, 1]]
    assert amari(permuted) == 0
    assert amari(torch.ones(3, 3)) == pytest.approx(1.0)
    assert amari(torch.tensor([[1.0, 0.5], [0.0, 1.0]])) == pytest.approx(0.25)  # (0.5 + 0.5) / (2 * 2 * 1)


def test_whitening_makes_white() -> None:
    x = uniform() @ MIXING.T
    assert torch.allclose((x @ whitening(x).T).T.cov(), torch.eye(2), atol=1e-3)
    with pytest.raises(ValueError, match="a column of x is constant"):
        whitening(torch.cat([x, x[:, :1] + x[:, 1:]], 1))


def test_total_correlation_of_gaussians_is_right() -> None:
    """-log det(C) / 2, and 0 without correlation."""
    torch.manual_seed(0)
    covariance = torch.tensor([[1.0, 0.6, 0.3], [0.6, 1.0, 0.5], [0.3, 0.5, 1.0]])
    s = torch.randn(3000, 3)
    assert total_correlation(s) == pytest.approx(0.0, abs=0.06)
    mixed = s @ torch.linalg.cholesky(covariance).T
    assert total_correlation(mixed) == pytest.approx(-math.log(torch.det(covariance)) / 2, abs=0.08)


@pytest.mark.slow
def test_a_rotation_that_is_wrong_by_45_degrees_is_mended() -> None:
    """White data whose independent axes lie as far as can be from where the search starts."""
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / math.sqrt(2)
    x = uniform() @ turn.T
    w = unmix(x, steps=100, lr=2e-2)
    assert amari(whitening(x) @ turn) > 0.8 and amari(w @ turn) < 0.25
    assert torch.allclose((x @ w.T).T.cov(), torch.eye(2), atol=1e-2)
    assert amari(fast_ica(x, 0) @ turn) < 0.1


def test_the_same_seed_gives_the_same_matrix() -> None:
    x = uniform() @ MIXING.T
    first, again, other = (unmix(x, steps=3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_wrong_shapes_are_errors() -> None:
    with pytest.raises(ValueError, match="give at least 2 columns, and at least batch=256 rows"):
        unmix(torch.randn(100, 2))
    with pytest.raises(ValueError, match="at least 2 columns"):
        unmix(torch.randn(1000, 1))


def test_crops_are_standardised_squares_of_the_photographs() -> None:
    signals = crops(3, 20, torch.Generator().manual_seed(0))
    assert signals.shape == (400, 3)
    assert torch.allclose(signals.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(signals.std(0), torch.ones(3), atol=1e-4)
    with pytest.raises(ValueError, match="size=500 is not possible: use 2 to 427"):
        crops(1, 500)
