"""What every experiment shares: its record, its random numbers, the parts of its figure, and saving table and figure.

An `Experiment` is a generator of rows (`run`), what draws them (`draw`) and what sets them beside the paper's figures
(`compare`). Everything random comes from `streams(seed, what)`, so a cell does not depend on the cells before it.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from flomi._version import __version__
from flomi.parallel import one_thread
from flomi.report.style import BLUE, GREY, INK, ORANGE, STYLE
from flomi.support.files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


Row: TypeAlias = dict[str, Any]

GREEN, PINK, YELLOW, SKY = "#009e73", "#b5628f", "#b8860b", "#56b4e9"
COLOURS = {
    "flo": BLUE, "infonce": ORANGE, "nwj": GREEN, "tuba": PINK, "i-alpha": YELLOW, "i-alpha-0.8": YELLOW, "dv": SKY, "truth": INK,
}  # fmt: skip


# The record ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One figure of the paper (or of theory, where the paper has none) and ours beside it."""

    what: str
    paper: str
    ours: str


@dataclass(frozen=True)
class Experiment:
    """A reproduction: `run(seed, **sizes[size])` yields the rows of a tidy table, which `draw` and `compare` read.

    `sizes` holds the keyword arguments of `run` for "full", "quick" (the point in about a minute) and "tiny" (tests).
    Columns named in `timings` are wall-clock times, which no two runs share: they are saved in a file of their own.
    """

    name: str
    title: str
    paper: str
    run: Callable[..., Iterator[Row]]
    sizes: Mapping[str, Mapping[str, Any]]
    draw: Callable[[pd.DataFrame], Figure]
    compare: Callable[[pd.DataFrame], list[Finding]]
    timings: tuple[str, ...] = ()


# Randomness ----------------------------------------------------------------------------------------------------------


def streams(seed: int, *what: object) -> tuple[np.random.Generator, torch.Generator]:
    """Generators that belong to one cell of one experiment; also seeds the weights that are initialised next.

    >>> a, b = (streams(0, "cell", 1)[0].integers(1000) for _ in range(2))
    >>> bool(a == b)
    True
    """
    cell = zlib.crc32(repr(what).encode())
    torch.manual_seed(seed * 1_000_003 + cell)
    return np.random.default_rng([seed, cell]), torch.Generator().manual_seed(seed * 1_000_003 + cell + 1)


# Figures -------------------------------------------------------------------------------------------------------------


def panels(rows: int, columns: int, width: float = 3.7, height: float = 3.1) -> tuple[Figure, list[Axes]]:
    """A figure in the library's style, and its axes row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


def colour(name: str) -> str:
    """The colour of a bound, the same in every figure; grey for those without one."""
    return COLOURS.get(name, GREY)


def truth_line(ax: Axes, x: Any, y: Any, label: str = "truth") -> None:
    """The true MI, drawn alike everywhere."""
    ax.plot(x, y, color=INK, lw=1.4, ls=(0, (4, 2)), label=label, zorder=4)


def ticks(axis: Axis, values: Iterable[float]) -> None:
    """Ticks at these values and nowhere else."""
    values = list(values)
    axis.set_ticks(values, labels=[f"{value:g}" for value in values])
    axis.minorticks_off()


def mean_of(values: pd.Series[float] | NDArray[np.float64], form: str = ".2f") -> str:
    """The mean, with its standard error where there are several values; `form` is the mean's format."""
    if len(values) < 2:
        return f"{np.mean(values):{form}}"
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{np.mean(values):{form}} ± {error:{form.lstrip('+')}}"


def only(table: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def records(table: pd.DataFrame) -> list[Any]:
    """The rows of a table, with its columns as attributes."""
    return list(table.itertuples())


# Running and saving --------------------------------------------------------------------------------------------------


def run(
    experiment: Experiment, size: str, seed: int, progress: Callable[[int], None] | None = None
) -> pd.DataFrame:
    """The table of one experiment; `progress` is told the number of rows so far. The same arguments give the same table.

    One thread of torch and of BLAS, whatever the machine has: the sums are then made in the same order everywhere.
    """
    import pandas as pd

    rows = []
    with one_thread():
        for row in experiment.run(seed, **experiment.sizes[size]):
            rows.append(row)
            if progress is not None:
                progress(len(rows))
    return pd.DataFrame(rows).replace({-0.0: 0.0})


def write(experiment: Experiment, table: pd.DataFrame, folder: Path, about: Mapping[str, Any]) -> list[Path]:
    """Save NAME.csv, NAME.png, NAME.svg and NAME.json (`about`: how the table was made); the paths written.

    The CSV holds nothing that changes from run to run: times go to NAME-times.csv. NAME.json comes last, so a folder
    that has it has the rest too.
    """
    from matplotlib import style

    def path(suffix: str) -> Path:
        return folder / f"{experiment.name}{suffix}"

    path(".json").unlink(missing_ok=True)
    written = [path(".csv")]
    _csv(table.drop(columns=list(experiment.timings)), path(".csv"))
    if experiment.timings:
        written.append(path("-times.csv"))
        _csv(table, path("-times.csv"))
    with style.context(["default", STYLE]):
        figure = experiment.draw(table)
        for suffix in (".png", ".svg"):
            metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
            figure.savefig(path(suffix), dpi=100, metadata=metadata)
            written.append(path(suffix))
    write_whole(path(".json"), json.dumps({**about, **_versions()}, indent=2) + "\n")
    return [*written, path(".json")]


def is_complete(experiment: Experiment, folder: Path, size: str, seed: int) -> bool:
    """Whether the folder has this experiment's results already, of this size, seed and version."""
    try:
        about = json.loads((folder / f"{experiment.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    wanted = {"size": size, "seed": seed, "version": __version__}
    return isinstance(about, dict) and {key: about.get(key) for key in wanted} == wanted


def _csv(table: pd.DataFrame, path: Path) -> None:
    write_whole(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _versions() -> dict[str, str]:
    return {
        "version": __version__,
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
        "date": datetime.date.today().isoformat(),
    }
