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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flomi import bounds
from flomi.bounds import Bound
from flomi.critics import CRITICS
from flomi.critics.base import under
from flomi.preprocess import RankNormal, Standardize, Whiten
from flomi.result import MIEstimate
from flomi.training.candidate import Candidate, own_critic
from flomi.training.loop import Model

if TYPE_CHECKING:
    from flomi.estimator import MIEstimator

__all__ = ["candidate_of", "description", "load", "save"]

FORMAT = 1
JSON, TENSORS = "estimator.json", "tensors.safetensors"
PREPROCESSING: dict[frozenset[str], type[nn.Module]] = {  # by the names of their tensors
    frozenset({"knots", "scores", "tails", "distinct"}): RankNormal,
    frozenset({"center", "scale"}): Standardize,
    frozenset({"center", "weight"}): Whiten,
}


def save(estimator: MIEstimator, path: Path) -> Path:
    """Write the folder beside its place and move it there, so that an interrupt leaves no half of one."""
    from safetensors.torch import save_file

    found = sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    if path.exists() and (not path.is_dir() or (found and found != [JSON, TENSORS])):
        raise FileExistsError(f"{path} exists and is no saved estimator; give the name of a new folder")
    result: MIEstimate = estimator.result_.to("nats")
    tensors = {"pmi": torch.from_numpy(result.pmi), "projection": torch.from_numpy(result.projection)}
    folds = []
    for k, candidate in enumerate(estimator.critics_):
        folds.append(description(candidate))
        for part in ("prep_x", "prep_y", "model"):
            state = getattr(candidate, part).state_dict()
            tensors.update({f"{k}.{part}.{name}": value.contiguous() for name, value in state.items()})
    options = {**estimator.get_params(), "device": str(estimator.device)}
    options["checkpoint"] = None if estimator.checkpoint is None else os.fspath(estimator.checkpoint)
    for name in ("critic", "bound"):  # of your own ones the name only
        options[name] = options[name] if isinstance(options[name], str) else result.config[name]
    record = {
        "format": FORMAT,
        "options": options,
        "tuples": [name for name, value in options.items() if isinstance(value, tuple)],  # a list in JSON
        "result": result.to_dict(),
        "folds": folds,
        "log_normaliser": estimator.log_normaliser_,
        "columns": estimator.columns_,
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


def description(candidate: Candidate) -> dict[str, Any]:
    """What it takes to build a module of the same shapes."""
    return {
        "critic": candidate.name,
        "shape_x": candidate.shape_x,
        "shape_y": candidate.shape_y,
        "sizes": getattr(candidate.model.critic, "sizes", {}),
    }


def load(kind: type[MIEstimator], path: Path, critic: nn.Module | None, bound: Any) -> MIEstimator:
    """Rebuild what `save` wrote; ValueError where the folder holds something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (path / JSON).is_file() or not (path / TENSORS).is_file():
        raise ValueError(f"{path} holds no saved estimator: it must be a folder with {JSON} and {TENSORS}")
    try:
        record = json.loads((path / JSON).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSORS)
        if record["format"] != FORMAT:
            raise ValueError(f"it has format {record['format']}, and this version of flomi reads {FORMAT}")
        return _rebuild(kind, record, tensors, critic, bound)
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


def _rebuild(
    kind: type[MIEstimator],
    record: dict[str, Any],
    tensors: dict[str, Tensor],
    critic: nn.Module | None,
    bound: Any,
) -> MIEstimator:
    options, config = {**record["options"]}, record["result"]["config"]
    options.update({name: tuple(options[name]) for name in record["tuples"]})
    chosen = bounds.get(config["bound"] if bound is None else bound)
    stored = {fold["critic"] for fold in record["folds"]}
    if critic is None and not stored <= set(CRITICS):
        raise ValueError(
            f"it was fitted with a critic of your own, {', '.join(sorted(stored))}: pass it as critic="
        )
    options.update({name: own for name, own in (("critic", critic), ("bound", bound)) if own is not None})
    estimator = kind(**options)
    estimator.critics_ = [
        candidate_of(fold, under(tensors, f"{k}."), chosen, tuple(config["hidden"]), critic)
        for k, fold in enumerate(record["folds"])
    ]
    columns_x, columns_y = record["columns"]
    estimator.columns_ = tuple(columns_x), tuple(columns_y)
    estimator.log_normaliser_ = float(record["log_normaliser"])
    if not estimator.critics_ or not math.isfinite(estimator.log_normaliser_):
        raise ValueError("it holds no fold, or no finite normaliser")
    values = {f.name: record["result"].get(f.name) for f in dataclasses.fields(MIEstimate)}
    values.update(pmi=tensors["pmi"].numpy(), projection=tensors["projection"].numpy())
    for name in ("ci", "warnings", "projection_labels"):
        values[name] = tuple(values[name])
    nan = {
        f.name: math.nan
        for f in dataclasses.fields(MIEstimate)
        if f.type == "float" and values[f.name] is None
    }
    estimator.result_ = MIEstimate(**{**values, **nan}).to(estimator.units)
    return estimator


def candidate_of(
    fold: dict[str, Any],
    tensors: dict[str, Tensor],
    bound: Bound,
    hidden: tuple[int, ...],
    own: nn.Module | None,
) -> Candidate:
    name = fold["critic"]
    shape_x, shape_y = (tuple(int(v) for v in fold[s]) for s in ("shape_x", "shape_y"))
    state = under(tensors, "model.")
    kind = CRITICS.get(name)
    if kind is not None and kind.restore is not None:
        # the base stood beside the sizes in earlier versions
        critic = kind.restore(under(state, "critic."), {"base": fold.get("base"), **fold.get("sizes", {})})
        rows = (torch.zeros(2, math.prod(shape), dtype=torch.float64) for shape in (shape_x, shape_y))
        critic.matrix(*critic.encode(*rows))  # an error where a tensor is missing, or of the wrong shape
        model = Model(critic, (), None)
    else:
        if kind is None:
            assert own is not None  # checked above
            net = own_critic(own, shape_x, shape_y)
        else:
            assert kind.build is not None  # a row without `restore` has it
            net = kind.build(math.prod(shape_x), math.prod(shape_y), hidden)
        model = Model(net, shape_x, bound)
        model.load_state_dict(state)
    prep_x, prep_y = (_preparation(under(tensors, f"prep_{s}."), name) for s in "xy")
    return Candidate(name, prep_x, prep_y, model.eval(), None, 0.0, shape_x, shape_y)


def _preparation(state: dict[str, Tensor], name: str) -> nn.Module:
    if name in CRITICS and not state:
        return nn.Flatten()
    if not state:
        return nn.Identity()
    parts: list[nn.Module] = [nn.Flatten()]
    for place in sorted({key.split(".")[0] for key in state}, key=int):
        buffers = under(state, f"{place}.")
        parts.append(PREPROCESSING[frozenset(buffers)](**buffers))
    return nn.Sequential(*parts)
