"""Certificate, standard errors, interval and verdict: exact laws on small tables, and coverage by simulation."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from flomi.inference.certificate import Setting, calibrate, e_value
from flomi.inference.row_diagnostics import _local_noise, _noise_by_column, describe_rows
from flomi.inference.u_statistic import (
    Evidence,
    Exponential,
    PairScores,
    certificate,
    interval,
    judge,
    mean_stderr,
    summarise,
)

# A discrete joint distribution of 2 x 2 values, small enough to enumerate every data set of four rows.
JOINT = np.array([[0.4, 0.1], [0.15, 0.35]])
PRODUCT = np.outer(JOINT.sum(axis=1), JOINT.sum(axis=0))
PMI = np.log(JOINT / PRODUCT)
MI = float(np.sum(JOINT * PMI))


def gaussian(mi, d):
    """(correlation, exact PMI) of d equally correlated pairs."""
    rho = np.sqrt(1 - np.exp(-2 * mi / d))
    return rho, lambda x, y: mi - (rho**2 * (x**2 + y**2) - 2 * rho * x * y).sum(-1) / (2 * (1 - rho**2))


def sample(n, rho, d, rng):
    x = rng.standard_normal((n, d))
    return x, rho * x + np.sqrt(1 - rho**2) * rng.standard_normal((n, d))


def part(score, x, y, m, rng, groups=None):
    """Scores with m random cyclic shifts."""
    shifts = rng.permutation(len(x) - 1)[:m] + 1
    return PairScores(
        score(x, y), score(x[:, None], y[(np.arange(len(x))[:, None] + shifts) % len(x)]), shifts, groups
    )


def theta(setting, score):
    """Population value of E[W] on the table, W as in the certificate."""
    flat = PairScores(score.ravel(), score.reshape(-1, 1), np.array([1]))
    linear, exponential = setting.terms(flat)
    return float(JOINT.ravel() @ linear - PRODUCT.ravel() @ exponential[:, 0])


# --- The certificate ---


def test_no_clip_scale_or_constant_lifts_the_mean_above_the_truth():
    rng = np.random.default_rng(0)
    for _ in range(500):
        score = PMI * rng.uniform(0, 3) + rng.normal(0, rng.uniform(0, 3), PMI.shape)
        setting = Setting(
            rng.uniform(0.2, 2), rng.uniform(0, 3), rng.uniform(0, 3), rng.uniform(-2, 3), 0.1, 0.1
        )
        assert theta(setting, score) <= MI + 1e-12
    assert theta(Setting(1, 9, 9, 0, 0.1, 0.1), PMI) == pytest.approx(MI, abs=1e-12)


@pytest.mark.parametrize("groups", [None, np.array([0, 1, 2, 2])])
def test_the_e_value_has_mean_one_at_its_own_theta(groups):
    # every data set of four rows, so only the draws of the matchings are random
    score = PMI + np.array([[0.5, -0.3], [0.2, 0.4]])
    setting = Setting(scale=1.0, low=0.6, high=0.8, a=0.1, bet=0.5, expected=0.3)
    at = theta(setting, score)
    values = list(itertools.product((0, 1), repeat=2))
    total, weight = 0.0, 0.0
    for k, rows in enumerate(itertools.product(values, repeat=4)):
        x, y = np.array(rows).T
        chance = float(np.prod(JOINT[x, y]))
        if groups is not None:  # rows of one group are in random order, as PairScores asks
            chance *= 0.5
        scores = PairScores.from_matrix(score[np.ix_(x, y)], groups)
        for seed in (2 * k, 2 * k + 1):  # eight matchings each
            total += chance * np.exp(e_value(scores, setting, seed=seed).log(at)) / 2
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
    # the setting changes with alpha too, so only clear differences are ordered
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
    flat = PairScores.from_matrix(np.zeros((50, 50)))
    wild = PairScores.from_matrix(np.random.default_rng(0).normal(0, 100, (50, 50)))
    endless = PairScores.from_matrix(np.full((50, 50), -np.inf))
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
    clean, bad = (PairScores.from_matrix(m, groups) for m in (matrix, spoiled))
    assert summarise([clean]) == summarise([bad])
    setting = calibrate(clean, 40)
    assert e_value(clean.thin(119), setting).log(0.2) == e_value(bad.thin(119), setting).log(0.2)


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
    scores = PairScores.from_matrix(np.zeros((4, 4)))
    one = PairScores.from_matrix(np.zeros((4, 4)), np.zeros(4, dtype=int))
    for call, message in (
        (lambda: certificate([]), "folds must hold"),
        (lambda: certificate([(scores, scores)], alpha=1.0), "alpha must lie"),
        (lambda: certificate([(one, scores)]), "at least 2 groups"),
        (lambda: summarise([]), "folds must hold"),
        (lambda: summarise([one]), "at least 2 groups"),
        (lambda: PairScores.from_matrix(np.zeros((3, 4))), "square"),
        (lambda: interval(1.0, -0.1), "not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# --- The summary and its standard errors ---


def test_the_summary_of_a_matrix_is_the_textbook_formula():
    rng = np.random.default_rng(7)
    blocks = [rng.normal(size=(n, n)) for n in (5, 8)]
    found = summarise([PairScores.from_matrix(block) for block in blocks])
    for block, fold in zip(blocks, found.folds, strict=True):
        off = np.exp(block[~np.eye(len(block), dtype=bool)])
        assert fold.bound == pytest.approx(np.trace(block) / len(block) + 1 - off.mean(), abs=1e-12)
        assert fold.imbalance == pytest.approx(off.mean() - 1, abs=1e-12)
        assert fold.ess == pytest.approx(off.sum() ** 2 / (off**2).sum())
    assert found.bound == pytest.approx((5 * found.folds[0].bound + 8 * found.folds[1].bound) / 13)
    assert found.plug_in - found.bound == pytest.approx(found.imbalance)
    assert (found.n, found.pairs) == (13, 20 + 56)


@pytest.mark.parametrize("m", [59, 16])
@pytest.mark.parametrize("how", ["exact", "wrong"])
def test_standard_errors_match_repeated_sampling(m, how):
    rho, pmi = gaussian(0.8, 3)
    score = (
        pmi
        if how == "exact"
        else lambda x, y: 0.7 * pmi(x, y) + 0.3 * np.sin(2 * x[..., 0]) + 0.2 * y[..., 1]
    )
    runs = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        runs.append(summarise([part(score, *sample(60, rho, 3, rng), m, rng)]))
    for name in ("bound", "imbalance", "plug_in"):
        spread = np.std([getattr(run, name) for run in runs])
        stated = np.sqrt(np.mean([getattr(run, name + "_stderr") ** 2 for run in runs]))
        # the spread of 300 runs is known to 4 %; heavy tails add to it
        assert stated == pytest.approx(spread, rel=0.15), name
    if how == "exact":
        bounds = [run.bound for run in runs]
        assert np.mean(bounds) == pytest.approx(0.8, abs=4 * np.std(bounds) / np.sqrt(300))


def test_standard_errors_of_grouped_rows_match_repeated_sampling():
    rho, pmi = gaussian(0.8, 2)
    runs = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        groups = rng.permutation(np.repeat(np.arange(30), 4))
        shared = [side[groups] for side in sample(30, 0.0, 2, rng)]
        x, e = (0.6 * a + 0.8 * b for a, b in zip(sample(120, 0.0, 2, rng), shared, strict=True))
        runs.append(summarise([part(pmi, x, rho * x + np.sqrt(1 - rho**2) * e, 119, rng, groups)]))
    for name in ("bound", "plug_in"):
        spread = np.std([getattr(run, name) for run in runs])
        stated = np.sqrt(np.mean([getattr(run, name + "_stderr") ** 2 for run in runs]))
        assert 0.85 * spread < stated < 1.3 * spread, name


def test_overflowing_scores_give_infinities_not_nan():
    found = summarise([PairScores.from_matrix(np.full((4, 4), 800.0))])
    assert found.bound == -np.inf
    assert found.bound_stderr == np.inf
    assert found.imbalance == np.inf


@pytest.mark.parametrize("size", [360.0, 400.0, 700.0])
def test_one_huge_score_gives_finite_numbers(size):
    matrix = np.zeros((20, 20))
    matrix[3, 7] = size
    found = summarise([PairScores.from_matrix(matrix)])
    assert found.bound == pytest.approx(-np.exp(size) / 380) and 0 < found.bound_stderr < np.inf
    e = np.exp(matrix - size)
    np.fill_diagonal(e, 0)
    again = Exponential.of_matrix(e, size)
    assert again.mean == pytest.approx(np.exp(size) / 380) and 0 < again.degenerate < np.inf
    assert found.folds[0].ess == pytest.approx(1) == again.ess


def test_infinite_scores_of_some_pairs_are_no_nan():
    matrix = np.zeros((20, 20))
    matrix[3, 7] = np.inf
    found = summarise([PairScores.from_matrix(matrix)])
    assert found.bound == -np.inf and found.bound_stderr == np.inf
    nothing = summarise([PairScores.from_matrix(np.where(np.eye(5) > 0, 0.0, -np.inf))])
    assert nothing.bound == 1.0


def test_mean_stderr_of_copies_is_that_of_the_originals():
    values = np.random.default_rng(8).normal(size=50)
    assert mean_stderr(values) == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    copies = np.repeat(np.arange(50), 7)
    assert mean_stderr(values[copies], copies) == pytest.approx(mean_stderr(values))
    assert mean_stderr(np.ones(3), np.zeros(3, dtype=int)) == np.inf


# --- The interval ---


def test_the_interval_adds_independent_sources():
    plain = interval(1.0, 0.05)
    assert (plain.high - plain.low) / 2 == pytest.approx(1.95996 * 0.05, rel=1e-4)
    agreeing = interval(1.0, 0.05, folds=[0.9, 1.0, 1.1, 1.0, 1.0])
    assert agreeing.stderr == plain.stderr  # what sampling explains is not counted twice
    apart = interval(1.0, 0.05, folds=[0.5, 1.5, 1.0, 1.2, 0.8], model=0.02)
    excess = np.var([0.5, 1.5, 1.0, 1.2, 0.8], ddof=1) / 5 - 0.05**2
    assert apart.stderr == pytest.approx(np.sqrt(0.05**2 + excess + 0.02**2))
    assert apart.high - apart.low > 2 * 1.96 * apart.stderr  # few folds: Student's quantile
    assert set(apart.parts) == {"sampling", "model", "folds"}


def test_the_interval_covers_when_folds_differ():
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(400):
        folds = 1.0 + rng.normal(0, 0.1, 5) + rng.normal(0, 0.05, 5)
        found = interval(folds.mean(), 0.05 / np.sqrt(5), folds=folds)
        covered += found.low < 1.0 < found.high
    assert covered >= 0.92 * 400


# --- The verdict ---

SOUND = Evidence(
    n=5000, dim_x=3, dim_y=3, mi=1.0, stderr=0.02, bound=0.98, bound_stderr=0.02, plug_in=0.99, imbalance=0.01,
    imbalance_stderr=0.01, lower_bound=0.85, ess=1000.0, fold_values=(0.95, 1.0, 1.02), fold_stderrs=(0.04,) * 3,
    gaussian_bound=0.8, gaussian_stderr=0.02, rise=0.001, linear_noise=0.5,
    local_noise=0.5,
)  # fmt: skip


def test_a_sound_run_is_ok_without_a_word():
    assert judge(SOUND) == ("ok", ())


@pytest.mark.parametrize(
    ("change", "verdict", "words"),
    [
        (
            {"ceiling": 1.3, "asked": 0.98, "bound_name": "infonce"},
            "unreliable",
            "near its ceiling of 1.3 nats",
        ),
        ({"ceiling": 1.9, "asked": 0.98, "bound_name": "infonce"}, "caution", "the infonce value 0.98 nats"),
        ({"imbalance": 0.12}, "caution", "normalisation is off by +0.12"),
        ({"imbalance": -0.5}, "unreliable", "off by -0.50 (standard error 0.01"),
        ({"plug_in": 1.4}, "caution", "bound 0.98 nats, plug-in 1.4 nats"),
        (
            {"bound": 0.5, "plug_in": 0.5, "gaussian_bound": None},
            "caution",
            "0.5 nats of the estimate 1 nats are a correction",
        ),
        ({"fold_values": (0.6, 1.0, 1.4)}, "caution", "from 0.6 nats to 1.4 nats"),
        ({"fold_values": (0.1, 1.0, 1.9)}, "unreliable", "the folds disagree"),
        ({"rise": 0.1}, "caution", "still rose by 0.1 nats"),
        ({"interrupted": True}, "caution", "interrupted"),
        ({"gaussian_bound": 1.1}, "caution", "Gaussian critic reaches 1.1 nats"),
        (
            {"others": (("nearest neighbours give", 1.3, 0.02),)},
            "caution",
            "give 1.3 nats, 0.3 nats more than the estimate",
        ),
        ({"others": (("nearest neighbours give", 1.3, 0.2),)}, "ok", ""),
        ({"unconfirmed": 0.3}, "caution", "networks gained 0.3 nats over the critic used"),
        ({"unconfirmed": 0.03}, "ok", ""),
        ({"serial": 0.02}, "caution", "no more than about 100 independent ones"),
        ({"lower_bound": 1.01}, "caution", "below its own certificate 1.01 nats"),
        ({"n": 20}, "caution", "3.3 rows a dimension"),
        ({"n": 80}, "caution", "80 rows are few"),
        ({"dim_x": 4000}, "unreliable", "5000 rows for 4000 + 3 dimensions"),
        (
            {"mi": 8.0, "bound": 7.9, "plug_in": 8.0, "lower_bound": 4.0},
            "caution",
            "close to log n = 8.52 nats",
        ),
        ({"ess": 4.0}, "caution", "rests on about 4 pairs"),
        ({"duplicates": 0.03}, "caution", "3.0 % of the rows repeat"),
        ({"duplicates": 0.5}, "unreliable", "groups="),
        (
            {"entropy_y": 0.693},
            "unreliable",
            "y is discrete and its entropy, which MI cannot exceed, is 0.693 nats",
        ),
        ({"linear_noise": 1e-15}, "unreliable", "linear combination of x determines"),
        ({"local_noise": 0.0}, "unreliable", "exact function of the other"),
        ({"stderr": 0.2}, "caution", "standard error 0.2 nats is large"),
        ({"lower_bound": 0.1}, "ok", "certificate 0.1 nats is far below the estimate 1 nats"),
        ({"lower_bound": 1.2}, "unreliable", "below its own certificate 1.2 nats"),
        ({"mi": float("nan")}, "unreliable", "estimate is not finite"),
        ({"asked": float("nan")}, "unreliable", "the flo value on held-out rows is not finite"),
        ({"lower_bound": 0.1, "units": "bits"}, "ok", "certificate 0.144 bits"),
    ],
)
def test_each_doubt_has_its_sentence(change, verdict, words):
    found, warnings = judge(dataclasses.replace(SOUND, **change))
    assert found == verdict
    assert sum(words in sentence for sentence in warnings) == (words != ""), warnings


def test_data_that_forbid_a_number_are_the_reason_that_there_is_none():
    _, warnings = judge(dataclasses.replace(SOUND, mi=float("inf"), linear_noise=0.0))
    assert len(warnings) == 1 and "linear combination" in warnings[0]


def test_the_gravest_reason_stands_first():
    _, warnings = judge(dataclasses.replace(SOUND, rise=0.1, local_noise=0.0, lower_bound=0.1))
    assert "exact function" in warnings[0] and "rose" in warnings[1] and "certificate" in warnings[2]


def test_an_infinite_mi_is_recognised_and_strong_noise_is_not():
    rng = np.random.default_rng(10)
    x = rng.standard_normal((2000, 2))
    noise = rng.standard_normal((2000, 2))
    facts = {
        "shared column": (x, np.column_stack([noise[:, 0], 3 * x[:, 1] - x[:, 0]])),
        "function": (x[:, :1], np.cos(3 * x[:, :1])),
        "noisy": (x, x + 0.05 * noise),
        "classes": (x, (x[:, :1] > 0).astype(float)),
        "independent": (x, noise),
    }
    verdicts = {
        name: judge(Evidence(n=2000, dim_x=2, dim_y=2, mi=0.6, **describe_rows(*xy)))[0]
        for name, xy in facts.items()
    }
    assert verdicts == {
        "shared column": "unreliable", "function": "unreliable", "noisy": "ok", "classes": "ok", "independent": "ok"
    }  # fmt: skip


def test_copies_count_only_among_continuous_values():
    rng = np.random.default_rng(11)
    x, y = rng.standard_normal((500, 2)), rng.standard_normal((500, 1))

    def share(x, y, groups=None):
        return describe_rows(x, y, groups)["duplicates"]

    again = np.concatenate([np.arange(500), np.arange(50)])
    assert share(x[again], y[again]) == pytest.approx(50 / 550)
    for times in (2, 3, 10):
        every = np.repeat(np.arange(500), times)
        assert share(x[every], y[every]) == pytest.approx(1 - 1 / times)
        assert share(x[every], y[every], every) == 0.0  # copies within a group are what groups are for
    silent = np.where(rng.random((2, 500, 1)) < 0.6, 0.0, rng.standard_normal((2, 500, 1)))
    assert share(*silent) == 0.0  # rows of two zeros are no copies
    letters, codes = rng.integers(0, 3, (500, 1)).astype(float), rng.integers(0, 90, (500, 1)).astype(float)
    assert share(letters, codes % 3) == share(codes, codes % 3) == 0.0


def test_a_relation_needs_more_than_outliers_large_numbers_or_groups():
    rng = np.random.default_rng(12)
    x = rng.standard_normal((400, 2))
    y = x + rng.standard_normal((400, 2))
    assert describe_rows(1e300 * x, 1e300 * y)["linear_noise"] == pytest.approx(
        describe_rows(x, y)["linear_noise"]
    )
    x[0] = y[0] = 1e7
    assert describe_rows(x, y)["linear_noise"] > 0.1
    subject = np.repeat(np.arange(20), 30)
    trend = np.linspace(0, 1, 600)[:, None] + subject[:, None]
    assert describe_rows(trend, np.sin(trend))["local_noise"] < 0.01
    assert describe_rows(trend, np.sin(trend), subject)["local_noise"] is None


def test_neighbours_in_one_column_are_those_of_the_tree():
    rng = np.random.default_rng(14)
    x = rng.standard_normal((1000, 3))
    y = np.column_stack([np.sin(x[:, 0]) + 0.01 * rng.standard_normal(1000), x[:, 2] ** 2, np.round(x[:, 1])])
    by_tree = min(v for v in (_local_noise(c[:, None], y) for c in x.T) if v is not None)
    assert _noise_by_column(x, y) == pytest.approx(by_tree, rel=0.1)
    assert _noise_by_column(x[:200], y[:200]) is None  # too few
    assert _noise_by_column(x, y[:, 2:]) is None  # repeated values


def test_one_exact_column_among_others_is_found():
    rng = np.random.default_rng(13)
    x, y = rng.standard_normal((2, 1000, 3))
    assert describe_rows(x, y)["local_noise"] is None
    for exact in (np.exp(x[:, 0]), -(x[:, 1] ** 3), x[:, 2] ** 2):
        assert describe_rows(x, np.column_stack([y[:, :2], exact]))["local_noise"] < 0.01
    assert describe_rows(x, np.column_stack([y[:, :2], x[:, 2] ** 2 + 0.1 * y[:, 2]]))["local_noise"] is None
    codes = rng.integers(0, 4, (1000, 1)).astype(float)
    facts = describe_rows(codes, codes)  # the MI of equal codes is their entropy
    assert facts["linear_noise"] is None and facts["local_noise"] is None


def test_rows_in_the_order_of_time_count_for_fewer():
    rng = np.random.default_rng(14)
    steps = rng.standard_normal((4000, 2))
    for rho, share in ((0.0, 1.0), (0.9, (1 - 0.81) / (1 + 0.81))):
        rows = np.zeros_like(steps)
        for i in range(1, len(rows)):
            rows[i] = rho * rows[i - 1] + steps[i]
        assert describe_rows(rows[:, :1], rows[:, 1:])["serial"] == pytest.approx(share, abs=0.03)
    assert describe_rows(rows[:, :1], rows[:, 1:], np.arange(4000) // 40)["serial"] is None


@pytest.mark.parametrize("groups", [None, np.arange(300) // 3])
def test_sums_of_a_matrix_are_those_of_its_shifts(groups):
    rng = np.random.default_rng(9)
    rho, pmi = gaussian(1.5, 2)
    x, y = sample(300, rho, 2, rng)
    scores = PairScores.from_matrix(pmi(x[:, None], y[None]) + 0.3 * rng.normal(size=(300, 300)), groups)
    log_e = np.full((300, 300), -np.inf)
    neg, keep = scores.apart()
    log_e[np.arange(300)[:, None], (np.arange(300)[:, None] + scores.shifts) % 300] = neg
    shifts, matrix = (
        Exponential.of_pairs(scores),
        Exponential.of_matrix(np.exp(log_e - log_e.max()), log_e.max(), groups),
    )
    for name in ("mean", "degenerate", "ess"):
        assert getattr(matrix, name) == pytest.approx(getattr(shifts, name), rel=1e-9), name
    assert matrix.pairs == shifts.pairs == keep.sum()
    assert matrix.influence == pytest.approx(shifts.influence, rel=1e-9)
    assert matrix.rows == pytest.approx(shifts.rows, rel=1e-9)
    assert (matrix.degenerate > 0) == (groups is None)
