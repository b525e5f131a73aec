"""Bias of the in-sample Gaussian formula, before and after its small-sample correction, with and without rank transforms.

d pairs of Gaussian columns, each of correlation rho. Columns of the result, nats, means over runs less the truth:

    plug_in            -1/2 sum log(1 - r^2) of the data as they are
    digamma            less the exact expectation of log-determinants of Wishart matrices: its bias is 0
    rank_plug_in       the plug-in of normal scores of ranks
    rank_digamma       less the same term: no longer exact
    rank_corrected     less what ranks take off, to first order, too: the value that flomi reports

    python benchmarks/small_sample.py        # writes benchmarks/results/small_sample.csv, about 5 minutes on one core
"""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
import torch

import flomi
from flomi.critics.copula import EllipticalCritic, small_sample_bias

OUT = Path(__file__).parent / "results" / "small_sample.csv"
RUNS = {1: 400, 5: 200, 20: 100}


def canonical(x: np.ndarray, y: np.ndarray) -> float:
    """-1/2 sum log(1 - r^2) over the canonical correlations r."""
    bases = [np.linalg.qr(v - v.mean(axis=0))[0] for v in (x, y)]
    r = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    return float(-0.5 * np.log1p(-(r**2)).sum())


def cell(n: int, d: int, rho: float) -> dict[str, object]:
    truth, rng = -d / 2 * np.log1p(-(rho**2)), np.random.default_rng([n, d, round(100 * rho)])
    known = small_sample_bias(d, d, n - 1)[0]
    found = []
    for _ in range(RUNS[d]):
        x, noise = rng.normal(size=(2, n, d))
        y = rho * x + np.sqrt(1 - rho**2) * noise
        ranks = EllipticalCritic.fit(torch.from_numpy(x), torch.from_numpy(y)).formula
        raw, plug_in = canonical(x, y), ranks.mi + ranks.bias
        found.append([raw, raw - known, plug_in, plug_in - known, ranks.mi])
    errors = np.array(found) - truth
    names = ("plug_in", "digamma", "rank_plug_in", "rank_digamma", "rank_corrected")
    return {
        "n": n,
        "d": d,
        "rho": rho,
        "truth": truth,
        "runs": RUNS[d],
        **dict(zip(names, errors.mean(axis=0), strict=True)),
        "stderr": errors[:, 4].std() / np.sqrt(RUNS[d]),
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = [cell(n, d, rho) for n in (100, 300, 1000) for d in RUNS for rho in (0.0, 0.6) if n > 4 * d]
    frame = pd.DataFrame(rows)
    print(frame.round(4).to_string(index=False))
    frame["versions"] = (
        f"flomi {flomi.__version__}, torch {torch.__version__}, numpy {np.__version__}, scipy {scipy.__version__}, "
        f"python {platform.python_version()}"
    )
    frame["date"], frame["command"] = datetime.date.today().isoformat(), "python benchmarks/small_sample.py"
    OUT.parent.mkdir(exist_ok=True)
    frame.to_csv(OUT, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
