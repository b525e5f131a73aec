"""What a model may miss, and what would not have been seen: the upper side of intervals, and "none found"."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flomi import estimate
from flomi.critics import CRITICS
from flomi.critics.screen import choose_columns
from flomi.inference.sight import limits


def rows(n: int, dim_x: int, dim_y: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dim_x)), rng.normal(size=(n, dim_y))


@pytest.mark.parametrize("dims", [(1, 1), (4, 3), (12, 9)])
def test_independent_rows_are_none_found_with_an_interval_to_the_limit(dims: tuple[int, int]) -> None:
    x, y = rows(600, *dims)
    r = estimate(x, y, effort="fast", seed=1)
    most = max(limits(600, *dims).values())
    assert r.verdict == ("none found" if most < math.log(600) else "caution")
    assert r.mi == 0 and r.ci[0] == 0 and r.ci[1] >= min(most, math.log(600))
    assert any("would have shown" in sentence for sentence in r.warnings)
    assert r.findings[0]["code"] == "nothing-found"


def test_limits_rise_with_columns_and_fall_with_rows() -> None:
    for kind in limits(1000, 5, 5):
        found = [[limits(n, d, d)[kind] for d in (1, 2, 5, 20, 60)] for n in (300, 1000, 5000)]
        assert (np.diff(found, axis=1) >= 0).all() and (np.diff(found, axis=0) <= 0).all()
    assert limits(10_000, 3, 3) == limits(10**6, 3, 3)


def test_an_interval_ends_at_no_more_than_an_entropy_or_log_n() -> None:
    x, y = rows(150, 15, 1)
    label = (y > 0).astype(float)
    assert estimate(x, label, effort="fast").ci[1] <= math.log(2) + 0.05
    groups = np.arange(150) // 5
    assert estimate(x, np.hstack([y] * 1), groups=groups, effort="fast").ci[1] <= math.log(30) + 0.2


def test_of_critics_that_were_chosen_no_limit_is_known() -> None:
    x, noise = rows(500, 3, 1)
    r = estimate(x, x[:, :1] ** 2 + 0.3 * noise, critic=["null", "gaussian"], effort="fast")
    assert r.mi == 0 and r.verdict == "caution" and r.ci[1] == pytest.approx(math.log(500))


def test_the_upper_side_is_longer_but_where_any_shape_is_seen() -> None:
    x, y = rows(800, 3, 2)
    r = estimate(x, y + np.sin(2 * x[:, :2]), effort="fast")
    assert r.missed > 0 and r.ci[1] - r.mi > 1.05 * (r.mi - r.ci[0])
    u = np.random.default_rng(1).uniform(size=800)
    r = estimate(np.cos(6 * u) + 0.1 * x[:, 0], np.sin(6 * u), effort="fast")
    assert r.critic in CRITICS and r.missed == 0
    assert r.ci[1] - r.mi == pytest.approx(r.mi - r.ci[0])


def test_a_candidate_that_finds_nothing_in_one_fold_is_the_null_there() -> None:
    """The folded pair is seen in some folds and not in others; what most folds found is not dropped for one that did not."""
    for seed in range(3):
        x, y = rows(300, 4, 4, seed)
        y[:, 0] += 0.75 * np.abs(x[:, 0])
        r = estimate(x, y, critic=["null", "matched"], effort="fast", seed=seed)
        won = {name: facts["folds_won"] for name, facts in r.candidates.items()}
        if won.get("matched", 0) == 4:
            assert r.mi > 0
        assert (r.critic == "null") == (r.mi == 0)


def test_a_screen_finds_the_columns_that_go_together_and_no_others() -> None:
    import torch

    torch.manual_seed(0)
    x, y = torch.randn(1500, 9).double(), torch.randn(1500, 7).double()
    y[:, 2] += x[:, 4].abs() * 2
    y[:, 5] = (x[:, 1] * x[:, 7]).sign() + 0.2 * y[:, 5]
    of_x, of_y = choose_columns(x, y)
    assert set(of_x) == {4, 1, 7} and set(of_y) == {2, 5}
    twice, _ = choose_columns(x[:, [4, 4, 0]], y)
    assert twice == [0]  # a copy is no second feature
    assert choose_columns(torch.randn(1500, 9).double(), torch.randn(1500, 7).double()) == ([], [])


def test_a_heavy_tail_does_not_stop_a_mixture() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_cauchy((400, 2)) ** 5
    y = np.stack([2 * x[:, 0] + 0.01 * rng.normal(size=400), rng.normal(size=400)], 1)
    assert np.isfinite(estimate(x, y, critic=["null", "gaussian", "mixture"], effort="fast").mi)
