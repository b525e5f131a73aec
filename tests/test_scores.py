"""Negative schemes: no positive among the negatives, and the same numbers and gradients in whatever memory layout."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from flomi.bounds import BOUNDS, Bound, Scores
from flomi.critics import CRITICS, PlainCritic, SeparableCritic
from flomi.scores import NEGATIVES, Dense, Table, derangements, score, shifts

N = 7


class Ramp(nn.Module):
    """g(x, y) = 100 x + y, so that a score says which x and which y it belongs to."""

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return (100 * a + b).squeeze(-1)

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return self.pairs(a[:, None], b[None])

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, None]:
        return self.pairs(a, b), None


ROWS = torch.arange(N, dtype=torch.float64)[:, None]


def batch(seed: int = 0, n: int = N) -> tuple[Tensor, Tensor]:
    x, y = torch.randn(2, n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x, y


@settings(max_examples=60, deadline=None, derandomize=True)
@given(n=st.integers(2, 40), data=st.data())
@pytest.mark.parametrize("scheme", [shifts, derangements], ids=lambda f: f.__name__)
def test_columns_are_derangements_without_a_common_entry(scheme, n: int, data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    m, seed = data.draw(st.integers(1, n - 1)), data.draw(st.integers(0, 1000))
    columns = scheme(n, m, torch.Generator().manual_seed(seed))
    assert columns.shape == (n, m)
    assert not (columns == torch.arange(n)[:, None]).any()
    assert (columns.sort(0).values == torch.arange(n)[:, None]).all()  # every y serves once in each column
    assert all(len(set(row)) == m for row in columns.tolist())


def test_schemes_are_random_and_reproducible() -> None:
    def drawn(f, seed: int) -> list[list[int]]:  # type: ignore[no-untyped-def]
        return f(30, 2, torch.Generator().manual_seed(seed)).tolist()

    for f in (shifts, derangements):
        assert drawn(f, 0) == drawn(f, 0) != drawn(f, 1)
    by = (derangements(30, 1) - torch.arange(30)[:, None]) % 30
    assert len(by.unique()) > 5  # not one shift for all rows


def test_every_derangement_of_three_rows_is_equally_likely() -> None:
    generator = torch.Generator().manual_seed(0)
    first = sum(derangements(3, 1, generator)[0, 0].item() == 1 for _ in range(2000))
    assert abs(first - 1000) < 4 * math.sqrt(500)


@pytest.mark.parametrize("scheme", NEGATIVES)
def test_negatives_are_scores_of_other_rows(scheme: str) -> None:
    m = N - 1
    s = score(Ramp(), ROWS, ROWS, scheme, m=m, chunk=2)
    torch.testing.assert_close(s.pos, 101 * ROWS[:, 0])
    neg = s.negatives
    assert neg.count == m
    every = torch.tensor([[100.0 * i + j for j in range(N) if j != i] for i in range(N)], dtype=torch.float64)
    assert neg.mean(lambda g: g).item() == pytest.approx(every.mean().item())
    torch.testing.assert_close(neg.lme(), torch.logsumexp(every, 1) - math.log(m))
    other_x = torch.tensor(
        [[100.0 * i + j for i in range(N) if i != j] for j in range(N)], dtype=torch.float64
    )
    torch.testing.assert_close(neg.lme(over="x"), torch.logsumexp(other_x, 1) - math.log(m))
    assert neg.lme_all().item() == pytest.approx(
        torch.logsumexp(every.reshape(-1), 0).item() - math.log(N * m)
    )


@pytest.mark.parametrize("scheme", NEGATIVES)
def test_probe_shows_the_first_rows(scheme: str) -> None:
    x = ROWS.clone().requires_grad_()
    neg = score(Ramp(), x, ROWS, scheme, m=3, chunk=2).negatives
    found = neg.probe(4)
    assert not found.requires_grad and ((found > -math.inf).sum(1) == neg.count).all()
    torch.testing.assert_close(found.logsumexp(1) - math.log(neg.count), neg.lme()[:4].detach())


@pytest.mark.parametrize("scheme", NEGATIVES)
@pytest.mark.parametrize("over", ["y", "x"])
def test_drop_leaves_out_one_negative_of_each_row(scheme: str, over: str) -> None:
    s = score(
        Ramp(), ROWS / 100, ROWS / 100, scheme, m=3, chunk=3, generator=torch.Generator().manual_seed(2)
    )
    m = s.negatives.count
    total, rest = (s.negatives.lme(over, drop).exp() * (m - drop) for drop in (0, 1))
    left_out = (total - rest).log()  # log of one term, g(x_i, y_j): x and y can be read from it
    x_part = torch.floor(left_out + 1e-6) if over == "y" else None
    if over == "y":
        assert torch.equal(x_part, ROWS[:, 0])
        columns = ((left_out - ROWS[:, 0]) * 100).round()
    else:
        columns = (left_out - ROWS[:, 0] / 100).round()
    assert not (columns == ROWS[:, 0]).any()
    assert sorted(columns.tolist()) == ROWS[:, 0].tolist()


# --- Dense and chunked: the same numbers ------------------------------------------------------------------------------


def layouts(bound: Bound) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(1)
    name = "density" if "density" in bound.needs else "joint"
    build = CRITICS[name].build
    assert build is not None
    critic = build(3, 3, (8,)).double()
    return critic, {k: p for k, p in critic.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("bound", BOUNDS.values(), ids=BOUNDS)
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_dense_and_chunked_give_the_same_values_and_gradients(bound: Bound, chunk: int) -> None:
    critic, parameters = layouts(bound)
    found = {}
    for scheme in ("all", "chunked"):
        x, y = (v.requires_grad_() for v in batch())
        s = score(critic, x, y, scheme, chunk=chunk, baseline=lambda x: x.sum(-1))  # type: ignore[arg-type]
        objective = bound.maximise(s, bound.state().double() if bound.state else None)
        gradients = torch.autograd.grad(objective, [x, y, *parameters.values()], allow_unused=True)
        with torch.no_grad():
            again = score(critic, x, y, scheme, chunk=chunk, baseline=lambda x: x.sum(-1))  # type: ignore[arg-type]
            values = bound.value(again), bound.pmi(again), bound.monitor(again)
        found[scheme] = [
            *values,
            objective.detach(),
            *(torch.zeros(()) if d is None else d for d in gradients),
        ]
    for a, b in zip(found["all"], found["chunked"], strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_chunked_negatives_reduce_as_dense_ones_do(chunk: int) -> None:
    critic = SeparableCritic(3, 3, (8,)).double()
    for over, drop in (("y", 0), ("y", 1), ("x", 0), ("x", 1)):
        grads = []
        for scheme in ("all", "chunked"):
            x, y = (v.requires_grad_() for v in batch())
            value = score(critic, x, y, scheme, chunk=chunk).negatives.lme(over, drop)  # type: ignore[arg-type]
            grads.append([value.detach(), *torch.autograd.grad(value.square().sum(), [x, y])])
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("special", [-math.inf, math.nan])
def test_chunked_mean_hides_no_score_that_is_not_finite(special: float) -> None:
    class Spoilt(Ramp):
        def matrix(self, a: Tensor, b: Tensor) -> Tensor:
            g = super().matrix(a, b)
            return g.masked_fill((a[:, None, 0] == 1) & (b[None, :, 0] == 3), special)

    dense, chunked = (
        score(Spoilt(), ROWS, ROWS, k, chunk=2).negatives.mean(lambda g: g) for k in ("all", "chunked")
    )
    torch.testing.assert_close(chunked, dense, equal_nan=True)
    assert not torch.isfinite(chunked)


def test_all_shifts_are_all_off_diagonals() -> None:
    critic = SeparableCritic(3, 3, (8,)).double()
    x, y = batch()
    for bound in ("nwj", "infonce", "dv", "js", "l1out", "club"):
        of = [BOUNDS[bound].value(score(critic, x, y, k, m=N - 1)) for k in ("all", "shifts", "derangements")]
        torch.testing.assert_close(of[1], of[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(of[2], of[0], rtol=1e-12, atol=1e-12)


def test_diagonal_of_the_matrix_gets_no_gradient_from_negatives() -> None:
    g = torch.randn(5, 5, requires_grad=True)
    neg = Dense(g)
    total = neg.lme().sum() + neg.lme("x").sum() + neg.lme_all() + neg.mean(torch.exp) + neg.lme(drop=1).sum()
    (slope,) = torch.autograd.grad(total, g)
    assert (slope.diagonal() == 0).all()
    assert (slope + torch.eye(5) != 0).all()


# --- Given negatives, and errors --------------------------------------------------------------------------------------


def test_given_negatives_shared_or_for_each_row() -> None:
    critic = SeparableCritic(3, 3, (8,)).double()
    x, y = batch()
    pool = torch.randn(4, 3, dtype=torch.float64)
    shared = score(critic, x, y, "given", y_neg=pool)
    own = score(critic, x, y, "given", y_neg=pool.expand(N, 4, 3))
    expected = torch.stack([critic(x, row.expand(N, 3)) for row in pool], 1)
    for s in (shared, own):
        assert isinstance(s.neg, Table)
        torch.testing.assert_close(s.neg.scores, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(s.pos, critic(x, y), rtol=1e-12, atol=1e-12)
        with pytest.raises(ValueError, match="negatives from the batch itself"):
            s.negatives.lme("x")
    different = torch.randn(N, 2, 3, dtype=torch.float64)
    table = score(critic, x, y, "given", y_neg=different).negatives
    torch.testing.assert_close(table.lme(drop=1), critic(x, different[:, 1]), rtol=1e-12, atol=1e-12)


def test_given_negatives_for_rows_of_any_shape() -> None:
    class Distance(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return -(x - y).flatten(1).square().sum(1)

    for shape in ((3,), (2, 3)):
        critic = PlainCritic(Distance(), shape, shape)
        x, y, pool, own = (torch.randn(*lead, *shape) for lead in ((5,), (5,), (4,), (5, 4)))
        assert score(critic, x, y, "given", y_neg=pool).negatives.count == 4
        found = score(critic, x, y, "given", y_neg=own).negatives.lme()
        square = (x[:, None] - own).square().flatten(2).sum(-1)
        torch.testing.assert_close(found, torch.logsumexp(-square, 1) - math.log(4))


def test_baseline_marginal_and_dual_are_carried() -> None:
    build = CRITICS["density"].build
    assert build is not None
    x, y = (v.float() for v in batch())
    s = score(build(3, 3, (8,)), x, y, baseline=lambda x: x[:, 0])  # type: ignore[arg-type]
    assert s.marginal is not None and s.marginal.shape == (N,)
    assert s.u is None
    torch.testing.assert_close(s.baseline, x[:, 0])
    assert score(SeparableCritic(3, 3), x, y).need("u").shape == (N,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negatives": "shuffle"}, "'shuffle' is not known; choose one of all, .*given"),
        ({"negatives": "shifts", "m": 0}, "m=0"),
        ({"negatives": "shifts", "m": N}, f"use 1 to {N - 1}"),
        ({"negatives": "given"}, "needs y_neg"),
        ({"negatives": "given", "y_neg": torch.zeros(4, 2)}, r"shape \(4, 2\)"),
        ({"negatives": "given", "y_neg": torch.zeros(0, 3)}, "at least one"),
        ({"negatives": "given", "y_neg": torch.zeros(N, 0, 3)}, "at least one"),
        ({"negatives": "all", "y_neg": torch.zeros(4, 3)}, "belongs to negatives='given'"),
        ({"negatives": "chunked", "chunk": 0}, "chunk=0"),
    ],
)
def test_errors_say_what_was_wrong(arguments: dict[str, object], message: str) -> None:
    x, y = batch()
    with pytest.raises(ValueError, match=message):
        score(SeparableCritic(3, 3).double(), x, y, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rows_x", "rows_y"), [(1, 1), (4, 5), (0, 0)])
def test_rows_must_match_and_be_two(rows_x: int, rows_y: int) -> None:
    with pytest.raises(ValueError, match=f"found {rows_x} and {rows_y}"):
        score(SeparableCritic(3, 3), torch.zeros(rows_x, 3), torch.zeros(rows_y, 3))


def test_two_rows_are_enough() -> None:
    x, y = batch(n=2)
    critic = SeparableCritic(3, 3).double()
    for bound in BOUNDS.values():
        if not bound.needs & {"density"}:
            s: Scores = score(critic, x, y, "all", baseline=lambda x: x.sum(-1))
            assert torch.isfinite(bound.value(s)).all()
