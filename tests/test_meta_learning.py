"""Meta-learning: the tasks, both learners, the penalty against known answers, training side by side, and the table's findings."""

from __future__ import annotations

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from flomi.applications import meta_learning as app
from flomi.reproduce import meta_learning


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Tasks ---------------------------------------------------------------------------------------------------------------


def test_sinusoids_are_those_of_finn_et_al() -> None:
    some = app.sinusoids(4000, generator())
    for values, low, high in ((some.amplitude, 0.1, 5.0), (some.phase, 0.0, math.pi)):
        assert low <= float(values.min()) < low + 0.02 and high - 0.02 < float(values.max()) <= high
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.1)
    data = some.data(5, generator())
    assert float(data.x.min()) < -4.9 and float(data.x.max()) > 4.9 and data.x.abs().max() <= 5
    i = 17
    wanted = [float(some.amplitude[i]) * math.sin(float(x) - float(some.phase[i])) for x in data.x[i]]
    assert data.y[i].tolist() == pytest.approx(wanted, abs=1e-5)
    assert not torch.equal(some.data(5, generator(1)).x, data.x)


def test_an_episode_splits_the_rows_of_every_task() -> None:
    data = app.sinusoids(6, generator()).data(20, generator())
    x, y, new_x, new_y = data.episodes(7, generator())
    assert x.shape == y.shape == (6, 7) and new_x.shape == new_y.shape == (6, 13)
    for found, rows in ((torch.cat([x, new_x], 1), data.x), (torch.cat([y, new_y], 1), data.y)):
        assert torch.equal(found.sort(1).values, rows.sort(1).values)
    place = (data.x[:, None] == x[..., None]).long().argmax(-1)
    assert torch.equal(data.y.gather(1, place), y)  # pairs stay pairs
    assert not torch.equal(x[0], data.x[0, :7]) and not torch.equal(place[0], place[1])


# Learners ------------------------------------------------------------------------------------------------------------


def test_the_order_of_the_examples_does_not_matter() -> None:
    learner = app.SetLearner().double()
    x, y, new_x, _ = (v.double() for v in app.sinusoids(5, generator()).data(30, generator()).episodes(10))
    order = torch.randperm(10)
    found = learner(x, y, new_x)
    assert torch.allclose(learner(x[:, order], y[:, order], new_x), found, atol=1e-12)
    assert not torch.allclose(learner(x, y[:, order], new_x), found, atol=1e-3)  # which y is whose does


def test_maml_takes_the_steps_that_are_written_by_hand() -> None:
    """f(x) = a x + b: its gradients fit on a line."""
    learner = app.MAML(hidden=(), steps=2, rate=0.05).double()
    x, y = torch.randn(2, 3, 6, dtype=torch.float64)
    a, b = (p.detach().expand(3, 1) for p in (learner.net[0].weight[0], learner.net[0].bias))
    for _ in range(2):
        residual = a * x + b - y
        a, b = (
            a - 0.05 * (2 * residual * x).mean(1, keepdim=True),
            b - 0.05 * (2 * residual).mean(1, keepdim=True),
        )
    new_x = torch.randn(3, 4, dtype=torch.float64)
    assert torch.allclose(learner(x, y, new_x), a * new_x + b, atol=1e-12)


def test_maml_is_trained_through_its_step() -> None:
    """The outer gradient, second derivatives included, against finite differences."""
    learner = app.MAML(hidden=(), steps=1, rate=0.1).double()
    x, y, new_x, new_y = torch.randn(4, 2, 5, dtype=torch.float64)

    def outer() -> Tensor:
        return (learner(x, y, new_x) - new_y).square().mean()

    outer().backward()
    weight = learner.net[0].weight
    with torch.no_grad():
        weight += 1e-5
        above = float(outer())
        weight -= 2e-5
        below = float(outer())
    assert float(weight.grad) == pytest.approx((above - below) / 2e-5, rel=1e-6)
    first_order = 0.0  # what it would be if the step were taken as constant
    for i in range(2):
        p = learner.adapt(x[i], y[i])
        residual = p["0.weight"][0, 0] * new_x[i] + p["0.bias"][0] - new_y[i]
        first_order += (2 * residual * new_x[i]).mean().item() / 2
    assert abs(float(weight.grad) - first_order) > 1e-2


