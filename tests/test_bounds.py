"""The bounds against their formulas, their known optima, their sides, their caps and their gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Discrete, Gaussian, Weighted, expect, with_side
from torch import Tensor
from torch.nn.functional import softplus

from flomi import bounds
from flomi.bounds import BOUNDS, Bound, RunningNormaliser, Scores, fenchel, log_mean_exp
from flomi.scores import Dense

ROWS = pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
LOWER = pytest.mark.parametrize("bound", with_side("lower"), ids=lambda row: row.name)
UPPER = pytest.mark.parametrize("bound", with_side("upper"), ids=lambda row: row.name)
TABLE = Discrete.random(3, 4, seed=3)
seeds = st.integers(0, 10_000)


def dense(n: int = 7, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Scores:
    """Scores of random numbers, with every field that a bound may need."""
    generator = torch.Generator().manual_seed(seed)
    g = scale * torch.randn(n, n, dtype=dtype, generator=generator)
    u, a, marginal = scale * torch.randn(3, n, dtype=dtype, generator=generator)
    return Scores(g.diagonal(), Dense(g), u, a, marginal)


def matrix(s: Scores) -> Tensor:
    assert isinstance(s.neg, Dense)
    return s.neg.matrix


def mean_over_negatives(e: Tensor) -> Tensor:
    """[n] mean of each row without its diagonal entry: the slow and obvious way."""
    n = len(e)
    return torch.stack([e[i, [j for j in range(n) if j != i]].mean() for i in range(n)])


def close(a: Tensor, b: Tensor | float, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(
        a, torch.as_tensor(b, dtype=a.dtype).expand_as(a), rtol=tolerance, atol=tolerance
    )


# --- The one function, and the special cases of FLO -------------------------------------------------------------------


@settings(deadline=None, derandomize=True)
@given(st.floats(-40, 40), st.floats(-40, 40))
def test_fenchel_never_exceeds_minus_log_t_and_touches_it_at_u_equal_log_t(log_t: float, u: float) -> None:
    t, dual = torch.tensor(log_t, dtype=torch.float64), torch.tensor(u, dtype=torch.float64)
    assert fenchel(t, dual) <= -t + 1e-12
    close(fenchel(t, t), -t)
    if abs(log_t - u) > 1e-3:
        assert fenchel(t, dual) < -t


def test_log_mean_exp() -> None:
    a = torch.randn(4, 6, dtype=torch.float64)
    close(log_mean_exp(a), a.exp().mean(1).log())
    close(log_mean_exp(a, 0), a.exp().mean(0).log())


def test_formulas_written_out() -> None:
    s = dense()
    g, e, gm = s.pos, mean_over_negatives(matrix(s).exp()), matrix(s)
    off = torch.cat([gm[i, [j for j in range(7) if j != i]] for i in range(7)])
    k = 7
    close(bounds.flo(s), 1 - s.u - e * torch.exp(-s.u - g))
    close(bounds.nwj(s), 1 + g - e)
    close(bounds.tuba(s), 1 + g - s.baseline - e * torch.exp(-s.baseline))
    close(bounds.flo_ux(s), 1 - s.baseline - e * torch.exp(-s.baseline - g))
    close(bounds.dv(s), g - off.exp().mean().log())
    close(bounds.fdv(s), g - e.log())
    close(bounds.infonce(s), g - (gm.exp().sum(1) / k).log())
    close(bounds.js_objective(s), -softplus(-g) - softplus(off).mean())
    close(bounds.hd_objective(s), 2 - torch.exp(-g / 2) - torch.exp(off / 2).mean())
    close(bounds.smile(s, 0.7), g - off.exp().clamp(math.exp(-0.7), math.exp(0.7)).mean().log())
    close(bounds.smile(s, math.inf), bounds.dv(s))
    close(bounds.club(s), g - off.mean())
    close(bounds.l1out(s), g - mean_over_negatives(gm.T.exp()).log())
    close(bounds.ba(s), g - s.marginal)
    close(bounds.doe(s), g - s.marginal)


def test_formulas_with_the_positive_in_place_of_a_negative() -> None:
    s = TABLE.enumerated(torch.randn(3, 4, dtype=torch.float64), 3, a=torch.randn(3, dtype=torch.float64))
    neg, g, a = s.neg.over_y, s.pos, s.baseline
    candidates = torch.cat([g[:, None], neg[:, 1:]], 1)
    for alpha in (0.2, 0.8):
        m = alpha * candidates.exp().mean(1) + (1 - alpha) * a.exp()
        m_prime = alpha * neg.exp().mean(1) + (1 - alpha) * a.exp()
        close(bounds.i_alpha(s, alpha), 1 + (g.exp() / m).log() - neg.exp().mean(1) / m_prime)
    for nu in (1.0, 0.3):
        positive = g - (nu + candidates.exp().sum(1)).log()
        null = math.log(nu) - (nu + neg.exp().sum(1)).log()
        close(bounds.anchor_objective(s, nu), (3 * positive + nu * null) / (3 + nu))


def test_special_cases_of_flo_by_the_choice_of_u() -> None:
    s = dense()

    def flo(u: Tensor) -> Tensor:
        return bounds.flo(Scores(s.pos, s.neg, u))

    close(flo(s.baseline - s.pos), bounds.tuba(s))
    close(flo(-s.pos), bounds.nwj(s))
    textbook = s.pos - mean_over_negatives(matrix(s).exp()) / math.e
    close(flo(1 - s.pos), textbook)
    shifted = Scores(s.pos - 1, Dense(matrix(s) - 1))
    close(bounds.nwj(shifted), textbook)
    close(flo(s.log_t), bounds.fdv(s))
    close(flo(s.baseline), bounds.flo_ux(s))
    close(flo(s.negatives.lme_all() - s.pos).mean(), bounds.dv(s).mean())
    log_t_k = log_mean_exp(matrix(s)) - s.pos
    close(fenchel(log_t_k, log_t_k), bounds.infonce(s))


def test_i_alpha_joins_tuba_and_infonce() -> None:
    for m in (1, 2, 3):
        s = TABLE.enumerated(torch.randn(3, 4, dtype=torch.float64), m, a=torch.randn(3, dtype=torch.float64))
        close(bounds.i_alpha(s, 0), bounds.tuba(s))
        if m == 1:
            close(bounds.i_alpha(s, 1), 0.0)  # one candidate says nothing
        else:
            as_candidates = Scores(s.pos, _first_dropped(s))
            close(bounds.i_alpha(s, 1), bounds.infonce(as_candidates))


def _first_dropped(s: Scores) -> Weighted:
    assert isinstance(s.neg, Weighted)
    return replace(s.neg, over_y=s.neg.over_y[:, 1:])


@pytest.mark.parametrize("name", [n for n, row in BOUNDS.items() if row.optimum.startswith("g = PMI + c(x)")])
def test_a_drift_in_x_changes_nothing(name: str) -> None:
    s, bound = dense(), BOUNDS[name]
    c = torch.sin(3 * torch.arange(7.0, dtype=torch.float64)) * 5
    moved = Scores(s.pos + c, Dense(matrix(s) + c[:, None]), s.u, s.baseline + c)
    close(bound.value(moved), bound.value(s), 1e-11)
    close(bound.maximise(moved), bound.maximise(s), 1e-11)
    close(bound.pmi(moved), bound.pmi(s), 1e-11)


def test_drift_of_the_exact_critic_leaves_flo_as_it_is() -> None:
    problem = Gaussian(0.8, 3)
    plain = problem.scores(2000, m=3)
    drifting = problem.scores(2000, m=3, critic=problem.critic(drift=lambda x: torch.sin(3 * x).sum(-1)))
    close(bounds.flo(drifting), bounds.flo(plain))


def test_exact_recalibration_gains_a_minus_1_minus_log_a() -> None:
    s = dense()
    a = torch.exp(s.log_t - s.u).mean()
    shifted = bounds.flo(Scores(s.pos, s.neg, s.u + a.log())).mean()
    close(shifted, -s.u.mean() - a.log())
    close(shifted - bounds.flo(s).mean(), a - 1 - a.log())
    for c in (-0.1, 0.1):
        assert bounds.flo(Scores(s.pos, s.neg, s.u + a.log() + c)).mean() < shifted


# --- Optima, sides and caps, without sampling error -------------------------------------------------------------------


@ROWS
def test_value_at_the_optimum_is_the_known_one(bound: Bound) -> None:
    for table in (TABLE, Discrete.random(2, 5, seed=4, strength=2.0)):
        s = table.population(**table.optimum(bound))
        assert expect(s, bound.value).item() == pytest.approx(table.best(bound), abs=1e-11)


@ROWS
def test_pmi_is_read_out_at_the_optimum(bound: Bound) -> None:
    s = TABLE.population(**TABLE.optimum(bound))
    close(bound.pmi(s), TABLE.pmi.reshape(-1), 1e-11)


def random_scores(table: Discrete, bound: Bound, seed: int, scale: float, m: int | None) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    g, u = scale * torch.randn(2, 3, 4, dtype=torch.float64, generator=generator)
    a = scale * torch.randn(3, dtype=torch.float64, generator=generator)
    if "density" in bound.needs:
        g = torch.log_softmax(g, 1)
    log_py = table.py.log() if "marginal" in bound.needs else None
    return table.population(g, u, a, log_py) if m is None else table.enumerated(g, m, u, a, log_py)


@LOWER
@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=seeds, scale=st.sampled_from([0.1, 1.0, 3.0]), m=st.sampled_from([1, 2, 3, None]))
def test_lower_bounds_stay_below_at_any_critic(bound: Bound, seed: int, scale: float, m: int | None) -> None:
    table = Discrete.random(3, 4, seed=seed, strength=1.5)
    s = random_scores(table, bound, seed + 1, scale, m)
    assert expect(s, bound.value) <= table.mi + 1e-10


@UPPER
@pytest.mark.parametrize("m", [1, 2, 3])
def test_upper_bounds_stay_above_at_the_exact_conditional(bound: Bound, m: int) -> None:
    for seed in range(5):
        table = Discrete.random(3, 4, seed=seed, strength=1.5)
        s = table.enumerated(m=m, over="x", **table.optimum(bound))
        assert expect(s, bound.value) >= table.mi


def test_doe_and_smile_are_bounds_on_neither_side() -> None:
    log_q, flat = TABLE.log_conditional, torch.full((4,), -math.log(4), dtype=torch.float64)
    too_wide = expect(TABLE.population(log_q, marginal=flat), bounds.doe)
    too_flat = expect(TABLE.population(flat.expand(3, 4), marginal=TABLE.py.log()), bounds.doe)
    assert too_flat < TABLE.mi < too_wide
    assert expect(TABLE.population(TABLE.pmi + 10), bounds.smile) > TABLE.mi


@settings(max_examples=50, deadline=None, derandomize=True)
@given(seed=seeds, scale=st.floats(0.1, 4.0))
def test_uba_dv_nwj_in_this_order_for_the_same_critic(seed: int, scale: float) -> None:
    table = Discrete.random(3, 4, seed=seed)
    g = scale * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    s = table.population(g)
    uba, dv, nwj = (expect(s, value) for value in (bounds.fdv, bounds.dv, bounds.nwj))
    assert nwj - 1e-12 <= dv <= uba + 1e-12 <= table.mi + 2e-12


@pytest.mark.parametrize("bound", [row for row in BOUNDS.values() if row.cap], ids=lambda row: row.name)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=seeds, n=st.integers(2, 9), scale=st.sampled_from([0.1, 3.0, 100.0]))
def test_caps_hold_for_any_scores(bound: Bound, seed: int, n: int, scale: float) -> None:
    s = dense(n, seed, scale)
    assert bound.cap is not None
    assert (bound.value(s) <= bound.cap(n - 1) + 1e-9).all()
    eye = torch.eye(n, dtype=torch.float64)
    best = Scores(
        torch.full((n,), 1000.0).double(), Dense(1000 * eye), baseline=torch.full((n,), 500.0).double()
    )
    assert bound.value(best).mean() > bound.cap(n - 1) - 1e-9  # and are reached


def test_infonce_grows_with_the_number_of_candidates() -> None:
    values = [expect(TABLE.enumerated(TABLE.pmi, m), bounds.infonce).item() for m in (1, 2, 3, 4)]
    assert values == sorted(values)
    assert all(v <= min(TABLE.mi, math.log(m + 1)) for m, v in enumerate(values, 1))


def test_l1out_falls_towards_i_and_is_jeffreys_with_one_negative() -> None:
    values = [
        expect(TABLE.enumerated(TABLE.log_conditional, m, over="x"), bounds.l1out).item()
        for m in (1, 2, 3, 4)
    ]
    assert values[0] == pytest.approx(TABLE.jeffreys, abs=1e-12)
    assert values == sorted(values, reverse=True)
    assert values[-1] > TABLE.mi


def test_maxima_of_the_f_dime_objectives() -> None:
    s = TABLE.population(TABLE.pmi)
    p, q = TABLE.p, TABLE.px[:, None] * TABLE.py
    middle = (p + q) / 2
    jsd = ((p * (p / middle).log() + q * (q / middle).log()) / 2).sum()
    hellinger = (q * ((p / q).sqrt() - 1).square()).sum()
    close(expect(s, bounds.nwj), TABLE.mi)
    close(expect(s, bounds.js_objective), 2 * jsd - 2 * math.log(2))
    close(expect(s, bounds.hd_objective), hellinger)


def test_limits_of_the_anchor_objective() -> None:
    g = torch.randn(3, 4, dtype=torch.float64)
    one = TABLE.enumerated(g, 1)
    close(2 * expect(one, bounds.anchor_objective), expect(one, bounds.js_objective))
    three = TABLE.enumerated(g, 3)
    without_class = bounds.infonce(Scores(three.pos, _first_dropped(three))) - math.log(3)
    close(bounds.anchor_objective(three, 1e-14), without_class, 1e-10)


# --- Gradients --------------------------------------------------------------------------------------------------------


def gradient(value: Tensor, g: Tensor) -> Tensor:
    return torch.autograd.grad(value, g, retain_graph=True)[0]


def test_flatnce_dcl_fdv_and_infonce_gradients() -> None:
    g = torch.randn(9, 9, dtype=torch.float64, requires_grad=True)
    s = Scores(g.diagonal(), Dense(g))
    eye = torch.eye(9, dtype=torch.bool)
    dcl = g.diagonal() - torch.logsumexp(g.masked_fill(eye, -math.inf), 1)
    flat = torch.stack([gradient(v, g) for v in bounds.flatnce_objective(s)])
    close(flat, torch.stack([gradient(v, g) for v in dcl]))
    close(flat, torch.stack([gradient(v, g) for v in bounds.fdv_objective(s)]))
    infonce = torch.stack([gradient(v, g) for v in bounds.infonce(s)])
    p_pos = torch.softmax(g, 1).diagonal()
    close(infonce, (1 - p_pos)[:, None, None] * flat)
    close(bounds.flatnce_objective(s), -1.0)
    close(bounds.fdv_objective(s), bounds.fdv(s))


def test_flo_gradient_is_the_uba_gradient_weighted_by_e_minus_u_t() -> None:
    g = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
    u = torch.randn(6, dtype=torch.float64)
    s = Scores(g.diagonal(), Dense(g), u)
    weights = torch.exp(s.log_t - u).detach()
    close(gradient(bounds.flo(s).sum(), g), gradient(-(weights * s.log_t).sum(), g))
    tight = Scores(s.pos, s.neg, s.log_t.detach())
    close(gradient(bounds.flo(tight).sum(), g), gradient(-s.log_t.sum(), g))


def test_mine_divides_by_a_running_average() -> None:
    state, average = RunningNormaliser(decay=0.9), math.nan
    state.double()
    for step in range(4):
        g = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
        s = Scores(g.diagonal(), Dense(g))
        off = ~torch.eye(5, dtype=torch.bool)
        now = g[off].exp().mean().item()
        average = now if step == 0 else 0.9 * average + 0.1 * now
        (found,) = torch.autograd.grad(BOUNDS["mine"].maximise(s, state), g)
        expected = torch.eye(5, dtype=torch.float64) / 5 - g.detach().exp() * off / 20 / average
        close(found, expected)
        assert state.log_average.item() == pytest.approx(math.log(average), abs=1e-12)


@ROWS
def test_objective_is_stationary_at_the_optimum(bound: Bound) -> None:
    tables = TABLE.optimum(bound)
    free = {k: v.detach().clone().requires_grad_() for k, v in tables.items() if k != "marginal"}
    if "density" in bound.needs:
        s = TABLE.population(torch.log_softmax(free["g"], 1), marginal=tables["marginal"])
    else:
        s = TABLE.population(**free)
    state = bound.state() if bound.state else None
    if state is not None:
        state.double()
        objective = expect(s, state.objective)
    else:
        objective = expect(s, bound.objective or bound.value)
    for slope in torch.autograd.grad(objective, list(free.values()), allow_unused=True):
        assert slope is None or slope.abs().max() < 1e-12


# --- Numerics, errors, the table --------------------------------------------------------------------------------------


@ROWS
@pytest.mark.parametrize("pos", [-80.0, 80.0])
@pytest.mark.parametrize("neg", [-80.0, 80.0])
def test_large_scores_in_float32_stay_finite(bound: Bound, pos: float, neg: float) -> None:
    g = torch.full((4, 4), neg).fill_diagonal_(pos).requires_grad_()
    level = torch.full((4,), neg)
    s = Scores(g.diagonal(), Dense(g), -g.diagonal(), level, level)
    value = bound.maximise(s, bound.state() if bound.state else None)
    (slope,) = torch.autograd.grad(value, g)
    assert torch.isfinite(bound.value(s)).all()
    assert torch.isfinite(value)
    assert torch.isfinite(slope).all()


def test_flatnce_keeps_its_gradient_where_infonce_loses_it() -> None:
    g = torch.zeros(4, 4).fill_diagonal_(40.0).requires_grad_()
    s = Scores(g.diagonal(), Dense(g))
    flat, infonce = (gradient(f(s).sum(), g).diagonal() for f in (bounds.flatnce_objective, bounds.infonce))
    assert (flat == 1).all()
    assert (infonce == 0).all()


@ROWS
def test_rows_of_the_table_are_complete(bound: Bound) -> None:
    assert bound.side in ("lower", "upper", "none")
    assert bound.optimum and bound.reference
    s = dense()
    for f in (bound.value, bound.objective or bound.value, bound.pmi):
        assert f(s).shape == (7,)
    fields = {"neg": s.neg, "u": s.u, "baseline": s.baseline, "marginal": s.marginal}
    allowed = {k: v for k, v in fields.items() if k in bound.needs}
    for f in (bound.value, bound.objective or bound.value, bound.pmi):
        f(Scores(s.pos, **allowed))  # what `needs` does not name is not used


def test_errors_name_what_is_missing() -> None:
    with pytest.raises(ValueError, match="`u`"):
        bounds.flo(Scores(torch.zeros(3), dense(3).neg))
    with pytest.raises(ValueError, match="`neg`"):
        bounds.nwj(Scores(torch.zeros(3)))
    with pytest.raises(ValueError, match="'flow' is not known; choose one of flo"):
        bounds.get("flow")
    with pytest.raises(TypeError, match="not int"):
        bounds.get(3)  # type: ignore[arg-type]


def test_own_function_becomes_a_bound() -> None:
    own = bounds.get(bounds.smile)
    assert (own.name, own.side) == ("smile", "none")
    close(own.maximise(dense()), bounds.smile(dense()).mean())
