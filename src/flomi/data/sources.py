"""Files as named columns that need not fit in memory: Parquet (a file, a folder, a pattern) and .npy, read some rows at a time.

Text files and .npz are in memory. Batches have the same number of rows wherever files or row groups end, so what is computed
from them does not depend on how the data was cut into files.
"""

from __future__ import annotations

import bisect
import glob
import math
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from flomi.data.columns import list_names
from flomi.data.tables import Table, first_words
from flomi.data.text import PACKED, read_text
from flomi.support.names import nearest

_READ_ROWS, _READ_NUMBERS, _BUFFER = 16_384, 2**22, 2**20  # at a time: rows and numbers decoded, bytes read


_PARQUET = "Parquet, it is damaged or another kind of file"
_PLAIN = "it is damaged or does not hold plain numbers"


class Source(ABC):
    """Named columns of `rows` rows; `widths` are the values that a row of each column holds, 1 but for images and the like."""

    def __init__(self, files: Sequence[Path], names: Sequence[str], widths: Sequence[int]) -> None:
        self.files, self.names, self.widths = tuple(files), tuple(names), tuple(widths)
        self.rows = 0
        self.notes: tuple[str, ...] = ()

    @abstractmethod
    def parts(self, positions: Sequence[int]) -> Iterator[list[np.ndarray]]:
        """The chosen columns in order, in pieces of any length, at least one; values as the file has them."""

    def batches(self, positions: Sequence[int], size: int) -> Iterator[list[np.ndarray]]:
        """The chosen columns in pieces of `size` rows; the last may be shorter."""
        pieces: list[list[np.ndarray]] = []
        count = 0
        for part in self.parts(positions):
            at = 0
            while at < len(part[0]):
                stop = min(len(part[0]), at + size - count)
                pieces.append([column[at:stop] for column in part])
                count, at = count + stop - at, stop
                if count == size:
                    yield _joined(pieces)
                    pieces, count = [], 0
        if pieces:
            yield _joined(pieces)

    def count(self, positions: Sequence[int]) -> int:
        """How many rows the chosen columns have; 0 where they differ, which only arrays of an .npz can."""
        return self.rows

    def table(self, positions: Sequence[int]) -> Table:
        """The chosen columns in memory."""
        columns = _joined(list(self.parts(positions)))
        return Table(tuple(self.names[i] for i in positions), tuple(columns), self.notes, self.place)

    def place(self, row: int) -> str:
        """Where a row, counted from 0, stands: for messages."""
        return f"row {row}"

    def fingerprint(self) -> list[list[Any]]:
        """What changes when a file does: names, sizes and times."""
        found = [(file, file.stat()) for file in self.files]
        return [[str(file.resolve()), seen.st_size, seen.st_mtime_ns] for file, seen in found]


def _joined(pieces: list[list[np.ndarray]]) -> list[np.ndarray]:
    if len(pieces) == 1:
        return pieces[0]
    return [np.concatenate(columns) for columns in zip(*pieces, strict=True)]


class _Loaded(Source):
    """A table in memory."""

    def __init__(self, file: Path, table: Table) -> None:
        super().__init__([file], table.names, [math.prod(v.shape[1:]) for v in table.values])
        self.loaded, self.notes = table, table.notes

    def count(self, positions: Sequence[int]) -> int:
        lengths = {len(self.loaded.values[i]) for i in positions}
        return lengths.pop() if len(lengths) == 1 else 0

    def parts(self, positions: Sequence[int]) -> Iterator[list[np.ndarray]]:
        yield [self.loaded.values[i] for i in positions]

    def place(self, row: int) -> str:
        return self.loaded.place(row)


def _archive(file: Path) -> Source:
    """An .npz file, whose columns are its arrays."""
    with _parsing(file, f".npz: {_PLAIN}"), file.open("rb") as handle:
        content = np.load(handle, allow_pickle=False)
        plain = isinstance(content, np.ndarray)
        arrays = {} if plain else {name: content[name] for name in content.files}
    if plain:
        raise ValueError(f"{file} holds a .npy file; rename it to end in .npy")
    arrays = {name: array for name, array in arrays.items() if array.ndim}
    if not arrays:
        raise ValueError(f"{file} holds no array with rows")
    return _Loaded(file, Table(tuple(arrays), tuple(arrays.values())))


