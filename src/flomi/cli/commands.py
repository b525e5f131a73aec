"""The command line: parse, call, print. What is wrong with a call is one line on standard error, and exit code 2."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from flomi._version import __version__
from flomi.cli import outputs
from flomi.cli.bench import bench
from flomi.cli.reproduce import EXIT_CODES, reproduce

if TYPE_CHECKING:
    from flomi.data.pairs import Pairs
    from flomi.estimator import MIEstimate, MIEstimator

__all__ = ["app", "main"]

app = typer.Typer(
    name="flomi",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

app.add_typer(bench, name="bench")

_EFFORTS = ("fast", "standard", "thorough")
_MISSING = ("error", "drop")
# For --help, the names in the tables of bounds.py and critics.py, which load torch; a test says when one is missing here.
_BOUNDS = (
    "flo, flo-ux, dv, mine, nwj, tuba, infonce, i-alpha, js, smile, smile-1, smile-inf, fdv, flatnce, kl-dime, gan-dime, "
    "hd-dime, anchor, club, l1out, ba, doe"
)
_CRITICS = (
    "auto, joint, mlp, separate, separable, bilinear, density, residual, network, null, local, matched, gaussian, "
    "student, regression, expanded"
)
_LARGEST_SEED = 2**63 - 1  # torch takes no larger one

_EXIT_CODES = """Exit code: 0 done, also when Ctrl-C ended the run early and what was finished is printed; 2 the input or the call
is wrong (one line says what and how to mend it); 130 Ctrl-C before there was a result; 1 anything else."""


class _Sections(TyperCommand):
    """Help whose options stand under headings (`rich_help_panel`, without rich)."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                title = getattr(param, "rich_help_panel", None) or "Other options"
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


_DATA, _MODEL, _OUTPUT = "The data", "The estimate", "The output"


# Commands ------------------------------------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _flomi(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Mutual information between two groups of variables: how much knowing one tells about the other.

    \b
    flomi estimate data.csv --x 'gene_*' --y outcome     a number for your own file
    flomi estimate --help                                everything it can do
    flomi bench run independence                         estimators where the truth is known
    flomi reproduce list                                 the paper's experiments, to run again
    flomi doctor                                         is this machine set up well?
    """
    if version:
        typer.echo(f"flomi {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(cls=_Sections, epilog=_EXIT_CODES)
def estimate(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            rich_help_panel=_DATA,
            help="A table of numbers: CSV or TSV (also .gz, .bz2, .xz), Parquet (a file, a folder, or a pattern in quotes), "
            ".npy or .npz.",
        ),
    ],
    y_data: Annotated[
        str | None,
        typer.Argument(
            metavar="Y_DATA",
            rich_help_panel=_DATA,
            help="A second file for y, whose rows belong to those of DATA.",
        ),
    ] = None,
    x: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMNS",
            help="Columns of x: names, patterns ('gene_*'), positions (0, -1) or ranges "
            "('0:5', 'first:last'), separated by commas, or the option again; '!name' leaves one out.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    y: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMNS", help="Columns of y, chosen likewise.", rich_help_panel=_DATA),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column that marks rows belonging together, such as all rows of one patient.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    missing: Annotated[
        str,
        typer.Option(
            metavar="error|drop",
            help="Stop at rows with missing or infinite values, or leave them out.",
            rich_help_panel=_DATA,
        ),
    ] = "error",
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Of more rows than this, so many are drawn at random to train and judge models; the others count in what "
            "a pass over the file can sum [default: 200000].",
            rich_help_panel=_DATA,
        ),
    ] = None,
    effort: Annotated[
        str,
        typer.Option(
            metavar="fast|standard|thorough",
            help="Seconds, up to about a minute, or as long as it helps (10,000 rows).",
            rich_help_panel=_MODEL,
        ),
    ] = "standard",
    critic: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Model of the dependence; auto tries several and keeps the best. One of {_CRITICS}.",
            rich_help_panel=_MODEL,
        ),
    ] = "auto",
    bound: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"Variational bound to report. One of {_BOUNDS}.",
            rich_help_panel=_MODEL,
        ),
    ] = "flo",
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Parts the rows are split into; each is measured by a model that saw none of it.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="The same seed gives the same numbers.", rich_help_panel=_MODEL)
    ] = 0,
    device: Annotated[
        str, typer.Option(metavar="NAME", help="Where to compute: cpu, cuda, mps.", rich_help_panel=_MODEL)
    ] = "cpu",
    jobs: Annotated[
        int,
        typer.Option(metavar="N", help="Processes that share the folds among them.", rich_help_panel=_MODEL),
    ] = 1,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep what is finished here; the same command then goes on after any interruption.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    bits: Annotated[
        bool, typer.Option("--bits", help="Answer in bits instead of nats.", rich_help_panel=_OUTPUT)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object instead of the table.", rich_help_panel=_OUTPUT),
    ] = False,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.html",
            help="Write a page with the result, its reasons and plots.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.png", help="Write the plots (.png, .svg or .pdf).", rich_help_panel=_OUTPUT
        ),
    ] = None,
    pmi: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.csv",
            help="Write every row's pointwise mutual information.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Save the fitted estimator, to score new rows in Python.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Print the result only: no progress.", rich_help_panel=_OUTPUT),
    ] = False,
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
    _choice("--effort", effort, _EFFORTS)
    _choice("--missing", missing, _MISSING)
    for option, value, least in (
        ("--folds", folds, 2),
        ("--jobs", jobs, 1),
        ("--seed", seed, 0),
        ("--rows", rows, 50),
    ):
        if value is not None and value < least:
            raise ValueError(f"{option} is {value}; it must be {least} or more")
    if seed > _LARGEST_SEED:
        raise ValueError(f"--seed is {seed}; it must be {_LARGEST_SEED} (2^63 - 1) or less")
    if bound not in _BOUNDS.split(", "):  # misspelt, or a row that was added
        from flomi.bounds import BOUNDS

        _choice("--bound", bound, BOUNDS)
    if critic not in _CRITICS.split(", "):
        from flomi.critics import CRITICS

        _choice("--critic", critic, ("auto", *CRITICS))
    inputs = [data] if y_data is None else [data, y_data]
    wanted = outputs.check(inputs, report=report, plot=plot, pmi=pmi, save=save)
    if y_data is not None and not Path(y_data).suffix[1:].isalpha() and not Path(y_data).exists():
        raise ValueError(
            f"there is no file {y_data}; if it is a column, put commas and no spaces between columns: --x a,b"
        )

    _calm_threads()
    from flomi.data import streaming

    _check_device(device)
    rank, world = _join_ranks()
    progress = not quiet and sys.stderr.isatty() and rank == 0
    pairs = streaming.read(
        data,
        y_data,
        x=_joined(x),
        y=_joined(y),
        groups=groups,
        missing="drop" if missing == "drop" else "error",
        rows=streaming.ROWS if rows is None else rows,
        seed=seed,
        checkpoint=checkpoint,
        progress=progress,
    )
    _check_groups(pairs, groups, folds, effort)
    options = {
        "critic": critic,
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
    fitted, result = _fit(pairs, options, ranks=world > 1)
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
    typer.echo(outputs.as_json(outputs.as_dict(result, pairs)) if as_json else outputs.as_text(result, pairs))
    for what, path in wanted.items():
        try:
            outputs.write(what, path, fitted, result, pairs, command=context.obj)
        except KeyboardInterrupt:
            typer.echo(f"interrupted: {path} was not written", err=True)
            raise typer.Exit(1) from None
        if not quiet:
            typer.echo(f"wrote {path}", err=True)


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show versions and devices, and estimate a known answer.

    It takes a few seconds. Exit code 0 if the known answer was found, 1 if not. Add the output to a question or a bug report.
    """
    _calm_threads()
    from flomi.cli import doctor as doctor_module

    facts = doctor_module.examine()
    typer.echo(outputs.as_json(facts) if as_json else doctor_module.as_text(facts))
    if not facts["ok"]:
        raise typer.Exit(1)


