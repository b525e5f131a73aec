"""Read in batches of 8 to 1,024 at equal numbers of pair evaluations: bias and variance of every bound, at 2 and 6 nats.

A batch of B rows has B (B - 1) pairs, so for the price of one batch of 1,024 there are 128^2 batches of 8. Each bound trains
its own critic once (a quadratic form, 20 + 20 Gaussian columns), and is then read on fresh batches of every size. Whether
the mean of many small batches is as good as one large batch depends on where the logarithm stands: FLO, NWJ and TUBA
are linear in the negatives, so only the variance changes; a logarithm of a mean over few negatives is biased.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.func import vmap

from flomi import tasks
from flomi.bounds import BOUNDS, Bound, Scores
from flomi.report.style import GREY
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, colour, panels, streams, ticks
from flomi.reproduce.fresh_rows import every_pair, fresh, learn
from flomi.reproduce.staircase import DIM, alike, critic_for
from flomi.scores import Dense
from flomi.training.model import Model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


NATS = (2, 6)
CHUNK = 2**19  # pairs at a time
TICKS = [digit * 10.0**power for power in range(-4, 3) for digit in (1, 2, 5)]  # of the spread
SHOWN = ("flo", "nwj", "tuba", "dv", "infonce", "i-alpha", "fdv")  # the others are in the table


@torch.no_grad()
def batch_values(model: Model, bounds: Sequence[Bound], x: Tensor, y: Tensor, batch: int) -> Tensor:
    """[bounds, batches] value of each bound on each batch of `batch` consecutive rows, with all pairs within it."""
    critic = model.critic

    def one(a: Tensor, b: Tensor, pos: Tensor, u: Tensor, base: Tensor, marginal: Tensor) -> Tensor:
        s = Scores(pos, Dense(critic.matrix(a, b)), u, base, marginal)  # type: ignore[operator]
        return torch.stack([bound.value(s).mean() for bound in bounds])

    a, b = critic.encode(x, y)  # type: ignore[operator]
    pos, u = critic.positives(a, b)  # type: ignore[operator]
    absent = torch.zeros_like(pos)
    marginal = model.marginal(y)
    parts = (a, b, pos, absent if u is None else u, model.a(x), absent if marginal is None else marginal)
    grouped = (part.unflatten(0, (-1, batch)) for part in parts)
    return vmap(one, chunk_size=max(1, CHUNK // batch**2))(*grouped).T


def batch_size(
    seed: int, *, batches: Sequence[int], steps: int, training_batch: int, pairs: int, at_least: int
) -> Iterator[Row]:
    """Rows (bound, nats, batch): bias of a batch's value, its spread, and the spread of an estimate from `pairs` pairs.

    Measured on `pairs` / batch^2 batches, but `at_least` so many.
    """
    for nats in NATS:
        task = tasks.get(f"staircase-{DIM}-{DIM}-{nats}")
        for group in alike():
            rng, generator = streams(seed, "batch-size", nats, group[0].name)
            rows = fresh(task, rng)
            model = Model(critic_for(group[0]), (DIM,), group[0])
            learn(model, group[0], rows, every_pair, generator, steps=steps, batch=training_batch, lr=3e-3)
            for batch in batches:
                count = max(at_least, pairs // batch**2)
                values = batch_values(model, group, *rows(count * batch), batch).double()
                for bound, found in zip(group, values, strict=True):
                    value, spread = float(found.mean()), float(found.std())
                    yield {
                        "bound": bound.name,
                        "side": bound.side,
                        "truth": task.mi,
                        "batch": batch,
                        "value": value,
                        "stderr": spread / math.sqrt(count),
                        "bias": value - task.mi,
                        "spread_of_a_batch": spread,
                        "spread_at_equal_pairs": spread / math.sqrt(pairs / batch**2),
                        "cap": bound.cap(batch - 1) if bound.cap else math.nan,
                    }


def draw(table: pd.DataFrame) -> Figure:
    """Value and spread at equal pairs against the batch, a row of panels for each MI."""
    truths = sorted(table.truth.unique())
    figure, axes = panels(len(truths), 2, 4.4, 3.0)
    batches = sorted(table.batch.unique())
    for i, truth in enumerate(truths):
        left, right = axes[2 * i : 2 * i + 2]
        for name in SHOWN:
            part = table[(table.truth == truth) & (table.bound == name)]
            style: dict[str, Any] = {"color": colour(name), "marker": "o", "ms": 3, "lw": 1.3}
            left.errorbar(part.batch, part.value, 2 * part.stderr, label=name, **style)
            right.plot(part.batch, part.spread_at_equal_pairs, **style)
        left.axhline(truth, color=COLOURS["truth"], ls=(0, (4, 2)), lw=1.2)
        left.plot(batches, [math.log(b) for b in batches], color=GREY, ls=":", lw=1, label="log B")
        left.set(ylabel="mean value (nats)", ylim=(0, 1.6 * truth), xscale="log")
        right.set(ylabel="std of an estimate (nats)", xscale="log", yscale="log")
        left.set_title(f"{truth:.0f} nats")
        right.set_title("at equal numbers of pairs")
        for ax in (left, right):
            ax.set(xlabel="batch size B")
            ticks(ax.xaxis, batches)
            ax.grid(True)
        spread = table[(table.truth == truth) & table.bound.isin(SHOWN)].spread_at_equal_pairs
        ticks(right.yaxis, (tick for tick in TICKS if 0.7 * spread.min() <= tick <= 1.4 * spread.max()))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=8)
    return figure


def compare(table: pd.DataFrame) -> list[Finding]:
    """Value at the smallest and the largest batch for every bound."""
    low, high = int(table.batch.min()), int(table.batch.max())
    findings = []
    for truth, part in table.groupby("truth"):
        for name, one in part.groupby("bound", sort=False):
            at = one.set_index("batch")
            cap = BOUNDS[str(name)].cap
            most = f"at most {cap(low - 1):.2f}, {cap(high - 1):.2f}" if cap else ""
            ours = [f"{at.value[b]:.2f} ± {at.spread_at_equal_pairs[b]:.2g}" for b in (low, high)]
            findings.append(Finding(f"{name}, {truth:.0f} nats: B = {low} and {high}", most, ", ".join(ours)))
    return findings


EXPERIMENT = Experiment(
    name="batch-size",
    title="Read in many small batches or few large ones, equal in pairs: bias and variance of every bound",
    paper="claim: FLO needs no large batch; InfoNCE does (no figure)",
    run=batch_size,
    sizes={
        "full": {"batches": (8, 16, 32, 64, 128, 256, 512, 1024), "steps": 2000, "training_batch": 256,
                 "pairs": 2**22, "at_least": 100},
        "quick": {"batches": (8, 32, 128, 512, 1024), "steps": 500, "training_batch": 256, "pairs": 2**20,
                  "at_least": 16},
        "tiny": {"batches": (8, 32), "steps": 5, "training_batch": 32, "pairs": 2**10, "at_least": 4},
    },
    draw=draw,
    compare=compare,
)  # fmt: skip
