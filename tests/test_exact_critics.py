"""Exact critics on samples of Gaussian pairs: known values within four standard errors, and the facts of finite samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from problems import ExactCritic, Gaussian, with_side
from torch import Tensor

from flomi import bounds
from flomi.bounds import BOUNDS, Bound
from flomi.critics import CRITICS, ConditionalGaussian
from flomi.scores import score


def within(values: Tensor, truth: float, slack: float = 0.0) -> None:
    """The mean of independent values is `truth` within four standard errors, and these are small enough to tell."""
    stderr = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - truth) < 4 * stderr + slack
    assert stderr < 0.1 * max(truth, 0.1)


class HalfCritic(ExactCritic):
    """g = PMI/2, the optimum of FLO-u(x)."""

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return self.pmi(a, b) / 2


@pytest.mark.parametrize(("rho", "d", "truth"), [(0.5, 1, 0.1438), (0.8, 1, 0.5108), (0.5, 10, 1.4384)])
def test_flo_nwj_and_tuba_agree_row_by_row_and_reach_the_truth(rho: float, d: int, truth: float) -> None:
    problem = Gaussian(rho, d)
    assert problem.mi == pytest.approx(truth, abs=5e-5)
    s = problem.scores(400_000, m=1)
    flo, nwj, tuba = bounds.flo(s), bounds.nwj(s), bounds.tuba(s)
    within(flo, truth, 5e-5)
    torch.testing.assert_close(nwj, flo, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(tuba, flo, rtol=1e-12, atol=1e-12)
    within(-s.need("u"), truth, 5e-5)
    within(torch.exp(s.need("u")), 1.0)


@pytest.mark.parametrize(
    "bound", [row for row in BOUNDS.values() if row.name != "smile-1"], ids=lambda row: row.name
)
def test_every_bound_reaches_its_known_value(bound: Bound) -> None:
    problem, r2 = Gaussian(0.5, 2), 0.25
    if "density" in bound.needs:
        s = problem.scores(1000, "all", critic=problem.conditional())
    elif bound.name == "flo-ux":
        x, y = problem.sample(1000)

        def log_half(
            x: Tensor,
        ) -> Tensor:  # log of the Bhattacharyya coefficient of N(rho x, 1 - rho^2) and N(0, 1)
            level = 0.5 * math.log(2 * math.sqrt(1 - r2) / (2 - r2))
            return (level - r2 * x.square() / (4 * (2 - r2))).sum(-1)

        s = score(HalfCritic(0.5), x, y, "all", baseline=lambda x: 2 * log_half(x))
    else:
        s = problem.scores(1000, "all")
    renyi = 2 * (-math.log(2 * math.sqrt(1 - r2) / (2 - r2)) + r2 / (2 * (2 - r2)))
    within(bound.value(s), {"club": problem.jeffreys, "flo-ux": renyi}.get(bound.name, problem.mi), 1e-3)


@pytest.mark.parametrize("bound", with_side("lower"), ids=lambda row: row.name)
def test_lower_bounds_stay_below_at_random_critics(bound: Bound) -> None:
    problem = Gaussian(0.7, 2)
    x, y = problem.sample(300)
    density = "density" in bound.needs
    for name in ["density"] if density else ["joint", "separate", "separable", "bilinear"]:
        build = CRITICS[name].build
        assert build is not None
        for seed in range(3):
            torch.manual_seed(seed)
            critic = build(2, 2, (16,)).double()
            if isinstance(critic, ConditionalGaussian):
                critic.log_marginal = problem.conditional().log_marginal
            with torch.no_grad():
                values = bound.value(score(critic, x, y, "all", baseline=lambda x: x.sum(-1)))
            assert values.mean() <= problem.mi + 4 * values.std() / math.sqrt(len(values))


# --- Finite samples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("m", "loo", "infonce"), [(1, 5.33, 0.47), (4, 2.65, 0.94), (19, 1.80, 1.32), (49, 1.66, 1.44)]
)
def test_leave_one_out_dv_is_far_too_high_where_flo_is_right(m: int, loo: float, infonce: float) -> None:
    problem = Gaussian(0.8, 3)
    s = problem.scores(400_000 // m, m=m)
    within(bounds.fdv(s), loo, 0.01)
    within(bounds.infonce(s), infonce, 0.01)
    within(bounds.flo(s), problem.mi)
    if m == 1:
        within(bounds.fdv(s), problem.jeffreys)


def expectation_over_normals(f: Callable[[Tensor, Tensor], Tensor]) -> float:
    """E[f(x, y)] for independent standard normals x, y, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z, w = torch.from_numpy(nodes)[:, None], torch.from_numpy(weights / weights.sum())
    return float((w[:, None] * w * f(z[:, None], z[None])).sum())


@pytest.mark.parametrize(("rho", "d"), [(0.3, 1), (0.5, 1), (0.5, 3), (-0.6, 2)])
def test_variance_of_the_exponential_term(rho: float, d: int) -> None:
    pair = Gaussian(rho, 1).critic()
    first, second = (
        expectation_over_normals(lambda x, y, k=k: torch.exp(k * pair.pmi(x, y))) for k in (1, 2)
    )
    assert first == pytest.approx(1, abs=1e-8)
    assert second**d - 1 == pytest.approx((1 - rho**2) ** -d - 1, rel=1e-6)
    assert second**d - 1 == pytest.approx(math.expm1(2 * Gaussian(rho, d).mi), rel=1e-6)


def test_variance_over_all_pairs() -> None:
    problem, n = Gaussian(0.6, 1), 12
    x, y = problem.sample(12 * 8000)
    pmi = problem.critic().pmi(x.view(8000, n, 1, 1), y.view(8000, 1, n, 1))
    off = pmi.exp().sum((1, 2)) - pmi.diagonal(dim1=1, dim2=2).exp().sum(1)
    values = 1 + pmi.diagonal(dim1=1, dim2=2).mean(1) - off / (n * (n - 1))
    within(values, problem.mi)
    chi2 = 1 / (1 - 0.36) - 1
    assert float(values.var()) == pytest.approx(0.36 / n + chi2 / (n * (n - 1)), rel=0.1)


def test_negatives_divided_by_n_add_one_nth() -> None:
    problem, n = Gaussian(0.5, 1), 4
    ours, trap = [], []
    for seed in range(1500):
        s = problem.scores(n, "all", seed=seed)
        ours.append(bounds.nwj(s).mean())
        trap.append((1 + s.pos - (n - 1) / n * s.negatives.lme().exp()).mean())
    within(torch.stack(ours), problem.mi)
    within(torch.stack(trap), problem.mi + 1 / n)


def test_club_and_l1out_with_the_exact_conditional() -> None:
    problem = Gaussian(0.7, 2)
    q = problem.conditional()
    x, y = problem.sample(40_000)
    with torch.no_grad():
        torch.testing.assert_close(q(x, y) - q.marginal(y), problem.critic()(x, y), rtol=1e-10, atol=1e-10)
    within(bounds.club(problem.scores(40_000, m=8, critic=q)), problem.jeffreys)
    for m in (1, 5, 40):
        l1out = bounds.l1out(problem.scores(20_000, m=m, critic=q))
        assert l1out.mean() > problem.mi - 4 * l1out.std() / math.sqrt(20_000)
    assert problem.jeffreys > problem.mi
