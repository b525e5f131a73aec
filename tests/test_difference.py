"""Influence values, and the difference of two results: errors that resampling confirms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import flomi
from flomi.inference.influence import mean_stderr


def gaussian_rows(seed: int, n: int, noise: float = 1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    y = x[:, :1] + x[:, 1:] + noise * rng.normal(size=(n, 1))
    return x, y


@pytest.mark.parametrize(
    "options", [{"critic": "gaussian"}, {"critic": "regression"}, {"critic": "gaussian", "bound": "nwj"}]
)
@pytest.mark.parametrize("grouped", [False, True])
def test_every_number_is_the_mean_of_its_values_and_their_spread_its_error(options, grouped):
    x, y = gaussian_rows(0, 400)
    groups = np.arange(400) // 2 if grouped else None
    r = flomi.estimate(x, y, groups=groups, n_folds=2, **options)
    numbers = {"mi": r.mi, "bound": r.bound, "plug_in": r.plug_in, "imbalance": r.imbalance}
    assert r.influences.keys() == numbers.keys()
    for name, number in numbers.items():
        assert r.influences[name].shape == (400,)
        assert r.influences[name].mean() == pytest.approx(number, abs=1e-9), name
    spread = mean_stderr(r.influence, groups)
    assert r.error_parts["sampling"] == pytest.approx(spread, rel=1e-6)
    assert r.stderr**2 == pytest.approx(sum(part**2 for part in r.error_parts.values()), rel=1e-6)
    assert r.bound_stderr == pytest.approx(mean_stderr(r.influences["bound"], groups), rel=0.1)


def test_values_follow_their_rows():
    x, y = gaussian_rows(1, 300)
    r = flomi.estimate(x, y, critic="gaussian", n_folds=2)
    # a row far off the others in the direction of no correlation is evidence against dependence
    x[7], y[7] = 3.0, -4.0
    after = flomi.estimate(x, y, critic="gaussian", n_folds=2)
    change = after.influence - r.influence
    assert change.argmin() == 7
    assert r.folds.shape == (300,) and set(r.folds) == {0, 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "noise"), [("x", "one", 1.0), ("x", "one", 0.4), ("x", "none", 1.0)]
)
def test_the_error_of_a_difference_is_what_other_samples_show(first, second, noise):
    """I(x; y) - I(part of x; y): the standard error against the spread over independent samples."""
    values, errors, naive = [], [], []
    for seed in range(60):
        x, y = gaussian_rows(seed, 400, noise)
        sides = {"x": x, "one": x[:, :1], "none": np.random.default_rng(seed + 999).normal(size=(400, 1))}
        r1, r2 = (flomi.estimate(sides[name], y, critic="gaussian", n_folds=2) for name in (first, second))
        d = r1 - r2
        values.append(float(d))
        errors.append(d.stderr)
        naive.append(np.hypot(r1.stderr, r2.stderr))
    spread = np.std(values, ddof=1)
    assert np.mean(errors) == pytest.approx(spread, rel=0.3)
    if second == "one":
        assert np.mean(naive) > 1.1 * np.mean(errors)


@pytest.mark.slow
def test_near_independence_the_second_order_rules():
    """Two sides that tell nothing: influence values vanish, and the spread over samples is of order 1/n."""
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        x, z, y = rng.normal(size=(3, 300, 2))
        a, b = (flomi.estimate(side, y, critic="gaussian", n_folds=2) for side in (x, z))
        values.append(float(a - b))
        errors.append((a - b).stderr)
    assert 0.6 < np.sqrt(np.mean(np.square(errors))) / np.std(values) < 2.0


def test_results_that_can_not_be_compared_say_what_to_do():
    x, y = gaussian_rows(2, 200)
    r = flomi.estimate(x, y, critic="gaussian", n_folds=2)
    with pytest.raises(ValueError, match=r"folds=r\.folds"):
        _ = r - flomi.estimate(x, y, critic="gaussian", n_folds=3)
    with pytest.raises(ValueError, match="nats and bits"):
        _ = r - r.to("bits")
    with pytest.raises(ValueError, match="estimate again"):
        _ = dataclasses.replace(r, influences={}) - r
    with pytest.raises(TypeError):
        _ = r - 1.0
    with pytest.raises(ValueError, match="same groups="):
        _ = r - dataclasses.replace(r, groups=np.arange(200))
    with pytest.raises(ValueError, match="same level="):
        _ = r - dataclasses.replace(r, level=0.5)
    same = r - flomi.estimate(x, y, critic="gaussian", folds=r.folds)
    assert float(same) == pytest.approx(0.0, abs=1e-9)


def test_units_levels_and_missing_rows_go_along():
    x, y = gaussian_rows(3, 300)
    r = flomi.estimate(x, y, critic="gaussian", n_folds=2)
    half = flomi.estimate(x, y, critic="gaussian", n_folds=2, level=0.5)
    assert half.ci[1] - half.ci[0] < 0.4 * (r.ci[1] - r.ci[0])
    assert half.lower_bound > r.lower_bound
    assert "50 %" in str(half) and "95 %" in str(r)
    bits = r.to("bits")
    assert bits.influence.mean() == pytest.approx(bits.mi)
    assert bits.influences["imbalance"].mean() == pytest.approx(bits.imbalance)
    assert f"{bits - bits:.1f}" == "0.0"
    assert bits.stderr**2 == pytest.approx(sum(p**2 for p in bits.error_parts.values()))
    x[5] = np.nan
    left_out = flomi.estimate(x, y, critic="gaussian", n_folds=2, missing="drop")
    assert np.isnan(left_out.influence[5]) and left_out.folds[5] == -1
    assert np.nanmean(left_out.influence) == pytest.approx(left_out.mi)
    less = left_out - flomi.estimate(x[:, :1], y, critic="gaussian", n_folds=2, missing="drop")
    assert less.stderr > 0
    same_folds = flomi.estimate(x[:, :1], y, critic="gaussian", missing="drop", folds=left_out.folds)
    assert (left_out - same_folds).stderr == pytest.approx(less.stderr, rel=0.2)
    x[5] = 0.0
    with pytest.raises(ValueError, match="tested in no fold"):
        flomi.estimate(x, y, critic="gaussian", folds=left_out.folds)


def test_a_certificate_may_be_absent():
    x, y = gaussian_rows(4, 200)
    r = dataclasses.replace(flomi.estimate(x, y, critic="gaussian", n_folds=2), lower_bound=float("nan"))
    assert "at least" not in str(r)
    assert "lower_bound" in r.to_dict() and r.to_dict()["lower_bound"] is None


def test_scores_are_kept_for_those_who_ask():
    x, y = gaussian_rows(5, 200)
    est = flomi.MIEstimator(critic="gaussian", n_folds=2, keep_scores=True).fit(x, y)
    rows = np.concatenate([rows for rows, _ in est.test_scores_])
    assert sorted(rows) == list(range(200))
    for rows, scores in est.test_scores_:
        np.testing.assert_allclose(scores.pos, est.result_.pmi[rows])
    assert not hasattr(est.set_params(keep_scores=False).fit(x, y), "test_scores_")
    with pytest.raises(ValueError, match="test_scores_"):
        flomi.estimate(x, y, keep_scores=True)


def test_every_text_says_the_level_that_was_asked(tmp_path):
    from flomi.cli.outputs import as_text
    from flomi.data import from_arrays

    x, y = gaussian_rows(6, 200)
    r = flomi.estimate(x, y, critic="gaussian", n_folds=2, level=0.8)
    page = r.report(tmp_path / "page.html").read_text(encoding="utf-8")
    for text in (str(r), as_text(r, from_arrays(x, y)), page, r._repr_html_()):
        assert "80 %" in text and "95 %" not in text
