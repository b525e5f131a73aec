"""Point estimates, selection and intervals, each strategy alone: on problems whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from flomi.crossfit.select import one_standard_error_rule, unsettled
from flomi.inference.influence import mean_stderr, within_folds
from flomi.inference.interval import interval
from flomi.inference.point_estimate import Rival, disagreement, formula_with_gain, midpoint


def test_the_midpoint_takes_the_optimism_of_a_regular_model_away():
    # a normal law with unknown mean in d columns: log-likelihood ratio, d/2n too high in sample and too low outside
    rng = np.random.default_rng(0)
    n, d, mean = 50, 10, 0.2
    found = []
    for _ in range(400):
        train, test = mean + rng.normal(size=(2, n, d))
        at = train.mean(0)
        value = [float((v @ at - at @ at / 2).mean()) for v in (train, test)]
        found.append(
            [*value, midpoint(*(np.array([v]) for v in value), np.array([n]), np.zeros(n), 0.0, "").mi]
        )
    training, held_out, middle = np.mean(found, 0)
    truth, bias, noise = d * mean**2 / 2, d / (2 * n), 3 * np.std([f[2] for f in found]) / np.sqrt(400)
    assert training == pytest.approx(truth + bias, abs=noise)
    assert held_out == pytest.approx(truth - bias, abs=noise)
    assert middle == pytest.approx(truth, abs=noise)


def test_folds_count_by_their_rows_and_gains_add_to_formulas():
    rows = np.array([30, 10])
    point = midpoint(np.array([1.0, 3.0]), np.array([1.0, 1.0]), rows, np.zeros(40), 0.1, "words")
    assert (point.mi, point.folds, point.method) == (1.25, (1.0, 2.0), "words")
    # half of the optimism, of which the second-order part of the pairs explains some
    assert point.second_order == 0.1 and np.hypot(point.model, 0.1) == pytest.approx(0.25)
    gained = formula_with_gain(
        np.array([0.5, 0.7]), np.array([0.2, 0.2]), np.array([0.1, 0.0]), rows, np.zeros(40), 0.0, ""
    )
    assert gained.folds == pytest.approx((0.65, 0.8))
    assert gained.mi == pytest.approx(0.75 * 0.65 + 0.25 * 0.8)


def test_what_rivals_add_to_the_error():
    assert disagreement(1.0, 0.1, []) == 0
    assert disagreement(1.0, 0.1, [Rival(0.0, 0.0, mi=1.5, stderr=0.1)]) == pytest.approx(0.5)
    # a noisier formula is given twice its extra noise, a closer one never counts negatively
    assert disagreement(1.0, 0.3, [Rival(0.0, 0.0, mi=1.5, stderr=0.5)]) == 0
    assert disagreement(1.0, 0.1, [Rival(0.3, 0.4)]) == 0.1
    assert disagreement(1.0, 9.0, [Rival(0.3, 0.4), Rival(0.0, 0.1)]) == pytest.approx(0.5)


def test_selection_prefers_the_simple_one_until_a_standard_error_is_gained():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=400)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    simple = np.zeros(400)
    for gain, winner in ((0.9 / 20, "simple"), (1.1 / 20, "complex")):
        assert one_standard_error_rule({"simple": simple, "complex": simple + gain + noise}, None) == winner
    assert one_standard_error_rule({"simple": simple, "broken": np.full(400, np.inf)}, None) == "simple"
    # four copies of every row are worth a fourth of them
    groups = np.repeat(np.arange(100), 4)
    copies = np.repeat(noise[:100], 4)
    copies = (copies - copies.mean()) / copies.std(ddof=1) + 1.5 / 20
    assert one_standard_error_rule({"simple": simple, "complex": copies}, None) == "complex"
    assert one_standard_error_rule({"simple": simple, "complex": copies}, groups) == "simple"


def test_rivals_are_those_within_two_standard_errors():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=100)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    values = {"best": noise * 0, "near": noise - 0.19, "far": noise - 0.21}
    assert list(unsettled(values, "best", None)) == ["near"]
    lost, stderr = unsettled(values, "best", None)["near"]
    assert (lost, stderr) == (pytest.approx(0.19), pytest.approx(0.1))


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(30), 4)])
def test_values_within_folds_have_the_mean_asked_and_the_spread_of_the_folds(groups):
    rng = np.random.default_rng(3)
    folds = np.repeat([0, 1, -1, 2], 30) if groups is None else groups % 3
    values = rng.normal(size=120) + 10 * folds
    found = within_folds(values, folds, 0.5, groups)
    inside = folds >= 0
    assert np.isnan(found[~inside]).all()
    assert found[inside].mean() == pytest.approx(0.5)
    parts = [
        np.mean(inside[inside] & (folds[inside] == k))
        * mean_stderr(values[folds == k], None if groups is None else groups[folds == k])
        for k in range(3)
    ]
    whole = mean_stderr(found[inside], None if groups is None else groups[inside])
    assert whole == pytest.approx(np.sqrt(np.sum(np.square(parts))))


@pytest.mark.parametrize(("count", "n_folds"), [(10, 5), (8, 4), (20, 5)])
def test_few_groups_in_many_folds_do_not_make_the_error_too_small(count, n_folds):
    rng = np.random.default_rng(count)
    means, errors = [], []
    groups, folds = np.repeat(np.arange(count), 6), np.repeat(np.arange(count) % n_folds, 6)
    for _ in range(600):
        values = np.repeat(rng.normal(size=count), 6) + rng.normal(size=6 * count)
        means.append(values.mean())
        errors.append(mean_stderr(within_folds(values, folds, values.mean(), groups), groups))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.1)


def test_an_interval_may_have_unequal_sides_and_any_level():
    even, uneven = interval(1.0, 0.1, model=0.2), interval(1.0, 0.1, missed=0.4)
    assert 1 - even.low == pytest.approx(even.high - 1)
    assert 1 - uneven.low == pytest.approx(1.96 * 0.1, abs=1e-3)
    assert uneven.high - 1 == pytest.approx(1.96 * np.hypot(0.1, 0.4), abs=1e-3)
    assert uneven.stderr == pytest.approx(0.1)
    assert interval(1.0, 0.1, level=0.5).high == pytest.approx(1 + 0.6745 * 0.1, abs=1e-4)
    assert interval(1.0, 0.3, second_order=0.4).stderr == pytest.approx(0.5)
    for wrong in ({"missed": -0.1}, {"second_order": -1.0}, {"level": 1.0}):
        with pytest.raises(ValueError, match=r"negative|level"):
            interval(1.0, 0.1, **wrong)
