"""The staircase: 2, 4, 6, 8 and 10 nats in 20 + 20 dimensions, every bound of the table on one critic.

Training goes on over the stairs, a fixed number of steps each on batches of 64 fresh rows with all pairs, as in Poole et al.
2019. The critic is a quadratic form, whose family holds the PMI of these data exactly: what is seen is the bound, not the
network. Bounds that train alike (JS, SMILE, GAN-DIME) share a critic.

FLO is shown a second time with a warm start, the recipe that we recommend at high MI: the critic learns the Jensen-Shannon
objective, whose gradients are bounded, u starts at -g, and both finish on FLO with large batches. Then bound and plug-in are
read on fresh rows. The exponential term of the bound needs about e^(2I) pairs, 5e8 at 10 nats: the effective number of pairs
says how far the reading can be relied on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from flomi import tasks
from flomi.bounds import BOUNDS, Bound, Scores
from flomi.critics import ConditionalGaussian, QuadraticCritic
from flomi.report.style import GREY
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, panels, records, streams
from flomi.reproduce.fresh_rows import Stream, every_pair, fresh, learn, read
from flomi.scores import Dense
from flomi.training.model import Model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DIM, BATCH, LR = 20, 64, 1e-3
COMPARED = ("flo", "nwj", "tuba", "dv", "infonce", "js", "smile", "fdv", "doe")  # with the same budget
WARM = "flo, warm"
UNREAD = ("stderr", "plug_in", "effective_pairs")  # of a training curve
SMOOTH = 40  # points of a curve in each stair; each is the mean of the steps since the last


def alike() -> list[list[Bound]]:
    """The bounds in groups that train alike: the same objective, the same needs, the same state.

    >>> [[b.name for b in group] for group in alike()][0]
    ['flo']
    """
    groups: dict[object, list[Bound]] = {}
    for bound in BOUNDS.values():
        key = (bound.objective or bound.value, bound.needs - {"marginal"}, bound.state)
        groups.setdefault(key, []).append(bound)
    return list(groups.values())


def critic_for(bound: Bound) -> nn.Module:
    """A quadratic form; a conditional Gaussian for density bounds, with the known p(y) where the bound needs it."""
    if "density" not in bound.needs:
        return QuadraticCritic(DIM, DIM)
    known = _log_standard_normal if bound.known_marginal else None
    return ConditionalGaussian(DIM, DIM, hidden=(64,), log_marginal=known)


def _log_standard_normal(y: Tensor) -> Tensor:
    return -0.5 * (y.square() + math.log(2 * math.pi)).sum(-1)


def staircase(seed: int, *, steps: int, warm_steps: int, n: int) -> Iterator[Row]:
    """Rows of two kinds: "training", a point of a smoothed curve; "fresh", what the critic reads at the end of a stair.

    The warm start is read on n fresh rows, all others, which are less in need of it, on a quarter of them.
    """
    stairs = tasks.suite("staircase")
    for group in alike():
        rng, generator = streams(seed, "staircase", group[0].name)
        model = Model(critic_for(group[0]), (DIM,), group[0])
        for i, task in enumerate(stairs):
            rows = fresh(task, rng)
            curves = _Curves(group, steps)
            learn(
                model, group[0], rows, curves.scheme, generator, steps=steps, batch=BATCH, lr=LR, decay=False
            )
            for bound in group:
                where = {"bound": bound.name, "side": bound.side}
                for step, value in curves.smooth(bound.name):
                    point = {"truth": task.mi, "step": i * steps + step, "value": value}
                    yield {**where, "kind": "training", **point, **dict.fromkeys(UNREAD, math.nan)}
                end = {"kind": "fresh", "truth": task.mi, "step": (i + 1) * steps}
                yield {**where, **end, **_read(model, bound, rows, n // 4, BATCH)}
    yield from warm_flo(seed, steps=warm_steps, n=n)


def warm_flo(seed: int, *, steps: int, n: int) -> Iterator[Row]:
    """FLO with a warm start: g by the Jensen-Shannon objective, u from -g, then both by FLO."""
    rng, generator = streams(seed, "staircase", WARM)
    js, flo = BOUNDS["js"], BOUNDS["flo"]
    model = Model(QuadraticCritic(DIM, DIM), (DIM,), flo)
    for task in tasks.suite("staircase"):
        rows = fresh(task, rng)
        learn(model, js, rows, every_pair, generator, steps=steps, batch=128, lr=3e-3)
        with torch.no_grad():
            for weight in model.critic.parameters():  # [g's, u's]
                weight[1] = -weight[0]
        learn(model, flo, rows, every_pair, generator, steps=steps // 20, batch=1024, lr=1e-3)
        where = {"bound": WARM, "side": flo.side, "kind": "fresh", "truth": task.mi, "step": 0}
        yield {**where, **_read(model, flo, rows, n, block=min(2000, n))}


class _Curves:
    """Values of several bounds on the same training batches: a scheme that writes down what it sees."""

    def __init__(self, group: list[Bound], steps: int) -> None:
        self.every = max(1, steps // SMOOTH)
        self.group = group
        self.values: dict[str, list[float]] = {bound.name: [] for bound in group}

    def scheme(self, model: Model, x: Tensor, y: Tensor, generator: torch.Generator) -> Scores:
        s = every_pair(model, x, y, generator)
        with torch.no_grad():
            for bound in self.group:
                self.values[bound.name].append(bound.value(s).mean().item())
        return s

    def smooth(self, name: str) -> Iterator[tuple[int, float]]:
        values = np.array(self.values[name])
        for end in range(self.every, len(values) + 1, self.every):
            yield end, float(np.mean(values[end - self.every : end]))


def _read(model: Model, bound: Bound, rows: Stream, n: int, block: int) -> Row:
    """Bound and plug-in on n fresh rows in blocks, with the effective number of pairs of FLO's exponential term."""
    sums, squares = 0.0, 0.0

    def watch(s: Scores) -> None:
        nonlocal sums, squares
        assert isinstance(s.negatives, Dense)  # every pair
        g = s.negatives.matrix.double()
        weight = torch.exp(g - s.pos[:, None] - s.need("u")[:, None]).fill_diagonal_(0)
        sums, squares = sums + float(weight.sum()), squares + float(weight.square().sum())

    found = read(model, bound, rows, n=n, block=block, watch=watch if "u" in bound.needs else None)
    return {**found.columns, "effective_pairs": sums**2 / squares if squares else math.nan}


