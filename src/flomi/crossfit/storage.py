"""A fitted estimator on disk: a folder of `estimator.json` and `tensors.safetensors`, from which loading runs no code.

Critics are rebuilt from their names in `CRITICS` and their stored sizes; every tensor must fit the module that was built.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flomi import bounds
from flomi.bounds import Bound
from flomi.critics import CRITICS
from flomi.critics.base import under
from flomi.crossfit.options import label_critics
from flomi.preprocess import IndependentColumns, RankNormal, Standardize, Whiten
from flomi.result import BY_ROW, MIEstimate
from flomi.training.candidate import Candidate, fresh_copy, width_of
from flomi.training.model import Model

FORMAT, READABLE = 2, (1, 2)  # 1 had no influence values, folds and groups
JSON, TENSORS = "estimator.json", "tensors.safetensors"
PREPROCESSING: dict[frozenset[str], type[nn.Module]] = {  # by the names of their tensors
    frozenset({"knots", "scores", "tails", "distinct"}): RankNormal,
    frozenset({"center", "scale"}): Standardize,
    frozenset({"center", "weight"}): Whiten,
    frozenset({"columns"}): IndependentColumns,
}


@dataclass(frozen=True)
class Fitted:
    """What a fitted estimator consists of."""

    options: dict[str, Any]
    result: MIEstimate
    critics: list[Candidate]
    columns: tuple[tuple[str, ...], tuple[str, ...]]
    log_normaliser: float


def save(fitted: Fitted, path: Path) -> Path:
    """Write the folder beside its place and move it there, so that an interrupt leaves no half of one."""
    from safetensors.torch import save_file

    found = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    if path.exists() and (not path.is_dir() or (found and found != [JSON, TENSORS])):
        raise FileExistsError(f"{path} exists and is no saved estimator; give the name of a new folder")
    result = fitted.result.to("nats")
    arrays = {name: value for name in BY_ROW if (value := getattr(result, name)) is not None}
    arrays |= {f"influence.{name}": values for name, values in result.influences.items()}
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    for k, candidate in enumerate(fitted.critics):
        tensors |= {f"{k}.{name}": value for name, value in tensors_of(candidate).items()}
    options = {**fitted.options, "device": str(fitted.options["device"]), "folds": None}  # `result` has them
    options["checkpoint"] = None if options["checkpoint"] is None else os.fspath(options["checkpoint"])
    for name in ("critic", "bound"):  # of your own ones the name only
        options[name] = options[name] if isinstance(options[name], str) else result.config[name]
    record = {
        "format": FORMAT,
        "options": options,
        "tuples": [name for name, value in options.items() if isinstance(value, tuple)],  # a list in JSON
        "result": result.to_dict(),
        "folds": [description(candidate) for candidate in fitted.critics],
        "log_normaliser": fitted.log_normaliser,
        "columns": fitted.columns,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        (place / JSON).write_text(json.dumps(record, indent=2, default=as_python), encoding="utf-8")
        save_file(tensors, place / TENSORS)
        if path.is_dir():
            shutil.rmtree(path)  # an estimator saved earlier
        os.replace(place, path)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return path


def as_python(value: Any) -> Any:
    """Numbers and arrays of numpy among the options, as JSON knows them."""
    return value.tolist()


def tensors_of(candidate: Candidate) -> dict[str, Tensor]:
    """Everything fitted, by name."""
    return {
        f"{part}.{name}": value.cpu().clone(memory_format=torch.contiguous_format)
        for part in ("prep_x", "prep_y", "model")
        for name, value in getattr(candidate, part).state_dict().items()
    }


def description(candidate: Candidate) -> dict[str, Any]:
    """What it takes to build a module of the same shapes."""
    return {
        "critic": candidate.name,
        "shape_x": candidate.shape_x,
        "shape_y": candidate.shape_y,
        "sizes": getattr(candidate.model.critic, "sizes", {}),
    }


def load(path: Path, critic: Any, bound: Any) -> Fitted:
    """What `save` wrote; ValueError where the folder holds something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (path / JSON).is_file() or not (path / TENSORS).is_file():
        raise ValueError(f"{path} holds no saved estimator: it must be a folder with {JSON} and {TENSORS}")
    try:
        record = json.loads((path / JSON).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSORS)
        if record["format"] not in READABLE:
            known = " and ".join(map(str, READABLE))
            raise ValueError(f"it has format {record['format']}, and this version of flomi reads {known}")
        return _rebuild(record, tensors, critic, bound)
    except (
        SafetensorError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RuntimeError,
        ValueError,
    ) as error:
        raise ValueError(f"{path} can't be read as a saved estimator: {error}") from error


