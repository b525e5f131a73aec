"""`torchrun -m flomi estimate`: processes share the folds, and one of them says what a single one would have said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
MEASURED = {"seconds", "threads", "versions"}  # may differ from run to run


def run(folder: Path, *launcher: str, folds: int) -> Any:
    command = [
        sys.executable, *launcher, "-m", "flomi", "estimate", "rows.csv", "--x", "a,b", "--y", "c",
        "--effort", "fast", "--folds", str(folds), "--json",
    ]  # fmt: skip
    found = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert found.returncode == 0, found.stderr
    return settled(json.loads(found.stdout))  # one object: the other process prints nothing


def settled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: settled(v) for name, v in value.items() if name not in MEASURED}
    return [settled(v) for v in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_two_processes_share_three_folds_and_find_what_one_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    rows = np.hstack([x, x[:, :1] + rng.normal(size=(300, 1))])
    np.savetxt(tmp_path / "rows.csv", rows, delimiter=",", header="a,b,c", comments="")
    assert run(tmp_path, *TORCHRUN, folds=3) == run(tmp_path, folds=3)
