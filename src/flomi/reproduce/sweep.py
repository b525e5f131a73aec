"""Ten Gaussian pairs over the correlation grid (E3), with y rotated and cubed (E4), and with one negative a row (E5).

The figure of the paper at high MI plots caps, of three kinds. InfoNCE cannot pass log K, alpha-InfoNCE not 1 + log(K/alpha).
And where the negatives are a plain random permutation of the batch, one row in n stays in its place on average: a true pair
among the negatives, which caps FLO, NWJ and TUBA at log n + 1 = 5.85 nats at n = 128. `with_self_pairs` makes that mistake
on purpose, in training only; nothing else in flomi does. Every reading is on fresh rows with clean negatives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from flomi import tasks
from flomi.bounds import BOUNDS, Bound, Scores, i_alpha
from flomi.critics import JointCritic
from flomi.report.style import GREY
from flomi.reproduce.bivariate import GRID
from flomi.reproduce.core import Experiment, Finding, Row, colour, panels, records, streams, truth_line
from flomi.reproduce.fresh_rows import Scheme, derangements, fresh, learn, read
from flomi.scores import Table
from flomi.tasks import Task
from flomi.training.model import Model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


PAIRS, BATCH, ALPHA = 10, 128, 0.8
PLAIN = ("flo", "nwj", "tuba", "infonce")
LEAK_CAP = math.log(BATCH) + 1
USED: dict[str, Bound] = {
    **{name: BOUNDS[name] for name in PLAIN},
    f"i-alpha-{ALPHA}": replace(BOUNDS["i-alpha"], value=partial(i_alpha, alpha=ALPHA), cap=lambda m: 1 + math.log(m / ALPHA)),
}  # fmt: skip
SCATTERED = ("flo", "nwj")  # whose single rows are looked at
UNBIASED = ("flo", "nwj", "tuba")  # their value is the same at any number of negatives
READ_WITH = 64  # negatives a row for these: fewer only make the reading noisier
LABEL = {"flo": "FLO", "nwj": "NWJ", "tuba": "TUBA", "infonce": "InfoNCE",
         f"i-alpha-{ALPHA}": f"alpha-InfoNCE ({ALPHA})"}  # fmt: skip

EXPLAINED = "point: mean, side by side at one true MI; bar or band: lowest to highest decile of single rows"


class Block(NamedTuple):
    """Cells that are trained alike: K candidates, clean negatives or self-pairs among them."""

    k: int
    negatives: str  # "derangements" or "permutations"
    bounds: tuple[str, ...]
    rhos: tuple[float, ...]
    steps: int
    lr: float = 4e-4


def with_self_pairs(m: int) -> Scheme:
    """The trap: m plain random permutations of the batch, which leave one row of each in its place on average."""

    def scheme(model: Model, x: Tensor, y: Tensor, generator: torch.Generator) -> Scores:
        a, b = model.critic.encode(x, y)  # type: ignore[operator]
        columns = torch.stack([torch.randperm(len(y), generator=generator) for _ in range(m)], 1)
        pos, u = model.critic.positives(a, b)  # type: ignore[operator]
        return Scores(pos, Table(model.critic.pairs(a[:, None], b[columns]), columns), u, model.a(x))  # type: ignore[operator]

    return scheme


def pairs(rho: float, cubic: bool) -> Task:
    """Ten Gaussian pairs; `cubic` rotates y and cubes it, which leaves the MI as it is."""
    task = tasks.base.pairs(f"pairs-{rho}", (rho,) * PAIRS, PAIRS, PAIRS)
    if not cubic:
        return task
    rotation = tasks.transforms.random_rotation(PAIRS, seed=0)
    return task.transform(None, lambda y: (y @ rotation.T) ** 3, name=f"cubic-{task.name}")


def sweep(seed: int, *, blocks: Sequence[Block], width: int, n: int, cubic: bool = False) -> Iterator[Row]:
    """Rows (block, bound, rho): the reading on n fresh rows, and the deciles of single rows with K - 1 negatives."""
    for block in blocks:
        for name in block.bounds:
            bound = USED[name]
            m = block.k if bound.replaces else block.k - 1  # negatives that make K candidates
            for rho in block.rhos:
                task = pairs(rho, cubic)
                rng, generator = streams(seed, task.name, *block[:2], bound.name)
                model = Model(JointCritic(PAIRS, PAIRS, (width, width)), (PAIRS,), bound)
                scheme = (derangements if block.negatives == "derangements" else with_self_pairs)(m)
                rows = fresh(task, rng)
                learn(model, bound, rows, scheme, generator, steps=block.steps, batch=BATCH, lr=block.lr)
                at_k = read(model, bound, rows, n=n, block=n // 5, m=m)
                many = name in UNBIASED
                reading = read(model, bound, rows, n=n, block=n // 5, m=READ_WITH) if many else at_k
                leaks = block.negatives == "permutations" and many
                low, high = (float(at_k.each.quantile(q)) for q in (0.1, 0.9))
                yield {
                    "negatives": block.negatives,
                    "K": block.k,
                    "bound": name,
                    "rho": rho,
                    "truth": task.mi,
                    "cap": LEAK_CAP if leaks else bound.cap(m) if bound.cap else math.nan,
                    **reading.columns,
                    "row_std": float(at_k.each.std()),
                    "low_decile": low,
                    "high_decile": high,
                }


def draw(table: pd.DataFrame) -> Figure:
    """A panel for each way of training: values against the true MI, deciles of single rows, caps dotted.

    Two points are no curve: with fewer than three correlations there are markers and bars, side by side, else lines and bands.
    """
    kinds = list(table.groupby(["negatives", "K"], sort=False))
    columns = min(2, len(kinds))
    figure, axes = panels(-(-len(kinds) // columns), columns, 4.4, 3.5 if columns > 1 else 4.3)
    top = 1.05 * float(table.truth.max())
    for ax in axes[len(kinds) :]:
        ax.set_axis_off()
    for ax, ((negatives, k), part) in zip(axes, kinds, strict=False):
        truth_line(ax, [0, top], [0, top])
        names = list(part.bound.unique())
        for i, name in enumerate(names):
            one = part[part.bound == name]
            few = len(one) < 3
            shade, at = colour(name), one.truth + few * 0.014 * top * (i - (len(names) - 1) / 2)
            ax.plot(at, one.value, marker="o", ms=4, lw=0 if few else 1.4, color=shade, label=LABEL[name])
            low, high = one.low_decile.clip(-top, None), one.high_decile.clip(None, 2 * top)
            if few:
                ax.vlines(at, low, high, color=shade, alpha=0.4, lw=2.5)
            else:
                ax.fill_between(at, low, high, color=shade, alpha=0.12, lw=0)
        for cap in sorted(set(part.cap.dropna())):
            ax.axhline(cap, color=GREY, lw=0.9, ls=":")
            ax.text(1.01, cap, f"cap {cap:.2f}", transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        leak = "self-pairs in training" if negatives == "permutations" else "clean negatives"
        ax.set(xlabel="true MI (nats)", ylabel="nats", ylim=(-0.06 * top, top), title=f"K = {k}, {leak}")
        ax.set_xlim(0, top)
        ax.grid(axis="y")
    handles = {label: h for ax in axes for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    across, title = (6, EXPLAINED) if columns > 1 else (3, EXPLAINED.replace("; ", "\n"))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=across, title=title)
    return figure


def _at(table: pd.DataFrame, negatives: str, k: int, bound: str) -> pd.Series | None:
    """The row at the largest correlation, where the table has one."""
    rows = table[(table.negatives == negatives) & (table["K"] == k) & (table.bound == bound)]
    return None if rows.empty else rows.sort_values("rho").iloc[-1]


def _value(row: pd.Series) -> str:
    return f"{row.value:.2f} ± {row.stderr:.2f}"


def compare_at_the_top(table: pd.DataFrame, paper: dict[tuple[str, int], str], leaks: str) -> list[Finding]:
    """All values at the largest correlation; the paper's are set beside the training that it used (plain permutations)."""
    top = table.sort_values("rho").iloc[-1]
    findings = []
    for negatives, words in (("permutations", "self-pairs"), ("derangements", "clean")):
        for k in sorted(table.K.unique()):
            for name in USED:
                row = _at(table, negatives, k, name)
                if row is None:
                    continue
                cap = f", cap {row.cap:.2f}" if row.cap == row.cap else ""
                printed = paper.get((name, k), "") if negatives == leaks or name not in UNBIASED else ""
                findings.append(Finding(f"{LABEL[name]}, K = {k}, {words}{cap}", printed, _value(row)))
    return [Finding(f"truth at rho = {top.rho:g}", f"{top.truth:.2f}", f"{top.truth:.2f}"), *findings]


