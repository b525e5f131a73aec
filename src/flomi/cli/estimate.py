"""`flomi estimate`: parse, call, print."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import flomi.cli.options as options
from flomi.cli.outputs import as_dict, as_text, check, write
from flomi.cli.outputs import as_json as to_json
from flomi.support.names import suggestion

if TYPE_CHECKING:
    from flomi.data.pairs import Pairs
    from flomi.estimator import MIEstimate, MIEstimator


LARGEST_SEED = 2**63 - 1  # torch takes no larger one


def estimate(
    context: typer.Context,
    data: options.Data,
    y_data: options.YData = None,
    x: options.XColumns = None,
    y: options.YColumns = None,
    groups: options.Groups = None,
    missing: options.Missing = "error",
    rows: options.Rows = None,
    effort: options.EffortName = "standard",
    critic: options.CriticNames = "auto",
    bound: options.BoundName = "flo",
    folds: options.Folds = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    jobs: options.Jobs = 1,
    checkpoint: options.Checkpoint = None,
    bits: options.Bits = False,
    as_json: options.Json = False,
    report: options.Report = None,
    plot: options.Plot = None,
    pmi: options.Pmi = None,
    save: options.Save = None,
    quiet: options.Quiet = False,
) -> None:
    """Estimate the mutual information of two groups of columns.

    The answer is a number with its standard error, a value it exceeds with 95 % confidence, and a verdict on whether to
    trust it. 0 means that x and y are independent; the more, the better one can be told from the other.

    \b
    flomi estimate patients.csv --x 'gene_*' --y survival --report page.html
    flomi estimate table.parquet --x 0:5 --y -1 --missing drop --bits
    flomi estimate images.npy labels.npy --effort thorough --json
    flomi estimate folder_of_parquet --x 'x*' --y 'y*' --checkpoint run1
    """
    _check_name("--effort", effort, options.EFFORTS)
    _choice("--missing", missing, ("error", "drop"))
    least_values = (("--folds", folds, 2), ("--jobs", jobs, 1), ("--seed", seed, 0), ("--rows", rows, 50))
    for option, value, least in least_values:
        if value is not None and value < least:
            raise ValueError(f"{option} is {value}; it must be {least} or more")
    if seed > LARGEST_SEED:
        raise ValueError(f"--seed is {seed}; it must be {LARGEST_SEED} (2^63 - 1) or less")
    critics = [name.strip() for name in critic.split(",")]
    for name in critics:
        _check_name("--critic", name, options.CRITICS)
    _check_name("--bound", bound, options.BOUNDS)
    inputs = [data] if y_data is None else [data, y_data]
    wanted = check(inputs, report=report, plot=plot, pmi=pmi, save=save)
    if y_data is not None and not Path(y_data).suffix[1:].isalpha() and not Path(y_data).exists():
        raise ValueError(
            f"there is no file {y_data}; if it is a column, put commas and no spaces between columns: --x a,b"
        )

    calm_threads()
    from flomi.streaming import ROWS, read

    _check_device(device)
    rank, world = _join_ranks()
    progress = not quiet and sys.stderr.isatty() and rank == 0
    pairs = read(
        data,
        y_data,
        x=_joined(x),
        y=_joined(y),
        groups=groups,
        missing="drop" if missing == "drop" else "error",
        rows=ROWS if rows is None else rows,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
    )
    _check_groups(pairs, groups, folds, effort)
    chosen = {
        "critic": critics if len(critics) > 1 else critic,
        "bound": bound,
        "effort": effort,
        "seed": seed,
        "units": "bits" if bits else "nats",
        "n_folds": folds,
        "device": device,
        "n_jobs": jobs,
        "progress": progress,
        "checkpoint": checkpoint,
    }
    fitted, result = _fit(pairs, chosen, ranks=world > 1)
    if rank > 0:  # all have the same result, and one says it
        return
    if not quiet and len(fitted.critics_) < result.config["n_folds"]:
        rows = int((result.pmi == result.pmi).sum())  # the others are NaN
        typer.echo(
            f"interrupted: {len(fitted.critics_)} of {result.config['n_folds']} folds were measured ({rows:,} of "
            f"{result.n:,} rows); the result rests on these",
            err=True,
        )
    # Printed first: whatever may go wrong with a file, the number is not lost.
    typer.echo(to_json(as_dict(result, pairs)) if as_json else as_text(result, pairs))
    for what, path in wanted.items():
        try:
            write(what, path, fitted, result, pairs, command=context.obj)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {path} was not written", err=True)
            raise typer.Exit(1) from None
        if not quiet:
            typer.echo(f"wrote {path}", err=True)


def calm_threads() -> None:
    """Before torch is imported: waiting threads that spin make two busy processes slow each other down a hundredfold."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _join_ranks() -> tuple[int, int]:
    """(rank, number of processes) under torchrun, which share the folds; (0, 1) alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ:
        return 0, 1
    import atexit

    import torch.distributed as dist

    dist.init_process_group("gloo")
    atexit.register(dist.destroy_process_group)
    return dist.get_rank(), dist.get_world_size()


def _fit(pairs: Pairs, options: dict[str, Any], *, ranks: bool) -> tuple[MIEstimator, MIEstimate]:
    from flomi.estimator import MIEstimator

    fitted = MIEstimator(**options).fit_pairs(pairs, ranks=ranks)
    return fitted, fitted.result_


# Checks --------------------------------------------------------------------------------------------------------------


def _choice(option: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{option} {value!r} does not exist; {suggestion(value, allowed)}")


def _check_name(option: str, value: str, listed: str) -> None:
    """ValueError for a name that there is not; tables, which load torch, are asked only for one that --help doesn't list."""
    if value in listed.split(", "):
        return
    from flomi.bounds import BOUNDS
    from flomi.critics import CRITICS
    from flomi.crossfit.options import EFFORTS

    tables = {"--bound": BOUNDS, "--critic": ("auto", *CRITICS), "--effort": EFFORTS}
    _choice(option, value, tables[option])


def _joined(columns: list[str] | None) -> str | None:
    """`--x a --x b` is `--x a,b`."""
    return ",".join(columns) if columns else None


def _check_groups(pairs: Pairs, groups: str | None, folds: int | None, effort: str) -> None:
    """In the words of the command line, what the estimator would say of too few groups."""
    if pairs.groups is None:
        return
    from flomi.crossfit.options import EFFORTS
    from flomi.crossfit.splits import enough_units

    found, wanted = int(pairs.groups.max()) + 1, folds or EFFORTS[effort].folds
    if not enough_units(found, wanted):
        fewer = next((k for k in range(wanted - 1, 1, -1) if enough_units(found, k)), None)
        how = "mark smaller groups" if fewer is None else f"use --folds {fewer}"
        raise ValueError(f"--groups {groups}: {found} groups are too few for {wanted} folds; {how}")


def _check_device(name: str) -> None:
    import torch

    try:
        torch.empty(0, device=name)
    except Exception as error:  # unknown names, missing drivers and builds without them each raise their own
        first = str(error).splitlines()[0].split(":")[0] if str(error) else type(error).__name__
        raise ValueError(
            f"--device {name!r} cannot be used here ({first}); flomi doctor lists the devices"
        ) from None
