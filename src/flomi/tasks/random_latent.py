"""Laws with a hidden state of finitely many values: the pointwise MI is a sum over them, exact by construction.

`Emission`: what columns do given the state. `shared`: two states tied by a table. `through_cells`: a state that a number
of x decides. `chain`: a hidden Markov chain along a row, x its first entries and y those that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from flomi.tasks.core import Array
from flomi.tasks.densities import log_sum_exp
from flomi.tasks.random_indices import Index
from flomi.tasks.random_law import Law, by_chunks

__all__ = ["KINDS", "Emission", "Kind", "chain", "emission", "shared", "through_cells"]

_State = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Kind:
    """A law of one column: `draw(rng, *parameters [n])` and `log_density(t [n, 1], *parameters [k]) -> [n, k]`."""

    draw: Callable[..., Array]
    log_density: Callable[..., Array]
    discrete: bool = False


def _laplace_draw(rng: np.random.Generator, mean: Array, scale: Array) -> Array:
    return rng.laplace(mean, scale)


def _laplace_log(t: Array, mean: Array, scale: Array) -> Array:
    density: Array = -np.abs(t - mean) / scale - np.log(2 * scale)
    return density


def _normal_draw(rng: np.random.Generator, mean: Array, scale: Array) -> Array:
    return rng.normal(mean, scale)


def _normal_log(t: Array, mean: Array, scale: Array) -> Array:
    density: Array = -0.5 * ((t - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    return density


def _student_draw(rng: np.random.Generator, mean: Array, scale: Array) -> Array:
    drawn: Array = mean + scale * rng.standard_t(3, len(mean))
    return drawn


def _student_log(t: Array, mean: Array, scale: Array) -> Array:
    constant = np.log(2 / (np.pi * np.sqrt(3)))
    density: Array = constant - np.log(scale) - 2 * np.log1p(((t - mean) / scale) ** 2 / 3)
    return density


def _gumbel_draw(rng: np.random.Generator, mean: Array, scale: Array) -> Array:
    return rng.gumbel(mean, scale)


def _gumbel_log(t: Array, mean: Array, scale: Array) -> Array:
    z = (t - mean) / scale
    density: Array = -z - np.exp(np.minimum(-z, 700)) - np.log(scale)
    return density


def _gamma_draw(rng: np.random.Generator, shape: Array, scale: Array) -> Array:
    return np.maximum(rng.gamma(shape, scale), 1e-300)


def _gamma_log(t: Array, shape: Array, scale: Array) -> Array:
    from scipy.special import gammaln

    s = np.maximum(t, 1e-300)
    density: Array = (shape - 1) * np.log(s) - s / scale - gammaln(shape) - shape * np.log(scale)
    return density


def _signed_gamma_draw(rng: np.random.Generator, shape: Array, scale: Array) -> Array:
    size = _gamma_draw(rng, shape, scale)
    return np.where(rng.random(len(size)) < 0.5, -size, size)


def _signed_gamma_log(t: Array, shape: Array, scale: Array) -> Array:
    density: Array = _gamma_log(np.abs(t), shape, scale) - np.log(2)
    return density


def _weibull_draw(rng: np.random.Generator, shape: Array, scale: Array) -> Array:
    return np.maximum(scale * rng.weibull(shape), 1e-300)


def _weibull_log(t: Array, shape: Array, scale: Array) -> Array:
    z = np.maximum(t, 1e-300) / scale
    density: Array = np.log(shape / scale) + (shape - 1) * np.log(z) - z**shape
    return density


def _poisson_draw(rng: np.random.Generator, rate: Array) -> Array:
    return rng.poisson(rate).astype(np.float64)


def _poisson_log(t: Array, rate: Array) -> Array:
    from scipy.special import gammaln

    density: Array = t * np.log(rate) - rate - gammaln(t + 1)
    return density


def _negative_binomial_draw(rng: np.random.Generator, size: Array, mean: Array) -> Array:
    return rng.poisson(rng.gamma(size, mean / size)).astype(np.float64)


def _negative_binomial_log(t: Array, size: Array, mean: Array) -> Array:
    from scipy.special import gammaln

    p = mean / (mean + size)
    chosen = gammaln(t + size) - gammaln(size) - gammaln(t + 1)
    density: Array = chosen + size * np.log1p(-p) + t * np.log(p)
    return density


def _label_draw(rng: np.random.Generator, *weights: Array) -> Array:
    edges = np.cumsum(np.stack(weights, axis=1), axis=1)[:, :-1]
    label: Array = (rng.random((len(edges), 1)) > edges).sum(axis=1).astype(np.float64)
    return label


def _label_log(t: Array, *weights: Array) -> Array:
    table: Array = np.log(np.stack(weights, axis=0))
    return table[t[:, 0].astype(np.intp)]


def _zero_gamma_draw(rng: np.random.Generator, zero: Array, shape: Array, scale: Array) -> Array:
    return np.where(rng.random(len(zero)) < zero, 0.0, _gamma_draw(rng, shape, scale))


def _zero_gamma_log(t: Array, zero: Array, shape: Array, scale: Array) -> Array:
    return np.where(t == 0, np.log(zero), np.log1p(-zero) + _gamma_log(t, shape, scale))


KINDS: dict[str, Kind] = {
    "normal": Kind(_normal_draw, _normal_log),
    "laplace": Kind(_laplace_draw, _laplace_log),
    "student": Kind(_student_draw, _student_log),
    "gumbel": Kind(_gumbel_draw, _gumbel_log),
    "gamma": Kind(_gamma_draw, _gamma_log),
    "signed_gamma": Kind(_signed_gamma_draw, _signed_gamma_log),
    "weibull": Kind(_weibull_draw, _weibull_log),
    "poisson": Kind(_poisson_draw, _poisson_log, discrete=True),
    "negative_binomial": Kind(_negative_binomial_draw, _negative_binomial_log, discrete=True),
    "label": Kind(_label_draw, _label_log, discrete=True),
    "zero_gamma": Kind(_zero_gamma_draw, _zero_gamma_log, discrete=True),  # many zeros, else continuous
}


@dataclass(frozen=True)
class Emission:
    """Columns that are independent given the state: (name of the kind, its parameters, each `[k]` by state)."""

    columns: tuple[tuple[str, tuple[Array, ...]], ...]

    @property
    def discrete(self) -> tuple[bool, ...]:
        return tuple(KINDS[kind].discrete for kind, _ in self.columns)

    def draw(self, rng: np.random.Generator, state: _State) -> Array:
        """`[n, columns]` given the states `[n]`."""
        return np.stack([KINDS[kind].draw(rng, *(p[state] for p in ps)) for kind, ps in self.columns], axis=1)

    def log_density(self, values: Array) -> Array:
        """log p(row | state), `[n, k]`."""
        total: Array = np.sum(
            [KINDS[kind].log_density(values[:, j, None], *ps) for j, (kind, ps) in enumerate(self.columns)],
            axis=0,
        )
        return total


def emission(columns: Sequence[tuple[str, Sequence[Any]]], states: int) -> Emission:
    """An `Emission` whose parameters may be single numbers too."""
    return Emission(
        tuple(
            (
                kind,
                tuple(
                    np.ascontiguousarray(np.broadcast_to(np.asarray(p, dtype=np.float64), states)) for p in ps
                ),
            )
            for kind, ps in columns
        )
    )


def _pick(rng: np.random.Generator, weights: Array, n: int) -> _State:
    return np.minimum(np.searchsorted(np.cumsum(weights), rng.random(n), side="right"), len(weights) - 1)


def _scaled(log_terms: Array) -> tuple[Array, Array]:
    """e^(terms - top) and the top of each row."""
    top = log_terms.max(axis=1)
    return np.exp(log_terms - top[:, None]), top


def shared(table: Array, of_x: Emission, of_y: Emission) -> Law:
    """x given state i, y given state j, (i, j) drawn from the `[k, l]` table of probabilities.

    p(x, y) = sum_ij T_ij p(x | i) p(y | j); the marginals are the same sums with one of them left out.
    """
    return Law(
        partial(_shared_sample, table, of_x, of_y),
        partial(_shared_ratio, table, of_x, of_y),
        of_x.discrete,
        of_y.discrete,
    )


def _shared_sample(
    table: Array, of_x: Emission, of_y: Emission, rng: np.random.Generator, n: int
) -> tuple[Array, Array]:
    cell = _pick(rng, table.ravel(), n)
    return of_x.draw(rng, cell // table.shape[1]), of_y.draw(rng, cell % table.shape[1])


def _shared_ratio(table: Array, of_x: Emission, of_y: Emission, x: Array, y: Array) -> Array:
    return by_chunks(partial(_shared_block, table, of_x, of_y), x, y)


def _shared_block(table: Array, of_x: Emission, of_y: Emission, x: Array, y: Array) -> Array:
    log_x, log_y = of_x.log_density(x), of_y.log_density(y)
    with np.errstate(divide="ignore"):
        weight_x, weight_y = np.log(table.sum(axis=1)), np.log(table.sum(axis=0))
        # posterior of each state, so that nothing underflows that matters
        log_px, log_py = log_sum_exp(log_x + weight_x), log_sum_exp(log_y + weight_y)
        a, b = np.exp(log_x + weight_x - log_px[:, None]), np.exp(log_y + weight_y - log_py[:, None])
        ratio = table / np.outer(table.sum(axis=1), table.sum(axis=0))
        pmi: Array = np.log(((a @ ratio) * b).sum(axis=1))
    return pmi


def through_cells(index: Index, cells: int, of_y: Emission) -> Law:
    """u of x falls into one of equal cells of (0, 1), and y depends on the cell: p(y) is the mean over cells."""
    return Law(
        partial(_cells_sample, index, cells, of_y),
        partial(_cells_ratio, index, cells, of_y),
        (False,) * index.dim,
        of_y.discrete,
    )


def _cells_sample(
    index: Index, cells: int, of_y: Emission, rng: np.random.Generator, n: int
) -> tuple[Array, Array]:
    u = rng.random(n)
    x = index.scatter(rng, u)
    return x, of_y.draw(rng, _cell_of(u, cells))


def _cells_ratio(index: Index, cells: int, of_y: Emission, x: Array, y: Array) -> Array:
    return by_chunks(partial(_cells_block, index, cells, of_y), x, y)


def _cells_block(index: Index, cells: int, of_y: Emission, x: Array, y: Array) -> Array:
    log_y = of_y.log_density(y)
    given: Array = log_y[np.arange(len(y)), _cell_of(index.value(x), cells)]
    pmi: Array = given - log_sum_exp(log_y) + np.log(cells)
    return pmi


def _cell_of(u: Array, cells: int) -> _State:
    return np.clip((u * cells).astype(np.intp), 0, cells - 1)


def chain(start: Array, step: Array, of_entry: Sequence[Emission], first: int) -> Law:
    """Entry t of a row given the state z_t of a Markov chain; x the first entries, y the others.

    With a the distribution of the last state of x given x, and b_j = p(y | j) by the backward recursion,

        pmi = log sum_ij a_i P_ij b_j - log sum_j pi_j b_j,      pi the distribution of y's first state.
    """
    emissions = tuple(of_entry)
    kinds = [e.discrete[0] for e in emissions]
    return Law(
        partial(_chain_sample, start, step, emissions, first),
        partial(_chain_ratio, start, step, emissions, first),
        tuple(kinds[:first]),
        tuple(kinds[first:]),
    )


def _chain_sample(
    start: Array, step: Array, emissions: tuple[Emission, ...], first: int, rng: np.random.Generator, n: int
) -> tuple[Array, Array]:
    edges = np.cumsum(step, axis=1)[:, :-1]
    state = _pick(rng, start, n)
    entries = []
    for e in emissions:
        entries.append(e.draw(rng, state)[:, 0])
        state = (rng.random((n, 1)) > edges[state]).sum(axis=1)
    row = np.stack(entries, axis=1)
    return row[:, :first], row[:, first:]


def _chain_ratio(
    start: Array, step: Array, emissions: tuple[Emission, ...], first: int, x: Array, y: Array
) -> Array:
    a, before = np.tile(start, (len(x), 1)), start
    for t in range(first):
        likelihood, _ = _scaled(emissions[t].log_density(x[:, t : t + 1]))
        a = (a if t == 0 else a @ step) * likelihood
        a = a / a.sum(axis=1, keepdims=True)
        before = before @ step
    b = np.ones((len(y), len(start)))
    for t in reversed(range(y.shape[1])):
        likelihood, _ = _scaled(emissions[first + t].log_density(y[:, t : t + 1]))
        b = (b if t == y.shape[1] - 1 else b @ step.T) * likelihood
        b = b / b.max(axis=1, keepdims=True)
    pmi: Array = np.log(((a @ step) * b).sum(axis=1)) - np.log(b @ before)
    return pmi
