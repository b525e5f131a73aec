"""The file of results: one line a cell, appended as cells finish, whole after any kill, in canonical order at the end."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from flomi.support.files import write_whole

COLUMNS = (
    "suite", "task", "dim_x", "dim_y", "n", "seed", "estimator", "estimate", "stderr", "ci_low", "ci_high", "lower_bound",
    "bound", "plug_in", "true_mi", "verdict", "seconds", "peak_mb", "version", "note",
)  # fmt: skip
HEADER = ",".join(COLUMNS) + "\n"
SKIPPED, FAILED = "skipped", "failed"  # verdicts of cells without a number; the note says why


@dataclass(frozen=True, order=True)
class Key:
    """What names a cell; the order of its fields is the order of the file."""

    suite: str
    task: str
    n: int
    seed: int
    estimator: str

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Key:
        """The key of a line."""
        return cls(row["suite"], row["task"], int(row["n"]), int(row["seed"]), row["estimator"])


class Results:
    """An open file of results: `rows` has what is in it, `add` puts a row to the disk before it returns."""

    def __init__(self, path: Path, file: BinaryIO, rows: dict[Key, dict[str, str]]) -> None:
        self.path, self.rows, self._file = path, rows, file

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row; of two with one key the later counts."""
        plain = {name: _text(row.get(name)) for name in COLUMNS}
        self.rows[Key.of(plain)] = plain
        self._file.write(_line(plain).encode())
        self._file.flush()
        os.fsync(self._file.fileno())  # a cell may have taken minutes

    def finish(self) -> None:
        """Put the file in canonical order: the same rows give the same file, in whatever order they came."""
        write_whole(self.path, HEADER + "".join(_line(self.rows[key]) for key in sorted(self.rows)))


@contextmanager
def opened(path: Path) -> Iterator[Results]:
    """The results in `path`, to be added to by this process alone; a line that a kill tore is cut off.

    Raises ValueError where the file is something else, or another run is writing to it.
    """
    with open(path, "ab+") as file:
        _lock(file, path)
        file.seek(0)
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and not HEADER.encode().startswith(data):
            raise _foreign(path)
        rows = {Key.of(row): row for row in _parse(whole.decode("utf-8", "replace"), path)}
        if len(whole) < len(data):
            file.truncate(len(whole))
        if not whole:
            file.write(HEADER.encode())
            file.flush()
        yield Results(path, file, rows)


def read(path: str | Path) -> list[dict[str, str]]:
    """The rows of a file of results, a torn last line left out. Raises ValueError if it is something else."""
    text = Path(path).read_bytes().decode("utf-8", "replace")
    return list(_parse(text[: text.rfind("\n") + 1], Path(path)))


def _parse(text: str, path: Path) -> Iterable[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if text and tuple(reader.fieldnames or ()) != COLUMNS:
        raise _foreign(path)
    return [row for row in reader if None not in row and None not in row.values()]


def _foreign(path: Path) -> ValueError:
    return ValueError(f"{path} is no file of `flomi bench run`: its first line is another; give another name")


def _line(row: Mapping[str, str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow([row[name] for name in COLUMNS])
    return buffer.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.8g}"
    return " ".join(str(value).split())  # one line, so that a line is a cell


def _lock(file: BinaryIO, path: Path) -> None:
    """Two runs that write one file would lose each other's rows. Where the system has no such lock, the user takes care."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(f"another run is writing to {path}; wait for it, or give another file") from None
