"""E15: meta-learning from few tasks, with a penalty on I(W; S) and without, and MAML.

For every number of training tasks a learner for each weight of the penalty, from the same weights and with the same random
numbers; weight 0 has the noise but not the penalty. The weight is chosen by validation tasks, seed by seed, 0 among the
candidates, and judged on test tasks that nothing was chosen by. `train` is the error on the rows that were trained on,
`known` on new rows of the training tasks, `test` on other tasks: test - train is the gap.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from flomi.applications.meta_learning import (
    MAML,
    SetLearner,
    Sinusoids,
    Tasks,
    error,
    fit,
    information,
    sinusoids,
)
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, mean_of, panels, streams, ticks

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


ROWS, SHOTS = 20, 10  # of a training task; half of them are the support set, as in Finn et al. 2017
JUDGED = 60  # rows of the tasks that judge: 10 to learn from, 50 to be right on
REPORTS = 3  # readings of every training, for whether it has levelled off or should have stopped earlier
MAML_WIDTH = 64  # two layers: about as many parameters as encoder and decoder together


def meta_learning(
    seed: int, *, pools: Sequence[int], weights: Sequence[float], steps: int, validation: int, test: int
) -> Iterator[Row]:
    """Rows (tasks, method, weight, adapt, step): squared errors, and I(W; S) on the training tasks from both sides."""
    _, generator = streams(seed, "meta-learning tasks")
    functions = sinusoids(max(pools), generator)
    everything = functions.data(ROWS, generator)
    judges = {
        "validation": sinusoids(validation, generator).data(JUDGED, generator),
        "test": sinusoids(test, generator).data(JUDGED, generator),
    }
    yield from _trained(seed, SetLearner(), [(n, weight) for n in pools for weight in weights], functions, everything,
                        judges, steps)  # fmt: skip
    yield from _trained(seed, MAML((MAML_WIDTH, MAML_WIDTH)), [(n, None) for n in pools], functions, everything, judges,
                        steps)  # fmt: skip


def _trained(
    seed: int,
    start: SetLearner | MAML,
    cells: Sequence[tuple[int, float | None]],
    functions: Sinusoids,
    everything: Tasks,
    judges: dict[str, Tasks],
    steps: int,
) -> Iterator[Row]:
    """A copy of `start` for every (number of tasks, weight), trained side by side, and read several times."""
    learners = [copy.deepcopy(start) for _ in cells]
    own = [everything[:n] for n, _ in cells]  # a smaller pool is the start of a larger one
    rows = []

    def watch(step: int) -> None:
        for (n, weight), learner, tasks in zip(cells, learners, own, strict=True):
            where = {"seed": seed, "tasks": n, "weight": weight or 0.0, "step": step, "last": step == steps}
            for adapt in (1, 10) if isinstance(learner, MAML) else (0,):
                rows.append({**where, **_judged(learner, adapt, tasks, functions[:n], judges)})

    _, generator = streams(seed, "meta-learning episodes")
    weights = None if isinstance(start, MAML) else [weight or 0.0 for _, weight in cells]
    fit(learners, own, weights, steps=steps, lr=LR, shots=SHOTS, generator=generator, watch=watch,
        every=max(1, steps // REPORTS))  # fmt: skip
    yield from rows


def _judged(
    learner: SetLearner | MAML, adapt: int, tasks: Tasks, functions: Sinusoids, judges: dict[str, Tasks]
) -> Row:
    """The errors of one learner, with `adapt` gradient steps on a support set where it is MAML, and what W tells."""
    generator = torch.Generator().manual_seed(0)  # all are judged on the same splits
    often = torch.arange(len(functions)).repeat(max(1, 200 // len(functions)))
    known = functions[often].data(JUDGED, generator)
    low = high = math.nan
    if isinstance(learner, MAML):
        learner.steps = adapt
    else:
        low, high = information(learner, tasks, SHOTS, generator=generator)
    judged = {"train": tasks[often % len(tasks)], "known": known, **judges}
    errors = {name: float(error(learner, some, SHOTS, generator).mean()) for name, some in judged.items()}
    if isinstance(learner, MAML):
        learner.steps = 1  # as trained
    return {
        "method": "maml" if isinstance(learner, MAML) else "set", "adapt": adapt, **errors, "mi_low": low, "mi_high": high,
        "parameters": sum(p.numel() for p in learner.parameters()),
    }  # fmt: skip


# What the table says -------------------------------------------------------------------------------------------------


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Of every seed and number of tasks the last row whose weight has the smallest validation error; 0 is a candidate."""
    return _best(table[(table.method == "set") & table["last"]])


def alone(table: pd.DataFrame) -> pd.DataFrame:
    """The last rows of weight 0, one for every seed and number of tasks."""
    return _by_tasks(table[(table.method == "set") & table["last"] & (table.weight == 0)])


def stopped(table: pd.DataFrame) -> pd.DataFrame:
    """Weight 0 at the reading with the smallest validation error: stopping early in place of a penalty."""
    return _best(table[(table.method == "set") & (table.weight == 0)])