def draw(table: pd.DataFrame) -> Figure:
    """A small panel for each bound, and one for FLO on fresh rows."""
    training = table[table.kind == "training"]
    names = list(training.bound.unique())
    columns = 6
    figure, axes = panels(-(-(len(names) + 2) // columns), columns, 2.1, 1.75)
    stairs = sorted(training.truth.unique())
    length = training.step.max() / len(stairs)
    edges = np.repeat(np.arange(len(stairs) + 1) * length, 2)[1:-1]
    for ax, name in zip(axes, names, strict=False):
        part = training[training.bound == name].sort_values("step")
        side = part.side.iloc[0]
        shade = {"lower": COLOURS["flo"], "upper": COLOURS["infonce"], "none": COLOURS["nwj"]}[side]
        ax.plot(edges, np.repeat(stairs, 2), color=COLOURS["truth"], lw=1, ls="--")
        ax.axhline(math.log(BATCH), color=GREY, lw=0.8, ls=":")
        ax.plot(part.step, part.value.clip(-2, 20), color=shade, lw=1.1)
        end = table[(table.kind == "fresh") & (table.bound == name)]
        ax.plot(end.step, end.value.clip(-2, 20), "o", color=shade, ms=3)
        ax.set_title(str(name), fontsize=9)
    ax = axes[len(names)]
    ax.plot(edges, np.repeat(stairs, 2), color=COLOURS["truth"], lw=1, ls="--")
    warm = table[table.bound == WARM]
    at = (np.arange(len(stairs)) + 0.5) * length
    ax.errorbar(at, warm.value, 2 * warm.stderr, fmt="o", ms=3.5, color=COLOURS["flo"], capsize=2)
    ax.plot(at, warm.plug_in, "D", ms=3.5, mfc="none", color=COLOURS["infonce"])
    ax.set_title("flo, warm start", fontsize=9)
    for i, ax in enumerate(axes):
        if i > len(names):
            ax.set_axis_off()
            continue
        ax.set_ylim(-0.5, 13)
        ax.set_yticks(stairs)
        ax.set_xticks([])
        ax.tick_params(labelsize=7)
    _legend(axes[len(names) + 1])
    figure.supylabel("nats", fontsize=9)
    figure.supxlabel("training steps: 2, 4, 6, 8 and 10 nats in turn", fontsize=9)
    return figure


def _legend(ax: Axes) -> None:
    from matplotlib.lines import Line2D

    entries = [
        Line2D([], [], color=COLOURS["truth"], ls="--", lw=1, label="truth"),
        Line2D([], [], color=GREY, ls=":", lw=1, label=f"log {BATCH}"),
        Line2D([], [], color=COLOURS["flo"], label="lower bound"),
        Line2D([], [], color=COLOURS["infonce"], label="upper bound"),
        Line2D([], [], color=COLOURS["nwj"], label="no bound"),
        Line2D([], [], color=COLOURS["flo"], marker="o", ls="", ms=4, label="on fresh rows"),
        Line2D([], [], color=COLOURS["infonce"], marker="D", mfc="none", ls="", ms=4, label="plug-in"),
    ]
    ax.legend(handles=entries, loc="center left", fontsize=7)


def compare(table: pd.DataFrame) -> list[Finding]:
    """FLO on fresh rows stair by stair; the caps; and the reason why the bound goes no further."""
    top = float(table.truth.max())
    end = table[(table.kind == "fresh") & (table.truth == top)].set_index("bound")
    findings = []
    for row in records(table[table.bound == WARM]):
        what = f"FLO, warm start, {row.truth:.0f} nats: plug-in, bound"
        off = f"{row.plug_in:.2f} ({row.plug_in / row.truth - 1:+.1%})"
        ours = f"{off}, {row.value:.2f} ± {row.stderr:.2f}"
        findings.append(Finding(what, f"{row.truth:.0f}, within 10 %", ours))
    what = f"pairs that the exponential term needs at {top:.0f} nats, and effective pairs here"
    needed = f"about e^(2I) = {math.exp(2 * top):.0e}"
    findings.append(Finding(what, needed, f"{end.effective_pairs[WARM]:.0f}"))
    for name in COMPARED:
        cap = BOUNDS[name].cap
        most = f"<= {cap(BATCH - 1):.2f}" if cap else f"{top:.0f}"
        what = f"{name}, same budget as all, {top:.0f} nats"
        findings.append(Finding(what, most, f"{end.value[name]:.2f}"))
    return findings


EXPERIMENT = Experiment(
    name="staircase",
    title="2 to 10 nats in 20 + 20 dimensions, every bound with one critic",
    paper="none; the field's standard (Poole et al. 2019): batches of 64, 4,000 steps a stair",
    run=staircase,
    sizes={
        "full": {"steps": 4000, "warm_steps": 4000, "n": 12_800},
        "quick": {"steps": 400, "warm_steps": 1500, "n": 8_000},
        "tiny": {"steps": 3, "warm_steps": 20, "n": 512},
    },
    draw=draw,
    compare=compare,
)
