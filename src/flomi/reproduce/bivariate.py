"""Two dimensions, where everything can be looked at: bound against truth (E1), and the landscapes of g and u (E2).

One Gaussian pair of correlation rho, I = -1/2 log(1 - rho^2). As in the paper, FLO has separate networks for g and u and one
negative a row; unlike there, the bound is read on all off-diagonal pairs of fresh rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from flomi import tasks
from flomi.bounds import BOUNDS
from flomi.critics import JointCritic, SeparateCritic
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, only, panels, records, streams, truth_line
from flomi.reproduce.fresh_rows import derangements, fresh, learn, read
from flomi.tasks import Task
from flomi.training.model import Model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


GRID = tuple(np.linspace(0, 0.99, 20).round(4).tolist())  # the paper's correlations
PAPER_INFONCE = {2: 0.58, 5: 1.2, 10: 1.5, 20: 1.7, 50: 1.85}  # at rho = 0.99, read off its figure


def pair(rho: float) -> Task:
    """One Gaussian pair."""
    return tasks.base.pairs(f"pair-{rho}", (rho,), 1, 1)


def trained_flo(task: Task, seed: int, width: int, steps: int, batch: int, lr: float) -> Model:
    """Separate g and u, one negative a row."""
    rng, generator = streams(seed, task.name, "flo")
    model = Model(SeparateCritic(1, 1, (width, width)), (1,), BOUNDS["flo"])
    learn(model, BOUNDS["flo"], fresh(task, rng), derangements(1), generator, steps=steps, batch=batch, lr=lr)
    return model


# E1 ------------------------------------------------------------------------------------------------------------------


def bound_vs_truth(
    seed: int,
    *,
    rhos: Sequence[float],
    candidates: Sequence[int],
    width: int,
    steps: int,
    infonce_steps: int,
    batch: int,
    n: int,
) -> Iterator[Row]:
    """Rows (rho, bound, K): the bound on n fresh rows, in blocks of 500. K candidates of InfoNCE, in training and reading."""
    for rho in rhos:
        task = pair(rho)
        flo = trained_flo(task, seed, width, steps, batch, lr=3e-3)
        rng, _ = streams(seed, task.name, "read")
        found = read(flo, BOUNDS["flo"], fresh(task, rng), n=n, block=500)
        yield {"rho": rho, "bound": "flo", "K": 2, "truth": task.mi, "cap": math.nan, **found.columns}
        for k in candidates:
            rng, generator = streams(seed, task.name, "infonce", k)
            bound = BOUNDS["infonce"]
            model = Model(JointCritic(1, 1, (width, width), heads=1), (1,), bound)
            rows = fresh(task, rng)
            learn(model, bound, rows, derangements(k - 1), generator, steps=infonce_steps, batch=128, lr=3e-3)
            found = read(model, bound, rows, n=n, block=500, m=k - 1)
            where = {"rho": rho, "bound": "infonce", "K": k, "truth": task.mi, "cap": math.log(k)}
            yield {**where, **found.columns}


def draw_bound_vs_truth(table: pd.DataFrame) -> Figure:
    """Value against rho, the caps of InfoNCE as dotted lines."""
    from matplotlib import colormaps

    figure, (ax,) = panels(1, 1, 5.6, 4.2)
    rho = np.linspace(0, table.rho.max(), 300)
    truth_line(ax, rho, -0.5 * np.log1p(-(rho**2)))
    flo = only(table, bound="flo")
    ax.errorbar(flo.rho, flo.value, 2 * flo.stderr, fmt="o", color=COLOURS["flo"], ms=5, zorder=5,
                label="FLO, 1 negative")  # fmt: skip
    others = only(table, bound="infonce")
    counts = sorted(others.K.unique())
    for i, k in enumerate(counts):
        part = others[others["K"] == k]
        shade = colormaps["Oranges"](0.9 - 0.5 * i / max(1, len(counts) - 1))
        ax.plot(part.rho, part.value, marker="s", ms=4, lw=0, color=shade, label=f"InfoNCE, K = {k}")
        if math.log(k) < 1.1 * table.truth.max():
            ax.axhline(math.log(k), color=shade, lw=0.9, ls=":")
            ax.text(0, math.log(k), f"log {k}", color=shade, va="bottom", fontsize=8)
    ax.set_ylim(-0.05, 1.12 * float(table.truth.max()))
    ax.set(xlabel="correlation", ylabel="nats", title="Bound against truth, one Gaussian pair")
    ax.legend(loc="upper left", bbox_to_anchor=(0.12, 1))
    return figure


def compare_bound_vs_truth(table: pd.DataFrame) -> list[Finding]:
    """FLO's largest error on the grid, and InfoNCE at rho = 0.99."""
    flo, top = only(table, bound="flo"), table[table.rho == table.rho.max()]
    error = (flo.value - flo.truth).abs()
    last = flo.iloc[-1]
    return [
        Finding(f"FLO at rho = {last.rho:g} (truth {last.truth:.3f})", "1.96", f"{last.value:.3f} ± {last.stderr:.3f}"),
        Finding(f"FLO, largest error over {len(flo)} values of rho", "on the curve", f"{error.max():.3f}"),
        *(
            Finding(f"InfoNCE, K = {row.K}, at rho = {row.rho:g} (cap {row.cap:.2f})",
                    f"{PAPER_INFONCE.get(int(row.K), math.nan):.2f}", f"{row.value:.2f}")
            for row in records(only(top, bound="infonce"))
        ),
    ]  # fmt: skip


