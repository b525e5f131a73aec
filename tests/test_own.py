"""A user's own critic or bound: it runs in any usual form, and what can't be used is said in one line before training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flomi import MIEstimator, bounds, estimate
from flomi.critics import ConditionalGaussian, PlainCritic
from flomi.training.bound import BoundTraining, fit_log_offset, fit_network
from flomi.training.candidate import fresh_copy
from flomi.training.model import Model, training_mode

RHO = 0.8
TRUTH = -math.log(1 - RHO**2) / 2
QUICK: dict[str, Any] = {"effort": "fast", "steps": 50, "n_folds": 2}


def gaussian(n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 1))
    return x, RHO * x + math.sqrt(1 - RHO**2) * rng.normal(size=(n, 1))


class Net(nn.Module):
    """A perceptron on (x, y) with `extra` layers in it; `change` spoils what it returns."""

    def __init__(self, *extra: nn.Module, change: Callable[[Tensor], Any] = lambda g: g) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 16), *extra, nn.ReLU(), nn.Linear(16, 1))
        self.change = change

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.change(self.net(torch.cat([x, y], -1)).squeeze(-1))


class Formula(nn.Module):
    """The exact PMI, without a parameter."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x.square() / 2 - (x - RHO * y).square() / (2 * (1 - RHO**2))).squeeze(-1) + TRUTH


class FormulaWithDual(Formula):
    def u(self, x: Tensor, y: Tensor) -> Tensor:
        return -self(x, y)


class Encoders(nn.Module):
    """Batch normalisation of x alone and of y alone."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = (
            nn.Sequential(nn.Linear(1, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8)) for _ in "xy"
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.x(x) * self.y(y)).sum(-1)


class PlainDensity(nn.Module):
    """log q(y|x) and log q(y), as a module that knows nothing of encodings."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(()))
        self.log_std = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        z = (y - self.slope * x) * torch.exp(-self.log_std)
        return (-z.square() / 2 - self.log_std - math.log(2 * math.pi) / 2).squeeze(-1)

    def marginal(self, y: Tensor) -> Tensor:
        return (-y.square() / 2 - math.log(2 * math.pi) / 2).squeeze(-1)


# --- What can't be used -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g[:, None], r"shape \(16, 1\): add .squeeze"),
        (lambda g: g[:, None] - g, "score row i of x with row i of y only"),
        (lambda g: g.sum(), "one score a row"),
        (lambda g: g.long(), "floating-point numbers; found torch.int64"),
        (lambda g: (g, g), "found tuple"),
        (lambda g: g * math.nan, "16 of 16 that are not"),
        (lambda g: g.detach(), "do not depend on them"),
        (lambda g: g - g.mean(), "another score when other rows are beside it"),
        (lambda g: g @ torch.zeros(3), r"failed on 16 rows, x \[16, 1\] and y \[16, 1\]: RuntimeError"),
    ],
)
def test_a_critic_of_the_wrong_kind_is_told_so_before_training(
    change: Callable[[Tensor], Any], said: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        estimate(*gaussian(), critic=Net(change=change), **QUICK)


def test_a_critic_of_one_argument_and_a_bad_dual_are_told_so() -> None:
    with pytest.raises(ValueError, match=r"TypeError: .*positional argument"):
        estimate(*gaussian(), critic=nn.Linear(1, 1), **QUICK)
    critic = Net()
    critic.u = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"your u\(x, y\) failed"):
        estimate(*gaussian(), critic=critic, **QUICK)


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        (lambda s: s.pos * math.nan, "16 of 16 that are not"),
        (lambda s: s.pos.mean(), r"shape \(16,\); found shape \(\)"),
        (lambda s: 1.0, "found float"),
        (lambda s: torch.ones_like(s.pos), "nothing to maximise"),
        (lambda s: s.missing, "failed on scores of 16 rows with 15 negatives each: AttributeError"),
    ],
)
def test_a_bound_of_the_wrong_kind_is_told_so(bound: Callable[[bounds.Scores], Any], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        estimate(*gaussian(), critic="joint", bound=bound, **QUICK)


@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_training_that_is_never_finite_is_an_error(spoilt: float) -> None:
    def bound(s: bounds.Scores) -> Tensor:
        return bounds.nwj(s) * (1.0 if torch.is_grad_enabled() else spoilt)

    with pytest.raises(ValueError, match="training diverged"):
        estimate(*gaussian(), critic="joint", bound=bound, **QUICK)


def test_a_critic_that_is_infinite_for_some_pairs_is_an_error() -> None:
    class Spiked(Net):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x, y) + torch.where((x - y).squeeze(-1) > 2.5, math.inf, 0.0)

    with pytest.raises(ValueError, match=r"training diverged|not finite"):
        estimate(*gaussian(), critic=Spiked(), bound="js", **QUICK)


