"""Does a change of the code leave the numbers as they were? The same thirteen tasks with two versions, then side by side.

    python benchmarks/before_after.py run --out before.csv       # in a checkout of the one version
    python benchmarks/before_after.py run --out after.csv        # in one of the other
    python benchmarks/before_after.py compare before.csv after.csv

`run` resumes where it was stopped. Between them the tasks have every kind of winner (formulas, kernels, networks, none), sides
of classes, and rows in groups. `compare` counts verdicts that differ and how far estimates moved in standard errors.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pandas as pd

TASKS = (
    "1v1-normal-0.75",
    "1v1-additive-0.1",
    "student-identity-5-5-2",
    "spiral-multinormal-sparse-3-3-2-2.0",
    "clusters-2-3",
    "product-2-1",
    "clayton-4-4",
    "student-clusters-2-2",
    "low-rank-30-10",
    "four-classes-2-1",
    "two-classes-5-1",
)
GROUPED, INDEPENDENT = "subjects of four rows, 3 + 3", "independent, 3 + 2"
SIZES, SEED, GROUP = (1000, 5000), 0, 4


def rows(task: str, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """x, y and groups of a task."""
    from flomi import tasks

    if task == INDEPENDENT:
        rng = np.random.default_rng(SEED)
        return rng.normal(size=(n, 3)), rng.normal(size=(n, 2)), None
    if task == GROUPED:  # what a subject has and what a row has are Gaussian with the same correlations
        law = tasks.get("multinormal-dense-3-3-0.5")
        own, shared = law.sample(n, SEED), law.sample(n // GROUP, SEED + 1)
        x, y = ((a + np.repeat(b, GROUP, axis=0)) / np.sqrt(2) for a, b in zip(own, shared, strict=True))
        return x, y, np.arange(n) // GROUP
    x, y = tasks.get(task).sample(n, SEED)
    return x, y, None


def run(out: Path) -> None:
    import torch

    import flomi

    torch.set_num_threads(1)
    done = set(pd.read_csv(out)[["task", "n"]].itertuples(index=False, name=None)) if out.exists() else set()
    for n in SIZES:
        for task in (*TASKS, GROUPED, INDEPENDENT):
            if (task, n) in done:
                continue
            x, y, groups = rows(task, n)
            r = flomi.estimate(x, y, groups=groups, seed=SEED)
            row = {
                "task": task, "n": n, "mi": r.mi, "stderr": r.stderr, "low": r.ci[0], "high": r.ci[1],
                "lower_bound": r.lower_bound, "bound": r.bound, "bound_stderr": r.bound_stderr, "plug_in": r.plug_in,
                "imbalance": r.imbalance, "critic": r.critic, "verdict": r.verdict, "warnings": len(r.warnings),
                "seconds": r.seconds, "versions": f"flomi {flomi.__version__}, torch {torch.__version__}, "
                f"python {platform.python_version()}", "date": datetime.date.today().isoformat(),
            }  # fmt: skip
            pd.DataFrame([row]).to_csv(out, mode="a", header=not out.exists(), index=False)


def compare(before: Path, after: Path) -> None:
    both = pd.read_csv(before).merge(pd.read_csv(after), on=["task", "n"], suffixes=("", "_after"))
    both["moved"] = (both.mi_after - both.mi).abs() / both.stderr.clip(lower=1e-12)
    both["stderr_ratio"] = both.stderr_after / both.stderr
    both["seconds_ratio"] = both.seconds_after / both.seconds
    print(both[["task", "n", "mi", "mi_after", "stderr", "moved", "stderr_ratio", "critic", "critic_after", "verdict",
                "verdict_after", "seconds_ratio"]].to_string(index=False, float_format="%.4f"))  # fmt: skip
    same = int((both.verdict == both.verdict_after).sum())
    print(
        f"{len(both)} runs: {same} with the same verdict; estimates moved by at most {both.moved.max():.3f} standard errors; "
        f"median seconds ratio {both.seconds_ratio.median():.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run").add_argument("--out", type=Path, required=True)
    two = commands.add_parser("compare")
    two.add_argument("before", type=Path)
    two.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "run":
        run(given.out)
    else:
        compare(given.before, given.after)


if __name__ == "__main__":
    main()
