"""What the three efforts cost and buy: 10,000 rows of 5 + 5 columns, Gaussian and not.

    python benchmarks/effort.py                             # rows of benchmarks/results/effort.csv, 10 minutes on two cores
    python benchmarks/effort.py --efforts fast standard     # two minutes

Threads are as torch chooses them; nothing else should run. The first, short run loads what is loaded only once.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from pathlib import Path

import pandas as pd
import torch

import flomi
from flomi import tasks

OUT = Path(__file__).parent / "results" / "effort.csv"
TASKS = ("multinormal-dense-5-5-0.5", "student-identity-5-5-2", "spiral-multinormal-sparse-5-5-2-2.0")
EFFORTS = ("fast", "standard", "thorough")
ROWS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--efforts", nargs="+", default=EFFORTS, choices=EFFORTS)
    options = parser.parse_args()
    flomi.estimate(*tasks.get(TASKS[0]).sample(500, 1), effort="fast")
    for effort in options.efforts:
        for name in options.tasks:
            task = tasks.get(name)
            x, y = task.sample(ROWS, 0)
            start = time.perf_counter()
            r = flomi.estimate(x, y, effort=effort)
            seconds = time.perf_counter() - start
            row = {
                "task": name, "effort": effort, "seconds": round(seconds, 1), "truth": task.mi, "mi": r.mi,
                "stderr": r.stderr, "bound": r.bound, "lower_bound": r.lower_bound, "critic": r.critic, "verdict": r.verdict,
            }  # fmt: skip
            print(f"{name} {effort}: {seconds:.1f} s, {r}, truth {task.mi:.3f}", flush=True)
            save(row)  # after every run, so that an interruption loses none


def save(row: dict[str, object]) -> None:
    """Put the row into the table, in place of one of the same task and effort."""
    row |= {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": f"flomi {flomi.__version__}, torch {torch.__version__}, python {platform.python_version()}",
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/effort.py",
    }
    frame = pd.DataFrame([row])
    if OUT.exists():
        old = pd.read_csv(OUT)
        same = (old["task"] == row["task"]) & (old["effort"] == row["effort"])
        frame = pd.concat([old[~same], frame])
    frame["order"] = 3 * frame["task"].map(TASKS.index) + frame["effort"].map(EFFORTS.index)
    OUT.parent.mkdir(exist_ok=True)
    frame.sort_values("order").drop(columns="order").to_csv(OUT, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
