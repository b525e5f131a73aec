"""Why negatives must be derangements: the same training run with and without true pairs among the negatives.

The paper's recipe on 10 Gaussian pairs at rho = 0.99 (19.59 nats): joint critic 512 x 512 with heads g and u, Adam 1e-4,
batches of 128 fresh rows, one negative a row, 3,900 steps. A plain random permutation of the batch keeps one row in its
place on average. That one true pair in 128 negatives caps the trained bound at log 128 + 1 = 5.85 nats on clean
negatives; without it there is no cap. The permutation is a trap: it stands in this script only, not in the library.

Each trained critic is measured on 9,984 fresh rows, in two ways: "clean", 16 derangements of all rows, and "shuffled", one
plain permutation of each batch of 128, as in the paper.

    python benchmarks/derangements.py           # writes benchmarks/results/derangements.csv, 2 minutes on one core
    python benchmarks/derangements.py 3         # three seeds
"""

from __future__ import annotations

import csv
import datetime
import math
import platform
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from flomi import bounds
from flomi.bounds import Scores
from flomi.critics import JointCritic
from flomi.scores import Table, score

RESULTS = Path(__file__).parent / "results" / "derangements.csv"
PAIRS, RHO, BATCH, STEPS, RATE = 10, 0.99, 128, 3900, 1e-4
TRUTH = -PAIRS / 2 * math.log1p(-(RHO**2))
CAP = math.log(BATCH) + 1
EVALUATION = 78 * BATCH


def sample(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x, noise = torch.randn(2, n, PAIRS, generator=generator)
    return x, RHO * x + math.sqrt(1 - RHO**2) * noise


def scores(critic: JointCritic, x: Tensor, y: Tensor, negatives: str, generator: torch.Generator) -> Scores:
    """One negative a row: a derangement of the batch, or a plain permutation that may keep a row in its place."""
    if negatives == "derangements":
        return score(critic, x, y, "derangements", m=1, generator=generator)
    a, b = critic.encode(x, y)
    pos, u = critic.positives(a, b)
    return Scores(pos, Table(critic.pairs(a, b[torch.randperm(len(y), generator=generator)])[:, None]), u)


def trained(negatives: str, seed: int) -> JointCritic:
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    critic = JointCritic(PAIRS, PAIRS, hidden=(512, 512))
    optimiser = torch.optim.Adam(critic.parameters(), lr=RATE)
    for step in range(1, STEPS + 1):
        value = bounds.flo(scores(critic, *sample(BATCH, generator), negatives, generator)).mean()
        optimiser.zero_grad()
        (-value).backward()
        optimiser.step()
        if step % 1300 == 0:
            print(f"  {negatives}, seed {seed}, step {step}: {value.item():.2f} on this batch", flush=True)
    return critic


@torch.no_grad()
def measured(critic: JointCritic, evaluation: str, seed: int) -> tuple[float, float, float, float]:
    """Bound, its standard error, plug-in E[-u] and imbalance on fresh rows."""
    generator = torch.Generator().manual_seed(1_000_000 + seed)
    x, y = (v.double() for v in sample(EVALUATION, generator))
    critic = critic.double()
    if evaluation == "clean":
        parts = [score(critic, x, y, "derangements", m=16, generator=generator)]
    else:
        batches = zip(x.split(BATCH), y.split(BATCH), strict=True)
        parts = [scores(critic, a, b, "shuffled", generator) for a, b in batches]
    value = torch.cat([bounds.flo(s) for s in parts])
    plug_in = -torch.cat([s.need("u") for s in parts]).mean()
    stderr = value.std() / math.sqrt(len(value))
    return float(value.mean()), float(stderr), float(plug_in), float(plug_in - value.mean())


def main() -> None:
    """Every cell of the table, printed and written."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    about = {
        "command": " ".join(["python benchmarks/derangements.py", *sys.argv[1:]]),
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "date": str(datetime.date.today()),
    }
    rows = []
    for seed in range(seeds):
        for negatives in ("derangements", "shuffled"):
            start = time.perf_counter()
            critic = trained(negatives, seed)
            seconds = time.perf_counter() - start
            for evaluation in ("clean", "shuffled"):
                bound, stderr, plug_in, imbalance = measured(critic, evaluation, seed)
                print(
                    f"trained on {negatives}, evaluated {evaluation}: bound {bound:.2f} ± {stderr:.2f}, E[-u] {plug_in:.2f}"
                )
                rows.append(
                    {
                        "training": negatives,
                        "evaluation": evaluation,
                        "seed": seed,
                        "truth": f"{TRUTH:.3f}",
                        "cap": f"{CAP:.3f}" if negatives == "shuffled" else "",
                        "bound": f"{bound:.3f}",
                        "stderr": f"{stderr:.3f}",
                        "plug_in": f"{plug_in:.3f}",
                        "imbalance": f"{imbalance:.3g}",
                        "seconds": f"{seconds:.0f}",
                        **about,
                    }
                )
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"truth {TRUTH:.2f}; with shuffled training the bound cannot pass {CAP:.2f}; written to {RESULTS}")


if __name__ == "__main__":
    main()
