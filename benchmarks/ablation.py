"""What each part of critic="auto" is worth: the 40 tasks at 5,000 rows, effort="fast", with one part switched off at a time.

    python benchmarks/ablation.py [--jobs 2]       # writes benchmarks/results/ablation.csv; resumes where it was stopped

"as bound" is no variant of the method: it takes the held-out FLO bound of the full run for the estimate.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pandas as pd
from joblib import Parallel, delayed

OUT = Path(__file__).parent / "results" / "ablation.csv"
SIZE, SEED = 5000, 0
CRITICS = ("student", "regression", "matched", "local", "residual")
VARIANTS = ("all", *(f"no {name}" for name in CRITICS), "no ranks", "no correction", "no cap")


@contextlib.contextmanager
def switched_off(variant: str) -> Iterator[None]:
    """flomi without one of its parts, inside the block."""
    import torch

    from flomi.critics import base, features
    from flomi.critics import copula as closed_form
    from flomi.critics import kernel_density as local_ratio
    from flomi.critics import kernel_ridge as regression
    from flomi.critics import paired_columns as matched
    from flomi.crossfit import fold as candidates
    from flomi.preprocess import Standardize

    with contextlib.ExitStack() as stack:

        def patch(module: object, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(module, name, value))

        part = variant.removeprefix("no ")
        if part in CRITICS:
            whole = candidates.contenders

            def fewer(*arguments: object) -> tuple[str, ...]:
                names = whole(*arguments)  # type: ignore[arg-type]
                # without the local critic one column against one is a case like any other
                names = (*names, "residual") if part == "local" and "residual" not in names else names
                return tuple(name for name in names if name != part)

            patch(candidates, "contenders", fewer)
        elif part == "ranks":
            for module in (closed_form, features, local_ratio, matched, regression):
                patch(module, "RankNormal", Standardize)
        elif part == "correction":
            patch(closed_form, "small_sample_bias", lambda p, q, dof: (0.0, p * q / dof**2 / 2))
            patch(closed_form, "_rank_loss", lambda *arguments: 0.0)
        elif part == "cap":
            patch(base, "truncation_level", lambda g, positive: torch.tensor(torch.inf, dtype=positive.dtype))
        else:
            assert variant == "all"
        yield


def cell(variant: str, task: str) -> dict[str, object]:
    import torch

    import flomi
    from flomi import tasks

    torch.set_num_threads(1)
    target = tasks.get(task)
    with switched_off(variant):
        r = flomi.estimate(*target.sample(SIZE, SEED), effort="fast", seed=SEED)
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