def compare_bias_variance(table: pd.DataFrame) -> list[Finding]:
    """The plateau and the ratio that shows it is an artefact."""
    about = "about 5.8"
    paper = {(name, k): about for name in UNBIASED for k in (5, 50)}
    paper |= {("infonce", 5): "1.6", ("infonce", 50): "3.9", ("i-alpha-0.8", 5): "2.8",
              ("i-alpha-0.8", 50): "5.1"}  # fmt: skip
    findings = compare_at_the_top(table, paper, "permutations")
    clean, leaky = (_at(table, how, 5, "flo") for how in ("derangements", "permutations"))
    if clean is not None and leaky is not None:
        ratio = clean.value / leaky.value
        what = "FLO, clean negatives over self-pairs"
        findings.append(Finding(what, "no such comparison", f"{ratio:.2f} times"))
    return findings


def compare_cubic(table: pd.DataFrame) -> list[Finding]:
    paper = {("flo", 5): "similar shapes, lower values than without"}
    return compare_at_the_top(table, paper, "derangements")


def compare_single_negative(table: pd.DataFrame) -> list[Finding]:
    """How wide the values of single rows scatter with one negative and with more: the tail (std) and the bulk (deciles).

    At the optimum a row's variance is Var[PMI] + (e^(2R) - 1)/m, e^(2R) = E_m[e^(2 PMI)] = (1 - rho^2)^-10 for these data.
    """
    findings = compare_at_the_top(table, {}, "derangements")
    for rho in sorted(table.rho.unique().tolist()):
        part = table[table.rho == rho]
        of_pmi, of_term = PAIRS * rho**2, (1 - rho**2) ** -PAIRS - 1  # variances, this with one negative
        counts = sorted(table.K.unique())
        theory = ", ".join(f"{math.sqrt(of_pmi + of_term / (k - 1)):.3g}" for k in counts)
        for name in SCATTERED:
            rows = records(part[part.bound == name].sort_values("K"))
            if not rows:
                continue
            tail = ", ".join(f"{row.row_std:.1f} at K = {row.K}" for row in rows)
            bulk = ", ".join(f"{row.high_decile - row.low_decile:.2f} at K = {row.K}" for row in rows)
            findings += [
                Finding(f"{LABEL[name]}, std of single rows, rho = {rho:g}",
                        f"much larger at K = 2 (text); at the optimum {theory}", tail),
                Finding(f"{LABEL[name]}, width of the deciles, rho = {rho:g}", "", bulk),
            ]  # fmt: skip
    return findings


