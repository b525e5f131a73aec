"""The Gaussian mixture of (x, y): exact under its model, what it takes of the columns, and where it is silent."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from flomi import MIEstimator, estimate
from flomi.bounds import log_mean_exp, off_diagonal
from flomi.critics import CRITICS
from flomi.critics.mixture import MixtureCritic
from flomi.critics.table import TrainingRows, default_candidates


def clusters(n: int, seed: int, apart: float = 4.0) -> tuple[Tensor, Tensor]:
    """Three clusters in 2 + 1 columns, within which x and y are independent; MI near log 3 less what overlaps."""
    gen = torch.Generator().manual_seed(seed)
    centers = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.5, 1.0], [-0.5, 1.0, -1.0]], dtype=torch.float64) * apart
    z = centers[torch.randint(3, (n,), generator=gen)] + torch.randn(n, 3, dtype=torch.float64, generator=gen)
    return z[:, :2], z[:, 2:]


def scaled(n: int, seed: int, columns: int = 2) -> tuple[Tensor, Tensor]:
    """Independent normals of a size that both sides share, 0.2, 1 or 3."""
    gen = torch.Generator().manual_seed(seed)
    size = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64)[torch.randint(3, (n, 1), generator=gen)]
    z = size * torch.randn(n, 2 * columns, dtype=torch.float64, generator=gen)
    return z[:, :columns], z[:, columns:]


def held_out(critic: MixtureCritic, x: Tensor, y: Tensor) -> float:
    g = critic.matrix(*critic.encode(x, y))
    return float(g.diagonal().mean() - log_mean_exp(off_diagonal(g).flatten()))


def test_clusters_are_found_where_they_are() -> None:
    critic = MixtureCritic.fit(*clusters(800, 0))
    assert 3 <= len(critic.log_weights) <= 6
    assert 0.85 < held_out(critic, *clusters(1500, 1)) < 1.1


def test_a_shared_scale_is_seen_without_ranks() -> None:
    critic = MixtureCritic.fit(*scaled(800, 0))
    assert held_out(critic, *scaled(1500, 1)) > 0.35


def test_the_ratio_is_normalised() -> None:
    """Over pairs of other rows that don't match, e^g averages 1."""
    critic = MixtureCritic.fit(*clusters(800, 0))
    g = critic.matrix(*critic.encode(*clusters(1500, 1)))
    assert abs(float(log_mean_exp(off_diagonal(g).flatten()))) < 0.1


def test_the_score_is_the_log_ratio_of_the_three_densities() -> None:
    x, y = clusters(800, 0)
    critic = MixtureCritic.fit(x, y)
    s, t = critic.space_x(x[:, critic.columns_x]), critic.space_y(y[:, critic.columns_y])
    p = s.shape[1]
    inner = torch.linalg.inv(critic.white_x)
    of_x = inner @ inner.mT
    root = torch.linalg.inv(critic.white)
    cross = of_x @ critic.slopes
    of_y = root @ root.mT + critic.slopes.mT @ cross
    joint = torch.cat([torch.cat([of_x, cross], 2), torch.cat([cross.mT, of_y], 2)], 1)
    means = torch.cat([critic.means_x, critic.means_y], 1)

    def log_density(z: Tensor, some: slice) -> Tensor:
        law = torch.distributions.MultivariateNormal(means[:, some], joint[:, some, some])
        return (critic.log_weights + law.log_prob(z[:, None])).logsumexp(1)

    every = log_density(torch.cat([s, t], 1), slice(None))
    expected = every - log_density(s, slice(None, p)) - log_density(t, slice(p, None)) - critic.shift
    torch.testing.assert_close(
        critic(x, y), expected.clamp(-math.log(800), float(critic.high)), rtol=1e-8, atol=1e-8
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrix_and_pairs_agree_on_rows_unlike_any(dtype: torch.dtype) -> None:
    critic = MixtureCritic.fit(*clusters(500, 0)).to(dtype)
    x, y = (torch.cat([v, v[:3] * 1e4, v[3:6] * 1e8]).to(dtype) for v in clusters(100, 1))
    a, b = critic.encode(x, y)
    table = critic.matrix(a, b)
    assert table.dtype == dtype and table.isfinite().all()
    tight = 1e-8 if dtype == torch.float64 else 2e-3
    torch.testing.assert_close(
        critic.pairs(a[:100, None], b[None, :100]), table[:100, :100], rtol=tight, atol=tight
    )


def test_columns_that_say_nothing_are_left_out() -> None:
    x, y = clusters(1000, 0)
    noise = torch.randn(1000, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    critic = MixtureCritic.fit(torch.cat([noise, x], 1), y)
    assert {20, 21} >= set(critic.columns_x.tolist()) or len(critic.columns_x) <= 3
    assert 20 in critic.columns_x


@pytest.mark.parametrize("columns", [1, 5, 20])
@pytest.mark.parametrize("tails", [False, True])
def test_nothing_is_made_of_independent_columns(columns: int, tails: bool) -> None:
    gen = torch.Generator().manual_seed(columns)
    z = torch.randn(4, 800, 2 * columns, dtype=torch.float64, generator=gen)
    z = z[:2] / z[2:] if tails else z[:2]
    (x, u), (y, v) = z[..., :columns], z[..., columns:]
    assert held_out(MixtureCritic.fit(x, y), u, v) > -0.02


@pytest.mark.parametrize("kind", ["counts", "one discrete side", "an atom"])
def test_ties_have_no_density(kind: str) -> None:
    rng = np.random.default_rng(0)
    size = rng.gamma(2, 2, size=(2000, 1))
    x, y = rng.poisson(size).astype(float), size + rng.normal(size=(2000, 1))
    y = {"counts": rng.poisson(size), "one discrete side": y, "an atom": np.maximum(y, 1)}[kind]
    u, v = torch.from_numpy(x), torch.from_numpy(y.astype(float))
    critic = MixtureCritic.fit(u[:1000], v[:1000])
    assert len(critic.columns_x) == 0 and not critic(u, v).any()
    assert not critic.matrix(*critic.encode(u[:5], v[:4])).any()
    whole = CRITICS["mixture"].restore(critic.state_dict(), critic.sizes)
    assert not whole(u, v).any()


def test_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 50"):
        MixtureCritic.fit(*clusters(49, 0))


def test_its_estimate_is_saved_and_loaded(tmp_path) -> None:
    x, y = (v.numpy() for v in clusters(600, 0))
    m = MIEstimator(critic="mixture", n_folds=2).fit(x, y)
    assert abs(m.result_.mi - 0.98) < 0.15
    loaded = MIEstimator.load(m.save(tmp_path / "saved"))
    np.testing.assert_array_equal(loaded.pmi(x[:50], y[:50]), m.pmi(x[:50], y[:50]))


def test_it_competes_for_continuous_columns_only() -> None:
    def names(**changed: bool | int) -> tuple[str, ...]:
        rows = {"n": 1000, "dim_x": 2, "dim_y": 1, "continuous": True} | changed
        return default_candidates(TrainingRows(**rows), density=False, costly=True)  # type: ignore[arg-type]

    assert "mixture" in names()
    for changed in ({"continuous": False}, {"n": 90}, {"dim_x": 1}):
        assert "mixture" not in names(**changed)


def test_it_wins_where_clusters_are() -> None:
    x, y = (v.numpy() for v in scaled(1000, 3))
    r = estimate(x, y, critic=["null", "gaussian", "student", "regression", "mixture"], n_folds=2)
    assert r.critic == "mixture"
