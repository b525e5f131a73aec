"""E10: features of two views by every loss, and by canonical correlations; what a classifier and a referee make of them.

The paper's pair is the left and right half of an image; the second pair is two descriptions of UCI's handwritten digits,
Fourier coefficients and profile correlations, the first two in its documentation. With the same seed all losses start from
the same weights and see the same batches, so their differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flomi.applications.cross_view import (
    TwoViews,
    Views,
    accuracy,
    cca,
    halves,
    held_out,
    shared,
    train,
)
from flomi.applications.data import digits, images
from flomi.bounds import BOUNDS
from flomi.losses import LOSSES, ContrastiveLoss
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, colour, mean_of, panels, streams

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FEATURES = 5  # of each view, as in the paper
TEMPERATURE = 0.2  # where the learned one starts; contrasts of unit-norm features then span 10 nats


class FLOuxLoss(ContrastiveLoss):
    """FLO whose dual is a function of x only, u(x): the paper's "TUBA" here, a valid bound that is not tight."""

    bound = BOUNDS["flo-ux"]


USED: dict[str, type[ContrastiveLoss]] = {
    "nwj": LOSSES["nwj"], "tuba": LOSSES["tuba"], "flo-ux": FLOuxLoss, "infonce": LOSSES["infonce"], "flo": LOSSES["flo"],
    "fdv": LOSSES["fdv"],
}  # fmt: skip
DUEL = ("infonce", "flo")
PAPER = {
    "cca": (67.78, None), "nwj": (76.71, 5.73), "flo-ux": (79.49, 4.78), "infonce": (79.27, 4.65), "flo": (79.47, 4.84),
    "fdv": (80.14, 4.67),
}  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """How long, and on how much, one set of views is trained: `runs` has losses and epochs by batch size.

    Classifiers look at half time and at the end; the referee, `flomi.estimate` with options `referee` on `referee_rows` of the
    test rows, at the end.
    """

    data: str
    rows: int  # at most, for training
    runs: Mapping[int, tuple[Sequence[str], int]]
    width: int
    classifier_epochs: int
    referee_rows: int
    referee: Mapping[str, Any] = field(default_factory=dict)
    lr: float = 5e-4


def views(data: str, seed: int) -> tuple[Views, Views]:
    """Training and test rows of a set of views; the test rows of the digits are drawn at random, those of images are theirs."""
    if data in images.DATASETS:
        training, test = images.load(data)
        return halves(training), halves(test)
    rng, generator = streams(seed, "cross-view rows", data)
    if data == "digits":
        found, labels = digits.uci_digits(of=("fou", "fac"))
        return _split(Views(found["fou"], found["fac"], labels), generator)
    assert data == "generated", data
    # No files needed: three clusters seen through two maps.
    labels = torch.as_tensor(rng.integers(3, size=400))
    centres, maps = torch.randn(3, 6), torch.randn(2, 6, 8)
    x, y = (torch.tanh((centres[labels] + 0.3 * torch.randn(400, 6)) @ m) for m in maps)
    return _split(Views(x, y, labels), generator)


def _split(every: Views, generator: torch.Generator, share: float = 0.75) -> tuple[Views, Views]:
    """Rows for training and for test, at random; columns standardised by the training rows."""
    order = torch.randperm(len(every), generator=generator)
    training, test = order[: round(share * len(order))], order[round(share * len(order)) :]
    x, y = ((v - v[training].mean(0)) / v[training].std(0).clamp_min(1e-6) for v in (every.x, every.y))
    every = Views(x, y, every.labels)
    return every[training], every[test]


def cross_view(seed: int, *, budgets: Sequence[Budget]) -> Iterator[Row]:
    """Rows (data, batch, loss, epoch): accuracy on test rows, the loss's own bound in training and on them, the referee's MI."""
    loaded = [views(budget.data, seed) for budget in budgets]  # all first: what is missing is said at once
    for budget, (training, test) in zip(budgets, loaded, strict=True):
        _, generator = streams(seed, "cross-view subset", budget.data)
        training = training[torch.randperm(len(training), generator=generator)[: budget.rows]]
        where = {"loss": "cca", "batch": 0, "epoch": 0, "last": True}
        yield _row(budget, seed, training, test, cca(training, FEATURES), where, {})
        for batch, (names, epochs) in budget.runs.items():
            for name in names:
                yield from _trained(budget, seed, training, test, name, batch, epochs)


