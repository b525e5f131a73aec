"""Fair classification (E11): error against the parity gap, and what a classifier finds of the sensitive attribute in z.

For every table of people, with the sensitive attribute s in x and without it, and for every method a model of each weight of
its penalty; weight 0 is one model for all methods. The same network, noise, steps, rates and weights for all; no run is left
out, and the last model of a run counts. A fifth of the training rows is kept from training: what is chosen, such as the weight
that brings the gap to 0.05, is chosen on them, and test rows only say how it went. Decisions are deterministic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from flomi.applications.data import tables
from flomi.applications.data.tables import People
from flomi.applications.fairness import LEAKS, PENALTIES, FairModel, fit, judge, parity_gap
from flomi.report.style import GREY
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, colour, panels, streams

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


TASK = "task alone"
MADE = "made"  # rows that are generated, for tests: no file is needed
DIM_Z, NOISE = 4, 1.0  # chosen on held-out rows: benchmarks/fairness_settings.py
Split: TypeAlias = tuple[People, People, People]


@dataclass(frozen=True)
class Cell:
    """One model: which table, whether x has s, method and weight of its penalty, and the seed of split and training."""

    table: str
    s_in_x: bool
    method: str
    weight: float
    seed: int


def evaluate(
    cell: Cell, people: Split, *, steps: int, batch: int, dim_z: int = DIM_Z, noise: float = NOISE
) -> Row:
    """The row of one model: trained on the first of `people`, looked at on the second, judged on the third."""
    train, held_out, test = people
    penalty = PENALTIES.get(cell.method)
    seed = int(streams(cell.seed, "fairness", cell.table, cell.s_in_x)[0].integers(2**31))
    torch.manual_seed(seed)
    model = FairModel(train.x.shape[1], dim_z, noise=noise)
    fit(train, penalty, cell.weight, steps=steps, batch=batch, model=model, seed=seed)
    with torch.no_grad():
        decision = (model(held_out.x)[1] > 0).long()
    base = test.y.float().mean().item()
    return {
        **asdict(cell),
        "held_out_error": (decision != held_out.y).float().mean().item(),
        "held_out_gap": parity_gap(decision.numpy(), held_out.s.numpy()),
        **asdict(judge(model, train, test, seed=seed)),
        "constant_error": min(base, 1 - base),
        "steps": steps,
    }


def people_of(table: str, s_in_x: bool, seed: int) -> Split:
    """Rows of a table, or generated ones, to train on, to choose by, and to test with."""
    train, test = (
        _made(seed, s_in_x) if table == MADE else tables.load(table, sensitive_in_x=s_in_x, seed=seed)
    )
    _, generator = streams(seed, "fairness held out", table)
    order = torch.randperm(len(train), generator=generator)
    few = len(train) // 5
    return train[order[few:]], train[order[:few]], test


def fairness(
    seed: int, *, data: Sequence[tuple[str, bool]], weights: Sequence[float], steps: int, batch: int
) -> Iterator[Row]:
    """Rows (table, s_in_x, method, weight, seed)."""
    for table, s_in_x in data:
        people = people_of(table, s_in_x, seed)
        for method, weight in [(TASK, 0.0), *product(PENALTIES, weights)]:
            yield evaluate(Cell(table, s_in_x, method, weight, seed), people, steps=steps, batch=batch)


def _made(seed: int, s_in_x: bool, n: int = 1200) -> tuple[People, People]:
    """Rows with a feature that tells of y alone, one that tells of y and s, and s."""
    rng, _ = streams(seed, MADE)
    s = rng.integers(0, 2, n)
    merit, other = rng.standard_normal((2, n))
    y = merit + 0.5 * other + 0.8 * s + 0.3 * rng.standard_normal(n) > 0.4
    x = np.stack([merit, other + 1.5 * s, s], 1)[:, : 3 if s_in_x else 2]
    whole = People(
        torch.from_numpy(x).float(), torch.from_numpy(y).long(), torch.from_numpy(s), ("merit", "other", "s")
    )
    return whole[: n // 2], whole[n // 2 :]


# Figure and findings -------------------------------------------------------------------------------------------------

SHADES = {
    **{name: colour(name) for name in LEAKS},
    "fdv": COLOURS["dv"], "adversarial": COLOURS["i-alpha"], "fermi": GREY,
}  # fmt: skip


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds of every (table, s_in_x, method, weight)."""
    by = ["table", "s_in_x", "method", "weight"]
    return table.drop(columns="seed").groupby(by, sort=False).mean().reset_index()


