"""Residual critics and their training: the contract of a critic, the start, the limits, and what they may and may not learn."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from flomi.bounds import BOUNDS
from flomi.critics.base import log_mean_off
from flomi.critics.copula import EllipticalCritic, NullCritic
from flomi.critics.features import canonical_inputs
from flomi.critics.residual import QuadraticNetwork, ResidualCritic
from flomi.training.bound import BoundTraining
from flomi.training.candidate import Candidate, FitSettings, fit
from flomi.training.ensemble import (
    EnsembleTraining,
    _Contrast,
    _Stack,
    fit_base,
    fit_ensemble,
)

SMALL = EnsembleTraining(members=2, steps=120, width=32, depth=2, features=8)


def gaussian(n: int = 600, d: int = 2, rho: float = 0.7, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, e = (torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, rho * x + math.sqrt(1 - rho**2) * e


def turned(n: int = 1500, seed: int = 0) -> tuple[Tensor, Tensor]:
    """y = |x| + noise: no correlation, MI of about 1 nat."""
    generator = torch.Generator().manual_seed(seed)
    x, e = (torch.randn(n, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return x, x.abs() + 0.3 * e


def untrained(base: str = "student", members: int = 3) -> tuple[ResidualCritic, Tensor, Tensor]:
    x, y = gaussian()
    below = {
        "student": lambda: EllipticalCritic.fit(x, y, heavy_tails=True),
        "null": NullCritic,
        "network": lambda: QuadraticNetwork(*canonical_inputs(x, y, rotate=False)),
    }[base]()
    critic = ResidualCritic(
        below, *canonical_inputs(x, y, rotate=True), members=members, width=16, features=4
    )
    return critic, x, y


@pytest.mark.parametrize("base", ["student", "null", "network"])
def test_contract_of_a_critic(base: str) -> None:
    critic, x, y = untrained(base)
    for p in critic.tower_y.parameters():  # away from the start
        p.data += 0.1
    a, b = critic.encode(x[:50], y[:50])
    matrix = critic.matrix(a, b)
    g, u = critic.positives(a, b)
    torch.testing.assert_close(matrix.diagonal(), g, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(critic.pairs(a[:, None], b[None]), matrix, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(critic(x[:50], y[:50]), g)
    assert torch.equal(u, -g)
    again, *_ = untrained(base)
    again.load_state_dict(critic.state_dict())
    assert torch.equal(again(x, y), critic(x, y))


@pytest.mark.parametrize("base", ["student", "null", "network"])
def test_starts_at_its_base_exactly(base: str) -> None:
    critic, x, y = untrained(base)
    torch.testing.assert_close(
        critic(x, y) - critic(x[:1], y[:1]) + critic.base(x[:1], y[:1]),
        (critic.base(x, y) + critic.encode(x, y)[0][:, 12] - critic.encode(x[:1], y[:1])[0][:, 12]).to(torch.float32),
        rtol=1e-4, atol=1e-4, check_dtype=False,
    )  # fmt: skip


def test_members_matrix_averages_to_the_critic() -> None:
    critic, x, y = untrained()
    for p in critic.tower_y.parameters():
        p.data += 0.1
    hx, hy = (i.expand(i(v[:40])).expand(3, -1, -1) for i, v in ((critic.inputs_x, x), (critic.inputs_y, y)))
    g0 = critic.base.matrix(*critic.base.encode(x[:40], y[:40])).float()
    mean = critic.members_matrix(hx, hy, g0.expand(3, -1, -1)).mean(0)
    torch.testing.assert_close(mean, critic.matrix(*critic.encode(x[:40], y[:40])), rtol=1e-4, atol=1e-4)


def test_objective_and_its_gradient() -> None:
    g = torch.randn(2, 7, 7, dtype=torch.float64, requires_grad=True)
    loss = _Contrast.apply(g)
    rows, columns = (g.logsumexp(k) - math.log(7) for k in (2, 1))
    expected = ((rows + columns) / 2 - g.diagonal(dim1=1, dim2=2)).mean(1)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(v.sum(), g, retain_graph=True)[0] for v in (loss, expected))
    )
    huge = (300 * torch.randn(1, 9, 9)).requires_grad_()
    value = _Contrast.apply(huge)
    assert value.isfinite().all() and torch.autograd.grad(value.sum(), huge)[0].isfinite().all()


def test_log_mean_off_leaves_out_the_diagonal() -> None:
    g = torch.zeros(4, 4) + 99 * torch.eye(4)
    assert float(log_mean_off(g)) == pytest.approx(0.0, abs=1e-6)


def test_optimiser_is_adamw() -> None:
    start = torch.randn(3, 4)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))

    def loss(w: Tensor) -> Tensor:
        return (w**2).sum() + w.sin().sum()

    task = _Stack([("layer.weight", ours)], 0.01, 0.01 * 0.5, lambda: loss(ours)[None], Tensor)
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.99), weight_decay=0.5)
    for _ in range(20):
        task.update(1.0)
        other.zero_grad()
        loss(theirs).backward()
        other.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_learns_what_its_base_cannot_say() -> None:
    x, y = turned()
    base = EllipticalCritic.fit(x, y)
    critic, gain, history = fit_ensemble(x, y, 300, base, SMALL)
    assert gain.validation > 5 * gain.stderr and gain.training > 0.2
    fresh = critic.matrix(*critic.encode(*turned(1000, seed=1)))
    assert float(fresh.diagonal().mean() - log_mean_off(fresh)) > 0.4
    assert history.validation[0] < 0.1 < max(history.validation)


def test_groups_larger_than_a_block_of_validation_rows_are_learned_from() -> None:
    x, y = turned(5600)
    groups = torch.arange(8).repeat_interleave(700)
    order = torch.randperm(5600, generator=torch.Generator().manual_seed(0))
    training = EnsembleTraining(members=1, steps=60, width=32, depth=2, features=8)
    _, gain, history = fit_ensemble(x[order], y[order], 1200, NullCritic(), training, groups=groups[order])
    assert all(math.isfinite(value) for value in history.validation)
    assert gain.validation > 0.3


def test_stays_at_the_base_where_that_is_the_truth() -> None:
    x, y = gaussian(2000)
    base = EllipticalCritic.fit(x, y)
    critic, gain, _ = fit_ensemble(x, y, 400, base, SMALL)
    assert abs(gain.validation) < 3 * gain.stderr + 0.01
    assert float((critic(x, y) - base(x, y)).abs().mean()) < 0.15


def test_scores_stay_within_what_the_rows_show() -> None:
    x, y = turned()
    critic, _, _ = fit_ensemble(x, y, 300, EllipticalCritic.fit(x, y), SMALL)
    far = critic.matrix(*critic.encode(1e6 * x, -1e6 * y))
    assert float(far.max()) <= float(critic(x, y).max()) + 1e-5
    assert float(far.min()) >= -math.log(len(x)) - 1e-5


@pytest.mark.slow
def test_same_seed_same_bits() -> None:
    x, y = turned(400)
    first, second, other = (fit_ensemble(x, y, 80, NullCritic(), SMALL, seed=s)[0](x, y) for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_interrupt_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter(range(10**6))
    update = _Stack.update

    def interrupting(self: _Stack, rate: float) -> Tensor:
        if next(steps) == 60:
            raise KeyboardInterrupt
        return update(self, rate)

    monkeypatch.setattr(_Stack, "update", interrupting)
    x, y = turned(600)
    critic, gain, history = fit_ensemble(x, y, 120, NullCritic(), SMALL)
    assert history.interrupted and gain.validation > 0
    assert critic(x, y).isfinite().all()


@pytest.mark.slow
def test_quadratic_layer_finds_a_gaussian_from_random_weights() -> None:
    x, y = gaussian(4000, 3, rho=0.8)
    net = fit_base(QuadraticNetwork(*canonical_inputs(x, y, rotate=False)), x, y, 600)
    g = net.matrix(*net.encode(*gaussian(2000, 3, rho=0.8, seed=5)))
    assert abs(float(g.diagonal().mean() - log_mean_off(g)) - -1.5 * math.log(1 - 0.64)) < 0.12


def test_a_candidate_names_the_base_that_it_was_given() -> None:
    x, y = gaussian(300)
    rows, validation = (x[:240], y[:240]), (x[240:], y[240:])
    settings = FitSettings(BoundTraining(), replace(SMALL, steps=2), (8,), "rank", "cpu")

    def base_of(name: str, base: Candidate | None) -> str | None:
        return fit(name, BOUNDS["flo"], rows, validation, settings, seed=0, base=base).base

    form = fit("gaussian", BOUNDS["flo"], rows, validation, settings, seed=0)
    assert base_of("residual", form) == "gaussian"
    assert base_of("residual", None) is base_of("network", form) is None


def test_inputs_survive_constant_and_repeated_columns() -> None:
    x, y = gaussian(300, 3)
    x[:, 1] = x[:, 0]
    x[:, 2] = 1.0
    inputs, _ = canonical_inputs(x, y, rotate=True)
    assert inputs.dim == 1 and inputs.expand(inputs(x)).isfinite().all()
