"""Classical estimators in twenty dimensions (E9): kernel densities, nearest neighbours, and FLO on the same rows.

Ten Gaussian pairs over the correlation grid. Neighbours and kernels need rows close by, of which there are few in twenty
dimensions: nearest neighbours read far too low, their revised form far from 0 where there is nothing, and kernel densities
below the truth all along, although the kernel has the very shape of these data. FLO's critic is a network that knows nothing
of Gaussians, trained and read on parts of the very same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from flomi import tasks
from flomi.bounds import BOUNDS
from flomi.critics import CRITICS, kernel_density, nearest_neighbours
from flomi.reproduce.bivariate import GRID
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, panels, records, streams, truth_line
from flomi.reproduce.fresh_rows import read
from flomi.tasks.core import Array
from flomi.training.bound import BoundTraining, fit_network
from flomi.training.model import Model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


PAIRS = 10
NEIGHBOURS = 6  # k, as in the authors' code


def ksg(x: Array, y: Array, k: int = NEIGHBOURS) -> float:
    """Kraskov, Stoegbauer and Grassberger (2004): the mean of `flomi.critics.nearest_neighbours.ksg`."""
    return float(nearest_neighbours.ksg(torch.from_numpy(x), torch.from_numpy(y), k).mean())


def revised_ksg(x: Array, y: Array, k: int = NEIGHBOURS) -> float:
    """Gao, Oh and Viswanath (2018), the bias-improved form with balls of the Euclidean norm (q = 2).

    I = psi(k) + log n + log( c_x c_y / c_xy ) - mean( log n_x + log n_y ),   c the volumes of the unit balls
    """
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    z = np.hstack([x, y])
    radius = np.asarray(cKDTree(z).query(z, [k + 1])[0])[:, 0]
    near_x, near_y = (cKDTree(v).query_ball_point(v, radius, return_length=True) - 1 for v in (x, y))
    volumes = _log_ball(x.shape[1]) + _log_ball(y.shape[1]) - _log_ball(z.shape[1])
    return float(digamma(k) + np.log(len(x)) + volumes - np.mean(np.log(near_x) + np.log(near_y)))


def kde(x: Array, y: Array) -> float:
    """Gaussian kernels of Scott's width, each row left out of its own sum: the mean of `flomi.critics.kernel_density.kde`."""
    return float(kernel_density.kde(torch.from_numpy(x), torch.from_numpy(y)).mean())


def _log_ball(d: int) -> float:
    from scipy.special import gammaln

    return float(d / 2 * np.log(np.pi) - gammaln(1 + d / 2))


def flo(x: Array, y: Array, seed: int, steps: int) -> float:
    """FLO's bound on the last fifth of the rows, by a network with two heads trained on the others (flomi's default settings)."""
    streams(seed, "classical", "flo")
    rows = [torch.as_tensor(v, dtype=torch.float32) for v in (x, y)]
    n = len(x)
    learned, validation, test = (slice(0, n * 3 // 5), slice(n * 3 // 5, n * 4 // 5), slice(n * 4 // 5, n))
    bound = BOUNDS["flo"]
    build = CRITICS["mlp"].build
    assert build is not None
    model = Model(build(PAIRS, PAIRS, (128, 128)), (PAIRS,), bound)
    fit_network(model, bound, (rows[0][learned], rows[1][learned]), (rows[0][validation], rows[1][validation]),
                BoundTraining(steps=steps, lr=1e-3), seed)  # fmt: skip
    count = n - test.start
    return read(model, bound, lambda _: (rows[0][test], rows[1][test]), n=count, block=count, m=64).value


ESTIMATORS: dict[str, Callable[[Array, Array], float]] = {
    "KSG, k = 6": ksg,
    "revised KSG, k = 6": revised_ksg,
    "KDE, Scott": kde,
}


def classical(seed: int, *, rhos: Sequence[float], n: int, steps: int) -> Iterator[Row]:
    """Rows (rho, estimator): each on the same n rows."""
    for rho in rhos:
        task = tasks.base.pairs(f"pairs-{rho}", (rho,) * PAIRS, PAIRS, PAIRS)
        x, y = task.sample(n, seed)
        estimators = dict(ESTIMATORS)
        estimators["FLO, held out"] = partial(flo, seed=seed, steps=steps)
        for name, estimate in estimators.items():
            yield {"rho": rho, "estimator": name, "n": n, "truth": task.mi, "value": estimate(x, y)}


SHADES = {"KSG, k = 6": COLOURS["nwj"], "revised KSG, k = 6": COLOURS["tuba"], "KDE, Scott": COLOURS["infonce"],
          "FLO, held out": COLOURS["flo"]}  # fmt: skip


def draw(table: pd.DataFrame) -> Figure:
    """Value against the truth."""
    figure, (ax,) = panels(1, 1, 5.2, 4.2)
    top = 1.05 * float(table.truth.max())
    truth_line(ax, [0, top], [0, top])
    for name, part in table.groupby("estimator", sort=False):
        ax.plot(part.truth, part.value, marker="o", ms=4, lw=1.4, color=SHADES[str(name)], label=str(name))
    ax.set(xlabel="true MI (nats)", ylabel="estimate (nats)", ylim=(min(-0.5, 1.05 * table.value.min()), top))
    ax.set_title(f"Ten Gaussian pairs, {table.n.iloc[0]:,} rows")
    ax.grid(True)
    ax.legend()
    return figure


def compare(table: pd.DataFrame) -> list[Finding]:
    """Every estimator at each correlation."""
    findings = []
    for rho, part in table.groupby("rho"):
        words = ", ".join(f"{row.estimator.split(',')[0]} {row.value:.2f}" for row in records(part))
        findings.append(Finding(f"rho = {rho:g} (truth {part.truth.iloc[0]:.2f})", "no numbers", words))
    return findings


EXPERIMENT = Experiment(
    name="classical",
    title="Kernel densities and nearest neighbours in twenty dimensions (E9)",
    paper="in the authors' code only (KDE, KSG and revised KSG, 10,000 rows), no numbers",
    run=classical,
    sizes={
        "full": {"rhos": GRID, "n": 10_000, "steps": 4000},
        "quick": {"rhos": (GRID[0], GRID[10], GRID[14], GRID[16], GRID[18]), "n": 4000, "steps": 800},
        "tiny": {"rhos": (GRID[10],), "n": 400, "steps": 20},
    },
    draw=draw,
    compare=compare,
)
