"""Drawn rows on disk, in the folder where a run keeps its finished folds, so that a resumed run need not draw again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flomi.data.kinds import kinds_of
from flomi.data.pairs import FullData, Pairs
from flomi.support.files import write_whole

MANIFEST, ROWS = "checkpoint.json", "rows.safetensors"  # of which run the folder is; the drawn rows


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


def save_rows(path: Path, mark: str, pairs: Pairs) -> None:
    """Keep rows drawn from a larger file; `mark` stands for the file and for how they were drawn."""
    from safetensors.torch import save

    prepare(path)
    if (path / MANIFEST).exists():
        return  # of a run that is under way, and perhaps another one: whoever goes on with it looks at the rows
    full = pairs.full
    tensors = {"x": pairs.x, "y": pairs.y, "rows": pairs.rows, "groups": pairs.groups}
    tensors["correlation"] = None if full is None else full.correlation
    arrays = {name: torch.tensor(v) for name, v in tensors.items() if v is not None}
    known = {"mark": mark, "complete": None if full is None else full.rows}
    known.update({name: getattr(pairs, name) for name in ("x_names", "y_names", "notes", "source")})
    write_whole(path / ROWS, save(arrays, metadata={"rows": json.dumps(known)}))


def load_rows(path: Path, mark: str) -> Pairs | None:
    """What `save_rows` kept; None where there is nothing, or something of another file."""
    prepare(path)
    if not (path / ROWS).exists():
        return None
    tensors, known = read_tensors(path / ROWS, "rows")
    if known["mark"] != mark:
        return None
    arrays = {name: value.numpy() for name, value in tensors.items()}
    x, y, complete = arrays["x"], arrays["y"], known["complete"]
    x_names, y_names, notes = (tuple(known[name]) for name in ("x_names", "y_names", "notes"))
    full = None if complete is None else FullData(complete, arrays.get("correlation"))
    return Pairs(
        x, y, x_names, y_names, kinds_of(x), kinds_of(y), notes, known["source"], arrays["rows"], arrays.get("groups"), full
    )  # fmt: skip


def read_tensors(file: Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All tensors of a safetensors file, and the JSON that it has under `key`; ValueError for a file that is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return tensors, json.loads(opened.metadata()[key])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} can't be read ({error}); remove it") from error
