"""Optimisation on discrete tables: with free tables g, u and a, every bound ends at its stated optimum, from any start."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from problems import Discrete, expect
from torch import Tensor

from flomi import bounds
from flomi.bounds import BOUNDS, Bound, Scores

TABLE = Discrete.random(3, 4, seed=3)
STARTS = range(20)


def starts(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(2 * torch.randn(s, dtype=torch.float64, generator=generator)).requires_grad_() for s in shapes]


def maximise(objective: Callable[[], Tensor], parameters: list[Tensor]) -> float:
    """Full-batch quasi-Newton ascent until the gradient vanishes; the final value."""
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=3000,
        history_size=30,
        tolerance_grad=1e-11,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = -objective()
        loss.backward()
        return loss

    optimiser.step(closure)  # type: ignore[arg-type]
    return objective().item()


@pytest.mark.parametrize("seed", STARTS)
def test_flo_reaches_i_and_u_minus_pmi_from_any_start(seed: int) -> None:
    g, u = starts(seed, (3, 4), (3, 4))
    value = maximise(lambda: expect(TABLE.population(g, u), bounds.flo), [g, u])
    assert value == pytest.approx(TABLE.mi, abs=1e-9)
    assert (u + TABLE.pmi).abs().max() < 1e-5
    drift = (g - TABLE.pmi).detach()
    assert (drift - drift.mean(1, keepdim=True)).abs().max() < 1e-5
    assert drift.mean(1).std() > 0.01  # and it is any function of x


def test_flo_needs_no_more_than_one_negative() -> None:
    g, u = starts(1, (3, 4), (3, 4))
    value = maximise(lambda: expect(TABLE.enumerated(g, 1, u), bounds.flo), [g, u])
    assert value == pytest.approx(TABLE.mi, abs=1e-9)
    assert (u + TABLE.pmi).abs().max() < 1e-5


def test_u_of_x_only_ends_at_the_renyi_divergence_of_order_one_half() -> None:
    for seed in range(5):
        g, a = starts(seed, (3, 4), (3,))
        value = maximise(lambda g=g, a=a: expect(TABLE.population(g, a=a), bounds.flo_ux), [g, a])
        assert value == pytest.approx(TABLE.renyi_half, abs=1e-9)
        assert value < TABLE.mi - 1e-3
        pmi = BOUNDS["flo-ux"].pmi(TABLE.population(g, a=a))
        assert (pmi - TABLE.pmi.reshape(-1)).abs().max() < 1e-5


# With infinitely many candidates the anchor's own class has no weight and its objective is UBA's: it is tested below.
CONVEX = [row for row in BOUNDS.values() if not row.criterion and row.name != "anchor"]


@pytest.mark.parametrize("bound", CONVEX, ids=lambda row: row.name)
def test_every_objective_ends_at_the_pmi(bound: Bound) -> None:
    g, u, a, marginal = starts(5, (3, 4), (3, 4), (3,), (4,))

    def scores() -> Scores:
        if "density" not in bound.needs:
            return TABLE.population(g, u, a)
        known = TABLE.py.log() if bound.name in ("ba", "club", "l1out") else torch.log_softmax(marginal, 0)
        return TABLE.population(torch.log_softmax(g, 1), marginal=known)

    used = [
        t
        for t, need in ((g, "neg"), (u, "u"), (a, "baseline"), (marginal, "marginal"))
        if need in bound.needs | {"neg"}
    ]
    maximise(lambda: expect(scores(), bound.objective or bound.value), used)
    assert expect(scores(), bound.value).item() == pytest.approx(TABLE.best(bound), abs=1e-5)
    assert (bound.pmi(scores()) - TABLE.pmi.reshape(-1)).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("bound", [row for row in BOUNDS.values() if row.criterion], ids=lambda row: row.name)
def test_gradients_without_a_value_lead_there_too(bound: Bound) -> None:
    (g,) = starts(6, (3, 4))
    state = bound.state() if bound.state else None
    if state is not None:
        state.double()
    optimiser = torch.optim.Adam([g], lr=0.05, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1500)
    for _ in range(1500):
        s = TABLE.population(g)
        optimiser.zero_grad()
        (-expect(s, state.objective if state else bound.objective or bound.value)).backward()
        optimiser.step()
        schedule.step()
    s = TABLE.population(g)
    assert expect(s, bound.value).item() == pytest.approx(TABLE.mi, abs=1e-9)
    assert (bound.pmi(s) - TABLE.pmi.reshape(-1)).abs().max() < 1e-5


@pytest.mark.parametrize("nu", [1.0, 0.3])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_anchor_ends_at_the_pmi_at_every_k_and_nu(k: int, nu: float) -> None:
    (g,) = starts(k, (3, 4))
    maximise(lambda: expect(TABLE.enumerated(g, k), lambda s: bounds.anchor_objective(s, nu)), [g])
    assert (g - TABLE.pmi).abs().max() < 1e-5


def test_infonce_ends_at_the_pmi_up_to_a_drift_at_every_k() -> None:
    for m in (1, 3):
        (g,) = starts(m, (3, 4))
        value = maximise(lambda g=g, m=m: expect(TABLE.enumerated(g, m), bounds.infonce), [g])
        assert value < TABLE.mi
        assert (BOUNDS["infonce"].pmi(TABLE.population(g)) - TABLE.pmi.reshape(-1)).abs().max() < 1e-5
