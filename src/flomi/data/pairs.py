"""`Pairs`: two float arrays of paired rows, checked, with errors that say how to mend the input.

Nothing is dropped, filled in or encoded silently: what was done, and every doubt, stands in `Pairs.notes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from flomi.data.checks import (
    complete_rows,
    doubts,
    numbers,
    refuse_constant,
    refuse_shared,
    rounded,
)
from flomi.data.columns import list_names
from flomi.data.kinds import Kind, all_continuous, kinds_of
from flomi.data.settings import SETTINGS
from flomi.data.tables import Table, as_table, row_number

MIN_ROWS = SETTINGS.min_rows
Missing = Literal["error", "drop"]


@dataclass(frozen=True, eq=False)
class FullData:
    """What is known of all `rows` complete rows, where only some of them were drawn.

    correlation [d, d] is that of the normal scores of the columns of x and of y, or None where it wasn't computed.
    """

    rows: int
    correlation: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Pairs:
    """Paired rows of x and y, ready for an estimator.

    x and y are float64 [n, d] (or [n, ...] where the input had more dimensions), finite, with at least MIN_ROWS rows.
    x_names and y_names have one name a column (a single name where there are more dimensions), kinds_x and kinds_y one of
    "continuous", "discrete" and "atoms", by the rule of `flomi.data.kinds.kind_of`. notes are sentences: what was done, and
    doubts. source is the name of the file, or "arrays". rows [n] are the positions of the rows in the input, from 0. groups
    [n] are whole numbers from 0, or None. full is what is known of all rows where these are a part of them, or None.
    """

    x: np.ndarray
    y: np.ndarray
    x_names: tuple[str, ...]
    y_names: tuple[str, ...]
    kinds_x: tuple[Kind, ...]
    kinds_y: tuple[Kind, ...]
    notes: tuple[str, ...]
    source: str
    rows: np.ndarray
    groups: np.ndarray | None = None
    full: FullData | None = None

    @property
    def continuous(self) -> bool:
        """Whether every column is."""
        return all_continuous(self.kinds_x) and all_continuous(self.kinds_y)


def from_arrays(x: Any, y: Any, *, groups: Any = None, missing: Missing = "error") -> Pairs:
    """Paired rows from arrays, tensors, lists, or frames and series of pandas, polars and the like.

    x, y: [n], [n, d] or [n, ...], of numbers or booleans; row i of x belongs to row i of y. groups [n], of any type, marks
    rows that belong together (one subject, one site). missing="drop" leaves out rows with a missing or infinite value and
    says so in `notes`.

    Raises TypeError for what is no data, and ValueError for text, dates, complex numbers, missing or infinite values,
    unequal lengths, constant columns, fewer than MIN_ROWS rows, and a continuous column that stands on both sides.

    >>> rng = np.random.default_rng(0)
    >>> pairs = from_arrays(rng.normal(size=100), rng.normal(size=(100, 3)))
    >>> pairs.x.shape, pairs.y.shape, pairs.y_names
    ((100, 1), (100, 3), ('y[0]', 'y[1]', 'y[2]'))
    """
    notes = _compare_indexes(x=x, y=y, groups=groups)
    group_table = None if groups is None else as_table(groups, "groups")
    return paired(as_table(x, "x"), as_table(y, "y"), group_table, missing, None, notes)


def new_rows(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows for an estimator that is already fitted: as `from_arrays`, but few rows and constant columns are no error.

    >>> x, y = new_rows([1.0, 2.0], [[1, 0], [1, 1]])
    >>> x.shape, y.shape
    ((2, 1), (2, 2))
    """
    sides = {role: (*matrix(as_table(value, role), role), row_number) for role, value in (("x", x), ("y", y))}
    _same_length(sides["x"][0], sides["y"][0], None)
    keep, counts, first = complete_rows(sides)
    if not len(keep):
        raise ValueError("x and y have no rows")
    if counts:
        raise ValueError(
            f"{int((~keep).sum()):,} of {len(keep):,} rows with missing or infinite values: {counts}; the first is {first}; "
            "mend them or leave these rows out"
        )
    return sides["x"][0], sides["y"][0]


def paired(
    x_table: Table,
    y_table: Table,
    group_table: Table | None,
    missing: Missing,
    source: str | None,
    notes: Sequence[str],
) -> Pairs:
    """Paired rows from the chosen columns of data in memory; `source` is None for arrays."""
    check_missing(missing)
    x, x_names = matrix(x_table, "x")
    y, y_names = matrix(y_table, "y")
    labels = None if group_table is None else labels_of(group_table)
    _same_length(x, y, labels)
    said = list(notes)

    total = len(x)
    for role, side, names in (("x", x, x_names), ("y", y, y_names)):
        if side.ndim == 2 and total and (void := np.flatnonzero(np.isnan(side).all(0))).size:
            raise ValueError(
                f"{role}: {list_names([names[j] for j in void])} hold no value in any row; leave them out"
            )
    keep, counts, first = complete_rows(
        {"x": (x, x_names, x_table.place), "y": (y, y_names, y_table.place)},
        labels,
        row_number if group_table is None else group_table.place,
    )
    rows = np.flatnonzero(keep)
    if counts:
        lost = f"{total - len(rows):,} of {total:,} rows with missing or infinite values: {counts}"
        if missing == "error":
            raise ValueError(
                f'{lost}; the first is {first}; mend them, or leave these rows out with missing="drop" (--missing drop)'
            )
        said.append(f"dropped {lost}")
        x, y, labels = x[rows], y[rows], None if labels is None else labels[rows]
    for table in (x_table, y_table):
        for name, value in zip(table.names, table.values, strict=True):
            said += rounded(value, name)
    return checked((x, y), (x_names, y_names), labels, rows, total, source, said)


