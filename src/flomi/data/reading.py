"""`read`: paired rows from files."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from flomi.data.choice import choose
from flomi.data.columns import Columns
from flomi.data.drawing import draw
from flomi.data.drawn_rows import load_rows, save_rows
from flomi.data.pairs import Missing, Pairs, check_missing, paired


def read(
    path: str | os.PathLike[str],
    y_path: str | os.PathLike[str] | None = None,
    *,
    x: Columns | None = None,
    y: Columns | None = None,
    groups: str | int | None = None,
    missing: Missing = "error",
    rows: int | None = None,
    seed: int = 0,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Pairs:
    """Paired rows from one file (CSV or TSV, also .gz, .bz2, .xz; Parquet, .npy, .npz), or from two whose rows belong together.

    In place of a Parquet file, a folder of them or a pattern such as ``part-*.parquet`` will do. x, y and groups choose columns
    as `flomi.data.columns.select` describes: names, patterns ("gene_*"), positions, ranges ("0:5"). An .npz is read by the
    names of its arrays, "x" and "y" unless told otherwise. Of two files everything is taken unless told otherwise; groups is
    then a column of the first.

    Up to `rows` rows are read whole, all of them for None. Of more, `rows` are drawn at random, and `Pairs.full` says what is
    known of all: Parquet and .npy files are then never in memory as a whole. The same seed draws the same rows, however the data
    is cut into files. `checkpoint` is a folder in which drawn rows are kept and found again; they stay valid while the files'
    names, sizes and times do. `MIEstimator.fit_pairs` takes the result.

    Raises what `from_arrays` raises (where rows are drawn, at the first row that is not complete), and FileNotFoundError or
    ValueError for a file or a column that is not there.
    """
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
        raise ValueError(f"rows must be a whole number of at least 1; found {rows!r}")
    check_missing(missing)
    chosen = choose(path, y_path, x=x, y=y, groups=groups)
    n = chosen.count()
    if n is None or rows is None or n <= rows:
        x_table, y_table, labels = chosen.tables()
        return paired(x_table, y_table, labels, missing, chosen.source, chosen.notes)

    columns = {name: getattr(chosen, name) for name in ("x", "y", "groups", "source")}
    asked = [chosen.first.fingerprint(), chosen.second.fingerprint(), columns, missing, rows, seed]
    mark = hashlib.blake2b(json.dumps(asked).encode(), digest_size=16).hexdigest()
    known = None if checkpoint is None else load_rows(Path(checkpoint), mark)
    if known is not None:
        return known
    found = draw(chosen, n, rows, missing=missing, seed=seed, progress=progress)
    if checkpoint is not None:
        save_rows(Path(checkpoint), mark, found)
    return found
