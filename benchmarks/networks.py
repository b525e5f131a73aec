"""Trained networks alone, against the truth: FLO's held-out bound on Gaussians, 10,000 rows, over all off-diagonal pairs.

The critic is "joint" (perceptron and quadratic form, two heads; every weight starts at random and is learned by gradient), and
everything else stands at its default. Writes results/networks.csv.

    python benchmarks/networks.py
"""

from __future__ import annotations

import datetime
import math
import platform
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import flomi

ROWS = 10_000
CASES = [(1, rho) for rho in (0.2, 0.5, 0.8, 0.95, 0.99)] + [(10, 0.5)]
OUT = Path(__file__).parent / "results" / "networks.csv"


def main() -> None:
    table = []
    for pairs, rho in CASES:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(ROWS, pairs))
        y = rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(ROWS, pairs))
        r = flomi.estimate(x, y, critic="joint", eval_pairs=10**9, progress=sys.stderr.isatty())
        truth = -pairs / 2 * math.log(1 - rho**2)
        table.append(
            {
                "dimensions": 2 * pairs,
                "rho": rho,
                "truth": truth,
                "bound": r.bound,
                "bound_stderr": r.bound_stderr,
                "error": r.bound - truth,
                "plug_in": r.plug_in,
                "imbalance": r.imbalance,
                "mi": r.mi,
                "lower_bound": r.lower_bound,
                "negatives_a_row": r.config["negatives_a_row"][0],
                "seconds": r.seconds,
                "verdict": r.verdict,
            }
        )
        print(pd.DataFrame(table).round(4).to_string(index=False), flush=True)
    frame = pd.DataFrame(table).assign(
        command="python benchmarks/networks.py",
        versions=f"flomi {flomi.__version__}, torch {torch.__version__}, python {platform.python_version()}",
        date=datetime.date.today().isoformat(),
    )
    OUT.parent.mkdir(exist_ok=True)
    frame.round(5).to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