def checked(
    sides: tuple[np.ndarray, np.ndarray],
    names: tuple[tuple[str, ...], tuple[str, ...]],
    labels: np.ndarray | None,
    rows: np.ndarray,
    total: int,
    source: str | None,
    notes: Sequence[str],
) -> Pairs:
    """Complete rows of x and y, which stood at `rows` [n] among `total`, as `Pairs`, if there is enough to learn from them."""
    if len(rows) < SETTINGS.min_rows:
        after = f" of {total:,} after dropping" if len(rows) < total else ""
        raise ValueError(
            f"there are {len(rows)} rows{after}; at least {SETTINGS.min_rows} are needed, and some hundreds for a useful number"
        )
    said = list(notes)
    for role, side, columns in zip("xy", sides, names, strict=True):
        note = refuse_constant(role, side, columns, from_file=source is not None)
        said += [note] if note else []
        said += doubts(role, side, columns, rows)
    x, y = sides
    refuse_shared(x, names[0], y, names[1])
    groups = None if labels is None else _codes(labels, said)
    kinds = kinds_of(x), kinds_of(y)
    return Pairs(x, y, *names, *kinds, tuple(dict.fromkeys(said)), source or "arrays", rows, groups)


def check_missing(missing: str) -> None:
    """ValueError for what is no way to deal with rows that lack a value."""
    if missing not in ("error", "drop"):
        raise ValueError(f"missing must be 'error' or 'drop', not {missing!r}")


def matrix(table: Table, role: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The columns side by side, float64 [n, d] (or the one array of more dimensions), and their names."""
    parts: list[np.ndarray] = []
    names: list[str] = []
    for name, value in zip(table.names, table.values, strict=True):
        part = numbers(value, name, table.place)
        if 0 in part.shape[1:]:
            raise ValueError(f"{role} has shape {part.shape}: rows without a value")
        if part.ndim > 2 and len(table.values) > 1:
            raise ValueError(
                f"{role}: {name!r} has shape {part.shape}; choose it alone, or reshape it to two dimensions"
            )
        parts.append(part[:, None] if part.ndim == 1 else part)
        names += [f"{name}[{j}]" for j in range(part.shape[1])] if part.ndim == 2 else [name]
    if not parts:
        raise ValueError(f"{role} has no columns")
    lengths = sorted({len(part) for part in parts})
    if len(lengths) > 1:
        raise ValueError(f"{role}: {list_names(table.names)} have different numbers of rows: {lengths}")
    side = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    return np.require(side, requirements=["C", "W"]), tuple(names)  # as torch needs it to share the memory


def labels_of(table: Table) -> np.ndarray:
    """The one column of groups, [n]."""
    if len(table.values) > 1 or table.values[0].size != len(table.values[0]):
        raise ValueError(
            f"groups needs one label a row, and {list_names(table.names)} give more; choose one column"
        )
    return table.values[0].reshape(-1)


def _same_length(x: np.ndarray, y: np.ndarray, labels: np.ndarray | None) -> None:
    if len(x) != len(y):
        turned = x.shape[1:] == (len(y),) or y.shape[1:] == (len(x),)
        hint = "one seems to lie on its side, transpose it" if turned else "each row of x needs its row of y"
        raise ValueError(f"x has {len(x):,} rows and y has {len(y):,}; {hint}")
    if labels is not None and len(labels) != len(x):
        raise ValueError(f"x has {len(x):,} rows and groups has {len(labels):,} labels; give one label a row")


def _codes(labels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Labels as whole numbers from 0, in the order of their first row."""
    code: dict[Any, int] = {}
    codes = np.array([code.setdefault(label, len(code)) for label in labels.tolist()])
    if len(code) < 2:
        raise ValueError(f"groups: all rows are in one group ({next(iter(code))!r}); at least two are needed")
    if len(code) == len(codes):
        notes.append("every row is a group of its own, so groups changes nothing")
    return codes


def _compare_indexes(**sides: Any) -> tuple[str, ...]:
    """Rows are paired by position: an error if the labels of pandas say another order, a note if they say other rows."""
    indexes = {role: getattr(side, "index", None) for role, side in sides.items()}
    known: list[tuple[str, Any]] = [(role, i) for role, i in indexes.items() if hasattr(i, "equals")]
    notes = []
    for role, second in known[1:]:
        one, first = known[0]
        if len(first) != len(second) or first.equals(second):
            continue
        if first.is_unique and second.is_unique and first.symmetric_difference(second).empty:
            raise ValueError(
                f"{one} and {role} have the same index labels in another order, and rows are paired by position; write "
                f"{role}.loc[{one}.index], or {one}.to_numpy() and {role}.to_numpy() if the positions are right"
            )
        notes.append(f"the index labels of {one} and {role} differ; rows were paired by position")
    return tuple(notes)
