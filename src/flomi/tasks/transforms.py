"""Injective maps of rows. Every one has its inverse, so tasks built with them keep an exact pointwise MI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from flomi.tasks.core import Array, Transform


def invert_increasing(f: Callable[[Array], Array], target: Array, low: Array, high: Array) -> Array:
    """Solve f(t) = target for an increasing f by bisection between low and high, to rounding."""
    for _ in range(64):
        middle = 0.5 * (low + high)
        below = f(middle) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return 0.5 * (low + high)


# --- coordinate by coordinate ---


def _normal_cdf(t: Array) -> Array:
    from scipy.special import ndtr

    return ndtr(t)


def _normal_quantile(u: Array) -> Array:
    from scipy.special import ndtri

    return ndtri(u)


def _half_cube(t: Array) -> Array:
    return t * np.sqrt(np.abs(t))


def _half_cube_inverse(s: Array) -> Array:
    root: Array = np.sign(s) * np.cbrt(s) ** 2
    return root


def _cube(t: Array) -> Array:
    return t**3


def _wiggle(waves: tuple[tuple[float, float, float], ...], t: Array) -> Array:
    return t + sum(size * np.sin(rate * t + phase) for size, rate, phase in waves)


def _wiggle_inverse(waves: tuple[tuple[float, float, float], ...], s: Array) -> Array:
    reach = sum(abs(size) for size, _, _ in waves)
    return invert_increasing(partial(_wiggle, waves), s, s - reach, s + reach)


def wiggle(name: str, waves: Sequence[tuple[float, float, float]]) -> Transform:
    """t -> t + sum_j a_j sin(w_j t + p_j) per coordinate, for waves (a, w, p) with sum |a_j w_j| < 1.

    That condition is sufficient, not necessary: any waves with a positive slope throughout will do.
    """
    return Transform(name, partial(_wiggle, tuple(waves)), partial(_wiggle_inverse, tuple(waves)))


def _mixture_score(weights: Array, means: Array, scales: Array, t: Array) -> Array:
    z = (t[..., None] - means) / scales
    lower, upper = _normal_cdf(z) @ weights, _normal_cdf(-z) @ weights
    return np.where(lower < upper, _normal_quantile(lower), -_normal_quantile(upper))


def _mixture_quantile(weights: Array, means: Array, scales: Array, s: Array) -> Array:
    # at the smallest (largest) component quantile every component's CDF is at most (at least) Phi(s)
    corners = means + scales * s[..., None]
    # solved in the smaller tail, which carries all its digits
    side = np.where(s < 0, 1.0, -1.0)
    tail = partial(_mixture_tail, weights, means, scales, side)
    return invert_increasing(tail, side * _normal_cdf(side * s), corners.min(axis=-1), corners.max(axis=-1))


def _mixture_tail(weights: Array, means: Array, scales: Array, side: Array, t: Array) -> Array:
    return side * (_normal_cdf(side[..., None] * (t[..., None] - means) / scales) @ weights)


def normal_mixture(
    name: str, weights: Sequence[float], means: Sequence[float], scales: Sequence[float]
) -> Transform:
    """t -> F^-1(Phi(t)) per coordinate, F the CDF of a one-dimensional Gaussian mixture.

    A standard normal coordinate becomes one that follows the mixture.

    Example:
        >>> import numpy as np
        >>> two_humps = normal_mixture("two_humps", (0.5, 0.5), (-2.0, 2.0), (1.0, 1.0))
        >>> bool(abs(two_humps(np.zeros((1, 1)))[0, 0]) < 1e-12)
        True
    """
    parameters = tuple(np.asarray(values, dtype=np.float64) for values in (weights, means, scales))
    return Transform(name, partial(_mixture_quantile, *parameters), partial(_mixture_score, *parameters))


normal_cdf = Transform("normal_cdf", _normal_cdf, _normal_quantile)
normal_quantile = Transform("normal_quantile", _normal_quantile, _normal_cdf)
half_cube = Transform("half_cube", _half_cube, _half_cube_inverse)
cube = Transform("cube", _cube, np.cbrt)
asinh = Transform("asinh", np.arcsinh, np.sinh)
wiggly_x = wiggle("wiggly", ((0.40, 1.0, 0.0), (0.20, 1.7, 1.0), (0.03, 3.3, -2.5)))
wiggly_y = wiggle("wiggly", ((-0.40, 0.4, 0.0), (0.17, 1.3, 3.5), (0.02, 4.3, -2.5)))
bimodal_x = normal_mixture("bimodal", (0.3, 0.7), (0.0, 5.0), (1.0, 1.0))
bimodal_y = normal_mixture("bimodal", (0.5, 0.5), (-1.0, 3.0), (1.0, 1.0))


def _quantile_columns(columns: tuple[tuple[str, tuple[float, ...]], ...], z: Array) -> Array:
    from scipy import stats

    result = np.empty_like(z)
    for j, (family, parameters) in enumerate(columns):
        law = getattr(stats, family)(*parameters)
        low = z[:, j] < 0
        result[low, j] = law.ppf(_normal_cdf(z[low, j]))
        result[~low, j] = law.isf(_normal_cdf(-z[~low, j]))
    return result


def _score_columns(columns: tuple[tuple[str, tuple[float, ...]], ...], values: Array) -> Array:
    from scipy import stats

    result = np.empty_like(values)
    for j, (family, parameters) in enumerate(columns):
        law = getattr(stats, family)(*parameters)
        lower, upper = law.cdf(values[:, j]), law.sf(values[:, j])
        result[:, j] = np.where(lower < upper, _normal_quantile(lower), -_normal_quantile(upper))
    return result


def quantiles(name: str, columns: Sequence[tuple[str, tuple[float, ...]]]) -> Transform:
    """Give each standard normal column its own continuous law: z_j -> F_j^-1(Phi(z_j)).

    `columns` holds, for each column, the name of a distribution in `scipy.stats` and its parameters.

    Example:
        >>> import numpy as np
        >>> f = quantiles("incomes", [("lognorm", (1.0,)), ("gamma", (2.0,))])
        >>> f(np.zeros((1, 2))).round(4).tolist()
        [[1.0, 1.6783]]
    """
    fixed = tuple((family, tuple(parameters)) for family, parameters in columns)
    return Transform(name, partial(_quantile_columns, fixed), partial(_score_columns, fixed))


# --- on vectors ---


def _swissroll(v: Array) -> Array:
    angle = 1.5 * np.pi * (1 + 2 * v[:, 0])
    return np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1) / 21


def _swissroll_inverse(points: Array) -> Array:
    angle = 21 * np.hypot(points[:, 0], points[:, 1])
    return (0.5 * (angle / (1.5 * np.pi) - 1))[:, None]


swissroll = Transform("swissroll", _swissroll, _swissroll_inverse)


def _spin(first: int, second: int, speed: float, z: Array) -> Array:
    angle = speed * (z**2).mean(axis=1)
    turned = z.copy()
    turned[:, first] = np.cos(angle) * z[:, first] - np.sin(angle) * z[:, second]
    turned[:, second] = np.sin(angle) * z[:, first] + np.cos(angle) * z[:, second]
    return turned


def spiral(first: int, second: int, speed: float = 1.0) -> Transform:
    """Turn the plane of two coordinates (counted from 0) by the angle q = speed ||z||^2 / d.

    The norm is kept, so the opposite turn is the inverse.
    """
    return Transform("spiral", partial(_spin, first, second, speed), partial(_spin, first, second, -speed))


def _multiply(matrix: Array, z: Array) -> Array:
    return z @ matrix.T


def linear(name: str, matrix: npt.ArrayLike) -> Transform:
    """z -> A z for an invertible square matrix A. Raises ValueError if A is not square or not invertible."""
    a: Array = np.array(matrix, dtype=np.float64)
    if a.ndim != 2 or a.shape[0] != a.shape[1] or np.linalg.matrix_rank(a) < len(a):
        raise ValueError(f"matrix has shape {a.shape}; give a square matrix of full rank")
    inverse: Array = np.asarray(np.linalg.inv(a), dtype=np.float64)
    return Transform(name, partial(_multiply, a), partial(_multiply, inverse))


def random_rotation(dim: int, seed: int) -> Array:
    """An orthogonal matrix, the same for ever for one dim and seed."""
    # the legacy generator: NumPy keeps its stream unchanged, so a task means the same in every version
    q, r = np.linalg.qr(np.random.RandomState(seed).standard_normal((dim, dim)))
    return q * np.sign(np.diag(r))


_Layer = tuple[Array, Array, Array, Array]  # rotation, hidden weights, log-scale weights, shift weights


def _couple(head: Array, layer: _Layer) -> tuple[Array, Array]:
    _, hidden, log_scale, shift = layer
    features = np.tanh(head @ hidden)
    return 0.8 * np.tanh(features @ log_scale), features @ shift


def _flow(layers: tuple[_Layer, ...], z: Array) -> Array:
    half = z.shape[1] // 2
    for layer in layers:
        z = z @ layer[0].T
        log_scale, shift = _couple(z[:, :half], layer)
        z = np.hstack([z[:, :half], z[:, half:] * np.exp(log_scale) + shift])
    return z


def _flow_inverse(layers: tuple[_Layer, ...], z: Array) -> Array:
    half = z.shape[1] // 2
    for layer in reversed(layers):
        log_scale, shift = _couple(z[:, :half], layer)
        z = np.hstack([z[:, :half], (z[:, half:] - shift) * np.exp(-log_scale)]) @ layer[0]
    return z


def coupling_flow(name: str, dim: int, *, seed: int, n_layers: int = 3, width: int = 8) -> Transform:
    """A random invertible network: rotations and affine couplings z_b -> z_b exp(s(z_a)) + t(z_a).

    s and t are random two-layer networks of the untouched half, fixed by `seed`. Raises ValueError for
    dim < 2, where there is nothing to couple. Reference: Dinh, Sohl-Dickstein and Bengio, "Density
    estimation using Real NVP", 2017.
    """
    if dim < 2:
        raise ValueError(f"dim is {dim}; a coupling needs at least 2 dimensions")
    half = dim // 2
    draw = np.random.RandomState(seed)
    layers = tuple(
        (
            random_rotation(dim, seed=1000 * seed + layer),
            draw.standard_normal((half, width)) / np.sqrt(half),
            draw.standard_normal((width, dim - half)) / np.sqrt(width),
            draw.standard_normal((width, dim - half)) / np.sqrt(width),
        )
        for layer in range(n_layers)
    )
    return Transform(name, partial(_flow, layers), partial(_flow_inverse, layers))