app.command(epilog=EXIT_CODES)(reproduce)


def _calm_threads() -> None:
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


def _choice(option: str, value: str, allowed: Iterable[str]) -> None:
    names = list(allowed)
    if value not in names:
        close = difflib.get_close_matches(value, names, n=1)
        hint = f"did you mean {close[0]}? there are" if close else "choose one of"
        raise ValueError(f"{option} {value!r} does not exist; {hint} {', '.join(names)}")


def _joined(columns: list[str] | None) -> str | None:
    """`--x a --x b` is `--x a,b`."""
    return ",".join(columns) if columns else None


def _check_groups(pairs: Pairs, groups: str | None, folds: int | None, effort: str) -> None:
    """In the words of the command line, what the estimator would say of too few groups."""
    if pairs.groups is None:
        return
    from flomi.crossfit.options import EFFORTS
    from flomi.crossfit.run import enough

    found, wanted = int(pairs.groups.max()) + 1, folds or EFFORTS[effort].folds
    if not enough(found, wanted):
        fewer = next((k for k in range(wanted - 1, 1, -1) if enough(found, k)), None)
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


# Entry ---------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 input or call wrong, 130 interrupted, 1 anything else."""
    command = typer.main.get_command(app)
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        code = command.main(
            args=words, prog_name="flomi", standalone_mode=False, obj=shlex.join(["flomi", *words])
        )
    except outputs.Interrupted as stop:
        typer.echo(f"interrupted: {stop}", err=True)
        return 130
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        line, code = _explain(error)
        typer.echo(f"error: {' '.join(line.split())}", err=True)
    if code == 130:
        typer.echo("interrupted before there was a result", err=True)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> tuple[str, int]:
    if hasattr(error, "format_message"):  # the parser's own errors
        return _usage(error), 2
    if isinstance(error, (ValueError, FileNotFoundError)) and _raised_here(error):
        return str(error), 2
    if isinstance(error, MemoryError):
        return "out of memory; use fewer rows or columns", 1
    if isinstance(error, OSError):
        return str(error), 1
    traceback.print_exception(error)
    return f"{type(error).__name__}, which should not happen; please report it with the lines above", 1


def _raised_here(error: Exception) -> bool:
    """Whether flomi itself raised it, as a message to the user, rather than a library deep below."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(__file__).parents[1] in Path(frames[-1].filename).parents


def _usage(error: Any) -> str:
    option = getattr(error, "option_name", None)
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "flomi"
    line = str(error.format_message()).rstrip(".")
    if type(error).__name__ == "NoSuchOption":
        near = difflib.get_close_matches(str(option), error.possibilities or (), n=1)
        hint = f"did you mean {near[0]}?" if near else f"{path} --help lists them"
        return f"there is no option {option}; {hint}"
    if "valid integer" in line and getattr(error, "param", None) is not None:  # the parser's sentence is long
        return f"{error.param.opts[0]} must be a whole number; see {path} --help"
    if "unexpected extra argument" in line:
        line += "; put commas and no spaces between columns (--x a,b) and quotes around patterns ('gene_*')"
    return line if line.endswith("?") else f"{line}; see {path} --help"


if __name__ == "__main__":
    sys.exit(main())
