"""Influence values of every bound: what leaving a row out changes, on tables as on matrices, and errors that hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import flomi
from flomi.bounds import BOUNDS, Scores
from flomi.crossfit.evaluate import bound_influence
from flomi.inference.influence import mean_stderr
from flomi.scores import Dense, Table, shifts

PAIRED = [name for name, bound in BOUNDS.items() if "neg" in bound.needs]


def laplace_pairs(n: int, d: int, seed: int) -> Tensor:
    """Scores [n, n] of the exact channel y = x + noise at a wide uniform x, up to a constant: PMI but for the edges."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, d))
    y = x + rng.laplace(scale=0.1, size=(n, d))
    return torch.from_numpy(-np.abs(x[:, None] - y).sum(2) / 0.1 + d * math.log(2 / 0.2))


def scores(g: Tensor, table: bool = False) -> Scores:
    n = len(g)
    partners = shifts(n, n - 1, torch.Generator().manual_seed(0))
    negatives = Table(g.gather(1, partners), partners) if table else Dense(g)
    base = 0.3 * torch.sin(torch.arange(n)).double()
    return Scores(g.diagonal().clone(), negatives, -g.diagonal() + 0.1, base, 0.5 * base)


@pytest.mark.parametrize("name", PAIRED)
def test_influence_is_what_leaving_a_row_out_changes(name: str) -> None:
    g, n = 0.4 * laplace_pairs(80, 1, 1), 80
    whole, bound = scores(g), BOUNDS[name]
    found = bound_influence(bound, whole)
    value = float(bound.value(whole).mean())
    assert found.mean() == pytest.approx(value, abs=1e-9)
    left_out = np.empty(n)
    for i in range(n):
        keep = torch.arange(n) != i
        part = Scores(
            whole.pos[keep],
            Dense(g[keep][:, keep]),
            *(v[keep] for v in (whole.u, whole.baseline, whole.marginal)),
        )  # type: ignore[index]
        left_out[i] = (n - 1) * (value - float(bound.value(part).mean()))
    change = found - value
    assert np.corrcoef(change, left_out)[0, 1] > 0.99
    assert np.std(change) == pytest.approx(np.std(left_out), rel=0.1)


@pytest.mark.parametrize("name", [name for name in PAIRED if not BOUNDS[name].replaces])
def test_tables_and_matrices_have_the_same_influence(name: str) -> None:
    g = 0.5 * laplace_pairs(40, 2, 2)
    one, other = (bound_influence(BOUNDS[name], scores(g, table)) for table in (False, True))
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dv", "smile", "smile-1", "infonce", "nwj", "tuba", "fdv"])
def test_errors_of_bounds_are_the_spread_over_samples(name: str) -> None:
    bound, values, errors = BOUNDS[name], [], []
    for seed in range(150):
        s = scores(laplace_pairs(120, 2, seed))
        s = Scores(s.pos, s.neg, -s.pos, torch.zeros(120).double())
        values.append(float(bound.value(s).mean()))
        errors.append(mean_stderr(bound_influence(bound, s)))
    assert 0.85 < np.median(errors) / np.std(values) < 1.2


def test_an_estimate_reports_the_error_with_the_normaliser() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 4))
    result = flomi.estimate(
        x, x + 0.4 * rng.normal(size=(300, 4)), critic="gaussian", bound="smile-1", n_folds=3
    )
    assert result.influences["bound"].mean() == pytest.approx(result.bound, abs=1e-6)
    assert result.bound_stderr == pytest.approx(mean_stderr(result.influences["bound"]), rel=1e-9)
