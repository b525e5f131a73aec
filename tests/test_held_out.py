"""The referee's two ways through the pairs, all of them and some of them, against formulas written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from flomi import bounds
from flomi.bounds import Scores
from flomi.critics import CRITICS
from flomi.critics.copula import EllipticalCritic
from flomi.crossfit.evaluate import evaluate, pair_scores, report
from flomi.scores import Dense
from flomi.training.model import Model

N = 200


def gaussian(n: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.randn(n, 2, dtype=torch.float64)
    return x, 0.8 * x + 0.6 * torch.randn(n, 2, dtype=torch.float64)


def models() -> dict[str, tuple[Model, bounds.Bound]]:
    """A closed form, a network with a dual and a drift of its own, and a density with a marginal."""
    torch.manual_seed(1)
    flo, ba = bounds.get("flo"), bounds.get("ba")
    return {
        "exact": (Model(EllipticalCritic.fit(*gaussian()), (), None), flo),
        "network": (Model(CRITICS["separable"].build(2, 2, (8,)), (2,), flo).double(), flo),  # type: ignore[misc]
        "density": (Model(CRITICS["density"].build(2, 2, (8,)), (2,), ba).double(), ba),  # type: ignore[misc]
    }


def parts(model: Model, bound: bounds.Bound) -> tuple[torch.Tensor, ...]:
    """Log density ratios of all pairs, the drift c, and the dual u, by the definitions."""
    x, y = gaussian()
    with torch.no_grad():
        a, b = model.critic.encode(x, y)  # type: ignore[operator]
        _, u = model.critic.positives(a, b)  # type: ignore[operator]
        marginal = model.marginal(y)
        ratio = model.critic.matrix(a, b) - (0 if marginal is None else marginal)  # type: ignore[operator]
        c = model.c(x)
    return ratio, c, u if u is not None and "u" in bound.needs else c - ratio.diagonal()


def directly(model: Model, bound: bounds.Bound, groups: np.ndarray | None) -> tuple[np.ndarray, float]:
    """FLO bound by row over all pairs, and the Donsker-Varadhan value of the score, from the matrix."""
    ratio, c, dual = parts(model, bound)
    own, keep = ratio.diagonal(), ~torch.eye(N, dtype=torch.bool)
    if groups is not None:
        label = torch.from_numpy(groups)
        keep &= label[:, None] != label
    terms = torch.exp(ratio - (own + dual)[:, None]) * keep
    by_row = 1 - dual - terms.sum(1) * (N / int(keep.sum()))
    dv = (own - c).mean() - torch.log((torch.exp(ratio - c[:, None]) * keep).sum() / int(keep.sum()))
    return by_row.numpy(), float(dv)


@pytest.mark.parametrize("groups", [None, np.arange(N) // 4])
@pytest.mark.parametrize("name", ["exact", "network", "density"])
def test_all_pairs_are_the_formula_written_out(name: str, groups: np.ndarray | None) -> None:
    model, bound = models()[name]
    found, _ = evaluate(model, bound, gaussian(), pairs=N * N, most=N * N, seed=0, groups=groups)
    by_row, dv = directly(model, bound, groups)
    assert found.negatives == N - 1
    assert found.values == pytest.approx(by_row, abs=1e-9)
    assert found.donsker_varadhan == pytest.approx(dv, abs=1e-9)
    assert found.summary.bound == pytest.approx(by_row.mean(), abs=1e-9)


@pytest.mark.parametrize("name", ["exact", "network", "density"])
def test_some_pairs_agree_with_all_of_them(name: str) -> None:
    model, bound = models()[name]
    x, y = gaussian()
    every, some = (
        evaluate(model, bound, (x, y), pairs=pairs, most=130 * N, seed=0)[0] for pairs in (N * N, 128 * N)
    )
    assert every.negatives == N - 1 and some.negatives == 128
    assert some.summary.bound == pytest.approx(every.summary.bound, abs=every.summary.bound_stderr)
    assert some.summary.bound_stderr == pytest.approx(every.summary.bound_stderr, rel=0.2)
    assert some.donsker_varadhan == pytest.approx(every.donsker_varadhan, abs=0.1)


@pytest.mark.parametrize("groups", [None, np.arange(N) // 4])
@pytest.mark.parametrize("name", ["exact", "network", "density"])
def test_some_pairs_are_the_formula_written_out(name: str, groups: np.ndarray | None) -> None:
    model, bound = models()[name]
    model.exact = False
    x, y = gaussian()
    found, some = evaluate(model, bound, (x, y), pairs=128 * N, most=130 * N, seed=0, groups=groups)
    assert found.negatives == 128 and some is not None and some.partners is not None
    ratio, c, dual = parts(model, bound)
    own, keep = ratio.diagonal(), torch.ones_like(some.partners, dtype=torch.bool)
    if groups is not None:
        label = torch.from_numpy(groups)
        keep = label[:, None] != label[some.partners]
    taken, count = ratio.gather(1, some.partners), int(keep.sum())
    by_row = 1 - dual - (torch.exp(taken - (own + dual)[:, None]) * keep).sum(1) * (N / count)
    dv = (own - c).mean() - torch.log((torch.exp(taken - c[:, None]) * keep).sum() / count)
    assert found.values == pytest.approx(by_row.numpy(), abs=1e-9)
    assert found.donsker_varadhan == pytest.approx(float(dv), abs=1e-9)
    assert found.summary.bound == pytest.approx(float(by_row.mean()), abs=1e-9)


def test_a_dual_far_off_in_one_row_spoils_the_bound_and_not_the_score() -> None:
    model, bound = models()["network"]
    before, _ = evaluate(model, bound, gaussian(), pairs=N * N, most=N * N, seed=0)
    positives = model.critic.positives  # type: ignore[union-attr]

    def far(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        g, u = positives(a, b)  # type: ignore[operator]
        return g, torch.cat([torch.full_like(u[:1], -600.0), u[1:]])

    model.critic.positives = far  # type: ignore[union-attr, assignment]
    for m in (N - 1, 128):
        after, _ = evaluate(model, bound, gaussian(), pairs=m * N, most=max(m, 130) * N, seed=0)
        assert after.donsker_varadhan == pytest.approx(before.donsker_varadhan, abs=0.1 if m == 128 else 1e-9)
        assert after.summary.bound < -1e100 and after.summary.bound_stderr > 1e100


def test_a_sampled_bound_takes_more_pairs_where_they_limit_it() -> None:
    x = torch.randn(3000, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = 0.7 * x + 0.7 * torch.randn(3000, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model = Model(EllipticalCritic.fit(x, y), (), None)
    model.exact = False  # so that pairs are drawn
    few, more = (evaluate(model, bounds.get("flo"), (x, y), pairs=3000 * 128, most=most, seed=0)[0]
                 for most in (3000 * 128, 3000 * 1100))  # fmt: skip
    assert few.negatives == 128 and more.negatives > 500
    assert more.summary.bound_stderr < few.summary.bound_stderr


def test_one_group_is_refused() -> None:
    model, bound = models()["exact"]
    with pytest.raises(ValueError, match="at least 2 groups"):
        evaluate(model, bound, gaussian(), pairs=N * N, most=N * N, seed=0, groups=np.zeros(N, dtype=int))


class Broken(torch.nn.Module):
    """Scores of 0, but for one pair."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def encode(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x[:, :1], y[:, :1]

    def positives(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.zeros(len(a)).double(), None

    def matrix(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        g = torch.zeros(len(a), len(b)).double()
        g[0, -1] = self.value
        return g


def test_infinite_scores_make_an_infinite_loss_and_nan_is_refused() -> None:
    options: dict[str, Any] = {"pairs": N * N, "most": N * N, "seed": 0}
    found, _ = evaluate(Model(Broken(float("inf")), (), None), bounds.get("flo"), gaussian(), **options)
    assert found.summary.bound == found.donsker_varadhan == -np.inf
    assert np.isneginf(found.values[0]) and not np.isnan(found.values).any()
    with pytest.raises(ValueError, match="NaN"):
        evaluate(Model(Broken(float("nan")), (), None), bounds.get("flo"), gaussian(), **options)


def test_the_report_has_the_bound_asked_for_and_the_pairs_of_the_certificate() -> None:
    model, _ = models()["exact"]
    for name in ("flo", "nwj", "infonce"):
        bound = bounds.get(name)
        options: dict[str, Any] = {"seed": 0, "groups": None}
        found, some = evaluate(model, bound, gaussian(), pairs=N * N, most=N * N, **options)
        said = report(model, bound, gaussian(), found, some, **options)
        with torch.no_grad():
            a, b = model.critic.encode(*gaussian())  # type: ignore[operator]
            dense = Scores(
                *model.critic.positives(a, b)[:1], Dense(model.critic.matrix(a, b)), -model.critic.pairs(a, b)
            )  # type: ignore[operator]
        assert said.value == pytest.approx(bound.value(dense).numpy(), abs=1e-9)
        assert said.scores.neg.shape == (N, 128) and said.pmi.shape == (N,)
        again = pair_scores(model, bound, gaussian(), seed=0)
        assert np.array_equal(again.neg, said.scores.neg) and np.array_equal(again.shifts, said.scores.shifts)


def test_pairs_of_an_exact_critic_are_summed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("flomi.crossfit.evaluate._Encoded.log_sum")  # the second sum, for a dual of its own
    model, bound = models()["exact"]
    for m in (N - 1, 40):
        evaluate(model, bound, gaussian(), pairs=m * N, most=m * N, seed=0)