# The penalty ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mi", "slope"), [(-0.5, 0.0), (0.0, 5.0), (1e-12, 5.0), (4.0, 0.25)])
def test_the_root_has_a_finite_slope(mi: float, slope: float) -> None:
    value = torch.tensor(mi, dtype=torch.float64, requires_grad=True)
    found = app.root(value)
    found.backward()
    assert value.grad is not None and value.grad.isfinite()
    if mi != 0:  # at 0 itself any slope from 0 to 5 will do
        assert value.grad.item() == pytest.approx(slope, rel=2e-2)
    assert 0 <= value.grad.item() <= 5 + 1e-9
    assert found.item() == pytest.approx(math.sqrt(max(mi, 0.0)), abs=0.1)
    assert (found.item() == 0.0) == (mi <= 0)


def gaussian_rows(n: int, spread: float) -> tuple[Tensor, Tensor, float]:
    """W, r and I = (d / 2) log(1 + spread^2) of d = 2 numbers with noise 1."""
    r = spread * torch.randn(n, 2)
    return r + torch.randn(n, 2), r, math.log(1 + spread**2)


def test_flo_with_the_exact_critic_reaches_the_truth_from_below() -> None:
    torch.manual_seed(0)
    penalty = app.InformationPenalty(2)
    optimiser = torch.optim.Adam(penalty.parameters(), 1e-2)
    for _ in range(300):
        w, r, _ = gaussian_rows(128, 1.0)
        optimiser.zero_grad()
        (-penalty(w, r)).backward()
        optimiser.step()
    w, r, truth = gaussian_rows(2000, 1.0)
    assert (
        truth - 0.15 < penalty(w, r).item() < truth + 0.05
    )  # 0.69; a row's PMI varies by 0.9, so its mean by 0.02


