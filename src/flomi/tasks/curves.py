"""Dependence along a curve, through the variance, or through a product: what correlation does not see.

The marginals are one-dimensional integrals of Gaussians, taken on grids fine enough for rounding accuracy
(the trapezoid rule converges geometrically on periodic and on Gaussian-tailed integrands).
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from flomi.tasks.core import Array, Task
from flomi.tasks.densities import ScaleMixture

_LOG_2PI = float(np.log(2 * np.pi))


def _log_normal(t: Array, mean: Array | float, scale: Array | float) -> Array:
    return -0.5 * ((t - mean) / scale) ** 2 - np.log(scale) - 0.5 * _LOG_2PI


def _normal_grid(n_nodes: int) -> tuple[Array, Array]:
    t = np.linspace(-9, 9, n_nodes)
    w = np.exp(-0.5 * t**2)
    return t, w / w.sum()


def _circle_grid(n_nodes: int) -> tuple[Array, Array]:
    return 2 * np.pi * np.arange(n_nodes) / n_nodes, np.full(n_nodes, 1 / n_nodes)


def sinusoid(name: str, noise: float) -> Task:
    """x uniform on (-1, 1), y = sin(pi x) + noise e with e ~ N(0, 1).

        I = h(Y) - 1/2 log(2 pi e noise^2)

    Raises ValueError for noise < 0.15.
    """
    _check_noise(noise)
    angle, weights = _circle_grid(256)
    marginal = ScaleMixture(weights, np.sin(angle), np.full_like(angle, noise))
    mi = marginal.entropy() - 0.5 * (1 + _LOG_2PI) - np.log(noise)
    sampler, log_ratio = partial(_sinusoid_sample, noise), partial(_sinusoid_pmi, noise, marginal)
    return Task(name, 1, 1, float(mi), sampler, log_ratio)


def _sinusoid_sample(noise: float, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    x = rng.uniform(-1, 1, (n, 1))
    return x, np.sin(np.pi * x) + noise * rng.standard_normal((n, 1))


def _sinusoid_pmi(noise: float, marginal: ScaleMixture, x: Array, y: Array) -> Array:
    return _log_normal(y[:, 0], np.sin(np.pi * x[:, 0]), noise) - marginal.log_density(y[:, 0])


def heteroscedastic(name: str, rate: float) -> Task:
    """x ~ N(0, 1), y = exp(rate x) e with e ~ N(0, 1): x sets the scale of y and nothing else.

    I = h(Y) - 1/2 log(2 pi e)

    Raises ValueError for a rate outside (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(
            f"rate is {rate}; it must be positive and at most 1, where the quadrature is accurate"
        )
    t, weights = _normal_grid(301)
    marginal = ScaleMixture(weights, np.zeros_like(t), np.exp(rate * t))
    mi = marginal.entropy() - 0.5 * (1 + _LOG_2PI)
    return Task(name, 1, 1, mi, partial(_hetero_sample, rate), partial(_hetero_pmi, rate, marginal))


def _hetero_sample(rate: float, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    x = rng.standard_normal((n, 1))
    return x, np.exp(rate * x) * rng.standard_normal((n, 1))


def _hetero_pmi(rate: float, marginal: ScaleMixture, x: Array, y: Array) -> Array:
    return _log_normal(y[:, 0], 0.0, np.exp(rate * x[:, 0])) - marginal.log_density(y[:, 0])


def product(name: str, noise: float) -> Task:
    """x ~ N(0, I_2), y = x_1 x_2 + noise e with e ~ N(0, 1): an interaction with no main effect.

    Y | x_1 ~ N(0, x_1^2 + noise^2);    I = h(Y) - 1/2 log(2 pi e noise^2)

    Raises ValueError for noise < 0.15.
    """
    _check_noise(noise)
    t, weights = _normal_grid(301)
    marginal = ScaleMixture(weights, np.zeros_like(t), np.hypot(t, noise))
    mi = marginal.entropy() - 0.5 * (1 + _LOG_2PI) - np.log(noise)
    sampler, log_ratio = partial(_product_sample, noise), partial(_product_pmi, noise, marginal)
    return Task(name, 2, 1, float(mi), sampler, log_ratio)


def _product_sample(noise: float, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    x = rng.standard_normal((n, 2))
    return x, x.prod(axis=1, keepdims=True) + noise * rng.standard_normal((n, 1))


def _product_pmi(noise: float, marginal: ScaleMixture, x: Array, y: Array) -> Array:
    return _log_normal(y[:, 0], x.prod(axis=1), noise) - marginal.log_density(y[:, 0])


def cross(name: str, noise: float) -> Task:
    """x ~ N(0, 1), y = s x + noise e with a fair sign s: the two strokes of a letter X.

        p(y | x) = 1/2 N(y; x, noise^2) + 1/2 N(y; -x, noise^2),    Y ~ N(0, 1 + noise^2)

    I by quadrature over x and e, on the stroke s = 1 (the other gives the same). Raises ValueError for noise < 0.15.
    """
    _check_noise(noise)
    x, weights = _normal_grid(301)
    grid_x, grid_e = np.repeat(x, len(x))[:, None], np.tile(x, len(x))[:, None]
    mi = float(np.outer(weights, weights).ravel() @ _cross_pmi(noise, grid_x, grid_x + noise * grid_e))
    return Task(name, 1, 1, mi, partial(_cross_sample, noise), partial(_cross_pmi, noise))


def _cross_sample(noise: float, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    x = rng.standard_normal((n, 1))
    sign = rng.choice([-1.0, 1.0], size=(n, 1))
    return x, sign * x + noise * rng.standard_normal((n, 1))


def _cross_pmi(noise: float, x: Array, y: Array) -> Array:
    t, centre = y[:, 0], x[:, 0]
    strokes = np.logaddexp(_log_normal(t, centre, noise), _log_normal(t, -centre, noise))
    pmi: Array = strokes - np.log(2) - _log_normal(t, 0.0, float(np.hypot(1, noise)))
    return pmi


def circle(name: str, noise: float) -> Task:
    """A point uniform on the unit circle, with noise N(0, noise^2) on each coordinate; x and y its coordinates.

        p(x, y) = exp(-(r^2 + 1) / (2 noise^2)) I_0(r / noise^2) / (2 pi noise^2),    r^2 = x^2 + y^2
        I       = 2 h(X) - h(X, Y)

    Raises ValueError for noise < 0.15.
    """
    _check_noise(noise)
    angle, weights = _circle_grid(256)
    marginal = ScaleMixture(weights, np.cos(angle), np.full_like(angle, noise))
    nodes, lengths = np.polynomial.legendre.leggauss(256)
    reach = 1 + 12 * noise
    r = reach * (nodes + 1) / 2
    log_p = _ring_log_density(noise, r)
    joint_entropy = -np.pi * reach * np.sum(lengths * r * np.exp(log_p) * log_p)
    mi = float(2 * marginal.entropy() - joint_entropy)
    return Task(name, 1, 1, mi, partial(_circle_sample, noise), partial(_circle_pmi, noise, marginal))


def _ring_log_density(noise: float, r: Array) -> Array:
    from scipy.special import i0e

    bessel = np.log(i0e(r / noise**2))  # i0e carries exp(-r / noise^2)
    density: Array = bessel - 0.5 * ((r - 1) / noise) ** 2 - _LOG_2PI - 2 * np.log(noise)
    return density


def _circle_sample(noise: float, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    angle = rng.uniform(0, 2 * np.pi, (n, 1))
    e = noise * rng.standard_normal((n, 2))
    return np.cos(angle) + e[:, :1], np.sin(angle) + e[:, 1:]


def _circle_pmi(noise: float, marginal: ScaleMixture, x: Array, y: Array) -> Array:
    joint = _ring_log_density(noise, np.hypot(x[:, 0], y[:, 0]))
    return joint - marginal.log_density(x[:, 0]) - marginal.log_density(y[:, 0])


def torus(name: str, winding: npt.ArrayLike, concentration: npt.ArrayLike) -> Task:
    """x uniform on a k-torus in R^2k, y another point of it: angles b = M a + e, e von Mises, M whole numbers.

        x = (cos a_1, sin a_1, cos a_2, ...),   y likewise from b
        pmi = sum_j kappa_j cos(b_j - (M a)_j) - log I_0(kappa_j)
        I   = sum_j kappa_j I_1(kappa_j) / I_0(kappa_j) - log I_0(kappa_j)

    b is uniform on the torus as well; with M other than the identity, y follows sums of x's angles. Raises
    ValueError if M is not a square matrix of whole numbers with determinant +1 or -1, or a kappa_j <= 0.
    """
    from scipy.special import ive

    m, kappa = np.array(winding, dtype=np.float64), np.array(concentration, dtype=np.float64)
    whole = m.ndim == 2 and m.shape[0] == m.shape[1] and np.array_equal(m, np.round(m))
    if not whole or abs(abs(np.linalg.det(m)) - 1) > 1e-9 or kappa.shape != (len(m),) or np.any(kappa <= 0):
        raise ValueError(
            f"winding has shape {m.shape} and concentration {kappa.shape}; give a [k, k] matrix of whole numbers "
            "with determinant 1 or -1 and [k] positive values"
        )
    mi = float(np.sum(kappa * ive(1, kappa) / ive(0, kappa) - np.log(ive(0, kappa)) - kappa))
    sampler, log_ratio = partial(_torus_sample, m, kappa), partial(_torus_pmi, m, kappa)
    return Task(name, 2 * len(m), 2 * len(m), mi, sampler, log_ratio)


def _torus_points(angles: Array) -> Array:
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(len(angles), -1)


def _torus_sample(m: Array, kappa: Array, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    a = rng.uniform(-np.pi, np.pi, (n, len(m)))
    b = a @ m.T + rng.vonmises(0, kappa, (n, len(m)))
    return _torus_points(a), _torus_points(b)


def _torus_pmi(m: Array, kappa: Array, x: Array, y: Array) -> Array:
    from scipy.special import i0e

    a, b = (np.arctan2(points[:, 1::2], points[:, 0::2]) for points in (x, y))
    pmi: Array = np.sum(kappa * (np.cos(b - a @ m.T) - 1) - np.log(i0e(kappa)), axis=1)
    return pmi


def _check_noise(noise: float) -> None:
    if not noise >= 0.15:
        raise ValueError(f"noise is {noise}; it must be at least 0.15, where the quadrature is accurate")
