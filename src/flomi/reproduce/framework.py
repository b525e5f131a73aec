"""One fixed critic, every choice of u: the value and the variance of each bound against the number of negatives.

One Gaussian pair and a critic that is wrong on purpose, g = 0.7 PMI + 0.5 sin(3x) + 0.4 x + 0.3, so that a drift c(x) and a wrong
normaliser tell the bounds apart. Z(x) = E_y' e^g is known by quadrature, hence the population value of every bound; the
estimates come from batches of rows with m negatives each. All but InfoNCE are `fenchel(log t, u)` with another u.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flomi import bounds
from flomi.bounds import Scores, fenchel
from flomi.critics import mlp
from flomi.report.style import GREY
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, panels, streams, ticks
from flomi.scores import Table

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


RHO = 0.8
TRUTH = -0.5 * math.log1p(-(RHO**2))
NOISE = math.sqrt(1 - RHO**2)
NODES = 120  # of the Gauss-Hermite rule: exact to 1e-9 here

Dual = Callable[[Tensor, Tensor], Tensor]  # (x, y) -> u, of equal shapes


def pmi(x: Tensor, y: Tensor) -> Tensor:
    """log p(x, y) / (p(x) p(y)) of one Gaussian pair."""
    return TRUTH + (RHO * x * y - RHO**2 * (x.square() + y.square()) / 2) / (1 - RHO**2)


def critic(x: Tensor, y: Tensor) -> Tensor:
    """The fixed critic g."""
    return 0.7 * pmi(x, y) + 0.5 * torch.sin(3 * x) + 0.4 * x + 0.3


def normal_rule() -> tuple[Tensor, Tensor]:
    """Nodes z_k and weights w_k with sum_k w_k f(z_k) = E f(Z), Z standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return torch.as_tensor(nodes), torch.as_tensor(weights / weights.sum())


def log_z(x: Tensor) -> Tensor:
    """log Z(x), by quadrature over y'."""
    z, w = normal_rule()
    return torch.logsumexp(critic(x[..., None], z) + w.log(), -1)


def log_mean_t(x: Tensor) -> Tensor:
    """log E[t | x], the best u among functions of x alone."""
    z, w = normal_rule()
    y = RHO * x[..., None] + NOISE * z
    return log_z(x) + torch.logsumexp(-critic(x[..., None], y) + w.log(), -1)


def duals(seed: int, steps: int) -> dict[str, Dual]:
    """Every u that is chosen before the batch is seen, by the name of the bound it makes."""
    z, w = normal_rule()
    log_constant = float(torch.logsumexp(log_z(z) + w.log(), 0))  # log E_m[e^g]
    slope = float((w * log_z(z) * z).sum())  # the straight line nearest to log Z
    level = float((w * log_z(z)).sum())
    learned = learned_dual(seed, steps)
    return {
        "UBA": lambda x, y: log_z(x) - critic(x, y),
        "FLO": learned,
        "TUBA": lambda x, y: level + slope * x - critic(x, y),
        "DV": lambda x, y: log_constant - critic(x, y),
        "NWJ": lambda x, y: -critic(x, y),
        "FLO-u(x)": lambda x, y: log_mean_t(x),
    }


def learned_dual(seed: int, steps: int) -> Dual:
    """FLO's u as a small network of x and y, fitted with g held fixed, on fresh rows with one negative each."""
    rng, _ = streams(seed, "framework", "u")
    net = mlp([2, 64, 64, 1]).double()
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        x, y, y_neg = rows(rng, 512, 1)
        u = net(torch.stack([x, y], -1))[:, 0]
        optimiser.zero_grad()
        (-fenchel(critic(x, y_neg[:, 0]) - critic(x, y), u).mean()).backward()
        optimiser.step()
        schedule.step()
    net.requires_grad_(False)
    return lambda x, y: net(torch.stack([x, y], -1))[..., 0]


