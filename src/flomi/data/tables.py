"""Files and objects in memory as named columns."""

from __future__ import annotations

import bz2
import csv
import dataclasses
import difflib
import gzip
import lzma
import os
import re
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import numpy as np

__all__ = ["SUFFIXES", "Table", "as_table", "check_file", "open_table"]

SUFFIXES = (".csv", ".tsv", ".parquet", ".npy", ".npz")
_PACKED: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
}  # of .csv and .tsv
_READABLE = f"{', '.join(SUFFIXES)}, and .csv or .tsv packed as {', '.join(_PACKED)}"
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_INSTALL_DATA = "pip install 'flomi[data]'"


@dataclass(frozen=True, eq=False)
class Table:
    """Named columns of equal standing: each value has shape [n] or, from array files, [n, ...]; `notes` are doubts.

    `place` says in words where a row, counted from 0, stands: for messages.
    """

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]
    notes: tuple[str, ...] = ()
    place: Callable[[int], str] = "row {}".format

    def take(self, positions: Sequence[int]) -> Table:
        """The chosen columns, in the order given."""
        names, values = tuple(self.names[i] for i in positions), tuple(self.values[i] for i in positions)
        return dataclasses.replace(self, names=names, values=values)


# Files ---------------------------------------------------------------------------------------------------------------


