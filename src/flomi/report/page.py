"""Plots and the self-contained HTML page of one result.

`plot` draws on a plain matplotlib Figure (no pyplot, so nothing global and nothing to close); `write` puts
the same panels as inline SVG into one HTML file that loads nothing from anywhere.
"""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flomi.report.plots import bound_title, curves, finite, histogram, number, numbers, scatter
from flomi.report.style import STYLE
from flomi.report.webpage import inline_svg, need, render, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flomi.result import MIEstimate


# Options of `estimate` that the command line has, by the name they have there.
FLAGS = {name: name for name in ("critic", "bound", "effort", "seed", "device")} | {"n_folds": "folds"}
BADGES = {
    "ok": ("✓", "OK", "No check raised a doubt."),
    "none found": ("○", "None found", "Nothing was seen; the interval says how much could be there."),
    "caution": ("!", "Caution", "Usable, but read the reasons first."),
    "unreliable": ("✕", "Unreliable", "Do not rely on this number; the reasons say why."),
}
SIDES = {
    "lower": "In expectation never above the truth: a bad model makes it smaller.",
    "upper": "In expectation never below the truth: a bad model makes it larger.",
    "none": "An approximation that can err to either side.",
}


def plot(result: MIEstimate, axes: Sequence[Axes] | None = None) -> Figure:
    """Draw a result: how training went, the pointwise MI of the rows, and where in the data it sits.

    Panels, left to right: the bound on validation rows by training step, a line a fold (for a closed-form winner, which
    has no training, the bound on test rows of every candidate); the histogram of PMI; the data, one point a row
    (5,000 of them if there are more), coloured by PMI.

    Args:
        result: what `flomi.estimate` returned.
        axes: three matplotlib Axes to draw on; a new figure of 11.4 x 3.7 inches if left out.

    Returns:
        The matplotlib Figure; save it with `figure.savefig("result.png")`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `axes` does not hold three Axes.
    """
    need("matplotlib")
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        if axes is None:
            figure = Figure(figsize=(11.4, 3.7))
            axes = list(figure.subplots(1, 3))
            figure.set_layout_engine("constrained", wspace=0.06)
        elif len(axes) != 3:
            raise ValueError(f"axes: three matplotlib Axes are needed, found {len(axes)}")
        for draw, ax in zip((curves, histogram, scatter), axes, strict=True):
            draw(ax, result)
    parent = axes[0].figure
    return parent if isinstance(parent, Figure) else parent.figure


def write(
    result: MIEstimate,
    path: str | os.PathLike[str],
    *,
    command: str | None = None,
    about: Mapping[str, str] | None = None,
) -> Path:
    """Write a result as one HTML page that needs no network: numbers, reasons, plots, how to do it again.

    The file appears whole or not at all, and the same result gives the same bytes.

    Args:
        result: what `flomi.estimate` returned.
        path: the file to write; an existing one is replaced.
        command: the command line that gave the result, if one did; else the page shows how one would look.
        about: further facts of the data for the page's table, such as {"file": "patients.csv"}.

    Returns:
        The path written.

    Raises:
        ImportError: matplotlib or jinja2 is not installed.
        ValueError: `path` is a folder, or lies in one that does not exist.
    """
    return save(lambda: _page(result, command, about), path)


def _page(result: MIEstimate, command: str | None, about: Mapping[str, str] | None) -> str:
    need("matplotlib", "jinja2")
    units = (result.units, "bits" if result.units == "nats" else "nats")
    nats = math.log(2) if result.units == "bits" else 1.0

    def measure(value: float | None, unit: str, error: float | None = None) -> str:
        scale = nats / math.log(2) if unit == "bits" else nats
        if not finite(value) or not finite(error):
            return number(value * scale if finite(value) else None)
        return f"{number(value * scale, error * scale)} ± {number(error * scale, error * scale)}"

    facts = {
        "rows": f"{result.n:,}",
        "columns of x": f"{result.dim_x:,}",
        "columns of y": f"{result.dim_y:,}",
        **(about or {}),
        "folds": result.config["n_folds"],
        "negatives a row": ", ".join(map(str, result.config["negatives_a_row"])),
        "effort": result.config["effort"],
        "seed": result.config["seed"],
        "time": f"{result.seconds:.1f} s",
    }
    figures = {"numbers": inline_svg(numbers, result, "numbers", (3.9, 2.3))}
    for draw in (curves, histogram, scatter):
        figures[draw.__name__] = inline_svg(draw, result, draw.__name__, (3.5, 3.0))
    return render(
        "report.html.j2",
        r=result,
        names=[_side(result, 0), _side(result, 1)],
        units=units,
        measure=measure,
        number=number,
        finite=finite,
        bound_title=bound_title(result.bound_name),
        correlation=_correlation(result.mi * nats),
        correlations=[_correlation(end * nats) for end in result.ci],
        sides=SIDES,
        badge=BADGES[result.verdict],
        candidates=sorted(result.candidates.items(), key=_rank),
        figures=figures,
        facts=facts,
        python=_python(result.config),
        command=command or _command(result.config),
        record=json.dumps(result.to_dict(), indent=2, ensure_ascii=False, default=str),
    )


def _rank(candidate: tuple[str, dict[str, Any]]) -> float:
    bound = candidate[1]["bound"]
    return -bound if finite(bound) else math.inf


def _side(result: MIEstimate, side: int) -> str:
    """What to call x or y in a sentence: the column where there is one, else x or y."""
    columns = (result.dim_x, result.dim_y)[side]
    return str(result.projection_labels[side]) if columns == 1 else "xy"[side]


def _correlation(nats: float) -> str | None:
    """The |correlation| of a bivariate Gaussian with this MI: sqrt(1 - exp(-2 I))."""
    if not finite(nats) or nats <= 0:
        return None
    rho = math.sqrt(-math.expm1(-2 * nats))
    return f"{rho:.2f}" if rho < 0.985 else f"{rho:.4f}"


def _changed(config: dict[str, Any]) -> dict[str, Any]:
    """The options that differ from their defaults; of a result saved by an older version, effort and seed only."""
    return {name: config[name] for name in config.get("changed", ("effort", "seed"))}


def _python(config: dict[str, Any]) -> str:
    own, modules = config.get("own", ()), config.get("modules", ())  # of which the result knows the name only

    def written(name: str, value: Any) -> str:
        if name == "critic" and isinstance(value, list):
            return f"[{', '.join(one if one in modules else repr(one) for one in value)}]"
        return str(value) if name in own else repr(value)

    options = [f"{name}={written(name, value)}" for name, value in _changed(config).items()]
    note = [f"# {' and '.join(own)}: your own, from your code"] if own else []
    call = f"r = flomi.estimate({', '.join(['x', 'y', *options])})"
    return "\n".join(["import flomi", *note, call, 'r.report("report.html")'])


def _command(config: dict[str, Any]) -> str:
    choices = _changed(config)
    if config.get("own") or set(choices) - {*FLAGS, "units"}:
        return ""
    named = {FLAGS[name]: value for name, value in choices.items() if name in FLAGS}
    flags = [f"--{flag} {shlex.quote(_word(value))}" for flag, value in named.items()]
    bits = ["--bits"] if choices.get("units") == "bits" else []
    return " ".join(["flomi estimate DATA --x COLUMNS --y COLUMNS", *flags, *bits, "--report report.html"])


def _word(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)  # critics that compete
