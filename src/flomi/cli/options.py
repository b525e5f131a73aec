"""What `flomi estimate --help` says: every option and argument, and the names that they take. Loads nothing but typer."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

# The names in the tables that load torch (flomi.bounds, flomi.critics, flomi.crossfit), as --help shows them. A test compares.
EFFORTS = "fast, standard, thorough"
BOUNDS = (
    "flo, flo-ux, dv, mine, nwj, tuba, infonce, i-alpha, js, smile, smile-1, smile-inf, fdv, flatnce, kl-dime, gan-dime, "
    "hd-dime, anchor, club, l1out, ba, doe"
)
CRITICS = (
    "auto, null, gaussian, student, logistic, table, local, regression, matched, predicted, forest, mixture, expanded, residual, "
    "network, joint, mlp, separate, separable, bilinear, density"
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


def _option(panel: str, metavar: str | None, about: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=about, rich_help_panel=panel)


def _argument(metavar: str, about: str) -> Any:
    return typer.Argument(metavar=metavar, rich_help_panel=DATA, help=about)


Data = Annotated[
    str,
    _argument(
        "DATA",
        "A table of numbers: CSV or TSV (also .gz, .bz2, .xz), Parquet (a file, a folder, or a pattern in quotes), "
        ".npy or .npz.",
    ),
]
YData = Annotated[str | None, _argument("Y_DATA", "A second file for y, whose rows belong to those of DATA.")]
XColumns = Annotated[
    list[str] | None,
    _option(
        DATA,
        "COLUMNS",
        "Columns of x: names, patterns ('gene_*'), positions (0, -1) or ranges "
        "('0:5', 'first:last'), separated by commas, or the option again; '!name' leaves one out.",
    ),
]
YColumns = Annotated[list[str] | None, _option(DATA, "COLUMNS", "Columns of y, chosen likewise.")]
Groups = Annotated[
    str | None,
    _option(DATA, "COLUMN", "Column that marks rows belonging together, such as all rows of one patient."),
]
Missing = Annotated[
    str, _option(DATA, "error|drop", "Stop at rows with missing or infinite values, or leave them out.")
]
Rows = Annotated[
    int | None,
    _option(
        DATA,
        "N",
        "Of more rows than this, so many are drawn at random to train and judge models; the others count in what "
        "a pass over the file can sum [default: 200000].",
    ),
]
EffortName = Annotated[
    str,
    _option(
        MODEL,
        "fast|standard|thorough",
        "Seconds, up to about a minute, or as long as it helps (10,000 rows).",
    ),
]
CriticNames = Annotated[
    str,
    _option(
        MODEL,
        "NAME",
        f"Model of the dependence, or several separated by commas, of which the best is kept; auto tries those that suit "
        f"the data. Any of {CRITICS}.",
    ),
]
BoundName = Annotated[str, _option(MODEL, "NAME", f"Variational bound to report. One of {BOUNDS}.")]
Folds = Annotated[
    int | None,
    _option(MODEL, "N", "Parts the rows are split into; each is measured by a model that saw none of it."),
]
Seed = Annotated[int, _option(MODEL, "N", "The same seed gives the same numbers.")]
Device = Annotated[str, _option(MODEL, "NAME", "Where to compute: cpu, cuda, mps.")]
Jobs = Annotated[int, _option(MODEL, "N", "Processes that share the folds among them.")]
Checkpoint = Annotated[
    str | None,
    _option(
        MODEL, "FOLDER", "Keep what is finished here; the same command then goes on after any interruption."
    ),
]
Bits = Annotated[bool, _option(OUTPUT, None, "Answer in bits instead of nats.", "--bits")]
Json = Annotated[bool, _option(OUTPUT, None, "Print one JSON object instead of the table.", "--json")]
Report = Annotated[
    str | None, _option(OUTPUT, "FILE.html", "Write a page with the result, its reasons and plots.")
]
Plot = Annotated[str | None, _option(OUTPUT, "FILE.png", "Write the plots (.png, .svg or .pdf).")]
Pmi = Annotated[str | None, _option(OUTPUT, "FILE.csv", "Write every row's pointwise mutual information.")]
Save = Annotated[
    str | None, _option(OUTPUT, "FOLDER", "Save the fitted estimator, to score new rows in Python.")
]
Quiet = Annotated[bool, _option(OUTPUT, None, "Print the result only: no progress.", "--quiet", "-q")]