# --- What runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bound", ["flo", *(pytest.param(n, marks=pytest.mark.slow) for n in ("nwj", "infonce"))]
)
@pytest.mark.parametrize("critic", [Formula(), pytest.param(FormulaWithDual(), marks=pytest.mark.slow)])
def test_a_closed_formula_runs_without_training(critic: nn.Module, bound: str) -> None:
    r = estimate(*gaussian(1000), critic=critic, bound=bound, **QUICK)
    assert abs(r.mi - TRUTH) < 0.1 and (bound == "flo" or not r.history)


@pytest.mark.usefixtures("short_offsets")
def test_a_frozen_critic_is_kept() -> None:
    critic = Net(nn.BatchNorm1d(16)).requires_grad_(False)
    estimator = MIEstimator(critic, bound="nwj", **QUICK).fit(*gaussian())
    own = estimator.critics_[0].model.critic.module
    for name, value in critic.state_dict().items():
        assert torch.equal(own.state_dict()[name], value)


def test_only_trainable_layers_start_afresh() -> None:
    critic = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    critic[:2].requires_grad_(False)
    for norm in (critic[1], critic[3]):
        norm.running_mean.fill_(5.0)
    fresh = fresh_copy(critic, (1,), (1,)).module
    assert torch.equal(fresh[0].weight, critic[0].weight) and not torch.equal(
        fresh[2].weight, critic[2].weight
    )
    assert fresh[1].running_mean[0] == 5 and fresh[3].running_mean[0] == 0


def test_frozen_parts_stay_in_evaluation_while_the_rest_trains() -> None:
    encoder = nn.Sequential(nn.Linear(1, 1), nn.Dropout(), nn.BatchNorm1d(1)).requires_grad_(False)
    model = nn.Sequential(encoder, nn.Dropout(), nn.Linear(1, 1)).eval()
    training_mode(model)
    assert not any(part.training for part in encoder.modules())
    assert model[1].training and model[2].training


@pytest.mark.usefixtures("short_offsets")
def test_a_module_in_double_precision_gets_double_precision(tmp_path: Any) -> None:
    x, y = gaussian()
    estimator = MIEstimator(Net().double(), "tuba", **QUICK).fit(x, y)
    assert {p.dtype for p in estimator.critics_[0].model.parameters()} == {torch.float64}
    path = estimator.save(tmp_path / "own")
    again = MIEstimator.load(path, critic=Net().double())
    assert np.array_equal(again.pmi(x, y), estimator.pmi(x, y))


def test_batch_normalisation_of_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="use LayerNorm"):
        estimate(*gaussian(), critic=Net(nn.BatchNorm1d(16)), **QUICK)


@pytest.mark.slow
def test_batch_normalisation_of_sides_is_not_refused() -> None:
    r = estimate(*gaussian(2000), critic=Encoders(), effort="fast", steps=300, n_folds=2)
    assert abs(r.bound - TRUTH) < 0.15


def test_dropout_is_off_where_the_log_offset_is_fitted_and_after() -> None:
    x, y = (torch.from_numpy(v).float() for v in gaussian())
    seen: list[bool] = []
    net = Net(nn.Dropout(0.5))
    net.register_forward_hook(lambda module, *_: seen.append(module.training))
    model = Model(PlainCritic(net, (1,), (1,)), (1,), bounds.BOUNDS["flo"])
    fit_network(model, bounds.BOUNDS["flo"], (x, y), (x, y), BoundTraining(steps=2), 0)
    assert any(seen)
    seen.clear()
    fit_log_offset(model, (x, y), (x, y))
    assert seen and not any(seen)


# --- Densities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["doe", *(pytest.param(n, marks=pytest.mark.slow) for n in ("club", "l1out", "ba"))]
)
def test_density_bounds_want_a_density(name: str) -> None:
    with pytest.raises(ValueError, match=r"marginal\(y\) that returns log q\(y\), and Net has none"):
        estimate(*gaussian(), critic=Net(), bound=name, **QUICK)
    r = estimate(
        *gaussian(1000), critic=PlainDensity(), bound=name, effort="fast", n_folds=2, steps=100, lr=0.05
    )
    assert abs(r.mi - TRUTH) < 0.15


def test_densities_want_a_density_bound_and_ba_the_known_marginal() -> None:
    with pytest.raises(ValueError, match="goes with bound='club'"):
        estimate(*gaussian(), critic=ConditionalGaussian(1, 1), **QUICK)
    with pytest.raises(ValueError, match="log_marginal="):
        estimate(*gaussian(), critic=ConditionalGaussian(1, 1), bound="ba", **QUICK)
    own = replace(bounds.BOUNDS["club"], name="mine")
    assert estimate(*gaussian(), critic=ConditionalGaussian(1, 1), bound=own, **QUICK).bound_name == "mine"
