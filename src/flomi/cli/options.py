"""What `flomi estimate --help` says: every option and argument, and the names that they take. Loads nothing but typer."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

__all__ = ["BOUNDS", "CRITICS", "EFFORTS", "EXIT_CODES", "Sections"]

# The names in the tables that load torch (flomi.bounds, flomi.critics, flomi.crossfit), as --help shows them. A test compares.
EFFORTS = "fast, standard, thorough"
BOUNDS = (
    "flo, flo-ux, dv, mine, nwj, tuba, infonce, i-alpha, js, smile, smile-1, smile-inf, fdv, flatnce, kl-dime, gan-dime, "
    "hd-dime, anchor, club, l1out, ba, doe"
)
CRITICS = (
    "auto, null, gaussian, student, local, regression, matched, expanded, residual, network, joint, mlp, separate, "
    "separable, bilinear, density"
)
EXIT_CODES = """Exit code: 0 done, also when Ctrl-C ended the run early and what was finished is printed; 2 the input or the call
is wrong (one line says what and how to mend it); 130 Ctrl-C before there was a result; 1 anything else."""


class Sections(TyperCommand):
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


DATA, MODEL, OUTPUT = "The data", "The estimate", "The output"  # headings

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        rich_help_panel=DATA,
        help="A table of numbers: CSV or TSV (also .gz, .bz2, .xz), Parquet (a file, a folder, or a pattern in quotes), "
        ".npy or .npz.",
    ),
]
YData = Annotated[
    str | None,
    typer.Argument(
        metavar="Y_DATA",
        rich_help_panel=DATA,
        help="A second file for y, whose rows belong to those of DATA.",
    ),
]
XColumns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMNS",
        help="Columns of x: names, patterns ('gene_*'), positions (0, -1) or ranges "
        "('0:5', 'first:last'), separated by commas, or the option again; '!name' leaves one out.",
        rich_help_panel=DATA,
    ),
]
YColumns = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMNS", help="Columns of y, chosen likewise.", rich_help_panel=DATA),
]
Groups = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column that marks rows belonging together, such as all rows of one patient.",
        rich_help_panel=DATA,
    ),
]
Missing = Annotated[
    str,
    typer.Option(
        metavar="error|drop",
        help="Stop at rows with missing or infinite values, or leave them out.",
        rich_help_panel=DATA,
    ),
]
Rows = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Of more rows than this, so many are drawn at random to train and judge models; the others count in what "
        "a pass over the file can sum [default: 200000].",
        rich_help_panel=DATA,
    ),
]
EffortName = Annotated[
    str,
    typer.Option(
        metavar="fast|standard|thorough",
        help="Seconds, up to about a minute, or as long as it helps (10,000 rows).",
        rich_help_panel=MODEL,
    ),
]
CriticNames = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"Model of the dependence, or several separated by commas, of which the best is kept; auto tries those that suit "
        f"the data. Any of {CRITICS}.",
        rich_help_panel=MODEL,
    ),
]
BoundName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"Variational bound to report. One of {BOUNDS}.",
        rich_help_panel=MODEL,
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Parts the rows are split into; each is measured by a model that saw none of it.",
        rich_help_panel=MODEL,
    ),
]
Seed = Annotated[
    int, typer.Option(metavar="N", help="The same seed gives the same numbers.", rich_help_panel=MODEL)
]
Device = Annotated[
    str, typer.Option(metavar="NAME", help="Where to compute: cpu, cuda, mps.", rich_help_panel=MODEL)
]
Jobs = Annotated[
    int,
    typer.Option(metavar="N", help="Processes that share the folds among them.", rich_help_panel=MODEL),
]
Checkpoint = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Keep what is finished here; the same command then goes on after any interruption.",
        rich_help_panel=MODEL,
    ),
]
Bits = Annotated[bool, typer.Option("--bits", help="Answer in bits instead of nats.", rich_help_panel=OUTPUT)]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object instead of the table.", rich_help_panel=OUTPUT),
]
Report = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.html",
        help="Write a page with the result, its reasons and plots.",
        rich_help_panel=OUTPUT,
    ),
]
Plot = Annotated[
    str | None,
    typer.Option(metavar="FILE.png", help="Write the plots (.png, .svg or .pdf).", rich_help_panel=OUTPUT),
]
Pmi = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.csv",
        help="Write every row's pointwise mutual information.",
        rich_help_panel=OUTPUT,
    ),
]
Save = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER",
        help="Save the fitted estimator, to score new rows in Python.",
        rich_help_panel=OUTPUT,
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the result only: no progress.", rich_help_panel=OUTPUT),
]
