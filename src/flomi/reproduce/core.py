"""What every experiment shares: its record, training on fresh rows, reading out a bound, and saving table and figure.

An `Experiment` is a generator of rows (`run`), what draws them (`draw`) and what sets them beside the paper's figures
(`compare`). Everything random comes from `streams(seed, what)`, so a cell does not depend on the cells before it.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from flomi._version import __version__
from flomi.bounds import Bound, Scores
from flomi.parallel import one_thread
from flomi.report.style import BLUE, GREY, INK, ORANGE, STYLE
from flomi.support.files import write_whole
from flomi.tasks import Task
from flomi.training.loop import cosine
from flomi.training.model import Model

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Row: TypeAlias = dict[str, Any]
Stream: TypeAlias = Callable[[int], tuple[Tensor, Tensor]]  # n -> n rows (x, y) never given before
Scheme: TypeAlias = Callable[[Model, Tensor, Tensor, torch.Generator], Scores]  # which negatives a step uses

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


# Randomness and data -------------------------------------------------------------------------------------------------


def streams(seed: int, *what: object) -> tuple[np.random.Generator, torch.Generator]:
    """Generators that belong to one cell of one experiment; also seeds the weights that are initialised next.

    >>> a, b = (streams(0, "cell", 1)[0].integers(1000) for _ in range(2))
    >>> bool(a == b)
    True
    """
    cell = zlib.crc32(repr(what).encode())
    torch.manual_seed(seed * 1_000_003 + cell)
    return np.random.default_rng([seed, cell]), torch.Generator().manual_seed(seed * 1_000_003 + cell + 1)


def fresh(task: Task, rng: np.random.Generator) -> Stream:
    """Rows of the task as float32 tensors, new ones at each call."""

    def draw(n: int) -> tuple[Tensor, Tensor]:
        x, y = task.sampler(rng, n)
        return torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)

    return draw


# Training and reading ------------------------------------------------------------------------------------------------


def derangements(m: int) -> Scheme:
    """m negatives a row, by derangements of the batch."""
    return lambda model, x, y, generator: model.scores(x, y, "derangements", m, generator)


def every_pair(model: Model, x: Tensor, y: Tensor, generator: torch.Generator) -> Scores:
    """All off-diagonal pairs of the batch."""
    return model.scores(x, y, "all")


def model_of(critic: torch.nn.Module, dim_x: int, bound: Bound) -> Model:
    """The critic, with a baseline a(x) where the bound asks for one."""
    return Model(critic, (dim_x,), bound)


def learn(
    model: Model,
    bound: Bound,
    rows: Stream,
    scheme: Scheme,
    generator: torch.Generator,
    *,
    steps: int,
    batch: int,
    lr: float,
    decay: bool = True,
    watch: Callable[[int, float], None] | None = None,
) -> None:
    """Maximise the bound, each step on a batch never seen before, so that nothing can be learned by heart.

    Adam, as in the paper; the rate falls along a cosine to 1/100 (`decay=False`: it stays). Gradients are not clipped:
    at high MI the few negatives with a large weight are all that holds the estimate down. `watch(step, value)` is shown
    the bound's value on every training batch.
    """
    parameters = [p for name, p in model.named_parameters() if not name.startswith("drift.")]
    state = bound.state() if bound.state else None
    optimiser = torch.optim.Adam(parameters, lr=lr, fused=True)
    model.train()
    for step in range(1, steps + 1):
        if decay:
            optimiser.param_groups[0]["lr"] = lr * cosine(step, steps, 0.01)
        s = scheme(model, *rows(batch), generator)
        optimiser.zero_grad(set_to_none=True)
        (-bound.maximise(s, state)).backward()
        optimiser.step()
        if watch is not None:
            with torch.no_grad():
                watch(step, bound.value(s).mean().item())
    model.eval()


@dataclass(frozen=True)
class Reading:
    """A bound on fresh rows: `value` and `plug_in` are means over blocks, `stderr` comes from their spread; `each` [n] rows."""

    value: float
    stderr: float
    plug_in: float
    each: Tensor


@torch.no_grad()
def read(model: Model, bound: Bound, rows: Stream, *, n: int, block: int, m: int | None = None) -> Reading:
    """Read the bound on n fresh rows in blocks: on all off-diagonal pairs of each, or on m negatives a row.

    Negatives never contain the positive. The plug-in is the mean of the bound's own pointwise MI: E[-u] for FLO.
    """
    model.eval()
    generator = torch.Generator().manual_seed(0)
    each, plug_in = [], []
    for _ in range(max(1, n // block)):
        x, y = rows(block)
        s = every_pair(model, x, y, generator) if m is None else derangements(m)(model, x, y, generator)
        each.append(bound.value(s).double())
        plug_in.append(bound.pmi(s).double().mean())
    means = torch.stack([v.mean() for v in each])
    stderr = float(means.std()) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return Reading(float(means.mean()), stderr, float(torch.stack(plug_in).mean()), torch.cat(each))


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


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median wall-clock seconds of one call, after a call that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def _csv(table: pd.DataFrame, path: Path) -> None:
    write_whole(path, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _versions() -> dict[str, str]:
    return {
        "version": __version__,
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}",
        "date": datetime.date.today().isoformat(),
    }
