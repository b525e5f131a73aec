"""Standard errors and interval: exact laws on small tables, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scored_pairs import gaussian, of_matrix, part, sample, summarise

from flomi.inference.influence import mean_stderr
from flomi.inference.interval import interval
from flomi.inference.u_statistic import PartitionTerm

# --- The summary and its standard errors ---


def test_the_summary_of_a_matrix_is_the_textbook_formula():
    rng = np.random.default_rng(7)
    blocks = [rng.normal(size=(n, n)) for n in (5, 8)]
    found = summarise([of_matrix(block) for block in blocks])
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
    found = summarise([of_matrix(np.full((4, 4), 800.0))])
    assert found.bound == -np.inf
    assert found.bound_stderr == np.inf
    assert found.imbalance == np.inf


@pytest.mark.parametrize("size", [360.0, 400.0, 700.0])
def test_one_huge_score_gives_finite_numbers(size):
    matrix = np.zeros((20, 20))
    matrix[3, 7] = size
    found = summarise([of_matrix(matrix)])
    assert found.bound == pytest.approx(-np.exp(size) / 380) and 0 < found.bound_stderr < np.inf
    e = np.exp(matrix - size)
    np.fill_diagonal(e, 0)
    again = PartitionTerm.of_matrix(e, size)
    assert again.mean == pytest.approx(np.exp(size) / 380) and 0 < again.degenerate < np.inf
    assert found.folds[0].ess == pytest.approx(1) == again.ess


def test_infinite_scores_of_some_pairs_are_no_nan():
    matrix = np.zeros((20, 20))
    matrix[3, 7] = np.inf
    found = summarise([of_matrix(matrix)])
    assert found.bound == -np.inf and found.bound_stderr == np.inf
    nothing = summarise([of_matrix(np.where(np.eye(5) > 0, 0.0, -np.inf))])
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
    assert set(apart.parts) == {"sampling", "second_order", "model", "folds"}


def test_the_interval_covers_when_folds_differ():
    rng = np.random.default_rng(9)
    covered = 0
    for _ in range(400):
        folds = 1.0 + rng.normal(0, 0.1, 5) + rng.normal(0, 0.05, 5)
        found = interval(folds.mean(), 0.05 / np.sqrt(5), folds=folds)
        covered += found.low < 1.0 < found.high
    assert covered >= 0.92 * 400


@pytest.mark.parametrize("groups", [None, np.arange(300) // 3])
def test_sums_of_a_matrix_are_those_of_its_shifts(groups):
    rng = np.random.default_rng(9)
    rho, pmi = gaussian(1.5, 2)
    x, y = sample(300, rho, 2, rng)
    scores = of_matrix(pmi(x[:, None], y[None]) + 0.3 * rng.normal(size=(300, 300)), groups)
    log_e = np.full((300, 300), -np.inf)
    neg, keep = scores.between_groups()
    log_e[np.arange(300)[:, None], (np.arange(300)[:, None] + scores.shifts) % 300] = neg
    shifts, matrix = (
        PartitionTerm.of_pairs(scores),
        PartitionTerm.of_matrix(np.exp(log_e - log_e.max()), log_e.max(), groups),
    )
    for name in ("mean", "degenerate", "ess"):
        assert getattr(matrix, name) == pytest.approx(getattr(shifts, name), rel=1e-9), name
    assert matrix.pairs == shifts.pairs == keep.sum()
    assert matrix.influence == pytest.approx(shifts.influence, rel=1e-9)
    assert matrix.rows == pytest.approx(shifts.rows, rel=1e-9)
    assert (matrix.degenerate > 0) == (groups is None)


def test_wrong_calls_are_refused():
    one = of_matrix(np.zeros((4, 4)), np.zeros(4, dtype=int))
    for call, message in (
        (lambda: summarise([]), "folds must hold"),
        (lambda: summarise([one]), "at least 2 groups"),
        (lambda: interval(1.0, -0.1), "not be negative"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
