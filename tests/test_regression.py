"""The critic from regression: what it finds in closed form, that it is normalised, and that leaving one out is exact."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flomi import estimate
from flomi.critics.copula import EllipticalCritic
from flomi.critics.kernel_ridge import RegressionCritic, _ridge


def held_out(critic: torch.nn.Module, x: Tensor, y: Tensor) -> float:
    """FLO bound on rows that the critic has not seen."""
    g = critic.matrix(*critic.encode(x, y))
    n = len(g)
    return float(g.diagonal().mean() + 1 - (g.exp().sum() - g.diagonal().exp().sum()) / (n * (n - 1)))


def noisy(n: int, kind: str) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, 3, dtype=torch.float64)
    signal = {"waves": torch.sin(2 * x[:, :2]), "product": x[:, :1] * x[:, 1:2], "lines": x[:, :2]}[kind]
    return x, signal + 0.5 * torch.randn_like(signal)


@pytest.mark.parametrize("kind", ["waves", "product"])
@pytest.mark.parametrize("swapped", [False, True])
def test_it_finds_a_smooth_function_from_few_rows(kind: str, swapped: bool) -> None:
    fit, new = ((y, x) if swapped else (x, y) for x, y in (noisy(800, kind), noisy(1500, kind)))
    critic = RegressionCritic.fit(*fit)
    assert bool(critic.from_x) != swapped
    assert held_out(critic, *new) > held_out(EllipticalCritic.fit(*fit), *new) + 0.3


def test_it_reads_a_gaussian_as_the_gaussian_critic_does() -> None:
    critic = RegressionCritic.fit(*noisy(2000, "lines"))
    truth = math.log(5)  # two columns of 1/2 log(1 + 4)
    assert abs(held_out(critic, *noisy(2000, "lines")) - truth) < 0.12
    assert critic.optimism < 0.05


def test_independent_sides_score_nothing() -> None:
    x, y = torch.randn(1000, 3, dtype=torch.float64), torch.randn(1000, 2, dtype=torch.float64)
    critic = RegressionCritic.fit(x, y)
    assert abs(held_out(critic, torch.randn_like(x), torch.randn_like(y))) < 0.02


def test_leaving_one_out_is_what_refitting_without_the_row_gives() -> None:
    torch.manual_seed(0)
    s, t = torch.randn(60, 2, dtype=torch.float64), torch.randn(60, 1, dtype=torch.float64)
    t = (t + s[:, :1].square()) / 2
    t = t - t.mean()
    explained, _, _ = _ridge(s, t, torch.eye(2, dtype=torch.float64), 2.0, 20)
    at = s[torch.linspace(0, 59, 20).round().long()]
    distance = torch.cdist(at, at).square()
    values, vectors = torch.linalg.eigh(torch.exp(-distance / 8))
    keep = values > 1e-7 * values[-1]
    features = torch.exp(-torch.cdist(s, at).square() / 8) @ (vectors[:, keep] / values[keep].sqrt())
    features = torch.cat([features, 0.3 * s], 1)
    features = features - features.mean(0)
    best = math.inf
    for penalty in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0):
        residuals = []
        for i in range(60):
            rest = torch.arange(60) != i
            f, target = features[rest], t[rest]
            # the mean is one more coefficient, without a penalty
            f1 = torch.cat([f, torch.ones(59, 1, dtype=f.dtype)], 1)
            ridge = torch.diag(torch.tensor([penalty] * f.shape[1] + [0.0], dtype=f.dtype))
            w = torch.linalg.solve(f1.T @ f1 + ridge, f1.T @ target)
            residuals.append(float(t[i] - features[i] @ w[:-1] - w[-1]))
        best = min(best, float(torch.tensor(residuals).square().mean()))
    assert abs(explained + 0.5 * math.log(best)) < 1e-6


def test_pairs_and_matrix_agree_and_average_to_one() -> None:
    x, y = noisy(1000, "waves")
    critic = RegressionCritic.fit(x, y)
    a, b = critic.encode(x[:700], y[:700])
    g = critic.matrix(a, b)
    torch.testing.assert_close(critic.pairs(a[:, None], b[None]), g)
    assert abs(float((g.exp().sum() - g.diagonal().exp().sum()) / (700 * 699)) - 1) < 0.1


def test_exact_relations_and_columns_that_stand_still_are_safe() -> None:
    x = torch.randn(300, 2, dtype=torch.float64)
    exact = RegressionCritic.fit(x, 2 * x[:, :1])
    assert torch.isfinite(exact(x, 2 * x[:, :1])).all()
    still = torch.cat([x, torch.zeros(300, 1, dtype=torch.float64)], 1)
    critic = RegressionCritic.fit(still, still[:, [0, 2]] + torch.tensor([0.5, 0.0]) * torch.randn(300, 2))
    moved = torch.cat([x, torch.ones(300, 1, dtype=torch.float64)], 1)
    assert torch.isfinite(critic(moved, moved[:, [0, 2]])).all()


def test_a_copied_column_changes_nothing() -> None:
    (x, y), (new_x, new_y) = noisy(800, "waves"), noisy(1500, "waves")
    plain = RegressionCritic.fit(x, y)
    twice, new_twice = x[:, [0, 1, 2, 1]], new_x[:, [0, 1, 2, 1]]
    critic = RegressionCritic.fit(twice, y)
    assert bool(critic.from_x) and abs(critic.optimism - plain.optimism) < 0.02
    assert abs(held_out(critic, new_twice, new_y) - held_out(plain, new_x, new_y)) < 0.05


def test_rare_pairs_that_are_not_seen_do_not_raise_it() -> None:
    x = torch.randn(1000, 5, dtype=torch.float64)
    y = x + 0.01 * torch.randn_like(x)  # 23 nats
    new = torch.randn(1000, 5, dtype=torch.float64)
    critic = RegressionCritic.fit(x, y)
    assert float(critic.shift) >= 0
    assert float(critic(new, new + 0.01 * torch.randn_like(new)).mean()) < 24


def test_too_few_rows_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        RegressionCritic.fit(torch.zeros(5, 1).double(), torch.zeros(5, 1).double())


@pytest.mark.slow
def test_it_wins_where_it_should() -> None:
    x, y = noisy(1500, "product")
    r = estimate(x, y, effort="fast")
    assert r.critic in ("regression", "residual")
    assert r.bound > 0.5 > r.candidates["gaussian"]["bound"]
