"""Data larger than memory: the same rows however the file is cut, a uniform draw, sums over all rows, and what is said of it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flomi import MIEstimator, cli, data, streaming
from flomi.data.sources import open_source

N, ROWS, RHO = 20_000, 2_000, 0.6
NATS = -0.5 * 2 * np.log(1 - RHO**2)
READ = {"x": "x*", "y": "y*", "rows": ROWS}


def frame(n: int = N, seed: int = 0) -> pd.DataFrame:
    x, e = np.random.default_rng(seed).normal(size=(2, n, 2))
    y = RHO * x + (1 - RHO**2) ** 0.5 * e
    return pd.DataFrame({"x0": x[:, 0], "x1": np.exp(x[:, 1]), "y0": y[:, 0], "y1": y[:, 1] ** 3})


def folder(path: Path, table: pd.DataFrame, cuts: list[int]) -> Path:
    path.mkdir()
    edges = [0, *cuts, len(table)]
    for k, (a, b) in enumerate(itertools.pairwise(edges)):
        (path / f"p={k // 2}").mkdir(exist_ok=True)
        table.iloc[a:b].to_parquet(
            path / f"p={k // 2}" / f"part-{k}.parquet", row_group_size=1500, index=False
        )
    (path / "_metadata").write_bytes(b"")
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream")
    table = frame()
    folder(path / "folder", table, [3333, 3334, 12_000])
    table.to_parquet(path / "one.parquet", row_group_size=7000)
    np.save(path / "x.npy", table[["x0", "x1"]].to_numpy())
    np.save(path / "y.npy", np.asfortranarray(table[["y0", "y1"]].to_numpy()))
    table.to_csv(path / "table.csv", index=False, float_format="%.17g")
    return path


def same(a: data.Pairs, b: data.Pairs) -> bool:
    assert a.full is not None and b.full is not None
    assert a.full.correlation is not None and b.full.correlation is not None
    return (
        np.array_equal(a.x, b.x)
        and np.array_equal(a.y, b.y)
        and np.array_equal(a.rows, b.rows)
        and np.array_equal(a.full.correlation, b.full.correlation)
    )


def test_the_draw_does_not_depend_on_how_the_data_is_cut(whole: Path) -> None:
    first = streaming.read(whole / "folder", **READ)
    assert first.x.shape == (ROWS, 2) and first.x_names == ("x0", "x1") and first.source == "folder"
    assert np.array_equal(first.x, frame()[["x0", "x1"]].to_numpy()[first.rows])
    assert np.array_equal(first.y, frame()[["y0", "y1"]].to_numpy()[first.rows])
    assert (np.diff(first.rows) > 0).all()
    for name in ("one.parquet", "folder/p=?/part-*.parquet", "table.csv"):
        assert same(first, streaming.read(whole / name, **READ)), name
    arrays = streaming.read(whole / "x.npy", whole / "y.npy", rows=ROWS)
    assert same(first, arrays) and arrays.x_names == ("0", "1")
    assert same(first, data.read(whole / "folder", **READ))  # one reader by two names
    assert not np.array_equal(first.rows, streaming.read(whole / "folder", **READ, seed=1).rows)


@pytest.mark.slow
def test_the_draw_is_uniform(whole: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=1000))
    np.save(tmp_path / "y.npy", np.random.default_rng(1).normal(size=1000))
    counts = np.zeros(1000)
    for seed in range(200):
        rows = streaming.read(tmp_path / "x.npy", tmp_path / "y.npy", rows=100, seed=seed).rows
        assert len(np.unique(rows)) == 100
        counts[rows] += 1
    assert abs(counts.mean() - 20) < 1e-9
    assert abs(counts.var() / (200 * 0.1 * 0.9) - 1) < 0.2  # binomial
    assert abs(np.corrcoef(counts, np.arange(1000))[0, 1]) < 0.13


def test_all_rows_make_the_correlations(whole: Path) -> None:
    found = streaming.read(whole / "folder", **READ).full
    assert found is not None and found.rows == N and found.correlation is not None
    assert found.correlation.shape == (4, 4) and np.allclose(np.diagonal(found.correlation), 1)
    assert abs(found.correlation[0, 2] - RHO) < 4 * (1 - RHO**2) / N**0.5
    assert abs(found.correlation[0, 1]) < 4 / N**0.5


def test_small_data_is_read_whole(whole: Path) -> None:
    everything = streaming.read(whole / "folder", x="x*", y="y*", rows=N)
    assert everything.full is None and len(everything.x) == N and not everything.notes
    usual = data.read(whole / "one.parquet", x="x*", y="y*")
    assert np.array_equal(everything.x, usual.x) and np.array_equal(everything.y, usual.y)
    assert np.array_equal(data.read(whole / "folder", x="x*", y="y*").x, usual.x)


def test_the_formula_counts_all_rows_and_the_result_says_so(whole: Path) -> None:
    pairs = streaming.read(whole / "folder", **READ)
    r = MIEstimator("gaussian", effort="fast", n_folds=2).fit_pairs(pairs).result_
    alone = MIEstimator("gaussian", effort="fast", n_folds=2).fit(pairs.x, pairs.y).result_
    assert abs(r.mi - NATS) < 4 * r.stderr
    assert r.stderr < 0.5 * alone.stderr  # 10 times the rows
    assert (r.bound, r.lower_bound) == (alone.bound, alone.lower_bound)
    assert r.n == ROWS and len(r.pmi) == ROWS
    assert r.config["rows"] == {"complete": N, "drawn": ROWS, "correlations": N}
    assert "20,000 rows" in r.mi_method
    assert any("2,000 of 20,000 rows, drawn at random" in sentence for sentence in r.warnings)


def test_rows_that_are_not_complete(whole: Path, tmp_path: Path) -> None:
    table = frame()
    table.loc[[7, 15_001], "x1"] = np.nan
    table.loc[19_000, "y0"] = np.inf
    path = folder(tmp_path / "gaps", table, [5000])
    with pytest.raises(ValueError, match=r"the first is row 7 of part-0\.parquet, column 'x1'"):
        streaming.read(path, **READ)
    found = streaming.read(path, **READ, missing="drop")
    assert found.full is not None and found.full.rows == N - 3
    assert not set(found.rows) & {7, 15_001, 19_000}
    assert any("dropped 3 of 20,000 rows" in note for note in found.notes)
    kept = streaming.read(whole / "folder", **READ)  # a row's luck depends on its place only
    assert len(set(kept.rows) & set(found.rows)) >= ROWS - 3


def test_groups_come_along(tmp_path: Path) -> None:
    table = frame()
    table["who"] = [f"p{i // 20}" for i in range(N)]
    table.to_parquet(tmp_path / "t.parquet")
    found = streaming.read(tmp_path / "t.parquet", **READ, groups="who")
    assert found.groups is not None and found.full is not None and found.full.correlation is None
    with pytest.raises(ValueError, match="groups needs one label a row"):
        streaming.read(tmp_path / "t.parquet", **READ, groups="x*")
    truth = found.rows // 20
    assert len(np.unique(found.groups)) == len(np.unique(truth))
    assert len(set(zip(found.groups, truth, strict=True))) == len(np.unique(truth))


def test_images_are_drawn_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(500, 4, 3))
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "labels.npy", np.arange(500) % 10)
    found = streaming.read(tmp_path / "images.npy", tmp_path / "labels.npy", rows=100)
    assert np.array_equal(found.x, images[found.rows]) and found.full is not None
    assert found.full.correlation is None and found.y_names == ("labels",)


def test_row_numbers_among_the_columns_are_noticed(tmp_path: Path) -> None:
    table = frame()
    table["x2"] = np.arange(N) + 5
    table.to_parquet(tmp_path / "t.parquet")
    notes = streaming.read(tmp_path / "t.parquet", **READ).notes
    assert any("'x2' of x counts the rows" in note for note in notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "z", "y": "y0"}, "there is no column 'z'"),
        ({"x": "x0", "y": "x0,y0"}, "the same columns are on both sides"),
        ({"x": "x0"}, "say which columns are y"),
        ({"x": "x0", "y": "y0", "rows": 0}, "rows must be a whole number"),
        ({"x": "x0", "y": "y0", "missing": "fill"}, "missing must be"),
    ],
)
def test_wrong_calls(whole: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        streaming.read(whole / "folder", **options)  # type: ignore[arg-type]


def test_wrong_files(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        streaming.read(tmp_path, x="a", y="b")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        streaming.read(tmp_path / "part-*.parquet", x="a", y="b")
    np.save(tmp_path / "short.npy", np.arange(N - 1.0))
    with pytest.raises(ValueError, match=r"x has 20,000 rows and y has 19,999"):
        streaming.read(whole / "x.npy", tmp_path / "short.npy", rows=ROWS)
    path = folder(tmp_path / "mixed", frame(100), [50])
    frame(100)[["x0", "y0"]].to_parquet(path / "p=0" / "part-9.parquet")
    with pytest.raises(ValueError, match=r"part-9.parquet has no column 'x1', 'y1'"):
        streaming.read(path, x="x*", y="y*")
    (path / "p=0" / "part-9.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        streaming.read(path, x="x*", y="y*")
    frame(200).assign(x1=0.0).to_parquet(tmp_path / "constant.parquet")
    with pytest.raises(
        ValueError, match="among 100 rows drawn at random, 1 of the 2 columns of x are constant"
    ):
        streaming.read(tmp_path / "constant.parquet", x="x*", y="y*", rows=100)


def test_named_indexes_are_columns(tmp_path: Path) -> None:
    """Named columns of an index come first, as in pandas; an index that only counts, or has no name, is no column."""
    tables = {
        "named": frame(200).set_index("x0"),
        "two": frame(200).set_index(["y1", "x0"]),
        "unnamed": frame(200).iloc[::-1],
        "counts": frame(200).rename_axis("id"),
    }
    for name, table in tables.items():
        table.to_parquet(tmp_path / "t.parquet")
        index = table.index.names if name in ("named", "two") else ()
        assert open_source(tmp_path / "t.parquet").names == (*index, *table.columns)


def test_command_line(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = [
        "estimate",
        str(whole / "folder"),
        "--x",
        "x*",
        "--y",
        "y*",
        "--critic",
        "gaussian",
        "--folds",
        "2",
    ]
    assert cli.main([*call, "--rows", "2000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["rows"]["complete"] == N and found["n"] == ROWS
    assert abs(found["mi"] - NATS) < 4 * found["stderr"]
    assert cli.main([*call, "--rows", "2000"]) == 0
    assert "2,000 of 20,000 rows" in capsys.readouterr().out
    assert cli.main([*call, "--rows", "10"]) == 2


MEASURE = """
import re, sys
from pathlib import Path
import flomi.streaming
def peak():  # of this process alone, where resource.ru_maxrss starts from its parent's
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
peaks = []
for name in sys.argv[1:]:
    files = sorted(Path(name).iterdir())
    chosen = {"x": "x*", "y": "y*"} if len(files) == 1 else {}
    flomi.streaming.read(*files, rows=2000, **chosen)
    peaks.append(peak())
print(peaks[1] - peaks[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    folders = {tmp_path / "some": 200_000, tmp_path / "many": 1_500_000}  # 96 MB
    for path, n in folders.items():
        path.mkdir()
        table = {f"{side}{j}": rng.normal(size=n) for side in "xy" for j in range(4)}
        if kind == "parquet":  # all in one row group
            pd.DataFrame(table).to_parquet(path / "t.parquet", row_group_size=n)
            continue
        for side in "xy":
            np.save(path / f"{side}.npy", np.stack([table[f"{side}{j}"] for j in range(4)], 1))
    command = [sys.executable, "-c", MEASURE, *map(str, folders)]
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}  # others keep pages that nobody needs
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    grown = int(done.stdout)
    assert grown < 60e6
