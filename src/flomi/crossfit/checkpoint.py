"""Finished folds on disk, so that a run which was killed goes on where it was and ends in the same numbers.

A folder holds `checkpoint.json` (of which data and options it is), one `fold-K.safetensors` for every finished fold, and
`rows.safetensors` where rows were drawn from a larger file. Each file is written beside its place and moved there, so a
kill at any moment leaves it whole or not there. A fold depends on nothing but the data, the options and its number; one
that was not finished is done again. Loading runs no code from a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flomi._version import __version__
from flomi.bounds import Bound
from flomi.critics.base import under
from flomi.crossfit.evaluate import HeldOut, Measured
from flomi.crossfit.fold import Fold
from flomi.crossfit.options import Plan
from flomi.crossfit.storage import as_python, candidate_of, description
from flomi.data.pairs import Pairs, Whole
from flomi.inference.u_statistic import FoldSummary, PairScores
from flomi.training.candidate import Candidate
from flomi.training.ensemble import Gain
from flomi.training.loop import History

__all__ = ["Checkpoint", "load_pairs", "prepare", "save_pairs"]

FORMAT = 2
MANIFEST, ROWS, FOLD = "checkpoint.json", "rows.safetensors", "fold-{}.safetensors"
FREE = (
    "checkpoint",
    "n_jobs",
    "progress",
    "threads",
    "units",
    "versions",
)  # options that may change on the way


def prepare(path: Path) -> None:
    """Make the folder; ValueError where it can't be one of checkpoints."""
    if path.exists() and not path.is_dir():
        raise ValueError(f"checkpoint {path} is a file; give the name of a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
        found = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise ValueError(
            f"checkpoint {path} can't be used ({error.strerror or error}); name another"
        ) from None
    if found and MANIFEST not in found and found != [ROWS]:
        raise ValueError(f"checkpoint {path} is a folder of other things; give the name of a new one")


class Checkpoint:
    """The folds of one run in the folder `path`, which this makes, or takes up if it is of the same data and options."""

    def __init__(self, path: Path, plan: Plan, data: Pairs) -> None:
        self.path, self.bound, self.hidden = path, plan.bound, tuple(plan.how.fit.hidden)
        self.own: nn.Module | None = plan.critic if isinstance(plan.critic, nn.Module) else None
        options = {name: value for name, value in plan.config.items() if name not in FREE}
        if self.own is not None:
            options["critic"] = f"{self.own}, {_digest(*self.own.state_dict().values())}"
        mine = {
            "format": FORMAT,
            "version": __version__,
            "data": _digest(data.x, data.y, data.groups),
            "options": json.loads(json.dumps(options, default=as_python)),
        }
        prepare(path)
        if (path / MANIFEST).exists():
            _compare(path, mine)
        else:
            _write(path / MANIFEST, json.dumps(mine, indent=2).encode())

    def load(self, k: int) -> Fold | None:
        """Fold k, or None if it was not finished."""
        file = self.path / FOLD.format(k)
        return _fold(file, self.bound, self.hidden, self.own) if file.exists() else None

    def save(self, k: int, fold: Fold) -> None:
        """Keep fold k, unless it was interrupted."""
        from safetensors.torch import save

        if fold.interrupted:
            return
        tensors = {"index": fold.index, "value": fold.held.value, "pmi": fold.held.pmi}
        for part, scores in (("score", fold.held.score), ("calibration", fold.calibration)):
            tensors |= {f"{part}.pos": scores.pos, f"{part}.neg": scores.neg, f"{part}.shifts": scores.shifts}
            if scores.groups is not None:
                tensors[f"{part}.groups"] = scores.groups
        tensors |= {f"by_row.{name}": found.by_row for name, found in fold.measured.items()}
        arrays = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in tensors.items()}
        facts: dict[str, Any] = {
            name: getattr(fold, name) for name in ("base", "training_value", "seconds", "history")
        }
        facts["measured"] = {
            name: {
                "summary": dataclasses.asdict(found.summary),
                "recalibrated": found.recalibrated,
                "negatives": found.negatives,
            }
            for name, found in fold.measured.items()
        }
        for part, candidate in (("winner", fold.winner), ("residual", fold.residual)):
            if candidate is None or (part == "residual" and candidate is fold.winner):
                facts[part] = None if candidate is None else "winner"
                continue
            facts[part] = {
                **description(candidate),
                "seconds": candidate.seconds,
                "gain": None if candidate.gain is None else dataclasses.asdict(candidate.gain),
                "history": None if candidate.history is None else dataclasses.asdict(candidate.history),
            }
            for module in ("prep_x", "prep_y", "model"):
                state = getattr(candidate, module).state_dict()
                arrays.update(
                    {
                        f"{part}.{module}.{name}": v.cpu().clone(memory_format=torch.contiguous_format)
                        for name, v in state.items()
                    }
                )
        text = {"fold": json.dumps(facts, default=as_python)}
        _write(self.path / FOLD.format(k), save(arrays, metadata=text))


