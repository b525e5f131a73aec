"""Fair decisions: what each penalty measures, what training does with it, and the gaps beside fairlearn's."""

from __future__ import annotations

import math

import fairlearn.metrics
import numpy as np
import pytest
import torch

from flomi.applications.data.tables import People
from flomi.applications.fairness import (
    FERMI,
    PENALTIES,
    Adversary,
    ClassCritic,
    FairModel,
    LeakPenalty,
    equalised_odds_gap,
    fit,
    judge,
    leakage,
    opportunity_gap,
    parity_gap,
)


def people(n: int = 1500) -> People:
    """Rows with a feature of y alone, and one of y and s."""
    torch.manual_seed(0)
    s = torch.arange(n) % 2
    merit, other = torch.randn(2, n)
    y = (merit + 0.5 * other + s > 0.5).long()
    return People(torch.stack([merit, other + 2.0 * s], 1), y, s, ("merit", "other"))


def test_gaps_are_those_of_fairlearn() -> None:
    rng = np.random.default_rng(0)
    d, y, s = rng.integers(0, 2, (3, 500))
    kind = {"sensitive_features": s}
    assert parity_gap(d, s) == pytest.approx(fairlearn.metrics.demographic_parity_difference(y, d, **kind))
    assert equalised_odds_gap(d, y, s) == pytest.approx(
        fairlearn.metrics.equalized_odds_difference(y, d, **kind)
    )
    assert opportunity_gap(d, y, s) == pytest.approx(
        fairlearn.metrics.equal_opportunity_difference(y, d, **kind)
    )


def test_a_group_without_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="no row has s = 1"):
        parity_gap(np.array([1, 0]), np.array([0, 0]))


def test_leakage_is_chance_without_and_everything_with_a_trace() -> None:
    rng = np.random.default_rng(0)
    z, s = rng.standard_normal((2000, 2)), rng.integers(0, 2, 2000)
    auc, nats = leakage(z[:1000], s[:1000], z[1000:], s[1000:])
    assert abs(auc - 0.5) < 0.06 and nats < 0.01
    z[:, 0] = s
    auc, nats = leakage(z[:1000], s[:1000], z[1000:], s[1000:])
    assert auc == 1 and nats == pytest.approx(math.log(2), abs=0.02)


@pytest.mark.parametrize("name", PENALTIES)
def test_every_penalty_is_near_zero_without_and_large_with_dependence(name: str) -> None:
    values = []
    for strength in (0.0, 2.0):
        torch.manual_seed(0)
        penalty = PENALTIES[name](2)
        for _ in range(40):
            s = torch.randint(0, 2, (256,))
            z = torch.randn(256, 2) + strength * s[:, None]
            value = penalty(z, 2 * (z[:, 0] - 1), s)
        values.append(float(value))
    assert abs(values[0]) < 0.15 and values[1] > 0.2 + values[0]


@pytest.mark.parametrize("name", PENALTIES)
def test_penalty_moves_z_or_the_decision_and_nothing_of_its_own(name: str) -> None:
    torch.manual_seed(0)
    penalty = PENALTIES[name](2)
    z = torch.randn(64, 2, requires_grad=True)
    penalty(z, z.sum(1), torch.arange(64) % 2).backward()
    assert z.grad is not None and bool(z.grad.isfinite().all())
    assert all(p.grad is None and p.requires_grad for p in penalty.parameters())


def test_fermi_is_the_chi_square_of_its_table() -> None:
    logit, s = torch.randn(200), torch.randint(0, 2, (200,))
    penalty = FERMI(1)
    value = float(penalty(logit[:, None], logit, s))  # the first batch is all that its averages hold
    p = torch.sigmoid(logit)
    table = torch.stack([torch.stack([(d * (s == k)).mean() for k in (0, 1)]) for d in (1 - p, p)])
    expected = (table.square() / (table.sum(1, keepdim=True) * table.sum(0))).sum() - 1
    assert value == pytest.approx(float(expected), abs=1e-5)


def test_adversary_that_knows_nothing_reads_zero() -> None:
    penalty = Adversary(2).eval()
    for p in penalty.parameters():
        torch.nn.init.zeros_(p)
    assert float(penalty(torch.randn(64, 2), torch.zeros(64), torch.arange(64) % 2)) == pytest.approx(
        0.0, abs=1e-6
    )


def test_class_critic_is_one_function_in_every_form() -> None:
    critic = ClassCritic(3, 2)
    z, s = torch.randn(5, 3), torch.eye(2)[torch.tensor([0, 1, 1, 0, 1])]
    a, b = critic.encode(z, s)
    torch.testing.assert_close(critic.matrix(a, b).diagonal(), critic(z, s))
    torch.testing.assert_close(critic.positives(a, b)[0], critic(z, s))


def test_noise_is_for_training_only() -> None:
    model, x = FairModel(2), people().x[:50]
    assert not torch.equal(model(x)[0], model(x)[0])
    model.eval()
    assert torch.equal(model(x)[0], model(x)[0])


@pytest.mark.slow
def test_a_weight_lowers_gap_and_leakage() -> None:
    rows = people(3000)
    train, test = rows[:2000], rows[2000:]
    alone = judge(fit(train, steps=150, batch=256), train, test)
    fair = judge(fit(train, PENALTIES["flo"], 10.0, steps=150, batch=256), train, test)
    assert alone.error < 0.15 and alone.parity_gap > 0.2
    assert fair.parity_gap < 0.6 * alone.parity_gap and fair.leak_auc < alone.leak_auc - 0.05


def test_the_same_seed_gives_the_same_model() -> None:
    rows = people(300)
    first, again, other = (
        fit(rows, LeakPenalty, 1.0, steps=5, batch=64, seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_wrong_weights_are_errors() -> None:
    for weight, penalty in ((-1.0, LeakPenalty), (1.0, None)):
        with pytest.raises(ValueError, match="give 0 or more, and with more than 0 a penalty"):
            fit(people(100), penalty, weight)
