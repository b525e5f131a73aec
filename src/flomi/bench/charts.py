"""The drawings of one suite's leaderboard, each on one matplotlib Axes; each returns its caption.

They take the leaderboard's rows of one suite (see `summary.leaderboard`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from flomi.bench.summary import BOUND, PLUG_IN, Frame, ranked
from flomi.report.style import BLUE, GREY, INK, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


SHADES = ("#b9d7ea", "#5aa5d3", BLUE, "#003f66")  # of sizes, small to large
FLOOR = 1e-3  # errors and biases below this are drawn there


def height(rows: Frame) -> float:
    """Inches that a chart with a line for each estimator and read-out needs."""
    return 1.3 + 0.17 * len(ranked(rows))


def main_size(rows: Frame) -> int:
    """The number of rows that most estimators have results for; the larger of two."""
    counts = rows.groupby("n").size()
    return int(max(counts.index[counts == counts.max()]))


def errors(ax: Axes, rows: Frame) -> str:
    """Mean absolute error, a dot a size."""
    _dots(ax, rows, np.maximum(rows.error, FLOOR))
    ax.set_xscale("log")
    ax.set(xlabel="mean absolute error, nats", title="Error")
    _legend(ax)
    return (
        "Mean absolute error over tasks, the best at the top, a dot for each number of rows. Estimators that could not "
        "answer every task stand below the others."
    )


def bias(ax: Axes, rows: Frame) -> str:
    """Mean signed error at the main size, with the spread between seeds."""
    n = main_size(rows)
    mine = rows[rows.n == n]
    names = _lines(ax, mine)
    for row in mine.itertuples():
        y = names[str(row.estimator), str(row.readout)]
        color = ORANGE if row.bias > 0 else BLUE
        if np.isfinite(row.spread):
            ax.plot([row.bias - row.spread, row.bias + row.spread], [y, y], color=color, lw=3, alpha=0.35)
        ax.plot(row.bias, y, "o", color=color, ms=5, mec="white", mew=0.5)
    ax.axvline(0, color=INK, lw=0.8)
    ax.set_xscale("symlog", linthresh=0.1)
    ax.set_xticks([-10, -1, -0.1, 0, 0.1, 1, 10], labels=["−10", "−1", "−0.1", "0", "0.1", "1", "10"])
    reach = float(np.nanmax(np.abs(mine.bias.replace([np.inf, -np.inf], np.nan)))) if len(mine) else 1.0
    limit = min(max(2 * reach, 0.2), 20)
    ax.set_xlim(-limit, limit)
    ax.set(xlabel="mean error, nats", title=f"Bias and spread, {n:,} rows")
    seeds = " The bar is one standard deviation between seeds." if mine.spread.notna().any() else ""
    return (
        f"Mean signed error: blue below the truth, orange above.{seeds} The scale is logarithmic beyond 0.1."
    )


def time(ax: Axes, rows: Frame) -> str:
    """Seconds against error at the main size; the estimators that nothing faster beats have their names."""
    n = main_size(rows)
    mine = rows[(rows.n == n) & (rows.readout != PLUG_IN)]
    if not mine.partial.all():
        mine = mine[~mine.partial]
    x, y = np.maximum(mine.seconds, 1e-3), np.maximum(mine.error, FLOOR)
    ax.scatter(x, y, s=22, color=[_color(row) for row in mine.itertuples()], alpha=0.85, lw=0)
    ax.set_xscale("log")
    ax.set_yscale("log")
    best = np.inf
    for seconds, error, name in sorted(zip(x, y, mine.estimator, strict=True)):
        if error < best:
            best = error
            ax.annotate(name, (seconds, error), xytext=(4, 4), textcoords="offset points", fontsize=8)
    ax.margins(x=0.25, y=0.1)
    ax.set_title(f"Time against error, {n:,} rows")
    ax.set(xlabel="median seconds a cell, one thread", ylabel="mean absolute error, nats")
    ax.grid()
    return (
        "Down and to the left is better: blue variational bounds, orange flomi, grey the others. Named are those that "
        "nothing faster beats. Estimators that could not answer every task are left out."
    )


def coverage(ax: Axes, rows: Frame) -> str:
    """Share of 95 % intervals that hold the truth, a dot a size."""
    rows = rows[rows.intervals > 0]
    _dots(ax, rows, rows.coverage)
    ax.axvline(0.95, color=INK, lw=0.8, ls=(0, (5, 3)))
    ax.set_xlim(-0.04, 1.04)
    ax.set(xlabel="share that holds the truth", title="Coverage of 95 % intervals")
    _legend(ax)
    note = ""
    if (count := int(rows.certificates.sum())) > 0:
        note = f" One-sided certificates above the truth: {int(rows.exceeded.sum())} of {count:,}."
    return (
        "Share of 95 % intervals that hold the true MI; the dashed line is what is promised. An interval around a bound "
        f"counts sampling noise only, so a bound that is too low misses.{note}"
    )


def _dots(ax: Axes, rows: Frame, values: Frame) -> None:
    """A line for each estimator and read-out, and on it a dot for each size."""
    names = _lines(ax, rows)
    for shade, n in _sizes(rows):
        mine = rows[rows.n == n]
        places = [names[pair] for pair in zip(mine.estimator, mine.readout, strict=True)]
        ax.plot(values[mine.index], places, "o", color=shade, ms=5, mec="white", mew=0.5, label=f"{n:,}")


def _lines(ax: Axes, rows: Frame) -> dict[tuple[str, str], int]:
    """A line for each estimator and read-out, the best on top; returns which is where."""
    order = [key for key, _ in ranked(rows)]
    names = [name if readout != PLUG_IN else f"{name} (plug-in)" for name, readout in order]
    ax.set_yticks(range(len(order)), labels=names)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0, labelsize=8)
    ax.grid(axis="both")
    return {key: i for i, key in enumerate(order)}


def _sizes(rows: Frame) -> list[tuple[str, int]]:
    """Every size with a shade of its own: the darkest of SHADES, or as many between them as it takes."""
    from matplotlib.colors import LinearSegmentedColormap, to_hex

    sizes = sorted(map(int, rows.n.unique()))
    shades = list(SHADES[max(0, len(SHADES) - len(sizes)) :])
    if len(sizes) > len(SHADES):
        between = LinearSegmentedColormap.from_list("sizes", SHADES)
        shades = [to_hex(between(place)) for place in np.linspace(0, 1, len(sizes))]
    return list(zip(shades, sizes, strict=True))


def _legend(ax: Axes) -> None:
    """Below the axes, where it hides no dot."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        words = [f"{label} rows" for label in labels]
        ax.figure.legend(handles, words, loc="outside lower center", ncols=min(len(labels), 6))


def _color(row: Any) -> str:
    if row.estimator.startswith(("auto", "critic-")):
        return ORANGE
    return BLUE if row.readout == BOUND else GREY
