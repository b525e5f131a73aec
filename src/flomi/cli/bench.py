"""`flomi bench`: parse, call, print."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from flomi._version import __version__
from flomi.cli.outputs import Interrupted, check_writable

bench = typer.Typer(
    help="Run estimators where the truth is known, and show how they did.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

# The names that `flomi.bench` has, which loads NumPy; a test compares them.
_SUITES = {
    "bmi-v1": "the 40 tasks of Czyz et al. (2023), 0.2 to 1.7 nats",
    "staircase": "Gaussians of 2, 4, 6, 8 and 10 nats, 20 columns a side",
    "staircase-100": "the same in 100 columns a side",
    "staircase-cubic": "the same with y cubed",
    "high-mi": "1 to 20 nats, Gaussian and not",
    "paper": "the Gaussians of the FLO paper",
    "independence": "no information, in 1, 20 and 100 columns a side",
    "wild": "20 distributions that no choice in flomi was made on",
    "self-consistency": "handwritten digits whose MI is not known, but ratios are",
    "self-consistency-mnist": "the same of MNIST, where installed",
    "self-consistency-fashion-mnist": "the same of Fashion-MNIST, where installed",
}
_EXIT_CODES = """Exit code: 0 done; 2 the call is wrong (one line says what and how to mend it); 130 Ctrl-C, and what was finished
is kept; 1 some cells failed, or anything else."""


@bench.command(epilog=_EXIT_CODES)
def run(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help=f"One of {', '.join(_SUITES)}.")],
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Estimators, separated by commas, or the option again: names and groups (baselines, bounds, critics) as "
            "`flomi bench list` shows them, or module:function for one of your own. auto-fast, baselines and bounds if left out.",
        ),
    ] = None,
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Numbers of rows. 1000,5000,10000 if left out, or what the suite has."
        ),
    ] = None,
    seeds: Annotated[
        str,
        typer.Option(metavar="N,N,...", help="Seeds; 0:5 is 0,1,2,3,4. The same seed gives the same rows."),
    ] = "0",
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only these tasks of the suite; separated by commas."),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(metavar="N", help="Cells at a time, each in a process of its own and on one thread."),
    ] = 1,
    retry: Annotated[bool, typer.Option("--retry", help="Run cells again that failed before.")] = False,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE.csv", help="Where results are added; what is there already isn't run again."
        ),
    ] = "bench.csv",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Run every task of a suite at every size and seed with every estimator, and add the results to a file.

    It may be stopped at any moment, in any way: the same command goes on where it was, and the file ends up the same.

    \b
    flomi bench run independence --estimator gaussian,ksg-3 --sizes 1000
    flomi bench run bmi-v1 --seeds 0:3 --jobs 2
    flomi bench run staircase --estimator mymodule:estimate
    """
    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; it must be 1 or more")
    rows, starts = _numbers("--sizes", sizes, 1), _numbers("--seeds", seeds, 0) or [0]
    path = _file("--out", out, ".csv")

    from flomi import bench as bench_module

    try:
        outcome = bench_module.run(
            suite,
            _words(estimator) or bench_module.DEFAULT_ESTIMATORS,
            out=path,
            sizes=rows,
            seeds=starts,
            tasks=_words(task) or None,
            jobs=jobs,
            retry=retry,
            progress=not quiet and sys.stderr.isatty(),
        )
    except KeyboardInterrupt:
        raise Interrupted(f"what was finished is in {out}; the same command goes on from there") from None
    are = "cell is" if outcome.cells == 1 else "cells are"
    before = f", {outcome.before} of them before" if outcome.before else ""
    skipped = f", {outcome.skipped} skipped as not applicable" if outcome.skipped else ""
    typer.echo(f"{outcome.cells} {are} in {out}{before}{skipped}; flomi bench report {out} shows them")
    if outcome.versions:
        found = ", ".join(f"{count} by flomi {version}" for version, count in outcome.versions.items())
        typer.echo(
            f"of the cells in {out}, {found} (this is {__version__}), not run again; another --out runs all",
            err=True,
        )
    if outcome.failed:
        which = "it was" if outcome.failed == 1 else "the first was"
        typer.echo(
            f"{outcome.failed} of {outcome.cells} cells failed; {which} {outcome.first_failure}; mend it, then add --retry",
            err=True,
        )
        raise typer.Exit(1)


