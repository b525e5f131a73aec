"""Closed-form critics against known densities, and their in-sample estimates against known mutual information."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from flomi.critics.copula import (
    EllipticalCritic,
    NullCritic,
    _t_scores,
    of_correlation,
    small_sample_bias,
    tail_mi,
)


def gaussian(n: int, dim: int, rho: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, float]:
    rng = torch.Generator().manual_seed(seed)
    x, e = torch.randn(2, n, dim, generator=rng, dtype=torch.float64)
    return x, rho * x + math.sqrt(1 - rho**2) * e, -0.5 * dim * math.log(1 - rho**2)


def student(n: int, p: int, q: int, nu: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, float]:
    rng = np.random.default_rng(seed)
    z = torch.from_numpy(rng.standard_normal((n, p + q)) / np.sqrt(rng.chisquare(nu, (n, 1)) / nu))
    return z[:, :p], z[:, p:], tail_mi(nu, p, q)


def test_g_of_a_fitted_gaussian_is_the_log_density_ratio() -> None:
    x, y, _ = gaussian(200_000, 2, 0.7)
    y = y @ torch.tensor([[1.0, 0.4], [0.0, 1.0]], dtype=torch.float64)
    cov = torch.cat([x, y], 1).T.cov().numpy()
    critic = EllipticalCritic.fit(x, y)
    z = torch.cat([x, y], 1)[:200].numpy()
    joint = stats.multivariate_normal(np.zeros(4), cov).logpdf(z)
    alone = [
        stats.multivariate_normal(np.zeros(2), c).logpdf(v)
        for c, v in ((cov[:2, :2], z[:, :2]), (cov[2:, 2:], z[:, 2:]))
    ]
    error = critic(x[:200], y[:200]).numpy() - (joint - sum(alone))
    assert np.abs(error).mean() < 0.02


def test_g_of_a_fitted_student_is_the_log_density_ratio() -> None:
    x, y, _ = student(60_000, 2, 1, 3)
    critic = EllipticalCritic.fit(x, y, heavy_tails=True)
    assert abs(float(critic.nu) - 3) < 0.1
    z = torch.cat([x, y], 1)[:500].numpy()
    parts = [
        stats.multivariate_t(np.zeros(d), np.eye(d), df=3).logpdf(v)
        for d, v in ((3, z), (2, z[:, :2]), (1, z[:, 2:]))
    ]
    error = critic(x[:500], y[:500]).numpy() - (parts[0] - parts[1] - parts[2])
    assert np.abs(error).mean() < 0.02


@pytest.mark.parametrize("heavy", [False, True])
def test_pairs_matrix_and_positives_agree(heavy: bool) -> None:
    x, y, _ = student(400, 3, 2, 2)
    critic = EllipticalCritic.fit(x, y + x[:, :2], heavy_tails=heavy)
    a, b = critic.encode(x[:6], y[:5])
    matrix = critic.matrix(a, b)
    torch.testing.assert_close(critic.pairs(a[:, None], b[None]), matrix)
    g, u = critic.positives(a[:5], b)
    torch.testing.assert_close(g, matrix[:5].diagonal())
    torch.testing.assert_close(u, -g)
    torch.testing.assert_close(critic(x[:5], y[:5]), g)


def test_null_is_zero_everywhere() -> None:
    null = NullCritic()
    a, b = null.encode(torch.randn(4, 2), torch.randn(3, 5))
    assert null.matrix(a, b).shape == (4, 3) and not null.matrix(a, b).any()
    assert not null.positives(a[:3], b)[1].any()
    formula = NullCritic.fit(torch.randn(4, 2), torch.randn(4, 5)).formula
    assert formula.mi == formula.stderr == formula.second_order == 0 and not formula.influence.any()


@pytest.mark.parametrize("heavy", [False, True])
def test_influence_values_average_to_the_estimate_and_carry_its_error(heavy: bool) -> None:
    x, y, _ = student(800, 2, 1, 3)
    formula = EllipticalCritic.fit(x, y + x[:, :1], heavy_tails=heavy).formula
    assert float(formula.influence.mean()) == pytest.approx(formula.mi, abs=1e-12)
    first_order = float(formula.influence.var()) / 800
    parts = (first_order, formula.second_order**2, formula.model**2)
    assert math.sqrt(sum(parts)) == pytest.approx(formula.stderr, rel=1e-9)
    assert formula.second_order < 0.7 * formula.stderr


def test_influence_values_foretell_what_leaving_rows_out_does() -> None:
    """To first order, leaving out a block of rows moves MI to the mean of the others' influence values."""
    x, y, _ = gaussian(2000, 1, 0.7)
    whole = EllipticalCritic.fit(x, y).formula
    for block in torch.arange(2000).split(250):
        rest = torch.ones(2000, dtype=torch.bool)
        rest[block] = False
        moved = EllipticalCritic.fit(x[rest], y[rest]).formula.mi - whole.mi
        assert abs(moved - float(whole.influence[rest].mean() - whole.mi)) < 0.3 * whole.stderr


def test_a_formula_from_correlations_alone_is_that_of_the_rows() -> None:
    x, y, _ = gaussian(3000, 2, 0.6)
    critic = EllipticalCritic.fit(x, y)
    scores = torch.cat([critic.ranks_x(x), critic.ranks_y(y)], 1)
    found = of_correlation(torch.corrcoef(scores.T), 2, 3000, float(critic(x, y).var()))
    assert found.mi == pytest.approx(critic.formula.mi, abs=1e-9)
    assert found.stderr == pytest.approx(critic.formula.stderr, rel=0.02)


