"""Independent components of mixed photographs: FLO beside FastICA, by the Amari distance from the true mixing.

Not an experiment of the paper, which names ICA as a use. Sources are squares of two photographs: as they are, where pixels at
the same place depend on each other a little, as every assumption of independence is false a little; and each with its pixels
in an order of its own, where they are independent and only their distributions are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from flomi.applications.data.photographs import crops
from flomi.applications.ica import amari, total_correlation, unmix, whitening
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, panels, records, streams

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


LOG_COSH = 0.374567  # E log cosh of a standard normal
KINDS = ("as they are", "shuffled")
SHADES = {"whitening": COLOURS["truth"], "fastica": COLOURS["infonce"], "flo": COLOURS["flo"]}


def fast_ica(x: Tensor, seed: int, starts: int = 5) -> Tensor:
    """The unmixing matrix of scikit-learn's FastICA, log cosh, the least Gaussian of a few starts: a single one can end badly.

    Least Gaussian by its own contrast, the sum of (E log cosh s_k - E log cosh N(0, 1))^2. Reference: Hyvarinen and Oja 2000.
    """
    import warnings

    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    rows, found = x.double().numpy(), []
    for start in range(starts):
        model = FastICA(x.shape[1], whiten="unit-variance", random_state=seed + start, max_iter=1000)
        with warnings.catch_warnings():  # where it does not converge, its last matrix counts
            warnings.simplefilter("ignore", ConvergenceWarning)
            s = model.fit_transform(rows)
        contrast = float(np.square(np.log(np.cosh(s)).mean(0) - LOG_COSH).sum())
        found.append((contrast, model.components_))
    return torch.from_numpy(max(found, key=lambda one: one[0])[1]).to(x)


def ica(seed: int, *, sources: int, size: int, mixtures: int, steps: int, referee_rows: int) -> Iterator[Row]:
    """Rows (sources, mixture, method): the Amari distance, and by neighbours the total correlation of what was found."""
    for kind in KINDS:
        for mixture in range(mixtures):
            rng, generator = streams(seed, "ica", mixture)  # the same squares and mixing for both kinds
            signals = crops(sources, size, generator)
            mixing = torch.randn(sources, sources, generator=generator)
            some = torch.randperm(len(signals), generator=generator)[:referee_rows]
            if kind == "shuffled":
                orders = [torch.randperm(len(signals), generator=generator) for _ in range(sources)]
                signals = torch.stack([signals[order, i] for i, order in enumerate(orders)], 1)
            x, start = signals @ mixing.T, int(rng.integers(2**31))
            found = {
                "truth": torch.linalg.inv(mixing),
                "whitening": whitening(x),
                "fastica": fast_ica(x, start),
                "flo": unmix(x, steps=steps, seed=start),
            }
            for method, w in found.items():
                yield {
                    "sources": kind, "mixture": mixture, "seed": seed, "method": method, "count": sources, "pixels": len(x),
                    "amari": amari(w @ mixing), "total_correlation": total_correlation(x[some] @ w.T),
                }  # fmt: skip


def draw(table: pd.DataFrame) -> Figure:
    """Amari distance by method, one point a mixture; and total correlation against it, the sources themselves at 0."""
    kinds = list(table.sources.unique())
    figure, axes = panels(len(kinds), 2, 4.2, 3.0)
    for i, kind in enumerate(kinds):
        left, right = axes[2 * i : 2 * i + 2]
        for at, (method, shade) in enumerate(SHADES.items()):
            part = table[(table.sources == kind) & (table.method == method)]
            left.plot([at] * len(part), part.amari, "o", ms=5, color=shade, alpha=0.7)
            left.hlines(part.amari.mean(), at - 0.2, at + 0.2, color=shade)
            right.plot(part.amari, part.total_correlation, "o", ms=5, color=shade, alpha=0.7, label=method)
        truth = table[(table.sources == kind) & (table.method == "truth")]
        right.plot(truth.amari, truth.total_correlation, "s", ms=5, color=COLOURS["i-alpha"], label="truth")
        left.set_xticks(range(len(SHADES)), labels=list(SHADES))
        left.set(ylabel="Amari distance", ylim=(0, None), title=f"sources {kind}")
        right.set(xlabel="Amari distance", ylabel="total correlation, nats")
        left.grid(axis="y")
        right.grid(True)
    axes[1].legend()
    return figure


def compare(table: pd.DataFrame) -> list[Finding]:
    """Means over the mixtures, and in how many of them FLO is nearer to the sources than FastICA."""
    findings = []
    for kind, part in table.groupby("sources", sort=False):
        means = part.groupby("method", sort=False)[["amari", "total_correlation"]].mean()
        for row in records(means.reset_index()):
            ours = f"Amari {row.amari:.3f}, total correlation {row.total_correlation:.3f} nats"
            findings.append(Finding(f"{kind}: {row.method}", "not shown", ours))
        wide = part.pivot(index="mixture", columns="method", values="amari")
        ours = f"{int((wide.flo < wide.fastica).sum())} of {len(wide)} mixtures"
        findings.append(Finding(f"{kind}: FLO nearer than FastICA", "not shown", ours))
    return findings


EXPERIMENT = Experiment(
    name="ica",
    title="Unmixing photographs by FLO and by FastICA",
    paper="no experiment of the paper, which names ICA as a use",
    run=ica,
    sizes={
        "full": {"sources": 3, "size": 150, "mixtures": 10, "steps": 2000, "referee_rows": 5000},
        "quick": {"sources": 3, "size": 100, "mixtures": 2, "steps": 300, "referee_rows": 2000},
        "tiny": {"sources": 2, "size": 20, "mixtures": 1, "steps": 5, "referee_rows": 100},
    },
    draw=draw,
    compare=compare,
)
