"""The families of random tasks that meet through one number of each side, and the Gaussian ones.

A family is a function of (random numbers, columns of x, columns of y) that returns a law for every level in [0, 1]: weak
dependence at 0, as strong as it gets at 1. It may use fewer columns than it is given: the rest are irrelevant ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import flomi.tasks.transforms as transforms
from flomi.tasks.core import Array
from flomi.tasks.densities import Mixture
from flomi.tasks.random_copulas import EXTREME_VALUE, Pair
from flomi.tasks.random_couplings import NOISES, Branches, Checkerboard, Circular, Coupling, Ordinal, Smooth
from flomi.tasks.random_indices import INDICES, Index, indexed
from flomi.tasks.random_law import Law, LawOfLevel, geometric, side_by_side

__all__ = [
    "count_of",
    "extremes",
    "gaussian",
    "gaussian_mixture",
    "interaction",
    "manifold",
    "noisy_function",
    "ordinal",
    "pair_copulas",
    "pick_index",
    "radial",
    "ratio",
    "several_valued",
    "smooth_function",
    "switch",
    "zigzag",
]

_Draw = np.random.RandomState
_STRENGTH = (0.05, 1500.0)  # of pair copulas: from below 0.01 to 6 nats
_SCALE = (20.0, 0.002)  # of noise around a curve of height 2: the same
_KAPPA = (0.05, 1e6)  # of circular noise: the same


def count_of(draw: _Draw, most: int) -> int:
    """A whole number from 1 to `most`, small ones more often."""
    return min(most, int((most + 1) ** draw.rand()))


def pick_index(draw: _Draw, kinds: tuple[str, ...], most: int) -> Index:
    """An index of one of these kinds that has at most so many columns."""
    fitting = [kind for kind in kinds if INDICES[kind][0] <= most]
    return INDICES[fitting[draw.randint(len(fitting))]][1](draw, most)


def zigzag(draw: _Draw, pieces: int) -> Array:
    """Heights between -1 and 1 of a piecewise linear curve that turns at random."""
    turns = np.where(draw.rand(pieces) < 0.7, -1.0, 1.0).cumprod()
    heights = np.concatenate([[0.0], np.cumsum(turns * (0.3 + np.abs(draw.standard_normal(pieces))))])
    low, high = heights.min(), heights.max()
    centred: Array = 2 * (heights - low) / (high - low) - 1
    return centred


def _pick_noise(draw: _Draw) -> str:
    return sorted(NOISES)[draw.randint(len(NOISES))]


def _several(
    draw: _Draw, dim_x: int, dim_y: int, least: tuple[int, int], most: int = 6
) -> tuple[int, int, int]:
    """How many independent relations, and the columns that each may have on either side."""
    count = count_of(draw, min(dim_x // least[0], dim_y // least[1], most))
    return count, dim_x // count, dim_y // count


def _at(bounds: tuple[float, float], level: float, factor: float) -> float:
    """The strength at a level, moved by the relation's own factor, within the bounds."""
    low, high = sorted(bounds)
    return float(np.clip(geometric(*bounds, level) * factor, low, high))


def _factor(draw: _Draw) -> float:
    return float(np.exp(0.5 * draw.standard_normal()))


# --- candidates of the library have these two as their own formula ---


@dataclass(frozen=True)
class Canonical:
    """Standard normal pairs with correlations rho, x and y each behind an invertible matrix."""

    rho: Array
    to_x: Array
    to_y: Array

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        a, b = rng.standard_normal((n, len(self.to_x))), rng.standard_normal((n, len(self.to_y)))
        k = len(self.rho)
        b[:, :k] = self.rho * a[:, :k] + np.sqrt(1 - self.rho**2) * b[:, :k]
        return a @ self.to_x.T, b @ self.to_y.T

    def log_ratio(self, x: Array, y: Array) -> Array:
        k, r = len(self.rho), self.rho
        a, b = np.linalg.solve(self.to_x, x.T).T[:, :k], np.linalg.solve(self.to_y, y.T).T[:, :k]
        pmi: Array = ((r * a * b - 0.5 * r**2 * (a**2 + b**2)) / (1 - r**2) - 0.5 * np.log1p(-(r**2))).sum(
            axis=1
        )
        return pmi


def _matrix(draw: _Draw, d: int) -> Array:
    left, right = (transforms.random_rotation(d, int(draw.randint(10**6))) for _ in range(2))
    matrix: Array = left @ np.diag(np.linspace(1.0, 3.0, d)) @ right
    return matrix


