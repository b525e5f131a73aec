"""The small language that chooses among named columns: names, patterns, positions, ranges."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import numpy as np

from flomi.support.names import nearest

Columns = str | int | Sequence[str | int]


def list_names(names: Sequence[str], most: int = 10) -> str:
    """Names for a message, quoted and cut after `most`.

    >>> list_names(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def select(names: Sequence[str], columns: Columns, role: str = "x") -> list[int]:
    """Positions of the columns that `columns` names, each once, in the order asked for.

    One string holds one or several items separated by commas. An item is, in this order of precedence, an exact name; a
    pattern with `*`, `?` or `[...]`; a position, negative ones counted from the end; a range, either of positions
    ("0:5", end left out) or of names ("a:c", end included). An item that starts with `!` leaves columns out; if the first
    item does, the start is all columns. A list gives the items one by one. `role` names the argument in errors.

    Raises ValueError when an item fits no column, with near names, and when nothing is left.

    >>> select(["a", "b1", "b2", "c"], "b*,-1")
    [1, 2, 3]
    >>> select(["a", "b1", "b2", "c"], "!c")
    [0, 1, 2]
    """
    items = _items(names, columns, role)
    chosen: list[int] = []
    if items and isinstance(items[0], str) and items[0].startswith("!") and items[0] not in names:
        chosen = list(range(len(names)))
    for item in items:
        if isinstance(item, str) and item.startswith("!") and item not in names:
            out = set(_match(names, item[1:].strip(), role))
            chosen = [i for i in chosen if i not in out]
        else:
            chosen += [i for i in _match(names, item, role) if i not in chosen]
    if not chosen:
        raise ValueError(f"{role}: {columns!r} chooses no column; there are {list_names(names)}")
    return chosen


def _items(names: Sequence[str], columns: Columns, role: str) -> list[str | int]:
    if isinstance(columns, str):
        if columns in names:  # a name may itself hold a comma
            return [columns]
        return [item.strip() for item in columns.split(",") if item.strip()]
    if isinstance(columns, Sequence):
        items: list[str | int] = list(columns)
    else:
        items = [columns]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (str, int, np.integer)):
            raise TypeError(f"{role}: columns are chosen by name or position, not by {item!r}")
    return [item if isinstance(item, str) else int(item) for item in items]


def _match(names: Sequence[str], item: str | int, role: str) -> list[int]:
    if isinstance(item, str):
        found = [i for i, name in enumerate(names) if name == item]
        if len(found) > 1:
            places = " or ".join(map(str, found))
            raise ValueError(
                f"{role}: {len(found)} columns are called {item!r}; choose by position instead: {places}"
            )
        if found:
            return found
        if any(c in item for c in "*?["):
            found = [i for i, name in enumerate(names) if fnmatch.fnmatchcase(name, item)]
            if not found:
                raise ValueError(
                    f"{role}: no column fits the pattern {item!r}; there are {list_names(names)}"
                )
            return found
    position = _integer(item)
    if position is not None:
        if not -len(names) <= position < len(names):
            raise ValueError(
                f"{role}: there is no column {position}; positions go from 0 to {len(names) - 1} (or -1, -2, ... from the end)"
            )
        return [position % len(names)]
    if isinstance(item, str) and ":" in item:
        return _range(names, item, role)
    raise ValueError(f"{role}: there is no column {item!r}; {_hint(str(item), names)}")


def _range(names: Sequence[str], item: str, role: str) -> list[int]:
    first, _, last = (part.strip() for part in item.partition(":"))
    if first in names and last in names and names.index(first) != _integer(first):
        start, stop = names.index(first), names.index(last) + 1
        if start >= stop:
            raise ValueError(
                f"{role}: the range {item!r} is empty, because {last!r} stands before {first!r}; write {last}:{first}"
            )
        return list(range(start, stop))
    start_at, stop_at = _integer(first), _integer(last)
    if (first and start_at is None) or (last and stop_at is None):
        missing = [part for part in (first, last) if part and part not in names and _integer(part) is None]
        unknown = missing[0] if missing else item
        raise ValueError(
            f"{role}: the range {item!r} needs two column names or two positions, and there is no column {unknown!r}; "
            f"{_hint(unknown, names)}"
        )
    found = list(range(len(names))[start_at:stop_at])
    if not found:
        raise ValueError(f"{role}: the range {item!r} is empty; positions go from 0 to {len(names) - 1}")
    return found


def _integer(item: str | int) -> int | None:
    if isinstance(item, int):
        return item
    return int(item) if item.isascii() and item.removeprefix("-").isdigit() else None


def _hint(word: str, names: Sequence[str]) -> str:
    close = nearest(word, names, most=3)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {list_names(names)}"
