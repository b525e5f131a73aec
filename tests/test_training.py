"""The training loop: what it leaves behind, when it stops, and what it must not touch."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import Gaussian
from torch import Tensor, nn

from flomi import bounds
from flomi.bounds import BOUNDS, Bound, Scores
from flomi.critics import CRITICS, PlainCritic
from flomi.training.bound import BoundTraining, fit_log_offset, fit_network
from flomi.training.loop import History, Schedule, train
from flomi.training.model import Model

PROBLEM = Gaussian(0.8, 1)
SMALL = BoundTraining(
    negatives="shifts",
    steps=60,
    batch_size=64,
    lr=5e-3,
    weight_decay=0.0,
    warmup=5,
    m=4,
    eval_every=20,
    eval_pairs=16,
)
ROWS, HELD, FRESH = PROBLEM.sample(600, 1), PROBLEM.sample(200, 2), PROBLEM.sample(1000, 3)


def model(bound: str | Bound = "flo", critic: str | None = None, seed: int = 0) -> Model:
    row = bounds.get(bound)
    kind = CRITICS[critic or ("density" if "density" in row.needs else "mlp")]
    assert kind.build is not None
    torch.manual_seed(seed)
    module = kind.build(1, 1, (16, 16))
    if row.name == "ba":
        module.log_marginal = PROBLEM.conditional().log_marginal
    return Model(module, (1,), row).double()


def parameters(m: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in m.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def held_out(m: Model, bound: str | Bound, training: BoundTraining = SMALL) -> float:
    """The number that early stopping watches, computed from outside."""
    with torch.no_grad():
        s = m.scores(*HELD, "shifts", training.eval_pairs, torch.Generator().manual_seed(0))
        return float(bounds.get(bound).monitor(s))


def interrupting(after: int) -> Bound:
    """FLO, and Ctrl-C at that step of training."""
    calls = 0

    def flo(s: Scores) -> Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls > after:
            raise KeyboardInterrupt
        return bounds.flo(s)

    return replace(BOUNDS["flo"], value=flo)


# --- The loop ---------------------------------------------------------------------------------------------------------


class Counter:
    """Members whose validation values are those of a table, by steps taken; all that the loop does is kept."""

    def __init__(self, *values: list[float]) -> None:
        self.table, self.steps, self.rates = torch.tensor(values).float(), 0, list[float]()
        self.kept = [-1] * self.table.shape[0]

    def update(self, rate: float) -> Tensor | None:
        self.steps += 1
        self.rates.append(rate)
        return torch.tensor(float(self.steps))

    def validation(self) -> Tensor:
        return self.table[:, self.steps]

    def keep(self, better: Tensor) -> None:
        self.kept = [self.steps if b else old for b, old in zip(better.tolist(), self.kept, strict=True)]

    def restore(self) -> None:
        self.restored = True


def test_rate_rises_and_falls_to_its_floor() -> None:
    for schedule in (Schedule(100, 10, warmup=20), Schedule(100, 10, warmup=20, fall_from=20)):
        rates = [schedule.rate(k) for k in range(101)]
        assert rates[0] == pytest.approx(1 / 20, rel=1e-3) and rates[100] == pytest.approx(schedule.floor)
        assert max(rates) == max(rates[18:21]) and rates[:19] == sorted(rates[:19])
        assert rates[20:] == sorted(rates[20:], reverse=True)
    assert {Schedule(100, 10, floor=1.0).rate(k) for k in range(100)} == {1.0}


def test_every_member_keeps_its_own_best() -> None:
    task = Counter([0.0, 2.0, 1.0, 1.5], [0.0, 0.0, 0.0, 3.0])
    history = train(task, Schedule(3, every=1, patience=9, from_start=True))
    assert task.kept == [1, 3] and task.restored
    assert (history.step, history.validation) == ([0, 1, 2, 3], [0.0, 1.0, 0.5, 2.25])
    assert history.train == [1.0, 1.0, 2.0, 3.0] and history.best_step == 3


@pytest.mark.parametrize(
    ("values", "options", "steps", "kept"),
    [
        ([0, 0, 1, 1, 1, 1, 9], {"patience": 2}, 4, 2),
        ([0, 0, 1, 1, 1, 1, 9], {"patience": 9, "give_up": 1}, 1, 0),
        ([0, 1, 0, 0, 0, 0, 9], {"patience": 9, "give_up": 3}, 6, 6),
        ([0, 1, 1.05, 1.1, 1.2, 2, 2], {"patience": 9, "least_gain": 0.15}, 6, 5),
    ],
)
def test_when_it_stops_and_what_counts_as_a_gain(
    values: list[float], options: dict[str, int], steps: int, kept: int
) -> None:
    task = Counter(values)
    train(task, Schedule(6, every=1, from_start=True, **options))  # type: ignore[arg-type]
    assert (task.steps, task.kept) == (steps, [kept])


# --- It learns --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_every_bound_trains_and_gets_better_on_rows_not_seen(bound: Bound) -> None:
    m = model(bound)
    before = held_out(m, bound)
    history = fit_network(m, bound, ROWS, HELD, SMALL, seed=0)
    assert history.step == [20, 40, 60]
    assert all(math.isfinite(v) for v in history.train + history.validation)
    assert held_out(m, bound) == max(history.validation) > before


@pytest.mark.slow
def test_flo_comes_close_to_the_truth() -> None:
    m = model()
    fit_network(m, BOUNDS["flo"], ROWS, HELD, replace(SMALL, steps=300), seed=0)
    with torch.no_grad():
        s = m.scores(*FRESH, "all")
    value = bounds.flo(s)
    stderr = float(value.std()) / math.sqrt(len(value))
    assert 0.85 * PROBLEM.mi < float(value.mean()) < PROBLEM.mi + 4 * stderr
    assert float(-s.need("u").mean()) == pytest.approx(PROBLEM.mi, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [n for n, row in BOUNDS.items() if "density" in row.needs],
)
def test_density_bounds_are_trained_by_likelihood(name: str) -> None:
    m, row = model(name), BOUNDS[name]
    with torch.no_grad():
        before = bounds.likelihood(m.scores(*FRESH, "all")).mean()
    fit_network(m, row, ROWS, HELD, replace(SMALL, steps=400, negatives="all", lr=1e-2), seed=0)
    with torch.no_grad():
        s = m.scores(*FRESH, "all")
    assert bounds.likelihood(s).mean() > before + 0.2
    entropy = 0.5 * math.log(
        2 * math.pi * math.e * (1 - 0.64)
    )  # of y given x: no q has a higher expected likelihood
    assert -entropy - 0.1 < s.pos.mean() < -entropy + 4 * float(s.pos.std()) / math.sqrt(1000)
    value = row.value(s)
    known = PROBLEM.jeffreys if name == "club" else PROBLEM.mi
    assert float(value.mean()) == pytest.approx(known, rel=0.25)


def test_log_offset_is_found_and_the_critic_left_alone() -> None:
    critic = PROBLEM.critic(drift=lambda x: torch.sin(2 * x).sum(-1), shift=3.0)
    m = Model(critic, (1,), BOUNDS["infonce"]).double()
    fit_log_offset(m, ROWS, HELD)
    x, y = FRESH
    found = critic(x, y) - m.c(x)
    inside = x[:, 0].abs() < 1.5
    assert (found - critic.pmi(x, y))[inside].abs().mean() < 0.1
    trained = model("infonce")
    before = parameters(trained.critic)
    fit_log_offset(trained, ROWS, HELD)
    assert same(before, parameters(trained.critic))


# --- What it leaves behind --------------------------------------------------------------------------------------------


def test_it_stops_early_and_leaves_the_best_state() -> None:
    training = replace(SMALL, steps=2000, lr=0.05, eval_every=10, patience=3, m=32)
    x, y = PROBLEM.sample(64, 1)  # few rows: soon overfitted
    m = model(critic="joint")
    history = fit_network(m, BOUNDS["flo"], (x, y), HELD, training, seed=0)
    assert history.step[-1] < 2000
    best = max(range(len(history.step)), key=history.validation.__getitem__)
    assert history.best_step == history.step[best] == history.step[-1] - 3 * 10
    assert held_out(m, "flo") == history.validation[best] > history.validation[-1]
    assert not history.interrupted


def test_a_last_step_off_the_grid_is_evaluated() -> None:
    history = fit_network(model(), BOUNDS["flo"], ROWS, HELD, replace(SMALL, steps=25), seed=0)
    assert history.step == [20, 25]


@pytest.mark.parametrize(("after", "evaluated"), [(0, 0), (10, 0), (50, 2)])
def test_ctrl_c_leaves_the_best_so_far(after: int, evaluated: int) -> None:
    m = model()
    initial = parameters(m)
    history = fit_network(m, interrupting(after), ROWS, HELD, SMALL, seed=0)
    assert history.interrupted
    assert len(history.step) == evaluated
    if evaluated:
        assert held_out(m, "flo") == max(history.validation)
        assert history.best_step == history.step[-1]
    else:
        assert same(initial, parameters(m))


def test_other_errors_are_not_swallowed() -> None:
    def broken(s: Scores) -> Tensor:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fit_network(model(), bounds.get(broken), ROWS, HELD, SMALL, seed=0)


def test_a_value_that_is_not_finite_is_never_the_best() -> None:
    calls = 0

    def spoilt(s: Scores) -> Tensor:
        nonlocal calls
        calls += not torch.is_grad_enabled()
        return bounds.flo(s) + (math.inf if calls == 2 and not torch.is_grad_enabled() else 0.0)

    history = fit_network(model(), replace(BOUNDS["flo"], value=spoilt), ROWS, HELD, SMALL, seed=0)
    assert history.validation[1] == -math.inf
    assert history.best_step in (20, 60)


# --- Reproducible, and apart from everything else ---------------------------------------------------------------------


def run(
    seed: int, training: BoundTraining = SMALL, held: tuple[Tensor, Tensor] = HELD
) -> tuple[History, list[Tensor]]:
    m = model()
    return fit_network(m, BOUNDS["flo"], ROWS, held, training, seed=seed), parameters(m)


@pytest.mark.parametrize("negatives", ["shifts", "derangements", "all", "chunked"])
def test_same_seed_same_bits(negatives: str) -> None:
    training = replace(SMALL, negatives=negatives, steps=20)
    (first, p), (second, q) = run(3, training), run(3, training)
    assert first == second
    assert same(p, q)
    assert not same(p, run(4, training)[1])


def test_global_random_numbers_are_left_alone() -> None:
    m = model()
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # type: ignore[union-attr]
    fit_network(m, BOUNDS["flo"], ROWS, HELD, SMALL, seed=0)
    fit_log_offset(m, ROWS, HELD)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert (states[2] == np.random.get_state()[1]).all()


def test_validation_rows_get_no_gradient_and_do_not_train() -> None:
    held = HELD[0].clone().requires_grad_(), HELD[1].clone().requires_grad_()
    one_look = replace(SMALL, eval_every=60)
    _, p = run(0, one_look, held)
    assert held[0].grad is None and held[1].grad is None
    assert same(p, run(0, one_look, PROBLEM.sample(50, 9))[1])


def test_frozen_parameters_stay() -> None:
    m = model()
    frozen = m.critic.first_x  # type: ignore[union-attr]
    frozen.requires_grad_(False)  # type: ignore[operator]
    before, rest = parameters(frozen), parameters(m.critic.heads)  # type: ignore[arg-type]
    fit_network(m, BOUNDS["flo"], ROWS, HELD, replace(SMALL, steps=20), seed=0)
    assert same(before, parameters(frozen))  # type: ignore[arg-type]
    assert not same(rest, parameters(m.critic.heads))  # type: ignore[arg-type]


def test_rows_are_not_changed() -> None:
    before = copy.deepcopy((ROWS, HELD))
    run(0)
    assert same([*before[0], *before[1]], [*ROWS, *HELD])


# --- The model, and its options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
def test_model_has_what_the_bound_needs_and_no_more(bound: Bound) -> None:
    m = model(bound)
    assert (m.baseline is not None) == ("baseline" in bound.needs)
    assert (m.drift is None) == m.is_density == ("density" in bound.needs)
    assert m.a(HELD[0]).shape == m.c(HELD[0]).shape == (200,)
    assert (m.marginal(HELD[1]) is not None) == m.is_density


def test_own_baseline_goes_before_a_network() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.slope = nn.Parameter(torch.zeros((), dtype=torch.float64))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.slope * (x * y).sum(-1)

        def baseline(self, x: Tensor) -> Tensor:
            return x.new_ones(len(x))

    m = Model(PlainCritic(Own(), (1,), (1,)), (1,), BOUNDS["tuba"]).double()
    assert m.baseline is None
    assert torch.equal(m.a(HELD[0]), torch.ones(200, dtype=torch.float64))
    assert torch.equal(m.scores(*HELD, "all").need("baseline"), m.a(HELD[0]))


def test_batches_larger_than_the_data_are_cut() -> None:
    x, y = PROBLEM.sample(5, 0)
    history = fit_network(model(), BOUNDS["infonce"], (x, y), HELD, replace(SMALL, m=100), seed=0)
    assert history.ceiling is not None
    assert math.isfinite(history.train[-1])


@pytest.mark.parametrize("name", ["steps", "batch_size", "m", "eval_every", "eval_pairs", "patience"])
@pytest.mark.parametrize("value", [0, -3])
def test_counts_below_one_are_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least .*found {value}"):
        replace(SMALL, **{name: value})


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan])
def test_learning_rates_must_be_positive(lr: float) -> None:
    with pytest.raises(ValueError, match="lr must be positive"):
        BoundTraining(lr=lr)


def test_unknown_negatives_are_refused() -> None:
    with pytest.raises(ValueError, match="'shuffle' is not known"):
        fit_network(model(), BOUNDS["flo"], ROWS, HELD, replace(SMALL, negatives="shuffle"), seed=0)


def test_progress_shows_the_validation_value(capsys: pytest.CaptureFixture[str]) -> None:
    show: Callable[..., History] = fit_network
    show(model(), BOUNDS["infonce"], ROWS, HELD, SMALL, seed=0, progress="fold 1")
    shown = capsys.readouterr().err
    assert "fold 1" in shown and "validation 0." in shown and "of at most" in shown


def test_steps_take_the_precision_asked_for_and_evaluation_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[bool, set[str]] = {True: set(), False: set()}
    matrix = Model.scores

    def watched(self: Model, *args: object) -> object:
        seen[torch.is_grad_enabled()].add(torch.get_float32_matmul_precision())
        return matrix(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "scores", watched)
    before = torch.get_float32_matmul_precision()
    fit_network(model(), BOUNDS["flo"], ROWS, HELD, replace(SMALL, precision="medium"), seed=0)
    assert seen == {True: {"medium"}, False: {before}} and torch.get_float32_matmul_precision() == before
