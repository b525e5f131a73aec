"""What the network costs and buys: shared against separate (E6), bilinear speed (E7), depth (E8). Ten Gaussian pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from flomi import tasks
from flomi.bounds import BOUNDS, Scores
from flomi.critics import Critic, JointCritic, SeparableCritic, SeparateCritic
from flomi.report.style import GREY
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, panels, streams, truth_line
from flomi.reproduce.fresh_rows import Stream, derangements, fresh, learn, read, timed
from flomi.scores import Table, score
from flomi.scores import derangements as derangement_columns
from flomi.tasks import Task
from flomi.training.model import Model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


PAIRS, BATCH, EPOCH = 10, 128, 78  # 78 batches of 128 rows are the paper's epoch of 10,000
FLO = BOUNDS["flo"]
NETWORKS = {"joint": "one network, two heads", "separate": "separate networks"}
REACHED = 1.1  # nats, of 1.438: what the paper's curves are compared at


def pairs(rho: float) -> Task:
    """Ten Gaussian pairs."""
    return tasks.base.pairs(f"pairs-{rho}", (rho,) * PAIRS, PAIRS, PAIRS)


# E6 ------------------------------------------------------------------------------------------------------------------


def shared_vs_separate(
    seed: int, *, width: int, epochs: int, repeats: int, rates: Sequence[float], per_epoch: int, n: int
) -> Iterator[Row]:
    """Rows (critic, lr, repeat, epoch): the bound on n fresh rows, `per_epoch` times an epoch."""
    task = pairs(0.5)
    steps = EPOCH // per_epoch
    for lr in rates:
        for repeat in range(repeats):
            for name, kind in (("joint", JointCritic), ("separate", SeparateCritic)):
                rng, generator = streams(seed, "shared-vs-separate", repeat)  # both see the same rows
                model = Model(kind(PAIRS, PAIRS, (width, width)), (PAIRS,), FLO)
                found: list[float] = []

                def watch(step: int, _: float, model: Model = model, found: list[float] = found) -> None:
                    if step % steps == 0:
                        test = fresh(task, np.random.default_rng(0))  # the same rows each time
                        found.append(read(model, FLO, test, n=n, block=n, m=8).value)
                        model.train()

                learn(model, FLO, fresh(task, rng), derangements(1), generator, steps=steps * per_epoch * epochs,
                      batch=BATCH, lr=lr, decay=False, watch=watch)  # fmt: skip
                for part, value in enumerate(found, 1):
                    yield {"critic": name, "lr": lr, "repeat": repeat, "epoch": part / per_epoch,
                           "bound": value, "truth": task.mi}  # fmt: skip


def epochs_to(table: pd.DataFrame, critic: str, lr: float, level: float = REACHED) -> float:
    """The epoch from which on the curve stays at the level or above, by a straight line between readings; or NaN.

    The curve is the mean over repeats, then a running median of five readings (the two at each end as they are). Not the
    first crossing: the mean is noisy, may touch the level and fall back, and single bad readings come at any time.
    """
    part = table[(table.critic == critic) & (table.lr == lr)]
    mean = part.groupby("epoch").bound.mean()
    curve = mean.rolling(5, center=True).median().fillna(mean)
    epoch, bound = curve.index.to_numpy(float), curve.to_numpy()
    below = np.flatnonzero(bound < level)
    i = int(below[-1]) + 1 if below.size else 0  # the first reading of those that stay above
    if i == len(bound):
        return math.nan
    if i == 0:
        return float(epoch[0])
    return float(np.interp(level, bound[i - 1 : i + 1], epoch[i - 1 : i + 1]))


def draw_shared(table: pd.DataFrame) -> Figure:
    """Bound against epochs, mean and range over repeats."""
    rates = sorted(table.lr.unique(), reverse=True)
    figure, axes = panels(1, len(rates), 4.6, 3.5)
    shades = {"joint": COLOURS["flo"], "separate": COLOURS["infonce"]}
    for ax, lr in zip(axes, rates, strict=True):
        for name, part in table[table.lr == lr].groupby("critic"):
            curve = part.groupby("epoch").bound.agg(["mean", "min", "max"])
            ax.plot(curve.index, curve["mean"], color=shades[str(name)], lw=1.6, label=NETWORKS[str(name)])
            ax.fill_between(curve.index, curve["min"], curve["max"], color=shades[str(name)], alpha=0.2, lw=0)
        truth_line(ax, [0, table.epoch.max()], [table.truth.iloc[0]] * 2)
        ax.axhline(REACHED, color=GREY, lw=0.8, ls=":")
        ax.text(1.01, REACHED, f"{REACHED} nats", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        ax.set(xlabel="epoch of 78 batches", ylabel="FLO on fresh rows (nats)", ylim=(0, 1.6))
        ax.set_title(f"Learning rate {lr:g}")
        ax.grid(axis="y")
        ax.legend(loc="lower right")
    return figure


def compare_shared(table: pd.DataFrame) -> list[Finding]:
    """Epochs to 1.1 nats, their ratio, and where both end."""
    lr = float(table.lr.max())
    joint, separate = (epochs_to(table, name, lr) for name in ("joint", "separate"))
    mean = f"mean of {table.repeat.nunique()}"
    end = table[(table.epoch == table.epoch.max()) & (table.lr == lr)].groupby("critic").bound.mean()
    reached = f"epochs until the {mean} (smoothed) stays above {REACHED} nats"
    return [
        Finding(f"{reached}, joint", "by epoch 3", f"{joint:.1f}"),
        Finding(f"{reached}, separate", "by epoch 7", f"{separate:.1f}"),
        Finding("joint over separate", "about half", f"{joint / separate:.2f}"),
        Finding(
            f"bound after {table.epoch.max():g} epochs, joint and separate",
            "1.22 to 1.27 after 30",
            f"{end['joint']:.2f} and {end['separate']:.2f} of {table.truth.iloc[0]:.2f}",
        ),
    ]


# E7 ------------------------------------------------------------------------------------------------------------------


def bilinear_speed(
    seed: int, *, rows: int, candidates: Sequence[int], width: int, features: int, repeats: int
) -> Iterator[Row]:
    """Rows (critic, K): multiply-adds of an epoch over the same rows, counted, and its wall-clock seconds, measured.

    The joint critic takes batches of 128 and K - 1 derangements; the bilinear one batches of K and all pairs. An epoch's
    seconds are the median step's, times the steps of an epoch.
    """
    task = pairs(0.5)
    joint: Callable[..., Critic] = JointCritic
    bilinear = partial(SeparableCritic, features=features, unit_norm=True)
    for k in candidates:
        for name, kind, batch, m in (("joint", joint, BATCH, k - 1), ("bilinear", bilinear, k, None)):
            rng, generator = streams(seed, "bilinear-speed", name, k)
            critic = kind(PAIRS, PAIRS, (width, width))
            optimiser = torch.optim.Adam(critic.parameters(), lr=1e-4, fused=True)
            step = partial(_step, critic, optimiser, fresh(task, rng), batch, m, generator)
            with FlopCounterMode(display=False) as counter:
                step()
            steps = rows / batch
            slow = m is not None and k > 100  # seconds a step
            yield {
                "critic": name,
                "K": k,
                "batch": batch,
                "steps_an_epoch": round(steps, 2),
                "gflop_an_epoch": counter.get_total_flops() * steps / 1e9,
                "seconds_an_epoch": timed(step, 1 if slow else repeats) * steps,
            }


def _step(
    critic: Critic,
    optimiser: torch.optim.Optimizer,
    source: Stream,
    batch: int,
    m: int | None,
    generator: torch.Generator,
) -> None:
    """A step on all pairs of a batch, or with m negatives a row, drawn anew in blocks: m may exceed the batch's other rows."""
    x, y = source(batch)
    if m is None:
        value = FLO.value(score(critic, x, y, "all")).mean()
    else:
        blocks = [min(batch - 1, m - done) for done in range(0, m, batch - 1)]
        columns = torch.cat([derangement_columns(batch, size, generator) for size in blocks], 1)
        a, b = critic.encode(x, y)
        pos, u = critic.positives(a, b)
        value = FLO.value(Scores(pos, Table(critic.pairs(a[:, None], b[columns])), u)).mean()
    optimiser.zero_grad(set_to_none=True)
    (-value).backward()
    optimiser.step()


