"""Information bottleneck: bounds with known answers, penalties beside them, and what training with one does."""

from __future__ import annotations

import math

import pytest
import torch

from flomi.applications import information_bottleneck as app
from flomi.applications.information_bottleneck import PENALTIES, fit, judge, known_mi, noisy


def clusters(n: int = 900) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes, each with two places that do not matter for it, in ten columns."""
    torch.manual_seed(0)
    y = torch.arange(n) % 3
    place = torch.randint(2, (n,))
    x = torch.randn(6, 10)[2 * y + place] + 0.3 * torch.randn(n, 10)
    return x, y


def test_known_density_holds_the_truth_between_the_bounds() -> None:
    """Gaussian means of variances 9, 1 and 0: I = (log 10 + log 2) / 2."""
    torch.manual_seed(0)
    mean = torch.randn(3000, 3) * torch.tensor([3.0, 1.0, 0.0])
    low, high = known_mi(mean, noisy(mean))
    assert low < high and low == pytest.approx(math.log(20) / 2, abs=0.08)
    assert high == pytest.approx(math.log(20) / 2, abs=0.08)


def test_lower_bound_is_capped_and_upper_bound_is_not() -> None:
    mean = 100 * torch.arange(50.0)[:, None]
    low, high = known_mi(mean, noisy(mean))
    assert low == pytest.approx(math.log(50), abs=1e-6) and high > 100


def test_kl_is_exact_for_gaussian_codes_and_above_for_others() -> None:
    torch.manual_seed(0)
    mean = torch.randn(4000, 2)
    z = noisy(mean)
    assert float(app.KLPenalty(2, 1)(mean, z, mean)) == pytest.approx(math.log(2), abs=0.05)
    signs = 4 * mean.sign()  # two bits, which no Gaussian p(z) tells apart
    low, high = known_mi(signs[:1500], noisy(signs[:1500]))
    assert low <= high < 2 * math.log(2) + 0.01 < float(app.KLPenalty(2, 1)(signs, z, mean)) - 1


@pytest.mark.parametrize("name", PENALTIES)
def test_every_penalty_moves_the_code_and_nothing_of_its_own(name: str) -> None:
    torch.manual_seed(0)
    penalty = PENALTIES[name](2, 3)
    for _ in range(30):
        x = torch.randn(128, 3)
        mean = (2 * x[:, :2]).requires_grad_()
        value = penalty(mean, noisy(mean), x)
    value.backward()
    assert 0.2 < float(value.detach()) < 1.2 * math.log(5)  # I = log 5, and KL is exact but for a batch
    assert mean.grad is not None and bool(mean.grad.isfinite().all()) and bool((mean.grad != 0).any())
    assert all(p.grad is None for p in penalty.parameters())


def test_a_bound_below_zero_is_no_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    penalty = app.LeakPenalty(2, 3)
    monkeypatch.setattr(penalty.mi, "forward", lambda z, s: z.sum() * 0 - 5.0)
    assert float(penalty(torch.zeros(8, 2), torch.zeros(8, 2), torch.zeros(8, 3))) == 0.0


@pytest.mark.parametrize("name", ["kl", pytest.param("flo", marks=pytest.mark.slow)])
def test_a_penalty_takes_x_away_and_leaves_the_class(name: str) -> None:
    x, y = clusters()
    train, test = slice(0, 600), slice(600, None)
    free, held = (
        judge(fit(x[train], y[train], PENALTIES[name], beta, steps=120, batch=100), x[test], y[test])
        for beta in (0.0, 0.2)
    )
    assert free.of_x_least > math.log(3) and held.of_x_most < 0.8 * free.of_x_least
    assert free.error < 0.02 and held.error < 0.05
    for found in (free, held):  # data processing: x tells of z at least what y does
        assert 0 < found.of_y <= min(math.log(3), found.of_x_most) + 0.02
        assert found.of_x_least <= found.of_x_most <= found.kl + 0.2 or found is free


def test_the_same_seed_gives_the_same_model() -> None:
    x, y = clusters(200)
    first, again, other = (
        fit(x, y, PENALTIES["flo"], 0.1, steps=4, batch=50, seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_wrong_calls_are_errors() -> None:
    x, y = clusters(60)
    for beta, penalty in ((-1.0, PENALTIES["kl"]), (1.0, None)):
        with pytest.raises(ValueError, match="give 0 or more, and with more than 0 a penalty"):
            fit(x, y, penalty, beta)
    with pytest.raises(ValueError, match="batch=128 is not possible with 60 rows: use 2 to 60"):
        fit(x, y)
