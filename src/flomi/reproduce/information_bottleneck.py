"""Information bottleneck on handwritten digits: what a code keeps of the class for what it tells of the image, by penalty.

Not an experiment of the paper. Every penalty has the same network, steps and weights beta; codes are judged on test rows, where
the known p(z | x) holds I(x; z) between two bounds, so that no penalty is judged by its own number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from flomi.applications.information_bottleneck import LEAKS, PENALTIES, fit, judge
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, colour, panels, records, streams

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


TASK = "none"
TRAINING = 1200  # of 1,797 rows
SHADES = {"kl": COLOURS["nwj"], **{name: colour(name) for name in LEAKS}}


def information_bottleneck(
    seed: int, *, penalties: Sequence[str], betas: Sequence[float], steps: int, batch: int
) -> Iterator[Row]:
    """Rows (penalty, beta): error and nats on test rows; the first has no penalty."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = torch.from_numpy(digits.data).float() / 16, torch.from_numpy(digits.target)
    rng, generator = streams(seed, "information-bottleneck")
    order = torch.randperm(len(x), generator=generator)
    train, test = order[:TRAINING], order[TRAINING:]
    start = int(rng.integers(2**31))  # the same weights, batches and noise for all
    for name, beta in [(TASK, 0.0), *((name, beta) for name in penalties for beta in betas)]:
        model = fit(x[train], y[train], PENALTIES.get(name), beta, steps=steps, batch=batch, seed=start)
        found = asdict(judge(model, x[test], y[test], seed=start))
        yield {"penalty": name, "beta": beta, "seed": seed, "steps": steps, "test_rows": len(test), **found}


def draw(table: pd.DataFrame) -> Figure:
    """I(z; y), test error and the variational bound against I(x; z), which is drawn between its two bounds."""
    figure, axes = panels(1, 3, 4.0, 3.3)
    labels = {
        "of_y": "I(z; y) in nats, at least",
        "error": "test error",
        "kl": "KL from the best Gaussian, nats",
    }
    for ax, (what, label) in zip(axes, labels.items(), strict=True):
        for name, part in table.groupby("penalty", sort=False):
            part = part.sort_values("of_x_least")
            shade = SHADES.get(str(name), COLOURS["truth"])
            ax.plot(part.of_x_least, part[what], "o-", ms=4, color=shade, label=name)
            most = part.of_x_most.clip(upper=table.of_x_least.max() + 1)  # without a penalty it has no limit
            ax.hlines(part[what], part.of_x_least, most, color=shade, lw=1)
        ax.set(xlabel="I(x; z) in nats, between its bounds", ylabel=label)
        ax.grid(True)
    low, high = 0.0, float(table.of_x_least.max())
    axes[2].plot([low, high], [low, high], color=COLOURS["truth"], lw=1, ls=(0, (4, 2)))
    axes[2].set_ylim(0, 2 * high)
    axes[0].legend(title="penalty")
    return figure  # fmt: skip


def compare(table: pd.DataFrame) -> list[Finding]:
    """Each model in a line."""
    return [
        Finding(
            f"penalty {row.penalty}, beta {row.beta:g}", "not shown",
            f"error {100 * row.error:.1f} %, I(z; y) >= {row.of_y:.2f}, I(x; z) from {row.of_x_least:.2f} to {row.of_x_most:.2f}",
        )
        for row in records(table)
    ]  # fmt: skip


EXPERIMENT = Experiment(
    name="information-bottleneck",
    title="Codes of a digit that keep its class and little else, by FLO, InfoNCE and KL",
    paper="no experiment of the paper; the variational bottleneck is that of Alemi et al. 2017",
    run=information_bottleneck,
    sizes={
        "full": {"penalties": tuple(PENALTIES), "betas": (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7), "steps": 1500, "batch": 128},
        "quick": {"penalties": tuple(PENALTIES), "betas": (0.03, 0.1, 0.3), "steps": 300, "batch": 128},
        "tiny": {"penalties": tuple(PENALTIES), "betas": (0.1,), "steps": 8, "batch": 32},
    },
    draw=draw,
    compare=compare,
)  # fmt: skip
