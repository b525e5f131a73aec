"""What the rows themselves say: exact relations, copies and order are found, and noise, codes and outliers are none."""

from __future__ import annotations

import numpy as np
import pytest

import flomi
from flomi.inference.evidence import Evidence
from flomi.inference.row_diagnostics import _local_noise, _local_noise_by_column, _Side, describe_rows
from flomi.inference.verdict import judge


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
    side = _Side(y)
    by_tree = min(v for v in (_local_noise(_Side(c[:, None]), side) for c in x.T) if v is not None)
    assert _local_noise_by_column(_Side(x), side) == pytest.approx(by_tree, rel=0.1)
    assert _local_noise_by_column(_Side(x[:200]), _Side(y[:200])) is None  # too few
    assert _local_noise_by_column(_Side(x), _Side(y[:, 2:])) is None  # repeated values


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
        assert describe_rows(rows[:, :1], rows[:, 1:])["effective_share"] == pytest.approx(share, abs=0.03)
    assert describe_rows(rows[:, :1], rows[:, 1:], np.arange(4000) // 40)["effective_share"] is None


@pytest.mark.parametrize(
    ("mean", "std", "noted"),
    [
        (0, 1, False), (5, 3, False), (11, 3, True), (0, 20, True), (0, 0.001, True), (2, 0.1, True), (3, 0, False)
    ],
)  # fmt: skip
def test_columns_far_from_standard_are_noted(mean, std, noted):
    z = np.linspace(-np.sqrt(3), np.sqrt(3), 500)[:, None]
    words = describe_rows(np.hstack([z, mean + std * z]), z)["unscaled_columns"]
    assert (words is not None) == noted
    if noted:
        assert "1 of 2 columns of x" in words and "column 1 of x has mean" in words


def smooth(rng: np.random.Generator, n: int, width: int) -> np.ndarray:
    """[n, 1] a moving average of noise, of variance 1."""
    return np.convolve(rng.standard_normal(n + width - 1), np.full(width, width**-0.5), "valid")[:, None]


def series(kind: str, rng: np.random.Generator, n: int = 800) -> tuple[np.ndarray, np.ndarray]:
    noise = rng.standard_normal((2, n, 1))
    if kind == "slow below noise":
        return smooth(rng, n, 40) + noise[0], smooth(rng, n, 40) + noise[1]
    if kind == "season":
        day = np.arange(n)[:, None] / 7 * 2 * np.pi
        return np.sin(day) + noise[0], np.sin(day + 2) + noise[1]
    if kind == "alternating":
        sign = (-1.0) ** np.arange(n)[:, None]
        return sign * smooth(rng, n, 10), sign * smooth(rng, n, 10)
    if kind == "trend":
        return np.arange(n)[:, None] * 1.0, np.cumsum(noise[0], axis=0)
    if kind == "one side":
        return np.cumsum(noise[0], axis=0), noise[1]
    x = np.sort(rng.gamma(2.0, size=(n, 1)), axis=0)
    if kind == "sorted by a class":
        return np.round(x), noise[0] + np.round(x)
    return x, np.hstack([noise[0], np.log(x) + 0.2 * noise[1]])  # sorted by a column


@pytest.mark.parametrize("kind", ["slow below noise", "season", "alternating", "trend"])
def test_series_are_known_whatever_their_period(kind):
    assert all(
        describe_rows(*series(kind, np.random.default_rng(k)))["effective_share"] < 0.5 for k in range(5)
    )


@pytest.mark.parametrize("kind", ["one side", "sorted by a class", "sorted by a column"])
def test_sorted_files_are_no_series(kind):
    assert all(
        describe_rows(*series(kind, np.random.default_rng(k)))["effective_share"] > 0.8 for k in range(5)
    )


@pytest.mark.parametrize("kind", ["season", "slow below noise", "sorted by a class"])
def test_there_is_a_certificate_only_where_rows_are_no_series(kind):
    result = flomi.estimate(*series(kind, np.random.default_rng(3), 400), critic="gaussian", n_folds=2)
    absent = kind != "sorted by a class"
    assert np.isnan(result.lower_bound) == absent and ("no certificate" in str(result)) == absent
    assert ("no certificate" in result._repr_html_()) == absent
    assert (result.to_dict()["lower_bound"] is None) == absent
    assert not absent or result.verdict == "caution"
    assert ("serial-dependence" in [f["code"] for f in result.findings]) == absent


def one_column(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal((n, 1))


@pytest.mark.parametrize(
    ("measured", "decimals"),
    [((170, 9), 0.5), ((36.6, 0.4), 0.1), ((0.02, 1), None)],
    ids=["halves", "tenths", "digits"],
)
@pytest.mark.parametrize("n", [150, 1500])
def test_ties_of_rounded_measurements_are_no_copies(measured, decimals, n):
    rng = np.random.default_rng(15)
    mean, sd = measured
    x = mean + sd * one_column(rng, n)
    label = (x + sd * one_column(rng, n) > mean).astype(float)
    if decimals is None:  # three digits of something that spreads over powers of ten
        x = np.exp(x)
        x = np.round(x / 10 ** np.floor(np.log10(x)), 2) * 10 ** np.floor(np.log10(x))
    else:
        x = np.round(x / decimals) * decimals
    assert describe_rows(x, label)["duplicates"] < 0.01
    assert describe_rows(x, (x > mean).astype(float))["duplicates"] < 0.01
    assert describe_rows(x, x)["duplicates"] < 0.01


def test_copies_of_rounded_rows_are_found():
    rng = np.random.default_rng(16)
    x = rng.standard_normal((1200, 4))
    again = np.concatenate([np.arange(1200), np.arange(36)])
    x, y = np.round(x, 1), np.round(x[:, :2] + rng.standard_normal((1200, 2)), 1)
    assert describe_rows(x, y)["duplicates"] == 0.0
    assert describe_rows(x[again], y[again])["duplicates"] == pytest.approx(36 / 1236, abs=0.005)
    label = (y[:, :1] > 0).astype(float)
    fine = rng.standard_normal((1200, 1))
    assert describe_rows(fine[again], label[again])["duplicates"] == pytest.approx(36 / 1236, abs=0.005)


@pytest.mark.parametrize("n", [120, 240, 900])
def test_an_exact_function_is_found_in_few_rows_and_on_a_grid(n):
    rng = np.random.default_rng(17)
    x = one_column(rng, n)
    grid = rng.integers(0, 35, (n, 1)) / 5.0
    chosen = rng.choice(one_column(rng, 50)[:, 0], (n, 1))
    for v, f in (
        (x, np.tanh(2 * x) - x),
        (x, np.cos(2 * x)),
        (grid, np.log1p(grid)),
        (grid, (grid - 3.4) ** 2),
        (chosen, chosen**2),
    ):
        for sides in ((v, f), (f, v)):
            facts = describe_rows(*sides)
            codes = [f.code for f in judge(Evidence(n=n, dim_x=1, dim_y=1, mi=1.0, **facts))[1]]
            assert codes[0] in ("exact-function", "linear-relation") and "duplicates" not in codes
    noise = one_column(rng, n)
    for v, f in (
        (x, np.cos(2 * x) + 0.1 * noise),
        (x, x + 0.05 * noise),
        (grid, np.log1p(grid) + 0.05 * noise),
        (grid, grid > 3),
    ):
        found = describe_rows(v, np.asarray(f, float))["local_noise"]
        assert found is None or found > 0.01


def test_what_categories_share_is_no_relation():
    rng = np.random.default_rng(18)
    shared, noise = rng.integers(0, 4, (800, 2)).astype(float), rng.standard_normal((800, 4))
    x, y = np.hstack([shared, noise[:, :2]]), np.hstack([shared[:, ::-1], noise[:, 2:]])
    assert describe_rows(x, y)["linear_noise"] > 0.1
    assert describe_rows(x, np.hstack([y, x[:, 2:3] + shared]))["linear_noise"] < 1e-9
