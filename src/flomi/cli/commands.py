"""The command line: parse, call, print. What is wrong with a call is one line on standard error, and exit code 2."""

from __future__ import annotations

import shlex
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flomi._version import __version__
from flomi.cli.bench import bench
from flomi.cli.estimate import calm_threads, estimate
from flomi.cli.options import EXIT_CODES, Sections
from flomi.cli.outputs import Interrupted
from flomi.cli.outputs import as_json as to_json
from flomi.cli.reproduce import EXIT_CODES as REPRODUCE_EXIT_CODES
from flomi.cli.reproduce import reproduce
from flomi.support.names import nearest

app = typer.Typer(
    name="flomi",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


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


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show versions and devices, and estimate a known answer.

    It takes a few seconds. Exit code 0 if the known answer was found, 1 if not. Add the output to a question or a bug report.
    """
    calm_threads()
    from flomi.cli.doctor import as_text, examine

    facts = examine()
    typer.echo(to_json(facts) if as_json else as_text(facts))
    if not facts["ok"]:
        raise typer.Exit(1)


app.command(cls=Sections, epilog=EXIT_CODES)(estimate)
app.add_typer(bench, name="bench")
app.command(epilog=REPRODUCE_EXIT_CODES)(reproduce)


# Entry ---------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 input or call wrong, 130 interrupted, 1 anything else."""
    command = typer.main.get_command(app)
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        code = command.main(
            args=words, prog_name="flomi", standalone_mode=False, obj=shlex.join(["flomi", *words])
        )
    except Interrupted as stop:
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
        near = nearest(str(option), error.possibilities or ())
        hint = f"did you mean {near[0]}?" if near else f"{path} --help lists them"
        return f"there is no option {option}; {hint}"
    if "valid integer" in line and getattr(error, "param", None) is not None:  # the parser's sentence is long
        return f"{error.param.opts[0]} must be a whole number; see {path} --help"
    if "unexpected extra argument" in line:
        line += "; put commas and no spaces between columns (--x a,b) and quotes around patterns ('gene_*')"
    return line if line.endswith("?") else f"{line}; see {path} --help"


if __name__ == "__main__":
    sys.exit(main())