def draw_speed(table: pd.DataFrame) -> Figure:
    """Seconds and operations of an epoch against K."""
    figure, axes = panels(1, 2, 4.4, 3.4)
    shades = {"joint": COLOURS["infonce"], "bilinear": COLOURS["flo"]}
    for ax, column, title, label in (
        (axes[0], "seconds_an_epoch", "Time of an epoch", "seconds, one thread"),
        (axes[1], "gflop_an_epoch", "Operations of an epoch", "GFLOP"),
    ):
        for name, part in table.groupby("critic", sort=False):
            ax.plot(part.K, part[column], marker="o", ms=4, color=shades[str(name)], label=str(name))
        counts = sorted(table.K.unique())
        ax.set(xscale="log", yscale="log", xlabel="candidates K", ylabel=label)
        ax.set_xticks(counts, labels=[str(k) for k in counts])
        ax.minorticks_off()
        ax.set_title(title)
        ax.grid(True)
        ax.legend()
    return figure


def compare_speed(table: pd.DataFrame) -> list[Finding]:
    """Bilinear against joint at the largest K, and the growth of each with K."""
    seconds = table.pivot(index="K", columns="critic", values="seconds_an_epoch")
    work = table.pivot(index="K", columns="critic", values="gflop_an_epoch")
    low, high = seconds.index.min(), seconds.index.max()

    def ratio(what: pd.DataFrame) -> str:
        return f"1/{what.joint[high] / what.bilinear[high]:.0f}"

    def growth(what: pd.DataFrame, name: str) -> str:
        return f"{what[name][high] / what[name][low]:.2f} times"

    return [
        Finding(f"bilinear over joint at K = {high}, time", "1/14 (700 s of 9,500 s)", ratio(seconds)),
        Finding(f"bilinear over joint at K = {high}, operations", "", ratio(work)),
        Finding(f"joint, K = {low} to {high}, time", "30 times (315 to 9,500 s)", growth(seconds, "joint")),
        Finding(f"bilinear, K = {low} to {high}, time", "0.9 times (more epochs at large K)",
                growth(seconds, "bilinear")),
        Finding(f"bilinear, K = {low} to {high}, operations", "", growth(work, "bilinear")),
    ]  # fmt: skip