def _compare(path: Path, mine: dict[str, Any]) -> None:
    try:
        theirs = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        then, now = theirs["options"], mine["options"]
        other = sorted(name for name in now.keys() | then.keys() if then.get(name) != now.get(name))
        known = (theirs["format"], theirs["version"])
        data = theirs["data"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"checkpoint {path}: {MANIFEST} can't be read ({error}); name another folder"
        ) from None
    if known != (mine["format"], mine["version"]):
        raise ValueError(
            f"checkpoint {path} was made by another flomi ({known[1]}, format {known[0]}) than this one "
            f"({mine['version']}, format {mine['format']}); name another folder"
        )
    if other:
        changed = ", ".join(f"{name} was {then.get(name)!r} and is {now.get(name)!r}" for name in other[:3])
        raise ValueError(
            f"checkpoint {path} is of a run with other options: {changed}; name another folder, or give the same options"
        )
    if data != mine["data"]:
        raise ValueError(f"checkpoint {path} is of other data; name another folder, or give the same data")


def _fold(file: Path, bound: Bound, hidden: tuple[int, ...], own: nn.Module | None) -> Fold:
    tensors, facts = _read(file, "fold")
    try:
        candidates: dict[str, Candidate | None] = {"winner": None, "residual": None}
        for part in candidates:
            known = facts[part]
            if known is None or known == "winner":
                candidates[part] = candidates["winner"] if known else None
                continue
            made = candidate_of(known, under(tensors, f"{part}."), bound, hidden, own)
            candidates[part] = dataclasses.replace(
                made,
                seconds=known["seconds"],
                gain=None if known["gain"] is None else Gain(**known["gain"]),
                history=None if known["history"] is None else History(**known["history"]),
            )
        winner = candidates["winner"]
        assert winner is not None
        arrays = {name: value.numpy() for name, value in tensors.items() if value.dtype != torch.bfloat16}

        def scores(part: str) -> PairScores:
            pos, neg, by = (arrays[f"{part}.{name}"] for name in ("pos", "neg", "shifts"))
            return PairScores(pos, neg, by, arrays.get(f"{part}.groups"))

        return Fold(
            index=arrays["index"],
            winner=winner,
            base=facts["base"],
            residual=candidates["residual"],
            held=HeldOut(arrays["value"], arrays["pmi"], scores("score")),
            calibration=scores("calibration"),
            training_value=facts["training_value"],
            measured={
                name: Measured(
                    arrays[f"by_row.{name}"], FoldSummary(**f["summary"]), f["recalibrated"], f["negatives"]
                )
                for name, f in facts["measured"].items()
            },
            seconds=facts["seconds"],
            history=facts["history"],
            interrupted=False,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(f"{file} can't be read as a finished fold ({error}); remove it") from error


def save_pairs(path: Path, mark: str, pairs: Pairs) -> None:
    """Keep rows drawn from a larger file; `mark` stands for the file and for how they were drawn."""
    from safetensors.torch import save

    prepare(path)
    if (path / MANIFEST).exists():
        return  # of a run that is under way, and perhaps another one: `Checkpoint` looks at the rows
    whole = pairs.whole
    tensors = {"x": pairs.x, "y": pairs.y, "rows": pairs.rows, "groups": pairs.groups}
    tensors["correlation"] = None if whole is None else whole.correlation
    arrays = {name: torch.tensor(v) for name, v in tensors.items() if v is not None}
    known = {"mark": mark, "complete": None if whole is None else whole.rows}
    known.update({name: getattr(pairs, name) for name in ("x_names", "y_names", "notes", "source")})
    _write(path / ROWS, save(arrays, metadata={"rows": json.dumps(known)}))


def load_pairs(path: Path, mark: str) -> Pairs | None:
    """What `save_pairs` kept; None where there is nothing, or something of another file."""
    prepare(path)
    if not (path / ROWS).exists():
        return None
    tensors, known = _read(path / ROWS, "rows")
    if known["mark"] != mark:
        return None
    arrays = {name: value.numpy() for name, value in tensors.items()}
    complete = known["complete"]
    return Pairs(
        arrays["x"], arrays["y"], tuple(known["x_names"]), tuple(known["y_names"]), tuple(known["notes"]), known["source"],
        arrays["rows"], arrays.get("groups"), None if complete is None else Whole(complete, arrays.get("correlation")),
    )  # fmt: skip


def _read(file: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, json.loads(opened.metadata()[key])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} can't be read ({error}); remove it") from error


def _write(file: Path, content: bytes) -> None:
    part = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        part.write_bytes(content)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def _digest(*arrays: np.ndarray | Tensor | None) -> str:
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        if array is None:
            found.update(b"none")
            continue
        values = np.ascontiguousarray(array.detach().cpu().numpy() if isinstance(array, Tensor) else array)
        found.update(f"{values.dtype} {values.shape} ".encode())
        found.update(values.data if values.size else b"")
    return found.hexdigest()
