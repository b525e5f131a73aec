"""Couplings of two numbers, u uniform on (0, 1) and v, with exact log p(u, v) / (p(u) p(v)).

A coupling has `sample(rng, n) -> (u, v)` and `log_ratio(u, v) -> [n]`; all arrays are `[n]`. Here are circular relations,
checkerboards and noisy functions; the pair copulas are in `random_copulas`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from flomi.tasks.core import Array
from flomi.tasks.densities import ScaleMixture
from flomi.tasks.random_law import by_chunks

__all__ = ["NOISES", "Branches", "Checkerboard", "Circular", "Coupling", "Noise", "Ordinal", "Smooth"]


class Coupling(Protocol):
    """What ties one number of x to one number of y."""

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]: ...

    def log_ratio(self, u: Array, v: Array) -> Array: ...


# --- circular: v goes round with u ---


@dataclass(frozen=True)
class Circular:
    """v = (+-) turns u + e mod 1, e von Mises (concentration kappa) or wrapped Cauchy (radius kappa / (1 + kappa)).

    p(u, v) is a density g of the difference alone, so that v is uniform too. With both signs, each half of the rows,
    the relation is two-valued; with |turns| > 1 several u belong to each v.
    """

    turns: int
    kappa: float
    cauchy: bool
    both_signs: bool

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        u = rng.random(n)
        angle = self._angle(rng, n)
        sign = np.where(rng.random(n) < 0.5, -1.0, 1.0) if self.both_signs else 1.0
        v: Array = np.mod(sign * self.turns * u + angle / (2 * np.pi), 1.0)
        return u, v

    def _angle(self, rng: np.random.Generator, n: int) -> Array:
        if self.cauchy:  # tan(e / 2) is a Cauchy number of scale (1 - r) / (1 + r)
            return 2 * np.arctan(rng.standard_cauchy(n) / (1 + 2 * self.kappa))
        return rng.vonmises(0, self.kappa, n)

    def log_ratio(self, u: Array, v: Array) -> Array:
        forward = self._log_density(v - self.turns * u)
        if not self.both_signs:
            return forward
        pmi: Array = np.logaddexp(forward, self._log_density(v + self.turns * u)) - np.log(2)
        return pmi

    def _log_density(self, difference: Array) -> Array:
        below = 2 * np.sin(np.pi * difference) ** 2  # 1 - cos, without cancellation
        if self.cauchy:
            r = self.kappa / (1 + self.kappa)
            density: Array = np.log1p(-(r**2)) - np.log((1 - r) ** 2 + 2 * r * below)
            return density
        from scipy.special import i0e

        von_mises: Array = -self.kappa * below - np.log(i0e(self.kappa))
        return von_mises


@dataclass(frozen=True)
class Checkerboard:
    """A density constant on the cells of a k x k board: `cells [k, k]` are probabilities with uniform margins."""

    cells: Array

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        k = len(self.cells)
        cell = np.minimum(np.searchsorted(np.cumsum(self.cells), rng.random(n), side="right"), k * k - 1)
        return (cell // k + rng.random(n)) / k, (cell % k + rng.random(n)) / k

    def log_ratio(self, u: Array, v: Array) -> Array:
        k = len(self.cells)
        i, j = (np.clip((k * t).astype(np.intp), 0, k - 1) for t in (u, v))
        pmi: Array = np.log(k * k * self.cells[i, j])
        return pmi

    @staticmethod
    def of_permutations(permutations: Array, share: float) -> Checkerboard:
        """Cell i goes to one of the cells `permutations[:, i]` with probability `share`, else to any."""
        k = permutations.shape[1]
        cells: Array = np.full((k, k), (1 - share) / k**2)
        for permutation in permutations.astype(np.intp):
            cells[np.arange(k), permutation] += share / (k * len(permutations))
        return Checkerboard(cells)


# --- noise laws: log density, distribution function and survival function on the unit scale ---


@dataclass(frozen=True)
class Noise:
    """One law of noise: functions of t `[...]`, and `draw(rng, n)`."""

    draw: Callable[[np.random.Generator, int], Array]
    log_pdf: Callable[[Array], Array]
    cdf: Callable[[Array], Array]
    sf: Callable[[Array], Array]


def _laplace_draw(rng: np.random.Generator, n: int) -> Array:
    return rng.laplace(size=n)


def _laplace_log_pdf(t: Array) -> Array:
    density: Array = -np.abs(t) - np.log(2)
    return density


def _laplace_cdf(t: Array) -> Array:
    near = 0.5 * np.exp(-np.abs(t))
    return np.where(t < 0, near, 1 - near)


def _laplace_sf(t: Array) -> Array:
    return _laplace_cdf(-t)


def _logistic_draw(rng: np.random.Generator, n: int) -> Array:
    return rng.logistic(size=n)


def _logistic_log_pdf(t: Array) -> Array:
    density: Array = -np.abs(t) - 2 * np.log1p(np.exp(-np.abs(t)))
    return density


def _logistic_cdf(t: Array) -> Array:
    from scipy.special import expit

    return expit(t)


def _logistic_sf(t: Array) -> Array:
    return _logistic_cdf(-t)


def _cauchy_draw(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_cauchy(n)


def _cauchy_log_pdf(t: Array) -> Array:
    density: Array = -np.log(np.pi) - np.log1p(t**2)
    return density


def _cauchy_cdf(t: Array) -> Array:
    return _cauchy_sf(-t)


def _cauchy_sf(t: Array) -> Array:
    tail: Array = np.arctan2(1.0, t) / np.pi
    return tail


def _student_draw(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_t(3, n)


def _student_log_pdf(t: Array) -> Array:
    density: Array = np.log(2 / (np.pi * np.sqrt(3))) - 2 * np.log1p(t**2 / 3)
    return density


def _student_cdf(t: Array) -> Array:
    from scipy.special import stdtr

    return np.asarray(stdtr(3, t), dtype=np.float64)


def _student_sf(t: Array) -> Array:
    return _student_cdf(-t)


_EDGE = 1 + 1e-9  # a row on the edge of the support may come back from its maps a rounding error outside


def _uniform_draw(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-1, 1, n)


def _uniform_log_pdf(t: Array) -> Array:
    return np.where(np.abs(t) <= _EDGE, -np.log(2), -np.inf)


def _uniform_cdf(t: Array) -> Array:
    level: Array = np.clip((t + 1) / 2, 0, 1)
    return level


def _uniform_sf(t: Array) -> Array:
    return _uniform_cdf(-t)


def _gumbel_draw(rng: np.random.Generator, n: int) -> Array:
    return rng.gumbel(size=n)


def _gumbel_log_pdf(t: Array) -> Array:
    with np.errstate(over="ignore"):
        density: Array = -t - np.exp(-t)
    return density


def _gumbel_cdf(t: Array) -> Array:
    with np.errstate(over="ignore"):
        level: Array = np.exp(-np.exp(-t))
    return level


def _gumbel_sf(t: Array) -> Array:
    with np.errstate(over="ignore"):
        tail: Array = -np.expm1(-np.exp(-t))
    return tail


def _exponential_draw(rng: np.random.Generator, n: int) -> Array:
    return rng.exponential(size=n)


def _exponential_log_pdf(t: Array) -> Array:
    return np.where(t >= -1e-9, -t, -np.inf)


def _exponential_cdf(t: Array) -> Array:
    level: Array = -np.expm1(-np.maximum(t, 0))
    return level


def _exponential_sf(t: Array) -> Array:
    tail: Array = np.exp(-np.maximum(t, 0))
    return tail


NOISES: dict[str, Noise] = {
    "laplace": Noise(_laplace_draw, _laplace_log_pdf, _laplace_cdf, _laplace_sf),
    "logistic": Noise(_logistic_draw, _logistic_log_pdf, _logistic_cdf, _logistic_sf),
    "student": Noise(_student_draw, _student_log_pdf, _student_cdf, _student_sf),
    "cauchy": Noise(_cauchy_draw, _cauchy_log_pdf, _cauchy_cdf, _cauchy_sf),
    "uniform": Noise(_uniform_draw, _uniform_log_pdf, _uniform_cdf, _uniform_sf),
    "gumbel": Noise(_gumbel_draw, _gumbel_log_pdf, _gumbel_cdf, _gumbel_sf),
    "exponential": Noise(_exponential_draw, _exponential_log_pdf, _exponential_cdf, _exponential_sf),
}


# --- noisy functions ---


@dataclass(frozen=True)
class Branches:
    """v = f_b(u) + scale e on one of several branches, each piecewise linear, b drawn with `weights [B]`.

    `heights [B, K + 1]` are the values of the branches at K + 1 equally spaced u; no two neighbours are equal. With u
    uniform, every piece from height l to h adds to p(v) the exact

        (1 / K) [F((v - l) / scale) - F((v - h) / scale)] / (h - l),      F the distribution function of e.
    """

    heights: Array
    weights: Array
    scale: float
    noise: Noise

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        u = rng.random(n)
        branch = np.searchsorted(np.cumsum(self.weights)[:-1], rng.random(n), side="right")
        centre = np.stack([self._centre(b, u) for b in range(len(self.weights))])[branch, np.arange(n)]
        return u, centre + self.scale * self.noise.draw(rng, n)

    def log_ratio(self, u: Array, v: Array) -> Array:
        terms = [
            np.log(w) - np.log(self.scale) + self.noise.log_pdf((v - self._centre(b, u)) / self.scale)
            for b, w in enumerate(self.weights)
        ]
        pmi: Array = np.logaddexp.reduce(terms, axis=0) - self._log_marginal(v)
        return pmi

    def _centre(self, branch: int, u: Array) -> Array:
        k = self.heights.shape[1] - 1
        centre: Array = np.interp(u, np.arange(k + 1) / k, self.heights[branch])
        return centre

    def _log_marginal(self, v: Array) -> Array:
        k = self.heights.shape[1] - 1
        ends = np.sort(np.stack([self.heights[:, :-1], self.heights[:, 1:]], axis=-1), axis=-1)
        low, high = ends[..., 0].ravel(), ends[..., 1].ravel()
        far, near = (v[:, None] - low) / self.scale, (v[:, None] - high) / self.scale
        # in the smaller tail, which carries all its digits
        reach = np.where(
            near > 0, self.noise.sf(near) - self.noise.sf(far), self.noise.cdf(far) - self.noise.cdf(near)
        )
        share = np.repeat(self.weights / k, k) / (high - low)
        with np.errstate(divide="ignore"):
            log_p: Array = np.log(reach @ share)
        return log_p


@dataclass(frozen=True)
class Smooth:
    """v = f(u) + scale e with Gaussian e and f(u) = sum_k a_k sin(w_k u + p_k): p(v) is an integral over u.

    The trapezoid rule on `nodes` points, spaced by at most `scale` along the curve, is accurate to 1e-5.
    """

    waves: Array  # [k, 3]: a, w, p
    scale: float

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        u = rng.random(n)
        return u, self._curve(u) + self.scale * rng.standard_normal(n)

    def log_ratio(self, u: Array, v: Array) -> Array:
        given = -0.5 * ((v - self._curve(u)) / self.scale) ** 2 - np.log(self.scale) - 0.5 * np.log(2 * np.pi)
        pmi: Array = given - self._marginal().log_density(v)
        return pmi

    def _curve(self, u: Array) -> Array:
        size, rate, phase = self.waves.T
        curve: Array = np.sin(np.multiply.outer(u, rate) + phase) @ size
        return curve

    def _marginal(self) -> ScaleMixture:
        slope = float(np.abs(self.waves[:, 0] * self.waves[:, 1]).sum())
        count = int(np.clip(np.ceil(slope / self.scale), 200, 4000))
        u = (np.arange(count) + 0.5) / count
        return ScaleMixture(np.full(count, 1 / count), self._curve(u), np.full(count, self.scale))


@dataclass(frozen=True)
class Ordinal:
    """v = number of `cuts` below h, h = f(u) + scale e with f piecewise linear: an ordered outcome 0, 1, ..., L.

    P(v | u) is a difference of distribution functions; P(v) is its mean over 5,000 equally spaced u.
    """

    heights: Array  # [K + 1]
    scale: float
    noise: Noise
    cuts: Array  # [L]

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        u = rng.random(n)
        hidden = self._centre(u) + self.scale * self.noise.draw(rng, n)
        return u, np.searchsorted(self.cuts, hidden).astype(np.float64)

    def log_ratio(self, u: Array, v: Array) -> Array:
        grid = (np.arange(5_000) + 0.5) / 5_000
        whole = self._table(grid).mean(axis=0)
        level = v.astype(np.intp)
        given: Array = by_chunks(self._table, u)[np.arange(len(u)), level]
        with np.errstate(divide="ignore"):
            pmi: Array = np.log(given) - np.log(whole[level])
        return pmi

    def _centre(self, u: Array) -> Array:
        k = len(self.heights) - 1
        centre: Array = np.interp(u, np.arange(k + 1) / k, self.heights)
        return centre

    def _table(self, u: Array) -> Array:
        t = (self.cuts - self._centre(u)[:, None]) / self.scale
        zero, one = np.zeros((len(u), 1)), np.ones((len(u), 1))
        low, high = np.hstack([zero, self.noise.cdf(t), one]), np.hstack([one, self.noise.sf(t), zero])
        # in the smaller tail, which carries all its digits
        table: Array = np.where(low[:, :-1] < 0.5, np.diff(low, axis=1), -np.diff(high, axis=1))
        return table
