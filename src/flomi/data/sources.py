"""Tables that need not fit in memory: Parquet (one file, a folder, a pattern) and .npy, read some rows at a time.

Batches have the same number of rows wherever files or row groups end, so what is computed from them does not depend on how
the data was cut into files.
"""

from __future__ import annotations

import bisect
import glob
import itertools
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flomi.data.columns import list_names
from flomi.data.tables import Table, check_file, open_table

__all__ = ["ArrayFile", "Loaded", "ParquetFiles", "Source", "load", "open_source"]

_READ_ROWS, _BUFFER = 16_384, 2**20  # of a Parquet file at a time: rows decoded, bytes read


class Source(ABC):
    """Named columns of `rows` rows; `widths` are the values that a row of each column holds, 1 but for images and the like."""

    name: str
    names: tuple[str, ...]
    widths: tuple[int, ...]
    rows: int
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @abstractmethod
    def parts(self, positions: Sequence[int]) -> Iterator[list[np.ndarray]]:
        """The chosen columns in order, in pieces of any length; values as the file has them."""

    def batches(self, positions: Sequence[int], size: int) -> Iterator[list[np.ndarray]]:
        """The chosen columns in pieces of `size` rows; the last may be shorter."""
        held: list[list[np.ndarray]] = []
        count = 0
        for part in self.parts(positions):
            at = 0
            while at < len(part[0]):
                stop = min(len(part[0]), at + size - count)
                held.append([column[at:stop] for column in part])
                count, at = count + stop - at, stop
                if count == size:
                    yield _joined(held)
                    held, count = [], 0
        if held:
            yield _joined(held)

    def count(self, positions: Sequence[int]) -> int:
        """How many rows the chosen columns have; 0 where they differ, which only arrays of an .npz can."""
        return self.rows

    def table_of(self, positions: Sequence[int]) -> Table:
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


def _joined(held: list[list[np.ndarray]]) -> list[np.ndarray]:
    if len(held) == 1:
        return held[0]
    return [np.concatenate(pieces) for pieces in zip(*held, strict=True)]


class Loaded(Source):
    """A table in memory, such as that of a text file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.table = open_table(path)
        self.files = (Path(path).expanduser(),)
        self.name, self.names, self.notes = self.files[0].name, self.table.names, self.table.notes
        self.widths = tuple(math.prod(value.shape[1:]) for value in self.table.values)
        self.rows = self.count(range(len(self.names)))

    def count(self, positions: Sequence[int]) -> int:
        lengths = {len(self.table.values[i]) for i in positions}
        return lengths.pop() if len(lengths) == 1 else 0

    def table_of(self, positions: Sequence[int]) -> Table:
        return self.table.take(positions)

    def parts(self, positions: Sequence[int]) -> Iterator[list[np.ndarray]]:
        yield [self.table.values[i] for i in positions]

    def place(self, row: int) -> str:
        return self.table.place(row)


class ArrayFile(Source):
    """A .npy file, mapped for as long as it takes to copy some rows, so that no more of it stays in memory."""

    def __init__(self, file: Path) -> None:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.ndim == 0:
            raise ValueError(f"{file} holds no array with rows")
        self.name, self.files, self.rows = file.name, (file,), len(array)
        self.fields = array.dtype.names
        self.flat = array.ndim == 2
        if self.fields:
            self.names = tuple(self.fields)
        else:
            self.names = tuple(map(str, range(array.shape[1]))) if self.flat else (file.stem,)
        parts = [array.dtype[field] for field in self.fields or ()]
        if any(part.shape for part in parts):
            raise ValueError(f"{file} has fields of more than one value")
        self.widths = (1,) * len(self.names) if self.flat or self.fields else (math.prod(array.shape[1:]),)
        self.step = max(1, min(_READ_ROWS, 2**22 // max(1, math.prod(array.shape[1:]))))

    def parts(self, positions: Sequence[int]) -> Iterator[list[np.ndarray]]:
        for start in range(0, self.rows, self.step):
            array = np.load(self.files[0], mmap_mode="r", allow_pickle=False)
            rows = np.array(array[start : start + self.step])
            del array
            if self.fields:
                yield [rows[self.names[i]] for i in positions]
            else:
                yield [rows[:, i] for i in positions] if self.flat else [rows]


class ParquetFiles(Source):
    """One Parquet file or several with the same columns, read row group by row group, in the order of their names."""

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        self.name, self.files = name, tuple(files)
        opened = [_parquet(file) for file in self.files]
        self.names = _columns(opened[0].schema_arrow)
        self.widths = (1,) * len(self.names)
        for file, parquet in zip(self.files, opened, strict=True):
            lacking = [column for column in self.names if column not in parquet.schema_arrow.names]
            if lacking:
                raise ValueError(
                    f"{file} has no column {list_names(lacking)}, which {self.files[0].name} has; all files of a folder "
                    "need the same columns"
                )
        ends = itertools.accumulate(parquet.metadata.num_rows for parquet in opened)
        self.starts = [0, *ends]
        self.rows = self.starts.pop()

    def parts(self, positions: Sequence[int]) -> Iterator[list[np.ndarray]]:
        names = [self.names[i] for i in positions]
        if not self.rows:
            yield [np.empty(0) for _ in names]
        for file in self.files:
            for batch in _parquet(file).iter_batches(_READ_ROWS, columns=names, use_threads=False):
                yield [batch.column(batch.schema.get_field_index(n)).to_pandas().to_numpy() for n in names]

    def place(self, row: int) -> str:
        if len(self.files) == 1:
            return f"row {row}"
        k = bisect.bisect_right(self.starts, row) - 1
        return f"row {row - self.starts[k]} of {self.files[k].name}"


def _parquet(file: Path) -> Any:
    try:
        import pyarrow.parquet as pq

        return pq.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False)
    except Exception:
        open_table(file)  # which knows what to say of it
        raise


def _columns(schema: Any) -> tuple[str, ...]:
    """As pandas shows them: a named index first, none that has no name."""
    index = [
        column
        for column in (schema.pandas_metadata or {}).get("index_columns", ())
        if isinstance(column, str)
    ]
    named = [column for column in index if not column.startswith("__index_level_")]
    return (*named, *(column for column in schema.names if column not in index))


def open_source(path: str | os.PathLike[str]) -> Source:
    """The columns of anything that `tables.open_table` reads, of a folder of .parquet files, or of files of a pattern.

    A folder is searched to its bottom; names that start with "_" or "." are left out, as the tools that write such folders
    mean them to be. Raises ValueError or FileNotFoundError with one line that says what is wrong.
    """
    several = _several(path)
    if several:
        return ParquetFiles(Path(path).name, several)
    file = check_file(path)
    if file.suffix.lower() == ".parquet":
        return ParquetFiles(file.name, (file,))
    if file.suffix.lower() == ".npy":
        try:
            return ArrayFile(file)
        except Exception:
            return Loaded(file)  # which knows what to say of it
    return Loaded(file)


def load(path: str | os.PathLike[str]) -> Table:
    """All columns of `open_source` in memory."""
    if not _several(path):
        return open_table(path)
    source = open_source(path)
    return source.table_of(range(len(source.names)))


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
