"""The drawings of one result, each on one matplotlib Axes.

A panel returns what is to be seen on it, in a sentence or two: the caption, and the text for who cannot see it.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from flomi.report.style import BLUE, DIVERGING, GREY, INK, ORANGE
from flomi.result import number as plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flomi.result import MIEstimate


MAX_POINTS = 5_000  # of the scatter; more only makes a heavier file
VECTOR_POINTS = 1_000  # above this the points are one embedded image


def curves(ax: Axes, result: MIEstimate) -> str:
    runs = [run for run in result.history if run["critic"] == result.critic and len(run["step"])]
    if not runs:
        return candidates(ax, result)
    values = np.concatenate([np.asarray(run["validation"], float) for run in runs])
    values = values[np.isfinite(values)]
    for run in runs:
        step, value = np.asarray(run["step"], float), np.asarray(run["validation"], float)
        ax.plot(step, value, color=BLUE, lw=1.3, alpha=0.75)
        best = np.flatnonzero(step == run["best_step"])
        ax.plot(step[best], value[best], "o", color=BLUE, ms=5, mec="white", mew=0.8, zorder=3)
    folds = f"each of {len(runs)} folds" if len(runs) > 1 else "one fold"
    caption = (
        f"{bound_title(result.bound_name)} bound of the {result.critic} critic on validation rows while it trained, one line"
        f" for {folds}; the dot is the state that was kept."
    )
    if values.size:
        # The first steps may lie far below everything that matters.
        low, high = float(np.quantile(values, 0.05)), float(values.max())
        room = max(high - low, 0.02 * abs(high), 1e-6)
        top = high + 0.12 * room
        ceilings = {float(run["ceiling"]) for run in runs if run.get("ceiling") is not None}
        for ceiling in sorted(ceilings):
            caption += f" No bound of this kind can pass its ceiling, {number(ceiling)} {result.units}"
            if ceiling <= high + 1.5 * room:
                ax.axhline(ceiling, color=INK, ls=(0, (5, 3)), lw=1)
                ax.text(0.02, ceiling, "ceiling", transform=ax.get_yaxis_transform(), va="bottom")
                top = max(top, ceiling + 0.12 * room)
                caption += " (dashed)."
            else:
                caption += " (above this plot)."
        ax.set_ylim(low - 0.12 * room, top)
    ax.set(xlabel="training step", ylabel=f"bound on validation rows ({result.units})", title="Training")
    ax.grid(axis="y")
    return caption


def candidates(ax: Axes, result: MIEstimate) -> str:
    known = [(name, c["bound"], c.get("stderr")) for name, c in result.candidates.items()]
    rows = sorted((row for row in known if finite(row[1])), key=lambda row: row[1])
    for y, (name, bound, stderr) in enumerate(rows):
        won: dict[str, Any] = {"fmt": "o", "color": BLUE, "mfc": BLUE, "ms": 7}
        lost: dict[str, Any] = {"fmt": "s", "color": GREY, "mfc": "none", "ms": 5}
        look = won if name == result.critic else lost
        ax.errorbar(
            bound, y, xerr=_quantile(result) * stderr if finite(stderr) else None, lw=1.6, capsize=3, **look
        )
    names = [_label(name, 14) + (" (won)" if name == result.critic else "") for name, _, _ in rows]
    ax.set_yticks(range(len(rows)), labels=names, parse_math=False)
    ax.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    ax.margins(x=0.12)
    ax.locator_params(axis="x", nbins=5)
    ax.set(xlabel=f"FLO bound on test rows ({result.units})", title="Candidates")
    ax.grid(axis="x")
    return (
        f"FLO bound on test rows, by which the candidates are judged, with its {result.percent} interval."
        f" The winner, the {result.critic} critic, is a formula fitted in one go, so it has no training curve."
    )


def histogram(ax: Axes, result: MIEstimate) -> str:
    pmi = np.asarray(result.pmi, float)
    known = pmi[np.isfinite(pmi)]
    ax.set(xlabel=f"PMI ({result.units})", ylabel="rows", title="Pointwise MI of the rows")
    ax.grid(axis="y")
    if not known.size:
        return "No row has a finite pointwise MI."
    low, high = _robust_range(known)
    shown = known[(known >= low) & (known <= high)]
    bins = int(np.clip(3 * shown.size ** (1 / 3), 8, 60))
    ax.hist(shown, bins=bins, color=BLUE, alpha=0.55, edgecolor="white", linewidth=0.4)
    mean, positive = float(known.mean()), float((known > 0).mean())
    ax.axvline(0, ymax=0.78, color=GREY, lw=0.8)
    ax.axvline(mean, color=ORANGE, lw=1.8)
    ax.margins(y=0.3)
    right = mean < low + 0.7 * (high - low)
    ax.annotate(
        f"mean {number(mean)}\n{positive:.0%} above 0",
        (mean, 1),
        (5 if right else -5, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if right else "right",
        va="top",
    )
    caption = (
        "How much more likely each row's x and y are together than apart (logarithm), by models that"
        f" had not seen the row. Mean {number(mean)} {result.units}; {positive:.0%} of rows above 0."
    )
    if outside := known.size - shown.size:
        caption += f" {outside:,} row{'s lie' if outside > 1 else ' lies'} beyond the axis."
    if lost := pmi.size - known.size:
        caption += f" {lost:,} row{'s have' if lost > 1 else ' has'} no finite value."
    return caption


def scatter(ax: Axes, result: MIEstimate) -> str:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import MaxNLocator

    points, pmi = np.asarray(result.projection, float), np.asarray(result.pmi, float)
    names = [_label(name, 32) for name in result.projection_labels]
    ax.set_title("Where in the data")
    ax.set_xlabel(names[0], parse_math=False)
    ax.set_ylabel(names[1], parse_math=False)
    rows = np.flatnonzero(np.isfinite(points).all(1) & np.isfinite(pmi))
    if not rows.size:
        return "No row has finite coordinates and a finite pointwise MI."
    total = rows.size
    rng = np.random.default_rng(0)
    if total > MAX_POINTS:
        rows = rng.choice(rows, MAX_POINTS, replace=False)
    rows = rows[np.argsort(np.abs(pmi[rows]), kind="stable")]  # the telling rows on top
    points, pmi = points[rows], pmi[rows]
    limit = max(float(np.quantile(np.abs(pmi), 0.98)), 0.01)  # no colour for mere noise
    outside = np.zeros(rows.size, bool)
    jittered = []
    for axis, name, values in ((ax.xaxis, names[0], points[:, 0]), (ax.yaxis, names[1], points[:, 1])):
        levels = np.unique(values)
        if levels.size <= 12:
            step = float(np.diff(levels).min()) if levels.size > 1 else 1.0
            values += rng.uniform(-0.22, 0.22, values.size) * step
            axis.set_ticks(levels.tolist())
            jittered.append(name)
        else:
            low, high = _robust_range(values)
            outside |= (values < low) | (values > high)
            pad = 0.04 * (high - low)
            (ax.set_xlim if axis is ax.xaxis else ax.set_ylim)(low - pad, high + pad)
    dots = ax.scatter(
        points[:, 0],
        points[:, 1],
        c=pmi,
        s=float(np.clip(9_000 / rows.size, 6, 26)),
        cmap=LinearSegmentedColormap.from_list("pmi", list(DIVERGING)),
        vmin=-limit,
        vmax=limit,
        linewidths=0,
        alpha=0.85,
        rasterized=rows.size > VECTOR_POINTS,
    )
    bar = ax.figure.colorbar(
        dots, ax=ax, extend="both", ticks=MaxNLocator(5), label=f"PMI ({result.units})", pad=0.02, aspect=28
    )
    bar.outline.set_visible(False)
    ax.grid(True)
    caption = "Each point is a row: blue where x and y belong together, orange where the pair is surprising."
    if total > rows.size:
        caption += f" {rows.size:,} of {total:,} rows are shown, drawn at random with a fixed seed."
    if jittered:
        caption += f" Points are spread a little around the few values of {' and '.join(jittered)}."
    if count := int(outside.sum()):
        caption += f" {count:,} point{'s lie' if count > 1 else ' lies'} beyond the axes."
    return caption


def numbers(ax: Axes, result: MIEstimate) -> str:
    rows: list[tuple[str, float, tuple[float, float] | None]] = [("estimate", result.mi, result.ci)]
    if finite(result.bound):
        half = _quantile(result) * result.bound_stderr if finite(result.bound_stderr) else 0.0
        rows.append(("bound on test rows", result.bound, (result.bound - half, result.bound + half)))
    if finite(result.plug_in):
        rows.append(("plug-in", result.plug_in, None))
    rows.reverse()
    if finite(result.lower_bound):
        ax.axvline(result.lower_bound, color=ORANGE, lw=1.2, alpha=0.7)
        ax.plot(result.lower_bound, -1, ">", color=ORANGE, ms=8)
    for y, (name, value, interval) in enumerate(rows):
        main = name == "estimate"
        color = BLUE if main else GREY
        if interval is not None and all(map(finite, interval)):
            ax.plot(interval, (y, y), color=color, lw=7 if main else 4, alpha=0.4, solid_capstyle="round")
        ax.plot(value, y, "o", color=color, ms=9 if main else 6, mec="white", mew=1)
    names = [f"{name}  {number(value)}" for name, value, _ in rows]
    if finite(result.lower_bound):
        names.insert(0, f"at least ({result.percent})  {number(result.lower_bound)}")
    ax.set_yticks(range(len(rows) - len(names), len(rows)), labels=names)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.25)
    ax.locator_params(axis="x", nbins=4)
    low, high = ax.get_xlim()
    if low < 0 < high:
        ax.axvline(0, color=INK, lw=0.8, ls=(0, (5, 3)))
    ax.set_ylim(-1.6, len(rows) - 0.4)
    ax.set(xlabel=result.units, title="The numbers on one axis")
    ax.grid(axis="x")
    return (
        f"The estimate and the bound on test rows with their {result.percent} intervals, the plug-in value, and the certificate:"
        f" with {result.percent} confidence the truth lies to the right of the orange line."
    )


def _robust_range(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The whole range, less what lies further than eight interquartile ranges from the middle."""
    q1, q3 = np.quantile(values, [0.25, 0.75])
    inside = values[np.abs(values - (q1 + q3) / 2) <= 8 * (q3 - q1)] if q3 > q1 else values
    low, high = float(inside.min()), float(inside.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def bound_title(name: str) -> str:
    """Short names are initials: flo is FLO, infonce stays as it is."""
    return name.upper() if len(name) <= 4 else name


def number(value: float | None, error: float | None = None) -> str:
    """As `flomi.result.number`, with a minus sign that is no hyphen."""
    return plain(value, error).replace("-", "\N{MINUS SIGN}")


def _label(text: object, width: int) -> str:
    """Text from the data as an axis can show it: printable, on one line, not too long."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return line if len(line) <= width else line[: width - 1] + "…"


def _quantile(result: MIEstimate) -> float:
    """Standard errors to either side of a normal interval at the result's level."""
    return NormalDist().inv_cdf((1 + result.level) / 2)
