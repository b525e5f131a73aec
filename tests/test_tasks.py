"""Known answers, laws of the transforms, and agreement of every pointwise MI with its MI."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid
from scipy.spatial import cKDTree
from scipy.special import digamma

from flomi import tasks
from flomi.tasks import base, copulas, curves, transforms
from flomi.tasks.core import Array, Task
from flomi.tasks.densities import ScaleMixture
from flomi.tasks.truth import MEASURED, measure

ALL = [task for name in tasks.SUITES for task in tasks.suite(name)]
WITH_PMI = [task for task in ALL if task.log_ratio is not None]
GRID = [
    task for task in tasks.suite("paper") if not task.name.endswith(("-0.0000", "-0.5211", "-0.9900"))
]  # between
EACH_PMI = [pytest.param(t, id=t.name, marks=[pytest.mark.slow] * (t in GRID)) for t in WITH_PMI]

# the published list: name, dim_x, dim_y, MI in nats
NORMAL, SPARSE = 0.41334, 1.02165
BMI_V1 = [
    ("1v1-normal-0.75", 1, 1, NORMAL),
    ("normal_cdf-1v1-normal-0.75", 1, 1, NORMAL),
    ("1v1-additive-0.1", 1, 1, 1.70944),
    ("1v1-additive-0.75", 1, 1, 0.33333),
    ("1v1-bimodal-0.75", 1, 1, NORMAL),
    ("wiggly-1v1-normal-0.75", 1, 1, NORMAL),
    ("half_cube-1v1-normal-0.75", 1, 1, NORMAL),
    ("student-identity-1-1-1", 1, 1, 0.22417),
    ("asinh-student-identity-1-1-1", 1, 1, 0.22417),
    ("swissroll_x-normal_cdf-1v1-normal-0.75", 2, 1, NORMAL),
    ("multinormal-dense-2-2-0.5", 2, 2, 0.29389),
    ("multinormal-dense-3-3-0.5", 3, 3, 0.41334),
    ("multinormal-dense-5-5-0.5", 5, 5, 0.59281),
    ("multinormal-dense-25-25-0.5", 25, 25, 1.29218),
    ("multinormal-dense-50-50-0.5", 50, 50, 1.62427),
    ("multinormal-sparse-2-2-2-2.0", 2, 2, SPARSE),
    ("multinormal-sparse-3-3-2-2.0", 3, 3, SPARSE),
    ("multinormal-sparse-5-5-2-2.0", 5, 5, SPARSE),
    ("multinormal-sparse-25-25-2-2.0", 25, 25, SPARSE),
    ("student-identity-2-2-1", 2, 2, 0.43195),
    ("student-identity-2-2-2", 2, 2, 0.19315),
    ("student-identity-3-3-2", 3, 3, 0.29092),
    ("student-identity-3-3-3", 3, 3, 0.17871),
    ("student-identity-5-5-2", 5, 5, 0.44815),
    ("student-identity-5-5-3", 5, 5, 0.29854),
    ("normal_cdf-multinormal-sparse-3-3-2-2.0", 3, 3, SPARSE),
    ("normal_cdf-multinormal-sparse-5-5-2-2.0", 5, 5, SPARSE),
    ("normal_cdf-multinormal-sparse-25-25-2-2.0", 25, 25, SPARSE),
    ("half_cube-multinormal-sparse-3-3-2-2.0", 3, 3, SPARSE),
    ("half_cube-multinormal-sparse-5-5-2-2.0", 5, 5, SPARSE),
    ("half_cube-multinormal-sparse-25-25-2-2.0", 25, 25, SPARSE),
    ("spiral-multinormal-sparse-3-3-2-2.0", 3, 3, SPARSE),
    ("spiral-multinormal-sparse-5-5-2-2.0", 5, 5, SPARSE),
    ("spiral-multinormal-sparse-25-25-2-2.0", 25, 25, SPARSE),
    ("spiral-normal_cdf-multinormal-sparse-3-3-2-2.0", 3, 3, SPARSE),
    ("spiral-normal_cdf-multinormal-sparse-5-5-2-2.0", 5, 5, SPARSE),
    ("spiral-normal_cdf-multinormal-sparse-25-25-2-2.0", 25, 25, SPARSE),
    ("asinh-student-identity-2-2-1", 2, 2, 0.43195),
    ("asinh-student-identity-3-3-2", 3, 3, 0.29092),
    ("asinh-student-identity-5-5-2", 5, 5, 0.44815),
]


def ksg(x: Array, y: Array, k: int = 3) -> float:
    """Kraskov, Stoegbauer and Grassberger's first estimator."""
    z = np.hstack([x, y])
    radius = np.nextafter(cKDTree(z).query(z, k + 1, p=np.inf)[0][:, -1], 0)
    counts = [cKDTree(part).query_ball_point(part, radius, p=np.inf, return_length=True) for part in (x, y)]
    return float(digamma(k) + digamma(len(x)) - sum(digamma(count).mean() for count in counts))