# E2 ------------------------------------------------------------------------------------------------------------------


def landscape(seed: int, *, rho: float, width: int, steps: int, batch: int, spacing: float) -> Iterator[Row]:
    """Rows (x, y): the true PMI, -u and g on a grid over [-3, 3]^2, with the density p(x, y) there."""
    task = pair(rho)
    model = trained_flo(task, seed, width, steps, batch, lr=3e-3)
    side = np.arange(-3, 3 + spacing / 2, spacing)
    x, y = (part.reshape(-1, 1) for part in np.meshgrid(side, side, indexing="ij"))
    with torch.no_grad():
        tensors = (torch.as_tensor(part, dtype=torch.float32) for part in (x, y))
        g, u = model.critic.positives(*model.critic.encode(*tensors))  # type: ignore[operator]
    pmi = task.pmi(x, y)
    assert pmi is not None
    density = np.exp(pmi - (x[:, 0] ** 2 + y[:, 0] ** 2) / 2) / (2 * math.pi)
    places = x[:, 0].round(6).tolist(), y[:, 0].round(6).tolist()
    names = ("x", "y", "pmi", "minus_u", "g", "density")
    for cell in zip(*places, pmi.tolist(), (-u).tolist(), g.tolist(), density.tolist(), strict=True):
        yield dict(zip(names, cell, strict=True))


def draw_landscape(table: pd.DataFrame) -> Figure:
    """Contours of PMI, -u and g; and -u, g against the PMI of the same cells."""
    figure, axes = panels(1, 4, 3.1, 3.1)
    levels = np.arange(-4, 2.01, 0.5)
    titles = {"pmi": "PMI, the truth", "minus_u": "-u", "g": "g"}
    for ax, (column, title) in zip(axes, titles.items(), strict=False):
        square = table.pivot(index="y", columns="x", values=column)
        filled = ax.contourf(square.columns, square.index, square, levels=levels, cmap="RdBu", vmin=-2, vmax=2,
                             extend="both")  # fmt: skip
        weight = table.pivot(index="y", columns="x", values="density")
        ax.contour(
            weight.columns, weight.index, weight, levels=[0.005], colors=COLOURS["truth"], linewidths=0.8
        )
        ax.set(xlabel="x", ylabel="y" if column == "pmi" else "", aspect="equal", title=title)
    figure.colorbar(filled, ax=axes[:3], shrink=0.75, pad=0.01, label="nats", ticks=[-4, -3, -2, -1, 0, 1, 2])
    inside = table[table.density > 0.005]
    ax = axes[3]
    ax.scatter(inside.pmi, inside.g, s=4, color=COLOURS["infonce"], alpha=0.5, linewidths=0, label="g")
    ax.scatter(inside.pmi, inside.minus_u, s=4, color=COLOURS["flo"], alpha=0.7, linewidths=0, label="-u")
    ends = [inside.pmi.min(), inside.pmi.max()]
    ax.plot(ends, ends, color=COLOURS["truth"], lw=1, ls="--")
    ax.set(xlabel="PMI (nats)", ylabel="-u, g (nats)", title="Where p(x, y) > 0.005")
    ax.legend(markerscale=3)
    return figure


