"""Local critics of matched columns: which columns go together, and what their sum is worth on other rows."""

from __future__ import annotations

import math

import pytest
import torch

from flomi import estimate
from flomi.critics.paired_columns import MatchedCritic, match_columns

LAPLACE = torch.distributions.Laplace(
    torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
)
PER_PAIR = 0.3950  # I(X; X + N) for Laplace X and N of one scale, nats, by integration


def noisy_copies(n: int, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = LAPLACE.sample((n, pairs))
    return x, (x + LAPLACE.sample((n, pairs))).flip(1)


def held_out(critic: MatchedCritic, x: torch.Tensor, y: torch.Tensor) -> float:
    g = critic.matrix(*critic.encode(x, y))
    n = len(g)
    return float(g.diagonal().mean() + 1 - (g.exp().sum() - g.diagonal().exp().sum()) / (n * (n - 1)))


def test_truth_of_the_noisy_copies() -> None:
    at = torch.linspace(0, 60, 600_001, dtype=torch.float64)
    density = (1 + at) * torch.exp(-at) / 2  # of |X + N|
    entropy = math.log(4) + float(torch.trapezoid(density * (at - torch.log1p(at)), at))
    assert abs(entropy - (1 + math.log(2)) - PER_PAIR) < 1e-4


def test_noisy_copies_in_any_order_are_found_and_scored() -> None:
    x, y = noisy_copies(3000, 3)
    critic = MatchedCritic.fit(x, y)
    assert critic.columns.tolist() == [[0, 2], [1, 1], [2, 0]]
    bound = held_out(critic, *noisy_copies(1500, 3))
    assert 3 * PER_PAIR - 0.15 < bound < 3 * PER_PAIR + 0.1


@pytest.mark.parametrize("kind", ["independent", "gaussian"])
def test_nothing_is_matched_where_nothing_is_gained(kind: str) -> None:
    x = torch.randn(2000, 4, dtype=torch.float64)
    y = torch.randn(2000, 3, dtype=torch.float64) + (x[:, :3] if kind == "gaussian" else 0)
    assert match_columns(x, y).shape == (0, 2)
    critic = MatchedCritic.fit(x, y)
    assert not critic(x, y).any() and not critic.matrix(*critic.encode(x[:5], y[:4])).any()


def student(n: int, rho: float, nu: float, *, shared: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Three pairs of columns that are Student with a scale by row, or with a scale by row and pair."""
    z, e = torch.randn(2, n, 3, dtype=torch.float64)
    scale = (torch.distributions.Chi2(nu).sample((n, 1 if shared else 3)).double() / nu).rsqrt()
    return z * scale, (rho * z + math.sqrt(1 - rho**2) * e) * scale


@pytest.mark.parametrize(("rho", "nu"), [(0.0, 1.0), (0.6, 2.0), (0.95, 5.0)])
def test_nothing_is_matched_where_a_student_copula_explains_all_columns(rho: float, nu: float) -> None:
    assert match_columns(*student(5000, rho, nu, shared=True)).shape == (0, 2)


def test_pairs_with_tails_of_their_own_are_matched() -> None:
    assert match_columns(*student(5000, 0.6, 2.0, shared=False)).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_pairs_matrix_and_single_precision_codes_agree() -> None:
    x, y = noisy_copies(3000, 2)
    critic = MatchedCritic.fit(x, y)
    assert len(critic.parts) == 2
    a, b = critic.encode(1e6 * x[:5], y[:4])
    torch.testing.assert_close(critic.pairs(a[:, None], b[None]), critic.matrix(a, b))
    torch.testing.assert_close(critic.matrix(a.float(), b.float()), critic.matrix(a, b), rtol=1e-4, atol=1e-4)
    assert torch.equal(MatchedCritic.restore(critic.state_dict(), {})(x, y), critic(x, y))


@pytest.mark.slow
def test_it_wins_where_it_should_with_an_honest_error() -> None:
    x, y = noisy_copies(3000, 3)
    r = estimate(x, y, effort="fast")
    assert r.critic in ("matched", "residual")
    assert abs(r.mi - 3 * PER_PAIR) < 3 * r.stderr < 0.3
    assert r.lower_bound < 3 * PER_PAIR
