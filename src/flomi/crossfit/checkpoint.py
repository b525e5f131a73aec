"""Finished folds on disk, so that a run which was killed goes on where it was and ends in the same numbers.

A folder holds `checkpoint.json` (of which data and options it is), one `fold-K.safetensors` for every finished fold, and
`rows.safetensors` where rows were drawn from a larger file (`flomi.data.drawn_rows`). Each file is written beside its place
and moved there, so a kill at any moment leaves it whole or not there. A fold depends on nothing but the data, the options and
its number; one that was not finished is done again. Loading runs no code from a file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flomi._version import __version__
from flomi.bounds import Bound
from flomi.critics.base import under
from flomi.crossfit.evaluate import Evaluation, Report
from flomi.crossfit.fold import Fold
from flomi.crossfit.options import Options
from flomi.crossfit.splits import Split
from flomi.crossfit.storage import as_python, candidate_of, description, tensors_of
from flomi.data.drawn_rows import MANIFEST, prepare, read_tensors
from flomi.data.pairs import Pairs
from flomi.inference.certificate import PairScores
from flomi.inference.u_statistic import FoldSummary
from flomi.support.files import write_whole
from flomi.training.ensemble import Gain

FORMAT = 4
FOLD = "fold-{}.safetensors"
BY_ROW = ("values", "positive", "partition")  # of an evaluation
FREE = (
    "changed",
    "checkpoint",
    "keep_scores",
    "level",
    "modules",
    "n_jobs",
    "progress",
    "threads",
    "units",
    "versions",
)  # options that may change on the way


class Checkpoint:
    """The folds of one run in the folder `path`, which this makes, or takes up if it is of the same data and options."""

    def __init__(self, path: Path, options: Options, data: Pairs, splits: list[Split]) -> None:
        self.path, self.bound, self.hidden = path, options.bound, tuple(options.fit.hidden)
        self.modules = {k: v for k, v in (options.critics or {}).items() if isinstance(v, nn.Module)}
        fixed = {name: value for name, value in options.config.items() if name not in FREE}
        if self.modules:
            digests = [
                f"{module}, {_digest(*module.state_dict().values())}" for module in self.modules.values()
            ]
            fixed["critic"] = [fixed["critic"], *digests]
        if options.folds is not None:
            fixed["folds"] = _digest(*(part for split in splits for part in (split.training, split.test)))
        mine = {
            "format": FORMAT,
            "version": __version__,
            "data": _digest(data.x, data.y, data.groups),
            "options": json.loads(json.dumps(fixed, default=as_python)),
        }
        prepare(path)
        if (path / MANIFEST).exists():
            _compare(path, mine)
        else:
            write_whole(path / MANIFEST, json.dumps(mine, indent=2))

    def load(self, k: int) -> Fold | None:
        """Fold k, or None if it was not finished."""
        file = self.path / FOLD.format(k)
        return _fold(file, self.bound, self.hidden, self.modules) if file.exists() else None

    def save(self, k: int, fold: Fold) -> None:
        """Keep fold k, unless it was interrupted."""
        from safetensors.torch import save

        if fold.interrupted:
            return
        found = {
            "test": fold.test,
            "value": fold.report.value,
            "influence": fold.report.influence,
            "pmi": fold.report.pmi,
        }
        for part, scores in (("scores", fold.report.scores), ("calibration", fold.calibration)):
            found |= {f"{part}.pos": scores.pos, f"{part}.neg": scores.neg, f"{part}.shifts": scores.shifts}
            if scores.groups is not None:
                found[f"{part}.groups"] = scores.groups
        for name, evaluation in fold.evaluations.items():
            found |= {f"{field}.{name}": getattr(evaluation, field) for field in BY_ROW}
        arrays = {name: torch.tensor(np.ascontiguousarray(value)) for name, value in found.items()}
        arrays |= {f"winner.{name}": value for name, value in tensors_of(fold.winner).items()}
        facts: dict[str, Any] = {
            name: getattr(fold, name)
            for name in ("bases", "training_value", "left_out", "seconds", "history")
        }
        facts["gains"] = {name: dataclasses.asdict(gain) for name, gain in fold.gains.items()}
        facts["evaluations"] = {
            name: {
                "summary": dataclasses.asdict(evaluation.summary),
                "donsker_varadhan": evaluation.donsker_varadhan,
                "negatives": evaluation.negatives,
            }
            for name, evaluation in fold.evaluations.items()
        }
        facts["winner"] = description(fold.winner)
        text = {"fold": json.dumps(facts, default=as_python)}
        write_whole(self.path / FOLD.format(k), save(arrays, metadata=text))


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


def _fold(file: Path, bound: Bound, hidden: tuple[int, ...], modules: Mapping[str, nn.Module]) -> Fold:
    tensors, facts = read_tensors(file, "fold")
    try:
        arrays = {name: value.numpy() for name, value in tensors.items() if value.dtype != torch.bfloat16}

        def scores(part: str) -> PairScores:
            pos, neg, by = (arrays[f"{part}.{name}"] for name in ("pos", "neg", "shifts"))
            return PairScores(pos, neg, by, arrays.get(f"{part}.groups"))

        return Fold(
            test=arrays["test"],
            winner=candidate_of(facts["winner"], under(tensors, "winner."), bound, hidden, modules),
            gains={name: Gain(**gain) for name, gain in facts["gains"].items()},
            bases=facts["bases"],
            report=Report(arrays["value"], arrays["influence"], arrays["pmi"], scores("scores")),
            calibration=scores("calibration"),
            training_value=facts["training_value"],
            left_out=facts["left_out"],
            evaluations={
                name: Evaluation(
                    **{field: arrays[f"{field}.{name}"] for field in BY_ROW},
                    summary=FoldSummary(**f["summary"]), donsker_varadhan=f["donsker_varadhan"], negatives=f["negatives"],
                )
                for name, f in facts["evaluations"].items()
            },
            seconds=facts["seconds"],
            history=facts["history"],
            interrupted=False,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(f"{file} can't be read as a finished fold ({error}); remove it") from error


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
