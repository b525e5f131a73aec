"""Checkpoints: killed at any moment and started again, a run ends in the same numbers; other data and options are refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from flomi import MIEstimator, cli
from flomi.critics import CRITICS
from flomi.crossfit import run
from flomi.crossfit.fold import Fold
from flomi.result import MIEstimate

GAUSSIAN: dict[str, Any] = {"critic": "gaussian", "n_folds": 2}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(260, 2))
Y = X + RNG.normal(size=(260, 2))
WHO = np.arange(260) // 2


class Own(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.f, self.h = nn.Linear(2, width), nn.Linear(2, width)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.f(x) * self.h(y)).sum(1)


def numbers(r: MIEstimate) -> dict[str, Any]:
    """Everything but what a clock or the folder's name says."""
    found = r.to_dict(pmi=True)
    del found["seconds"]
    found["config"].pop("checkpoint")
    for entry in found["candidates"].values():
        del entry["seconds"]
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def stop_after(monkeypatch: pytest.MonkeyPatch, folds: int) -> None:
    """As a kill would, between two folds."""
    whole, done = run.run_fold, iter(range(folds))

    def some(*args: Any, **options: Any) -> Fold:
        if next(done, None) is None:
            raise RuntimeError("killed")
        return whole(*args, **options)

    monkeypatch.setattr(run, "run_fold", some)


def options_of(name: str) -> dict[str, Any]:
    trained = CRITICS[name].build is not None
    return {"bound": "doe" if name == "density" else "flo", **({"steps": 5} if trained else {})}


FAST = {"auto", "gaussian", "residual", "joint"}  # one of every way that a model is made


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in ("auto", *CRITICS)]
)
@pytest.mark.usefixtures("short_offsets")
def test_every_critic_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = {"local": (X[:, 0], Y[:, 0]), "logistic": (X, Y > 0)}.get(name, (X, Y))
    options: dict[str, Any] = {"effort": "fast", "n_folds": 2, **(options_of(name) if name != "auto" else {})}
    plain = MIEstimator(name, **options).fit(x, y)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(RuntimeError, match="killed"):
            MIEstimator(name, **options, checkpoint=tmp_path / "c").fit(x, y)
    assert len(list((tmp_path / "c").glob("fold-*.safetensors"))) == 1
    again = MIEstimator(name, **options, checkpoint=tmp_path / "c").fit(x, y)
    assert numbers(again.result_) == numbers(plain.result_)
    assert np.array_equal(again.pmi(x, y), plain.pmi(x, y)) and again.score(x, y) == plain.score(x, y)
    with monkeypatch.context() as patch:
        stop_after(patch, 0)  # nothing is left to do
        last = MIEstimator(name, **options, checkpoint=tmp_path / "c").fit(x, y)
    assert numbers(last.result_) == numbers(plain.result_)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_groups_own_critics_and_processes(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    own = Own()
    options: dict[str, Any] = {"effort": "fast", "steps": 5, "n_folds": 2, "bound": "tuba"}
    plain = MIEstimator(own, **options).fit(X, Y, groups=WHO)
    kept = tmp_path / "c"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(RuntimeError, match="killed"):
            MIEstimator(own, **options, checkpoint=kept).fit(X, Y, groups=WHO)
    again = MIEstimator(own, **options, checkpoint=kept, n_jobs=jobs).fit(X, Y, groups=WHO)
    ours, theirs = numbers(again.result_), numbers(plain.result_)
    assert ours["config"].pop("n_jobs") == jobs and theirs["config"].pop("n_jobs") == 1
    assert ours == theirs
    with pytest.raises(ValueError, match="other options: critic was"):
        MIEstimator(Own(4), **options, checkpoint=kept).fit(X, Y, groups=WHO)


def test_an_interrupted_fold_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run.run_fold

    def interrupted(*args: Any, **options: Any) -> Fold:
        fold = whole(*args, **options)
        fold.interrupted = True
        return fold

    with monkeypatch.context() as patch:
        patch.setattr(run, "run_fold", interrupted)
        r = MIEstimator(**GAUSSIAN, checkpoint=tmp_path / "c").fit(X, Y).result_
    assert any("interrupted" in sentence for sentence in r.warnings)
    assert not list((tmp_path / "c").glob("fold-*"))


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        ({"seed": 1}, X, "other options: seed was 0 and is 1; name another folder"),
        ({"effort": "fast"}, X, "other options: effort was 'standard' and is 'fast'"),
        ({"critic": "student"}, X, "critic was 'gaussian' and is 'student'"),
        ({}, X[::-1], "is of other data"),
        ({}, X.astype(np.float32), "is of other data"),
    ],
)
def test_another_run_is_refused(options: dict[str, Any], x: np.ndarray, message: str, tmp_path: Path) -> None:
    MIEstimator(**GAUSSIAN, checkpoint=tmp_path).fit(X, Y)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=message):
        MIEstimator(**{**GAUSSIAN, **options}, checkpoint=tmp_path).fit(x, Y)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    MIEstimator(**GAUSSIAN, checkpoint=tmp_path, units="bits").fit(X, Y)  # what changes no number may change