def test_small_sample_bias_of_log_determinants_is_exact() -> None:
    rng = np.random.default_rng(0)
    p, q, n = 3, 4, 20
    plug = []
    for _ in range(3000):
        s = np.cov(rng.standard_normal((p + q, n)))
        plug.append(
            0.5 * sum(sign * np.linalg.slogdet(b)[1] for sign, b in ((1, s[:p, :p]), (1, s[p:, p:]), (-1, s)))
        )
    bias, variance = small_sample_bias(p, q, n - 1)
    assert abs(np.mean(plug) - bias) < 4 * np.std(plug) / math.sqrt(3000)
    assert abs(np.var(plug) / variance - 1) < 0.15


@pytest.mark.parametrize(
    ("p", "q", "nu", "mi"), [(1, 1, 1, 0.22417), (2, 2, 1, 0.43195), (5, 5, 2, 0.44815), (3, 3, 3, 0.17871)]
)
def test_mi_of_student_tails(p: int, q: int, nu: int, mi: float) -> None:
    assert abs(tail_mi(nu, p, q) - mi) < 1e-5


@pytest.mark.parametrize("nu", [0.5, 1.0, 2.7, 40.0])
def test_student_scores_follow_the_quantile_function(nu: float) -> None:
    z = torch.linspace(-6, 6, 301, dtype=torch.float64)
    expected = torch.from_numpy(-np.sign(z.numpy()) * stats.t.ppf(stats.norm.cdf(-np.abs(z.numpy())), nu))
    torch.testing.assert_close(_t_scores(z, nu), expected, rtol=1e-4, atol=1e-4)


MORE = [(1, 0.75, 1000), (1, 0.99, 1000), (30, 0.3, 600), (20, 0.0, 300)]


@pytest.mark.parametrize(
    ("dim", "rho", "n"), [(5, 0.6, 1000), *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]
)
def test_the_formula_has_no_bias_and_an_honest_error(dim: int, rho: float, n: int) -> None:
    found = []
    for seed in range(30):
        x, y, truth = gaussian(n, dim, rho, seed)
        found.append(EllipticalCritic.fit(x, y**3).formula)  # the copula does not see the cube
    mi, stderr = np.array([f.mi for f in found]), np.mean([f.stderr for f in found])
    assert abs(mi.mean() - truth) < 4 * mi.std() / math.sqrt(30) + 0.002
    assert 0.6 < mi.std() / stderr < 1.45 or (rho == 0 and mi.std() < 1.45 * stderr)


def test_student_estimate_and_its_error() -> None:
    found = []
    for seed in range(12):
        x, y, truth = student(1000, 2, 3, 2, seed)
        found.append(EllipticalCritic.fit(x.asinh(), y, heavy_tails=True).formula)
    mi = np.array([f.mi for f in found])
    assert abs(mi.mean() - truth) < 0.02
    assert np.mean([abs(f.mi - truth) < 1.96 * f.stderr for f in found]) > 0.7


def test_student_stays_gaussian_on_gaussian_data() -> None:
    x, y, _ = gaussian(1000, 3, 0.5)
    critic, plain = EllipticalCritic.fit(x, y, heavy_tails=True), EllipticalCritic.fit(x, y)
    assert math.isinf(float(critic.nu)) and critic.formula.mi == plain.formula.mi


def test_held_out_score_does_not_pay_for_directions_without_signal() -> None:
    """50 + 50 dimensions, one shared factor: fitting all 2,500 correlations would cost 1.25 nats on new rows."""
    rng = torch.Generator().manual_seed(0)

    def draw(n: int) -> torch.Tensor:
        factor, own = torch.randn(n, 1, generator=rng), torch.randn(n, 100, generator=rng)
        return ((factor + own) / math.sqrt(2)).double()

    z, new = draw(1000), draw(2500)
    critic = EllipticalCritic.fit(z[:, :50], z[:, 50:])
    g = critic.matrix(*critic.encode(new[:, :50], new[:, 50:]))
    off = (g.exp().sum() - g.diagonal().exp().sum()) / (len(new) * (len(new) - 1))
    assert 1.45 < float(g.diagonal().mean() + 1 - off) < 1.70  # the truth is 1.624


def test_degenerate_columns_and_few_rows_give_numbers() -> None:
    x, y, truth = gaussian(500, 1, 0.8)
    copies = torch.cat([x, x, torch.zeros_like(x)], 1)
    for heavy in (False, True):
        critic = EllipticalCritic.fit(copies, y, heavy_tails=heavy)
        assert abs(critic.formula.mi - truth) < 0.15
        assert torch.isfinite(critic(copies, y)).all()
    constant = EllipticalCritic.fit(torch.zeros_like(x), y)
    assert constant.formula.mi == 0 and not constant(x, y).any()
    wide = EllipticalCritic.fit(torch.randn(15, 10), torch.randn(15, 10), heavy_tails=True)
    assert math.isfinite(wide.formula.mi) and wide.formula.stderr > 3
    assert torch.isfinite(wide(torch.randn(5, 10), torch.randn(5, 10))).all()
    assert EllipticalCritic.fit(x, 2 * x).formula.mi > 8


def test_discrete_columns_are_served() -> None:
    x, y, _ = gaussian(2000, 1, 0.8)
    critic = EllipticalCritic.fit(x, (y > 0).double())
    assert 0.15 < critic.formula.mi < 0.6 and torch.isfinite(critic(x, y)).all()


def test_bad_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="same number of rows"):
        EllipticalCritic.fit(torch.zeros(20, 1), torch.zeros(19, 1))
