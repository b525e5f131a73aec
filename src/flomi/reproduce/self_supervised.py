"""E12, E13, E16: batch sizes from 16 to 512 in self-supervised learning by four losses, and FlatNCE's gradient in low precision.

Every image gets an augmentation of its own; all batch sizes see equally many images, and the learning rate goes as the
square root of the batch size, as suits Adam. With the same seed all losses of one batch size start from the same weights
and see the same views, so their differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from flomi.applications.data import images
from flomi.applications.data.images import Images
from flomi.applications.self_supervised import Encoder, linear_probe, train
from flomi.losses import LOSSES, ContrastiveLoss
from flomi.reproduce.core import (
    COLOURS,
    Experiment,
    Finding,
    Row,
    mean_of,
    panels,
    streams,
    ticks,
    truth_line,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


USED = ("infonce", "flo", "fdv", "flatnce")
BASELINE = "infonce"  # what the others are compared with
PAPER = {"flo": "97.1 % on MNIST at 512"}
SHADES = {
    "infonce": COLOURS["infonce"],
    "flo": COLOURS["flo"],
    "fdv": COLOURS["nwj"],
    "flatnce": COLOURS["tuba"],
}
REFERENCE = 128  # the batch size at which the rate is `lr`


def pixels_of(data: str, seed: int) -> tuple[Images, Images]:
    """Training and test images; "generated" are stripes of four directions, for which no file is needed."""
    if data != "generated":
        return images.load(data)
    _, generator = streams(seed, "self-supervised images")
    labels = torch.randint(4, (240,), generator=generator)
    down, across = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    angle = (labels * math.pi / 4)[:, None, None]
    phase = 2 * math.pi * torch.rand(240, 1, 1, generator=generator)
    waves = (1.2 * (angle.cos() * down + angle.sin() * across) + phase).sin()
    every = Images((127.5 * (1 + waves)).to(torch.uint8)[:, None], labels, ("|", "/", "-", "\\"))
    return every[:160], every[160:]


def self_supervised(
    seed: int,
    *,
    data: str,
    rows: int,
    batches: Sequence[int],
    epochs: int,
    width: int,
    readings: int,
    lr: float = 1e-3,
    temperature: float = 0.2,
) -> Iterator[Row]:
    """Rows (loss, batch, images seen): running bound and effective sample size; at the end the accuracy of a linear probe.

    Without training, as `loss` "none", the probe says what the encoder's form alone is worth.
    """
    training, test = pixels_of(data, seed)
    _, generator = streams(seed, "self-supervised subset", data)
    training = training[torch.randperm(len(training), generator=generator)[:rows]]
    channels = training.pixels.shape[1]

    def probe(model: Encoder) -> float:
        found = model.features(training.pixels), model.features(test.pixels)
        return 100 * linear_probe(found, (training.labels, test.labels))

    blank = {"mi": math.nan, "ceiling": math.nan, "ness": math.nan}
    streams(seed, "self-supervised", data, 0)
    row = {"data": data, "seed": seed, "loss": "none", "batch": 0, "seen": 0, "last": True}
    yield {**row, "accuracy": probe(Encoder(channels, width)), **blank}
    for batch in batches:
        for name in USED:
            _, generator = streams(seed, "self-supervised", data, batch)  # of the loss it knows nothing
            model = Encoder(channels, width)
            loss = LOSSES[name](64, temperature=temperature)
            rate = lr * math.sqrt(batch / REFERENCE)
            options = {"epochs": epochs, "batch": batch, "lr": rate, "generator": generator}
            curve = _curve(model, loss, training.pixels, readings, **options)
            curve[-1] |= {"last": True, "accuracy": probe(model)}
            for reading in curve:
                yield {"data": data, "seed": seed, "loss": name, "batch": batch, **reading}


def _curve(model: Encoder, loss: ContrastiveLoss, pixels: Tensor, readings: int, **options: Any) -> list[Row]:
    """Train, with `options` of `train`, and read the loss's running numbers at equal distances, the last time at the end."""
    batch = options["batch"]
    steps = options["epochs"] * (len(pixels) // batch)
    wanted = {max(1, round(steps * (k + 1) / readings)) for k in range(readings)}
    found: list[Row] = []

    def watch(step: int) -> None:
        if step in wanted:
            ceiling = math.nan if loss.ceiling is None else loss.ceiling
            numbers = {"mi": loss.mi(), "ceiling": ceiling, "ness": loss.ness()}
            found.append({"seen": step * batch, "last": False, "accuracy": math.nan, **numbers})

    train(model, loss, pixels, watch=watch, **options)
    return found


def lost(table: pd.DataFrame, name: str) -> pd.Series[float]:
    """Points that a loss's probe loses from the largest to the smallest batch, one for each seed."""
    end = table[(table.loss == name) & table["last"]].pivot(index="seed", columns="batch", values="accuracy")
    return end[end.columns.max()] - end[end.columns.min()]


def compare(table: pd.DataFrame) -> list[Finding]:
    """The probe of every loss at the extreme batch sizes, what it loses between them, and how many negatives count."""
    ends = table[table["last"]]
    batches = sorted(ends[ends.batch > 0].batch.unique())
    low, high = batches[0], batches[-1]
    seeds = ends.seed.nunique()
    untrained = ends[ends.loss == "none"].accuracy.mean()
    findings = [Finding("random encoder, linear probe", "", f"{untrained:.1f} %")]
    for name in USED:
        part = ends[ends.loss == name]
        at = part.groupby("batch").accuracy.mean()
        ours = f"{at[low]:.2f} %, {at[high]:.2f} %"
        findings.append(Finding(f"{name}: probe at batch {low} and {high}", PAPER.get(name, ""), ours))
    of_baseline = lost(table, BASELINE)
    for name in USED:
        points = lost(table, name)
        words = mean_of(points, "+.2f")
        if name != BASELINE and of_baseline.mean() > 0:
            words += f", {points.mean() / of_baseline.mean():.0%} of InfoNCE's"
        claim = "" if name == BASELINE else "little (a claim, on other data)"
        what = f"{name}: points lost, batch {high} to {low} ({seeds} seed{'s' * (seeds != 1)})"
        findings.append(Finding(what, claim, words))
    for batch in (low, high):
        share = ends[(ends.batch == batch) & (ends.loss == BASELINE)].ness.mean()
        what = f"negatives that count at batch {batch}, InfoNCE"
        findings.append(Finding(what, "", f"{share:.0%} of {batch - 1}"))
    return findings


def draw(table: pd.DataFrame) -> Figure:
    """Probe by batch size, and the effective sample size of the negatives along training at the extreme batch sizes."""
    figure, axes = panels(1, 3, 3.9, 3.2)
    ends = table[table["last"] & (table.batch > 0)]
    batches = sorted(ends.batch.unique())
    for name in USED:
        part = ends[ends.loss == name]
        mean = part.groupby("batch").accuracy.mean()
        axes[0].plot(mean.index, mean, marker="o", ms=4, lw=1.3, color=SHADES[name], label=name)
        axes[0].plot(part.batch, part.accuracy, ".", ms=4, color=SHADES[name], alpha=0.5)
    axes[0].set(xscale="log", xlabel="batch size", ylabel="% of test images right")
    ticks(axes[0].xaxis, batches)
    axes[0].set_title("Linear probe")
    axes[0].legend()
    for ax, batch in zip(axes[1:], (batches[0], batches[-1]), strict=True):
        for name in USED:
            part = table[(table.loss == name) & (table.batch == batch)]
            curve = part.groupby("seen").ness.mean()
            ax.plot(curve.index, curve, color=SHADES[name], lw=1.3, label=name)
        ax.set(xlabel="images seen", ylabel="share of negatives that count", ylim=(0, 1))
        ax.set_title(f"Effective sample size, batch {batch}")
    for ax in axes:
        ax.grid(axis="y")
    return figure


# FlatNCE in low precision ---------------------------------------------------------------------------------------------


def precision(seed: int, *, margins: Sequence[float], negatives: int) -> Iterator[Row]:
    """Rows (type, margin): the gradient on a positive's score that is `margin` above each of the negatives, by who computes it.

    "infonce" and "flatnce" are the formulas as one writes them down, in the type itself; "flomi" computes in float32, whatever
    the features' type. The exact gradients are -(1 - p), p = 1 / (1 + m e^-margin), and -1.
    """
    del seed  # nothing is random here
    for margin in margins:
        exact = -1 / (1 + math.exp(margin) / negatives)
        for kind in (torch.float32, torch.float16, torch.bfloat16):
            scores = torch.zeros(1, negatives + 1, dtype=kind)
            scores[0, 0] = margin
            yield {
                "type": str(kind).removeprefix("torch."),
                "margin": margin,
                "exact_infonce": exact,
                "infonce": _gradient(_written_infonce, scores),
                "flatnce": _gradient(_written_flatnce, scores),
                "flomi_infonce": _of_module("infonce", margin, negatives, kind),
                "flomi_flatnce": _of_module("flatnce", margin, negatives, kind),
            }


def _written_infonce(scores: Tensor) -> Tensor:
    return cross_entropy(scores, torch.zeros(1, dtype=torch.long))


def _written_flatnce(scores: Tensor) -> Tensor:
    lse = torch.logsumexp(scores[:, 1:] - scores[:, :1], 1)
    return (lse - lse.detach()).exp().mean()


def _gradient(loss: object, scores: Tensor) -> float:
    given = scores.clone().requires_grad_()
    loss(given).backward()  # type: ignore[operator]
    assert given.grad is not None
    return float(given.grad[0, 0])


def _of_module(name: str, margin: float, negatives: int, kind: torch.dtype) -> float:
    """The same through flomi's loss, of features of this type: the scores are inner products at temperature 1."""
    loss = LOSSES[name](normalize=False, temperature=1.0)
    query = torch.ones(1, 1, dtype=kind)
    key = torch.tensor([[margin]], dtype=kind, requires_grad=True)  # so its gradient is the score's
    loss(query, key, negatives=torch.zeros(negatives, 1, dtype=kind)).backward()
    assert key.grad is not None
    return float(key.grad)


def compare_precision(table: pd.DataFrame) -> list[Finding]:
    """From which margin on InfoNCE's gradient is lost, by type, and what FlatNCE's is at the largest margin."""
    findings = []
    top = table.margin.max()
    for kind, part in table.groupby("type", sort=False):
        gone = part[part.infonce == 0].margin
        first = f"{gone.min():g}" if len(gone) else f"none up to {top:g}"
        paper = "17" if kind == "float32" else ""
        findings.append(Finding(f"{kind}: margin from which InfoNCE's gradient is 0", paper, first))
        end = part[part.margin == top].iloc[0]
        ours = f"{end.flatnce:.3f} written down, {end.flomi_flatnce:.3f} by flomi"
        findings.append(Finding(f"{kind}: FlatNCE's gradient at a margin of {top:g}", "-1", ours))
    return findings


def draw_precision(table: pd.DataFrame) -> Figure:
    """Size of the gradient against the margin, a panel for each type."""
    kinds = list(table.type.unique())
    figure, axes = panels(1, len(kinds), 3.6, 3.0)
    for ax, kind in zip(axes, kinds, strict=True):
        part = table[table.type == kind]
        truth_line(ax, part.margin, -part.exact_infonce, "InfoNCE, exact")
        for name, label in (("infonce", "InfoNCE"), ("flatnce", "FlatNCE")):
            kept = part[part[name] != 0]
            ax.plot(kept.margin, -kept[name], "o", ms=4, color=SHADES[name], label=label)
        ax.set(yscale="log", xlabel="margin of the positive", ylabel="gradient on its score, sign changed")
        ax.set_title(str(kind))
        ax.grid(axis="y")
    axes[-1].legend()
    return figure


# The records ---------------------------------------------------------------------------------------------------------

SELF_SUPERVISED = Experiment(
    name="self-supervised",
    title="Self-supervised images at batch sizes 16 to 512, by FLO, FDV, FlatNCE and InfoNCE (E12, E13, E16)",
    paper="FLO, MNIST, batch 512: probe 97.1 %, in the code only; FlatNCE: little loss at small batches, a claim",
    run=self_supervised,
    sizes={
        "full": {"data": "fashion-mnist", "rows": 10_000, "batches": (16, 64, 512), "epochs": 20, "width": 16, "readings": 40},
        "quick": {"data": "fashion-mnist", "rows": 8000, "batches": (16, 512), "epochs": 4, "width": 16, "readings": 10},
        "tiny": {"data": "generated", "rows": 160, "batches": (16, 64), "epochs": 4, "width": 8, "readings": 4},
    },
    draw=draw,
    compare=compare,
)  # fmt: skip

PRECISION = Experiment(
    name="flatnce-precision",
    title="InfoNCE's gradient dies of rounding where positives are easy, FlatNCE's does not (E16)",
    paper="float32: exactly 0 at a margin of 17, FlatNCE keeps -1 at 40",
    run=precision,
    sizes={
        "full": {"margins": tuple(range(0, 41)), "negatives": 15},
        "quick": {"margins": tuple(range(0, 41)), "negatives": 15},
        "tiny": {"margins": (1, 20, 40), "negatives": 3},
    },
    draw=draw_precision,
    compare=compare_precision,
)