def _trained(
    budget: Budget, seed: int, training: Views, test: Views, name: str, batch: int, epochs: int
) -> Iterator[Row]:
    # Of the loss it knows nothing: runs are paired.
    _, generator = streams(seed, "cross-view", budget.data, batch)
    model = TwoViews(training.x.shape[1], training.y.shape[1], FEATURES, budget.width)
    loss = USED[name](budget.width, temperature=TEMPERATURE, learn_temperature=True)
    rows = []

    def watch(epoch: int) -> None:
        if epoch in (epochs // 2, epochs):
            where = {"loss": name, "batch": batch, "epoch": epoch, "last": epoch == epochs}
            bounds = {
                "training": loss.mi(), "held_out": held_out(model, loss, test), "ness": loss.ness(),
                "temperature": loss.temperature,
            }  # fmt: skip
            rows.append(_row(budget, seed, training, test, model.features, where, bounds))

    train(model, loss, training, epochs=epochs, batch=batch, lr=budget.lr, generator=generator, watch=watch)
    yield from rows


def _row(
    budget: Budget,
    seed: int,
    training: Views,
    test: Views,
    features: Callable[[Views], Tensor],
    where: Row,
    bounds: Row,
) -> Row:
    """What a classifier and, at the end, the referee find in the features; of CCA there is no bound."""
    _, generator = streams(seed, "cross-view classifier", budget.data)
    found = features(training), features(test)
    right = accuracy(
        found, (training.labels, test.labels), epochs=budget.classifier_epochs, width=budget.width, generator=generator
    )  # fmt: skip
    row = {"data": budget.data, "rows": len(training), "seed": seed, **where, "accuracy": 100 * right}
    row |= {"mi": math.nan, "mi_stderr": math.nan, "at_least": math.nan}
    if where["last"]:
        judged = shared(found[1][: budget.referee_rows], seed=seed, **budget.referee)
        row |= {"mi": judged.mi, "mi_stderr": judged.stderr, "at_least": judged.lower_bound}
    return row | (bounds or dict.fromkeys(("training", "held_out", "ness", "temperature"), math.nan))


# What the table says -------------------------------------------------------------------------------------------------


def paired(table: pd.DataFrame, data: str, batch: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Accuracy of FLO minus that of InfoNCE after the same batches, in points, one for each seed."""
    part = table[(table.data == data) & (table.batch == batch) & table["last"]]
    wide = part.pivot(index="seed", columns="loss", values="accuracy").reindex(columns=["infonce", "flo"])
    return (wide.flo - wide.infonce).dropna().to_numpy()


def _ends(table: pd.DataFrame, data: str) -> pd.DataFrame:
    """The last row of every loss at the first batch size, that of the paper, and CCA's."""
    part = table[(table.data == data) & table["last"]]
    main = part[part.batch > 0].batch.iloc[0]
    return part[part.batch.isin([0, main])]


def compare(table: pd.DataFrame) -> list[Finding]:
    """Accuracy of every loss beside the paper's on MNIST, and what the paper's claims come to."""
    findings = []
    for data in table.data.unique():
        ends = _ends(table, data)
        accuracy_of = ends.groupby("loss", sort=False).accuracy.mean()
        of_losses = accuracy_of.drop("cca")
        for name, part in ends.groupby("loss", sort=False):
            accuracy, shown = PAPER.get(str(name), (None, None)) if data in images.DATASETS else (None, None)
            paper = "" if accuracy is None else f"{accuracy:.1f} %"
            if shown:
                paper += f", {shown:.2f} in training"
            ours = f"{mean_of(part.accuracy)} %, {mean_of(part.mi)} held out"
            if name != "cca":
                ours += f", {mean_of(part.training)} in training"
            findings.append(Finding(f"{data}: {name}, accuracy and nats", paper, ours))
        best, worst = of_losses.idxmax(), of_losses.idxmin()
        findings += [
            Finding(f"{data}: best and worst MI loss, points apart", "3.4" if data in images.DATASETS else "",
                    f"{of_losses.max() - of_losses.min():.1f} ({best}, {worst})"),
            Finding(f"{data}: worst MI loss ({worst}) over CCA, points", "8.9" if data in images.DATASETS else "",
                    f"{of_losses.min() - accuracy_of['cca']:+.1f}"),
        ]  # fmt: skip
        late = table[(table.data == data) & (table.batch > 0)]
        for batch in sorted(late.batch.unique()):
            gaps = paired(table, data, batch)
            paper = "+0.2 (one run)" if batch == 128 and data in images.DATASETS else ""
            findings.append(
                Finding(f"{data}: FLO over InfoNCE at batch {batch}, points", paper,
                        f"{mean_of(gaps, '+.2f')} ({len(gaps)} seed{'s' * (len(gaps) != 1)})")
            )  # fmt: skip
        by_run = late.set_index(["loss", "batch", "seed"])
        gain = (by_run[by_run["last"]].accuracy - by_run[~by_run["last"]].accuracy).dropna()
        findings.append(
            Finding(f"{data}: accuracy gained in the second half of training, points", "",
                    f"{gain.mean():+.1f} on average, {gain.max():+.1f} at most")
        )  # fmt: skip
    return findings


def draw(table: pd.DataFrame) -> Figure:
    """For each pair of views: accuracy by loss, nats by loss, and FLO against InfoNCE by batch size."""
    sets = list(table.data.unique())
    figure, axes = panels(len(sets), 3, 4.0, 3.1)
    for i, data in enumerate(sets):
        left, middle, right = axes[3 * i : 3 * i + 3]
        ends = _ends(table, data)
        names = [name for name in USED if name in set(ends.loss)]
        _draw_accuracy(left, ends, names)
        _draw_nats(middle, ends, names)
        batches = sorted(table[(table.data == data) & (table.batch > 0)].batch.unique(), reverse=True)
        for at, batch in enumerate(batches):
            gaps = paired(table, data, batch)
            right.plot([at] * len(gaps), gaps, "o", ms=4, color=COLOURS["flo"], alpha=0.6)
            if len(gaps) > 1:
                right.plot([at - 0.15, at + 0.15], [gaps.mean()] * 2, color=COLOURS["truth"], lw=1.6)
        right.axhline(0, color=COLOURS["truth"], lw=0.8)
        right.set_xticks(range(len(batches)), labels=[f"batch {batch}" for batch in batches])
        right.set(xlim=(-0.6, len(batches) - 0.4), ylabel="points, one dot a seed", title="FLO over InfoNCE")
        left.set_title(f"{data}: accuracy on {2 * FEATURES} features")
        middle.set_title("What they share")
        for ax in (left, middle, right):
            ax.grid(axis="y")
    return figure


def _draw_accuracy(ax: Axes, ends: pd.DataFrame, names: Sequence[str]) -> None:
    for at, name in enumerate(names):
        found = ends[ends.loss == name].accuracy
        ax.bar(at, found.mean(), color=colour(name), width=0.62, alpha=0.8)
        ax.plot([at] * len(found), found, "o", ms=3, color=COLOURS["truth"])
    linear = ends[ends.loss == "cca"].accuracy.mean()
    ax.axhline(linear, color=COLOURS["truth"], ls=(0, (4, 2)), lw=1.2, label=f"CCA {linear:.1f} %")
    lowest = min(linear, ends.accuracy.min())
    ax.set(ylabel="% of test rows right", ylim=(max(0, lowest - 10), None))
    ax.set_xticks(range(len(names)), labels=names, rotation=30)
    ax.legend(loc="lower right")


def _draw_nats(ax: Axes, ends: pd.DataFrame, names: Sequence[str]) -> None:
    """The referee's number with its error; the loss's own in training and on test rows, an arrow where it is below 0."""
    for at, name in enumerate(["cca", *names]):
        part = ends[ends.loss == name]
        error = 2 * math.sqrt((part.mi_stderr**2).mean() / len(part))
        ax.errorbar(at, part.mi.mean(), error, fmt="o", ms=5, capsize=3, color=colour(name))
        ax.plot(at - 0.2, part.training.mean(), "^", ms=5, mfc="none", color=colour(name))
        own = part.held_out.mean()
        ax.plot(at + 0.2, max(own, 0.1), "s" if own > 0 else "v", ms=4, mfc="none", color=colour(name))
    labels = {"o": "referee, held out", "^": "own bound, training", "s": "own bound, held out"}
    for marker, label in labels.items():
        face = None if marker == "o" else "none"
        ax.plot([], [], marker, color=COLOURS["truth"], ms=4, mfc=face, label=label)
    ax.set(ylabel="nats", ylim=(0, None))
    ax.set_xticks(range(len(names) + 1), labels=["cca", *names], rotation=30)
    ax.legend(fontsize=7)


# The record ----------------------------------------------------------------------------------------------------------

_QUICK_REFEREE = {"effort": "fast", "critic": "separable", "n_folds": 2, "steps": 300, "batch_size": 256}

EXPERIMENT = Experiment(
    name="cross-view",
    title="Five features of each half of an image, by every loss and by CCA (E10)",
    paper="table, MNIST: 76.7 to 80.1 % for every MI loss, CCA 67.8 %; one run each, best epoch on test images",
    run=cross_view,
    sizes={
        "full": {
            "budgets": (
                Budget("fashion-mnist", 24_000, {128: (tuple(USED), 20), 16: (DUEL, 6)}, width=256, classifier_epochs=10,
                     referee_rows=2000, referee={"effort": "fast"}),
                Budget("mnist", 60_000, {128: (tuple(USED), 40), 16: (DUEL, 10)}, width=256, classifier_epochs=30,
                     referee_rows=1000, referee={"effort": "fast"}),
                Budget("digits", 1500, {128: (tuple(USED), 60), 16: (DUEL, 20)}, width=256, classifier_epochs=60,
                     referee_rows=500, referee={"effort": "fast"}),
            )
        },
        "quick": {
            "budgets": (
                Budget("fashion-mnist", 20_000, {128: (tuple(USED), 8), 16: (DUEL, 2)}, width=128, classifier_epochs=5,
                     referee_rows=1000, referee=_QUICK_REFEREE, lr=1e-3),
                Budget("digits", 1500, {128: (tuple(USED), 40)}, width=128, classifier_epochs=40, referee_rows=500,
                     referee=_QUICK_REFEREE, lr=1e-3),
            )
        },
        "tiny": {
            "budgets": (
                Budget("generated", 300, {32: (tuple(USED), 4), 16: (DUEL, 2)}, width=16, classifier_epochs=40,
                     referee_rows=100, referee={"effort": "fast", "critic": "gaussian", "n_folds": 2}, lr=5e-3),
            )
        },
    },
    draw=draw,
    compare=compare,
)  # fmt: skip