def _rebuild(record: dict[str, Any], tensors: dict[str, Tensor], critic: Any, bound: Any) -> Fitted:
    options, config = {**record["options"]}, record["result"]["config"]
    options.update({name: tuple(options[name]) for name in record["tuples"]})
    requested = bounds.get(config["bound"] if bound is None else bound)
    given = {} if critic is None else label_critics(critic) or {}
    modules = {label: module for label, module in given.items() if isinstance(module, nn.Module)}
    lacking = {fold["critic"] for fold in record["folds"]} - set(CRITICS) - set(modules)
    if lacking:
        raise ValueError(
            f"it was fitted with a critic of your own, {', '.join(sorted(lacking))}: pass it as critic="
        )
    options.update({name: mine for name, mine in (("critic", critic), ("bound", bound)) if mine is not None})
    critics = [
        candidate_of(fold, under(tensors, f"{k}."), requested, tuple(config["hidden"]), modules)
        for k, fold in enumerate(record["folds"])
    ]
    columns_x, columns_y = record["columns"]
    log_normaliser = float(record["log_normaliser"])
    if not critics or not math.isfinite(log_normaliser):
        raise ValueError("it holds no fold, or no finite normaliser")
    fields = {f.name: f for f in dataclasses.fields(MIEstimate)}
    values = {name: record["result"][name] for name in fields if name in record["result"]}
    arrays = {name: value.numpy() for name, value in tensors.items() if value.dtype != torch.bfloat16}
    values |= {name: arrays[name] for name in BY_ROW if name in arrays}
    values["influences"] = under(arrays, "influence.")
    for name in ("ci", "warnings", "findings", "projection_labels"):
        values[name] = tuple(values.get(name, ()))
    # JSON has no NaN, and leaves None out
    values |= {name: math.nan for name, f in fields.items() if f.type == "float" and values.get(name) is None}
    result = MIEstimate(**values)
    return Fitted(options, result, critics, (tuple(columns_x), tuple(columns_y)), log_normaliser)


def candidate_of(
    fold: dict[str, Any],
    tensors: dict[str, Tensor],
    bound: Bound,
    hidden: tuple[int, ...],
    modules: Mapping[str, nn.Module],
) -> Candidate:
    name = fold["critic"]
    shape_x, shape_y = (tuple(int(v) for v in fold[s]) for s in ("shape_x", "shape_y"))
    state: dict[str, Tensor] = under(tensors, "model.")
    kind = CRITICS.get(name)
    prep_x, prep_y = (_preparation(under(tensors, f"prep_{s}."), name) for s in "xy")
    widths = width_of(prep_x, shape_x), width_of(prep_y, shape_y)
    if kind is not None and kind.restore is not None:
        # the base stood beside the sizes in earlier versions
        critic = kind.restore(under(state, "critic."), {"base": fold.get("base"), **fold.get("sizes", {})})
        rows = (torch.zeros(2, width, dtype=torch.float64) for width in widths)
        critic.matrix(*critic.encode(*rows))  # an error where a tensor is missing, or of the wrong shape
        model = Model(critic, (), None)
    else:
        if kind is None:
            net = fresh_copy(modules[name], shape_x, shape_y)
        else:
            assert kind.build is not None  # a row without `restore` has it
            net = kind.build(*widths, hidden)
        model = Model(net, shape_x if kind is None else widths[:1], bound)
        model.load_state_dict(state)
    return Candidate(name, prep_x, prep_y, model.eval(), None, 0.0, shape_x, shape_y)


def _preparation(state: dict[str, Tensor], name: str) -> nn.Module:
    if name in CRITICS and not state:
        return nn.Flatten()
    if not state:
        return nn.Identity()
    parts: list[nn.Module] = [nn.Flatten()]
    for place in sorted({key.split(".")[0] for key in state}, key=int):
        buffers: dict[str, Tensor] = under(state, f"{place}.")
        parts.append(PREPROCESSING[frozenset(buffers)](**buffers))
    return nn.Sequential(*parts)
