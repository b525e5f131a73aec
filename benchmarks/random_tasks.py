"""How far may the numbers be trusted on distributions that nobody tuned on? The default call on random tasks, run by run.

    python benchmarks/random_tasks.py run --half first --rows 1000 --count 100 --out results/random_tasks/NAME.csv
    python benchmarks/random_tasks.py run --estimator ksg ...      # plain nearest neighbours (k = 3) on the same rows
    python benchmarks/random_tasks.py summary NAME.csv [--against OTHER.csv]

Whatever is chosen or calibrated is so on the first half of the families; the second half only checks. `run` resumes where it was
stopped, so several processes may share the work by `--part 0/2` and `--part 1/2` (a file each). Errors are in units of the
efficient standard error, sd(PMI) / sqrt(n).
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pandas as pd

SEED = 0  # of the list of tasks, whose truths are kept, and of the estimator
SAID = ("ok", "none found")
WEAK = 0.05  # nats: below, an error relative to the efficient one says little
FEW_RUNS = 40  # a family is judged from so many runs on


def by_flomi(x: np.ndarray, y: np.ndarray, effort: str, options: dict[str, Any]) -> dict[str, Any]:
    import flomi

    r = flomi.estimate(x, y, effort=effort, seed=SEED, **options)
    return {
        "mi": r.mi, "stderr": r.stderr, "low": r.ci[0], "high": r.ci[1], "lower_bound": r.lower_bound, "bound": r.bound,
        "critic": r.critic, "verdict": r.verdict, "codes": " ".join(f["code"] for f in r.findings),
    }  # fmt: skip


def by_ksg(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    import torch

    from flomi.critics.nearest_neighbours import ksg

    a, b = (torch.from_numpy((v - v.mean(0)) / v.std(0).clip(min=1e-12)) for v in (x, y))
    return {"mi": float(ksg(a, b, k=3).mean()), "critic": "ksg"}


def run(given: argparse.Namespace) -> None:
    import torch

    import flomi
    from flomi import tasks

    torch.set_num_threads(1)
    options = json.loads(given.options)
    done: set[tuple[str, int, str]] = set()
    if given.out.exists():
        known = pd.read_csv(given.out)
        done = set(known[["task", "n", "effort"]].itertuples(index=False, name=None))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    part, parts = map(int, given.part.split("/"))
    effort = given.effort if given.estimator == "flomi" else given.estimator
    for task in tasks.random_tasks(given.half, given.count, SEED)[part::parts]:
        if (task.name, given.rows, effort) in done:
            continue
        x, y = task.sample(given.rows, seed=SEED)
        start = time.perf_counter()
        found = by_flomi(x, y, effort, options) if given.estimator == "flomi" else by_ksg(x, y)
        row = {
            "half": given.half, "family": "+".join(task.families), "task": task.name, "dim_x": task.dim_x, "dim_y": task.dim_y,
            "n": given.rows, "effort": effort, "truth": task.mi, "efficient": task.efficient_stderr(given.rows), **found,
            "seconds": time.perf_counter() - start, "versions": f"flomi {flomi.__version__}, torch {torch.__version__}, "
            f"python {platform.python_version()}", "label": given.label, "date": datetime.date.today().isoformat(),
        }  # fmt: skip
        fresh = not given.out.exists()
        with given.out.open("a", newline="") as out:
            writer = csv.DictWriter(out, list(row))
            if fresh:
                writer.writeheader()
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def figures(d: pd.DataFrame) -> dict[str, float]:
    """What the runs of one size say, by the words of the promises."""
    error = (d.mi - d.truth).abs()
    relative = (error / d.efficient)[d.truth > WEAK]
    found: dict[str, float] = {"runs": len(d), "median error / efficient": relative.median()}
    if "verdict" not in d or d.verdict.isna().all():
        return found
    said = d.verdict.isin(SAID)
    covered = (d.low <= d.truth) & (d.truth <= d.high)
    serious = (error > np.maximum(0.1, 0.1 * d.truth)) & (error > 3 * d.efficient)
    return {
        **found, "ok or none found": said.mean(), "of these the interval covers": covered[said].mean(),
        "of these seriously off": serious[said].mean(), "of runs that are right they are said of": said[~serious].mean(),
        "all intervals cover": covered.mean(), "certificate above the truth": (d.lower_bound > d.truth).mean(),
        "seconds": d.seconds.median(),
    }  # fmt: skip


def summary(files: list[Path], against: list[Path]) -> None:
    d = pd.concat([pd.read_csv(f) for f in files], ignore_index=True)
    table = pd.DataFrame({key: figures(part) for key, part in d.groupby(["half", "effort", "n"])})
    print(table.to_string(float_format="%.3f"))
    if "verdict" in d:
        said = d[d.verdict.isin(SAID)]
        covered = ((said.low <= said.truth) & (said.truth <= said.high)).groupby([said.half, said.family])
        print("\nfamilies, sizes pooled: runs that say ok or none found, and the share whose interval covers")
        print(pd.DataFrame({"runs": covered.size(), "covers": covered.mean()}).to_string(float_format="%.2f"))
    for file in against:
        both = d.merge(pd.read_csv(file), on=["task", "n"], suffixes=("", "_other"))
        ratio = (both.mi - both.truth).abs() / (both.mi_other - both.truth).abs().clip(lower=1e-9)
        for (half, effort, n), r in ratio[both.truth > WEAK].groupby([both.half, both.effort, both.n]):
            print(
                f"{file.name}, {half} half, {effort}, {n} rows: median ratio of errors {r.median():.3f} ({len(r)} tasks)"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--half", choices=("first", "second"), required=True)
    one.add_argument("--rows", type=int, required=True)
    one.add_argument("--count", type=int, default=100)
    one.add_argument("--effort", default="fast")
    one.add_argument("--estimator", choices=("flomi", "ksg"), default="flomi")
    one.add_argument("--options", default="{}", help="more options of flomi.estimate, as JSON")
    one.add_argument("--part", default="0/1", help="this process's share of the tasks")
    one.add_argument("--label", default="", help="kept in the file, such as the commit")
    one.add_argument("--out", type=Path, required=True)
    two = commands.add_parser("summary")
    two.add_argument("files", type=Path, nargs="+")
    two.add_argument("--against", type=Path, nargs="*", default=[])
    given = parser.parse_args()
    if given.command == "run":
        run(given)
    else:
        summary(given.files, given.against)


if __name__ == "__main__":
    main()
