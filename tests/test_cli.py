"""The command line: exit codes, one-line errors, and what stands on standard output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flomi import MIEstimate, MIEstimator, cli
from flomi.bounds import BOUNDS
from flomi.cli import doctor, options, outputs
from flomi.critics import CRITICS
from flomi.crossfit.options import EFFORTS
from flomi.data import Pairs

N = 200
RHO = 0.8


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    a, b, noise = rng.normal(size=(3, N))
    frame = pd.DataFrame({"a": a, "b": b, "y": RHO * a + (1 - RHO**2) ** 0.5 * noise})
    frame["who"] = [f"p{i // 4}" for i in range(N)]
    frame["half"] = [i % 8 for i in range(N)]
    path = tmp_path_factory.mktemp("data") / "table.csv"
    frame.to_csv(path, index=False)
    path.with_name("folder.png").mkdir()
    return path


@pytest.fixture(scope="module")
def fitted(table: Path) -> MIEstimator:
    frame = pd.read_csv(table)
    return MIEstimator("gaussian", n_folds=2).fit(frame["a"], frame["y"])


class Calls(dict[str, Any]):
    """With what the estimation was called; "result" is what it gives back, and `shown` changes numbers of it."""

    def shown(self, **numbers: Any) -> None:
        self["result"] = replace(self["result"], **numbers)


ROUND = {  # numbers that a line can be compared with
    "mi": 0.412, "stderr": 0.01, "ci": (0.392, 0.432), "lower_bound": 0.371, "bound": 0.405, "bound_stderr": 0.011,
    "plug_in": 0.409, "imbalance": 0.001, "seconds": 12.3, "verdict": "ok", "warnings": (),
}  # fmt: skip


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, fitted: MIEstimator) -> Calls:
    """A real result, with round numbers, of an estimation that is made once for all tests."""
    calls = Calls(result=replace(fitted.result_, **ROUND))

    def fit(pairs: Pairs, options: dict[str, Any], *, ranks: bool) -> tuple[MIEstimator, MIEstimate]:
        assert not ranks
        calls.update(pairs=pairs, options=options)
        return fitted, calls["result"]

    def write(result: MIEstimate, path: Path, *, command: str, about: dict[str, str]) -> None:
        calls.update(command=command, about=about)
        path.write_text("<html>", encoding="utf-8")

    monkeypatch.setattr("flomi.cli.estimate._fit", fit)
    monkeypatch.setattr("flomi.report.page.write", write)
    return calls


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


# Errors: exit code 2, one line, what to do -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["estimat"], "No such command 'estimat'. Did you mean 'estimate'?"),
        (["--versoin"], "there is no option --versoin; did you mean --version?"),
        (["estimate"], "Missing argument 'DATA'; see flomi estimate --help"),
        (["estimate", "TABLE", "--reprot", "r.html"], "there is no option --reprot; did you mean --report?"),
        (["estimate", "TABLE", "--zzz"], "there is no option --zzz; flomi estimate --help lists them"),
        (["estimate", "TABLE", "--x"], "'--x' requires an argument"),
        (["estimate", "TABLE", "--seed", "many"], "--seed must be a whole number"),
        (["estimate", "TABLE", "--x", "a", "b", "c", "--y", "y"], "commas and no spaces between columns"),
        (["estimate", "TABLE", "--x", "a", "b", "--y", "y"], "no file b; if it is a column, put commas"),
        (
            ["estimate", "TABLE", "--effort", "thorugh"],
            "--effort 'thorugh' does not exist; did you mean thorough",
        ),
        (
            ["estimate", "TABLE", "--missing", "mean"],
            "--missing 'mean' does not exist; there are error, drop",
        ),
        (["estimate", "TABLE", "--seed", "-1"], "--seed is -1; it must be 0 or more"),
        (["estimate", "TABLE", "--seed", "9" * 30], r"--seed is 9+; it must be .* \(2\^63 - 1\) or less"),
        (
            ["estimate", "TABLE", "--x", "a", "gene.1", "--y", "y"],
            "no file gene.1; if it is a column, put commas",
        ),
        (
            ["estimate", "TABLE", "--x", "a", "--y", "y", "--groups", "half"],
            "--groups half: 8 groups are too few for 5 folds; use --folds 4",
        ),
        (["estimate", "TABLE", "--jobs", "0"], "--jobs is 0; it must be 1 or more"),
        (["estimate", "TABLE", "--folds", "1"], "--folds is 1; it must be 2 or more"),
        (
            ["estimate", "TABLE", "--bound", "flow"],
            r"--bound 'flow' does not exist; did you mean flo\?",
        ),
        (["estimate", "TABLE", "--critic", "gausian"], r"did you mean gaussian\?"),
        (["estimate", "TABLE", "--device", "gpu"], "--device 'gpu' cannot be used here"),
        (["estimate", "tabel.csv", "--x", "a", "--y", "y"], "there is no file tabel.csv"),
        (["estimate", "FOLDER", "--x", "a", "--y", "y"], "is a folder"),
        (
            ["estimate", "TABLE"],
            r"which columns are x and y \(--x and --y\); table.csv has 5: 'a', 'b', 'y', 'who'",
        ),
        (["estimate", "TABLE", "--x", "a"], r"which columns are y \(--y\)"),
        (["estimate", "TABLE", "--x", "A", "--y", "y"], "no column 'A'; did you mean 'a'"),
        (["estimate", "TABLE", "--x", "gene_*", "--y", "y"], "no column fits the pattern"),
        (["estimate", "TABLE", "--x", "9", "--y", "y"], "there is no column 9; positions go from 0 to 4"),
        (
            ["estimate", "TABLE", "--x", "who", "--y", "y"],
            "column 'who' holds text, such as 'p0' in line 2 of table.csv",
        ),
        (["estimate", "TABLE", "--x", "a,y", "--y", "y"], "same columns are on both sides"),
        (["estimate", "TABLE", "TABLE"], "given for both x and y"),
        (
            ["estimate", "TABLE", "--x", "a", "--y", "y", "--groups", "whom"],
            "no column 'whom'; did you mean 'who'",
        ),
        (
            ["estimate", "TABLE", "--report", "page.pdf"],
            "--report page.pdf: the name must end in .html or .htm",
        ),
        (["estimate", "TABLE", "--plot", "page.jpeg"], "--plot page.jpeg: the name must end in .png"),
        (["estimate", "TABLE", "--pmi", "p.txt"], "--pmi p.txt: the name must end in .csv"),
        (
            ["estimate", "TABLE", "--report", "no/such/page.html"],
            "there is no folder no/such; create it first",
        ),
        (["estimate", "TABLE", "--pmi", "TABLE"], "--pmi .* would overwrite the data; choose another name"),
        (["estimate", "TABLE", "--save", "FOLDER"], "--save .* exists and is no saved estimator"),
        (["estimate", "TABLE", "--plot", "FOLDER.png"], "--plot .* is a folder; add the name of a file"),
        (["doctor", "--jsn"], "there is no option --jsn; did you mean --json"),
        (["doctor", "now"], "unexpected extra argument"),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(
    arguments: list[str], message: str, table: Path, fake: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    replace = {
        "TABLE": str(table),
        "FOLDER": str(table.parent),
        "FOLDER.png": str(table.parent / "folder.png"),
    }
    assert run(*(replace.get(argument, argument) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "options" not in fake
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert re.search(message, err), err


def test_outputs_are_checked_before_the_run(
    table: Path, fake: Calls, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    columns = ("--x", "a", "--y", "y")
    assert run("estimate", table, *columns, "--pmi", tmp_path / "o.csv", "--save", tmp_path / "o.csv") == 2
    assert "would overwrite --pmi" in capsys.readouterr().err
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0o500)
    if not os.access(tmp_path / "locked", os.W_OK):  # root may write everywhere
        assert run("estimate", table, *columns, "--report", tmp_path / "locked" / "r.html") == 2
        assert "may not be written" in capsys.readouterr().err


def test_missing_packages_are_named_before_the_run(
    table: Path, fake: Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs.importlib.util, "find_spec", lambda name: None)
    assert run("estimate", table, "--x", "a", "--y", "y", "--report", table.with_name("r.html")) == 2
    assert "--report needs the package matplotlib; pip install" in capsys.readouterr().err


def raising(error: BaseException) -> Any:
    def fit(*_: Any, **__: Any) -> Any:
        raise error

    return fit


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted before there was a result\n"),
        (MemoryError(), 1, "error: out of memory; use fewer rows or columns\n"),
        (OSError("disk full"), 1, "error: disk full\n"),
    ],
)
def test_other_failures(
    error: BaseException,
    code: int,
    message: str,
    table: Path,
    monkeypatch: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("flomi.cli.estimate._fit", raising(error))
    assert run("estimate", table, "--x", "a", "--y", "y") == code
    assert capsys.readouterr() == ("", message)


def test_a_bug_shows_its_traceback_and_code_1(
    table: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flomi.cli.estimate._fit", raising(ValueError("raised outside flomi")))
    assert run("estimate", table, "--x", "a", "--y", "y") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "raised outside flomi" in err and "please report" in err.splitlines()[-1]


# What comes out ------------------------------------------------------------------------------------------------------


def test_table_for_people(table: Path, fake: Calls, capsys: pytest.CaptureFixture[str]) -> None:
    rivals = {"joint": {"bound": 0.398}, "gaussian": {"bound": 0.405}}
    fake.shown(warnings=("The rows may not be independent.",), candidates=rivals)
    assert run("estimate", table, "--x", "a,b", "--y", "y", "--groups", "who") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "Mutual information of x (2 columns) and y ('y'), 200 rows",
        "  estimate            0.412 ± 0.010 nats  (95 % interval 0.392 to 0.432)",
        "  at least            0.371 nats          (95 % confidence, no model assumed)",
        "  bound on test rows  0.405 ± 0.011       (FLO)",
        "  plug-in             0.409, normalisation off by 0.001",
        "  verdict             ok",
        "  critic              gaussian (chosen among gaussian 0.405, joint 0.398)",
        "  took                12 s",
        "",
        "Warnings:",
        "  - The rows may not be independent.",
    ]


def test_rounding_gives_no_negative_zero_and_small_errors_more_digits(
    table: Path, fake: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.shown(imbalance=-0.0001, mi=-0.02)
    assert run("estimate", table, "--x", "a", "--y", "y") == 0
    out = capsys.readouterr().out
    assert "normalisation off by 0.000" in out and "-0.020 ± 0.010" in out
    fake.shown(stderr=0.00012, mi=0.412)
    assert run("estimate", table, "--x", "a", "--y", "y") == 0
    assert "0.41200 ± 0.00012 nats" in capsys.readouterr().out


def test_notes_on_the_data_are_shown(fake: Calls, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(N, 2))
    values[3, 0] = np.nan
    np.savetxt(tmp_path / "t.csv", values, delimiter=",", header="u,v")
    fake.shown(pmi=np.arange(N - 1.0))
    assert run("estimate", tmp_path / "t.csv", "--x", "u", "--y", "v") == 2
    assert "--missing drop" in capsys.readouterr().err
    arguments = ["--x", "u", "--y", "v", "--missing", "drop", "--pmi", tmp_path / "pmi.csv"]
    assert run("estimate", tmp_path / "t.csv", *arguments) == 0
    assert "About the data:\n  - dropped 1 of 200 rows" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "pmi.csv")
    assert list(rows.columns) == ["row", "pmi"]
    assert rows["row"].tolist() == [i for i in range(N) if i != 3]  # rows of the file, not of what was left
    np.testing.assert_allclose(rows["pmi"], np.arange(N - 1.0))


def test_json_is_one_object_and_nothing_else(
    table: Path, fake: Calls, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake.shown(imbalance=float("nan"))  # which JSON has not
    assert run("estimate", table, "--x", "0:2", "--y", "2", "--json", "--report", tmp_path / "r.html") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert out.count("\n") == 1
    assert found["mi"] == 0.412 and found["imbalance"] is None and found["candidates"].keys() == {"gaussian"}
    assert found["data"] == {"source": "table.csv", "x": ["a", "b"], "y": ["y"], "notes": []}
    assert err == f"wrote {tmp_path / 'r.html'}\n"


def test_an_option_given_again_adds_columns(table: Path, fake: Calls) -> None:
    assert run("estimate", table, "--x", "a", "--x", "b", "--y", "y") == 0
    assert fake["pairs"].x_names == ("a", "b")


def test_the_names_in_the_help_are_those_of_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert ", ".join(BOUNDS) == options.BOUNDS and ", ".join(("auto", *CRITICS)) == options.CRITICS
    assert ", ".join(EFFORTS) == options.EFFORTS
    assert run("estimate", "--help") == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "The data:",
        "The estimate:",
        "The output:",
        "infonce, i-alpha",
        "gaussian, student",
        "Exit code: 0",
    ):
        assert words in out


def test_an_interrupted_write_leaves_the_old_file(
    table: Path, fake: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    rows = tmp_path / "rows.csv"
    rows.write_text("old")
    monkeypatch.setattr("flomi.support.files.os.replace", interrupt)
    assert run("estimate", table, "--x", "a", "--y", "y", "--pmi", rows) == 1
    out, err = capsys.readouterr()
    assert "0.412" in out and err == f"interrupted: {rows} was not written\n"
    assert rows.read_text() == "old" and list(tmp_path.iterdir()) == [rows]


def test_a_partial_result_says_how_much_was_measured(
    table: Path, fake: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    pmi = fake["result"].pmi.copy()
    pmi[80:] = np.nan
    fake.shown(pmi=pmi, config=fake["result"].config | {"n_folds": 5})
    assert run("estimate", table, "--x", "a", "--y", "y", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["mi"] == 0.412
    assert err == "interrupted: 2 of 5 folds were measured (80 of 200 rows); the result rests on these\n"


def test_options_reach_the_estimator(table: Path, fake: Calls, tmp_path: Path) -> None:
    arguments = [
        "--critic",
        "joint",
        "--bound",
        "nwj",
        "--effort",
        "fast",
        "--seed",
        "7",
        "--folds",
        "3",
        "--bits",
        "--jobs",
        "2",
        "--checkpoint",
        str(tmp_path / "kept"),
    ]
    assert run("estimate", table, "--x", "a", "--y", "y", "--groups", "who", *arguments, "--quiet") == 0
    assert fake["options"] == {
        "critic": "joint",
        "bound": "nwj",
        "effort": "fast",
        "seed": 7,
        "units": "bits",
        "n_folds": 3,
        "device": "cpu",
        "n_jobs": 2,
        "progress": False,
        "checkpoint": str(tmp_path / "kept"),
    }
    np.testing.assert_array_equal(fake["pairs"].groups, np.arange(N) // 4)


def test_several_critics_compete(table: Path, fake: dict[str, Any]) -> None:
    assert run("estimate", table, "--x", "a", "--y", "y", "--critic", "gaussian, local") == 0
    assert fake["options"]["critic"] == ["gaussian", "local"]


def test_files_are_written(
    table: Path, fake: Calls, fitted: MIEstimator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, saved = tmp_path / "r.html", tmp_path / "saved"
    assert run("estimate", table, "--x", "a", "--y", "y", "--report", page, "--save", saved, "--quiet") == 0
    assert page.read_text() == "<html>"
    rows = np.random.default_rng(1).normal(size=(9, 2))
    assert np.array_equal(MIEstimator.load(saved).pmi(*rows.T), fitted.pmi(*rows.T))
    assert fake["command"].startswith("flomi estimate ") and "--x a --y y" in fake["command"]
    assert fake["about"] == {"file": "table.csv", "x": "'a'", "y": "'y'"}
    assert capsys.readouterr().err == ""


def test_the_number_is_printed_even_if_a_file_cannot_be_written(
    table: Path, fake: Calls, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("flomi.report.page.write", full)
    assert run("estimate", table, "--x", "a", "--y", "y", "--report", tmp_path / "r.html") == 1
    out, err = capsys.readouterr()
    assert "0.412" in out and err == "error: disk full\n"


def test_a_certificate_that_is_absent_is_said_to_be(
    table: Path, fake: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.shown(lower_bound=float("nan"))
    assert run("estimate", table, "--x", "a", "--y", "y") == 0
    out = capsys.readouterr().out
    assert "  at least            no certificate\n" in out and "n/a" not in out


@pytest.mark.parametrize(
    ("side", "expected"), [("upper", "upper bound on test rows"), ("none", "value on test rows")]
)
def test_what_is_no_lower_bound_is_not_called_one(
    side: str, expected: str, table: Path, fake: Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.shown(bound_side=side, bound_name="club")
    assert run("estimate", table, "--x", "a", "--y", "y") == 0
    out = capsys.readouterr().out
    assert expected in out and " bound on test rows" not in out.replace(expected, "")


def test_flomi_alone_and_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    from flomi import __version__

    for arguments in ([], ["--help"], ["-h"]):
        assert run(*arguments) == 0
        assert "flomi estimate data.csv" in capsys.readouterr().out
    assert run("estimate", "--help") == 0
    assert "flomi estimate patients.csv --x 'gene_*'" in capsys.readouterr().out
    assert run("--version") == 0
    assert capsys.readouterr().out == f"flomi {__version__}\n"


# Doctor --------------------------------------------------------------------------------------------------------------


def healthy(ok: bool = True, error: str | None = None) -> dict[str, Any]:
    return {
        "truth": 0.511,
        "tolerance": 0.08,
        "seconds": 2.0,
        "estimate": 0.5,
        "stderr": 0.02,
        "ok": ok,
        "error": error,
    }


@pytest.mark.parametrize(
    ("check", "code", "message"),
    [
        (healthy(), 0, "estimate 0.500 ± 0.020, truth 0.511 nats, 2.0 s: ok"),
        (healthy(ok=False), 1, "FAILED, too far from the truth"),
        (healthy(ok=False, error="ImportError: libgomp"), 1, "FAILED: ImportError: libgomp"),
    ],
)
def test_doctor(
    check: dict[str, Any], code: int, message: str, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_known_answer", lambda: check)
    assert run("doctor") == code
    out = capsys.readouterr().out
    assert message in out and "torch" in out and "cores" in out
    assert run("doctor", "--json") == code
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"] == check["ok"] and facts["packages"]["torch"] and "cpu" in facts["devices"]


def test_doctor_names_what_is_not_installed(monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_known_answer", healthy)
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    assert run("doctor") == 0
    out = capsys.readouterr().out
    assert "pip install 'flomi[data]'" in out and "NOT INSTALLED" in out


# In a process of its own ---------------------------------------------------------------------------------------------


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flomi", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_exit_codes_of_the_process(table: Path) -> None:
    wrong = process("estimate", table, "--x", "a", "--y", "nope")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: ") and wrong.stderr.count("\n") == 1


def test_help_answers_at_once_because_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, flomi.cli; flomi.cli.main(['--help']); flomi.cli.main(['estimate', '--help']); "
        "print([m for m in ('torch', 'numpy', 'pandas', 'scipy') if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert time.perf_counter() - start < 5  # under 1 s on an idle machine


def test_a_real_estimate(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, plot, pmi = (tmp_path / name for name in ("r.html", "r.svg", "pmi.csv"))
    options = ["--x", "a", "--y", "y", "--critic", "gaussian", "--folds", 2, "--json"]
    assert run("estimate", table, *options, "--report", page, "--plot", plot, "--pmi", pmi) == 0
    found = json.loads(capsys.readouterr().out)
    truth = -0.5 * np.log(1 - RHO**2)
    assert abs(found["mi"] - truth) < 0.25 and found["n"] == N and found["units"] == "nats"
    assert "<html" in page.read_text(encoding="utf-8").lower() and "<svg" in plot.read_text(encoding="utf-8")
    assert len(pd.read_csv(pmi)) == N
