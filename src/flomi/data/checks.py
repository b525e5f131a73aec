"""What must hold of two arrays of paired rows before a number can mean anything, and what is doubtful in them."""

from __future__ import annotations

from typing import Any

import numpy as np

from flomi.data.columns import list_names
from flomi.data.kinds import kind_of
from flomi.data.settings import SETTINGS
from flomi.data.tables import Place, row_number


def numbers(values: np.ndarray, name: str, place: Place = row_number) -> np.ndarray:
    """`values` as float64; a ValueError shows the cell of column `name` that is no number, and its place."""
    if values.dtype.kind in "biuf":
        return np.asarray(values, dtype=np.float64)
    if values.dtype.kind == "c":
        raise ValueError(
            f"column {name!r} holds complex numbers; give the real and the imaginary part as two columns"
        )
    if values.dtype.kind in "mM":
        raise ValueError(
            f"column {name!r} holds dates or times; turn them into numbers first, such as days since the first"
        )
    cells = values.astype(object).reshape(-1)
    per_row = max(1, cells.size // max(1, len(values)))
    result = np.full(cells.shape, np.nan)
    text = []
    for i, cell in enumerate(cells):
        if isinstance(cell, (str, bytes)):
            text.append(i)
        elif not absent(cell):
            try:
                result[i] = float(cell)
            except (TypeError, ValueError):
                raise ValueError(
                    f"column {name!r} holds a {type(cell).__name__} in {place(i // per_row)}, where a number is needed; "
                    "convert it first"
                ) from None
    if text:
        worst = next((i for i in text if not _reads_as_number(str(cells[i]))), text[0])
        raise ValueError(_text_found(name, str(cells[worst]), place(worst // per_row)))
    return result.reshape(values.shape)


def absent(cell: Any) -> bool:
    """Whether a cell is one of the marks of a missing value that Python, NumPy and pandas have."""
    if isinstance(cell, float):
        return cell != cell
    return cell is None or type(cell).__name__ in ("NAType", "NaTType")


def _reads_as_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _text_found(name: str, cell: str, place: str) -> str:
    found = f"column {name!r} holds text, such as {cell[:40]!r} in {place}"
    if cell.strip().casefold() in SETTINGS.marks or not cell.strip():
        return f"{found}; if that marks a missing value, leave the cell empty"
    if _reads_as_number(cell):
        return f"{found}; turn text into numbers first, such as with astype(float)"
    if _reads_as_number(cell.replace(",", ".", 1)) or _reads_as_number(cell.replace(",", "")):
        return f"{found}; write numbers with a decimal point and nothing between thousands"
    return (
        f"{found}, where numbers are needed; encode it first "
        "(categories: one 0/1 column each; dates: days since the first)"
    )


def complete_rows(
    sides: dict[str, tuple[np.ndarray, tuple[str, ...], Place]],
    labels: np.ndarray | None = None,
    place_of_labels: Place = row_number,
) -> tuple[np.ndarray, str, str]:
    """Which rows have no missing or infinite value; the counts in words; where the first such value is."""
    keep = np.ones(len(next(iter(sides.values()))[0]), dtype=bool)
    counts: list[str] = []
    first: list[tuple[int, str]] = []
    for role, (side, names, place) in sides.items():
        bad = ~np.isfinite(side)
        if not bad.any():
            continue
        missing = int(np.isnan(side).sum())
        infinite = int(bad.sum()) - missing
        kinds = " and ".join(
            f"{count:,} {kind}" for count, kind in ((missing, "missing"), (infinite, "infinite")) if count
        )
        hit = bad.reshape(len(side), -1)
        row = int(hit.any(1).argmax())
        if side.ndim == 2:
            columns = [names[j] for j in np.flatnonzero(hit.any(0))]
            counts.append(f"{kinds} in {role} ({list_names(columns, 3)})")
            first.append((row, f"{place(row)}, column {names[int(hit[row].argmax())]!r}"))
        else:
            counts.append(f"{kinds} in {role}")
            first.append((row, f"{place(row)}, in {role}"))
        keep &= ~hit.any(1)
    if labels is not None:
        unlabelled = np.array([absent(label) for label in labels.tolist()])
        if unlabelled.any():
            counts.append(f"{int(unlabelled.sum()):,} missing in groups")
            row = int(unlabelled.argmax())
            first.append((row, f"{place_of_labels(row)}, in groups"))
            keep &= ~unlabelled
    return keep, ", ".join(counts), min(first)[1] if first else ""


def rounded(values: np.ndarray, name: str) -> list[str]:
    """A sentence where whole numbers are too long for float64."""
    whole = values.dtype.kind in "iu" and values.size > 0
    if not whole or max(abs(int(values.min())), int(values.max())) <= 2**53:
        return []
    return [
        f"column {name!r} holds whole numbers above 2^53, which are rounded to 16 digits; subtract a constant if the last "
        "digits matter, and leave the column out if it is a name"
    ]


def refuse_constant(role: str, side: np.ndarray, names: tuple[str, ...], from_file: bool) -> str | None:
    """ValueError for constant columns; for images and the like, a note, since places in them cannot be left out."""
    low, high = side.min(axis=0), side.max(axis=0)
    # The second condition is for constants that were computed and differ by rounding; halves do not overflow.
    constant = (high == low) | (high / 2 - low / 2 <= SETTINGS.rounding * np.maximum(abs(low), abs(high)))
    count = int(constant.sum())
    if not count:
        return None
    if side.ndim > 2 and count < constant.size:
        return f"{count:,} of the {constant.size:,} values in a row of {role} never change, and carry no information"
    at = [names[j] for j in np.flatnonzero(constant)] if side.ndim == 2 else [role]
    if count == constant.size:
        raise ValueError(
            f"{role} is constant ({list_names(at)}) and carries no information; choose other columns"
        )
    what = f"{count} of the {constant.size} columns of {role} are constant and carry no information"
    if from_file:
        out = ",".join(f"!{name}" for name in at)
        raise ValueError(f"{what}; leave them out: add '{out}' to the columns of {role} (--{role})")
    how = f"{role} without {list_names(at)}"
    if at[0].startswith(f"{role}["):
        how = f"{role}[:, {role}.std(0) > 0]"
    raise ValueError(f"{what} ({list_names(at)}); leave them out: {how}")


def refuse_shared(x: np.ndarray, x_names: tuple[str, ...], y: np.ndarray, y_names: tuple[str, ...]) -> None:
    """ValueError where the same values stand on both sides, unless they are discrete: MI is then finite."""
    if x.shape == y.shape and np.array_equal(x, y) and not _all_discrete(x):
        raise ValueError(
            "x and y hold the same values, and mutual information with itself is infinite; give two variables"
        )
    if x.ndim == y.ndim == 2:
        left = {column.tobytes(): name for column, name in zip(x.T, x_names, strict=True)}
        for column, name in zip(y.T, y_names, strict=True):
            twin = left.get(column.tobytes())
            if twin is not None and not _all_discrete(column):
                raise ValueError(
                    f"column {twin!r} of x and column {name!r} of y hold the same values, where mutual information is "
                    "infinite; leave one of them out"
                )


def _all_discrete(side: np.ndarray) -> bool:
    return all(kind_of(column) == "discrete" for column in side.reshape(len(side), -1).T)


def doubts(role: str, side: np.ndarray, names: tuple[str, ...], rows: np.ndarray) -> list[str]:
    """Sentences on columns of one side that are allowed and yet often a mistake; `rows` [n] are where the rows stood."""
    if side.ndim > 2:
        return []
    notes: list[str] = []
    seen: dict[bytes, str] = {}
    for column, name in zip(side.T, names, strict=True):
        twin = seen.setdefault(column.tobytes(), name)
        if twin != name:
            notes.append(f"columns {twin!r} and {name!r} of {role} hold the same values")
        if np.array_equal(column, column[0] + (rows - rows[0])):
            notes.append(
                f"column {name!r} of {role} counts the rows; leave it out if it is only a row number"
            )
        low = float(column.min())
        if low in SETTINGS.sentinels and column[column > low].min() > low * SETTINGS.sentinel_gap:
            notes.append(
                f"column {name!r} of {role} holds {low:g} in {int((column == low).sum()):,} rows, far below its other "
                "values; if that marks missing values, leave those cells empty"
            )
    return notes
