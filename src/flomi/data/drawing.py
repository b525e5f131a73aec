"""Rows drawn from files larger than memory, and what one or two passes over all rows tell.

The first pass checks all rows, draws some of them uniformly and without replacement, and sketches the quantiles of every
column; the second sums the second moments of all rows' normal scores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from flomi.data.checks import complete_rows, rounded
from flomi.data.choice import Chosen
from flomi.data.pairs import FullData, Missing, Pairs, checked, labels_of, matrix
from flomi.data.settings import SETTINGS
from flomi.data.sketch import QuantileSketch
from flomi.data.sources import Source
from flomi.data.tables import Place, Table
from flomi.preprocess import RankNormal

_BATCH_ROWS, _BATCH_NUMBERS = 65_536, 2**22  # in memory at a time


def draw(chosen: Chosen, n: int, rows: int, *, missing: Missing, seed: int, progress: bool) -> Pairs:
    """`rows` of the `n` rows at random, checked as rows in memory are, with what is known of all in `full`."""
    said = dict.fromkeys(chosen.notes)
    seeds = np.random.SeedSequence(seed).spawn(2)
    sample = _Sample(rows, np.random.default_rng(seeds[0]))
    sketch: QuantileSketch | None = None
    complete = 0
    with tqdm(total=n, desc="reading", unit=" rows", disable=not progress, leave=False) as bar:
        for span, part in _batches(chosen, missing, said):
            sample.add(span, part)
            complete += len(part.at)
            width = part.x.shape[1] + part.y.shape[1] if part.x.ndim == part.y.ndim == 2 else 0
            if part.labels is None and 0 < width <= SETTINGS.widest:
                if sketch is None:
                    sketch = QuantileSketch(width, seed=int(seeds[1].generate_state(1)[0]))
                sketch.add(part.both())
            bar.update(len(span))
    if complete < n:
        said[f"dropped {n - complete:,} of {n:,} rows with missing or infinite values"] = None
    correlation, of_all = None, ""
    if sketch is not None and complete > rows:
        with tqdm(total=n, desc="correlations", unit=" rows", disable=not progress, leave=False) as bar:
            correlation = _correlation(_batches(chosen, missing, {}), sketch.normal_scores(), bar)
        of_all = "; the correlations that a Gaussian copula rests on are those of all rows"
    drawn = sample.taken()
    full = FullData(complete, correlation) if complete > rows else None
    if full is not None:
        some = f"{rows:,} of {complete:,} rows, drawn at random, train and judge the critics"
        said[f"{some} (--rows takes more){of_all}"] = None
    sides = drawn.x, drawn.y
    try:
        made = checked(sides, drawn.names, drawn.labels, drawn.at, len(drawn.at), chosen.source, list(said))
    except ValueError as error:
        if full is None:
            raise
        raise ValueError(f"among {rows:,} rows drawn at random, {error}") from None
    return dataclasses.replace(made, full=full)


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """Some complete rows: their positions `at` [m] in the file, x, y and labels; names of the columns of x and of y."""

    at: np.ndarray
    x: np.ndarray
    y: np.ndarray
    labels: np.ndarray | None
    names: tuple[tuple[str, ...], tuple[str, ...]]

    def both(self) -> np.ndarray:
        """The columns of x and y side by side."""
        return np.concatenate([self.x, self.y], axis=1)


def _batches(chosen: Chosen, missing: Missing, said: dict[str, None]) -> Iterator[tuple[range, _Rows]]:
    """All rows in order: which ones, and the complete ones among them; doubts about numbers go to `said`."""
    first, second = chosen.first, chosen.second
    width = sum(first.widths[i] for i in chosen.x) + sum(second.widths[i] for i in chosen.y)
    size = max(1, min(_BATCH_ROWS, _BATCH_NUMBERS // max(1, width)))
    d, labels_at = len(chosen.x), chosen.groups or []
    if second is first:
        e = d + len(chosen.y)
        together = first.batches([*chosen.x, *chosen.y, *labels_at], size)
        parts = ((part[:d], part[d:e], part[e:]) for part in together)
    else:
        pieces = first.batches([*chosen.x, *labels_at], size), second.batches(chosen.y, size)
        aligned = zip(*pieces, strict=True)
        parts = ((one[:d], other, one[d:]) for one, other in aligned)
    start = 0
    for x_part, y_part, label_part in parts:
        sides: dict[str, tuple[np.ndarray, tuple[str, ...], Place]] = {}
        both = ("x", first, chosen.x, x_part), ("y", second, chosen.y, y_part)
        for role, source, positions, part in both:
            names = tuple(source.names[i] for i in positions)
            table = Table(names, tuple(part), place=_places(source, start))
            for name, value in zip(table.names, part, strict=True):
                said.update(dict.fromkeys(rounded(value, name)))
            sides[role] = (*matrix(table, role), table.place)
        x, y, labels = sides["x"][0], sides["y"][0], None
        if label_part:
            labels = labels_of(Table(tuple(first.names[i] for i in labels_at), tuple(label_part)))
        keep, counts, where = complete_rows(sides, labels, _places(first, start))
        if counts:
            if missing == "error":
                raise ValueError(
                    f"rows with missing or infinite values: the first is {where}; mend them, or leave these rows out with "
                    'missing="drop" (--missing drop)'
                )
            x, y, labels = x[keep], y[keep], None if labels is None else labels[keep]
        span = range(start, start + len(keep))
        yield span, _Rows(start + np.flatnonzero(keep), x, y, labels, (sides["x"][1], sides["y"][1]))
        start = span.stop


def _places(source: Source, start: int) -> Place:
    return lambda row: source.place(start + row)


class _Sample:
    """`size` complete rows, uniformly and without replacement: those with the smallest of independent random keys.

    Keys are drawn for rows that are not complete too, so that a row's key depends on its place only.
    """

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.rng, self.limit = size, rng, 1.0
        self.pieces: list[tuple[np.ndarray, ...]] = []  # keys, positions, x, y and labels
        self.count = 0

    def add(self, span: range, rows: _Rows) -> None:
        keys = self.rng.random(len(span))[rows.at - span.start]
        take = np.flatnonzero(keys < self.limit)
        labels = () if rows.labels is None else (rows.labels[take].astype(object),)
        self.pieces.append((keys[take], rows.at[take], rows.x[take], rows.y[take], *labels))
        self.count, self.names = self.count + len(take), rows.names
        if self.count > 1.25 * self.size:
            self._cut()

    def _cut(self) -> None:
        joined = tuple(np.concatenate(parts) for parts in zip(*self.pieces, strict=True))
        if len(joined[0]) > self.size:
            least = np.argpartition(joined[0], self.size)[: self.size]
            joined = tuple(part[least] for part in joined)
            self.limit = float(joined[0].max())
        self.pieces, self.count = [joined], len(joined[0])

    def taken(self) -> _Rows:
        self._cut()
        _, at, x, y, *labels = self.pieces[0]
        order = at.argsort()
        return _Rows(at[order], x[order], y[order], labels[0][order] if labels else None, self.names)


def _correlation(batches: Iterator[tuple[range, _Rows]], ranks: RankNormal, bar: Any) -> np.ndarray:
    """Of the normal scores of all complete rows, [d, d]."""
    d = len(ranks.knots)
    count, first, second = 0, torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64)
    for span, part in batches:
        z = ranks(torch.from_numpy(part.both()))
        count, first, second = count + len(z), first + z.sum(0), second + z.T @ z
        bar.update(len(span))
    mean = first / count
    moments = second / count - mean[:, None] * mean
    scale = moments.diagonal().clamp(min=1e-300).sqrt()
    return (moments / scale / scale[:, None]).numpy()
