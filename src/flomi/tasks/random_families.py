"""The table of families, split in two before anything was run on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

import flomi.tasks.random_hidden as hidden
import flomi.tasks.random_relations as relations
from flomi.tasks.random_law import LawOfLevel, stream

__all__ = ["FAMILIES", "Family", "Half", "split"]

Half = Literal["first", "second"]


@dataclass(frozen=True)
class Family:
    """One row of `FAMILIES`.

    `build(draw, dim_x, dim_y)` returns a law for every level of strength. `half`: "first" may be used to choose and calibrate,
    "second" to check what was chosen. `least`: columns needed of x and of y, or the other way round. `candidate`: whether a
    critic of the library has this law as its own formula (monotone maps of columns do not count as a change).
    """

    name: str
    about: str
    group: str
    half: Half
    build: Callable[[np.random.RandomState, int, int], LawOfLevel]
    least: tuple[int, int] = (1, 1)
    candidate: bool = False


def split(families: Iterable[Family], seed: int = 14) -> dict[str, Half]:
    """The rule of the split: each group, in the order of the table, is shuffled with the seed and cut in the middle."""
    draw, halves = stream(seed, "halves"), dict[str, Half]()
    groups: dict[str, list[str]] = {}
    for family in families:
        groups.setdefault(family.group, []).append(family.name)
    for names in groups.values():
        for place, i in enumerate(draw.permutation(len(names))):
            halves[names[i]] = "first" if place < len(names) / 2 else "second"
    return halves


_ROWS: tuple[Family, ...] = (
    Family("gaussian", "any covariance", "known", "second", relations.gaussian, candidate=True),
    Family("smooth_function", "sums of sines plus Gaussian noise", "known", "first", relations.smooth_function,
           candidate=True),
    Family("gaussian_mixture", "components with their own dependence", "hidden state", "first", relations.gaussian_mixture),
    Family("long_rows", "entries of a hidden Markov chain, before and after", "hidden state", "second", hidden.long_rows),
    Family("latent_classes", "clusters and labels", "discrete", "second", hidden.latent_classes),
    Family("counts", "Poisson and negative binomial", "discrete", "first", hidden.counts),
    Family("mixed_columns", "labels, counts, zeros, continuous columns", "discrete", "first", hidden.mixed_columns),
    Family("ordinal", "ordered levels of a hidden curve", "discrete", "second", relations.ordinal),
    Family("pair_copulas", "lower, upper, no tail, in any corner", "tails", "first", relations.pair_copulas),
    Family("vine", "neighbours in a row of uniforms", "tails", "second", hidden.vine),
    Family("common_volatility", "scales that move together", "tails", "first", hidden.common_volatility),
    Family("rare_shocks", "rows that a large shock moves", "tails", "second", hidden.rare_shocks),
    Family("radial", "distances from the centre", "tails", "first", relations.radial, least=(2, 1)),
    Family("extremes", "extreme-value copulas, largest of several columns", "tails", "second", relations.extremes),
    Family("noisy_function", "curves with noise that is not Gaussian", "functions", "first", relations.noisy_function),
    Family("several_valued", "branches, crossings, cells", "functions", "first", relations.several_valued),
    Family("multiplicative", "noise that multiplies", "functions", "second", hidden.multiplicative),
    Family("heteroscedastic", "x sets the scale of y", "functions", "second", hidden.heteroscedastic),
    Family("interaction", "signs of products, sums modulo 1", "structure", "first", relations.interaction, least=(2, 1)),
    Family("switch", "a column says which other one counts", "structure", "first", relations.switch, least=(3, 1)),
    Family("ratio", "ratios, products, distances of columns", "structure", "second", relations.ratio, least=(2, 1)),
    Family("manifold", "circles, knots, rolled sheets", "structure", "second", relations.manifold, least=(2, 1)),
)  # fmt: skip

FAMILIES: dict[str, Family] = {family.name: family for family in _ROWS}