def draw(table: pd.DataFrame) -> Figure:
    """Error, and what trees find of s in noisy z, against the parity gap: a row for each table, points runs, lines means."""
    kinds = list(table[["table", "s_in_x"]].drop_duplicates().itertuples(index=False, name=None))
    figure, axes = panels(len(kinds), 2, 4.6, 3.3)
    whole = means(table)
    for i, (name, s_in_x) in enumerate(kinds):
        some, mean = (t[(t.table == name) & (t.s_in_x == s_in_x)] for t in (table, whole))
        for ax, column, label in (
            (axes[2 * i], "error", "test error"),
            (axes[2 * i + 1], "leak_auc", "AUC of trees that read s in noisy z"),
        ):
            alone = mean[mean.method == TASK]
            for method, shade in SHADES.items():
                line = mean[mean.method == method].sort_values("weight")
                runs = some[some.method == method]
                ax.plot([*alone.parity_gap, *line.parity_gap], [*alone[column], *line[column]], color=shade, lw=1.2,
                        label=method if i == 0 and ax is axes[0] else None)  # fmt: skip
                ax.plot(runs.parity_gap, runs[column], ls="", marker="o", ms=3, color=shade, alpha=0.7)
            ax.plot(alone.parity_gap, alone[column], ls="", marker="s", ms=6, color=COLOURS["truth"])
            ax.set(xlabel="parity gap", ylabel=label, title=f"{name}, s {'in x' if s_in_x else 'not in x'}")
            ax.grid(True)
        axes[2 * i].axhline(some.constant_error.mean(), color=COLOURS["truth"], ls=(0, (4, 2)), lw=1)
    figure.legend(loc="outside lower center", ncols=len(SHADES))
    return figure


PAPER = {
    ("adult-coarse", True): (".195-.20 at a gap of .20-.24", {0.05: ".21-.225", 0.02: ".21-.225; .24 at 0"}),
}


def compare(table: pd.DataFrame) -> list[Finding]:
    """The task alone, and every method at its smallest weight that brings the gap of held-out rows to 0.05 or 0.02."""
    findings = []
    for (name, s_in_x), mean in means(table).groupby(["table", "s_in_x"], sort=False):
        where = f"{name}, s {'in x' if s_in_x else 'not in x'}"
        alone_there, small_there = PAPER.get((str(name), bool(s_in_x)), ("not shown", {}))
        alone = mean[mean.method == TASK].iloc[0]
        ours = f"{alone.error:.3f} at a gap of {alone.parity_gap:.3f}; AUC of s {alone.leak_auc:.2f}"
        findings.append(Finding(f"{where}: error, task alone", alone_there, ours))
        for gap in (0.05, 0.02):
            words = []
            for method in PENALTIES:
                small = mean[(mean.method == method) & (mean.held_out_gap <= gap)].sort_values("weight")
                if len(small):
                    at = small.iloc[0]
                    words.append(f"{method} {at.error:.3f} ({at.parity_gap:.3f}, {at.leak_auc:.2f})")
                else:
                    words.append(f"{method} -")
            findings.append(Finding(f"{where}: error (gap, AUC of s) where held-out rows have a gap <= {gap}",
                                    small_there.get(gap, "not shown"), ", ".join(words)))  # fmt: skip
    return findings


WEIGHTS = (3.0, 10.0, 30.0, 100.0)
ALL = tuple((name, s_in_x) for name in tables.DATASETS for s_in_x in (True, False))

EXPERIMENT = Experiment(
    name="fairness",
    title="Fair classification: error against the parity gap, and leakage (E11)",
    paper="Adult, coarse columns: seven methods, curves that overlap (read off a figure)",
    run=fairness,
    sizes={
        "full": {"data": ALL, "weights": WEIGHTS, "steps": 1000, "batch": 512},
        "quick": {"data": (("adult-coarse", True), ("adult", True)), "weights": (10.0, 30.0), "steps": 300, "batch": 512},
        "tiny": {"data": ((MADE, True), (MADE, False)), "weights": (3.0,), "steps": 40, "batch": 128},
    },
    draw=draw,
    compare=compare,
)  # fmt: skip