def _best(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every seed and number of tasks the row with the smallest validation error."""
    return _by_tasks(rows.loc[rows.groupby(["seed", "tasks"]).validation.idxmin()])


def _by_tasks(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.set_index(["tasks", "seed"]).sort_index()


def paired(table: pd.DataFrame, tasks: int) -> NDArray[np.float64]:
    """Test error with the chosen weight minus that with weight 0, one for each seed."""
    change: NDArray[np.float64] = (chosen(table).test - alone(table).test).loc[tasks].to_numpy()
    return change


def compare(table: pd.DataFrame) -> list[Finding]:
    """For every number of tasks the paired difference that the penalty makes, the gap with it and without, and the rivals."""
    findings = []
    with_it, without, early = chosen(table), alone(table), stopped(table)
    maml = table[(table.method == "maml") & table["last"]]
    for n in sorted(table.tasks.unique()):
        where, some = f"{n} tasks", with_it.loc[n]
        weights = ", ".join(f"{weight:g}" for weight in some.weight)
        gaps = [mean_of(part.loc[n].test - part.loc[n].train, ".3f") for part in (without, with_it)]
        best = maml[maml.tasks == n].groupby("adapt").test.mean()
        findings += [
            Finding(f"{where}: test error, weight 0", "no numbers", mean_of(without.loc[n].test, ".3f")),
            Finding(f"{where}: chosen weight minus weight 0, test error, paired", "below 0",
                    f"{mean_of(paired(table, n), '+.3f')} (weight of each seed: {weights})"),
            Finding(f"{where}: gap, test minus train, weight 0 and chosen weight", "smaller with it",
                    f"{gaps[0]} and {gaps[1]}"),
            Finding(f"{where}: I(W; S) in nats, weight 0 and chosen weight", "",
                    f"{_nats(without.loc[n])} and {_nats(some)}"),
            Finding(f"{where}: weight 0 stopped early, test error", "", mean_of(early.loc[n].test, ".3f")),
            Finding(f"{where}: MAML, test error after {' and '.join(map(str, best.index))} steps", "",
                    " and ".join(f"{value:.3f}" for value in best)),
        ]  # fmt: skip
    return findings


def _nats(rows: pd.DataFrame) -> str:
    return f"{rows.mi_low.mean():.2f} to {rows.mi_high.mean():.2f}"


def draw(table: pd.DataFrame) -> Figure:
    """Test error by number of tasks; the gap; and what each weight changes, seed by seed."""
    figure, (left, middle, right) = panels(1, 3, 4.0, 3.2)
    pools = sorted(table.tasks.unique())
    with_it, without = chosen(table), alone(table)
    maml = table[(table.method == "maml") & table["last"]]
    one_step = maml[maml.adapt == maml.adapt.min()].set_index(["tasks", "seed"])
    kinds = (("weight 0", without, COLOURS["truth"]), ("weight by validation", with_it, COLOURS["flo"]),
             ("MAML, 1 step", one_step, COLOURS["infonce"]))  # fmt: skip
    for label, rows, shade in kinds:
        _line(left, rows.test, label, shade)
        _line(middle, rows.test - rows.train, label, shade)
    last = table[(table.method == "set") & table["last"]].set_index(["tasks", "seed"])
    for n, name in zip(pools, ("flo", "infonce", "nwj", "tuba", "dv", "truth"), strict=False):
        shade = COLOURS[name]
        change = last.loc[n].assign(change=last.loc[n].test - without.loc[n].test)
        change = change[change.weight > 0]
        mean = change.groupby("weight").change.mean()
        right.plot(change.weight, change.change, "o", ms=3, color=shade, alpha=0.5)
        right.plot(mean.index, mean, color=shade, lw=1.4, label=f"{n} tasks")
    right.axhline(0, color=COLOURS["truth"], lw=0.8)
    right.set(xscale="log", xlabel="weight of the penalty", ylabel="change of the test error")
    right.set_title("Against weight 0, one dot a seed")
    left.set(xscale="log", xlabel="training tasks", ylabel="mean squared error", ylim=(0, None))
    left.set_title("Test tasks")
    middle.set(xscale="log", xlabel="training tasks", ylabel="test minus train", title="Gap")
    weights = sorted(set(last.weight) - {0.0})
    ticks(right.xaxis, weights)
    for ax in (left, middle):
        ticks(ax.xaxis, pools)
        ax.legend()
        ax.grid(True)
    right.legend()
    right.grid(True)
    return figure


def _line(ax: Axes, values: pd.Series[float], label: str, shade: str) -> None:
    """Mean over seeds by number of tasks, a dot for every seed."""
    mean = values.groupby("tasks").mean()
    ax.plot(mean.index, mean, color=shade, lw=1.4, label=label)
    ax.plot(values.index.get_level_values("tasks"), values, "o", ms=3, color=shade, alpha=0.5)


# The record ----------------------------------------------------------------------------------------------------------

LR = 3e-3
POOLS = (10, 20, 50, 100, 500)
WEIGHTS = (0.0, 0.1, 0.2, 0.4)

EXPERIMENT = Experiment(
    name="meta-learning",
    title="Sinusoids from few training tasks, with a penalty on I(W; S) and without (E15)",
    paper="no numbers; the gap between training and test tasks should shrink, most where tasks are few",
    run=meta_learning,
    sizes={
        "full": {"pools": POOLS, "weights": WEIGHTS, "steps": 1500, "validation": 200, "test": 500},
        "quick": {
            "pools": (10, 50),
            "weights": (0.0, 0.3, 1.0),
            "steps": 1000,
            "validation": 200,
            "test": 500,
        },
        "tiny": {"pools": (4, 8), "weights": (0.0, 0.3), "steps": 8, "validation": 20, "test": 20},
    },
    draw=draw,
    compare=compare,
)