@bench.command(name="list")
def show(
    suite: Annotated[
        str | None, typer.Argument(metavar="[SUITE]", help="List this suite's tasks instead.")
    ] = None,
) -> None:
    """List suites and estimators, or the tasks of one suite."""
    from flomi.bench import catalogue, tasks_of
    from flomi.bench.estimators import GROUPS

    if suite is not None:
        tasks = {}
        for task in tasks_of(suite):
            mi = getattr(task, "mi", None)
            truth = "MI not known" if mi is None else f"{mi:.5f} nats"
            tasks[task.name] = f"{task.dim_x} x {task.dim_y}  {truth}"
        _echo(tasks)
        return
    typer.echo("Suites:")
    _echo(_SUITES, "  ")
    typer.echo(f"\nEstimators (and the groups {', '.join(GROUPS)}):")
    _echo({name: estimator.about for name, estimator in catalogue().items()}, "  ")


def _echo(lines: dict[str, str], margin: str = "") -> None:
    """Names, and beside them in a column what there is to say."""
    width = max(map(len, lines))
    for name, about in lines.items():
        typer.echo(f"{margin}{name:<{width}}  {about}")


@bench.command(epilog=_EXIT_CODES)
def report(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE.csv]...", help="Results of `flomi bench run`; bench.csv if left out."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE.html", help="The page to write; bench.html if nothing else is asked for."),
    ] = None,
    markdown: Annotated[
        str | None, typer.Option(metavar="FILE.md", help="Write the leaderboards as Markdown tables.")
    ] = None,
) -> None:
    """Turn results into one page that needs no network: leaderboards, errors, time, coverage; or into Markdown.

    \b
    flomi bench report
    flomi bench report bench.csv more.csv --out page.html --markdown leaderboard.md
    """
    paths = files or ["bench.csv"]
    for path in paths:
        if not Path(path).is_file():
            raise ValueError(f"there is no file {path}; flomi bench run writes one, and FILE names others")
    page = _file("--out", out or "bench.html", ".html") if out or not markdown else None
    text = _file("--markdown", markdown, ".md") if markdown else None

    from flomi import bench as bench_module

    table = bench_module.load(paths)
    if text is not None:
        text.write_text(bench_module.markdown(table), encoding="utf-8")
        typer.echo(f"wrote {text}", err=True)
    if page is not None:
        bench_module.write_page(table, page)
        typer.echo(f"wrote {page}", err=True)


def _words(values: Iterable[str] | None) -> list[str]:
    """`--estimator a,b --estimator c` is a, b and c."""
    return [word.strip() for value in values or () for word in value.split(",") if word.strip()]


def _numbers(option: str, text: str | None, least: int) -> list[int] | None:
    """Whole numbers separated by commas; a:b stands for a, a + 1, ..., b - 1."""
    if text is None:
        return None
    found: list[int] = []
    for word in text.split(","):
        first, colon, last = word.strip().partition(":")
        if not first.isdigit() or (colon and not last.isdigit()):
            raise ValueError(
                f"{option} {text!r}: {word.strip()!r} is no whole number; write such as 0,1,2 or 0:3"
            )
        if colon and int(last) <= int(first):
            raise ValueError(
                f"{option} {text!r}: {word.strip()} is empty, for a:b ends before b; write such as {first}:{int(first) + 3}"
            )
        found += range(int(first), int(last)) if colon else [int(first)]
    if not found or min(found) < least:
        raise ValueError(f"{option} {text!r}: give at least one number, each {least} or more")
    return found


def _file(option: str, text: str, suffix: str) -> Path:
    path = Path(text).expanduser()
    if path.suffix.lower() != suffix:
        raise ValueError(f"{option} {text}: the name must end in {suffix}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{option} {text}: there is no folder {path.parent}, or it is a folder itself")
    check_writable(option, text, path.parent, path)
    return path
