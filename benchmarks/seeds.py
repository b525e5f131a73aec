"""An experiment of `flomi reproduce` with several seeds: each seed's table kept apart, and one table and figure of all.

    python benchmarks/seeds.py cross-view --seeds 0 1 2 3 4      # full size; goes on where it was stopped, a seed at a time
    python benchmarks/seeds.py self-supervised --quick --out results

Seed S goes to OUT/seeds/S as `flomi reproduce NAME --seed S` writes it, all together to OUT. A seed that OUT has already, of
this size and version, is not run again, so several processes may share the work, each with other seeds. For experiments
whose table has a column "seed", which their figures and findings are then averaged over.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import pandas as pd

from flomi.reproduce import EXPERIMENTS, is_complete, run, write

RESULTS = Path(__file__).parent / "results" / "reproduce" / "full"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    call = parser.parse_args()
    experiment, size = EXPERIMENTS[call.name], "quick" if call.quick else "full"
    tables, about = [], {"experiment": call.name, "size": size}
    for seed in call.seeds:
        folder = call.out / "seeds" / str(seed)
        if not is_complete(experiment, folder, size, seed):
            folder.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            table = run(experiment, size, seed)
            seconds = round(time.perf_counter() - start, 1)
            command = f"flomi reproduce {call.name}{' --quick' * call.quick} --seed {seed}"
            write(experiment, table, folder, {**about, "seed": seed, "command": command, "seconds": seconds})
            print(
                f"{call.name}, seed {seed}: {len(table)} rows in {seconds:.0f} s", file=sys.stderr, flush=True
            )
        tables.append(pd.read_csv(folder / f"{call.name}.csv"))
        if "seed" not in tables[-1]:
            parser.error(
                f"the table of {call.name} has no column seed, so several can't be told apart in one"
            )
    together = pd.concat(tables, ignore_index=True)
    shown = " ".join(map(str, call.seeds))
    command = f"python benchmarks/seeds.py {call.name}{' --quick' * call.quick} --seeds {shown}"
    write(experiment, together, call.out, {**about, "seeds": call.seeds, "command": command})
    for finding in experiment.compare(together):
        print(f"{finding.what}: {finding.ours}" + f"  (paper: {finding.paper})" * bool(finding.paper))
    return 0


if __name__ == "__main__":
    sys.exit(main())