ALL = tuple(USED)
SEVEN = tuple(GRID[i] for i in (0, 10, 12, 14, 16, 18, 19))
TWO = (GRID[16], GRID[19])
LOW = (GRID[10], GRID[19])  # where the scatter of the exponential term is seen, and the top
TINY = {"width": 16, "n": 500}


BIAS_VARIANCE = Experiment(
    name="bias-variance",
    title="Ten pairs up to 19.6 nats: the plateau is a leak, the rest are caps (E3)",
    paper="figure: 20-D, K = 5 and 50; at rho = 0.99 FLO, NWJ and TUBA alike at about 5.8, InfoNCE at log K",
    run=sweep,
    sizes={
        "full": {
            "blocks": [Block(k, how, ALL, SEVEN, steps) for k, steps in ((5, 3000), (50, 1500))
                       for how in ("permutations", "derangements")],
            "width": 128, "n": 10_000,
        },
        "quick": {
            "blocks": [
                Block(5, "permutations", UNBIASED, TWO, 1500),
                Block(50, "permutations", ("flo",), TWO[1:], 300, 2e-3),
                Block(5, "derangements", ALL, TWO, 1500),
                Block(50, "derangements", ("infonce", "i-alpha-0.8"), TWO[1:], 300, 2e-3),
            ],
            "width": 128, "n": 5000,
        },
        "tiny": {"blocks": [Block(5, "permutations", ("flo",), TWO, 5), Block(5, "derangements", ALL, TWO, 5)], **TINY},
    },
    draw=draw,
    compare=compare_bias_variance,
)  # fmt: skip

CUBIC = Experiment(
    name="cubic",
    title="The same with y rotated and cubed, which leaves the MI as it is (E4)",
    paper="figure: similar shapes, lower values",
    run=partial(sweep, cubic=True),
    sizes={
        "full": {"blocks": [Block(5, "derangements", ALL, SEVEN, 3000)], "width": 128, "n": 10_000},
        "quick": {"blocks": [Block(5, "derangements", ALL, TWO, 1200)], "width": 128, "n": 5000},
        "tiny": {"blocks": [Block(5, "derangements", ("flo", "infonce"), TWO, 5)], **TINY},
    },
    draw=draw,
    compare=compare_cubic,
)  # fmt: skip

SINGLE_NEGATIVE = Experiment(
    name="single-negative",
    title="One negative a row: single rows have a heavier tail, not a wider bulk (E5)",
    paper="text: with one negative the variance is much larger (no numbers)",
    run=sweep,
    sizes={
        "full": {
            "blocks": [Block(k, "derangements", ALL, SEVEN, 3000) for k in (2, 5)],
            "width": 128, "n": 10_000,
        },
        "quick": {
            "blocks": [Block(2, "derangements", ALL, LOW, 1200), Block(5, "derangements", ("flo", "nwj"), LOW, 1200)],
            "width": 128, "n": 5000,
        },
        "tiny": {"blocks": [Block(k, "derangements", ("flo", "infonce"), TWO, 5) for k in (2, 5)], **TINY},
    },
    draw=draw,
    compare=compare_single_negative,
)  # fmt: skip
