"""Which rows train, validate and test in each fold: at random, or as the user's own splitter says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flomi.support.settings import setting

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SplitSettings:
    """How the rows outside a fold are used."""

    validation: float = setting(0.2, "share of the rows outside a fold that stop and select: the usual fifth")


SETTINGS = SplitSettings()


@dataclass(frozen=True)
class Split:
    """The rows of one fold, in random order; groups of rows stay together."""

    training: Rows
    validation: Rows
    test: Rows


def make_splits(
    n: int, n_folds: int, seed: int, groups: Rows | None = None, folds: Any = None, places: Rows | None = None
) -> list[Split]:
    """The folds of n rows; with `folds` the user's: labels [n], pairs (training, test) of indices, or a scikit-learn splitter.

    Labels may be those of the input before rows were left out; `places` [n] then says where these rows stand in it. Every row
    must be tested exactly once. A fifth of a fold's other rows, or of their groups, is for validation. The same n, seed and
    groups give the same folds. ValueError where rows or groups are too few, or where `folds` do not fit the rows.
    """
    rng = np.random.default_rng(seed)
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    count, what = int(units.max()) + 1, "rows" if groups is None else "groups"
    if folds is None:
        if not enough_units(count, n_folds):
            raise ValueError(
                f"{count} {what} are too few for {n_folds} folds: use fewer folds or more {what}"
            )
        order = rng.permutation(count)  # the order of the rows, not the pairing of x with y
        parts = [(order[~np.isin(order, block)], block) for block in np.array_split(order, n_folds)]
    else:
        given = _given(folds, n, groups, places)
        parts = [(rng.permutation(_units_of(a, units)), _units_of(b, units)) for a, b in given]
        if (np.bincount(np.concatenate([test for _, test in parts])) != 1).any():
            raise ValueError("folds puts rows of one group into several folds; keep each group in one")
        least = min(min(len(rest) - _validation(len(rest)), len(test)) for rest, test in parts)
        if least < 2:
            raise ValueError(
                f"folds leaves a part with {least} {what}; each needs 2 at least to train on, to validate on and to test"
            )
        for k, (rest, test) in enumerate(parts):
            if np.isin(rest, test).any():
                raise ValueError(f"folds: fold {k} trains and tests on the same {what}; keep them apart")

    def rows(chosen: Rows) -> Rows:
        return chosen if groups is None else rng.permutation(np.flatnonzero(np.isin(units, chosen)))

    splits = []
    for rest, test in parts:
        mixed = rest[rng.permutation(len(rest))]
        cut = _validation(len(rest))
        splits.append((mixed[cut:], mixed[:cut], test if folds is None else rng.permutation(test)))
    made = [Split(rows(a), rows(b), rows(c)) for a, b, c in splits]
    if folds is None or groups is None:
        return made
    # of a group only the rows that the user trains on
    kept = [np.isin(np.arange(n), training) for training, _ in given]
    return [
        Split(s.training[k[s.training]], s.validation[k[s.validation]], s.test)
        for s, k in zip(made, kept, strict=True)
    ]


def _validation(rest: int) -> int:
    """How many of the rows or groups outside a fold are for validation: two at least, so that there are pairs."""
    return max(2, round(SETTINGS.validation * rest))


def enough_units(count: int, n_folds: int) -> bool:
    """Whether so many rows or groups give every fold two or more to train on, to validate on and to test."""
    rest = count + -count // n_folds
    return count >= 2 * n_folds and rest - _validation(rest) >= 2


def _units_of(rows: Rows, units: Rows) -> Rows:
    return np.unique(units[rows])


def _given(folds: Any, n: int, groups: Rows | None, places: Rows | None) -> list[tuple[Rows, Rows]]:
    """(training, test) rows of the user's own folds."""
    if hasattr(folds, "split") and not isinstance(folds, str):
        pairs: Iterable[Any] = folds.split(np.zeros((n, 1)), np.zeros(n), groups)
    elif np.ndim(labels := _array(folds)) == 1:
        if places is not None and len(labels) > max(n, int(places.max())):
            labels = labels[places]
        if len(labels) != n:
            raise ValueError(f"folds has {len(labels):,} labels for {n:,} rows; give one a row")
        if labels.dtype.kind in "iuf" and (labels < 0).any():
            raise ValueError(
                f"folds marks {int((labels < 0).sum()):,} rows as tested in no fold (-1); leave these rows out of x and y"
            )
        codes = np.unique(labels, return_inverse=True)[1].reshape(-1)
        pairs = [(np.flatnonzero(codes != k), np.flatnonzero(codes == k)) for k in range(codes.max() + 1)]
    else:
        pairs = folds
    try:
        found = [(_indices(a, n), _indices(b, n)) for a, b in pairs]
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(
            "folds must be labels, one a row, pairs (training rows, test rows), or an object with split(), such as "
            f"sklearn.model_selection.KFold(5); {error}"
        ) from None
    tested = np.bincount(np.concatenate([b for _, b in found]), minlength=n) if found else np.zeros(n)
    if len(found) < 2 or (tested != 1).any():
        row = int((tested != 1).argmax())
        raise ValueError(
            f"folds must be two at least and test every row exactly once; found {len(found)} folds, and row {row} is tested "
            f"{int(tested[row])} times"
        )
    return found


def _array(folds: Any) -> Any:
    try:
        return np.asarray(folds)
    except ValueError:  # pairs of unequal lengths
        return np.empty((0, 2))


def _indices(rows: Any, n: int) -> Rows:
    found = np.asarray(rows)
    if found.dtype == bool:
        found = np.flatnonzero(found)
    if (
        found.ndim != 1
        or found.dtype.kind not in "iu"
        or (len(found) and not 0 <= found.min() <= found.max() < n)
    ):
        raise ValueError(f"found indices of type {found.dtype} and shape {found.shape} for {n} rows")
    return found.astype(np.int64)