# E8 ------------------------------------------------------------------------------------------------------------------


def depth(
    seed: int,
    *,
    depths: Sequence[int],
    width: int,
    rhos: Sequence[float],
    rates: Sequence[float],
    steps: int,
    n: int,
) -> Iterator[Row]:
    """Rows (layers, rho, lr): the bound on n fresh rows. Without a hidden layer g = w x + v y + c knows no interaction.

    `rates` are those of networks; a linear critic, with its few weights, takes ten times as much. `lr` is the rate used.
    """
    for rho in rhos:
        task = pairs(rho)
        for lr in rates:
            for layers in depths:
                rng, generator = streams(seed, "depth", rho, lr, layers)
                model = Model(JointCritic(PAIRS, PAIRS, (width,) * layers), (PAIRS,), FLO)
                rows = fresh(task, rng)
                rate = lr if layers else 10 * lr
                learn(model, FLO, rows, derangements(1), generator, steps=steps, batch=BATCH, lr=rate)
                found = read(model, FLO, rows, n=n, block=n // 5, m=16)
                yield {"layers": layers, "rho": rho, "lr": rate, "truth": task.mi, **found.columns}


def draw_depth(table: pd.DataFrame) -> Figure:
    """Bound against the number of hidden layers, a panel for each correlation; the linear critic, at its own rate, apart."""
    rhos = sorted(table.rho.unique())
    figure, axes = panels(1, len(rhos), 3.4, 3.2)
    for ax, rho in zip(axes, rhos, strict=True):
        part = table[table.rho == rho]
        linear = part[part.layers == 0]
        rates = " and ".join(f"{lr:g}" for lr in linear.lr.unique())
        ax.plot(linear.layers, linear.value, "s", ms=5, mfc="none", color=COLOURS["truth"],
                label=f"linear, learning rate {rates}")  # fmt: skip
        for i, (lr, one) in enumerate(part[part.layers > 0].groupby("lr", sort=False)):
            ax.errorbar(one.layers, one.value, 2 * one.stderr, marker="o", ms=4, lw=1.3, capsize=2,
                        color=(COLOURS["flo"], COLOURS["infonce"])[i % 2], label=f"network, learning rate {lr:g}")  # fmt: skip
        layers = sorted(part.layers.unique())
        truth_line(ax, [layers[0], layers[-1]], [part.truth.iloc[0]] * 2)
        ax.set(xlabel="hidden layers", ylabel="FLO on fresh rows (nats)")
        ax.set_xticks(layers)
        ax.set_title(f"rho = {rho:g}")
        ax.grid(axis="y")
    axes[-1].legend(loc="lower right")
    return figure


def compare_depth(table: pd.DataFrame) -> list[Finding]:
    """What each depth reads, at the better rate."""
    findings = []
    for rho, part in table.groupby("rho"):
        best = part.groupby("layers").value.max()
        words = ", ".join(f"{layers}: {value:.2f}" for layers, value in best.items())
        what = f"rho = {rho:g} (truth {part.truth.iloc[0]:.2f}), by hidden layers"
        findings.append(Finding(what, "no numbers", words))
    linear = table[table.layers == 0].value.abs().max()
    last = Finding("linear critic, largest |value|", "must be 0: no interaction", f"{linear:.3f}")
    return [*findings, last]


# The records ---------------------------------------------------------------------------------------------------------

SHARED_VS_SEPARATE = Experiment(
    name="shared-vs-separate",
    title="One network with two heads learns in far fewer epochs than two networks (E6)",
    paper="figure: 20-D, rho = 0.5; joint passes 1.1 nats by epoch 3, separate by epoch 7",
    run=shared_vs_separate,
    sizes={
        "full": {"width": 512, "epochs": 30, "repeats": 10, "rates": (1e-3, 1e-4), "per_epoch": 3, "n": 4000},
        "quick": {"width": 256, "epochs": 16, "repeats": 3, "rates": (1e-3,), "per_epoch": 2, "n": 2000},
        "tiny": {"width": 16, "epochs": 1, "repeats": 1, "rates": (1e-3,), "per_epoch": 3, "n": 100},
    },
    draw=draw_shared,
    compare=compare_shared,
)

BILINEAR_SPEED = Experiment(
    name="bilinear-speed",
    title="A bilinear critic scores all pairs of a batch at the price of one pass (E7)",
    paper="figure: 20-D, K = 16 to 512; joint 315 to 9,500 s, bilinear 440 to 750 s",
    run=bilinear_speed,
    sizes={
        "full": {"rows": 10_000, "candidates": (16, 32, 64, 128, 256, 512), "width": 512, "features": 512, "repeats": 9},
        "quick": {"rows": 10_000, "candidates": (16, 64, 128, 512), "width": 512, "features": 512, "repeats": 7},
        "tiny": {"rows": 1000, "candidates": (4, 16), "width": 16, "features": 16, "repeats": 1},
    },
    draw=draw_speed,
    compare=compare_speed,
    timings=("seconds_an_epoch",),
)  # fmt: skip

DEPTH = Experiment(
    name="depth",
    title="Depth of the network; without a hidden layer there is nothing to see (E8)",
    paper="in the authors' code only, no numbers",
    run=depth,
    sizes={
        "full": {"depths": (0, 1, 2, 5), "width": 512, "rhos": (0.2, 0.5, 0.8), "rates": (1e-3, 1e-4), "steps": 3900,
                 "n": 10_000},
        "quick": {"depths": (0, 1, 2, 5), "width": 256, "rhos": (0.5, 0.8), "rates": (1e-3,), "steps": 1200,
                  "n": 5000},
        "tiny": {"depths": (0, 2), "width": 16, "rhos": (0.5,), "rates": (1e-2,), "steps": 100, "n": 1000},
    },
    draw=draw_depth,
    compare=compare_depth,
)  # fmt: skip
