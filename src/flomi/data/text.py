"""Text files (CSV, TSV, also packed) as a table: the mark between columns, names, decimal commas, line numbers."""

from __future__ import annotations

import bz2
import csv
import gzip
import lzma
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from flomi.data.tables import Table, first_words

PACKED: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


def read_text(file: Path, delimiter: str) -> Table:
    """All columns; `delimiter` is what the ending promises, and another one is found.

    Raises ValueError, with the line where there is one, for what is damaged, uneven or not UTF-8.
    """
    try:
        return _open_text(file, delimiter)
    except UnicodeDecodeError:
        raise ValueError(
            f"{file} is not UTF-8 text; save it again as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
        ) from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{file} cannot be unpacked, it is damaged ({first_words(error)})") from None
    except OSError as error:
        if error.errno is None and file.suffix.lower() in PACKED:  # as bz2 says that it is no bz2 file
            raise ValueError(f"{file} cannot be unpacked, it is damaged ({first_words(error)})") from None
        raise


def _open_text(file: Path, delimiter: str) -> Table:
    import pandas as pd

    header, delimiter, notes = _header(file, delimiter)
    names, has_names = _names(header, file.name, notes)
    form = {"sep": delimiter, "header": 0 if has_names else None, "names": list(range(len(names)))}
    same = {"index_col": False, "encoding": "utf-8-sig", "skipinitialspace": True, "low_memory": False}
    load: Callable[..., Any] = partial(pd.read_csv, file, **form, **same)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a row longer than the first
            frame = load()
            if delimiter != "," and _has_decimal_commas(frame):
                again = load(decimal=",")
                # a column that points made numbers, and commas make text, says that the file has both
                if all(again[i].dtype.kind in "biuf" for i in frame if frame[i].dtype.kind in "biuf"):
                    frame = again
                    said = f"{file.name} was read with {delimiter!r} between columns"
                    notes = [note for note in notes if note != said]
                    notes.append(f"{said} and ',' as the decimal mark")
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError):
        raise ValueError(_uneven(file, delimiter, len(names))) from None

    def place(row: int) -> str:
        return f"line {_line(file, delimiter, row + has_names)} of {file.name}"

    return Table(names, tuple(frame[i].to_numpy() for i in range(len(names))), tuple(notes), place)


def _has_decimal_commas(frame: Any) -> bool:
    """Whether a column of text is all numbers, with decimal commas that can't be marks of thousands (as in 1,234)."""
    for i in frame:
        if frame[i].dtype.kind not in "biuf":
            cells = [str(cell).strip() for cell in frame[i].dropna()]
            commas = [cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)]
            sure = any(not re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell) for cell in commas)
            if sure and all("." not in cell and _is_number(cell.replace(",", ".", 1)) for cell in cells):
                return True
    return False


def _text(file: Path) -> TextIO:
    opener = PACKED.get(file.suffix.lower(), open)
    handle: TextIO = opener(file, "rt", newline="", encoding="utf-8-sig")
    return handle


def _records(file: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Number of the first line, from 1, and cells of every record that is not blank."""
    with _text(file) as handle:
        reader, line = csv.reader(handle, delimiter=delimiter, skipinitialspace=True), 1
        for cells in reader:
            if len(cells) > 1 or any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1


def _line(file: Path, delimiter: str, record: int) -> int:
    return next(line for k, (line, _) in enumerate(_records(file, delimiter)) if k == record)


def _uneven(file: Path, delimiter: str, width: int) -> str:
    last = 1
    try:
        for line, cells in _records(file, delimiter):
            last = line
            if len(cells) > width:
                return (
                    f"{file}: line {line} has {len(cells)} cells and the first line has {width}; remove title or comment "
                    "lines above the column names, and mend lines with too many cells"
                )
    except csv.Error:
        pass
    return f"{file}: the quotation mark opened in line {last} is never closed; close or remove it"


def _header(file: Path, delimiter: str) -> tuple[list[str], str, list[str]]:
    """The cells of the first line that is not blank, and the character between cells."""
    notes: list[str] = []
    with _text(file) as handle:
        line = next((line for line in handle if line.strip()), "")
        if "\0" in line:
            raise ValueError(
                f"{file} is not a text file (or not UTF-8); save it as UTF-8 text or give it its true ending"
            )
        if not line:
            raise ValueError(f"{file} is empty")
        split = {c: next(csv.reader([line], delimiter=c)) for c in (delimiter, ",", ";", "\t", "|")}
        best = max(split, key=lambda c: len(split[c]))  # of equals the first, which the ending says
        if len(split[";"]) > 1 and all(_is_number(cell.replace(",", ".", 1)) for cell in split[";"]):
            best = ";"  # "1,5;2,3" has more commas
        if best != delimiter:
            notes.append(f"{file.name} was read with {best!r} between columns")
            delimiter = best
    try:
        cells = next(cells for _, cells in _records(file, delimiter) if any(cells))
    except (csv.Error, StopIteration):
        raise ValueError(f"{file}: the first line cannot be read as cells between {delimiter!r}") from None
    return [cell.strip() for cell in cells], delimiter, notes


def _names(cells: list[str], file_name: str, notes: list[str]) -> tuple[tuple[str, ...], bool]:
    """Column names, and whether the first line holds them (a line of numbers only is data)."""
    counted = [str(i) for i in range(len(cells))]
    is_number = [_is_number(cell.replace(",", ".", 1)) for cell in cells]
    frame_labels = cells in (counted, ["", *counted[:-1]])  # what pandas writes for columns without names
    if all(yes or not cell for yes, cell in zip(is_number, cells, strict=True)) and not frame_labels:
        notes.append(
            f"the first line of {file_name} holds numbers only, so it was read as data; the columns are called "
            f"0 to {len(cells) - 1}"
        )
        return tuple(counted), False
    cells[0] = cells[0].lstrip("# ") if cells[0].startswith("#") else cells[0]
    odd = [cell for cell, yes in zip(cells, is_number, strict=True) if yes and "." in cell]
    if odd:
        notes.append(
            f"the first line of {file_name} was read as column names although {odd[0]!r} looks like data; if the file has "
            "no names, add a line of them"
        )
    return tuple(cell or f"Unnamed: {i}" for i, cell in enumerate(cells)), True


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return any(c.isdigit() for c in cell) and "_" not in cell
