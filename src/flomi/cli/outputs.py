"""What the command line prints and writes: the table for people, JSON, and files that are checked before the long run."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import os
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flomi.support.files import write_whole
from flomi.support.jsonable import plain

if TYPE_CHECKING:
    from flomi.data.pairs import Pairs
    from flomi.estimator import MIEstimate, MIEstimator


_SUFFIXES = {"report": (".html", ".htm"), "plot": (".png", ".svg", ".pdf"), "pmi": (".csv",), "save": ()}
_NEEDS = {"report": ("matplotlib", "jinja2"), "plot": ("matplotlib",), "pmi": (), "save": ()}
_SAVED = {"estimator.json", "tensors.safetensors"}  # a folder of just these is an estimator saved earlier


class Interrupted(Exception):
    """Ctrl-C in a long run, exit code 130; the message says what is kept and how to go on."""


def check(inputs: Sequence[str], **paths: str | None) -> dict[str, Path]:
    """The files to write by option name; ValueError unless each can be written, before the long run starts."""
    taken = {os.path.realpath(path): "the data" for path in inputs}
    wanted = {}
    for what, text in paths.items():
        if text is None:
            continue
        path, suffixes = Path(text).expanduser(), _SUFFIXES[what]
        if suffixes and path.suffix.lower() not in suffixes:
            raise ValueError(f"--{what} {text}: the name must end in {' or '.join(suffixes)}")
        if not path.parent.is_dir():
            raise ValueError(f"--{what} {text}: there is no folder {path.parent}; create it first")
        owner = taken.setdefault(os.path.realpath(path), f"--{what}")
        if owner != f"--{what}":
            raise ValueError(f"--{what} {text} would overwrite {owner}; choose another name")
        if what == "save" and path.exists():
            if not path.is_dir() or {p.name for p in path.iterdir()} not in (set(), _SAVED):
                raise ValueError(
                    f"--save {text} exists and is no saved estimator; give the name of a new folder"
                )
        elif path.is_dir():
            raise ValueError(f"--{what} {text} is a folder; add the name of a file")
        if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
            raise ValueError(f"--{what} {text} may not be written; choose another folder")
        for package in _NEEDS[what]:
            if importlib.util.find_spec(package) is None:
                raise ValueError(f"--{what} needs the package {package}; pip install 'flomi[report]'")
        wanted[what] = path
    return wanted


def check_writable(option: str, text: str | Path, folder: Path, file: Path | None = None) -> None:
    """ValueError unless files can be made in the folder, and the file, where it exists, can be changed; by trying."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        if file is not None and file.exists():
            open(file, "ab").close()
    except OSError as error:
        raise ValueError(
            f"{option} {text} can't be written ({error.strerror or error}); name another"
        ) from None


def write(
    what: str, path: Path, fitted: MIEstimator, result: MIEstimate, pairs: Pairs, *, command: str | None
) -> None:
    """Write one of the files that `check` allowed; each appears whole or not at all."""
    place = path.resolve()  # where a link points to
    if what == "save":
        fitted.save(path)
    elif what == "report":
        from flomi.data.columns import list_names
        from flomi.report import page

        about = {"file": pairs.source, "x": list_names(pairs.x_names), "y": list_names(pairs.y_names)}
        if pairs.notes:
            about["notes on the data"] = "; ".join(pairs.notes)
        page.write(result, place, command=command, about=about)
    elif what == "plot":
        buffer = io.BytesIO()
        result.plot().savefig(buffer, dpi=150, format=path.suffix[1:].lower())
        write_whole(place, buffer.getvalue())
    else:
        lines = [f"{row},{value:.6g}" for row, value in zip(pairs.rows, result.pmi, strict=True)]
        write_whole(place, "\n".join(["row,pmi", *lines]) + "\n")


def as_dict(result: MIEstimate, pairs: Pairs) -> dict[str, Any]:
    """The result, and under "data" where it came from."""
    about = {"source": pairs.source, "x": pairs.x_names, "y": pairs.y_names, "notes": pairs.notes}
    return {**result.to_dict(), "data": about}


def as_json(value: Any) -> str:
    """One line of JSON, which has no NaN or infinity: they become null."""
    return json.dumps(plain(value), ensure_ascii=False)


def as_text(result: MIEstimate, pairs: Pairs) -> str:
    """The short table for people, then warnings and notes as sentences."""
    from flomi.result import number  # here, since it loads NumPy, and --help answers at once

    def show(value: float) -> str:
        return number(value, result.stderr)

    names = {"lower": "bound on test rows", "upper": "upper bound on test rows", "none": "value on test rows"}
    no_bound = "; it may lie on either side" if result.bound_side == "none" else ""
    which = f"({result.bound_name.upper()}{no_bound})"
    interval = f"({result.percent} interval {show(result.ci[0])} to {show(result.ci[1])})"
    ranking = sorted(result.candidates.items(), key=lambda item: -item[1]["bound"])
    others = ", ".join(f"{critic} {show(facts['bound'])}" for critic, facts in ranking)
    proven = f"{show(result.lower_bound)} {result.units}", f"({result.percent} confidence, no model assumed)"
    if math.isnan(result.lower_bound):
        proven = "no certificate", ""
    rows = [
        ("estimate", f"{show(result.mi)} ± {show(result.stderr)} {result.units}", interval),
        ("at least", *proven),
        (names[result.bound_side], f"{show(result.bound)} ± {show(result.bound_stderr)}", which),
        ("plug-in", f"{show(result.plug_in)}, normalisation off by {show(result.imbalance)}", ""),
        ("verdict", result.verdict, ""),
        ("critic", result.critic + (f" (chosen among {others})" if len(ranking) > 1 else ""), ""),
        ("took", f"{result.seconds:.0f} s" if result.seconds >= 1 else "less than a second", ""),
    ]
    first, second = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows[:3])
    x, y = _side(pairs.x_names, pairs.x.shape), _side(pairs.y_names, pairs.y.shape)
    of_all = "" if pairs.full is None else f" of {pairs.full.rows:,}"
    lines = [f"Mutual information of x ({x}) and y ({y}), {len(pairs.x):,}{of_all} rows"]
    lines += [f"  {a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in rows]
    doubts = [sentence for sentence in result.warnings if sentence not in pairs.notes]
    for title, sentences in (("Warnings", doubts), ("About the data", pairs.notes)):
        if sentences:
            lines += ["", f"{title}:"]
            lines += [
                textwrap.fill(s, 100, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
                for s in sentences
            ]
    return "\n".join(lines)


def _side(names: tuple[str, ...], shape: tuple[int, ...]) -> str:
    if len(shape) > 2:
        return " x ".join(map(str, shape[1:])) + " values a row"
    return repr(names[0]) if len(names) == 1 else f"{len(names)} columns"
