"""The certificate: exact laws on a small table, and validity by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scored_pairs import gaussian, of_matrix, part, sample, summarise

from flomi.inference.certificate import PairScores, Strategy, calibrate, certificate, e_value

# A discrete joint distribution of 2 x 2 values, small enough to enumerate every data set of four rows.
JOINT = np.array([[0.4, 0.1], [0.15, 0.35]])
PRODUCT = np.outer(JOINT.sum(axis=1), JOINT.sum(axis=0))
PMI = np.log(JOINT / PRODUCT)
MI = float(np.sum(JOINT * PMI))


def theta(strategy, score):
    """Population value of E[W] on the table, W as in the certificate."""
    flat = PairScores(score.ravel(), score.reshape(-1, 1), np.array([1]))
    linear, exponential = strategy.terms(flat)
    return float(JOINT.ravel() @ linear - PRODUCT.ravel() @ exponential[:, 0])


def test_no_clip_scale_or_constant_lifts_the_mean_above_the_truth():
    rng = np.random.default_rng(0)
    for _ in range(500):
        score = PMI * rng.uniform(0, 3) + rng.normal(0, rng.uniform(0, 3), PMI.shape)
        strategy = Strategy(
            rng.uniform(0.2, 2), rng.uniform(0, 3), rng.uniform(0, 3), rng.uniform(-2, 3), 0.1, 0.1
        )
        assert theta(strategy, score) <= MI + 1e-12
    assert theta(Strategy(1, 9, 9, 0, 0.1, 0.1), PMI) == pytest.approx(MI, abs=1e-12)


@pytest.mark.parametrize("groups", [None, np.array([0, 1, 2, 2])])
def test_the_e_value_has_mean_one_at_its_own_theta(groups):
    # every data set of four rows, so only the draws of the matchings are random
    score = PMI + np.array([[0.5, -0.3], [0.2, 0.4]])
    strategy = Strategy(scale=1.0, low=0.6, high=0.8, a=0.1, bet=0.5, expected=0.3)
    at = theta(strategy, score)
    values = list(itertools.product((0, 1), repeat=2))
    total, weight = 0.0, 0.0
    for k, rows in enumerate(itertools.product(values, repeat=4)):
        x, y = np.array(rows).T
        chance = float(np.prod(JOINT[x, y]))
        if groups is not None:  # rows of one group are in random order, as PairScores asks
            chance *= 0.5
        scores = of_matrix(score[np.ix_(x, y)], groups)
        for seed in (2 * k, 2 * k + 1):  # eight matchings each
            total += chance * np.exp(e_value(scores, strategy, seed=seed).log(at)) / 2
        weight += chance
    assert total / weight == pytest.approx(1.0, abs=0.02)


def test_the_e_value_never_rises_with_theta_nor_the_certificate_with_confidence():
    rng = np.random.default_rng(1)
    rho, pmi = gaussian(1.0, 2)
    held, rest = (part(pmi, *sample(n, rho, 2, rng), 40, rng) for n in (400, 200))
    value = e_value(held, calibrate(rest, 400))
    logs = [value.log(t) for t in np.linspace(0, 4, 200)]
    assert np.all(np.diff(logs) <= 1e-12)
    bounds = [certificate([(held, rest)], alpha=alpha).value for alpha in (0.2, 0.05, 0.001)]
    # the strategy changes with alpha too, so only clear differences are ordered
    assert bounds[0] > bounds[1] > bounds[2] > 0


@pytest.mark.parametrize("how", ["exact", "overfit", "overconfident", "spikes"])
def test_it_exceeds_the_truth_no_more_often_than_stated(how):
    mi, n, runs = 0.3, 60, 30
    rho, pmi = gaussian(mi, 1)
    score = {
        "exact": pmi,
        "overfit": lambda x, y: pmi(x, y) + 0.3 * np.tan(1.57 * np.sin(1e3 * x[..., 0] + 7e2 * y[..., 0])),
        "overconfident": lambda x, y: 2.5 * pmi(x, y),
        "spikes": lambda x, y: pmi(x, y) + 5.0 * (x[..., 0] > 2.2),
    }[how]
    above, mean = 0, []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        held, rest = (part(score, *sample(k, rho, 1, rng), 20, rng) for k in (n, n))
        value = e_value(held, calibrate(rest, n), seed=seed)
        mean.append(np.exp(value.log(mi)))
        above += mean[-1] >= 5  # a certificate at alpha = 0.2 above the truth
    assert above <= 0.2 * runs
    assert np.mean(mean) <= 1 + 4 * np.std(mean) / np.sqrt(runs)


def test_it_is_useful_with_the_exact_score():
    # the figures to beat with five folds of disjoint pairs: .89 of 1.02 at 10,000 rows, .53 at 1,000
    rho, pmi = gaussian(1.02, 3)
    for n, least in ((10_000, 0.87), (1000, 0.55)):
        rng = np.random.default_rng(3)
        folds = [
            tuple(part(pmi, *sample(k, rho, 3, rng), 64, rng) for k in (n // 5, n // 8)) for _ in range(5)
        ]
        assert least < certificate(folds).value < 1.02


def test_it_is_repeatable():
    rng = np.random.default_rng(4)
    rho, pmi = gaussian(0.8, 2)
    folds = [tuple(part(pmi, *sample(200, rho, 2, rng), 30, rng) for _ in range(2)) for _ in range(4)]
    mean = certificate(folds, seed=7)
    assert mean == certificate(folds, seed=7)
    assert mean.value != certificate(folds, seed=8).value
    assert 0 < mean.value < 0.8
    assert 380 <= mean.pairs <= 400


def test_nothing_is_certified_where_nothing_is_known():
    flat = of_matrix(np.zeros((50, 50)))
    wild = of_matrix(np.random.default_rng(0).normal(0, 100, (50, 50)))
    endless = of_matrix(np.full((50, 50), -np.inf))
    for scores in (flat, wild, endless):
        assert certificate([(scores, scores)]).value == 0.0


def test_unequal_groups_are_units_of_equal_weight():
    rng = np.random.default_rng(5)
    rho, pmi = gaussian(1.0, 2)
    x, y = sample(300, rho, 2, rng)
    copies = rng.permutation(np.repeat(np.arange(300), rng.integers(1, 6, 300)))
    rest = part(pmi, *sample(300, rho, 2, rng), 50, rng)
    once, grouped, naive = (
        certificate([(part(pmi, x[i], y[i], 60, rng, g), rest)]).value
        for i, g in ((np.arange(300), None), (copies, copies), (copies, None))
    )
    assert grouped == pytest.approx(once, abs=0.08)
    assert naive > grouped + 0.08  # copies taken for independent rows


def test_pairs_within_a_group_are_ignored():
    rng = np.random.default_rng(6)
    rho, pmi = gaussian(1.0, 2)
    x, y = sample(120, rho, 2, rng)
    groups = np.repeat(np.arange(40), 3)
    matrix = pmi(x[:, None], y[None])
    spoiled = np.where((groups[:, None] == groups) & ~np.eye(120, dtype=bool), 50.0, matrix)
    clean, bad = (of_matrix(m, groups) for m in (matrix, spoiled))
    assert summarise([clean]) == summarise([bad])
    strategy = calibrate(clean, 40)
    assert e_value(clean.thin(119), strategy).log(0.2) == e_value(bad.thin(119), strategy).log(0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 1)), np.zeros((3, 1)), [1]), "pos must hold one score"),
        ((np.zeros(3), np.zeros((3, 2)), [1]), "neg must have shape"),
        ((np.zeros(3), np.zeros((3, 1)), [3]), "shifts must not be multiples of n = 3"),
        ((np.array([0, np.nan, 0]), np.zeros((3, 1)), [1]), "must not hold NaN"),
        ((np.zeros(3), np.zeros((3, 1)), [1], np.zeros(2)), "groups must hold one label a row"),
    ],
)
def test_wrong_scores_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PairScores(*arguments)


def test_wrong_calls_are_refused():
    scores = of_matrix(np.zeros((4, 4)))
    one = of_matrix(np.zeros((4, 4)), np.zeros(4, dtype=int))
    for call, message in (
        (lambda: certificate([]), "folds must hold"),
        (lambda: certificate([(scores, scores)], alpha=1.0), "alpha must lie"),
        (lambda: certificate([(one, scores)]), "at least 2 groups"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
