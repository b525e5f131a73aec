"""Data larger than memory: every row counts where a pass over the file is enough, a random part of them where it isn't.

Up to `rows` rows are read whole, and nothing is different from data in memory. Of more, one pass checks all rows, draws
`rows` of them uniformly and without replacement, and sketches the quantiles of every column; a second pass sums the second
moments of all rows' normal scores. The critics are trained, chosen and judged on the drawn rows, with the cross-fitting of
`flomi.crossfit.run`; the Gaussian copula's formula, for `mi`, is that of all rows. So memory does not grow with the data; every
held-out number is what an independent sample of `rows` rows gives, with their standard error, and a note says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from flomi.crossfit.checkpoint import load_pairs, save_pairs
from flomi.data import checks
from flomi.data.columns import Columns
from flomi.data.pairs import Chosen, Missing, Pairs, Whole, choose, matrix, pairs
from flomi.data.sketch import QuantileSketch
from flomi.data.sources import Source, open_source
from flomi.data.tables import Table
from flomi.preprocess import RankNormal

__all__ = ["ROWS", "read"]

ROWS = 200_000  # networks see fewer than these in all of their steps at "standard", and they fix 1 nat to about 0.005
BATCH_ROWS, BATCH_NUMBERS = 65_536, 2**22
WIDEST = 256  # columns of x and y together, up to which the correlations of all rows are taken


@dataclasses.dataclass(frozen=True, eq=False)
class _Batch:
    """Some rows, from row `start` of the file on: x, y and labels as arrays, and which rows are complete."""

    start: int
    x: np.ndarray
    y: np.ndarray
    labels: np.ndarray | None
    keep: np.ndarray


def read(
    path: str | os.PathLike[str],
    y_path: str | os.PathLike[str] | None = None,
    *,
    x: Columns | None = None,
    y: Columns | None = None,
    groups: str | int | None = None,
    missing: Missing = "error",
    rows: int = ROWS,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Pairs:
    """Paired rows as `flomi.data.read` gives them, but of more than `rows` rows a random part, with what is known of all.

    Parquet (a file, a folder, or a pattern such as ``part-*.parquet``) and .npy files are never in memory as a whole; other
    files are. `MIEstimator.fit_pairs` takes the result. The same seed draws the same rows, however the data is cut into
    files. `checkpoint` is a folder in which the drawn rows are kept and found again; they stay valid while
    the files' names, sizes and times do.

    Raises what `flomi.data.read` raises; with missing="error" at the first row that is not complete.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ValueError(f"rows must be a whole number of at least 1; found {rows!r}")
    if missing not in ("error", "drop"):
        raise ValueError(f"missing must be 'error' or 'drop', not {missing!r}")
    first = open_source(path)
    second = None if y_path is None else open_source(y_path)
    at = choose(first, second, path, y_path, x=x, y=y, groups=groups)
    other = first if second is None else second
    notes = first.notes if second is None else (*first.notes, *second.notes)
    n = first.count([*at.x, *(at.groups or []), *(at.y if second is None else [])])
    if n != other.count(at.y) or n <= rows:
        x_table, y_table = first.table_of(at.x), other.table_of(at.y)
        labels = None if at.groups is None else first.table_of(at.groups)
        return pairs(x_table, y_table, labels, missing, at.source, notes)

    asked = [first.fingerprint(), other.fingerprint(), dataclasses.asdict(at), missing, rows, seed]
    mark = hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()
    known = None if checkpoint is None else load_pairs(Path(checkpoint), mark)
    if known is not None:
        return known
    found = _draw(first, other, at, n, missing, rows, seed, notes, progress)
    if checkpoint is not None:
        save_pairs(Path(checkpoint), mark, found)
    return found


