"""Which columns of which files are x, y and groups."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flomi.data.columns import Columns, list_names, select
from flomi.data.sources import Source, open_source
from flomi.data.tables import Table


@dataclass(frozen=True, eq=False)
class Chosen:
    """Positions of the columns of x and groups in `first`, of y in `second`, which is `first` where one file holds all.

    source is what to call the data; notes are what was said when the files were opened.
    """

    first: Source
    second: Source
    x: list[int]
    y: list[int]
    groups: list[int] | None
    source: str
    notes: tuple[str, ...]

    def count(self) -> int | None:
        """How many rows there are; None where columns differ in that, so that there are no pairs."""
        of_first = self.first.count([*self.x, *(self.groups or [])])
        return of_first if of_first == self.second.count(self.y) else None

    def tables(self) -> tuple[Table, Table, Table | None]:
        """x, y and groups in memory."""
        groups = None if self.groups is None else self.first.table(self.groups)
        return self.first.table(self.x), self.second.table(self.y), groups


def choose(
    path: str | os.PathLike[str],
    y_path: str | os.PathLike[str] | None,
    *,
    x: Columns | None,
    y: Columns | None,
    groups: str | int | None,
) -> Chosen:
    """Open the files of `read` and find its columns, or a ValueError that says what is wrong with them."""
    first = open_source(path)
    second = first if y_path is None else open_source(y_path)
    group_at = None if groups is None else _select(first, groups, "groups")
    if y_path is None:
        source = Path(path).name
        x, y = _default_columns(first, x, y, source)
        x_at, y_at = _select(first, x, "x"), _select(first, y, "y")
        shared = [first.names[i] for i in x_at if i in y_at]
        if shared:
            raise ValueError(
                f"the same columns are on both sides ({list_names(shared)}), where mutual information is infinite; leave "
                f"each out of one side ('!{shared[0]}' in its list of columns)"
            )
        return Chosen(first, first, x_at, y_at, group_at, source, first.notes)
    if os.path.realpath(path) == os.path.realpath(y_path):
        raise ValueError(
            f"{path} is given for both x and y; give two files, or choose columns of one (--x, --y)"
        )
    x_at, y_at = (
        list(range(len(source.names))) if columns is None else _select(source, columns, role)
        for role, source, columns in (("x", first, x), ("y", second, y))
    )
    if not x_at or not y_at:
        raise ValueError(f"{'y' if x_at else 'x'} has no columns")
    source = f"{Path(path).name} and {Path(y_path).name}"
    return Chosen(first, second, x_at, y_at, group_at, source, (*first.notes, *second.notes))


def _select(source: Source, columns: Columns, role: str) -> list[int]:
    try:
        return select(source.names, columns, role)
    except ValueError as error:  # how the file was read may be why the column isn't there
        raise ValueError("; ".join((str(error), *source.notes))) from None


def _default_columns(
    opened: Source, x: Columns | None, y: Columns | None, source: str
) -> tuple[Columns, Columns]:
    """The columns of a single file, which must be named except in an .npz with arrays called x and y."""
    suffix = os.path.splitext(source)[1].lower()
    if suffix == ".npy" and len(opened.names) == 1:
        raise ValueError(
            f"{source} holds one variable; add a second .npy file for y, or give a 2-D array of columns"
        )
    if suffix == ".npz":
        x = "x" if x is None and "x" in opened.names else x
        y = "y" if y is None and "y" in opened.names else y
    lacking = [role for role, columns in (("x", x), ("y", y)) if columns is None]
    if x is None or y is None:
        raise ValueError(
            f"say which {'arrays' if suffix == '.npz' else 'columns'} are {' and '.join(lacking)} "
            f"({' and '.join('--' + role for role in lacking)}); {source} has {len(opened.names)}: "
            f"{list_names(opened.names)}"
        )
    return x, y
