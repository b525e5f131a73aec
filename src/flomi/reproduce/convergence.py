"""Does single-negative stochastic gradient ascent reach I from any start? On a table p(x, y), where all is known.

FLO's objective is jointly concave in the values of u and g, so with a free table for each, one pair and one negative a step
are enough: projected stochastic gradient ascent with steps ~ t^-0.6. Averaged iterates (later ones weigh more) should then
close the gap I - FLO at the rate 1/t, and the error of u at 1/sqrt(t). The paper's theorem treats the weight e^-u t as a
random step size, which it is not; concavity needs no such step (see docs/reproduce/convergence.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flomi.bounds import fenchel
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, panels, streams

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


SHAPE = (4, 5)  # values of x and of y
BOX = 3.0  # the projection: |g|, |u| <= 3 holds at the optimum, where |u| <= 1.6
RATE, DELAY, POWER = 0.5, 200, 0.6  # the step is RATE / (1 + t/DELAY)^POWER
BLOCK = 500  # steps whose rows are drawn at once


def distribution() -> Tensor:
    """p(x, y): every cell positive, between 0.01 and 0.2."""
    raw = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.softmax(raw.reshape(-1), 0).view(SHAPE)


def pointwise(p: Tensor) -> Tensor:
    """log p(x, y) / (p(x) p(y)) of each cell."""
    return (p / (p.sum(1, keepdim=True) * p.sum(0))).log()


def exact_flo(p: Tensor, g: Tensor, u: Tensor) -> Tensor:
    """E[1 - u - t e^-u] by summing over the table; g and u are [..., n_x, n_y]."""
    log_z = torch.logsumexp(g + p.sum(0).log(), -1, keepdim=True)
    return (p * fenchel(log_z - g, u)).sum((-1, -2))


def convergence(seed: int, *, starts: int, steps: int, spread: float = 1.0) -> Iterator[Row]:
    """Rows (start, step): the gap I - FLO of the averaged and of the last iterate, and max |u + PMI| of the average."""
    p = distribution()
    p_y, pmi = p.sum(0), pointwise(p)
    truth = float((p * pmi).sum())
    rng, generator = streams(seed, "convergence")
    g, u = spread * torch.randn(2, starts, *SHAPE, generator=generator, dtype=torch.float64)
    g.requires_grad_()
    u.requires_grad_()
    mean_g, mean_u, total = torch.zeros_like(g), torch.zeros_like(u), 0.0
    marks = set(np.unique(np.logspace(1, math.log10(steps), 9 * 3 + 1).round().astype(int)).tolist())
    which = torch.arange(starts)
    for t in range(1, steps + 1):
        if t % BLOCK == 1:
            cells = torch.as_tensor(rng.choice(p.numel(), (BLOCK, starts), p=p.reshape(-1).numpy()))
            negatives = torch.as_tensor(rng.choice(SHAPE[1], (BLOCK, starts), p=p_y.numpy()))
        k = t % BLOCK - 1
        i, j, other = cells[k] // SHAPE[1], cells[k] % SHAPE[1], negatives[k]  # x, y and the one negative
        value = fenchel(g[which, i, other] - g[which, i, j], u[which, i, j]).sum()  # starts are independent
        along_g, along_u = torch.autograd.grad(value, [g, u])
        rate = RATE / (1 + t / DELAY) ** POWER
        with torch.no_grad():
            g.add_(rate * along_g).clamp_(-BOX, BOX)
            u.add_(rate * along_u).clamp_(-BOX, BOX)
            total += t**2
            mean_g += (g - mean_g) * (t**2 / total)
            mean_u += (u - mean_u) * (t**2 / total)
            if t in marks:
                gap, last = truth - exact_flo(p, mean_g, mean_u), truth - exact_flo(p, g, u)
                worst = (mean_u + pmi).abs().amax((-1, -2))
                for start in range(starts):
                    yield {
                        "start": start,
                        "step": t,
                        "gap": float(gap[start]),
                        "gap_last": float(last[start]),
                        "error_u": float(worst[start]),
                        "truth": truth,
                    }


def slope(table: pd.DataFrame, column: str, octaves: float = 3.0) -> float:
    """Log-log slope of the median over starts, on the last `octaves` doublings of the steps."""
    median = table.groupby("step")[column].median()
    late = median[median.index >= median.index.max() / 2**octaves]
    return float(np.polyfit(np.log(late.index.to_numpy(float)), np.log(late.to_numpy()), 1)[0])


def draw(table: pd.DataFrame) -> Figure:
    """Gap and error of u against steps, a line for each start, with the rates as straight lines."""
    figure, axes = panels(1, 2, 4.4, 3.5)
    for ax, column, rate, title, error in (
        (axes[0], "gap", -1.0, "Gap to the truth, averaged iterate", "I - FLO (nats)"),
        (axes[1], "error_u", -0.5, "Error of the dual, averaged iterate", "max |u + PMI|"),
    ):
        for _, one in table.groupby("start"):
            ax.plot(one.step, one[column], color=COLOURS["flo"], lw=0.5, alpha=0.3)
        median = table.groupby("step")[column].median()
        label = f"median, slope {slope(table, column):.2f}"
        ax.plot(median.index, median, color=COLOURS["flo"], lw=2, label=label)
        end = float(median.index.max())
        line = np.array([end / 30, end])
        ax.plot(line, 2.5 * float(median.iloc[-1]) * (line / end) ** rate, color=COLOURS["truth"], ls="--", lw=1.2,
                label=f"slope {rate:g}")  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="steps, one pair and one negative each", ylabel=error)
        ax.set_title(title)
        ax.grid(True)
        ax.legend(loc="lower left")
    return figure


def compare(table: pd.DataFrame) -> list[Finding]:
    """Rates, and how far the worst start is at the end."""
    end = table[table.step == table.step.max()]
    truth = float(table.truth.iloc[0])
    return [
        Finding("rate of the gap I - FLO", "1/t at best, no numbers", f"t^{slope(table, 'gap'):.2f}"),
        Finding("rate of max |u + PMI|", "none given", f"t^{slope(table, 'error_u'):.2f}"),
        Finding(
            f"gap after {table.step.max():,} steps, median and worst of {len(end)} starts",
            "0 in the limit, any start",
            f"{end.gap.median():.1e} and {end.gap.max():.1e} of {truth:.3f}",
        ),
    ]


EXPERIMENT = Experiment(
    name="convergence",
    title="Single-negative gradient ascent on a table: error against steps, from many starts",
    paper="a theorem of convergence (Robbins-Monro), without an experiment",
    run=convergence,
    sizes={
        "full": {"starts": 100, "steps": 300_000},
        "quick": {"starts": 30, "steps": 60_000},
        "tiny": {"starts": 3, "steps": 800},
    },
    draw=draw,
    compare=compare,
)