def _draw(
    first: Source,
    second: Source,
    at: Chosen,
    n: int,
    missing: Missing,
    rows: int,
    seed: int,
    notes: tuple[str, ...],
    progress: bool,
) -> Pairs:
    said: dict[str, None] = dict.fromkeys(notes)
    seeds = np.random.SeedSequence(seed).spawn(2)
    sample = _Sample(rows, np.random.default_rng(seeds[0]))
    sketch: QuantileSketch | None = None
    complete = 0
    with tqdm(total=n, desc="reading", unit=" rows", disable=not progress, leave=False) as bar:
        for batch in _batches(first, second, at, missing, said):
            sample.add(batch)
            complete += int(batch.keep.sum())
            width = batch.x.shape[1] + batch.y.shape[1] if batch.x.ndim == batch.y.ndim == 2 else 0
            if batch.labels is None and 0 < width <= WIDEST:
                sketch = (
                    QuantileSketch(width, seed=int(seeds[1].generate_state(1)[0]))
                    if sketch is None
                    else sketch
                )
                sketch.add(np.concatenate([batch.x, batch.y], axis=1)[batch.keep])
            bar.update(len(batch.x))
    if complete < n:
        said[f"dropped {n - complete:,} of {n:,} rows with missing or infinite values"] = None
    correlation = None
    if sketch is not None and complete > rows:
        with tqdm(total=n, desc="correlations", unit=" rows", disable=not progress, leave=False) as bar:
            correlation = _correlation(_batches(first, second, at, missing, {}), sketch.normal_scores(), bar)
    found = sample.taken()
    if complete > rows:
        statistics = (
            ""
            if correlation is None
            else "; the correlations that a Gaussian copula rests on are those of all rows"
        )
        said[
            f"{len(found.rows):,} of {complete:,} rows, drawn at random, train and judge the critics (--rows takes "
            f"more){statistics}"
        ] = None
    return _checked(found, first, second, at, tuple(said), Whole(complete, correlation))


