"""How accurate `flomi.estimate(x, y)` is at its defaults, where the truth is known: error, coverage, certificate, verdict.

    python benchmarks/accuracy.py run SUITE [--sizes 1000 5000 10000] [--seeds 0 1] [--effort standard] [--critic auto] [--jobs 2]
    python benchmarks/accuracy.py summary

`run` adds one row a run to results/accuracy.csv (or to `--out FILE`), and skips what is there already, so it may be stopped
at any moment. Suites are those of `flomi.tasks`; "wild" holds distributions that no choice in the library was made on.
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
from joblib import Parallel, delayed

OUT = Path(__file__).parent / "results" / "accuracy.csv"
KEY = ["suite", "task", "n", "seed", "effort", "critic_asked"]


def cell(
    command: str, suite: str, task: str, n: int, seed: int, effort: str, critic: str
) -> dict[str, object]:
    """One run: a task's rows, the estimate at its defaults, and the truth."""
    import torch

    import flomi
    from flomi import tasks

    torch.set_num_threads(1)
    target = tasks.get(task)
    x, y = target.sample(n, seed)
    r = flomi.estimate(x, y, effort=effort, critic=critic, seed=seed)
    return {
        "suite": suite,
        "task": task,
        "n": n,
        "seed": seed,
        "effort": effort,
        "critic_asked": critic,
        "dim_x": r.dim_x,
        "dim_y": r.dim_y,
        "truth": target.mi,
        "mi": r.mi,
        "stderr": r.stderr,
        "low": r.ci[0],
        "high": r.ci[1],
        "lower_bound": r.lower_bound,
        "bound": r.bound,
        "plug_in": r.plug_in,
        "imbalance": r.imbalance,
        "critic": r.critic,
        "verdict": r.verdict,
        "warnings": " | ".join(r.warnings),
        "seconds": r.seconds,
        "versions": f"flomi {flomi.__version__}, torch {torch.__version__}, python {platform.python_version()}",
        "date": datetime.date.today().isoformat(),
        "command": command,
    }


def run(arguments: argparse.Namespace) -> None:
    from flomi import tasks

    done = set()
    out: Path = arguments.out
    if out.exists():
        done = set(pd.read_csv(out)[KEY].itertuples(index=False, name=None))
    wanted = [
        (arguments.suite, task.name, n, seed, arguments.effort, arguments.critic)
        for seed in arguments.seeds
        for n in arguments.sizes
        for task in tasks.suite(arguments.suite)
    ]
    wanted = [key for key in wanted if key not in done]
    command = f"python benchmarks/accuracy.py run {arguments.suite} --effort {arguments.effort} --critic {arguments.critic}"
    results = Parallel(n_jobs=arguments.jobs, return_as="generator_unordered")(
        delayed(cell)(command, *key) for key in wanted
    )
    for i, row in enumerate(results, 1):
        pd.DataFrame([row]).round(5).to_csv(out, mode="a", header=not out.exists(), index=False)
        error = row["mi"] - row["truth"]
        print(
            f"{i}/{len(wanted)} {row['task']} n={row['n']} seed={row['seed']}: {row['mi']:.3f} ± {row['stderr']:.3f}, "
            f"truth {row['truth']:.3f}, error {error:+.3f}, at least {row['lower_bound']:.3f}, {row['critic']}, "
            f"{row['verdict']}, {row['seconds']:.0f} s",
            flush=True,
        )


def summary(file: Path) -> None:
    """Tables by suite, size, effort and critic."""
    frame = pd.read_csv(file)
    frame["error"] = frame.mi - frame.truth
    frame["absolute"] = frame.error.abs()
    frame["covered"] = (frame.low <= frame.truth) & (frame.truth <= frame.high)
    frame["exceeded"] = frame.lower_bound > frame.truth
    frame["ok"] = frame.verdict == "ok"
    frame["serious"] = frame.absolute > np.maximum(0.1, 0.1 * frame.truth)
    frame["half_width"] = (frame.high - frame.low) / 2
    large = frame.truth >= 0.4
    frame["share"] = np.where(large, frame.lower_bound / frame.truth.where(large), np.nan)
    table = frame.groupby(["suite", "n", "effort", "critic_asked"]).agg(
        runs=("error", "size"),
        mean_error=("absolute", "mean"),
        bias=("error", "mean"),
        worst=("absolute", "max"),
        half_width=("half_width", "median"),
        coverage=("covered", "mean"),
        exceeded=("exceeded", "sum"),
        ok=("ok", "mean"),
        serious=("serious", "sum"),
        certificate_share=("share", "median"),
        seconds=("seconds", "median"),
    )
    print(table.round(4).to_string())
    ok, sound = frame[frame.ok], frame[~frame.serious]
    print(
        f"\nverdict ok: {len(ok)} of {len(frame)} runs; their intervals cover in {ok.covered.mean():.3f}; seriously off "
        f"{ok.serious.mean():.4f}, by more than four standard errors "
        f"{int((ok.serious & (ok.absolute > 4 * ok.stderr)).sum())}; "
        f"ok among the others {sound.ok.mean():.3f}"
    )
    for name, group in {
        "all runs": frame,
        "below 1 nat": frame[frame.truth < 1],
        "6 nats and more": frame[frame.truth >= 6],
        "1,000 rows": frame[frame.n == 1000],
    }.items():
        print(f"certificate above the truth, {name}: {int(group.exceeded.sum())} of {len(group)}")
    for (dim, n), cell in frame[frame.suite == "independence"].groupby(["dim_x", "n"]):
        print(
            f"independent, {dim} columns a side, {n} rows: mean {cell.mi.mean():+.4f} (standard error "
            f"{cell.mi.sem():.4f}), interval above 0 in {int((cell.low > 0).sum())} of {len(cell)}"
        )
    by_task = frame[frame.suite == "bmi-v1"].pivot_table(
        index="task", columns=["effort", "n"], values="absolute"
    )
    print(by_task.round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    runner = commands.add_parser("run")
    runner.add_argument("suite")
    runner.add_argument("--sizes", type=int, nargs="+", default=[1000, 5000, 10000])
    runner.add_argument("--seeds", type=int, nargs="+", default=[0])
    runner.add_argument("--effort", default="standard")
    runner.add_argument("--critic", default="auto")
    runner.add_argument("--jobs", type=int, default=2)
    summariser = commands.add_parser("summary")
    for command in (runner, summariser):
        command.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments)
    else:
        summary(arguments.out)


if __name__ == "__main__":
    main()
