"""Pair copulas with unlike tails: density, conditional distribution and its inverse.

Every one is symmetric in (u, v), independent as t -> 0, and has its strong tail (where it has one) at u, v -> 0, where
floating point keeps all digits; `Pair` turns it to another corner. `t > 0` is the strength in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from flomi.tasks.core import Array

__all__ = ["COPULAS", "EXTREME_VALUE", "Copula", "Pair"]

_LEAST, _MOST = 1e-300, 1 - 2.0**-53


@dataclass(frozen=True)
class Copula:
    """log c(u, v; t), P(V <= v | U = u), and its inverse where there is a formula; all over `[n]`."""

    log_density: Callable[[float, Array, Array], Array]
    conditional: Callable[[float, Array, Array], Array]
    inverse: Callable[[float, Array, Array], Array] | None = None


@dataclass(frozen=True)
class Pair:
    """The copula of that name at strength t, with u, v or both replaced by 1 - u, 1 - v: a coupling.

    `given(u, v)` = P(V <= v | U = u) and `solve(u, level)` undoes it in v.
    """

    name: str
    t: float
    turn_u: bool = False
    turn_v: bool = False

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        u = rng.random(n)
        return u, self.solve(u, rng.random(n))

    def log_ratio(self, u: Array, v: Array) -> Array:
        return COPULAS[self.name].log_density(self.t, _turned(u, self.turn_u), _turned(v, self.turn_v))

    def given(self, u: Array, v: Array) -> Array:
        level = COPULAS[self.name].conditional(self.t, _turned(u, self.turn_u), _turned(v, self.turn_v))
        return _turned(level, self.turn_v)

    def solve(self, u: Array, level: Array) -> Array:
        copula, a, w = COPULAS[self.name], _turned(u, self.turn_u), _turned(level, self.turn_v)
        v = copula.inverse(self.t, a, w) if copula.inverse is not None else _bisect(copula, self.t, a, w)
        return _turned(v, self.turn_v)


def _turned(u: Array, turn: bool) -> Array:
    inside: Array = np.clip(1 - u if turn else u, _LEAST, _MOST)
    return inside


def _bisect(copula: Copula, t: float, u: Array, level: Array) -> Array:
    """v with P(V <= v | u) = level, by bisection in log(v / (1 - v))."""
    low, high = np.full(len(u), -60.0), np.full(len(u), 36.0)
    for _ in range(52):
        middle = 0.5 * (low + high)
        below = copula.conditional(t, u, _expit(middle)) < level
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return _expit(0.5 * (low + high))


def _expit(s: Array) -> Array:
    return np.clip(1 / (1 + np.exp(-s)), _LEAST, _MOST)


# --- Archimedean copulas and Plackett's ---


def _log_power_sum(t: float, log_u: Array, log_v: Array) -> Array:
    """log(u^-t + v^-t - 1)."""
    a, b = -t * log_u, -t * log_v
    top = np.maximum(a, b)
    total: Array = top + np.log1p(np.exp(np.minimum(a, b) - top) - np.exp(-top))
    return total


def _clayton_log(t: float, u: Array, v: Array) -> Array:
    log_u, log_v = np.log(u), np.log(v)
    s = _log_power_sum(t, log_u, log_v)
    density: Array = np.log1p(t) - (t + 1) * (log_u + log_v) - (2 + 1 / t) * s
    return density


def _clayton_given(t: float, u: Array, v: Array) -> Array:
    s = _log_power_sum(t, np.log(u), np.log(v))
    level: Array = np.exp(-(t + 1) * np.log(u) - (1 / t + 1) * s)
    return level


def _clayton_solve(t: float, u: Array, level: Array) -> Array:
    # log(w^(-t / (1 + t)) - 1), which may be far from 0 on both sides
    excess = -t / (1 + t) * np.log(level)
    log_excess = excess + np.log(-np.expm1(-excess))
    v: Array = np.exp(-np.logaddexp(-t * np.log(u) + log_excess, 0.0) / t)
    return v


def _frank_bottom(t: float, u: Array, v: Array) -> Array:
    """log of e^{-t u} (1 - e^{-t v}) + e^{-t v} (1 - e^{-t (1 - v)})."""
    with np.errstate(divide="ignore"):
        first = -t * u + np.log(-np.expm1(-t * v))
        return np.logaddexp(first, -t * v + np.log(-np.expm1(-t * (1 - v))))


def _frank_log(t: float, u: Array, v: Array) -> Array:
    t = 5 * t
    density: Array = np.log(t) + np.log(-np.expm1(-t)) - t * (u + v) - 2 * _frank_bottom(t, u, v)
    return density


def _frank_given(t: float, u: Array, v: Array) -> Array:
    t = 5 * t
    level: Array = np.exp(-t * u - _frank_bottom(t, u, v)) * -np.expm1(-t * v)
    return level


def _frank_solve(t: float, u: Array, level: Array) -> Array:
    t = 5 * t
    log_w, log_rest = np.log(level), np.log1p(-level) - t * u
    v: Array = (np.logaddexp(log_w, log_rest) - np.logaddexp(log_rest, log_w - t)) / t
    return v


def _plackett_root(t: float, u: Array, v: Array) -> Array:
    return 1 + 2 * t * (u + v - 2 * u * v) + (t * (u - v)) ** 2


def _plackett_log(t: float, u: Array, v: Array) -> Array:
    t = (1 + t) ** 2 - 1  # the odds ratio is (1 + t)^2
    density: Array = np.log1p(t) + np.log1p(t * (u + v - 2 * u * v)) - 1.5 * np.log(_plackett_root(t, u, v))
    return density


def _plackett_given(t: float, u: Array, v: Array) -> Array:
    t = (1 + t) ** 2 - 1
    level: Array = 0.5 - 0.5 * (1 + t * u - (t + 2) * v) / np.sqrt(_plackett_root(t, u, v))
    return level


def _joe_sum(t: float, u: Array, v: Array) -> tuple[Array, Array]:
    """log b and log(a + b - a b) with a = u^t, b = v^t."""
    log_a, log_b = t * np.log(u), t * np.log(v)
    return log_b, np.logaddexp(log_a, log_b + np.log(-np.expm1(np.minimum(log_a, -1e-300))))


def _joe_log(t: float, u: Array, v: Array) -> Array:
    t = t + 1
    _, total = _joe_sum(t, u, v)
    density: Array = np.log(t - 1 + np.exp(total)) + (1 / t - 2) * total + (t - 1) * (np.log(u) + np.log(v))
    return density


def _joe_given(t: float, u: Array, v: Array) -> Array:
    t = t + 1
    log_b, total = _joe_sum(t, u, v)
    rest: Array = -np.expm1(log_b) * np.exp((t - 1) * np.log(u) + (1 / t - 1) * total)
    return 1 - rest


# --- extreme-value copulas: C = exp(-l(x, y)) with x = -log(1 - u), y = -log(1 - v) ---

# log of l(x, y) from log x and log y, and of its derivatives l_x, l_y, -l_xy
_Stable = Callable[[float, Array, Array], tuple[Array, Array, Array, Array]]


def _gumbel_stable(t: float, log_x: Array, log_y: Array) -> tuple[Array, Array, Array, Array]:
    t = t + 1
    log_l = np.logaddexp(t * log_x, t * log_y) / t
    mixed = np.log(t - 1) + (t - 1) * (log_x + log_y) + (1 - 2 * t) * log_l
    return log_l, (t - 1) * (log_x - log_l), (t - 1) * (log_y - log_l), mixed


def _galambos_stable(t: float, log_x: Array, log_y: Array) -> tuple[Array, Array, Array, Array]:
    gap = log_x - log_y
    log_g = -np.logaddexp(-t * log_x, -t * log_y) / t
    log_l = np.log(np.exp(log_x) + np.exp(log_y) - np.exp(log_g))
    power = (t + 1) / t
    return (
        log_l,
        _slope(power, t * gap),
        _slope(power, -t * gap),
        np.log1p(t) + (1 + 2 * t) * log_g - (t + 1) * (log_x + log_y),
    )


def _slope(power: float, s: Array) -> Array:
    """log(1 - (1 + e^s)^-power), which is log(power) + s where e^s is small."""
    large: Array = np.log(-np.expm1(-power * np.logaddexp(0, np.maximum(s, -30))))
    return np.where(s < -30, np.log(power) + s, large)


def _husler_reiss_stable(t: float, log_x: Array, log_y: Array) -> tuple[Array, Array, Array, Array]:
    from scipy.special import log_ndtr

    a, gap = 2 / t, log_x - log_y
    slope_x, slope_y = log_ndtr(a / 2 + gap / a), log_ndtr(a / 2 - gap / a)
    mixed = -0.5 * (a / 2 + gap / a) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(a) - log_y
    return np.logaddexp(log_x + slope_x, log_y + slope_y), slope_x, slope_y, mixed


def _extreme_log(stable: _Stable, t: float, u: Array, v: Array) -> Array:
    x, y = -np.log1p(-u), -np.log1p(-v)
    log_l, slope_x, slope_y, mixed = stable(t, np.log(x), np.log(y))
    density: Array = x + y - np.exp(log_l) + np.logaddexp(slope_x + slope_y, mixed)
    return density


def _extreme_given(stable: _Stable, t: float, u: Array, v: Array) -> Array:
    x, y = -np.log1p(-u), -np.log1p(-v)
    log_l, slope_x, _, _ = stable(t, np.log(x), np.log(y))
    level: Array = -np.expm1(x - np.exp(log_l) + slope_x)
    return level


def _extreme(stable: _Stable) -> Copula:
    return Copula(partial(_extreme_log, stable), partial(_extreme_given, stable))


EXTREME_VALUE = ("gumbel", "galambos", "husler_reiss")
COPULAS: dict[str, Copula] = {
    "clayton": Copula(_clayton_log, _clayton_given, _clayton_solve),
    "frank": Copula(_frank_log, _frank_given, _frank_solve),
    "plackett": Copula(_plackett_log, _plackett_given),
    "joe": Copula(_joe_log, _joe_given),
    "gumbel": _extreme(_gumbel_stable),
    "galambos": _extreme(_galambos_stable),
    "husler_reiss": _extreme(_husler_reiss_stable),
}