def test_information_is_enclosed(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = app.SetLearner(dim=2)
    monkeypatch.setattr(learner, "encode", lambda x, y: 3 * y[:, :1].expand(-1, 2) * torch.tensor([1.0, 0.0]))
    rows = torch.randn(2000, 20)
    low, high = app.information(learner, app.Tasks(rows, rows), n=2000)
    truth = 0.5 * math.log(10)
    assert low - 0.05 < truth < high + 0.05 and high - low < 0.1


def test_both_sides_of_the_game_get_their_gradient() -> None:
    """The learner's does not depend on the dual's term, and u climbs the bound that the learner descends."""
    torch.manual_seed(0)
    game = app.Game(app.SetLearner(), app.InformationPenalty(8))
    assert game.penalty is not None
    with torch.no_grad():  # codes far enough apart for the bound to be above 0
        game.learner.encoder[-1].weight *= 5
        game.penalty.u.net[-1].weight.normal_(0, 0.1)
        game.penalty.u.net[-1].bias -= 0.5
    episode = app.sinusoids(25, generator()).data(20, generator()).episodes(10, generator())
    noise = torch.randn(25, 8, generator=generator())
    game(torch.tensor(0.7), noise, *episode).backward()
    r = game.learner.encode(*episode[:2])
    told = game.penalty(game.learner.blur(r, noise), r)
    assert told > 0.1
    climb = torch.autograd.grad(told, list(game.penalty.parameters()), retain_graph=True)
    for p, slope in zip(game.penalty.parameters(), climb, strict=True):
        assert torch.allclose(p.grad, -slope, atol=1e-6)
    loss = (game.learner.decode(game.learner.blur(r, noise), episode[2]) - episode[3]).square().mean()
    whole = torch.autograd.grad(loss + 0.7 * app.root(told), list(game.learner.parameters()))
    for p, slope in zip(game.learner.parameters(), whole, strict=True):
        assert torch.allclose(p.grad, slope, rtol=1e-4, atol=1e-5)


# Training ------------------------------------------------------------------------------------------------------------


def trained(weights: list[float], steps: int, lr: float = 3e-3) -> list[app.SetLearner]:
    torch.manual_seed(0)
    first = app.SetLearner()
    learners = [copy.deepcopy(first) for _ in weights]
    data = app.sinusoids(20, generator()).data(20, generator())
    torch.manual_seed(1)  # every u starts alike
    app.fit(learners, [data] * len(weights), weights, steps=steps, lr=lr, generator=generator())
    return learners


def test_learners_side_by_side_are_those_trained_alone() -> None:
    together, alone = trained([0.0, 2.0], 10), trained([0.0], 10)
    for p, q in zip(together[0].parameters(), alone[0].parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-5)
    differ = [
        not torch.allclose(p, q, atol=1e-5)
        for p, q in zip(*(learner.parameters() for learner in together), strict=True)
    ]
    assert all(differ[:-2])  # two weights, two learners


@pytest.mark.slow
def test_the_penalty_takes_information_away() -> None:
    data = app.sinusoids(20, generator()).data(20, generator())
    torch.manual_seed(2)
    without, with_it = (
        app.information(learner, data, generator=generator()) for learner in trained([0.0, 3.0], 150, lr=1e-2)
    )
    assert with_it[1] < without[0] - 0.1
    assert without[1] > 0.5


def test_the_norm_of_every_learners_gradient_is_bounded() -> None:
    p, q = torch.zeros(2, 3), torch.zeros(2, 1, 1)
    p.grad, q.grad = torch.tensor([[3.0, 0, 0], [0.3, 0, 0]]), torch.tensor([[[4.0]], [[0.4]]])
    app._clip([p, q], 1.0)
    assert p.grad[:, 0].tolist() == pytest.approx([0.6, 0.3]) and q.grad.flatten().tolist() == pytest.approx(
        [0.8, 0.4]
    )


def test_maml_learns_and_reports() -> None:
    torch.manual_seed(0)
    learner, data = app.MAML((16, 16)), app.sinusoids(30, generator()).data(20, generator())
    before, seen = float(app.error(learner, data, generator=generator()).mean()), list[int]()
    app.fit([learner], [data], steps=100, lr=1e-2, generator=generator(), watch=seen.append, every=40)
    assert seen == [40, 80, 100]
    assert float(app.error(learner, data, generator=generator()).mean()) < 0.92 * before


@pytest.mark.parametrize(
    ("weights", "message"),
    [([-1.0], "give 0 or more"), ([1.0, 1.0], "as many weights or none")],
)
def test_wrong_weights_are_errors(weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        app.fit([app.SetLearner()], [app.sinusoids(4).data()], weights, steps=1)


def test_learners_that_are_not_alike_are_an_error() -> None:
    """One's code runs with the other's parameters: a noise of its own would be lost without a word."""
    data = app.sinusoids(4).data()
    for other in (app.SetLearner(noise=0.5), app.SetLearner(dim=4)):
        with pytest.raises(ValueError, match="must be alike"):
            app.fit([app.SetLearner(), other], [data, data], [0.0, 0.0], steps=1)


def test_maml_takes_no_weight() -> None:
    with pytest.raises(ValueError, match="only to learners of type SetLearner"):
        app.fit([app.MAML()], [app.sinusoids(4).data()], [0.1], steps=1)


# The experiment's table -----------------------------------------------------------------------------------------------


def table() -> pd.DataFrame:
    """Two seeds; validation prefers weight 1 with seed 0, and weight 0 with seed 1, whatever the test tasks say."""
    rows = []
    for seed in (0, 1):
        for weight in (0.0, 1.0):
            for step in (1, 2):
                better = (weight == 1) == (seed == 0)
                rows.append(
                    {"seed": seed, "tasks": 10, "method": "set", "weight": weight, "adapt": 0, "step": step,
                     "last": step == 2, "train": 0.5 + 0.25 * weight, "known": 0.75, "test": 2.0 + weight * (seed - 0.5) / 2,
                     "validation": (1.0 if better else 1.5) + (0.5 if step == 2 else 0.0), "mi_low": 1.0, "mi_high": 2.0}
                )  # fmt: skip
        rows.append({**rows[-1], "method": "maml", "weight": 0.0, "adapt": 1, "test": 3.0})
    return pd.DataFrame(rows)


def test_the_weight_is_chosen_by_validation_tasks() -> None:
    assert meta_learning.chosen(table()).weight.tolist() == [1.0, 0.0]
    assert np.allclose(meta_learning.paired(table(), 10), [-0.25, 0.0])
    assert (meta_learning.stopped(table()).step == 1).all() and (
        meta_learning.stopped(table()).weight == 0
    ).all()


def test_findings_of_two_seeds() -> None:
    found = {finding.what: finding.ours for finding in meta_learning.compare(table())}
    assert (
        found["10 tasks: chosen weight minus weight 0, test error, paired"]
        == "-0.125 ± 0.125 (weight of each seed: 1, 0)"
    )
    assert (
        found["10 tasks: gap, test minus train, weight 0 and chosen weight"]
        == "1.500 ± 0.000 and 1.250 ± 0.250"
    )
    assert found["10 tasks: MAML, test error after 1 steps"] == "3.000"