def gaussian(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """A Gaussian with a random covariance: I = sum of -1/2 log(1 - rho_i^2) over its canonical correlations."""
    k = count_of(draw, min(dim_x, dim_y))
    share = draw.dirichlet(np.ones(k))
    to_x, to_y = _matrix(draw, dim_x), _matrix(draw, dim_y)

    def law(level: float) -> Law:
        nats = geometric(0.002, 12.0, level)
        pairs = Canonical(np.sqrt(-np.expm1(-2 * nats * share)), to_x, to_y)
        return Law(pairs.sample, pairs.log_ratio, (False,) * dim_x, (False,) * dim_y, mi=nats)

    return law


def smooth_function(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Each y a sum of sines of an x plus Gaussian noise."""
    parts = []
    for _ in range(_several(draw, dim_x, dim_y, (1, 1), most=4)[0]):
        k = draw.randint(1, 4)
        waves = np.column_stack(
            [draw.dirichlet(np.ones(k)), draw.uniform(1, 10, k), draw.uniform(0, 2 * np.pi, k)]
        )
        parts.append((waves, pick_index(draw, ("column", "normal"), 1), _factor(draw)))
    to_y = INDICES["column"][1](draw, 1)

    def law(level: float) -> Law:
        return side_by_side(
            [indexed(Smooth(w, _at((20.0, 0.005), level, 1 / f)), index, to_y) for w, index, f in parts]
        )

    return law


# --- mixtures ---


def gaussian_mixture(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Two to six Gaussian components over (x, y), each with its own place, shape and dependence."""
    k = draw.randint(2, 7)
    pairs = count_of(draw, min(dim_x, dim_y))
    weights = draw.dirichlet(np.full(k, 5.0))
    places = draw.standard_normal((k, dim_x + dim_y)) * draw.uniform(0.3, 1.5) / np.sqrt(dim_x + dim_y)
    roots = [[_matrix(draw, dim) for _ in range(k)] for dim in (dim_x, dim_y)]
    shapes_x, shapes_y = (
        np.stack([size * root @ root.T for size, root in zip(draw.uniform(0.3, 1.0, k), side, strict=True)])
        for side in roots
    )
    shares = draw.dirichlet(np.ones(pairs), size=k)
    signs = np.where(draw.rand(k, pairs) < 0.5, -1.0, 1.0)

    def law(level: float) -> Law:
        nats = geometric(0.01, 12.0, level)
        rho = signs * np.sqrt(-np.expm1(-2 * nats * shares))
        block = np.tile(np.eye(dim_x + dim_y), (k, 1, 1))
        i = np.arange(pairs)
        block[:, i, dim_x + i] = block[:, dim_x + i, i] = rho
        own = nats / (1 + nats)  # the shapes differ as little as the rest at weak levels
        to = np.zeros_like(block)
        to[:, :dim_x, :dim_x] = np.linalg.cholesky((1 - own) * shapes_x.mean(axis=0) + own * shapes_x)
        to[:, dim_x:, dim_x:] = np.linalg.cholesky((1 - own) * shapes_y.mean(axis=0) + own * shapes_y)
        covariances = to @ block @ to.transpose(0, 2, 1)
        spread = 4 * np.sqrt(own)
        m = Mixture(weights, spread * places, covariances, np.full(k, np.inf))
        return Law(
            partial(_mixture_sample, m, dim_x),
            partial(_mixture_ratio, m, dim_x),
            (False,) * dim_x,
            (False,) * dim_y,
        )

    return law


def _mixture_sample(m: Mixture, dim_x: int, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    z = m.sample(rng, n)
    return z[:, :dim_x], z[:, dim_x:]


def _mixture_ratio(m: Mixture, dim_x: int, x: Array, y: Array) -> Array:
    of_x, of_y = m.marginal(slice(None, dim_x)), m.marginal(slice(dim_x, None))
    return m.log_density(np.hstack([x, y])) - of_x.log_density(x) - of_y.log_density(y)


# --- one number of x meets one number of y ---


CouplingOfLevel = Callable[[float], Coupling]


def _pair(draw: _Draw, names: tuple[str, ...], *, upper: bool = False) -> CouplingOfLevel:
    name, factor = names[draw.randint(len(names))], _factor(draw)
    turns = (True, True) if upper else (bool(draw.randint(2)), bool(draw.randint(2)))
    return lambda level: Pair(name, _at(_STRENGTH, level, factor), *turns)


def _tails(draw: _Draw) -> CouplingOfLevel:
    return _pair(draw, ("clayton", "frank", "plackett", "joe", "gumbel"))


def _upper(draw: _Draw) -> CouplingOfLevel:
    return _pair(draw, EXTREME_VALUE, upper=True)


def _one_branch(draw: _Draw) -> CouplingOfLevel:
    return _branches(draw, 1)


def _two_or_three(draw: _Draw) -> CouplingOfLevel:
    return _branches(draw, draw.randint(2, 4))


def _branches(draw: _Draw, count: int) -> CouplingOfLevel:
    pieces, factor = draw.randint(1, 6), _factor(draw)
    heights = np.stack([zigzag(draw, pieces) * draw.uniform(0.5, 1.5) for _ in range(count)])
    weights, noise = draw.dirichlet(np.full(count, 5.0)), NOISES[_pick_noise(draw)]
    return lambda level: Branches(heights, weights, _at(_SCALE, level, 1 / factor), noise)


def _ring(draw: _Draw) -> CouplingOfLevel:
    return _round(draw, both_signs=False)


def _crossing(draw: _Draw) -> CouplingOfLevel:
    return _round(draw, both_signs=True)


def _round(draw: _Draw, both_signs: bool) -> CouplingOfLevel:
    turns, cauchy, factor = int(draw.choice([-2, -1, 1, 2])), bool(draw.randint(2)), _factor(draw)
    return lambda level: Circular(turns, _at(_KAPPA, level, factor), cauchy, both_signs)


def _board(draw: _Draw) -> CouplingOfLevel:
    k, factor = draw.randint(4, 41), _factor(draw)
    permutations: Array = np.stack(
        [draw.permutation(k).astype(np.float64) for _ in range(draw.randint(1, 4))]
    )

    def make(level: float) -> Coupling:
        return Checkerboard.of_permutations(permutations, -float(np.expm1(-_at((0.02, 8.0), level, factor))))

    return make


def _levels(draw: _Draw) -> CouplingOfLevel:
    heights, factor = zigzag(draw, draw.randint(1, 4)), _factor(draw)
    cuts = np.sort(draw.uniform(-0.9, 0.9, draw.randint(2, 10)))
    names = ("laplace", "logistic", "student", "cauchy", "gumbel")
    noise = NOISES[names[draw.randint(len(names))]]

    def make(level: float) -> Coupling:
        scale = _at((20.0, 0.005), level, 1 / factor)
        return Ordinal(heights, scale, noise, cuts * (1 + scale))

    return make


# how a coupling is drawn, and whether v is uniform (then y may be any columns whose index is v)
_COUPLINGS: dict[str, tuple[Callable[[_Draw], CouplingOfLevel], bool]] = {
    "tails": (_tails, True),
    "upper": (_upper, True),
    "branch": (_one_branch, False),
    "branches": (_two_or_three, False),
    "ring": (_ring, True),
    "crossing": (_crossing, True),
    "board": (_board, True),
    "levels": (_levels, False),
}
_ONE = ("column", "normal", "pareto")


def _relations(
    draw: _Draw,
    dim_x: int,
    dim_y: int,
    kinds_x: tuple[str, ...],
    kinds_y: tuple[str, ...],
    couplings: tuple[str, ...],
    *,
    discrete_y: bool = False,
) -> LawOfLevel:
    """Independent relations side by side, each with its indices and its coupling drawn among those named."""
    least = (min(INDICES[kind][0] for kind in kinds_x), min(INDICES[kind][0] for kind in kinds_y))
    count, most_x, most_y = _several(draw, dim_x, dim_y, least)
    parts = []
    for _ in range(count):
        how, free_y = _COUPLINGS[couplings[draw.randint(len(couplings))]]
        make = how(draw)
        # where v is no uniform number, y is v itself
        index_y = pick_index(draw, kinds_y if free_y else ("column",), most_y)
        parts.append((make, pick_index(draw, kinds_x, most_x), index_y))

    def law(level: float) -> Law:
        return side_by_side([indexed(make(level), a, b, discrete_y=discrete_y) for make, a, b in parts])

    return law


def pair_copulas(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Columns tied two by two, by copulas with a strong lower, upper or no tail, in any corner."""
    return _relations(draw, dim_x, dim_y, _ONE, _ONE, ("tails",))


def noisy_function(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """y a curve of x that goes up and down, plus Laplace, logistic, Student, Cauchy, uniform or skewed noise."""
    return _relations(draw, dim_x, dim_y, _ONE, ("column",), ("branch",))


def several_valued(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Several y for each x: two or three branches, strokes that cross, cells that lead to several cells."""
    return _relations(draw, dim_x, dim_y, _ONE, _ONE, ("branches", "crossing", "board"))


def radial(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """The distance of x from its centre says something about y, or about y's distance; directions do not."""
    return _relations(
        draw, dim_x, dim_y, ("norm",), ("norm", "normal", "pareto"), ("tails", "upper", "branch")
    )


def interaction(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """y follows the sign of a product of columns, or a sum of columns modulo 1: nothing in one column alone."""
    return _relations(
        draw, dim_x, dim_y, ("wrap", "parity"), ("column", "normal", "wrap"), ("ring", "branch", "tails")
    )


def switch(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """One column of x says which of the others y follows."""
    return _relations(draw, dim_x, dim_y, ("gate",), _ONE, ("branch", "tails", "crossing"))


def ratio(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """y follows a ratio, a product, or the distance of two columns."""
    return _relations(draw, dim_x, dim_y, ("ratio", "product", "gap"), _ONE, ("branch", "tails"))


def extremes(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Heavy-tailed columns, or the largest of several, that are large together: extreme-value copulas."""
    kinds = ("pareto", "largest")
    return _relations(draw, dim_x, dim_y, kinds, kinds, ("upper",))


def manifold(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Points on circles, knots and rolled sheets whose places correspond, once or twice round."""
    kinds_x, kinds_y = ("ring", "roll", "knot"), ("column", "ring", "roll", "knot")
    return _relations(draw, dim_x, dim_y, kinds_x, kinds_y, ("ring", "ring", "crossing"))


def ordinal(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """y an ordered outcome of three to ten levels: a hidden noisy curve of x, cut into pieces."""
    kinds = (*_ONE, "norm", "parity", "ratio", "gap")
    return _relations(draw, dim_x, dim_y, kinds, ("column",), ("levels",), discrete_y=True)
