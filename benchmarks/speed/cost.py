"""How the cost grows: with rows n, columns d and negatives K a row. Prints the fitted exponents, and draws a figure of each.

    python benchmarks/speed/cost.py                       # about ten minutes of one core
    python benchmarks/speed/cost.py --only n --n 1000 10000 100000

n and d: `flomi.estimate` with networks trained by the bound, two folds, a fixed number of epochs, evaluation included. K: one
training step of 64 rows with K negatives that they share, on a network of the same size. An exponent is the slope of
log seconds over log size; that of the upper half of the sizes stands beside it, since what does not grow hides the lower one.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import Row, gaussian, parser, record

import flomi
from flomi import bounds, critics
from flomi.report.style import BLUE, GREY, STYLE
from flomi.scores import score

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
BATCH, EPOCHS, HIDDEN = 256, 1, (64, 64)
ROWS = 2000  # of the sweep over d
ANCHORS = 64


def estimate(n: int, d: int) -> float:
    """Seconds of one estimate."""
    x, y = gaussian(n, 2.0, seed=0, dim=d)
    steps = max(1, EPOCHS * round(0.4 * n) // BATCH)  # a fold trains on 0.8 of the other half
    start = time.process_time()
    flomi.estimate(
        x, y, critic="joint", effort="fast", n_folds=2, hidden=HIDDEN, batch_size=BATCH, steps=steps, patience=10**6
    )  # fmt: skip
    return time.process_time() - start


def step(k: int) -> float:
    """Seconds of a training step with k negatives, of many steps."""
    torch.manual_seed(0)
    critic, bound = critics.JointCritic(20, 20, HIDDEN), bounds.get("flo")
    optimiser = torch.optim.AdamW(critic.parameters(), fused=True)
    x, y = torch.randn(2, ANCHORS, 20)
    others = torch.randn(k, 20)

    def one() -> None:
        optimiser.zero_grad(set_to_none=True)
        (-bound.maximise(score(critic, x, y, "given", y_neg=others))).backward()
        optimiser.step()

    one()
    repeats = max(3, min(50, 20_000 // k))
    start = time.process_time()
    for _ in range(repeats):
        one()
    return (time.process_time() - start) / repeats


def exponent(sizes: list[int], seconds: list[float]) -> tuple[float, float]:
    """Slope over all sizes, and over the upper half of them (three at least)."""

    def slope(k: int) -> float:
        return float(np.polyfit(np.log(sizes[k:]), np.log(seconds[k:]), 1)[0])

    return slope(0), slope(max(0, min(len(sizes) - 3, len(sizes) // 2)))


def draw(what: str, label: str, sizes: list[int], seconds: list[float], slopes: tuple[float, float]) -> None:
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(4.2, 3.2), layout="constrained")
        axes.loglog(sizes, seconds, "o-", color=BLUE)
        last = np.array(sizes[max(0, min(len(sizes) - 3, len(sizes) // 2)) :], float)
        axes.loglog(last, seconds[-1] * last / last[-1], "--", color=GREY, label="exponent 1")
        axes.set(
            xlabel=label,
            ylabel="seconds of a core",
            title=f"exponent {slopes[0]:.2f}; upper half {slopes[1]:.2f}",
        )
        axes.legend()
        FIGURES.mkdir(parents=True, exist_ok=True)
        figure.savefig(FIGURES / f"cost-{what}.png", dpi=150)
        plt.close(figure)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--only", choices=("n", "d", "k"))
    made.add_argument(
        "--n", type=int, nargs="+", default=[1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000]
    )
    made.add_argument("--d", type=int, nargs="+", default=[1, 3, 10, 30, 100, 300, 1000])
    made.add_argument("--k", type=int, nargs="+", default=[4**p for p in range(7)])
    call = made.parse_args()
    torch.set_num_threads(call.threads)
    sweeps: dict[str, tuple[str, list[int], Callable[[int], float], str]] = {
        "n": ("rows n (5 + 5 columns)", call.n, lambda n: estimate(n, 5), "<= 1.1"),
        "d": (f"columns d a side ({ROWS:,} rows)", call.d, lambda d: estimate(ROWS, d), ""),
        "k": (f"negatives K a row ({ANCHORS} rows, one step)", call.k, step, ""),
    }
    estimate(300, 2)  # what is loaded on the first call
    rows = list[Row]()
    for what, (label, sizes, cost, target) in sweeps.items():
        if call.only not in (None, what):
            continue
        seconds = []
        for size in sizes:
            seconds.append(cost(size))
            print(f"{what} = {size}: {seconds[-1]:.4g} s", flush=True)
            rows.append((what, f"{what} = {size}", seconds[-1], "s", ""))
        if len(sizes) < 3:
            continue
        slopes = exponent(sizes, seconds)
        for quantity, value in zip(("exponent", "exponent, upper half"), slopes, strict=True):
            rows.append((what, quantity, value, "", target))
        draw(what, label, sizes, seconds, slopes)
    about = {"flomi": flomi.__version__, "torch": torch.__version__, "python": platform.python_version()}
    record(rows, about, call)


if __name__ == "__main__":
    main()
