"""Measure the truths of the standard random tasks: MI, its standard error, and the spread of the pointwise MI.

    python benchmarks/random_truth.py [--count 100] [--seed 0] [--rows 200000] [--out src/flomi/tasks/random_truth.csv]

The mean of the exact pointwise MI over at least 200,000 rows (20 times the largest sample of the benchmarks, so that the truth
is exact beside any estimate) and more until its standard error is below 0.004 nats. No estimator is run. Tasks that the file
holds are not measured again, so the script may be stopped and started at any moment; where a task changes, delete its row.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from pathlib import Path

import numpy as np
import scipy

from flomi import tasks
from flomi.tasks.random_suite import TRUTH_FILE, measure_law


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100, help="tasks of each half")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--out", type=Path, default=TRUTH_FILE)
    asked = parser.parse_args()
    old = asked.out.read_text().splitlines() if asked.out.exists() else []
    known = {line.split(",")[0] for line in old if not line.startswith("#")}
    with asked.out.open("a") as out:
        print(
            f"# {' '.join(['python', *sys.argv])}; {datetime.date.today()}; Python {platform.python_version()}, "
            f"numpy {np.__version__}, scipy {scipy.__version__}",
            file=out,
        )
        if "name" not in known:
            print("name,half,mi,stderr,sd", file=out)
        for half in ("first", "second"):
            for task in tasks.random_tasks(half, asked.count, asked.seed):
                if task.name not in known:
                    truth = measure_law(task.law, task.name, rows=asked.rows, stderr=0.004)
                    print(
                        f"{task.name},{half},{truth.mi:.6f},{truth.stderr:.6f},{truth.sd:.5f}",
                        file=out,
                        flush=True,
                    )


if __name__ == "__main__":
    main()