def check_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file that `open_table` can try, or an error that says what is wrong with it."""
    text = os.fspath(path)
    if "://" in text:
        raise ValueError(f"{text} is a web address; download the file and give its path")
    file = Path(text).expanduser()
    if file.is_dir():
        raise ValueError(f"{text} is a folder that holds no .parquet file; name one file ({_READABLE})")
    if not file.exists():
        beside = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
        stems = {name.casefold().split(".")[0]: name for name in beside}  # a shared ending is no likeness
        close = difflib.get_close_matches(file.name.casefold().split(".")[0], list(stems), n=1, cutoff=0.6)
        hint = (
            f"did you mean {file.parent / stems[close[0]]}?" if close else "check the spelling and the folder"
        )
        raise FileNotFoundError(f"there is no file {text}; {hint}")
    if _suffix(file) not in SUFFIXES:
        known = {
            ".xlsx": "save the sheet as CSV",
            ".xls": "save the sheet as CSV",
            ".txt": "rename it to .csv or .tsv",
            ".zip": "unpack it first",
            ".zst": "unpack it first",
        }
        hint = known.get(file.suffix.lower(), "convert it to one of them")
        raise ValueError(f"{text}: the ending {file.suffix or '(none)'} is not one of {_READABLE}; {hint}")
    if file.stat().st_size == 0:
        raise ValueError(f"{text} is empty")
    return file


def _suffix(file: Path) -> str:
    """The ending that says what kind of file it is: ".csv" for "t.csv" and "t.csv.gz"."""
    inner = Path(file.stem).suffix.lower()
    packed = file.suffix.lower() in _PACKED and inner in (".csv", ".tsv")
    return inner if packed else file.suffix.lower()


def open_table(path: str | os.PathLike[str]) -> Table:
    """The columns of a CSV or TSV (also packed), Parquet, .npy or .npz file.

    A 2-D .npy has columns called "0", "1", ...; any other .npy is one column of shape [n, ...]. The columns of an .npz are
    its arrays. Nothing is unpickled. Raises ValueError or FileNotFoundError with one line that says what is wrong.
    """
    file = check_file(path)
    suffix = _suffix(file)
    try:
        if suffix in (".csv", ".tsv"):
            return _open_text(file, "\t" if suffix == ".tsv" else ",")
        if suffix == ".parquet":
            return _open_parquet(file)
        return _open_numpy(file)
    except PermissionError:
        raise ValueError(f"{path} may not be read; check the permissions of the file") from None
    except UnicodeDecodeError:
        raise ValueError(
            f"{path} is not UTF-8 text; save it again as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
        ) from None
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} cannot be unpacked, it is damaged ({_first(error)})") from None
    except OSError as error:
        if error.errno is None and file.suffix.lower() in _PACKED:  # as bz2 says that it is no bz2 file
            raise ValueError(f"{path} cannot be unpacked, it is damaged ({_first(error)})") from None
        raise


def _open_text(file: Path, delimiter: str) -> Table:
    import pandas as pd

    header, delimiter, notes = _header(file, delimiter)
    names, has_names = _names(header, file.name, notes)
    load: Callable[..., Any] = partial(
        pd.read_csv,
        file,
        sep=delimiter,
        header=0 if has_names else None,
        names=list(range(len(names))),
        index_col=False,
        encoding="utf-8-sig",
        skipinitialspace=True,
        low_memory=False,
    )
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
    opener = _PACKED.get(file.suffix.lower(), open)
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
    frame_labels = cells == counted or cells == [
        "",
        *counted[:-1],
    ]  # what pandas writes when columns have no names
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


def _open_parquet(file: Path) -> Table:
    import pandas as pd

    try:
        frame = pd.read_parquet(file)
    except ImportError:
        raise ValueError(
            f"{file}: reading Parquet needs the package pyarrow; {_INSTALL_DATA}, or save as CSV"
        ) from None
    except PermissionError:
        raise
    except Exception as error:  # the parser's own classes, known only where it is installed
        raise ValueError(
            f"{file} cannot be read as Parquet, it is damaged or another kind of file ({_first(error)})"
        ) from None
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    return Table(
        tuple(map(str, frame.columns)), tuple(frame.iloc[:, i].to_numpy() for i in range(frame.shape[1]))
    )


def _open_numpy(file: Path) -> Table:
    suffix = file.suffix.lower()
    try:
        with file.open("rb") as handle:
            content = np.load(handle, allow_pickle=False)
            archive = isinstance(content, np.lib.npyio.NpzFile)
            arrays = {name: content[name] for name in content.files} if archive else {file.stem: content}
    except PermissionError:
        raise
    except Exception as error:  # zipfile, zlib, header and pickle errors alike
        why = "Python objects are not loaded, for safety" if "allow_pickle" in str(error) else _first(error)
        raise ValueError(
            f"{file} cannot be read as {suffix}: it is damaged or does not hold plain numbers ({why})"
        ) from None
    if archive != (suffix == ".npz"):
        right = ".npy" if suffix == ".npz" else ".npz"
        raise ValueError(f"{file} holds a {right} file; rename it to end in {right}")
    if any(array.ndim == 0 for array in arrays.values()):
        arrays = {name: array for name, array in arrays.items() if array.ndim}
    if not arrays:
        raise ValueError(f"{file} holds no array with rows")
    only = next(iter(arrays.values()))
    if suffix == ".npy" and only.ndim == 2:
        return Table(tuple(map(str, range(only.shape[1]))), tuple(only.T))
    if suffix == ".npy" and only.dtype.names:
        return _structured(only)
    return Table(tuple(arrays), tuple(arrays.values()))


def _structured(array: np.ndarray) -> Table:
    names = array.dtype.names or ()
    return Table(tuple(names), tuple(array[name] for name in names))


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


# Objects in memory ---------------------------------------------------------------------------------------------------


def as_table(value: Any, role: str) -> Table:
    """The columns of an array, tensor, list, or a frame or series of pandas, polars or any library that narwhals knows.

    Raises TypeError for what is no data at all and ValueError for what has no rows; `role` ("x") names the argument.
    """
    if isinstance(value, (str, bytes, os.PathLike)):
        raise TypeError(
            f"{role} is the text {str(value)[:60]!r}, not data; to read a file use flomi.data.pairs.read(path, x=..., y=...)"
        )
    if value is None or isinstance(value, (Mapping, Set, Iterator)):
        raise TypeError(
            f"{role} is a {type(value).__name__}; give an array, a tensor, a list, or a frame or series of columns"
        )
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor(value, role)
    if hasattr(value, "toarray") and not isinstance(value, np.ndarray):
        raise TypeError(f"{role} is a sparse matrix; pass {role}.toarray()")
    if not isinstance(value, (np.ndarray, list, tuple)):
        table = _frame(value, role)
        if table is not None:
            return table
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        value = np.ma.filled(value.astype(np.float64), np.nan)
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists, and objects whose own conversion refuses
        raise ValueError(
            f"{role} cannot be made an array ({_first(error)}); every row needs the same number of values"
        ) from None
    if array.ndim == 0:
        raise ValueError(
            f"{role} is a single value ({str(value)[:40]}); it needs one value, or one row of values, per observation"
        )
    if array.dtype.names:
        return _structured(array)
    return Table((role,), (array,))


def _tensor(value: Any, role: str) -> Table:
    if value.is_complex():
        raise ValueError(f"{role} holds complex numbers; give the real and the imaginary part as two columns")
    if value.ndim == 0:
        raise ValueError(
            f"{role} is a single value; it needs one value, or one row of values, per observation"
        )
    return Table((role,), (value.detach().cpu().to_dense().double().numpy(),))


def _frame(value: Any, role: str) -> Table | None:
    import narwhals as nw

    try:
        frame = nw.from_native(value, allow_series=True)
    except TypeError:
        return None
    except Exception as error:
        raise ValueError(f"{role} cannot be read as a frame ({_first(error)})") from None
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    if isinstance(frame, nw.Series):
        return Table((str(frame.name) if frame.name is not None else role,), (frame.to_numpy(),))
    return Table(
        tuple(map(str, frame.columns)),
        tuple(np.asarray(frame.get_column(name).to_numpy()) for name in frame.columns),
    )
