"""Which kind of variable a column is, from its values."""

from __future__ import annotations

from typing import Literal

import numpy as np

from flomi.data.settings import SETTINGS

Kind = Literal["continuous", "discrete", "atoms"]


def kind_of(column: np.ndarray) -> Kind:
    """The kind of one column [n]: does a value repeat, and does one take a share of the rows?

    A value in more than 5 % of the rows is an atom (one row is none). Where the rest, the rows at no atom, has more than half
    as many different values as rows, the column is "continuous" if there is no atom, and has "atoms" if there is one, the
    rest is more than 5 % of the rows, and it has more than 10 different values. Everything else is "discrete".

    >>> normal = np.random.default_rng(0).normal(size=100)
    >>> kind_of(normal), kind_of(normal.clip(0)), kind_of(normal.round())
    ('continuous', 'atoms', 'discrete')
    """
    counts = np.unique(column, return_counts=True)[1]
    most = SETTINGS.atom * len(column)
    rest = counts[counts <= max(1, most)]
    if len(rest) <= SETTINGS.distinct * rest.sum():
        return "discrete"
    if len(rest) == len(counts):
        return "continuous"
    return "atoms" if rest.sum() > most and len(rest) > SETTINGS.codes else "discrete"


def kinds_of(side: np.ndarray) -> tuple[Kind, ...]:
    """One kind a column of [n, d]; of [n, ...] one for all its values: "atoms" where they are of several kinds."""
    kinds = tuple(kind_of(column) for column in side.reshape(len(side), -1).T)
    if side.ndim == 2:
        return kinds
    return (kinds[0] if len(set(kinds)) == 1 else "atoms",)


def all_continuous(kinds: tuple[Kind, ...]) -> bool:
    """Whether columns of these kinds are all continuous."""
    return set(kinds) == {"continuous"}
