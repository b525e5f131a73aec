"""`flomi reproduce`: run an experiment of the paper, save its table and figure, and print the paper's figures beside ours."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flomi.cli.outputs import Interrupted, check_writable
from flomi.support.names import suggestion

if TYPE_CHECKING:
    from flomi.reproduce import Experiment


EXIT_CODES = """Exit code: 0 done; 2 the call is wrong (one line says what and how to mend it); 130 Ctrl-C, and experiments that
were finished are kept; 1 anything else."""


def reproduce(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An experiment, or list to see them, or all to run them.")
    ],
    quick: Annotated[
        bool, typer.Option("--quick", help="Smaller sizes that keep the point: about a minute each.")
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where tables and figures go; created if need be.")
    ] = Path("reproduce"),
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same table.")] = 0,
) -> None:
    """Run an experiment of the paper again: a table (CSV), a figure (PNG, SVG), and the paper's figures beside ours.

    Runs use one thread, so that two runs of the same size and seed give the same table. `all` leaves out what the folder
    has already, of the same size, seed and version: a run that was stopped goes on where it was.

    \b
    flomi reproduce list
    flomi reproduce bias-variance --quick
    flomi reproduce all --quick --out results
    """
    if not 0 <= seed < 2**31:
        raise ValueError(f"--seed is {seed}; it must be from 0 to {2**31 - 1}")
    from flomi.reproduce import EXPERIMENTS, is_complete

    if name == "list":
        typer.echo(_table(["name", "what it shows"], [(e.name, e.title) for e in EXPERIMENTS.values()]))
        return
    if name != "all" and name not in EXPERIMENTS:
        near = suggestion(name, [*EXPERIMENTS, "list", "all"])
        raise ValueError(f"no experiment is called {name!r}; {near}")
    chosen = list(EXPERIMENTS.values()) if name == "all" else [EXPERIMENTS[name]]
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder")
    if find_spec("matplotlib") is None:  # before the run, not after it
        raise ValueError("figures need matplotlib: python -m pip install matplotlib")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out} can't be written ({error.strerror or error}); name another") from None
    check_writable("--out", out, out)
    size = "quick" if quick else "full"
    left_out = []
    for i, experiment in enumerate(chosen):
        if name == "all" and is_complete(experiment, out, size, seed):
            typer.echo(f"{experiment.name}: {out} has it already", err=True)
            continue
        try:
            _run(experiment, size, seed, out, str(context.obj))
        except KeyboardInterrupt:
            done = (
                f"; {i} of {len(chosen)} are in {out}, and the same command goes on from there" if i else ""
            )
            raise Interrupted(f"{experiment.name} was not finished{done}") from None
        except ValueError as error:
            if name != "all":
                raise
            left_out.append(f"{experiment.name} ({error})")  # files of data that this machine lacks
    if left_out:
        raise ValueError(f"all but these are in {out}: {'; '.join(left_out)}")


def _run(experiment: Experiment, size: str, seed: int, out: Path, command: str) -> None:
    from flomi.reproduce import run, write

    start = time.perf_counter()
    seen = sys.stderr.isatty()

    def progress(rows: int) -> None:
        if seen:
            elapsed = time.perf_counter() - start
            typer.echo(f"\r{experiment.name}: {rows} rows, {elapsed:.0f} s ", nl=False, err=True)

    table = run(experiment, size, seed, progress)
    seconds = time.perf_counter() - start
    if seen:
        typer.echo("\r\033[K", nl=False, err=True)
    about = {"experiment": experiment.name, "size": size, "seed": seed, "command": command}
    about["seconds"] = round(seconds, 1)
    files = write(experiment, table, out, about)
    typer.echo(f"{experiment.name}: {experiment.title}  ({size}, seed {seed}, {seconds:.0f} s)")
    typer.echo(f"Paper: {experiment.paper}\n")
    findings = [(found.what, found.paper, found.ours) for found in experiment.compare(table)]
    typer.echo(_table(["", "paper", "ours"], findings) + "\n")
    typer.echo(f"wrote {', '.join(str(path) for path in files)}", err=True)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], widest: int = 46) -> str:
    """Columns of wrapped text under a head."""
    cells = [[textwrap.wrap(cell, widest) or [""] for cell in row] for row in [head, *rows]]
    widths = [max(len(line) for row in cells for line in row[i]) for i in range(len(head))]
    lines = []
    for k, row in enumerate(cells):
        for i in range(max(map(len, row))):
            parts = [
                (cell[i] if i < len(cell) else "").ljust(width)
                for cell, width in zip(row, widths, strict=True)
            ]
            lines.append("  ".join(parts).rstrip())
        if k == 0:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join(lines)
