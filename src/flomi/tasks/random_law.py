"""A joint law of x and y with exact pointwise MI, and the operations on laws that keep it exact.

The random tasks are made of laws: side by side, with sides exchanged, diluted by unrelated rows, or without dependence.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

import numpy as np

from flomi.tasks.core import Array, LogRatio, Sampler

__all__ = [
    "Law",
    "LawOfLevel",
    "by_chunks",
    "diluted",
    "flipped",
    "geometric",
    "independent",
    "side_by_side",
    "stream",
]

_CHUNK = 4096  # rows at a time where a [rows, nodes] table is built


@dataclass(frozen=True)
class Law:
    """A sampler and its pointwise MI.

    `discrete_x` and `discrete_y` say, a column each, whether values repeat: such columns are not mixed with others.
    `mi` is I(X; Y) in nats where there is a formula, else None.
    """

    sampler: Sampler = field(repr=False)
    log_ratio: LogRatio = field(repr=False)
    discrete_x: tuple[bool, ...]
    discrete_y: tuple[bool, ...]
    mi: float | None = None


LawOfLevel = Callable[[float], Law]  # a family with all but its strength fixed: level in [0, 1] -> law


def stream(*keys: int | str) -> np.random.RandomState:
    """Random numbers that whole numbers and words decide.

    The legacy generator: NumPy promises that its stream never changes, so a task means the same in every version.
    """
    entropy = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(entropy)))


def geometric(low: float, high: float, level: float) -> float:
    """From `low` at level 0 to `high` at level 1, by equal factors."""
    return float(low * (high / low) ** level)


def by_chunks(f: Callable[..., Array], *arrays: Array) -> Array:
    """f on blocks of rows, so that [rows, nodes] tables stay small."""
    starts = range(0, len(arrays[0]), _CHUNK)
    return np.concatenate([f(*(a[start : start + _CHUNK] for a in arrays)) for start in starts])


def side_by_side(laws: Sequence[Law]) -> Law:
    """Independent laws joined column by column: pointwise MI adds up."""
    if len(laws) == 1:
        return laws[0]
    cuts_x = tuple(accumulate(len(law.discrete_x) for law in laws))[:-1]
    cuts_y = tuple(accumulate(len(law.discrete_y) for law in laws))[:-1]
    known = [law.mi for law in laws if law.mi is not None]
    return Law(
        partial(_joined_sample, tuple(law.sampler for law in laws)),
        partial(_joined_ratio, tuple(law.log_ratio for law in laws), cuts_x, cuts_y),
        sum((law.discrete_x for law in laws), ()),
        sum((law.discrete_y for law in laws), ()),
        sum(known) if len(known) == len(laws) else None,
    )


def _joined_sample(samplers: tuple[Sampler, ...], rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    drawn = [sampler(rng, n) for sampler in samplers]
    return np.hstack([x for x, _ in drawn]), np.hstack([y for _, y in drawn])


def _joined_ratio(
    ratios: tuple[LogRatio, ...], cuts_x: tuple[int, ...], cuts_y: tuple[int, ...], x: Array, y: Array
) -> Array:
    parts = zip(ratios, np.split(x, cuts_x, axis=1), np.split(y, cuts_y, axis=1), strict=True)
    total: Array = np.sum([ratio(a, b) for ratio, a, b in parts], axis=0)
    return total


def flipped(law: Law) -> Law:
    """The law of (y, x)."""
    return Law(
        partial(_flipped_sample, law.sampler),
        partial(_flipped_ratio, law.log_ratio),
        law.discrete_y,
        law.discrete_x,
        law.mi,
    )


def _flipped_sample(sampler: Sampler, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    x, y = sampler(rng, n)
    return y, x


def _flipped_ratio(ratio: LogRatio, x: Array, y: Array) -> Array:
    return ratio(y, x)


def diluted(law: Law, share: float) -> Law:
    """A share of the rows follows the law, the others have x and y of unrelated rows: pmi' = log(1 - a + a e^pmi)."""
    return Law(
        partial(_diluted_sample, law.sampler, share),
        partial(_diluted_ratio, law.log_ratio, share),
        law.discrete_x,
        law.discrete_y,
    )


def _diluted_sample(sampler: Sampler, share: float, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    x, y = sampler(rng, n)
    _, other = sampler(rng, n)
    return x, np.where(rng.random((n, 1)) < share, y, other)


def _diluted_ratio(ratio: LogRatio, share: float, x: Array, y: Array) -> Array:
    pmi: Array = np.logaddexp(np.log1p(-share), np.log(share) + ratio(x, y))
    return pmi


def independent(law: Law) -> Law:
    """The same distributions of x and of y, without dependence: I = 0."""
    return Law(partial(_independent_sample, law.sampler), _zero_ratio, law.discrete_x, law.discrete_y, mi=0.0)


def _independent_sample(sampler: Sampler, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    return sampler(rng, n)[0], sampler(rng, n)[1]


def _zero_ratio(x: Array, y: Array) -> Array:
    return np.zeros(len(x))
