"""Indices: one number u of several columns, exactly uniform on (0, 1), through which they meet the other side.

An index has `dim` columns, `value(x [n, dim]) -> u [n]`, and `scatter(rng, u) -> x`, which draws rows with that value. Where
Y depends on X through the index alone, p(x, y) / (p(x) p(y)) = p(u, v) / (p(u) p(v)): exact whatever the columns do besides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from flomi.tasks.core import Array
from flomi.tasks.random_couplings import Coupling
from flomi.tasks.random_law import Law

__all__ = ["INDICES", "Column", "Gap", "Gate", "Index", "Largest", "Norm", "Parity", "indexed"]

_MOST = 1 - 2.0**-53


class Index(Protocol):
    """A number of several columns."""

    @property
    def dim(self) -> int: ...

    def value(self, x: Array) -> Array: ...

    def scatter(self, rng: np.random.Generator, u: Array) -> Array: ...


def indexed(coupling: Coupling, index_x: Index, index_y: Index, *, discrete_y: bool = False) -> Law:
    """X and Y meet through a coupling of their indices."""
    return Law(
        partial(_indexed_sample, coupling, index_x, index_y),
        partial(_indexed_ratio, coupling, index_x, index_y),
        (False,) * index_x.dim,
        (discrete_y,) * index_y.dim,
    )


def _indexed_sample(
    coupling: Coupling, index_x: Index, index_y: Index, rng: np.random.Generator, n: int
) -> tuple[Array, Array]:
    u, v = coupling.sample(rng, n)
    return index_x.scatter(rng, u), index_y.scatter(rng, v)


def _indexed_ratio(coupling: Coupling, index_x: Index, index_y: Index, x: Array, y: Array) -> Array:
    return coupling.log_ratio(index_x.value(x), index_y.value(y))


@dataclass(frozen=True)
class Column:
    """The column itself, not changed: any number, uniform or not."""

    dim: int = 1

    def value(self, x: Array) -> Array:
        return x[:, 0]

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        return u[:, None]


@dataclass(frozen=True)
class Normal:
    """u = Phi(x): a standard normal column."""

    dim: int = 1

    def value(self, x: Array) -> Array:
        return _phi(x[:, 0])

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        return _quantile(u)[:, None]


@dataclass(frozen=True)
class Pareto:
    """x = (1 - u)^(-1 / tail) - 1: a heavy upper tail."""

    tail: float
    dim: int = 1

    def value(self, x: Array) -> Array:
        u: Array = -np.expm1(-self.tail * np.log1p(np.maximum(x[:, 0], 0.0)))
        return u

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        x: Array = np.expm1(-np.log1p(-np.minimum(u, _MOST)) / self.tail)
        return x[:, None]


@dataclass(frozen=True)
class Norm:
    """u = F(|x|^2) with x ~ N(0, I) and F the chi^2 distribution function."""

    dim: int

    def value(self, x: Array) -> Array:
        from scipy.special import gammainc

        return np.asarray(gammainc(self.dim / 2, (x**2).sum(axis=1) / 2), dtype=np.float64)

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        from scipy.special import gammaincinv

        direction = rng.standard_normal((len(u), self.dim))
        radius = np.sqrt(2 * gammaincinv(self.dim / 2, np.minimum(u, _MOST)))
        scattered: Array = direction * (radius / np.sqrt((direction**2).sum(axis=1)))[:, None]
        return scattered


@dataclass(frozen=True)
class Largest:
    """u = (max_j x_j)^d with uniform columns."""

    dim: int

    def value(self, x: Array) -> Array:
        u: Array = x.max(axis=1) ** self.dim
        return u

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        top = u ** (1 / self.dim)
        x: Array = rng.random((len(u), self.dim)) * top[:, None]
        x[np.arange(len(u)), rng.integers(self.dim, size=len(u))] = top
        return x


@dataclass(frozen=True)
class Wrap:
    """u = (x_1 + ... + x_d) mod 1 with uniform columns: no column alone, nor any d - 1 of them, tells anything."""

    dim: int

    def value(self, x: Array) -> Array:
        u: Array = np.mod(x.sum(axis=1), 1.0)
        return u

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        x: Array = rng.random((len(u), self.dim))
        x[:, 0] = np.mod(u - x[:, 1:].sum(axis=1), 1.0)
        return x


@dataclass(frozen=True)
class Parity:
    """The sign of x_1 ... x_d says which half of (0, 1), |x_1| where in it; standard normal columns.

    u = (1 + s m) / 2 with s = sign(x_1 ... x_d) and m = 2 Phi(|x_1|) - 1.
    """

    dim: int

    def value(self, x: Array) -> Array:
        sign = np.prod(np.where(x < 0, -1.0, 1.0), axis=1)
        return _phi(sign * np.abs(x[:, 0]))

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        x: Array = rng.standard_normal((len(u), self.dim))
        others = np.prod(np.where(x[:, 1:] < 0, -1.0, 1.0), axis=1)
        x[:, 0] = _quantile(u) * others  # |x_1| = |Phi^-1(u)|, and the product has the sign of Phi^-1(u)
        return x


@dataclass(frozen=True)
class Gate:
    """x_1 chooses which of the other columns counts; standard normal columns.

    u = Phi(x_(1 + k)) with k = ceil((d - 1) Phi(x_1)).
    """

    dim: int

    def value(self, x: Array) -> Array:
        return _phi(x[np.arange(len(x)), self._open(x)])

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        x: Array = rng.standard_normal((len(u), self.dim))
        x[np.arange(len(u)), self._open(x)] = _quantile(u)
        return x

    def _open(self, x: Array) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        return 1 + np.minimum((_phi(x[:, 0]) * (self.dim - 1)).astype(np.intp), self.dim - 2)


@dataclass(frozen=True)
class Ratio:
    """u = x_1 / (x_1 + x_2) with exponential columns."""

    dim: int = 2

    def value(self, x: Array) -> Array:
        u: Array = x[:, 0] / (x[:, 0] + x[:, 1])
        return u

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        total = rng.gamma(2.0, size=len(u))
        return np.stack([u * total, (1 - u) * total], axis=1)


@dataclass(frozen=True)
class Product:
    """u = P(U_1 ... U_d <= x_1 ... x_d) with uniform columns: -log of their product is a Gamma(d) number."""

    dim: int

    def value(self, x: Array) -> Array:
        from scipy.special import gammaincc

        return np.asarray(gammaincc(self.dim, -np.log(x).sum(axis=1)), dtype=np.float64)

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        from scipy.special import gammainccinv

        share = rng.exponential(size=(len(u), self.dim))
        total = gammainccinv(self.dim, np.clip(u, 1e-300, _MOST))
        x: Array = np.exp(-share * (total / share.sum(axis=1))[:, None])
        return x


@dataclass(frozen=True)
class Gap:
    """u = 1 - (1 - |x_1 - x_2|)^2 with uniform columns: how far apart two columns are."""

    dim: int = 2

    def value(self, x: Array) -> Array:
        gap = np.abs(x[:, 0] - x[:, 1])
        u: Array = gap * (2 - gap)
        return u

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        rest = np.sqrt(1 - u)
        low = rng.random(len(u)) * rest
        ends = np.stack([low, low + u / (1 + rest)], axis=1)  # 1 - sqrt(1 - u), without cancellation
        return np.where(rng.random((len(u), 1)) < 0.5, ends, ends[:, ::-1])


@dataclass(frozen=True)
class Ring:
    """A point of the plane near a circle: u is its angle, the distance from the centre 1 +- `width`."""

    width: float
    dim: int = 2

    def value(self, x: Array) -> Array:
        return _turn(x[:, 0], x[:, 1])

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        radius = 1 + self.width * rng.uniform(-1, 1, len(u))
        return np.stack([radius * np.cos(2 * np.pi * u), radius * np.sin(2 * np.pi * u)], axis=1)


@dataclass(frozen=True)
class Roll:
    """A Swiss roll: x = (a cos a, a sin a, height) with a = 1.5 pi (1 + 2 u)."""

    dim: int = 3

    def value(self, x: Array) -> Array:
        u: Array = (np.hypot(x[:, 0], x[:, 1]) / (1.5 * np.pi) - 1) / 2
        inside: Array = np.clip(u, 0.0, _MOST)
        return inside

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        a = 1.5 * np.pi * (1 + 2 * u)
        return np.stack([a * np.cos(a), a * np.sin(a), 10 * rng.random(len(u))], axis=1)


@dataclass(frozen=True)
class Knot:
    """A closed curve in d = 2 k dimensions: (cos a, sin a, cos 2a / 2, sin 2a / 2, ...) with a = 2 pi u."""

    dim: int

    def value(self, x: Array) -> Array:
        return _turn(x[:, 0], x[:, 1])

    def scatter(self, rng: np.random.Generator, u: Array) -> Array:
        waves = np.arange(1, self.dim // 2 + 1)
        angle = 2 * np.pi * np.multiply.outer(u, waves)
        return np.stack([np.cos(angle) / waves, np.sin(angle) / waves], axis=2).reshape(len(u), -1)


def _turn(a: Array, b: Array) -> Array:
    u: Array = np.mod(np.arctan2(b, a) / (2 * np.pi), 1.0)
    return u


def _phi(t: Array) -> Array:
    from scipy.special import ndtr

    return ndtr(t)


def _quantile(u: Array) -> Array:
    from scipy.special import ndtri

    return ndtri(np.clip(u, 1e-300, _MOST))


def _normal(draw: np.random.RandomState, most: int) -> Index:
    return Normal()


def _pareto(draw: np.random.RandomState, most: int) -> Index:
    return Pareto(float(draw.uniform(1.0, 3.0)))


def _norm(draw: np.random.RandomState, most: int) -> Index:
    return Norm(draw.randint(2, min(most, 10) + 1))


def _largest(draw: np.random.RandomState, most: int) -> Index:
    return Largest(draw.randint(2, min(most, 10) + 1))


def _wrap(draw: np.random.RandomState, most: int) -> Index:
    return Wrap(draw.randint(2, min(most, 3) + 1))


def _parity(draw: np.random.RandomState, most: int) -> Index:
    return Parity(draw.randint(2, min(most, 4) + 1))


def _gate(draw: np.random.RandomState, most: int) -> Index:
    return Gate(draw.randint(3, min(most, 6) + 1))


def _ratio(draw: np.random.RandomState, most: int) -> Index:
    return Ratio()


def _product(draw: np.random.RandomState, most: int) -> Index:
    return Product(draw.randint(2, min(most, 4) + 1))


def _gap(draw: np.random.RandomState, most: int) -> Index:
    return Gap()


def _ring(draw: np.random.RandomState, most: int) -> Index:
    return Ring(float(draw.uniform(0.0, 0.5)))


def _roll(draw: np.random.RandomState, most: int) -> Index:
    return Roll()


def _knot(draw: np.random.RandomState, most: int) -> Index:
    return Knot(2 * draw.randint(2, min(most // 2, 4) + 1))


def _column(draw: np.random.RandomState, most: int) -> Index:
    return Column()


# kind -> (least number of columns, how to draw one of at most so many columns)
INDICES: dict[str, tuple[int, Callable[[np.random.RandomState, int], Index]]] = {
    "column": (1, _column),
    "normal": (1, _normal),
    "pareto": (1, _pareto),
    "norm": (2, _norm),
    "largest": (2, _largest),
    "wrap": (2, _wrap),
    "parity": (2, _parity),
    "gate": (3, _gate),
    "ratio": (2, _ratio),
    "product": (2, _product),
    "gap": (2, _gap),
    "ring": (2, _ring),
    "roll": (3, _roll),
    "knot": (4, _knot),
}
