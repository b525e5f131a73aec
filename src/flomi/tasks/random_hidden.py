"""The families of random tasks with a hidden state, and vines: as in `random_relations`, functions that return a law by level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flomi.tasks.core import Array
from flomi.tasks.random_copulas import Pair
from flomi.tasks.random_latent import chain, emission, shared, through_cells
from flomi.tasks.random_law import Law, LawOfLevel, geometric
from flomi.tasks.random_relations import count_of, pick_index

__all__ = [
    "common_volatility",
    "counts",
    "heteroscedastic",
    "latent_classes",
    "long_rows",
    "mixed_columns",
    "multiplicative",
    "rare_shocks",
    "vine",
]

_Draw = np.random.RandomState
_Columns = list[tuple[str, list[Any]]]
_CELLS = 160


def _pick(draw: _Draw, kinds: tuple[str, ...]) -> str:
    return kinds[draw.randint(len(kinds))]


def _class_count(draw: _Draw, most: int) -> int:
    return int(2 * (most / 2) ** draw.rand())


def _class_table(draw: _Draw, k: int) -> Array:
    """Probabilities of the states of x and y: mostly the same state."""
    weights, same = draw.dirichlet(np.full(k, 3.0)), 1.0 if draw.rand() < 0.5 else draw.uniform(0.6, 0.98)
    table: Array = same * np.diag(weights) + (1 - same) * np.outer(weights, weights)
    return table


# --- classes ---


def latent_classes(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Clusters of Laplace, Student, skewed and Gaussian columns; y their label, now and then a wrong one, or clusters."""
    k = _class_count(draw, 40)
    table, mistakes, labelled = _class_table(draw, k), draw.uniform(0.01, 0.2), draw.rand() < 0.5
    sides = [_places(draw, k, count_of(draw, dim)) for dim in (dim_x, dim_y)]
    confusion = (1 - mistakes) * np.eye(k) + mistakes / k

    def law(level: float) -> Law:
        apart = geometric(0.05, 30.0, level)
        of_x, of_y = (
            emission([(kind, [apart * place, size ** min(1.0, apart)]) for kind, place, size in columns], k)
            for columns in sides
        )
        return shared(table, of_x, emission([("label", list(confusion.T))], k) if labelled else of_y)

    return law


def _places(draw: _Draw, k: int, columns: int) -> list[tuple[str, Array, Array]]:
    return [
        (
            _pick(draw, ("laplace", "student", "gumbel", "normal")),
            draw.standard_normal(k),
            np.exp(0.3 * draw.standard_normal(k)),
        )
        for _ in range(columns)
    ]


