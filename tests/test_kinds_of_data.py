"""Kinds of data beside continuous columns in general position: categories, combinations of few columns, rare classes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import flomi
from flomi.critics.copula import EllipticalCritic
from flomi.critics.table import CRITICS


def indicators(category: np.ndarray) -> np.ndarray:
    return (category[:, None] == np.unique(category)).astype(float)


@pytest.mark.parametrize("classes", [2, 6])
def test_all_columns_of_a_category_are_as_good_as_all_but_one(classes: int) -> None:
    rng = np.random.default_rng(classes)
    category = rng.integers(0, classes, 400)
    noise = rng.exponential(size=(400, 3))
    for y, least in ((noise, -0.05), (noise + 0.3 * category[:, None], 0.05)):
        every, fewer = (
            flomi.estimate(x, y, critic=["null", "gaussian", "student"], effort="fast")
            for x in (indicators(category), indicators(category)[:, 1:])
        )
        assert every.mi > least and every.stderr < 0.1
        assert every.mi == pytest.approx(fewer.mi, abs=0.02 + fewer.stderr)
        assert every.dim_x == classes


def test_the_formula_s_error_holds_no_rounding_noise() -> None:
    rng = np.random.default_rng(7)
    for classes in range(3, 20):
        x = torch.from_numpy(indicators(rng.integers(0, classes, 800)))
        y = torch.from_numpy(
            np.concatenate([rng.normal(size=(800, 2)), indicators(rng.integers(0, 4, 800))], 1)
        )
        assert EllipticalCritic.fit(x, y).formula.stderr < 0.1


def test_the_formula_stays_finite_where_ranks_are_dependent_and_columns_are_not() -> None:
    x = torch.randn(500, 2).double()
    y = torch.randn(500, 2).double()
    one, twice = (EllipticalCritic.fit(v, y).formula for v in (x, torch.cat([x, x.exp(), x**3], 1)))
    assert twice.mi == pytest.approx(one.mi, abs=1e-6) and twice.stderr == pytest.approx(one.stderr, abs=1e-6)


@pytest.mark.parametrize("critic", ["regression", ["null", "gaussian", "residual"], "joint"])
def test_columns_that_mix_few_sources_say_what_the_sources_say(
    critic: str | list[str], tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    sources = rng.laplace(size=(500, 3))
    mixed = sources @ rng.normal(size=(3, 40)) + 7
    y = np.stack([sources[:, 0] * sources[:, 1], np.abs(sources[:, 2])], 1) + 0.5 * rng.normal(size=(500, 2))
    options = {"effort": "fast", "n_folds": 2} | ({"steps": 30, "hidden": [32]} if critic == "joint" else {})
    est = flomi.MIEstimator(critic, **options).fit(mixed, y)
    assert est.result_.dim_x == 40
    least = flomi.estimate(sources, y, critic=critic, **options).bound
    assert est.result_.bound == pytest.approx(least, abs=0.2)
    loaded = flomi.MIEstimator.load(est.save(tmp_path / "saved"))
    assert np.array_equal(loaded.pmi(mixed[:20], y[:20]), est.pmi(mixed[:20], y[:20]))


@pytest.mark.parametrize("seed", range(3))
def test_a_rare_class_beside_several_columns_breaks_no_critic(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rare = rng.permutation(np.arange(700) < 4).astype(float)
    y = rng.gamma(2.0, size=(700, 7)) + rare[:, None] * rng.normal(1, 1, 7)
    x = torch.from_numpy(np.stack([rare, rng.integers(0, 2, 700)], 1))
    result = flomi.estimate(
        x, y, effort="fast", critic=["null", "gaussian", "student", "regression", "expanded"]
    )
    truth = 4 / 700 * math.log(700 / 4)  # at most the entropy of the class
    assert -0.1 < result.mi < 2 * truth + 0.1 and result.stderr < 0.1
    assert min(entry["bound"] for entry in result.candidates.values()) > -1.0
    for name in ("student", "regression"):
        fit = CRITICS[name].fit
        assert fit is not None
        new = torch.from_numpy(rng.gamma(2.0, size=(700, 7)) * 2)
        assert float(fit(x, torch.from_numpy(y))(x, new).max()) < math.log(700)


@pytest.mark.parametrize("kept", [1.0, 0.97])
def test_what_two_sides_share_in_categories_is_its_entropy(kept: float) -> None:
    rng = np.random.default_rng(9)
    n, classes, shares = 900, 4, np.array([0.4, 0.3, 0.2, 0.1])
    x = rng.choice(classes, n, p=shares).astype(float)
    y = np.where(rng.random(n) < kept, x, rng.choice(classes, n, p=shares))
    joint = kept * np.diag(shares) + (1 - kept) * np.outer(shares, shares)
    truth = float((joint * np.log(joint.clip(1e-300) / np.outer(shares, shares))).sum())
    for sides in ((x, y), (indicators(x), indicators(y))):
        result = flomi.estimate(*sides, effort="fast", critic=["null", "gaussian", "regression"])
        assert abs(result.mi - truth) < 0.1 and result.ci[0] - 0.05 < truth < result.ci[1] + 0.05
        assert result.verdict != "unreliable"
    noise = rng.normal(size=n)
    with pytest.raises(ValueError, match="'x\\[1\\]' of x and column 'y\\[0\\]' of y hold the same values"):
        flomi.estimate(np.stack([x, noise], 1), np.stack([noise, x], 1))