class _Array(Source):
    """A .npy file, mapped for as long as it takes to copy some rows, so that no more of it stays in memory.

    The columns of a 2-D array are called "0", "1", ..., those of a structured one as its fields; any other array is one column.
    """

    def __init__(self, file: Path) -> None:
        with _parsing(file, f".npy: {_PLAIN}"):
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError(f"{file} holds a .npz file; rename it to end in .npz")
        if array.ndim == 0:
            raise ValueError(f"{file} holds no array with rows")
        self.fields, self.flat = array.dtype.names or (), array.ndim == 2 and not array.dtype.names
        numbers = math.prod(array.shape[1:])
        if self.fields:
            names, widths = self.fields, [numbers * math.prod(array.dtype[f].shape) for f in self.fields]
        elif self.flat:
            names, widths = tuple(map(str, range(numbers))), [1] * numbers
        else:
            names, widths = (file.stem,), [numbers]
        super().__init__([file], names, widths)
        self.rows = len(array)
        self.step = max(1, min(_READ_ROWS, _READ_NUMBERS // max(1, numbers)))

    def parts(self, positions: Sequence[int]) -> Iterator[list[np.ndarray]]:
        for start in range(0, max(1, self.rows), self.step):
            array = np.load(self.files[0], mmap_mode="r", allow_pickle=False)
            rows = np.array(array[start : start + self.step])
            del array
            if self.fields:
                yield [rows[self.names[i]] for i in positions]
            else:
                yield [rows[:, i] for i in positions] if self.flat else [rows]


class _Parquet(Source):
    """One Parquet file or several with the same columns, read some rows at a time, in the order of their names.

    Columns are as pandas shows them: a named index first, none that has no name. Batches come from the reader of a file, since
    the scanner of `pyarrow.dataset` decodes a row group at a time, which may be all of a file.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.starts, columns = [0], []
        for file in files:
            with _parsing(file, _PARQUET):
                opened = _opened(file)
                columns.append(_names(opened))
                self.starts.append(self.starts[-1] + opened.metadata.num_rows)
        super().__init__(files, columns[0], [1] * len(columns[0]))
        self.rows = self.starts.pop()
        seen: Counter[str] = Counter()
        self.repeats = []  # of each column: how many of its name come before
        for column in self.names:
            self.repeats.append(seen[column])
            seen[column] += 1
        for file, found in zip(self.files, columns, strict=True):
            lacking = list(Counter(self.names) - Counter(found))
            if lacking:
                raise ValueError(
                    f"{file} has no column {list_names(lacking)}, which {self.files[0].name} has; all files of a folder "
                    "need the same columns"
                )

    def parts(self, positions: Sequence[int]) -> Iterator[list[np.ndarray]]:
        names = [self.names[i] for i in positions]
        if not self.rows:
            yield [np.empty(0) for _ in names]
        for file in self.files:
            with _parsing(file, _PARQUET):
                for batch in _opened(file).iter_batches(_READ_ROWS, columns=names, use_threads=False):
                    found = [batch.schema.get_all_field_indices(name) for name in names]
                    at = [found[k][self.repeats[i]] for k, i in enumerate(positions)]
                    yield [batch.column(j).to_pandas().to_numpy() for j in at]

    def place(self, row: int) -> str:
        if len(self.files) == 1:
            return f"row {row}"
        k = bisect.bisect_right(self.starts, row) - 1
        return f"row {row - self.starts[k]} of {self.files[k].name}"


def _opened(file: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)


def _names(opened: Any) -> list[str]:
    noted = (opened.schema_arrow.pandas_metadata or {}).get("index_columns", ())
    index = [column for column in noted if isinstance(column, str)]
    named = [column for column in index if not column.startswith("__index_level_")]
    return [*named, *(column for column in opened.schema_arrow.names if column not in index)]


@contextmanager
def _parsing(file: Path, what: str) -> Iterator[None]:
    """Any error of a parser, which has classes of its own, as a ValueError of one line: the file is no `what`."""
    try:
        yield
    except (PermissionError, MemoryError):
        raise
    except ImportError:
        raise ValueError(
            f"{file}: reading Parquet needs the package pyarrow; pip install 'flomi[data]', or save as CSV"
        ) from None
    except Exception as error:
        why = first_words(error)
        if "allow_pickle" in why or "Python objects" in why:
            why = "Python objects are not loaded, for safety"
        raise ValueError(f"{file} cannot be read as {what} ({why})") from None


_KINDS: dict[str, Callable[[Path], Source]] = {
    ".csv": lambda file: _Loaded(file, read_text(file, ",")),
    ".tsv": lambda file: _Loaded(file, read_text(file, "\t")),
    ".parquet": lambda file: _Parquet([file]),
    ".npy": _Array,
    ".npz": _archive,
}
_READABLE = f"{', '.join(_KINDS)}, and .csv or .tsv packed as {', '.join(PACKED)}"
_HINTS = {
    **dict.fromkeys((".xlsx", ".xls"), "save the sheet as CSV"),
    **dict.fromkeys((".zip", ".zst"), "unpack it first"),
    ".txt": "rename it to .csv or .tsv",
}


def open_source(path: str | os.PathLike[str]) -> Source:
    """The columns of a CSV or TSV (also packed), Parquet, .npy or .npz file, of a folder of Parquet files or a pattern of them.

    A folder is searched to its bottom; names that start with "_" or "." are left out, as the tools that write such folders
    mean them to be. Nothing is unpickled. Raises ValueError or FileNotFoundError with one line that says what is wrong.
    """
    try:
        if several := _several(path):
            return _Parquet(several)
        file = _checked(path)
        return _KINDS[_suffix(file)](file)
    except PermissionError:
        raise ValueError(f"{path} may not be read; check the permissions of the file") from None


def _several(path: str | os.PathLike[str]) -> list[Path]:
    """The Parquet files of a folder or of a pattern such as "part-*.parquet"; none for the path of one file."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        inside = (file.relative_to(folder) for file in folder.rglob("*.parquet"))
        return sorted(folder / file for file in inside if not any(part[0] in "_." for part in file.parts))
    text = str(folder)
    if folder.suffix == ".parquet" and glob.has_magic(text) and not folder.exists():
        return [Path(found) for found in sorted(glob.glob(text))]
    return []


def _checked(path: str | os.PathLike[str]) -> Path:
    """The path of a file that may be read, or an error that says what is wrong with it."""
    text = os.fspath(path)
    if "://" in text:
        raise ValueError(f"{text} is a web address; download the file and give its path")
    file = Path(text).expanduser()
    if file.is_dir():
        raise ValueError(f"{text} is a folder that holds no .parquet file; name one file ({_READABLE})")
    if not file.exists():
        beside = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
        stems = {name.casefold().split(".")[0]: name for name in beside}  # a shared ending is no likeness
        close = nearest(file.name.split(".")[0], stems)
        hint = "check the spelling and the folder"
        if close:
            hint = f"did you mean {file.parent / stems[close[0]]}?"
        raise FileNotFoundError(f"there is no file {text}; {hint}")
    if _suffix(file) not in _KINDS:
        hint = _HINTS.get(file.suffix.lower(), "convert it to one of them")
        raise ValueError(f"{text}: the ending {file.suffix or '(none)'} is not one of {_READABLE}; {hint}")
    if file.stat().st_size == 0:
        raise ValueError(f"{text} is empty")
    return file


def _suffix(file: Path) -> str:
    """The ending that says what kind of file it is: ".csv" for "t.csv" and "t.csv.gz"."""
    inner = Path(file.stem).suffix.lower()
    packed = file.suffix.lower() in PACKED and inner in (".csv", ".tsv")
    return inner if packed else file.suffix.lower()