def mixed_columns(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Labels, counts, amounts with many zeros and continuous columns on both sides, tied by hidden classes."""
    k = _class_count(draw, 20)
    table = _class_table(draw, k)
    discrete, continuous = ("label", "poisson", "zero_gamma"), ("normal", "laplace", "gamma")
    sides = []
    for dim in (dim_x, dim_y):
        columns = count_of(draw, dim) if dim < 2 else max(2, count_of(draw, dim))
        kinds = [_pick(draw, discrete), _pick(draw, continuous)][:columns]
        kinds += [_pick(draw, discrete + continuous) for _ in range(columns - len(kinds))]
        sides.append(
            [
                (kind, draw.standard_normal((5, k)), draw.uniform(0.5, 2.0), draw.randint(2, 6))
                for kind in kinds
            ]
        )

    def law(level: float) -> Law:
        apart = geometric(0.03, 15.0, level)
        of_x, of_y = (
            emission([(kind, _mixed(kind, apart * z, base, labels)) for kind, z, base, labels in side], k)
            for side in sides
        )
        return shared(table, of_x, of_y)

    return law


def _mixed(kind: str, effects: Array, base: float, labels: int) -> list[Any]:
    """The parameters of a column whose state acts by `effects [5, k]`."""
    first, second = np.clip(effects[:2], -8, 8)
    if kind == "label":
        scores = np.exp(np.clip(effects[:labels], -8, 8))
        return list(0.99 * scores / scores.sum(axis=0) + 0.01 / labels)
    if kind == "poisson":
        return [np.exp(base + 0.5 * first)]
    if kind == "zero_gamma":
        return [0.98 / (1 + np.exp(-first)) + 0.01, base, np.exp(second)]
    if kind == "gamma":
        return [2 * base, np.exp(0.7 * first)]
    return [effects[0], base]


# --- a number of x, cut into cells ---


def _waves(draw: _Draw) -> Array:
    """A smooth curve between -1 and 1 over the cells."""
    u = (np.arange(_CELLS) + 0.5) / _CELLS
    rate, phase = draw.uniform(1, 8, 2), draw.uniform(0, 2 * np.pi, 2)
    curve = np.sin(rate[0] * u + phase[0]) + 0.5 * np.sin(rate[1] * u + phase[1])
    centred: Array = 2 * (curve - curve.min()) / (curve.max() - curve.min()) - 1
    return centred


def multiplicative(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """y = exp(f(x)) times gamma or Weibull noise, of either sign in some columns."""
    index = pick_index(draw, ("column", "normal", "norm", "ratio"), dim_x)
    columns = [
        (_pick(draw, ("gamma", "signed_gamma", "weibull")), draw.uniform(0.7, 6.0), _waves(draw))
        for _ in range(count_of(draw, min(dim_y, 8)))
    ]

    def law(level: float) -> Law:
        strength = geometric(0.02, 12.0, level)
        kinds: _Columns = [(kind, [shape, np.exp(strength * curve)]) for kind, shape, curve in columns]
        return through_cells(index, _CELLS, emission(kinds, _CELLS))

    return law


def heteroscedastic(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """x sets the scale of y, and a little of its mean: Gaussian, Laplace or Student noise of unequal size."""
    index = pick_index(draw, ("column", "normal", "norm", "wrap"), dim_x)
    mean = draw.uniform(0.0, 0.4)
    columns = [
        (_pick(draw, ("normal", "laplace", "student")), _waves(draw), _waves(draw))
        for _ in range(count_of(draw, min(dim_y, 8)))
    ]

    def law(level: float) -> Law:
        strength = geometric(0.03, 12.0, level)
        kinds: _Columns = [
            (kind, [mean * min(strength, 1.0) * place, np.exp(strength * curve)])
            for kind, place, curve in columns
        ]
        return through_cells(index, _CELLS, emission(kinds, _CELLS))

    return law


# --- a hidden number on a grid ---


def _grid(k: int) -> tuple[Array, Array]:
    z = np.linspace(-2.5, 2.5, k)
    weights = np.exp(-0.5 * z**2)
    return z, weights / weights.sum()


def common_volatility(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Columns whose scales go up and down together, as returns do: no correlation, dependence in every tail."""
    z, weights = _grid(31)
    rho = 1.0 if draw.rand() < 0.5 else draw.uniform(0.7, 0.98)
    table = np.diag(weights)
    if rho < 1:
        table = np.exp(-0.5 * (z[:, None] ** 2 + z**2 - 2 * rho * np.outer(z, z)) / (1 - rho**2))
        table = table / table.sum()
    sides = [
        [
            (_pick(draw, ("normal", "laplace", "student", "signed_gamma")), draw.uniform(0.6, 1.4))
            for _ in range(n)
        ]
        for n in (count_of(draw, min(dim, 20)) for dim in (dim_x, dim_y))
    ]

    def law(level: float) -> Law:
        strength = geometric(0.03, 5.0, level)
        of_x, of_y = (
            emission(
                [
                    (kind, [2.0 if kind == "signed_gamma" else 0.0, np.exp(strength * load * z)])
                    for kind, load in side
                ],
                len(z),
            )
            for side in sides
        )
        return shared(table, of_x, of_y)

    return law


def rare_shocks(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Independent noise, but for a share of rows that a shock of heavy-tailed size moves, all columns at once."""
    share, tail, sizes = draw.uniform(0.03, 0.5), draw.uniform(1.0, 3.0), 32
    size = ((np.arange(sizes) + 0.5) / sizes) ** (-1 / tail)
    shock = np.concatenate([[0.0], size, -size])
    weights = np.concatenate([[1 - share], np.full(2 * sizes, share / (2 * sizes))])
    sides = [
        [(_pick(draw, ("normal", "laplace", "student")), draw.standard_normal()) for _ in range(n)]
        for n in (count_of(draw, min(dim, 20)) for dim in (dim_x, dim_y))
    ]

    def law(level: float) -> Law:
        strength = geometric(0.05, 100.0, level)
        of_x, of_y = (
            emission([(kind, [strength * load * shock, 1.0]) for kind, load in side], len(shock))
            for side in sides
        )
        return shared(np.diag(weights), of_x, of_y)

    return law


def counts(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Poisson and negative binomial counts whose rates a hidden number moves; x counts too, or noisy views of it."""
    z, weights = _grid(41)
    seen = draw.rand() < 0.4
    sides = []
    for side, dim in enumerate((dim_x, dim_y)):
        kinds = ("normal", "gumbel") if seen and side == 0 else ("poisson", "negative_binomial")
        sides.append(
            [
                (_pick(draw, kinds), draw.uniform(-0.5, 2.5), draw.standard_normal(), draw.uniform(1, 10))
                for _ in range(count_of(draw, min(dim, 20)))
            ]
        )

    def law(level: float) -> Law:
        strength = geometric(0.02, 3.0, level)
        of_x, of_y = (
            emission(
                [
                    (kind, _rates(kind, np.clip(strength * load * z, -8, 8), base, size))
                    for kind, base, load, size in side
                ],
                len(z),
            )
            for side in sides
        )
        return shared(np.diag(weights), of_x, of_y)

    return law


def _rates(kind: str, effect: Array, base: float, size: float) -> list[Any]:
    if kind == "poisson":
        return [np.exp(base + effect)]
    if kind == "negative_binomial":
        return [size, np.exp(base + effect)]
    return [effect, 0.5]


# --- neighbouring entries of long rows ---


def long_rows(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """The entries of a row before and after a point, seen through noise from a hidden Markov chain."""
    k = draw.randint(3, 17)
    stay, kind = draw.uniform(0.5, 0.97), _pick(draw, ("normal", "laplace", "poisson", "signed_gamma"))
    turn, spread = np.eye(k)[draw.permutation(k)], draw.dirichlet(np.ones(k), size=k)
    step = stay * np.eye(k) + (1 - stay) * (0.8 * turn + 0.2 * spread)
    start = np.full(k, 1 / k) @ np.linalg.matrix_power(step, 200)
    place = draw.permutation(np.linspace(-1.5, 1.5, k)) + 0.3 * draw.standard_normal(k)

    def law(level: float) -> Law:
        strength = geometric(0.05, 20.0, level)
        effect = np.exp(np.clip(strength * place, -8, 8))
        parameters: dict[str, list[Any]] = {
            "normal": [strength * place, 1.0],
            "laplace": [strength * place, 1.0],
            "poisson": [effect],
            "signed_gamma": [1.5, effect],
        }
        entry = emission([(kind, parameters[kind])], k)
        return chain(start, step, [entry] * (dim_x + dim_y), dim_x)

    return law


@dataclass(frozen=True)
class Vine:
    """A D-vine of two trees over the row (x_1, ..., x_m, y_1, ..., y_n) of uniforms.

    `near[t]` ties entries t and t + 1, `next_to[t]` entries t and t + 2 given the one between. A block of the row is such a
    vine again, so that only the pairs across the boundary remain:

        pmi = log c(x_m, y_1) + log c(F(x_{m-1} | x_m), F(y_1 | x_m)) + log c(F(x_m | y_1), F(y_2 | y_1))
    """

    near: tuple[Pair, ...]
    next_to: tuple[Pair, ...]
    first: int

    def sample(self, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
        row = [rng.random(n)]
        row.append(self.near[0].solve(row[0], rng.random(n)))
        for near, before, next_to in zip(self.near[1:], self.near, self.next_to, strict=False):
            back = before.given(row[-1], row[-2])
            row.append(near.solve(row[-1], next_to.solve(back, rng.random(n))))
        entries = np.stack(row, axis=1)
        return entries[:, : self.first], entries[:, self.first :]

    def log_ratio(self, x: Array, y: Array) -> Array:
        m = self.first
        near, last, head = self.near[m - 1], x[:, -1], y[:, 0]
        pmi = near.log_ratio(last, head)
        if m > 1:
            back = self.near[m - 2].given(last, x[:, -2])
            pmi = pmi + self.next_to[m - 2].log_ratio(back, near.given(last, head))
        if y.shape[1] > 1:
            ahead = self.near[m].given(head, y[:, 1])
            pmi = pmi + self.next_to[m - 1].log_ratio(near.given(head, last), ahead)
        return pmi


def vine(draw: _Draw, dim_x: int, dim_y: int) -> LawOfLevel:
    """Neighbours and neighbours but one of a row of uniforms, tied by copulas with unlike tails."""
    m, n = (count_of(draw, min(dim, 8)) for dim in (dim_x, dim_y))
    quick, all_kinds = ("clayton", "frank"), ("clayton", "frank", "plackett", "joe", "gumbel")
    across = draw.rand(2) ** 2
    # both ends of a pair are turned or neither, so that its conditional distributions are the same both ways
    near = [
        (_pick(draw, quick), 2 * np.exp(draw.standard_normal()), bool(draw.randint(2))) for _ in range(m + n)
    ]
    next_to = [
        (_pick(draw, quick), np.exp(draw.standard_normal()), bool(draw.randint(2))) for _ in range(m + n)
    ]
    boundary = (_pick(draw, all_kinds), bool(draw.randint(2)))

    def law(level: float) -> Law:
        t = geometric(0.05, 1500.0, level)
        first = [Pair(name, s, turn, turn) for name, s, turn in near[: m + n - 1]]
        first[m - 1] = Pair(boundary[0], t, boundary[1], boundary[1])
        second = [Pair(name, s, turn, turn) for name, s, turn in next_to[: max(0, m + n - 2)]]
        for place, weight in ((m - 2, across[0]), (m - 1, across[1])):
            if 0 <= place < len(second):
                name, _, turn = next_to[place]
                second[place] = Pair(name, max(0.05, weight * min(t, 10.0)), turn, turn)
        v = Vine(tuple(first), tuple(second), m)
        return Law(v.sample, v.log_ratio, (False,) * m, (False,) * n)

    return law