def compare_landscape(table: pd.DataFrame) -> list[Finding]:
    """Errors weighted by p(x, y): -u, g with one constant for all x, and g with a drift of its own for each x."""

    def rms(error: pd.Series) -> float:
        return float(np.sqrt(np.average(error**2, weights=table.density)))

    def centred(error: pd.Series, by: pd.Series | None = None) -> pd.Series:
        if by is None:
            return error - float(np.average(error, weights=table.density))
        total, weight = (error * table.density).groupby(by).sum(), table.density.groupby(by).sum()
        return error - by.map(total / weight)

    size = rms(centred(table.pmi))
    gap = table.g - table.pmi
    return [
        Finding("-u against PMI, r.m.s.", "match (visual)", f"{rms(table.minus_u - table.pmi):.3f} nats"),
        Finding("g - PMI, r.m.s. about a constant", "differs (visual)", f"{rms(centred(gap)):.3f} nats"),
        Finding(
            "g - PMI - c(x), r.m.s., c(x) free", "a drift in x", f"{rms(centred(gap, table.x)):.3f} nats"
        ),
        Finding("for scale: PMI itself, r.m.s. about its mean", "", f"{size:.3f} nats"),
    ]


# The records ---------------------------------------------------------------------------------------------------------

BOUND_VS_TRUTH = Experiment(
    name="bound-vs-truth",
    title="FLO with one negative lies on the truth, InfoNCE at its cap log K (E1)",
    paper="figure: 2-D, FLO on the true curve at all rho; InfoNCE below it, the more so the fewer candidates",
    run=bound_vs_truth,
    sizes={
        "full": {"rhos": GRID, "candidates": (2, 5, 10, 20, 50), "width": 64, "steps": 3000, "infonce_steps": 1500,
                 "batch": 512, "n": 20_000},
        "quick": {"rhos": (GRID[0], GRID[10], GRID[16], GRID[19]), "candidates": (2, 5, 20), "width": 64,
                  "steps": 1500, "infonce_steps": 500, "batch": 512, "n": 10_000},
        "tiny": {"rhos": (GRID[0], GRID[19]), "candidates": (2,), "width": 16, "steps": 20, "infonce_steps": 10,
                 "batch": 64, "n": 1000},
    },
    draw=draw_bound_vs_truth,
    compare=compare_bound_vs_truth,
)  # fmt: skip

LANDSCAPE = Experiment(
    name="landscape",
    title="-u is the pointwise MI, g has a drift in x (E2)",
    paper="figure: 2-D, rho = 0.5; contours of -u match those of the PMI, g differs by a drift in x",
    run=landscape,
    sizes={
        "full": {"rho": 0.5, "width": 64, "steps": 6000, "batch": 1024, "spacing": 0.1},
        "quick": {"rho": 0.5, "width": 64, "steps": 2500, "batch": 512, "spacing": 0.2},
        "tiny": {"rho": 0.5, "width": 16, "steps": 20, "batch": 64, "spacing": 1.0},
    },
    draw=draw_landscape,
    compare=compare_landscape,
)