def _batches(
    first: Source, second: Source, at: Chosen, missing: Missing, said: dict[str, None]
) -> Iterator[_Batch]:
    """All rows, in order; doubts about numbers go to `said`. The rows of a batch don't depend on how files are cut."""
    width = sum(first.widths[i] for i in at.x) + sum(second.widths[i] for i in at.y)
    size = max(1, min(BATCH_ROWS, BATCH_NUMBERS // max(1, width)))
    labels_at = at.groups or []
    if second is first:
        together = [*at.x, *at.y, *labels_at]
        parts: Iterator[tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]] = (
            (part[: len(at.x)], part[len(at.x) : len(at.x) + len(at.y)], part[len(at.x) + len(at.y) :])
            for part in first.batches(together, size)
        )
    else:
        parts = (
            (one[: len(at.x)], other, one[len(at.x) :])
            for one, other in zip(
                first.batches([*at.x, *labels_at], size), second.batches(at.y, size), strict=True
            )
        )
    start = 0
    for x_part, y_part, label_part in parts:
        sides: dict[str, tuple[np.ndarray, tuple[str, ...], checks.Place]] = {}
        for role, source, positions, part in (("x", first, at.x, x_part), ("y", second, at.y, y_part)):
            names = tuple(source.names[i] for i in positions)
            for name, value in zip(names, part, strict=True):
                said.update(dict.fromkeys(checks.rounded(value, name)))
            place = partial(_place, source, start)
            sides[role] = (*matrix(Table(names, tuple(part), place=place), role), place)
        labels = label_part[0] if label_part else None
        keep, counts, where = checks.complete_rows(sides, labels, partial(_place, first, start))
        if counts and missing == "error":
            raise ValueError(
                f"rows with missing or infinite values: the first is {where}; mend them, or leave these rows out with "
                'missing="drop" (--missing drop)'
            )
        yield _Batch(start, sides["x"][0], sides["y"][0], labels, keep)
        start += len(keep)


def _place(source: Source, start: int, row: int) -> str:
    return source.place(start + row)


@dataclasses.dataclass(frozen=True, eq=False)
class _Taken:
    """Rows of the sample, in the order of the file."""

    rows: np.ndarray
    x: np.ndarray
    y: np.ndarray
    labels: np.ndarray | None


class _Sample:
    """`size` complete rows, uniformly and without replacement: those with the smallest of independent random keys.

    Keys are drawn for rows that are not complete too, so that a row's key depends on its place only.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng, self.limit = size, rng, 1.0
        self.held: list[tuple[np.ndarray, ...]] = []  # keys, rows, x, y and labels
        self.count = 0

    def add(self, batch: _Batch) -> None:
        keys = self.rng.random(len(batch.keep))
        take = np.flatnonzero(batch.keep & (keys < self.limit))
        labels = () if batch.labels is None else (batch.labels[take].astype(object),)
        self.held.append((keys[take], batch.start + take, batch.x[take], batch.y[take], *labels))
        self.count += len(take)
        if self.count > 1.25 * self.size:
            self._cut()

    def _cut(self) -> None:
        joined = tuple(np.concatenate(parts) for parts in zip(*self.held, strict=True))
        if len(joined[0]) > self.size:
            least = np.argpartition(joined[0], self.size)[: self.size]
            joined = tuple(part[least] for part in joined)
            self.limit = float(joined[0].max())
        self.held, self.count = [joined], len(joined[0])

    def taken(self) -> _Taken:
        self._cut()
        _, rows, x, y, *labels = self.held[0]
        order = rows.argsort()
        return _Taken(rows[order], x[order], y[order], labels[0][order] if labels else None)


def _correlation(batches: Iterator[_Batch], ranks: RankNormal, bar: Any) -> np.ndarray:
    """Of the normal scores of all complete rows, [d, d]."""
    d = len(ranks.knots)
    count, first, second = 0, torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for batch in batches:
        z = ranks(torch.from_numpy(np.concatenate([batch.x, batch.y], axis=1)[batch.keep]))
        count, first, second = count + len(z), first + z.sum(0), second + z.T @ z
        bar.update(len(batch.keep))
    mean = first / count
    moments = second / count - mean[:, None] * mean
    scale = moments.diagonal().clamp(min=1e-300).sqrt()
    return (moments / scale / scale[:, None]).numpy()


def _checked(
    found: _Taken, first: Source, second: Source, at: Chosen, notes: tuple[str, ...], whole: Whole
) -> Pairs:
    """The drawn rows as `Pairs`, through the same checks as rows in memory."""

    def table(side: np.ndarray, source: Source, positions: list[int]) -> Table:
        names = tuple(source.names[i] for i in positions)
        widths = [source.widths[i] for i in positions]
        values = [side] if side.ndim > 2 else np.split(side, np.cumsum(widths)[:-1], axis=1)
        flat = (v[:, 0] if v.ndim == 2 and width == 1 else v for v, width in zip(values, widths, strict=True))
        return Table(names, tuple(flat), place=lambda k: source.place(int(found.rows[k])))

    labels = None if found.labels is None else Table(("groups",), (found.labels,))
    partial_data = len(found.rows) < whole.rows
    try:
        made = pairs(
            table(found.x, first, at.x), table(found.y, second, at.y), labels, "error", at.source, notes
        )
    except ValueError as error:
        if not partial_data:
            raise
        raise ValueError(f"among {len(found.rows):,} rows drawn at random, {error}") from None
    counting = [
        f"column {name!r} of {role} counts the rows; leave it out if it is only a row number"
        for role, side, names in (("x", made.x, made.x_names), ("y", made.y, made.y_names))
        if side.ndim == 2
        for name, column in zip(names, side.T, strict=True)
        if np.ptp(column - found.rows) == 0
    ]
    return dataclasses.replace(
        made,
        rows=found.rows,
        notes=tuple(dict.fromkeys((*made.notes, *counting))),
        whole=whole if partial_data else None,
    )