def test_wrong_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        MIEstimator(**GAUSSIAN, checkpoint=tmp_path / "file").fit(X, Y)
    with pytest.raises(ValueError, match="a folder of other things"):
        MIEstimator(**GAUSSIAN, checkpoint=tmp_path).fit(X, Y)
    with pytest.raises(TypeError, match="checkpoint must be the path"):
        MIEstimator(**GAUSSIAN, checkpoint=3).fit(X, Y)  # type: ignore[arg-type]
    kept = tmp_path / "c"
    MIEstimator(**GAUSSIAN, checkpoint=kept).fit(X, Y)
    (kept / "fold-1.safetensors").write_bytes(b"half of it")
    with pytest.raises(ValueError, match=r"fold-1\.safetensors can't be read .*; remove it"):
        MIEstimator(**GAUSSIAN, checkpoint=kept).fit(X, Y)
    (kept / "checkpoint.json").write_text("[]")
    with pytest.raises(ValueError, match=r"checkpoint\.json can't be read"):
        MIEstimator(**GAUSSIAN, checkpoint=kept).fit(X, Y)


@pytest.mark.slow
def test_killed_and_started_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL as soon as the first fold is there, in the middle of the second; drawn rows of a Parquet folder."""
    x, e = RNG.normal(size=(2, 12_000, 2))
    table = pd.DataFrame(
        {"x0": x[:, 0], "x1": x[:, 1], "y0": x[:, 0] + e[:, 0], "y1": x[:, 1] ** 2 + e[:, 1]}
    )
    (tmp_path / "folder").mkdir()
    for k in range(3):
        table[k::3].to_parquet(tmp_path / "folder" / f"{k}.parquet", index=False)
    call = [
        "estimate",
        str(tmp_path / "folder"),
        "--x",
        "x*",
        "--y",
        "y*",
        "--effort",
        "fast",
        "--rows",
        "3000",
    ]
    command = [sys.executable, "-m", "flomi", *call, "--json", "--checkpoint", str(tmp_path / "c")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 250
    while not list((tmp_path / "c").glob("fold-*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not process.stdout.read()  # type: ignore[union-attr]
    process.stdout.close()  # type: ignore[union-attr]
    kept = sorted(p.name for p in (tmp_path / "c").iterdir() if not p.name.startswith("."))
    assert kept == ["checkpoint.json", "fold-0.safetensors", "rows.safetensors"]
    first = (tmp_path / "c" / "fold-0.safetensors").stat().st_mtime_ns
    found = []
    for more in (["--checkpoint", str(tmp_path / "c")], []):
        assert cli.main([*call, "--json", *more]) == 0
        result = json.loads(capsys.readouterr().out)
        for entry in (result, *result["candidates"].values()):
            del entry["seconds"]
        result["config"].pop("checkpoint", None)
        found.append(result)
    assert found[0] == found[1]
    assert (tmp_path / "c" / "fold-0.safetensors").stat().st_mtime_ns == first
    assert cli.main([*call, "--seed", "1", "--checkpoint", str(tmp_path / "c")]) == 2
    assert "other options: seed was 0 and is 1" in capsys.readouterr().err


def test_drawn_rows_are_found_again(tmp_path: Path) -> None:
    from flomi import streaming

    table = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 2)), columns=["a", "b"])
    table.to_parquet(tmp_path / "t.parquet")
    read: dict[str, Any] = {"x": "a", "y": "b", "rows": 100}
    first = streaming.read(tmp_path / "t.parquet", **read, checkpoint=tmp_path / "c")
    before = (tmp_path / "c" / "rows.safetensors").stat().st_mtime_ns
    again = streaming.read(tmp_path / "t.parquet", **read, checkpoint=tmp_path / "c")
    assert (tmp_path / "c" / "rows.safetensors").stat().st_mtime_ns == before
    assert first.full is not None and again.full is not None
    for name in ("x", "y", "rows"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert np.array_equal(first.full.correlation, again.full.correlation)  # type: ignore[arg-type]
    assert (first.notes, first.x_names, first.source) == (again.notes, again.x_names, again.source)
    assert (first.kinds_x, first.kinds_y) == (again.kinds_x, again.kinds_y) == (("continuous",),) * 2
    (-table).to_parquet(tmp_path / "t.parquet")
    other = streaming.read(tmp_path / "t.parquet", **read, checkpoint=tmp_path / "c")
    assert np.array_equal(other.x, -first.x)
    (tmp_path / "under way").mkdir()
    (tmp_path / "under way" / "checkpoint.json").write_text("{}")
    streaming.read(tmp_path / "t.parquet", **read, checkpoint=tmp_path / "under way")
    assert not (tmp_path / "under way" / "rows.safetensors").exists()  # of another run, perhaps
