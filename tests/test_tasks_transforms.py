"""Laws of the maps that keep mutual information: inverses, monotony, values by hand, and what a task makes of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr

from flomi import tasks
from flomi.tasks import base, transforms
from flomi.tasks.core import Array, Transform

Z = np.random.default_rng(0).standard_normal((2_000, 4))
ON_NORMALS = [
    transforms.normal_cdf,
    transforms.half_cube,
    transforms.cube,
    transforms.asinh,
    transforms.wiggly_x,
    transforms.wiggly_y,
    transforms.bimodal_x,
    transforms.bimodal_y,
    transforms.spiral(0, 1),
    transforms.spiral(1, 2),
    transforms.linear("mix", transforms.random_rotation(4, seed=0) + 0.1 * np.eye(4)),
    transforms.coupling_flow("flow", 4, seed=0),
    transforms.quantiles(
        "margins", [("lognorm", (1.0,)), ("gamma", (0.7,)), ("beta", (0.5, 0.5)), ("t", (2.0,))]
    ),
]


@pytest.mark.parametrize("f", ON_NORMALS, ids=lambda f: f.name)
def test_inverse_undoes_forward(f):
    assert f.inverse is not None
    before = Z.copy()
    np.testing.assert_allclose(f.inverse(f(Z)), Z, rtol=0, atol=1e-9)
    assert np.array_equal(Z, before)
    assert not np.allclose(f(Z), Z, atol=1e-2)


def test_inverse_of_the_uniform_transforms():
    u = np.random.default_rng(0).random((2_000, 1))
    for f in (transforms.swissroll, transforms.normal_quantile):
        assert f.inverse is not None
        np.testing.assert_allclose(f.inverse(f(u)), u, rtol=0, atol=1e-9)


@pytest.mark.parametrize("f", ON_NORMALS[:8], ids=lambda f: f.name)
def test_coordinate_maps_increase_and_act_alone(f):
    t = np.linspace(-6, 6, 2_001)[:, None]
    assert np.all(np.diff(f(t)[:, 0]) > 0)
    np.testing.assert_allclose(f(Z)[:, 2], f(Z[:, 2:3])[:, 0], atol=1e-12)


@pytest.mark.parametrize("wiggle, slope", [(transforms.wiggly_x, 0.184), (transforms.wiggly_y, 0.536)])
def test_smallest_slope_of_the_wiggles(wiggle, slope):
    t = np.linspace(-60, 60, 1_200_001)
    assert np.min(np.diff(wiggle(t))) / 1e-4 == pytest.approx(slope, abs=1e-3)


def test_values_by_hand():
    one = np.array([[1.0, 2.0, 2.0]])
    q = 3.0  # (1 + 4 + 4) / 3
    expected = [math.cos(q) - 2 * math.sin(q), math.sin(q) + 2 * math.cos(q), 2.0]
    np.testing.assert_allclose(transforms.spiral(0, 1)(one)[0], expected)
    expected = [1.0, 2 * math.cos(q) - 2 * math.sin(q), 2 * math.sin(q) + 2 * math.cos(q)]
    np.testing.assert_allclose(transforms.spiral(1, 2)(one)[0], expected)
    np.testing.assert_allclose(transforms.half_cube(np.array([-4.0])), [-8.0])
    np.testing.assert_allclose(
        transforms.swissroll(np.array([[0.5]])), [[-3 * math.pi / 21, 0.0]], atol=1e-12
    )


def test_spiral_turns_by_the_mean_square_and_keeps_the_norm():
    f = transforms.spiral(1, 2)
    np.testing.assert_allclose((f(Z) ** 2).sum(axis=1), (Z**2).sum(axis=1))
    np.testing.assert_array_equal(f(Z)[:, [0, 3]], Z[:, [0, 3]])


def _wiggle_x(t):
    return t + 0.40 * np.sin(t) + 0.20 * np.sin(1.7 * t + 1) + 0.03 * np.sin(3.3 * t - 2.5)


def _wiggle_y(t):
    return t - 0.40 * np.sin(0.4 * t) + 0.17 * np.sin(1.3 * t + 3.5) + 0.02 * np.sin(4.3 * t - 2.5)


def _turn(z, i, j):
    q, turned = (z**2).sum(axis=1) / z.shape[1], z.copy()
    turned[:, i], turned[:, j] = (
        np.cos(q) * z[:, i] - np.sin(q) * z[:, j],
        np.sin(q) * z[:, i] + np.cos(q) * z[:, j],
    )
    return turned


def _turn_x(z):
    return _turn(z, 0, 1)


def _turn_y(z):
    return _turn(z, 1, 2)


def _roll(v):
    a = 1.5 * math.pi * (1 + 2 * v)
    return np.hstack([a * np.cos(a), a * np.sin(a)]) / 21


def _half_cube(t):
    return np.sign(t) * np.abs(t) ** 1.5


@pytest.mark.parametrize("base_name, name, fx, fy", [
    ("1v1-normal-0.75", "normal_cdf-{}", ndtr, ndtr),
    ("1v1-normal-0.75", "wiggly-{}", _wiggle_x, _wiggle_y),
    ("1v1-normal-0.75", "half_cube-{}", _half_cube, _half_cube),
    ("normal_cdf-1v1-normal-0.75", "swissroll_x-{}", _roll, lambda v: v),
    ("student-identity-3-3-2", "asinh-{}", np.arcsinh, np.arcsinh),
    *[(f"multinormal-sparse-{d}-{d}-2-2.0", "normal_cdf-{}", ndtr, ndtr) for d in (3, 5, 25)],
    *[(f"multinormal-sparse-{d}-{d}-2-2.0", "half_cube-{}", _half_cube, _half_cube) for d in (3, 5, 25)],
    *[(f"multinormal-sparse-{d}-{d}-2-2.0", "spiral-{}", _turn_x, _turn_y) for d in (3, 5, 25)],
    *[(f"normal_cdf-multinormal-sparse-{d}-{d}-2-2.0", "spiral-{}", _turn_x, _turn_y) for d in (3, 5, 25)],
])  # fmt: skip
def test_benchmark_tasks_are_the_published_formulas_of_their_base(base_name, name, fx, fy):
    plain = tasks.get(base_name).sampler(np.random.default_rng(0), 200)
    bent = tasks.get(name.format(base_name)).sampler(np.random.default_rng(0), 200)
    np.testing.assert_allclose(bent[0], fx(plain[0]), atol=1e-12)
    np.testing.assert_allclose(bent[1], fy(plain[1]), atol=1e-12)


def _shift(values: Array) -> Array:
    return values + 1


def test_transform_keeps_mi_and_pulls_back_the_pointwise_mi():
    task = base.dense("d", 2, 3, 0.5)
    bent = task.transform(transforms.cube, transforms.asinh)
    assert bent.name == "cube_x-asinh_y-d" and bent.mi == task.mi and (bent.dim_x, bent.dim_y) == (2, 3)
    x, y = task.sample(100, seed=0)
    np.testing.assert_allclose(bent.pmi(x**3, np.arcsinh(y)), task.pmi(x, y), atol=1e-9)
    plain = task.transform(fy=_shift)
    assert plain.name == "_shift_y-d" and plain.pmi(x, y) is None
    named = task.transform(Transform("up", _shift, lambda t: t - 1), name="moved")
    np.testing.assert_allclose(named.pmi(x + 1, y), task.pmi(x, y))
    assert named.name == "moved"


def test_transform_refuses_what_is_no_map_of_rows():
    task = base.dense("d", 2, 2, 0.5)
    with pytest.raises(ValueError, match="fx must map"):
        task.transform(np.sum)
    with pytest.raises(TypeError, match="not int"):
        task.transform(3)


def test_stack_adds_up():
    parts = [base.additive("a", 0.1), base.student("s", np.eye(5), 2, 2)]
    both = tasks.stack("both", parts)
    assert (both.dim_x, both.dim_y) == (3, 4) and both.mi == pytest.approx(parts[0].mi + parts[1].mi)
    x, y = both.sample(50, seed=0)
    expected = parts[0].pmi(x[:, :1], y[:, :1]) + parts[1].pmi(x[:, 1:], y[:, 1:])
    np.testing.assert_allclose(both.pmi(x, y), expected)
    blind = tasks.stack("blind", [parts[0], parts[1].transform(_shift)])
    assert blind.pmi(x, y) is None
    with pytest.raises(ValueError, match="empty"):
        tasks.stack("none", [])
