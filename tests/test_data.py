"""Reading data: what comes in comes out, and what cannot be used gives one line that says what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from flomi.data import MIN_ROWS, Pairs, from_arrays, new_rows, read
from flomi.data.columns import select

N = 60
X = np.random.default_rng(0).normal(size=(N, 3))
Y = np.random.default_rng(1).normal(size=(N, 2))
FRAME = pd.DataFrame(np.hstack([X, Y]), columns=["a", "b1", "b2", "c", "target, log"])


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    FRAME.to_csv(path, index=False)
    return path


def write(tmp_path: Path, text: str | bytes, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def fails(message: str, call: Any, *args: Any, error: type[Exception] = ValueError, **options: Any) -> None:
    """One line, with what is expected in it."""
    with pytest.raises(error) as caught:
        call(*args, **options)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, str(caught.value)


# Arrays --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "convert",
    [
        np.asarray,
        np.asfortranarray,
        lambda a: a.tolist(),
        lambda a: tuple(map(tuple, a)),
        torch.tensor,
        lambda a: torch.tensor(a, requires_grad=True),
        pd.DataFrame,
        pl.DataFrame,
        lambda a: pl.DataFrame(a).lazy(),
        lambda a: np.ma.masked_array(a),
        lambda a: a.astype(object),
    ],
)
def test_every_kind_of_array_gives_the_same_numbers(convert: Any) -> None:
    pairs = from_arrays(convert(X), convert(Y))
    np.testing.assert_array_equal(pairs.x, X)
    np.testing.assert_array_equal(pairs.y, Y)
    assert pairs.x.dtype == pairs.y.dtype == np.float64
    assert pairs.notes == () and pairs.source == "arrays" and pairs.groups is None
    np.testing.assert_array_equal(pairs.rows, np.arange(N))


def test_one_dimension_becomes_one_column_and_more_are_kept() -> None:
    images = np.random.default_rng(2).normal(size=(N, 4, 5))
    pairs = from_arrays(X[:, 0], torch.tensor(images))
    assert pairs.x.shape == (N, 1) and pairs.x_names == ("x",)
    np.testing.assert_array_equal(pairs.y, images)
    assert pairs.y_names == ("y",)


def test_names_come_from_frames_and_series() -> None:
    pairs = from_arrays(FRAME[["a", "b1"]], pl.Series("z", Y[:, 0]))
    assert (pairs.x_names, pairs.y_names) == (("a", "b1"), ("z",))
    assert from_arrays(X, pd.Series(Y[:, 0])).y_names == ("y",)


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.float16, np.float32])
def test_booleans_integers_and_short_floats(dtype: Any) -> None:
    y = np.arange(N) % 2
    np.testing.assert_array_equal(from_arrays(X, y.astype(dtype)).y[:, 0], y)
    if dtype is not np.uint64:
        np.testing.assert_array_equal(from_arrays(X, torch.tensor(y.astype(dtype))).y[:, 0], y)


def test_bfloat16_tensor() -> None:
    tensor = torch.tensor(X, dtype=torch.bfloat16)
    np.testing.assert_array_equal(from_arrays(tensor, Y).x, tensor.double().numpy())


def test_arrays_that_torch_cannot_share_are_copied() -> None:
    fixed = X.copy()
    fixed.flags.writeable = False
    for array in (fixed, X[::-1], np.asfortranarray(X), FRAME[["a"]], FRAME["a"]):
        torch.from_numpy(from_arrays(array, Y).x)  # a warning, an error here, if it may not be written


def test_input_is_not_changed() -> None:
    x = X.copy()
    x[3, 1] = np.nan
    before = x.copy()
    from_arrays(x, Y, missing="drop")
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("x", "message", "error"),
    [
        (None, "x is a NoneType; give an array", TypeError),
        ("data.csv", "not data; to read a file use flomi.data.read", TypeError),
        (Path("data.csv"), "flomi.data.read", TypeError),
        ({"a": [1, 2]}, "x is a dict", TypeError),
        ({1, 2}, "x is a set", TypeError),
        (iter([1.0, 2.0]), "x is a list_iterator", TypeError),
        ((value for value in [1.0]), "x is a generator", TypeError),
        (3.0, "single value", ValueError),
        (torch.nn.Linear(1, 1), "single value", ValueError),
        (np.array(3.0), "single value", ValueError),
        (torch.tensor(3.0), "single value", ValueError),
        ([[1.0, 2.0], [3.0]], "every row needs the same number of values", ValueError),
        (X + 1j, "column 'x' holds complex numbers; give the real", ValueError),
        (torch.tensor(X) + 1j, "complex numbers", ValueError),
        (
            np.array(["red", "blue"] * 30),
            "column 'x' holds text, such as 'red' in row 0.*encode it",
            ValueError,
        ),
        (np.array(["1.5", "2.5"] * 30), "holds text, such as '1.5' in row 0.*astype", ValueError),
        (np.array(["2020-01-01"] * N, dtype="M8[D]"), "dates or times; turn them into numbers", ValueError),
        (np.array([{}] * N), "holds a dict in row 0, where a number is needed", ValueError),
        (
            pd.Series(["u", "v"] * 30, name="site", dtype="category"),
            "column 'site' holds text, such as 'u'",
            ValueError,
        ),
        (
            pd.Series(pd.date_range("2020", periods=N, tz="UTC"), name="day"),
            "'day' holds dates or times",
            ValueError,
        ),
        (pl.DataFrame({"k": [[1, 2]] * N}), "'k' holds a (list|ndarray|Series) in row 0", ValueError),
        (pd.DataFrame(X, columns=["a", "a", "b"]), "unique", ValueError),
        (np.empty((N, 0)), "rows without a value", ValueError),
        (np.empty((0, 3)), "x has 0 rows and y has 60", ValueError),
        ([], "x has 0 rows", ValueError),
        (pd.DataFrame(index=range(N)), "x has no columns", ValueError),
        (X[:59], "x has 59 rows and y has 60; each row of x needs its row of y", ValueError),
        (X.T, "x has 3 rows and y has 60; one seems to lie on its side", ValueError),
        (np.where(X > 2, np.nan, X), r"rows with missing or infinite values: \d+ missing in x", ValueError),
        (np.full(N, 7.0), "x is constant", ValueError),
        (np.full(N, 0.1) + np.where(np.arange(N) % 2, 0, 1e-17), "x is constant", ValueError),
        (np.zeros((N, 2, 2)), "x is constant", ValueError),
        (
            X * [1, 0, 1],
            r"1 of the 3 columns of x are constant.*'x\[1\]'.*x\[:, x.std\(0\) > 0\]",
            ValueError,
        ),
        (Y, "x and y hold the same values", ValueError),
        (
            np.hstack([X, Y[:, :1]]),
            r"column 'x\[3\]' of x and column 'y\[0\]' of y hold the same",
            ValueError,
        ),
    ],
)
def test_what_cannot_be_used(x: Any, message: str, error: type[Exception]) -> None:
    fails(message, from_arrays, x, Y, error=error)


def test_sparse_matrices_are_refused() -> None:
    from scipy.sparse import csr_array

    fails(r"x is a sparse matrix; pass x.toarray\(\)", from_arrays, csr_array(X), Y, error=TypeError)
    np.testing.assert_array_equal(from_arrays(torch.tensor(X).to_sparse(), Y).x, X)


def test_too_few_rows() -> None:
    fails(f"there are {MIN_ROWS - 1} rows; at least {MIN_ROWS} are needed", from_arrays, X[:49], Y[:49])
    assert len(from_arrays(X[:MIN_ROWS], Y[:MIN_ROWS]).x) == MIN_ROWS


def test_constant_places_in_images_are_noted_and_kept() -> None:
    images = np.random.default_rng(2).normal(size=(N, 4, 5))
    images[:, 0] = 0
    pairs = from_arrays(images, Y)
    assert pairs.x.shape == (N, 4, 5)
    assert pairs.notes == ("5 of the 20 values in a row of x never change, and carry no information",)


def test_huge_and_tiny_values_are_not_constant() -> None:
    assert from_arrays(X * 1e307, Y * 1e-300).notes == ()


def test_new_rows_may_be_few_and_constant() -> None:
    x, y = new_rows(torch.ones(3, 2), [1, 2, 3])
    assert x.shape == (3, 2) and y.shape == (3, 1) and x.dtype == y.dtype == np.float64
    fails("x has 2 rows and y has 3", new_rows, [1, 2], [1, 2, 3])
    fails(r"1 of 2 rows with missing.*row 1, column 'y'", new_rows, [1, 2], [1, np.nan])
    fails("x and y have no rows", new_rows, [], [])
    fails("holds text", new_rows, ["a"], [1])


# Missing values ------------------------------------------------------------------------------------------------------


def holes() -> tuple[np.ndarray, np.ndarray]:
    x, y = X.copy(), Y.copy()
    x[[5, 7], 1] = np.nan
    x[7, 2] = np.inf
    y[9, 0] = -np.inf
    return x, y


def test_missing_values_are_an_error_that_counts_and_locates() -> None:
    fails(
        r"3 of 60 rows with missing or infinite values: 2 missing and 1 infinite in x \('x\[1\]', 'x\[2\]'\), "
        r"1 infinite in y \('y\[0\]'\); the first is row 5, column 'x\[1\]'.*--missing drop",
        from_arrays,
        *holes(),
    )


def test_missing_values_are_dropped_when_asked_and_said() -> None:
    x, y = holes()
    pairs = from_arrays(x, y, missing="drop")
    keep = np.setdiff1d(np.arange(N), [5, 7, 9])
    np.testing.assert_array_equal(pairs.x, X[keep])
    np.testing.assert_array_equal(pairs.y, Y[keep])
    np.testing.assert_array_equal(pairs.rows, keep)
    assert len(pairs.notes) == 1 and pairs.notes[0].startswith("dropped 3 of 60 rows")


def test_dropping_says_when_nothing_is_left() -> None:
    x = X.copy()
    x[:20] = np.nan
    fails("there are 40 rows of 60 after dropping; at least 50", from_arrays, x, Y, missing="drop")


def test_missing_has_two_values() -> None:
    fails("missing must be 'error' or 'drop', not 'mean'", from_arrays, X, Y, missing="mean")


@pytest.mark.parametrize(
    "y",
    [
        pd.Series([None, *range(N - 1)], dtype="Int64", name="v"),
        pd.Series([None, *([True, False] * 30)][:N], dtype="boolean", name="v"),
        pd.Series([None, *([True, False] * 30)][:N], dtype=object, name="v"),
        pl.Series("v", [None, *range(N - 1)]),
        np.ma.masked_array(np.arange(float(N)), mask=np.arange(N) == 0),
        np.ma.masked_array(np.arange(N), mask=np.arange(N) == 0),
    ],
)
def test_every_kind_of_missing_value_is_found(y: Any) -> None:
    fails("1 of 60 rows with missing.*row 0", from_arrays, X, y)
    assert len(from_arrays(X, y, missing="drop").y) == N - 1


# Pairing and groups --------------------------------------------------------------------------------------------------


def test_pandas_rows_in_another_order_are_refused() -> None:
    shuffled = FRAME.sample(frac=1, random_state=0)
    fails("same index labels in another order", from_arrays, FRAME[["a"]], shuffled["c"])
    apart = from_arrays(FRAME[["a"]], shuffled["c"].set_axis(range(100, 100 + N)))
    assert "rows were paired by position" in apart.notes[0]
    assert from_arrays(FRAME[["a"]], FRAME["c"]).notes == ()
    groups = pd.Series(np.arange(N) // 2)
    mixed = groups.sample(frac=1, random_state=0)
    fails(
        r"x and groups have the same index labels.*groups.loc\[x.index\]",
        from_arrays,
        FRAME[["a"]],
        Y,
        groups=mixed,
    )
    fails("y and groups have the same index labels", from_arrays, X, FRAME["c"], groups=mixed)
    assert from_arrays(FRAME[["a"]], FRAME["c"], groups=groups).notes == ()
    elsewhere = from_arrays(FRAME[["a"]], FRAME["c"], groups=groups.set_axis(range(100, 100 + N)))
    assert elsewhere.notes == ("the index labels of x and groups differ; rows were paired by position",)


def test_groups_become_numbers_and_follow_their_rows() -> None:
    x, y = holes()
    groups = np.array(["Anna", "Bo", "Cy"])[np.arange(N) % 3]
    pairs = from_arrays(x, y, groups=groups, missing="drop")
    np.testing.assert_array_equal(pairs.groups, pairs.rows % 3)
    assert from_arrays(X, Y, groups=pd.Series(np.arange(N) // 2)).groups.tolist()[:4] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a"] * N, r"all rows are in one group \('a'\)"),
        (["a", "b"], "x has 60 rows and groups has 2 labels"),
        (np.zeros((N, 2)), "groups needs one label a row"),
        (pd.Series(["a", None] * 30), "30 missing in groups; the first is row 1, in groups"),
    ],
)
def test_bad_groups(groups: Any, message: str) -> None:
    fails(message, from_arrays, X, Y, groups=groups)


def test_groups_of_one_row_are_noted() -> None:
    assert "every row is a group of its own" in from_arrays(X, Y, groups=range(N)).notes[0]


# Doubts --------------------------------------------------------------------------------------------------------------


def doubtful(x: Any, y: Any = Y) -> str:
    return "; ".join(from_arrays(x, y).notes)


def test_doubts_are_noted() -> None:
    assert "columns 'x[0]' and 'x[3]' of x hold the same values" in doubtful(np.hstack([X, X[:, :1]]))
    assert "column 'x' of x counts the rows" in doubtful(np.arange(1, N + 1))
    gaps = np.where(np.arange(N) % 50 == 3, np.nan, np.arange(1.0, N + 1))  # rows that are dropped count too
    assert "column 'x' of x counts the rows" in "; ".join(from_arrays(gaps, Y, missing="drop").notes)
    assert "holds -999 in 4 rows" in doubtful(np.where(np.arange(N) % 15 == 0, -999, X[:, 0]))


def test_ordinary_data_gives_no_doubts() -> None:
    few_values = np.random.default_rng(0).integers(0, 3, size=(N, 2))
    assert doubtful(few_values, 1 - few_values[:, :1]) == ""
    assert doubtful(-100 * abs(X)) == ""


# Kinds ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (np.random.default_rng(0).normal(size=400), "continuous"),
        (np.arange(400), "continuous"),  # every value once
        (np.arange(400) % 201, "continuous"),  # just more than half as many values as rows
        (np.arange(400) % 200, "discrete"),
        (
            np.where(np.arange(400) < 20, 0.5, np.arange(400)),
            "continuous",
        ),  # 5 % at one value are no atom yet
        (np.where(np.arange(400) < 21, 0.5, np.arange(400)), "atoms"),
        (np.where(np.arange(400) < 300, 0.5, np.arange(400)), "atoms"),  # most rows at one value
        (np.where(np.arange(400) < 380, 0.5, np.arange(400)), "discrete"),  # and nearly all
        (np.where(np.arange(400) < 100, 0, np.arange(400) % 50), "discrete"),
        (np.random.default_rng(0).poisson(30, size=400), "discrete"),
        (np.arange(400) % 2, "discrete"),
    ],
)
def test_kinds_of_columns(column: np.ndarray, kind: str) -> None:
    other = np.random.default_rng(1).normal(size=(400, 2))
    pairs = from_arrays(np.column_stack([other[:, :1], column]), other[:, 1:])
    assert pairs.kinds_x == ("continuous", kind) and pairs.kinds_y == ("continuous",)


def test_more_dimensions_have_one_kind() -> None:
    images = np.random.default_rng(2).normal(size=(N, 4, 5))
    assert from_arrays(images, Y).kinds_x == ("continuous",)
    assert from_arrays(images.round(), Y).kinds_x == ("discrete",)
    images[:, 0] = 0
    assert from_arrays(images, Y).kinds_x == ("atoms",)  # some of each


# Columns -------------------------------------------------------------------------------------------------------------

NAMES = ["a", "b1", "b2", "c", "target, log", "0", "d*", "!e", "b:c"]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("a", [0]),
        ("a,c", [0, 3]),
        (" c , a ", [3, 0]),
        ("c,a,c", [3, 0]),
        ("b*", [1, 2, 8]),
        ("b?", [1, 2]),
        ("b[2-9]", [2]),
        ("1", [1]),
        ("-1", [8]),
        ("0", [5]),  # an exact name wins over a position
        ("d*", [6]),  # ... and over a pattern
        ("b:c", [8]),  # ... and over a range
        ("!e", [7]),
        ("target, log", [4]),
        ("0:3", [0, 1, 2]),
        (":2", [0, 1]),
        ("-2:", [7, 8]),
        ("b1:c", [1, 2, 3]),
        ("b*,!b2", [1, 8]),
        ("!b*,!0", [0, 3, 4, 6, 7]),
        ("*,!target, log", None),
        (2, [2]),
        (-1, [8]),
        (["a", 1, "b*"], [0, 1, 2, 8]),
        (["target, log"], [4]),
        (("b1", np.int64(3)), [1, 3]),
    ],
)
def test_select(columns: Any, expected: list[int] | None) -> None:
    if expected is None:
        fails("there is no column 'target'; did you mean 'target, log'", select, NAMES, columns)
    else:
        assert select(NAMES, columns) == expected


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("B1", "there is no column 'B1'; did you mean 'b1'"),
        (["tagret, log"], "did you mean 'target, log'"),
        ("zebra", "there is no column 'zebra'; there are 'a', 'b1'"),
        ("gene_*", "no column fits the pattern 'gene_\\*'; there are 'a'"),
        ("9", "there is no column 9; positions go from 0 to 8"),
        ("-10", "there is no column -10"),
        ("7:7", "the range '7:7' is empty"),
        ("c:a", "'a' stands before 'c'; write a:c"),
        ("a:zebra", "there is no column 'zebra'"),
        ("0:5:2", "needs two column names or two positions"),
        ("", "chooses no column"),
        (",", "chooses no column"),
        ("a,!a", "chooses no column"),
        ([], "chooses no column"),
        ("!zebra", "there is no column 'zebra'"),
    ],
)
def test_select_says_what_is_wrong(columns: Any, message: str) -> None:
    fails(message, select, NAMES, columns)


def test_select_wants_names_or_positions() -> None:
    fails("not by 1.5", select, NAMES, [1.5], error=TypeError)
    fails("not by True", select, NAMES, True, error=TypeError)
    fails("2 columns are called 'a'; choose by position instead: 0 or 2", select, ["a", "b", "a"], "a")


# Files ---------------------------------------------------------------------------------------------------------------


def check(pairs: Pairs, notes: tuple[str, ...] = ()) -> None:
    np.testing.assert_allclose(pairs.x, X, rtol=1e-12)
    np.testing.assert_allclose(pairs.y, Y, rtol=1e-12)
    assert pairs.notes == notes


def test_csv(csv: Path) -> None:
    pairs = read(csv, x="a,b*", y="-2:")
    check(pairs)
    assert pairs.x_names == ("a", "b1", "b2") and pairs.y_names == ("c", "target, log")
    assert pairs.source == "table.csv"
    check(read(str(csv), x=[0, 1, 2], y=["c", "target, log"]))


@pytest.mark.parametrize(
    ("name", "options", "note"),
    [
        ("t.tsv", {"sep": "\t"}, None),
        ("t.csv", {"sep": ";"}, "t.csv was read with ';' between columns"),
        ("t.csv", {"sep": "\t"}, r"t.csv was read with '\t' between columns"),
        ("T.CSV", {"encoding": "utf-8-sig"}, None),
        ("t.csv", {"lineterminator": "\r\n"}, None),
        ("t.csv", {"quoting": 1}, None),
    ],
)
def test_dialects_of_text(tmp_path: Path, name: str, options: dict[str, Any], note: str | None) -> None:
    FRAME.to_csv(tmp_path / name, index=False, **options)
    check(read(tmp_path / name, x="a:b2", y=[3, 4]), (note,) if note else ())


@pytest.mark.parametrize("suffix", [".csv.gz", ".tsv.bz2", ".csv.xz"])
def test_packed_text(tmp_path: Path, suffix: str) -> None:
    FRAME.to_csv(tmp_path / f"t{suffix}", index=False, sep="\t" if ".tsv" in suffix else ",")
    check(read(tmp_path / f"t{suffix}", x="0:3", y="3:"))


@pytest.mark.parametrize("header", [True, False])
def test_decimal_commas(tmp_path: Path, header: bool) -> None:
    FRAME.assign(k=range(N)).to_csv(tmp_path / "t.csv", index=False, sep=";", decimal=",", header=header)
    pairs = read(tmp_path / "t.csv", x="0:3", y="3,4")
    check(pairs, pairs.notes)
    assert "t.csv was read with ';' between columns and ',' as the decimal mark" in pairs.notes
    assert len(pairs.notes) == (1 if header else 2)


def test_decimal_commas_that_may_be_something_else_are_refused(tmp_path: Path) -> None:
    for cells in (["1,234", "5,678"], ["1.234,5"], ["1,5", "2.5"]):  # thousands, both marks, either
        lines = [f"{cells[i % len(cells)]};{value}" for i, value in enumerate(range(N))]
        text = "u;v\n" + "\n".join(lines)
        fails("nothing between thousands", read, write(tmp_path, text), x="u", y="v")


def test_whole_numbers_too_long_for_a_float_are_noted(tmp_path: Path) -> None:
    lines = [f"{2**53 + (i * 7) % 64},{value}" for i, value in enumerate(X[:, 0])]
    pairs = read(write(tmp_path, "id,v\n" + "\n".join(lines)), x="id", y="v")
    assert "column 'id' holds whole numbers above 2^53" in "; ".join(pairs.notes)


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    lines = [f"{value},{i},ok" for i, value in enumerate(X[:, 0])]
    lines[5] = '1,2,"two\nlines"'
    lines[6] = "\n \n1,red,ok"
    path = write(tmp_path, "\nu,v,w\n" + "\n".join(lines))
    fails("'red' in line 12 of table.csv", read, path, x="u", y="v")


def test_csv_without_names(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "t.csv", index=False, header=False)
    pairs = read(tmp_path / "t.csv", x="0:3", y="3,-1")
    check(
        pairs,
        (
            "the first line of t.csv holds numbers only, so it was read as data; the columns are called 0 to 4",
        ),
    )
    assert pairs.x_names == ("0", "1", "2")


def test_csv_as_pandas_writes_an_array(tmp_path: Path) -> None:
    unnamed = FRAME.set_axis(range(5), axis=1)
    unnamed.to_csv(tmp_path / "t.csv", index=False)
    check(read(tmp_path / "t.csv", x="0:3", y="3,4"))
    unnamed.to_csv(tmp_path / "i.csv")
    check(read(tmp_path / "i.csv", x="0,1,2", y="3,4"))
    assert "counts the rows" in read(tmp_path / "i.csv", x="Unnamed: 0,0", y="3").notes[0]


def test_names_that_look_like_data_are_doubted(tmp_path: Path) -> None:
    lines = [f"{value},{i % 2},word" for i, value in enumerate(X[:, 0])]
    assert "looks like data" in read(write(tmp_path, "\n".join(lines)), x=0, y=1).notes[0]


def test_comment_mark_before_names_blank_lines_and_blanks(tmp_path: Path) -> None:
    lines = [f"{a}, {b} " for a, b in zip(X[:, 0], Y[:, 0], strict=True)]
    pairs = read(
        write(tmp_path, "\n\n# first , second\n" + "\n".join(lines) + "\n\n\n"), x="first", y="second"
    )
    np.testing.assert_allclose(pairs.y, Y[:, :1])


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    FRAME.to_parquet(path)
    check(read(path, x="0:3", y="3:"))
    FRAME.set_index("a").to_parquet(path)
    check(read(path, x="0:3", y="3:"))


def test_repeated_names_in_parquet_go_by_position(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table([*X.T, *Y.T], names=["a", "b", "a", "a.b", "a"]), tmp_path / "t.parquet")
    check(read(tmp_path / "t.parquet", x="0:3", y="3,4"))
    assert np.array_equal(read(tmp_path / "t.parquet", x=2, y=[4, 1], rows=100).y[:, 0], Y[:, 1])
    fails("3 columns are called 'a'; choose by position", read, tmp_path / "t.parquet", x="a", y="b")


def test_a_damaged_page_of_parquet(tmp_path: Path) -> None:
    FRAME.to_parquet(tmp_path / "t.parquet")
    content = bytearray((tmp_path / "t.parquet").read_bytes())
    content[4:600] = bytes(596)
    path = write(tmp_path, bytes(content), "t.parquet")
    fails("cannot be read as Parquet, it is damaged", read, path, x="a", y="c")


def test_types_of_parquet(tmp_path: Path) -> None:
    from decimal import Decimal

    kinds: dict[str, Any] = {
        "decimal": [Decimal(i) / 4 for i in range(N)],
        "whole": pd.array([i * i for i in range(N)], dtype="Int64"),
        "lacks": pd.array([None, *range(N - 1)], dtype="Int64"),
        "coded": pd.Categorical([i % 7 for i in range(N)]),
        "word": pd.Categorical(["u", "v"] * 30),
        "day": pd.date_range("2020", periods=N),
        "text": ["u", "v"] * 30,
    }
    FRAME.assign(**kinds).to_parquet(tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet", x="decimal,whole,coded", y="c").x
    i = np.arange(N)
    np.testing.assert_array_equal(found, np.stack([i / 4, i * i, i % 7], 1))
    for name, message in {
        "lacks": r"1 missing in x \('lacks'\); the first is row 0",
        "word": "column 'word' holds text, such as 'u'",
        "day": "column 'day' holds dates or times",
        "text": "column 'text' holds text, such as 'u'",
    }.items():
        fails(message, read, tmp_path / "t.parquet", x=name, y="c")


def test_numpy_files(tmp_path: Path) -> None:
    images = np.random.default_rng(2).normal(size=(N, 4, 5))
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.save(tmp_path / "both.npy", np.hstack([X, Y]))
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "one.npy", Y[:, 0])
    np.save(tmp_path / "record.npy", FRAME[["a", "c"]].to_records(index=False))
    np.savez(tmp_path / "xy.npz", x=X, y=Y, who=np.arange(N) // 2, scale=np.array(2.0))
    np.savez(tmp_path / "other.npz", images=images, labels=Y, b=X[:, 0])
    check(read(tmp_path / "x.npy", tmp_path / "y.npy"))
    check(read(tmp_path / "both.npy", x="0:3", y="-2,-1"))
    check(read(tmp_path / "xy.npz"))
    assert read(tmp_path / "xy.npz", groups="who").groups is not None
    assert read(tmp_path / "images.npy", tmp_path / "one.npy").x.shape == (N, 4, 5)
    assert read(tmp_path / "both.npy", tmp_path / "one.npy", x="0").x_names == ("0",)
    assert read(tmp_path / "record.npy", x="a", y="c").y_names == ("c",)
    np.save(
        tmp_path / "wide.npy", np.array(list(zip(X[:, 0], Y, strict=True)), [("a", "f8"), ("b", "f8", 2)])
    )
    assert read(tmp_path / "wide.npy", x="a", y="b").y_names == ("b[0]", "b[1]")
    pairs = read(tmp_path / "other.npz", x="images", y="labels")
    assert pairs.x.shape == (N, 4, 5) and pairs.y_names == ("labels[0]", "labels[1]")
    assert read(tmp_path / "other.npz", x="labels,b", y="images").x_names == ("labels[0]", "labels[1]", "b")
    fails("'images' has shape .*choose it alone", read, tmp_path / "other.npz", x="images,b", y="labels")
    fails("say which arrays are x and y.*'images', 'labels'", read, tmp_path / "other.npz")
    fails(
        "there is no column 'image'; did you mean 'images'",
        read,
        tmp_path / "other.npz",
        x="image",
        y="labels",
    )
    fails("images.npy holds one variable; add a second .npy", read, tmp_path / "images.npy")
    fails("is given for both x and y", read, tmp_path / "x.npy", tmp_path / "x.npy")


def test_two_tables(tmp_path: Path) -> None:
    FRAME[["a", "b1", "b2"]].to_csv(tmp_path / "left.csv", index=False)
    FRAME.iloc[:, 3:].to_parquet(tmp_path / "right.parquet")
    pairs = read(tmp_path / "left.csv", tmp_path / "right.parquet")
    check(pairs)
    assert pairs.source == "left.csv and right.parquet"


def test_groups_of_a_file(tmp_path: Path) -> None:
    FRAME.assign(who=[f"p{i // 3}" for i in range(N)]).to_csv(tmp_path / "t.csv", index=False)
    pairs = read(tmp_path / "t.csv", x="a", y="c", groups="who")
    np.testing.assert_array_equal(pairs.groups, np.arange(N) // 3)
    fails(
        "groups needs one label a row.*choose one column", read, tmp_path / "t.csv", x="a", y="c", groups="b*"
    )
    fails(
        "groups: there is no column 'whom'; did you mean 'who'",
        read,
        tmp_path / "t.csv",
        x="a",
        y="c",
        groups="whom",
    )


def test_columns_must_be_named(csv: Path) -> None:
    fails(r"which columns are x and y \(--x and --y\); table.csv has 5: 'a', 'b1'", read, csv)
    fails(r"which columns are y \(--y\)", read, csv, x="a")
    wide = csv.with_name("wide.csv")
    pd.DataFrame(np.ones((1, 30)), columns=[f"g{i}" for i in range(30)]).to_csv(wide, index=False)
    fails("wide.csv has 30: .*'g9' and 20 more", read, wide)


def test_the_same_column_on_both_sides(csv: Path) -> None:
    fails(r"same columns are on both sides \('a'\).*'!a'", read, csv, x="*", y="a")
    assert read(csv, x="*,!a", y="a").x.shape == (N, 4)


def test_constant_columns_can_be_left_out_as_the_message_says(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    FRAME.assign(k=1, b3=0.5).to_csv(path, index=False)
    fails(
        r"2 of the 4 columns of x are constant.*add '!b3,!k' to the columns of x", read, path, x="b*,k", y="c"
    )
    assert read(path, x="b*,k,!b3,!k", y="c").x_names == ("b1", "b2")
    fails("y is constant", read, path, x="b1", y="k")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            "red",
            "column 'v' holds text, such as 'red' in line 14 of table.csv, where numbers are needed; encode it",
        ),
        ("?", "'\\?' in line 14 of table.csv; if that marks a missing value, leave the cell empty"),
        ("missing", "if that marks a missing value"),
        ("3.5 kg", "holds text, such as '3.5 kg' in line 14 of table.csv"),
        ('"1,5"', "'1,5' in line 14 of table.csv; write numbers with a decimal point"),
        ('"1,234,567"', "nothing between thousands"),
        ("2020-01-31", "encode it first .*dates: days since the first"),
        (
            "",
            "1 of 60 rows with missing or infinite values: 1 missing in y \\('v'\\); the first is line 14 of table.csv",
        ),
        ("NA", "1 missing in y"),
        ("-inf", "1 infinite in y"),
        ("1,2", "line 14 has 3 cells and the first line has 2"),
        ('"open', "the quotation mark opened in line 14 is never closed"),
    ],
)
def test_a_bad_cell_is_named(tmp_path: Path, cell: str, message: str) -> None:
    lines = [f"{a},{b}" for a, b in zip(X[:, 0], Y[:, 0], strict=True)]
    lines[12] = f"{X[12, 0]},{cell}"
    fails(message, read, write(tmp_path, "u,v\n" + "\n".join(lines) + "\n"), x="u", y="v")


def test_missing_cells_of_a_file_are_dropped_when_asked(tmp_path: Path) -> None:
    frame = FRAME.copy()
    frame.loc[[3, 4], "c"] = np.nan
    frame.to_csv(tmp_path / "t.csv", index=False)
    pairs = read(tmp_path / "t.csv", x="a", y="c", missing="drop")
    assert pairs.notes == ("dropped 2 of 60 rows with missing or infinite values: 2 missing in y ('c')",)
    assert len(read(tmp_path / "t.csv", x="a", y="b1").x) == N  # only rows of chosen columns count
    frame.assign(void=np.nan).to_csv(tmp_path / "t.csv", index=False)
    fails(
        "y: 'void' hold no value in any row; leave",
        read,
        tmp_path / "t.csv",
        x="a",
        y="b1,void",
        missing="drop",
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "\n\n", "is empty"),
        ("t.csv", "a,b\n", "there are 0 rows"),
        ("t.csv", "a,b\n1,2\n", "there are 1 rows; at least 50"),
        (
            "t.csv",
            "Results of March\na,b\n1,2\n",
            "line 2 has 2 cells and the first line has 1; remove title",
        ),
        ("t.csv", "a,b\n1,2,3\n4,5,6\n", "line 2 has 3 cells and the first line has 2"),
        ("t.csv", "größe,b\n1,2\n".encode("latin-1"), "not UTF-8 text"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16"), "not UTF-8 text"),
        ("t.csv", b"PK\x03\x04\x14\x00\x06\x00", "not a text file|not UTF-8"),
        ("t.csv.gz", b"nonsense", "cannot be unpacked, it is damaged"),
        ("t.csv.bz2", b"nonsense", "cannot be unpacked, it is damaged"),
        ("t.csv.xz", b"nonsense", "cannot be unpacked, it is damaged"),
        ("t.csv.zip", b"PK", "'?.zip'? is not one of .csv.*.gz, .bz2, .xz; unpack it first"),
        ("t.csv", "1,2\n3,4\n", "no column 'a'.*the first line of t.csv holds numbers only"),
        ("t.csv", "a,a\n1,2\n", "2 columns are called 'a'; choose by position"),
        ("t.parquet", b"PAR1 nonsense", "cannot be read as Parquet, it is damaged"),
        ("t.npy", b"nonsense", "cannot be read as .npy: it is damaged"),
        ("t.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", "cannot be read as .npy"),
        ("t.npz", b"PK\x03\x04nonsense", "cannot be read as .npz"),
        ("t.xlsx", b"PK", "'?.xlsx'? is not one of .csv.*save the sheet as CSV"),
        ("t.txt", "a b", "rename it to .csv or .tsv"),
        ("data", "a b", r"the ending \(none\)"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    fails(message, read, write(tmp_path, content, name), x="a", y="b")


def test_files_that_are_not_there(tmp_path: Path, csv: Path) -> None:
    fails(
        r"no file .*tabel.csv; did you mean .*table.csv",
        read,
        tmp_path / "tabel.csv",
        error=FileNotFoundError,
    )
    fails("check the spelling", read, tmp_path / "no" / "q.csv", error=FileNotFoundError)
    fails("is a folder that holds no .parquet file; name one file", read, tmp_path)
    fails("is a web address; download", read, "https://example.org/t.csv")
    fails("no file", read, csv, tmp_path / "other.npy", error=FileNotFoundError)


def test_numpy_files_that_cannot_be_used(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
    fails("Python objects are not loaded, for safety", read, tmp_path / "object.npy", x=0, y=1)
    np.savez(tmp_path / "object.npz", x=np.array([{}], dtype=object), y=X)
    fails("Python objects are not loaded", read, tmp_path / "object.npz")
    np.save(tmp_path / "whole.npy", X)
    cut = (tmp_path / "whole.npy").read_bytes()[:-100]
    fails("cannot be read as .npy", read, write(tmp_path, cut, "cut.npy"), x=0, y=1)
    np.savez(tmp_path / "whole.npz", x=X, y=Y)
    cut = (tmp_path / "whole.npz").read_bytes()[:-100]
    fails("cannot be read as .npz", read, write(tmp_path, cut, "cut.npz"))
    misnamed = write(tmp_path, (tmp_path / "whole.npz").read_bytes(), "misnamed.npy")
    fails("holds a .npz file; rename it", read, misnamed, x=0, y=1)
    np.savez(tmp_path / "uneven.npz", x=X, y=Y[:10])
    fails("x has 60 rows and y has 10", read, tmp_path / "uneven.npz")
    np.save(tmp_path / "none.npy", np.empty((0, 3)))
    fails("x has 0 rows and y has 60", read, tmp_path / "none.npy", tmp_path / "whole.npy")
    np.save(tmp_path / "empty.npy", np.empty((N, 0)))
    fails("y has no columns", read, tmp_path / "whole.npy", tmp_path / "empty.npy", rows=50)
    np.save(tmp_path / "single.npy", np.array(3.0))
    fails("holds no array with rows", read, tmp_path / "single.npy", x=0, y=1)
    np.save(tmp_path / "words.npy", np.array([["a", "b"]] * N))
    fails("holds text, such as 'a' in row 0", read, tmp_path / "words.npy", x=0, y=1)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "was_run",)

    np.save(tmp_path / "t.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "t.npz", x=np.array([Hostile()], dtype=object), y=X)
    for name in ("t.npy", "t.npz"):
        fails("not loaded, for safety", read, tmp_path / name)
    assert not (tmp_path / "was_run").exists()
