"""Archimedean copulas: dependence in one tail or in neither, with exact pointwise MI."""

from __future__ import annotations

from functools import partial

import numpy as np

from flomi.tasks.core import Array, Task


def clayton(name: str, theta: float, dim_x: int, dim_y: int) -> Task:
    """The Clayton copula over m + n uniform coordinates: strong dependence where all are small.

    With u_i = (1 + E_i / V)^(-1/theta), E_i ~ Exp(1) and one V ~ Gamma(1/theta) a row, the density in k
    coordinates and its mean logarithm are

        log c_k  = sum_{j<k} log(1 + j theta) - (theta + 1) sum_i log u_i - (k + 1/theta) log S_k
        S_k      = 1 + sum_i (u_i^-theta - 1)
        E log c_k = sum_{j<k} log(1 + j theta) + (theta + 1) k - (k + 1/theta) [psi(k + 1/theta) - psi(1/theta)]
        I        = E log c_{m+n} - E log c_m - E log c_n

    For one coordinate a side I = log(1 + theta) - theta / (1 + theta). Raises ValueError for theta <= 0.

    Example:
        >>> round(clayton("lower-tail", theta=1.0, dim_x=1, dim_y=1).mi, 6)  # log 2 - 1/2
        0.193147
    """
    _positive(theta)
    mi = _clayton_mean(theta, dim_x + dim_y) - _clayton_mean(theta, dim_x) - _clayton_mean(theta, dim_y)
    sampler = partial(_clayton_sample, theta, dim_x, dim_y)
    return Task(name, dim_x, dim_y, mi, sampler, partial(_clayton_pmi, theta))


def _clayton_mean(theta: float, k: int) -> float:
    from scipy.special import digamma

    a = 1 / theta
    constant = np.log1p(theta * np.arange(k)).sum()
    return float(constant + (theta + 1) * k - (k + a) * (digamma(k + a) - digamma(a)))


def _clayton_sample(
    theta: float, dim_x: int, dim_y: int, rng: np.random.Generator, n: int
) -> tuple[Array, Array]:
    frailty = rng.gamma(1 / theta, size=(n, 1))
    u = (1 + rng.exponential(size=(n, dim_x + dim_y)) / frailty) ** (-1 / theta)
    return u[:, :dim_x], u[:, dim_x:]


def _clayton_log_density(theta: float, u: Array) -> Array:
    k = u.shape[1]
    log_s = np.log1p(np.expm1(-theta * np.log(u)).sum(axis=1))
    constant = np.log1p(theta * np.arange(k)).sum()
    density: Array = constant - (theta + 1) * np.log(u).sum(axis=1) - (k + 1 / theta) * log_s
    return density


def _clayton_pmi(theta: float, x: Array, y: Array) -> Array:
    joint = _clayton_log_density(theta, np.hstack([x, y]))
    return joint - _clayton_log_density(theta, x) - _clayton_log_density(theta, y)


def frank(name: str, theta: float) -> Task:
    """The Frank copula, uniform x and y: symmetric, with no dependence in the tails.

        c(u, v) = theta (1 - e^-theta) e^{-theta (u + v)} / [(1 - e^-theta) - (1 - e^{-theta u})(1 - e^{-theta v})]^2

    I = E log c by Gauss-Legendre quadrature on the unit square. Raises ValueError for theta <= 0.
    """
    _positive(theta)
    nodes, weights = np.polynomial.legendre.leggauss(256)
    u, w = (nodes + 1) / 2, weights / 2
    x, y = np.repeat(u, len(u))[:, None], np.tile(u, len(u))[:, None]
    log_c = _frank_pmi(theta, x, y)
    mi = float(np.sum(np.outer(w, w).ravel() * np.exp(log_c) * log_c))
    return Task(name, 1, 1, mi, partial(_frank_sample, theta), partial(_frank_pmi, theta))


def _frank_sample(theta: float, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    u, level = rng.random((n, 1)), rng.random((n, 1))
    # solve dC(u, v)/du = level for v
    a = level * -np.expm1(-theta) / (level * np.expm1(-theta * u) - np.exp(-theta * u))
    return u, -np.log1p(a) / theta


def _frank_pmi(theta: float, x: Array, y: Array) -> Array:
    u, v = x[:, 0], y[:, 0]
    whole = -np.expm1(-theta)
    bottom = whole - np.expm1(-theta * u) * np.expm1(-theta * v)
    pmi: Array = np.log(theta) + np.log(whole) - theta * (u + v) - 2 * np.log(bottom)
    return pmi


def gumbel(name: str, theta: float) -> Task:
    """The Gumbel copula on the scale a = -log u, b = -log v: unit exponentials that are small together.

        log c = a + b - s + (theta - 1) log(a b) + (1 - 2 theta) log s + log(s + theta - 1)
        s     = (a^theta + b^theta)^(1/theta) = -log C(u, v)

    a = s t^(1/theta) and b = s (1 - t)^(1/theta), where t is uniform and s, independent of it, is Exp(1) with
    probability 1 - 1/theta and Gamma(2) otherwise. So the mean is one integral in s:

        I = 1 - 1/theta - gamma_E (2 theta - 2) + (1 - 2 theta)(1/theta - gamma_E) + E log(s + theta - 1)

    The exponential scale keeps all digits in the dependent tail. Raises ValueError for theta <= 1.
    """
    if not theta > 1:
        raise ValueError(f"theta is {theta}; the Gumbel copula needs theta > 1")
    # s = exp(r): the trapezoid rule converges geometrically as the integrand dies at both ends
    r = np.linspace(-45, np.log(60), 20001)
    s = np.exp(r)
    density = np.exp(-s) * (1 - 1 / theta + s / theta)
    last = float(np.sum(density * s * np.log(s + theta - 1)) * (r[1] - r[0]))
    e = float(np.euler_gamma)
    mi = 1 - 1 / theta - e * (2 * theta - 2) + (1 - 2 * theta) * (1 / theta - e) + last
    return Task(name, 1, 1, mi, partial(_gumbel_sample, theta), partial(_gumbel_pmi, theta))


def _gumbel_sample(theta: float, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    shape = 1 + (rng.random((n, 1)) < 1 / theta)
    s, t = rng.gamma(shape), rng.random((n, 1))
    return s * t ** (1 / theta), s * (1 - t) ** (1 / theta)


def _gumbel_pmi(theta: float, x: Array, y: Array) -> Array:
    a, b = x[:, 0], y[:, 0]
    log_ab = np.log(a) + np.log(b)
    s = np.exp(np.logaddexp(theta * np.log(a), theta * np.log(b)) / theta)
    return a + b - s + (theta - 1) * log_ab + (1 - 2 * theta) * np.log(s) + np.log(s + theta - 1)


def _positive(theta: float) -> None:
    if not theta > 0:
        raise ValueError(f"theta is {theta}; it must be positive")
