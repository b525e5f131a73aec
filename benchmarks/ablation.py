"""What each candidate of critic="auto" is worth: the 40 tasks at 5,000 rows, effort="fast", with one left out at a time.

    python benchmarks/ablation.py [--jobs 2]       # writes benchmarks/results/ablation.csv; resumes where it was stopped

"as bound" is no variant of the method: it takes the held-out FLO bound of the full run for the estimate. Rows of other variants
in ablation.csv (no ranks, no correction, no cap) were measured by patching flomi 0.1.0, and no option gives them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pandas as pd
from joblib import Parallel, delayed

OUT = Path(__file__).parent / "results" / "ablation.csv"
SIZE, SEED = 5000, 0
TRAINING = SIZE * 3 // 5  # of four folds three, of these four fifths
LEFT_OUT = ("student", "regression", "matched", "local", "residual")
VARIANTS = ("all", *(f"no {name}" for name in LEFT_OUT))


def candidates(variant: str, dim_x: int, dim_y: int) -> list[str]:
    """The default candidates for such rows, without the one that the variant leaves out."""
    from flomi.critics.table import TrainingRows, default_candidates

    rows = TrainingRows(TRAINING, dim_x, dim_y, continuous=True)
    names = list(default_candidates(rows, density=False, costly=False))
    left_out = variant.removeprefix("no ")
    if left_out == "local" in names:  # then one column against one is a case like any other
        names.append("residual")
    return [name for name in names if name != left_out]


def cell(variant: str, task: str) -> dict[str, object]:
    import torch

    import flomi
    from flomi import tasks

    torch.set_num_threads(1)
    target = tasks.get(task)
    names = candidates(variant, target.dim_x, target.dim_y)
    r = flomi.estimate(*target.sample(SIZE, SEED), critic=names, effort="fast", seed=SEED)
    return {
        "variant": variant, "task": task, "truth": target.mi, "mi": r.mi, "stderr": r.stderr, "bound": r.bound,
        "lower_bound": r.lower_bound, "critic": r.critic, "verdict": r.verdict, "seconds": r.seconds,
        "versions": f"flomi {flomi.__version__}, torch {torch.__version__}, python {platform.python_version()}",
        "date": datetime.date.today().isoformat(), "command": "python benchmarks/ablation.py",
    }  # fmt: skip


def main() -> None:
    from flomi import tasks

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.parent.mkdir(exist_ok=True)
    done = set()
    if out.exists():
        done = set(pd.read_csv(out)[["variant", "task"]].itertuples(index=False, name=None))
    names = [task.name for task in tasks.suite("bmi-v1")]
    wanted = [(variant, task) for variant in VARIANTS for task in names if (variant, task) not in done]
    rows = Parallel(n_jobs=arguments.jobs, return_as="generator_unordered")(delayed(cell)(*w) for w in wanted)
    for row in rows:
        pd.DataFrame([row]).to_csv(out, mode="a", header=not out.exists(), index=False, float_format="%.6g")

    frame = pd.read_csv(out)
    as_bound = frame[frame.variant == "all"].assign(variant="as bound", mi=lambda f: f.bound)
    frame = pd.concat([frame, as_bound])
    frame["error"] = frame.mi - frame.truth
    frame["absolute"] = frame.error.abs()
    frame["serious_ok"] = (frame.absolute > (0.1 * frame.truth).clip(lower=0.1)) & (frame.verdict == "ok")
    table = frame.groupby("variant", sort=False).agg(
        mean_error=("absolute", "mean"), bias=("error", "mean"), worst=("absolute", "max"),
        serious_but_ok=("serious_ok", "sum"), bound=("bound", "mean"),
        certificate=("lower_bound", "mean"), seconds=("seconds", "sum"),
    )  # fmt: skip
    print(table.round(4).to_string())


if __name__ == "__main__":
    main()
