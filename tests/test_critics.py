"""The contract of a critic, over all of `CRITICS`, a user's own module and the closed forms."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Gaussian
from torch import Tensor, nn

from flomi import bounds
from flomi.bounds import off_diagonal
from flomi.critics import (
    CRITICS,
    Baseline,
    ConditionalGaussian,
    JointCritic,
    PlainCritic,
    QuadraticCritic,
    SeparableCritic,
)
from flomi.critics.base import SETTINGS as TRUNCATION
from flomi.critics.base import Critic, log_mean_off, truncation_level
from flomi.critics.table import TrainingRows, default_candidates
from flomi.scores import score

N, DIM_X, DIM_Y = 9, 3, 2


class Own(nn.Module):
    """A user's critic: one module that returns g."""

    def __init__(self) -> None:
        super().__init__()
        self.bilinear = nn.Bilinear(DIM_X, DIM_Y, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.bilinear(x, y).squeeze(-1)


class OwnWithDual(Own):
    def u(self, x: Tensor, y: Tensor) -> Tensor:
        return -self(x, y)

    def baseline(self, x: Tensor) -> Tensor:
        return x.sum(-1)


def rows(n: int = N, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, DIM_X, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    y = x[:, :DIM_Y] + torch.randn(
        n, DIM_Y, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1)
    )
    return x, y


def make(name: str) -> nn.Module:
    torch.manual_seed(0)
    own = {"own": Own, "own with dual": OwnWithDual}
    if name in own:
        return PlainCritic(own[name](), (DIM_X,), (DIM_Y,), hidden=(8,)).double()
    kind = CRITICS[name]
    if kind.fit is not None:
        return kind.fit(*rows(200, seed=7))
    assert kind.build is not None
    return kind.build(DIM_X, DIM_Y, (8, 8)).double()


# Rows with an `ensemble` are tested in test_residual.py; "local", for one column against one, in test_local_ratio.py; and
# "logistic", for classes, in test_logistic.py.
APART = ("local", "logistic")
NAMES = [*(n for n, kind in CRITICS.items() if not kind.ensemble and n not in APART), "own", "own with dual"]
TRAINED = [n for n in NAMES if n not in CRITICS or CRITICS[n].build]
EVERY = pytest.mark.parametrize("name", NAMES)


@EVERY
def test_pairs_matrix_positives_and_forward_agree(name: str) -> None:
    critic, (x, y) = make(name), rows()
    a, b = critic.encode(x, y)
    g, u = critic.positives(a, b)
    table = critic.matrix(a, b[:5])
    assert g.shape == (N,)
    assert table.shape == (N, 5)
    for other in (critic.pairs(a, b), critic(x, y)):
        torch.testing.assert_close(other, g, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(table.diagonal(), g[:5], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(critic.pairs(a[:, None], b[None, :5]), table, rtol=1e-10, atol=1e-10)
    for i, j in ((2, 4), (8, 0)):  # rows are x, columns are y
        torch.testing.assert_close(table[i, j], critic(x[i : i + 1], y[j : j + 1])[0], rtol=1e-10, atol=1e-10)
    if name == "density":
        assert u is None
        assert critic.marginal(y).shape == (N,)
    else:
        assert u is not None and u.shape == (N,)


@EVERY
def test_rows_do_not_see_each_other(name: str) -> None:
    critic, (x, y) = make(name), rows()
    torch.testing.assert_close(critic(x[3:5], y[3:5]), critic(x, y)[3:5], rtol=1e-12, atol=1e-12)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(name: str, dtype: torch.dtype) -> None:
    critic = make(name).to(dtype)
    s = score(critic, *(v.to(dtype) for v in rows()))
    assert s.pos.dtype == s.negatives.lme().dtype == dtype
    assert s.u is None or s.u.dtype == dtype


@EVERY
def test_state_dict_brings_the_scores_back(name: str) -> None:
    critic, (x, y) = make(name), rows()
    if name in TRAINED:
        other = copy.deepcopy(critic)
        with torch.no_grad():
            for p in other.parameters():
                p.normal_()
        assert not torch.equal(other(x, y), critic(x, y))
        other.load_state_dict(critic.state_dict())
    else:  # a closed form's state is in its buffers
        other = CRITICS[name].restore(critic.state_dict(), critic.sizes)
    assert torch.equal(other(x, y), critic(x, y))


@pytest.mark.parametrize("name", TRAINED)
def test_gradient_reaches_every_parameter(name: str) -> None:
    critic, (x, y) = make(name), rows(40)
    s = score(critic, x, y)
    total = s.pos.sum() + s.negatives.lme().sum()
    for part in (s.u, s.marginal):
        total = total + part.square().sum() if part is not None else total
    total.backward()
    for key, p in critic.named_parameters():
        assert p.grad is not None and p.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", TRAINED)
def test_no_two_parameters_start_alike(name: str) -> None:
    first, second = make(name), make(name)
    torch.manual_seed(1)
    kind = CRITICS.get(name)
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True))
    if kind is not None and kind.build is not None:
        other = kind.build(DIM_X, DIM_Y, (8, 8)).double()
        assert not torch.equal(other(*rows()), first(*rows()))


# --- Every encoder runs once a batch ----------------------------------------------------------------------------------


def counted(critic: nn.Module, module: nn.Module, run: Callable[[], object]) -> list[int]:
    """How many rows went through `module` in each of its calls while `run` ran."""
    calls: list[int] = []
    handle = module.register_forward_hook(lambda _, args, out: calls.append(args[0].shape[:-1].numel()))
    run()
    handle.remove()
    return calls


@pytest.mark.parametrize("scheme", ["all", "chunked", "shifts", "derangements"])
@pytest.mark.parametrize(
    ("name", "encoders"),
    [
        ("mlp", ("first_x", "first_y")),
        ("joint", ("parts.0.first_x", "parts.0.first_y")),
        ("separate", ("g.first_x", "g.first_y", "u.first_x", "u.first_y")),
        ("separable", ("h", "k")),
        ("bilinear", ("h", "k")),
        ("density", ("net",)),
    ],
)
def test_encoders_run_once_and_first_layers_once_a_row(
    name: str, encoders: tuple[str, ...], scheme: str
) -> None:
    critic, (x, y) = make(name), rows()
    for key in encoders:

        def run() -> None:
            with torch.no_grad():
                s = score(critic, x, y, scheme, m=4, chunk=4)
                s.negatives.lme()

        assert counted(critic, critic.get_submodule(key), run) == [N]


@pytest.mark.parametrize("name", ["separate", "separable", "bilinear"])
def test_u_is_never_evaluated_on_negatives(name: str) -> None:
    critic = make(name)
    part = critic.u.trunk if name == "separate" else critic.u  # type: ignore[union-attr]
    assert counted(critic, part, lambda: score(critic, *rows())) == [N]


def test_own_module_sees_each_pair_once() -> None:
    critic = make("own")
    assert counted(critic, critic.module, lambda: score(critic, *rows())) == [N * N, N]


# --- Each critic by its formula ---------------------------------------------------------------------------------------


def test_joint_is_a_perceptron_on_the_concatenation() -> None:
    critic, (x, y) = JointCritic(DIM_X, DIM_Y, (8, 8)).double(), rows()
    weight = torch.cat([critic.first_x.weight, critic.first_y.weight], 1)
    hidden = torch.relu(torch.cat([x, y], 1) @ weight.T + critic.first_x.bias)
    layers = [m for m in [*critic.trunk, *critic.heads] if isinstance(m, nn.Linear)]
    h = torch.relu(hidden @ layers[0].weight.T + layers[0].bias)
    out = h @ layers[1].weight.T + layers[1].bias
    g, u = critic.positives(*critic.encode(x, y))
    torch.testing.assert_close(torch.stack([g, u], 1), out, rtol=1e-12, atol=1e-12)
    limit = math.sqrt(6 / (DIM_X + DIM_Y + 8))  # Xavier for the concatenation, not for its halves
    assert weight.abs().max() <= limit
    assert weight.abs().max() > 0.9 * limit
    assert all(
        (m.bias == 0).all() for m in critic.modules() if isinstance(m, nn.Linear) and m.bias is not None
    )


def test_separable_and_bilinear_by_hand() -> None:
    x, y = rows()
    separable = SeparableCritic(DIM_X, DIM_Y, (8,), 5).double()
    torch.testing.assert_close(
        separable(x, y), (separable.h(x) * separable.k(y)).sum(-1), rtol=1e-12, atol=1e-12
    )
    bilinear = SeparableCritic(DIM_X, DIM_Y, (8,), 5, unit_norm=True).double()
    assert bilinear.log_tau is not None
    with torch.no_grad():
        bilinear.log_tau.fill_(math.log(0.1))
    cosine = torch.cosine_similarity(bilinear.h(x), bilinear.k(y))
    torch.testing.assert_close(bilinear(x, y), 10 * cosine, rtol=1e-10, atol=1e-10)


def test_quadratic_form_holds_the_gaussian_pmi_exactly() -> None:
    problem = Gaussian(0.8, 3)
    critic, r2, eye = QuadraticCritic(3, 3).double(), 0.64, torch.eye(3, dtype=torch.float64)
    with torch.no_grad():
        for head, sign in ((0, 1), (1, -1)):
            critic.cross[head] = sign * 0.8 / (1 - r2) * eye
            critic.in_x[head] = critic.in_y[head] = -sign * r2 / (2 * (1 - r2)) * eye
            critic.constant[head] = sign * problem.mi
    s = score(critic, *problem.sample(50))
    torch.testing.assert_close(s.pos, problem.scores(50).pos, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(s.u, -s.pos, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_linear_critic_reads_no_dependence() -> None:
    problem = Gaussian(0.9, 2)
    x, y = problem.sample(400)
    critic = JointCritic(2, 2, hidden=()).double()
    optimiser = torch.optim.Adam(critic.parameters(), lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        (-bounds.flo(score(critic, x, y)).mean()).backward()
        optimiser.step()
    fresh = score(critic, *problem.sample(2000, seed=1))
    assert abs(bounds.flo(fresh).mean().item()) < 0.03
    assert problem.mi > 1.6


@pytest.mark.parametrize("tails", ["gaussian", "student"])
def test_closed_forms_know_their_dual_and_null_is_exactly_zero(tails: str) -> None:
    critic = make(tails)
    s = score(critic, *rows())
    torch.testing.assert_close(s.u, -s.pos)
    null = score(make("null"), *rows())
    assert torch.equal(bounds.flo(null), torch.zeros(N, dtype=torch.float64))


# --- The density model ------------------------------------------------------------------------------------------------


def test_density_integrates_to_one_and_matches_its_formula() -> None:
    torch.manual_seed(3)
    q = ConditionalGaussian(DIM_X, 2, hidden=(8,), components=3).double()
    with torch.no_grad():
        for p in q.mix:
            p.normal_(std=0.3)
        axis = torch.linspace(-12, 12, 481, dtype=torch.float64)
        y = torch.cartesian_prod(axis, axis)
        x = torch.randn(1, DIM_X, dtype=torch.float64).expand(len(y), DIM_X)
        cell = (axis[1] - axis[0]) ** 2
        assert (q(x, y).exp().sum() * cell).item() == pytest.approx(1, abs=1e-6)
        assert (q.marginal(y).exp().sum() * cell).item() == pytest.approx(1, abs=1e-6)


def test_exact_conditional_of_gaussian_pairs() -> None:
    problem = Gaussian(0.7, 2)
    q, (x, y) = problem.conditional(), problem.sample(50)
    normal = torch.distributions.Normal(0.7 * x, math.sqrt(1 - 0.49))
    torch.testing.assert_close(q(x, y), normal.log_prob(y).sum(-1), rtol=1e-12, atol=1e-12)
    s = score(q, x, y)
    torch.testing.assert_close(bounds.ba(s), problem.critic()(x, y), rtol=1e-10, atol=1e-10)


# --- Truncation, and the choice of candidates -------------------------------------------------------------------------


def test_truncation_lowers_the_level_until_the_mean_is_that_of_a_pmi() -> None:
    g = torch.randn(300, 300, dtype=torch.float64) - 0.5
    calm, positive = truncation_level(g, g.diagonal() + 3), g.diagonal() + 3
    assert calm == positive.topk(TRUNCATION.support).values[-1]
    g[0] += 9  # one row of outliers
    level = truncation_level(g, g.diagonal() + 20)
    scores = off_diagonal(g).flatten()
    following = scores[scores > level].min()  # the level is the highest of these scores that does
    assert float(scores.clamp(max=level).exp().mean()) <= TRUNCATION.mean
    assert float(scores.clamp(max=following).exp().mean()) > TRUNCATION.mean


def test_few_rows_show_no_density_ratio_beyond_their_number() -> None:
    calm, n = torch.zeros(200, 200, dtype=torch.float64), 1000
    scores = torch.linspace(0, 3, n, dtype=torch.float64)
    for outliers, level in ((5, math.log(n / TRUNCATION.support)), (TRUNCATION.support, 50.0)):
        scores[:outliers] = 50.0
        assert float(truncation_level(calm, scores)) == pytest.approx(level)


def test_pairs_that_are_cut_off_do_not_lower_the_others() -> None:
    critic, g = Critic(), torch.randn(300, 300, dtype=torch.float64)
    g[3] += 12.0
    assert log_mean_off(g) > 6
    critic.truncate(g, g.diagonal(), least_shift=-math.inf)
    assert 0 < critic.shift < 1
    assert abs(log_mean_off((g - critic.shift).clamp(max=critic.high))) < 0.25


@settings(max_examples=200, deadline=None)
@given(st.integers(10, 3000), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_default_candidates_can_be_fitted_and_stand_in_order(
    n: int, dx: int, dy: int, continuous: bool
) -> None:
    rows = TrainingRows(n, dx, dy, continuous)
    names = default_candidates(rows, density=False, costly=True)
    assert list(names) == [name for name in CRITICS if name in names]
    assert all(CRITICS[name].build is None and CRITICS[name].least_rows <= n for name in names)
    assert sum(CRITICS[name].null for name in names) == sum(CRITICS[name].reference for name in names) == 1
    cheap = default_candidates(rows, density=False, costly=False)
    assert [name for name in names if not CRITICS[name].costly] == list(cheap)
    more = default_candidates(TrainingRows(n + 1, dx, dy, continuous), density=False, costly=True)
    assert set(names) <= set(more) or "local" in more  # which replaces others
    assert all(CRITICS[name].density for name in default_candidates(rows, density=True, costly=True))


# --- A user's own module, errors --------------------------------------------------------------------------------------


def test_own_dual_and_baseline_are_used() -> None:
    x, y = rows()
    with_dual, without = make("own with dual"), make("own")
    assert with_dual.has_baseline and not without.has_baseline
    torch.testing.assert_close(with_dual.baseline(x), x.sum(-1))
    torch.testing.assert_close(score(with_dual, x, y).u, -with_dual(x, y))
    assert with_dual.c is None
    fitted = score(without, x, y)
    assert without.c is not None
    torch.testing.assert_close(fitted.u, without.c(torch.cat([x, y], 1)).squeeze(-1) - fitted.pos)


@pytest.mark.parametrize("wrong", [lambda x, y: (x, y), lambda x, y: x[:, :1], lambda x, y: x.sum()])
def test_a_module_that_returns_something_else_is_refused(wrong: Callable[[Tensor, Tensor], object]) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> object:
            return wrong(x, y)

    with pytest.raises(ValueError, match=r"one score a row, a tensor of shape \(81,\); found"):
        score(PlainCritic(Wrong(), (DIM_X,), (DIM_Y,)).double(), *rows())


def test_baseline_starts_at_zero() -> None:
    assert torch.equal(Baseline(3)(torch.randn(4, 3)), torch.zeros(4))
    assert Baseline(6)(torch.randn(4, 2, 3)).shape == (4,)
