"""What the three efforts cost and buy: 10,000 rows of 5 + 5 columns, Gaussian and not.

    python benchmarks/effort.py        # writes benchmarks/results/effort.csv, about 10 minutes on two cores

Threads are as torch chooses them; nothing else should run. The first, short run loads what is loaded only once.
"""

from __future__ import annotations

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
ROWS = 10_000


def main() -> None:
    flomi.estimate(*tasks.get(TASKS[0]).sample(500, 1), effort="fast")
    found = []
    for name in TASKS:
        task = tasks.get(name)
        x, y = task.sample(ROWS, 0)
        for effort in ("fast", "standard", "thorough"):
            start = time.perf_counter()
            r = flomi.estimate(x, y, effort=effort)  # type: ignore[arg-type]
            seconds = time.perf_counter() - start
            found.append(
                {
                    "task": name, "effort": effort, "seconds": round(seconds, 1), "truth": task.mi, "mi": r.mi,
                    "stderr": r.stderr, "bound": r.bound, "lower_bound": r.lower_bound, "critic": r.critic, "verdict": r.verdict,
                }
            )  # fmt: skip
            print(f"{name} {effort}: {seconds:.1f} s, {r}, truth {task.mi:.3f}", flush=True)
            save(found)  # after every run, so that an interruption loses none


def save(found: list[dict[str, object]]) -> None:
    frame = pd.DataFrame(found)
    frame["cores"], frame["threads"] = os.cpu_count(), torch.get_num_threads()
    frame["versions"] = (
        f"flomi {flomi.__version__}, torch {torch.__version__}, python {platform.python_version()}"
    )
    frame["date"], frame["command"] = datetime.date.today().isoformat(), "python benchmarks/effort.py"
    OUT.parent.mkdir(exist_ok=True)
    frame.to_csv(OUT, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