# --- the suites ---


def test_bmi_v1_has_the_published_names_dimensions_and_mi():
    suite = tasks.suite("bmi-v1")
    assert [(t.name, t.dim_x, t.dim_y) for t in suite] == [row[:3] for row in BMI_V1]
    np.testing.assert_allclose([t.mi for t in suite], [row[3] for row in BMI_V1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, dim", [("staircase", 20), ("staircase-100", 100), ("staircase-cubic", 20)])
def test_staircases_climb_from_2_to_10_nats(name, dim):
    suite = tasks.suite(name)
    np.testing.assert_allclose([t.mi for t in suite], [2, 4, 6, 8, 10], atol=1e-12)
    assert {(t.dim_x, t.dim_y) for t in suite} == {(dim, dim)}


def test_staircase_correlation_and_cubes():
    x, y = tasks.get("staircase-20-20-6").sample(20_000, seed=0)
    assert np.mean(x * y) == pytest.approx(0.67171, abs=0.01)
    x, y = tasks.get("cubic-staircase-20-20-6").sample(20_000, seed=0)
    assert np.mean(x * np.cbrt(y)) == pytest.approx(0.67171, abs=0.01)


def test_high_mi_spans_1_to_20_nats_in_1_to_100_dimensions():
    suite = tasks.suite("high-mi")
    assert {t.dim_x for t in suite} == {1, 5, 20, 100}
    assert min(t.mi for t in suite) == pytest.approx(1) and max(t.mi for t in suite) == pytest.approx(20)
    for task in suite:
        family, *_, nats = task.name.removeprefix("high-mi-").split("-")
        if family not in ("additive", "student"):  # these have the MI that their formula gives
            assert task.mi == pytest.approx(float(nats), abs=1e-5)


def test_paper_follows_its_grid():
    suite = tasks.suite("paper")
    rho = np.linspace(0, 0.99, 20)
    expected = [-d / 2 * math.log1p(-(r**2)) for d in (1, 10, 10) for r in rho]
    np.testing.assert_allclose([t.mi for t in suite], expected, atol=1e-9)
    known = {"paper-1-1-0.9900": 1.9585, "paper-10-10-0.5211": 1.58, "paper-10-10-0.9900": 19.59}
    assert {name: tasks.get(name).mi for name in known} == pytest.approx(known, abs=0.006)


def test_paper_cubes_are_a_rotated_gaussian():
    x, y = tasks.get("paper-cubic-10-10-0.7295").sample(20_000, seed=0)
    turn = transforms.random_rotation(10, seed=10)
    plain = np.cbrt(y) @ turn  # the inverse of the rotation is its transpose
    np.testing.assert_allclose(x.T @ plain / len(x), 0.7295 * np.eye(10), atol=0.04)
    np.testing.assert_allclose(np.cov(plain.T), np.eye(10), atol=0.04)


@pytest.mark.parametrize("task", [t for t in ALL if t.log_py and t.dim_y == 1], ids=lambda t: t.name)
def test_density_of_y_is_one(task):
    grid = np.concatenate([-np.geomspace(1e4, 1e-4, 50_000), np.geomspace(1e-4, 1e4, 50_000)])
    density = np.exp(task.log_py(grid[:, None]))
    assert trapezoid(density, grid) == pytest.approx(1, abs=2e-3)
    _, y = task.sample(20_000, seed=0)
    inside = np.mean(np.abs(y) < 1)  # and it is that of the rows
    near = np.abs(grid) < 1
    assert trapezoid(density[near], grid[near]) == pytest.approx(inside, abs=0.02)


def test_density_of_y_stays_where_y_stays():
    task = tasks.get("multinormal-dense-5-5-0.5")
    _, y = task.sample(50, seed=0)
    expected = stats.multivariate_normal(np.zeros(5), 0.5 + 0.5 * np.eye(5)).logpdf(y)
    np.testing.assert_allclose(task.log_py(y), expected, atol=1e-10)
    assert task.transform(transforms.cube).log_py is task.log_py
    assert task.transform(None, transforms.cube).log_py is None
    twice = tasks.stack("twice", [task, task])
    np.testing.assert_allclose(twice.log_py(np.hstack([y, y])), 2 * expected, atol=1e-9)


def test_independence_has_no_information_anywhere():
    for task in tasks.suite("independence"):
        x, y = task.sample(200, seed=0)
        assert task.mi == 0
        np.testing.assert_allclose(task.pmi(x, y), 0, atol=1e-10)


def test_names_are_unique_and_found():
    assert len({t.name for t in ALL}) == len(ALL)
    for task in ALL:
        assert tasks.get(task.name) is task


def test_wild_is_varied_and_outside_the_benchmark():
    wild = tasks.suite("wild")
    assert len(wild) == 20
    assert not {t.name for t in wild} & {row[0] for row in BMI_V1}
    assert min(t.mi for t in wild) > 0.2
    assert {t.name for t in wild if t.mi_stderr} == set(MEASURED)


@pytest.mark.parametrize("ask, name, hint", [
    (tasks.suite, "bmi", "bmi-v1"),
    (tasks.get, "1v1-normal-0.7", "1v1-normal-0.75"),
    (tasks.get, "zzz", "there are 1v1-normal-0.75"),
])  # fmt: skip
def test_unknown_names_get_a_hint(ask, name, hint):
    with pytest.raises(ValueError, match=hint):
        ask(name)


# --- the contract of a task ---


@pytest.mark.parametrize("task", ALL, ids=lambda t: t.name)
def test_contract(task):
    x, y = task.sample(64, seed=3)
    assert x.shape == (64, task.dim_x) and y.shape == (64, task.dim_y)
    assert x.dtype == y.dtype == np.float64
    assert np.isfinite(x).all() and np.isfinite(y).all()
    again, other = task.sample(64, seed=3), task.sample(64, seed=4)
    assert np.array_equal(x, again[0]) and np.array_equal(y, again[1])
    assert not np.array_equal(x, other[0])
    copy = pickle.loads(pickle.dumps(task))
    assert np.array_equal(copy.sample(64, seed=3)[1], y)
    assert np.array_equal(copy.pmi(x, y), task.pmi(x, y))


@pytest.mark.parametrize("task", EACH_PMI)
def test_pointwise_mi_averages_to_the_mi(task):
    mean, stderr = measure(task, 10_000 if task.dim_x < 50 else 2_000, seed=11)
    assert abs(mean - task.mi) <= 4 * math.hypot(stderr, task.mi_stderr) + 1e-9


@pytest.mark.parametrize("task", EACH_PMI)
def test_pointwise_mi_is_a_density_ratio(task):
    """E exp(pmi) = 1 over independent x and y; cut at 20, which makes the mean safe to estimate, it is below."""
    n = 2_000
    (x, _), (_, y) = task.sample(n, seed=1), task.sample(n, seed=2)
    ratio = np.minimum(np.exp(task.pmi(x, y)), 20)
    excess = ratio.mean() - 1
    assert excess <= 4 * ratio.std() / math.sqrt(n) + 1e-9
    if task.mi < 0.35:  # the cut takes next to nothing away
        assert excess >= -4 * ratio.std() / math.sqrt(n) - 0.02


def test_every_task_of_these_suites_has_a_pointwise_mi():
    assert WITH_PMI == ALL


def test_different_tasks_draw_independent_rows():
    a, b = (
        tasks.get("1v1-normal-0.75").sample(5_000, seed=0),
        tasks.get("half_cube-1v1-normal-0.75").sample(5_000, seed=0),
    )
    assert abs(stats.spearmanr(a[0][:, 0], b[0][:, 0])[0]) < 0.06


@pytest.mark.parametrize(
    "n, seed, error", [(0, 0, ValueError), (5, -1, ValueError), (2.5, 0, TypeError), (5, None, TypeError)]
)
def test_sample_refuses_nonsense(n, seed, error):
    with pytest.raises(error, match=r"^(n|seed) "):
        tasks.get("1v1-normal-0.75").sample(n, seed)


def test_pmi_checks_shapes_and_takes_flat_columns():
    task = tasks.get("1v1-normal-0.75")
    x, y = task.sample(10, seed=0)
    assert np.array_equal(task.pmi(x[:, 0], y[:, 0]), task.pmi(x, y))
    with pytest.raises(ValueError, match=r"x has shape \(10, 2\)"):
        task.pmi(np.hstack([x, x]), y)
    with pytest.raises(ValueError, match="10 rows and y has 9"):
        task.pmi(x, y[:9])


def test_torch_is_not_needed():
    code = "import sys, flomi.tasks as t; t.suite('staircase'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- k nearest neighbours see the same numbers, independently of any formula here ---


@pytest.mark.parametrize(
    "task",
    [
        t for t in ALL if t.dim_x + t.dim_y <= 3 and "classes" not in t.name and t.mi < 3
    ],  # neighbours saturate
    ids=lambda t: t.name,
)
def test_nearest_neighbours_agree(task):
    x, y = task.sample(5_000, seed=5)
    heavy = task.name in ("student-identity-1-1-1", "heteroscedastic-1-1")
    assert ksg(x, y) == pytest.approx(task.mi, abs=0.12 if heavy else 0.05)


# --- sample moments ---


def test_gaussian_moments():
    covariance = np.array([[2.0, 0.5, 0.3], [0.5, 1.0, -0.4], [0.3, -0.4, 1.5]])
    x, y = base.gaussian("g", covariance, 2).sample(100_000, seed=0)
    np.testing.assert_allclose(np.cov(np.hstack([x, y]).T), covariance, atol=0.03)
    assert (x.shape[1], y.shape[1]) == (2, 1)


def test_dense_is_exchangeable():
    z = np.hstack(tasks.get("multinormal-dense-5-5-0.5").sample(50_000, seed=0))
    np.testing.assert_allclose(np.cov(z.T), 0.5 + 0.5 * np.eye(10), atol=0.03)


def test_sparse_moments():
    z = np.hstack(tasks.get("multinormal-sparse-3-3-2-2.0").sample(50_000, seed=0))
    expected = np.eye(6)
    expected[0, 3] = expected[3, 0] = expected[1, 4] = expected[4, 1] = 0.8
    np.testing.assert_allclose(np.cov(z.T), expected, atol=0.03)


@pytest.mark.parametrize("df", [1, 2, 3])
def test_student_margins(df):
    x, y = base.student("s", np.eye(2), 1, df).sample(20_000, seed=0)
    for column in (x, y):
        assert stats.kstest(column[:, 0], stats.t(df).cdf).pvalue > 1e-3
    assert np.corrcoef(np.abs(stats.t(df).cdf(np.hstack([x, y])).T - 0.5))[0, 1] > 0.1  # one w for both


@pytest.mark.parametrize("width", [0.1, 0.75])
def test_additive_moments(width):
    x, y = base.additive("a", width).sample(50_000, seed=0)
    assert x.mean() == pytest.approx(0.5, abs=0.01) and x.var() == pytest.approx(1 / 12, abs=0.003)
    assert np.abs(y - x).max() <= width and np.var(y - x) == pytest.approx(width**2 / 3, rel=0.03)


def test_additive_pmi_off_the_support_is_minus_infinity():
    assert base.additive("a", 0.1).pmi([0.5, 0.5], [0.55, 0.9]).tolist() == [
        pytest.approx(-math.log(0.2)),
        -math.inf,
    ]


@pytest.mark.parametrize("task, tau", [
    (copulas.clayton("c", 3.0, 1, 1), 3 / 5),
    (copulas.gumbel("g", 2.5), 1 - 1 / 2.5),
    (copulas.frank("f", 8.0), 0.6026),  # 1 - 4/8 (1 - D_1(8)), D_1 the Debye function
], ids=["clayton", "gumbel", "frank"])  # fmt: skip
def test_copula_margins_and_kendall_tau(task, tau):
    x, y = task.sample(20_000, seed=0)
    margin = stats.expon if task.name == "g" else stats.uniform
    for column in (x, y):
        assert stats.kstest(column[:, 0], margin().cdf).pvalue > 1e-3
    assert stats.kendalltau(x[:, 0], y[:, 0])[0] == pytest.approx(tau, abs=0.015)


def test_clayton_closed_form_and_its_margins():
    assert copulas.clayton("c", 3.0, 1, 1).mi == pytest.approx(math.log(4) - 3 / 4, abs=1e-12)
    u = np.hstack(copulas.clayton("c", 1.5, 4, 4).sample(20_000, seed=0))
    assert min(stats.kstest(column, stats.uniform().cdf).pvalue for column in u.T) > 1e-4


def test_circle_and_cross_have_no_correlation():
    for task in (curves.circle("o", 0.15), curves.cross("x", 0.25), curves.heteroscedastic("h", 0.5)):
        x, y = task.sample(50_000, seed=0)
        assert abs(np.corrcoef(x[:, 0], y[:, 0])[0, 1]) < 0.03


def test_entropy_by_quadrature_meets_the_formula():
    for scale in (0.15, 1.0, 30.0):
        one = ScaleMixture(np.ones(1), np.array([0.7]), np.array([scale]))
        assert one.entropy() == pytest.approx(0.5 * math.log(2 * math.pi * math.e * scale**2), abs=1e-9)


def test_circle_radius():
    x, y = curves.circle("o", 0.2).sample(20_000, seed=0)
    assert np.mean(x**2 + y**2) == pytest.approx(1 + 2 * 0.2**2, abs=0.01)


def test_strong_noise_leaves_a_gaussian_channel():
    """y = f(x) + noise e with var f = 1/2 and much noise: I -> 1/2 log(1 + var f / noise^2)."""
    assert curves.sinusoid("s", 5.0).mi == pytest.approx(0.5 * math.log1p(0.5 / 25), rel=0.02)
    assert curves.product("p", 5.0).mi == pytest.approx(0.5 * math.log1p(1 / 25), rel=0.05)


def test_torus_points_and_concentration():
    x, y = curves.torus("t", [[1, 1], [0, 1]], [4.0, 2.0]).sample(20_000, seed=0)
    for points in (x, y):
        np.testing.assert_allclose(np.hypot(points[:, 0::2], points[:, 1::2]), 1, atol=1e-12)
    a, b = (np.arctan2(points[:, 1::2], points[:, 0::2]) for points in (x, y))
    expected = stats.vonmises(4.0).expect(np.cos, lb=-np.pi, ub=np.pi)
    assert np.mean(np.cos(b[:, 0] - a[:, 0] - a[:, 1])) == pytest.approx(expected, abs=0.01)


def test_class_weights_and_labels():
    x, y = tasks.get("two-classes-5-1").sample(20_000, seed=0)
    assert set(np.unique(y)) == {0.0, 1.0} and y.mean() == pytest.approx(0.3, abs=0.015)
    np.testing.assert_allclose(x[y[:, 0] == 1].mean(axis=0), [1.5, 0.5, 0, -0.5, 0], atol=0.06)


def test_two_classes_agree_with_one_dimensional_quadrature():
    """Equal covariances: x matters through one direction, in which the classes are delta apart."""
    covariance, shift = 0.7 * np.eye(5) + 0.3, np.array([1.5, 0.5, 0.0, -0.5, 0.0])
    delta = math.sqrt(shift @ np.linalg.solve(covariance, shift))
    t = np.linspace(-12, 12 + delta, 20_001)
    p = 0.7 * stats.norm.pdf(t) + 0.3 * stats.norm.pdf(t, delta)
    entropy = -np.sum(p * np.log(p)) * (t[1] - t[0])
    mi, stderr = MEASURED["two-classes-5-1"]
    assert abs(entropy - 0.5 * math.log(2 * math.pi * math.e) - mi) < 4 * stderr


def test_planar_clusters_agree_with_quadrature():
    task = tasks.get("clusters-1-1")
    grid = np.linspace(-8, 8, 401)
    x, y = (part.reshape(-1, 1) for part in np.meshgrid(grid, grid))
    mixture = task.sampler.args[0]  # type: ignore[attr-defined]
    pmi = task.pmi(x, y)
    mi = np.sum(np.exp(mixture.log_density(np.hstack([x, y]))) * pmi) * (grid[1] - grid[0]) ** 2
    assert abs(mi - task.mi) < 4 * task.mi_stderr


def test_gaussian_mixture_margins_are_what_the_names_say():
    x, y = tasks.get("margins-3-3").sample(20_000, seed=0)
    laws = (
        [stats.lognorm(1.0), stats.gamma(0.7), stats.beta(0.5, 0.5)],
        [stats.t(2.0), stats.weibull_min(0.8), stats.logistic()],
    )
    for columns, law in ((x, laws[0]), (y, laws[1])):
        assert (
            min(stats.kstest(column, one.cdf).pvalue for column, one in zip(columns.T, law, strict=True))
            > 1e-3
        )


def test_bimodal_margins():
    x, y = tasks.get("1v1-bimodal-0.75").sample(20_000, seed=0)
    for column, weights, means in ((x, (0.3, 0.7), (0, 5)), (y, (0.5, 0.5), (-1, 3))):
        cdf = partial(
            lambda t, w, m: w[0] * stats.norm.cdf(t - m[0]) + w[1] * stats.norm.cdf(t - m[1]),
            w=weights,
            m=means,
        )
        assert stats.kstest(column[:, 0], cdf).pvalue > 1e-3


# --- bad parameters ---


@pytest.mark.parametrize("build, message", [
    (partial(base.gaussian, "g", [[1.0, 2.0], [2.0, 1.0]], 1), "positive definite"),
    (partial(base.gaussian, "g", np.eye(2), 2), "dim_x 2"),
    (partial(base.pairs, "p", (0.5, 0.5), 1, 2), "at most 1"),
    (partial(base.pairs, "p", (1.0,), 1, 1), "in \\(-1, 1\\)"),
    (partial(base.student, "s", np.eye(2), 1, 0), "positive"),
    (partial(base.additive, "a", -1.0), "positive"),
    (partial(base.mixture, "m", (0.5, 0.6), np.zeros((2, 2)), [np.eye(2)] * 2, 1, mi=0, mi_stderr=0), "sum to 1"),
    (partial(copulas.clayton, "c", 0.0, 1, 1), "theta is 0"),
    (partial(copulas.gumbel, "c", 1.0), "theta > 1"),
    (partial(curves.circle, "c", 0.0), "noise is 0"),
    (partial(curves.heteroscedastic, "h", 3.0), "rate is 3"),
    (partial(curves.torus, "t", [[1, 1], [1, 1]], [1.0, 1.0]), "determinant"),
    (partial(transforms.linear, "l", [[1.0, 1.0], [1.0, 1.0]]), "full rank"),
    (partial(transforms.coupling_flow, "f", 1, seed=0), "at least 2"),
])  # fmt: skip
def test_bad_parameters_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_measure_needs_a_pointwise_mi():
    with pytest.raises(ValueError, match="nothing to average"):
        measure(Task("t", 1, 1, 0.0, tasks.get("1v1-normal-0.75").sampler), 10)
