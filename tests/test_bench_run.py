"""Running the bench: resumable after any kill, the same table however it was run, failures recorded, errors in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flomi
from flomi import bench, cli, tasks
from flomi.bench import results, runner
from flomi.bench.results import COLUMNS, HEADER, Key, read
from flomi.cli import bench as cli_bench
from flomi.cli import outputs
from flomi.critics.table import CRITICS, CriticKind

OWN = """
import os, time
import numpy as np

def estimate(x, y, seed):
    time.sleep(float(os.environ.get("PAUSE", 0)))
    with open(os.environ["CALLS"], "a") as file:
        file.write(f"{x.shape} {seed}\\n")
    return {"estimate": float(np.mean(x * y)) if x.shape == y.shape else 0.0, "stderr": 0.1}

def broken(x, y, seed):
    raise RuntimeError("first line\\nsecond, with a comma")

def nothing(x, y, seed):
    return float("nan")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to run in, with a module of one's own."""
    (tmp_path / "own_bench_module.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path


def run(*arguments: object) -> int:
    return cli.main(["bench", *map(str, arguments)])


def steady(path: Path) -> list[dict[str, str]]:
    """The rows without what may differ between two runs of the same cells."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "peak_mb")} for row in read(path)]


GRID = [
    "run",
    "independence",
    "--estimator",
    "own_bench_module:estimate,gaussian",
    "--sizes",
    "30,40",
    "--seeds",
    "0:3",
]


@pytest.mark.slow
def test_a_run_killed_in_the_middle_and_run_again_gives_the_same_table(here: Path) -> None:
    command = [sys.executable, "-m", "flomi", "bench", *GRID, "--out", "killed.csv", "--quiet"]
    process = subprocess.Popen(command, env={**os.environ, "PAUSE": "0.05"}, stdout=subprocess.DEVNULL)
    path, until = here / "killed.csv", time.monotonic() + 60
    while time.monotonic() < until and (not path.exists() or path.read_bytes().count(b"\n") < 8):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = {Key.of(row) for row in read(path)}
    assert 7 <= len(finished) < 36
    with open(path, "ab") as file:
        file.write(b'independence,independence-1-1,1,1,40,2,"gau')  # as a kill within a write leaves it
    (here / "calls").write_text("")
    assert run(*GRID, "--out", "killed.csv", "--quiet") == 0
    repeated = (here / "calls").read_text().count("\n") + sum(
        key.estimator.startswith("own") for key in finished
    )
    assert repeated == 18  # nothing that was finished ran again
    assert run(*GRID, "--out", "whole.csv", "--quiet") == 0
    assert steady(path) == steady(here / "whole.csv") and len(read(path)) == 36
    keys = [Key.of(row) for row in read(path)]
    assert keys == sorted(keys)
    assert not [p for p in here.iterdir() if p.name.startswith(".")]


def test_wherever_a_line_is_torn_the_rest_is_kept(here: Path) -> None:
    bench.run("independence", ["gaussian"], sizes=[30], out="a.csv")
    whole = (here / "a.csv").read_bytes()
    for cut in (len(whole) - 1, len(whole) - 30, len(HEADER) + 3, len(HEADER), 10, 0):
        (here / "b.csv").write_bytes(whole[:cut])
        kept = len(read(here / "b.csv"))
        outcome = bench.run("independence", ["gaussian"], sizes=[30], out="b.csv")
        assert outcome.before == kept and steady(here / "b.csv") == steady(here / "a.csv")


@pytest.mark.slow
def test_processes_side_by_side_give_the_same_table(here: Path) -> None:
    for jobs in (1, 2):
        bench.run(
            "independence", ["gaussian", "ksg-3"], sizes=[200], seeds=[0, 1], jobs=jobs, out=f"{jobs}.csv"
        )
    assert steady(here / "1.csv") == steady(here / "2.csv")


def test_a_row_has_the_promised_columns(here: Path) -> None:
    bench.run(
        "bmi-v1", ["gaussian"], sizes=[100], tasks=["multinormal-dense-3-3-0.5"], seeds=[4], out="a.csv"
    )
    (row,) = read(here / "a.csv")
    assert tuple(row) == COLUMNS
    assert (row["suite"], row["dim_x"], row["dim_y"], row["n"], row["seed"]) == (
        "bmi-v1",
        "3",
        "3",
        "100",
        "4",
    )
    task = tasks.get("multinormal-dense-3-3-0.5")
    assert float(row["true_mi"]) == pytest.approx(task.mi)
    direct = bench.resolve("gaussian").run(*task.sample(100, seed=4), 4)
    assert float(row["estimate"]) == pytest.approx(direct.estimate, rel=1e-7)
    assert float(row["ci_low"]) < float(row["estimate"]) < float(row["ci_high"])
    assert float(row["seconds"]) >= 0 and row["note"] == row["bound"] == ""


def test_a_cell_that_fails_is_recorded_and_the_others_go_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "own_bench_module:broken,own_bench_module:nothing,gaussian,kde"
    command = ["run", "independence", "--estimator", names, "--sizes", 30, "--out", "a.csv"]
    assert run(*command) == 1
    out, err = capsys.readouterr()
    assert "12 cells are in a.csv, 4 skipped as not applicable" in out
    assert err == (
        "6 of 12 cells failed; the first was own_bench_module:broken on independence-1-1, 30 rows, seed 0: RuntimeError: "
        "first line second, with a comma; mend it, then add --retry\n"
    )
    notes = {(row["estimator"], row["task"]): (row["verdict"], row["note"]) for row in read(here / "a.csv")}
    failed = notes["own_bench_module:broken", "independence-1-1"]
    assert failed == ("failed", "RuntimeError: first line second, with a comma")
    assert notes["own_bench_module:nothing", "independence-1-1"] == ("failed", "the estimate is not a number")
    assert notes["gaussian", "independence-1-1"] == ("", "")
    assert notes["gaussian", "independence-20-20"][0] == notes["kde", "independence-20-20"][0] == "skipped"
    before = steady(here / "a.csv")
    assert run(*command) == 1 and steady(here / "a.csv") == before  # failed cells are finished cells
    text = OWN.replace('raise RuntimeError("first line\\nsecond, with a comma")', "return 0.0")
    assert text != OWN
    (here / "own_bench_module.py").write_text(text)
    sys.modules.pop("own_bench_module")
    assert run(*command, "--retry") == 1  # three are still not a number
    err = capsys.readouterr().err
    assert (
        "3 of 12 cells failed; the first was own_bench_module:nothing on independence-1-1, 30 rows, seed 0: the"
        in err
    )


def test_self_consistency_runs_without_a_truth(here: Path) -> None:
    outcome = bench.run("self-consistency", ["ksg-3"], sizes=[100], out="a.csv")
    assert outcome.cells == 11 and outcome.failed == 0
    assert {row["true_mi"] for row in read(here / "a.csv")} == {""}
    assert runner.sizes_of("self-consistency") == (800,)
    outcome = bench.run("self-consistency", ["ksg-3"], sizes=[1000], tasks=["digits-two-4"], out="b.csv")
    assert outcome.failed == 1 and "there are 1,797" in read(here / "b.csv")[0]["note"]


def test_two_runs_do_not_write_one_file(here: Path) -> None:
    with results.opened(here / "a.csv"), pytest.raises(ValueError, match="another run is writing"):
        bench.run("independence", ["gaussian"], sizes=[30], out="a.csv")


def test_backends_of_joblib_carry_cells(here: Path) -> None:
    import joblib

    with joblib.parallel_config(backend="threading", n_jobs=1):
        assert bench.run("independence", ["gaussian"], sizes=[30], jobs=None, out="a.csv").cells == 3


def test_interrupted_says_where_it_stands(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_estimated", interrupt)
    assert run("run", "independence", "--estimator", "gaussian", "--sizes", 30) == 130
    assert capsys.readouterr().err == (
        "interrupted: what was finished is in bench.csv; the same command goes on from there\n"
    )


def test_rows_of_another_version_are_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", "independence", "--estimator", "gaussian", "--sizes", 30, "--task", "independence-1-1"]
    assert run(*command) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1 cell is in bench.csv; ") and err == ""
    path = here / "bench.csv"
    path.write_text(path.read_text().replace(f",{flomi.__version__},", ",0.0.1,"))
    assert run(*command, "--seeds", "0,1") == 0
    out, err = capsys.readouterr()
    assert out.startswith("2 cells are in bench.csv, 1 of them before; ")
    assert (
        err
        == f"of the cells in bench.csv, 1 by flomi 0.0.1 (this is {flomi.__version__}), not run again; another --out runs all\n"
    )
    assert bench.run("independence", ["gaussian"], sizes=[30], seeds=[1]).versions == {}


def test_a_critic_that_was_added_runs_by_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CRITICS, "mine", CriticKind("mine", "says nothing", fit=CRITICS["null"].fit))
    assert run("run", "independence", "--estimator", "critic:mine", "--sizes", "300", "--quiet") == 0
    rows = read(here / "bench.csv")
    assert [row["estimator"] for row in rows] == ["critic:mine"] * 3
    assert all(float(row["estimate"]) == 0 for row in rows)


@pytest.mark.parametrize(
    "command", [["run", "independence", "--out", "shut/a.csv"], ["report", "--out", "shut/a.html"]]
)
def test_where_nothing_can_be_written_it_says_so_before_the_run(
    here: Path, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    (here / "shut").mkdir()
    (here / "bench.csv").write_text(HEADER)
    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", refuse)  # root may write everywhere
    assert run(*command) == 2
    assert capsys.readouterr().err == (
        f"error: --out {command[-1]} can't be written (Permission denied); name another\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument 'SUITE'; see flomi bench run --help"),
        (["run", "bmi"], "no suite is called 'bmi'; did you mean bmi-v1"),
        (
            ["run", "independence", "--estimator", "infonc"],
            "no estimator is called 'infonc'; did you mean infonce",
        ),
        (["run", "independence", "--sizes", "1e3"], "'1e3' is no whole number; write such as 0,1,2 or 0:3"),
        (["run", "independence", "--sizes", "0"], "--sizes '0': give at least one number, each 1 or more"),
        (
            ["run", "independence", "--seeds", "3:1"],
            "--seeds '3:1': 3:1 is empty, for a:b ends before b; write such as 3:6",
        ),
        (["run", "independence", "--estimator", "torn_module:f"], "torn_module.py, line 2"),
        (["run", "independence", "--task", "none"], "suite independence has no task 'none'"),
        (["run", "independence", "--jobs", "0"], "--jobs is 0; it must be 1 or more"),
        (["run", "independence", "--out", "a.txt"], "--out a.txt: the name must end in .csv"),
        (["run", "independence", "--out", "no/a.csv"], "there is no folder no"),
        (
            ["run", "independence", "--estimator", "gaussian", "--out", "other.csv"],
            "other.csv is no file of `flomi bench",
        ),
        (["report"], "there is no file bench.csv; flomi bench run writes one"),
        (["report", "other.csv"], "other.csv is no file of `flomi bench run`"),
        (["report", "empty.csv"], "there are no results in these files yet"),
        (["list", "bmi"], "no suite is called 'bmi'"),
        (["ru"], "No such command 'ru'"),
    ],
)
def test_a_wrong_call_is_one_line(
    here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "other.csv").write_text("a,b\n1,2\n")
    (here / "empty.csv").write_text(HEADER)
    (here / "torn_module.py").write_text("x = 1\ndef f(:\n")
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert (here / "other.csv").read_text() == "a,b\n1,2\n"


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in (*bench.names_of_suites(), *bench.catalogue()))
    assert run("list", "staircase") == 0
    assert "staircase-20-20-6   20 x 20  6.00000 nats" in capsys.readouterr().out
    assert run("list", "self-consistency") == 0
    assert "digits-two-4        128 x 64  MI not known" in capsys.readouterr().out


def test_the_names_in_the_help_are_the_suites() -> None:
    assert bench.names_of_suites() == tuple(cli_bench._SUITES)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, flomi.cli; [flomi.cli.main(['bench', *c, '--help']) for c in ([], ['run'], ['report'], ['list'])]; "
        "print([m for m in ('torch', 'numpy', 'pandas', 'joblib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
