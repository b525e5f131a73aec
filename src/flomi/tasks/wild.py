"""Distributions of many kinds that no published benchmark lists: does an accuracy found elsewhere carry over?

They are not to be tuned on. Each stands for a kind of data: clusters, skewed margins, dependence in one tail,
curves, dependence through the variance, interactions, labels, angles, low rank, learned-looking warps.
"""

from __future__ import annotations

import numpy as np

import flomi.tasks.base as base
import flomi.tasks.copulas as copulas
import flomi.tasks.curves as curves
import flomi.tasks.transforms as tf
from flomi.tasks.core import Array, Task, stack
from flomi.tasks.truth import MEASURED


def wild() -> tuple[Task, ...]:
    """The suite: twenty tasks with one to thirty columns a side."""
    return (
        _clusters_in_the_plane(),
        _clusters("clusters-2-3", k=5, dim_x=2, dim_y=3, spread=2.0, seed=1),
        _clusters("clusters-5-5", k=3, dim_x=5, dim_y=5, spread=1.2, seed=2),
        _skewed_margins(),
        copulas.clayton("clayton-1-1", 3.0, 1, 1).transform(
            tf.normal_quantile, tf.normal_quantile, name="clayton-normal-1-1"
        ),
        copulas.clayton("clayton-4-4", 1.5, 4, 4),
        copulas.frank("frank-1-1", 8.0),
        copulas.gumbel("gumbel-1-1", 2.5),
        curves.sinusoid("sinusoid-1-1", noise=0.3),
        curves.circle("circle-1-1", noise=0.15),
        curves.cross("cross-1-1", noise=0.25),
        curves.heteroscedastic("heteroscedastic-1-1", rate=1.0),
        curves.product("product-2-1", noise=0.3),
        _low_rank(),
        _warped(),
        _heavy_clusters(),
        _two_classes(),
        _four_classes(),
        curves.torus("torus-4-4", winding=[[1, 1], [0, 1]], concentration=[4.0, 2.0]),
        _mixed_sources(),
    )


def _fixed_normal(seed: int, *shape: int) -> Array:
    # the legacy generator: NumPy keeps its stream unchanged, so the measured MI stays true of these numbers
    return np.random.RandomState(seed).standard_normal(shape)


def _plane(correlation: float, scale_x: float = 1.0, scale_y: float = 1.0) -> list[list[float]]:
    c = correlation * scale_x * scale_y
    return [[scale_x**2, c], [c, scale_y**2]]


def _clusters_in_the_plane() -> Task:
    mi, stderr = MEASURED["clusters-1-1"]
    means = [(-2.0, 0.0), (0.0, 2.0), (1.5, -1.0), (0.0, 0.0)]
    covariances = [_plane(0.8, 0.6, 0.6), _plane(-0.6, 1.0, 0.5), _plane(0.0, 0.4, 0.8), _plane(0.9)]
    weights = (0.3, 0.3, 0.2, 0.2)
    return base.mixture("clusters-1-1", weights, means, covariances, 1, mi=mi, mi_stderr=stderr)


def _clusters(name: str, k: int, dim_x: int, dim_y: int, spread: float, seed: int) -> Task:
    d = dim_x + dim_y
    roots = _fixed_normal(seed, k, d, d) / np.sqrt(d)
    covariances = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(d)
    weights = tuple(np.arange(k, 2 * k) / np.arange(k, 2 * k).sum())
    mi, stderr = MEASURED[name]
    means = spread * _fixed_normal(seed + 100, k, d)
    return base.mixture(name, weights, means, covariances, dim_x, mi=mi, mi_stderr=stderr)


def _skewed_margins() -> Task:
    root = _fixed_normal(3, 6, 3)
    covariance = root @ root.T + 0.3 * np.eye(6)
    scale = np.sqrt(np.diag(covariance))
    normal = base.gaussian("margins", covariance / np.outer(scale, scale), 3)
    fx = tf.quantiles("margins", [("lognorm", (1.0,)), ("gamma", (0.7,)), ("beta", (0.5, 0.5))])
    fy = tf.quantiles("margins", [("t", (2.0,)), ("weibull_min", (0.8,)), ("logistic", ())])
    return normal.transform(fx, fy, name="margins-3-3")


def _low_rank() -> Task:
    """Thirty correlated inputs, ten outputs that see three directions of them."""
    lag = np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    inputs = 0.6**lag
    loading = _fixed_normal(4, 10, 3) @ _fixed_normal(5, 3, 30) / np.sqrt(30)
    cross = loading @ inputs
    outputs = cross @ loading.T + 2.0 * np.eye(10)
    return base.gaussian("low-rank-30-10", np.block([[inputs, cross.T], [cross, outputs]]), 30)


def _warped() -> Task:
    """A Gaussian behind two random invertible networks."""
    normal = base.pairs("warped", (0.95, 0.9, 0.8), 4, 4)
    fx, fy = tf.coupling_flow("flow", 4, seed=6), tf.coupling_flow("flow", 4, seed=7)
    return normal.transform(fx, fy, name="warped-4-4")


def _heavy_clusters() -> Task:
    """Two Student clusters, correlated in opposite directions."""
    mi, stderr = MEASURED["student-clusters-2-2"]
    block = np.eye(4)
    block[0, 2] = block[2, 0] = block[1, 3] = block[3, 1] = 0.8
    opposite = 2 * np.eye(4) - block
    means = [(0.0, 0.0, 0.0, 0.0), (1.5, -1.5, 0.0, 1.5)]
    return base.mixture(
        "student-clusters-2-2", (0.6, 0.4), means, [block, opposite], 2, df=3.0, mi=mi, mi_stderr=stderr
    )


def _two_classes() -> Task:
    """A binary outcome and five correlated predictors."""
    mi, stderr = MEASURED["two-classes-5-1"]
    covariance = 0.7 * np.eye(5) + 0.3
    means = [(0.0,) * 5, (1.5, 0.5, 0.0, -0.5, 0.0)]
    return base.classes("two-classes-5-1", (0.7, 0.3), means, [covariance] * 2, mi=mi, mi_stderr=stderr)


def _four_classes() -> Task:
    """Four overlapping groups in the plane, two of them with the same centre and other shapes."""
    mi, stderr = MEASURED["four-classes-2-1"]
    means = [(0.0, 0.0), (0.0, 0.0), (2.0, 1.0), (-2.0, 1.0)]
    covariances = [_plane(0.9, 1.5, 1.5), _plane(-0.9, 1.5, 1.5), _plane(0.0, 0.7, 0.7), _plane(0.3)]
    return base.classes("four-classes-2-1", (0.25,) * 4, means, covariances, mi=mi, mi_stderr=stderr)


def _mixed_sources() -> Task:
    """Three independent pairs of unlike kinds, seen through random rotations."""
    centred = copulas.frank("frank", 8.0).transform(tf.normal_quantile, tf.normal_quantile)
    parts = [curves.sinusoid("sinusoid", noise=0.3), centred, base.pairs("pair", (0.7,), 1, 1)]
    fx = tf.linear("rotation", tf.random_rotation(3, seed=8))
    fy = tf.linear("rotation", tf.random_rotation(3, seed=9))
    return stack("mixed-sources-3-3", parts).transform(fx, fy, name="mixed-sources-3-3")