def rows(rng: np.random.Generator, n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """x [n], y [n] and m independent negatives a row, [n, m]."""
    x = rng.standard_normal(n)
    y = RHO * x + NOISE * rng.standard_normal(n)
    return torch.as_tensor(x), torch.as_tensor(y), torch.as_tensor(rng.standard_normal((n, m)))


def population(u: Dual) -> float:
    """E[1 - u - t e^-u] by quadrature: what the estimates of this bound scatter about, at every m."""
    z, w = normal_rule()
    x = z[:, None].expand(-1, NODES)
    y = RHO * x + NOISE * z[None]
    value = fenchel(log_z(x) - critic(x, y), u(x, y))
    return float((w[:, None] * w[None] * value).sum())


def framework(seed: int, *, batches: int, batch: int, negatives: Sequence[int], steps: int) -> Iterator[Row]:
    """Rows (bound, u, m): mean over `batches` batches of `batch` rows, its standard error, and the spread of one batch."""
    fixed = duals(seed, steps)
    limits = {name: population(u) for name, u in fixed.items()}
    limits |= {"DV, batch": limits["DV"], "InfoNCE": limits["UBA"], "FDV": limits["UBA"]}  # as m grows
    for m in negatives:
        rng, _ = streams(seed, "framework", m)
        values: dict[str, list[float]] = {name: [] for name in limits}
        for _ in range(batches):
            x, y, y_neg = rows(rng, batch, m)
            s = Scores(critic(x, y), Table(critic(x[:, None], y_neg)))
            for name, u in fixed.items():
                values[name].append(fenchel(s.log_t, u(x, y)).mean().item())
            values["DV, batch"].append(bounds.dv(s).mean().item())
            values["InfoNCE"].append(bounds.infonce(s).mean().item())
            values["FDV"].append(bounds.fdv(s).mean().item())
        for name, found in values.items():
            spread = float(np.std(found, ddof=1))
            yield {
                "bound": name,
                "u": U[name],
                "m": m,
                "value": float(np.mean(found)),
                "stderr": spread / math.sqrt(batches),
                "spread": spread,
                "population": limits[name],
                "truth": TRUTH,
            }


U = {
    "UBA": "log t(x, y), exact",
    "FLO": "u(x, y), learned",
    "TUBA": "a(x) - g, a a straight line",
    "DV": "log E[e^g] - g, exact",
    "NWJ": "-g",
    "FLO-u(x)": "log E[t | x], the best function of x",
    "DV, batch": "log mean of e^g over the batch, minus g",
    "InfoNCE": "log t on own candidates, positive included",
    "FDV": "log t on own negatives",
}


def draw(table: pd.DataFrame) -> Figure:
    """Value and spread of one batch against m. UBA, which a learned u reaches, is drawn as open markers about FLO's."""
    shades = {
        "UBA": COLOURS["truth"], "FLO": COLOURS["flo"], "TUBA": COLOURS["tuba"], "DV": COLOURS["dv"],
        "NWJ": COLOURS["nwj"], "FLO-u(x)": GREY, "DV, batch": COLOURS["dv"],
        "InfoNCE": COLOURS["infonce"], "FDV": COLOURS["i-alpha"],
    }  # fmt: skip
    figure, (left, right) = panels(1, 2, 4.6, 3.8)
    for name, part in table.groupby("bound", sort=False):
        look: dict[str, Any] = {"color": shades[str(name)], "marker": "o", "ms": 3, "lw": 1.3,
                                "ls": "--" if name in ("DV, batch", "FDV", "InfoNCE") else "-"}  # fmt: skip
        if name == "UBA":
            look |= {"marker": "s", "ms": 7, "mfc": "none", "ls": "", "zorder": 5}
        left.errorbar(part.m, part.value, 2 * part.stderr, label=str(name), elinewidth=1.3, **look)
        right.plot(part.m, part.spread, **look)
    left.axhline(TRUTH, color=COLOURS["truth"], ls=(0, (4, 2)), lw=1)
    left.text(table.m.max(), TRUTH, "truth ", ha="right", va="bottom")
    left.set_ylim(min(0, table.population.min() - 0.1), 2.7 * TRUTH)
    left.set(xlabel="negatives of a row, m", ylabel="nats", xscale="log", title="Mean value")
    right.set_title("Standard deviation of one batch")
    right.set(xlabel="negatives of a row, m", ylabel="nats", xscale="log", yscale="log")
    ticks(right.yaxis, SPREADS)
    for ax in (left, right):
        ax.grid(True)
        ticks(ax.xaxis, sorted(table.m.unique()))
    figure.legend(loc="outside lower center", ncols=5)
    return figure


def compare(table: pd.DataFrame) -> list[Finding]:
    """The order of the family, and on which side of it the others lie."""
    limit = table.groupby("bound").population.first()
    few, many = (table[table.m == m].set_index("bound").value for m in (table.m.min(), table.m.max()))
    order = " >= ".join(f"{limit[name]:.3f}" for name in ("UBA", "DV", "NWJ"))
    fixed = table[table.bound.isin(FIXED)]
    bias = float((((fixed.value - fixed.population) / fixed.stderr) ** 2).mean() ** 0.5)
    return [
        Finding("UBA >= DV >= NWJ for one g (population)", "stated, no numbers", order),
        Finding("FLO with a learned u reaches UBA", "stated: tight", f"{limit['FLO']:.3f} of {limit['UBA']:.3f}"),
        Finding("u of x alone is not tight", "its code calls this TUBA", f"{limit['FLO-u(x)']:.3f}"),
        Finding("bias at any m, u chosen beforehand", "none (1.0 by chance)", f"{bias:.1f} standard errors, r.m.s."),
        Finding(f"InfoNCE at m = {table.m.min()} and {table.m.max()}", f"<= log K, rising to UBA {limit['UBA']:.3f}",
                f"{few['InfoNCE']:.3f} and {many['InfoNCE']:.3f}"),
        Finding(f"FDV at m = {table.m.min()} and {table.m.max()}", f"above UBA, falling to it; truth {TRUTH:.3f}",
                f"{few['FDV']:.3f} and {many['FDV']:.3f}"),
    ]  # fmt: skip


SPREADS = (0.02, 0.05, 0.1, 0.2, 0.5, 1)  # the ticks of the right panel
FIXED = ("UBA", "FLO", "TUBA", "DV", "NWJ", "FLO-u(x)")

EXPERIMENT = Experiment(
    name="framework",
    title="One critic, every choice of u: value and variance against the number of negatives",
    paper="sections 2 and 3: every bound is a choice of u in one inequality (no figure)",
    run=framework,
    sizes={
        "full": {"batches": 4000, "batch": 64, "negatives": (1, 2, 4, 8, 16, 32, 64, 128), "steps": 6000},
        "quick": {"batches": 400, "batch": 64, "negatives": (1, 2, 4, 8, 16, 32, 64, 128), "steps": 3000},
        "tiny": {"batches": 20, "batch": 64, "negatives": (1, 8), "steps": 100},
    },
    draw=draw,
    compare=compare,
)
