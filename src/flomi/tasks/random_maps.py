"""What random tasks put in front of a law without changing its MI: other columns, mixing, monotone maps, another order.

Every step is invertible (or adds independent columns), so the pointwise MI stays exact. Columns whose values repeat are
only moved, never mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

import flomi.tasks.transforms as transforms
from flomi.tasks.core import Array, LogRatio, Map, Sampler, Transform
from flomi.tasks.random_law import Law

__all__ = ["Side", "draw_side", "wrapped"]

_PILOT = 1000  # rows that fix the scale of a column


@dataclass(frozen=True)
class Side:
    """The way of one side from a law to a task: noise columns, then maps of all columns.

    `noise` names a law for each added column; `maps` are applied in order.
    """

    noise: tuple[str, ...]
    maps: tuple[Transform, ...]
    kept: int  # columns of the law, which stand before the noise until they are moved

    def forward(self, rng: np.random.Generator, values: Array) -> Array:
        added = [_NOISE[kind](rng, len(values)) for kind in self.noise]
        result = np.column_stack([values, *added])
        for step in self.maps:
            result = step.forward(result)
        return result

    def inverse(self, values: Array) -> Array:
        for step in reversed(self.maps):
            assert step.inverse is not None
            values = step.inverse(values)
        return values[:, : self.kept]


def wrapped(law: Law, side_x: Side, side_y: Side) -> tuple[Sampler, LogRatio]:
    """The law behind its two sides."""
    return partial(_sample, law.sampler, side_x, side_y), partial(_ratio, law.log_ratio, side_x, side_y)


def _sample(
    sampler: Sampler, side_x: Side, side_y: Side, rng: np.random.Generator, n: int
) -> tuple[Array, Array]:
    x, y = sampler(rng, n)
    return side_x.forward(rng, x), side_y.forward(rng, y)


def _ratio(ratio: LogRatio, side_x: Side, side_y: Side, x: Array, y: Array) -> Array:
    return ratio(side_x.inverse(x), side_y.inverse(y))


# --- irrelevant columns ---


def _normal_noise(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_normal(n)


def _uniform_noise(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-1.7, 1.7, n)


def _heavy_noise(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_t(3, n)


def _skewed_noise(rng: np.random.Generator, n: int) -> Array:
    return rng.gumbel(size=n)


def _count_noise(rng: np.random.Generator, n: int) -> Array:
    return rng.poisson(2.0, n).astype(np.float64)


def _label_noise(rng: np.random.Generator, n: int) -> Array:
    return rng.integers(3, size=n).astype(np.float64)


_NOISE: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "normal": _normal_noise,
    "uniform": _uniform_noise,
    "heavy": _heavy_noise,
    "skewed": _skewed_noise,
    "count": _count_noise,
    "label": _label_noise,
}
_CONTINUOUS = ("normal", "normal", "uniform", "heavy", "skewed")
_DISCRETE = ("count", "label")


# --- monotone maps of a column; all grow like a power at most, so that heavy tails stay finite ---


def _stretch(power: float, t: Array) -> Array:
    return np.sign(t) * np.abs(t) ** power


def _stretch_back(power: float, s: Array) -> Array:
    return np.sign(s) * np.abs(s) ** (1 / power)


def _skew(power: float, t: Array) -> Array:
    """A long upper and a short lower tail."""
    up = ((1 + np.maximum(t, 0)) ** power - 1) / power
    return np.where(t > 0, up, -np.log1p(np.maximum(-t, 0)))


def _skew_back(power: float, s: Array) -> Array:
    up = np.expm1(np.log1p(power * np.maximum(s, 0)) / power)
    return np.where(s > 0, up, -np.expm1(np.maximum(-s, 0)))


def _skew_down(power: float, t: Array) -> Array:
    return -_skew(power, -t)


def _skew_down_back(power: float, s: Array) -> Array:
    return -_skew_back(power, -s)


def _bound(t: Array) -> Array:
    a = np.arcsinh(t)
    bounded: Array = a / (1 + np.abs(a))
    return bounded


def _bound_back(s: Array) -> Array:
    unbounded: Array = np.sinh(s / (1 - np.abs(s)))
    return unbounded


def _part(height: float, t: Array) -> Array:
    """Two humps: the column is torn apart where it is 0."""
    parted: Array = t + height * np.tanh(3 * t)
    return parted


def _part_back(height: float, s: Array) -> Array:
    return transforms.invert_increasing(partial(_part, height), s, s - height, s + height)


def _monotone(draw: np.random.RandomState) -> Transform | None:
    """A map of one column, or None to leave it."""
    kind, amount = draw.randint(8), float(draw.uniform(0.0, 1.0))
    power = 0.4 * 7.5**amount  # 0.4 to 3
    choices: list[Transform | None] = [
        None,
        None,
        Transform("power", partial(_stretch, power), partial(_stretch_back, power)),
        Transform("skew", partial(_skew, 1 + 2 * amount), partial(_skew_back, 1 + 2 * amount)),
        Transform("skew", partial(_skew_down, 1 + 2 * amount), partial(_skew_down_back, 1 + 2 * amount)),
        Transform("bound", _bound, _bound_back),
        Transform("part", partial(_part, 1 + 2 * amount), partial(_part_back, 1 + 2 * amount)),
        transforms.wiggly_x,
    ]
    return choices[kind]


# --- maps of all columns at once ---

_Columns = npt.NDArray[np.intp]


def _by_column(maps: tuple[Map | None, ...], values: Array) -> Array:
    return np.stack([v if f is None else f(v) for f, v in zip(maps, values.T, strict=True)], axis=1)


def _among(columns: _Columns, f: Map, values: Array) -> Array:
    result = values.copy()
    result[:, columns] = f(values[:, columns])
    return result


def _affine(centre: Array, scale: Array, values: Array) -> Array:
    return (values - centre) / scale


def _affine_back(centre: Array, scale: Array, values: Array) -> Array:
    return values * scale + centre


def _take(order: _Columns, values: Array) -> Array:
    return values[:, order]


def _columnwise(maps: list[Transform | None]) -> Transform:
    return Transform(
        "columns",
        partial(_by_column, tuple(None if m is None else m.forward for m in maps)),
        partial(_by_column, tuple(None if m is None else m.inverse for m in maps)),
    )


def _only(columns: _Columns, step: Transform) -> Transform:
    assert step.inverse is not None
    return Transform(
        step.name, partial(_among, columns, step.forward), partial(_among, columns, step.inverse)
    )


def _mixing(draw: np.random.RandomState, d: int) -> Transform | None:
    """A rotation, an invertible matrix (condition number at most 4), an invertible network, or nothing."""
    kind, seed = draw.randint(6), int(draw.randint(10_000))
    if d < 2 or kind < 2:
        return None
    if kind == 2:
        return transforms.linear("rotation", transforms.random_rotation(d, seed))
    if kind == 3:
        left, right = (transforms.random_rotation(d, s) for s in (seed, seed + 10_000))
        return transforms.linear("matrix", left @ np.diag(np.linspace(1.0, 4.0, d)) @ right)
    return transforms.coupling_flow("network", d, seed=seed, n_layers=1 + kind % 3)


def draw_side(
    draw: np.random.RandomState, sampled: Array, discrete: tuple[bool, ...], dim: int, *, plain: bool
) -> Side:
    """Draw the way of a side to `dim` columns; `sampled` are rows of the law, which fix scales. `plain` mixes nothing."""
    kept, extra = len(discrete), dim - len(discrete)
    of_labels = any(discrete)
    noise = tuple(
        str(draw.choice(_DISCRETE if of_labels and draw.rand() < 0.5 else _CONTINUOUS)) for _ in range(extra)
    )
    repeats = np.array([*discrete, *(kind in _DISCRETE for kind in noise)])
    free = np.flatnonzero(~repeats)
    maps = []
    if len(free):
        rows = np.column_stack([sampled, np.zeros((len(sampled), extra))])[:, free]
        low, middle, high = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
        old = free < kept  # noise has its scale already
        centre = np.where(old, middle, 0.0)
        scale = np.where(old & (high > low), (high - low) / 1.35, 1.0)
        standard = Transform(
            "standard", partial(_affine, centre, scale), partial(_affine_back, centre, scale)
        )
        maps.append(_only(free, standard))
        mixing = None if plain else _mixing(draw, len(free))
        if mixing is not None:
            maps += [_only(free, transforms.asinh), _only(free, mixing)]  # no tail drowns the other columns
        if draw.rand() < 0.7:
            chosen: list[Transform | None] = [None] * dim
            for j in free:
                chosen[j] = _monotone(draw)
            maps.append(_columnwise(chosen))
    order = draw.permutation(dim)
    maps.append(Transform("order", partial(_take, order), partial(_take, np.argsort(order))))
    return Side(noise, tuple(maps), kept)
