"""From a user's options to checked ones: what each effort buys, and errors for options that don't fit, before any work."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from flomi import bounds
from flomi._version import __version__
from flomi.bounds import Bound
from flomi.critics import CRITICS
from flomi.scores import NEGATIVES
from flomi.training.bound import BoundTraining
from flomi.training.candidate import PREPROCESS, FitSettings
from flomi.training.ensemble import EnsembleTraining
from flomi.training.user_models import check_bound

AUTO = "auto"  # the word for the default candidates
PRECISIONS = ("highest", "high", "medium")  # torch's words
PAIRS = 50_000_000  # scored pairs in memory, 400 MB of all folds; effort="thorough" and eval_pairs may ask for more
UNITS, MISSING = ("nats", "bits"), ("error", "drop")

LEAST = {  # of the options that are whole numbers
    "seed": 0,
    "n_folds": 2,
    "eval_pairs": 1,
    "steps": 1,
    "batch_size": 2,
    "n_negatives": 1,
    "patience": 1,
}
IDLE = ("checkpoint", "keep_scores", "n_jobs", "progress")  # options that change no number
BY_BOUND = (  # options of networks trained by the bound itself
    "hidden",
    "steps",
    "batch_size",
    "lr",
    "weight_decay",
    "negatives",
    "n_negatives",
    "patience",
    "precision",
    "preprocess",
)


@dataclass(frozen=True)
class Effort:
    """What a word buys: folds, the pairs that are evaluated, how networks are trained, whether costly candidates are tried."""

    folds: int
    pairs: int
    ensemble: EnsembleTraining
    network: BoundTraining
    hidden: tuple[int, ...]
    costly: bool = True


EFFORTS = {
    "fast": Effort(
        4,
        1_200_000,
        EnsembleTraining(members=1, steps=150, evaluations=10, patience=4, validation_rows=900),
        BoundTraining(steps=600, patience=6, negatives="auto"),
        (64,),
        costly=False,
    ),
    "standard": Effort(
        5, 8_000_000, EnsembleTraining(), BoundTraining(steps=1500, negatives="auto"), (64, 64)
    ),
    "thorough": Effort(
        10,
        100_000_000,
        EnsembleTraining(members=8, steps=800),
        BoundTraining(steps=6000, patience=24, m=16, negatives="auto"),
        (128, 128),
    ),
}


@dataclass(frozen=True)
class Options:
    """The options with every default filled in, checked before any work starts.

    `critics` by their labels, which are names in CRITICS or those of the user's classes; None for the default candidates.
    """

    critics: dict[str, str | nn.Module] | None
    bound: Bound
    n_folds: int
    folds: Any
    fit: FitSettings
    pairs: int
    most_pairs: int
    costly: bool
    seed: int
    level: float
    n_jobs: int
    progress: bool
    checkpoint: Path | None
    keep_scores: bool
    config: dict[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Options:
        """From the options as a user gave them; `defaults` tell which of them were changed."""
        effort = EFFORTS[_choose("effort", given["effort"], EFFORTS)]
        bound = bounds.get(given["bound"])
        critics = label_critics(given["critic"])
        _choose("preprocess", given["preprocess"], PREPROCESS)
        _choose("units", given["units"], UNITS)
        _choose("missing", given["missing"], MISSING)
        if given["negatives"] is not None:
            _choose("negatives", given["negatives"], NEGATIVES)
        if given["precision"] is not None:
            _choose("precision", given["precision"], PRECISIONS)
        _check_device(given["device"])
        if given["checkpoint"] is not None and not isinstance(given["checkpoint"], (str, os.PathLike)):
            raise TypeError(f"checkpoint must be the path of a folder; found {given['checkpoint']!r}")
        folds = given["folds"]
        if folds is not None and given["n_folds"] is not None:
            raise ValueError(
                f"folds and n_folds={given['n_folds']} both say how to cut the rows; leave one out"
            )
        given = {  # numbers of numpy as Python's, which JSON knows
            name: value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
            for name, value in given.items()
            if name != "folds"
        }
        if given["checkpoint"] is not None:
            given["checkpoint"] = os.fspath(given["checkpoint"])
        _check_numbers(given)
        _check_hidden(given["hidden"])
        hidden = tuple(map(int, effort.hidden if given["hidden"] is None else given["hidden"]))
        named = {
            n: given[n]
            for n in ("steps", "batch_size", "lr", "weight_decay", "negatives", "patience", "precision")
        }
        named["m"] = given["n_negatives"]
        network = dataclasses.replace(effort.network, **{k: v for k, v in named.items() if v is not None})
        _check_bound_of_ones_own(critics, bound)
        for critic in [None] if critics is None else critics.values():
            _check_density(critic, bound)
        _check_idle(given["critic"], critics, bound, given)
        n_folds = given["n_folds"] or effort.folds
        pairs = given["eval_pairs"] or effort.pairs
        labels = AUTO if critics is None else list(critics)
        config = {
            **given,
            "device": str(given["device"]),
            "critic": labels[0] if critics is not None and len(labels) == 1 else labels,
            "bound": bound.name,
            "n_folds": n_folds,
            "folds": None if folds is None else "folds",
            "hidden": list(hidden),
            "recipe": dataclasses.asdict(network),
            "versions": {
                "flomi": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "threads": torch.get_num_threads(),
            "modules": [name for name, c in (critics or {}).items() if isinstance(c, nn.Module)],
            "own": [
                name
                for name, own in (
                    ("critic", any(isinstance(c, nn.Module) for c in (critics or {}).values())),
                    ("bound", bounds.BOUNDS.get(bound.name) is not bound),
                    ("folds", folds is not None),
                )
                if own
            ],
        }
        usual = {
            **defaults,
            "n_folds": effort.folds,
            "hidden": list(effort.hidden),
            "effort": None,
            "seed": None,
        }
        config["changed"] = [
            name
            for name, default in usual.items()
            if name not in IDLE and config.get(name) is not None and config[name] != default
        ]
        return cls(
            critics=critics, bound=bound, n_folds=n_folds, folds=folds,
            fit=FitSettings(network, effort.ensemble, hidden, given["preprocess"], given["device"]),
            pairs=pairs, most_pairs=max(pairs, PAIRS), costly=effort.costly, seed=given["seed"],
            level=float(given["level"]), n_jobs=_processes(given["n_jobs"]), progress=given["progress"],
            checkpoint=None if given["checkpoint"] is None else Path(given["checkpoint"]).expanduser(),
            keep_scores=bool(given["keep_scores"]), config=config,
        )  # fmt: skip


def label_critics(critic: Any) -> dict[str, str | nn.Module] | None:
    """What the option `critic` names: None for "auto", else critics by label, in the order that CRITICS has, modules last.

    Modules of one name are told apart by a number.

    >>> label_critics(["gaussian", nn.Linear(1, 1), nn.Linear(2, 1)]).keys()
    dict_keys(['gaussian', 'Linear', 'Linear-2'])
    """
    if isinstance(critic, str) and critic == AUTO:
        return None
    several = list(critic) if isinstance(critic, (list, tuple)) else [critic]
    if not several:
        raise ValueError("critic is an empty list; name one critic at least, or leave it out")
    found: dict[str, str | nn.Module] = {}
    for one in several:
        if isinstance(one, nn.Module):
            name = label = type(one).__name__
            number = 1
            while label in found or label in CRITICS:  # another class may have the same name
                number += 1
                label = f"{name}-{number}"
            found[label] = one
        elif isinstance(one, str):
            allowed = (AUTO, *CRITICS) if one is critic else CRITICS
            found[_choose("critic", one, allowed)] = one
        else:
            raise TypeError(
                f"critic must be a name, an nn.Module or a list of these, not {type(one).__name__}; pass an instance"
            )
    order = {name: k for k, name in enumerate(CRITICS)}
    return dict(sorted(found.items(), key=lambda item: order.get(item[0], len(order))))


def _choose(name: str, value: Any, allowed: Iterable[str]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(allowed)}; found {value!r}")
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(allowed)}")
    return str(value)


def _check_device(device: Any) -> None:
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device must be a name such as 'cpu'; found {device!r}")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device={device!r} can't be used here; use device='cpu'") from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_numbers(given: dict[str, Any]) -> None:
    for name, least in {**LEAST, "n_jobs": None}.items():
        value = given[name]
        if value is None and name not in ("seed", "n_jobs"):  # as `effort` says
            continue
        if not _is_whole(value):
            raise TypeError(f"{name} must be a whole number; found {value!r}")
        if least is not None and value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}; found {value}")
    if given["seed"] >= 2**63:
        raise ValueError(f"seed must be below 2**63; found {given['seed']}")
    if given["n_jobs"] == 0:
        raise ValueError("n_jobs must be a number of processes, or -1 for one a core; found 0")
    if not isinstance(given["level"], (int, float)) or not 0 < given["level"] < 1:
        raise ValueError(f"level must be a number between 0 and 1, such as 0.95; found {given['level']!r}")
    for name in ("lr", "weight_decay"):
        value = given[name]
        if value is None:
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{name} must be a number; found {value!r}")
        if not 0 <= value < math.inf or (name == "lr" and value == 0):
            raise ValueError(
                f"{name} must be {'above' if name == 'lr' else 'at least'} 0 and finite; found {value}"
            )


def _check_hidden(hidden: Any) -> None:
    if hidden is None:
        return
    if _is_whole(hidden):
        raise TypeError(f"hidden must hold the width of each layer; write hidden=({hidden},) for one layer")
    if not isinstance(hidden, (list, tuple)) or not all(_is_whole(width) for width in hidden):
        raise TypeError(f"hidden must hold the widths of layers, such as (64, 64); found {hidden!r}")
    if not hidden or min(hidden) < 1:
        raise ValueError(f"hidden must hold at least one width, each at least 1; found {hidden!r}")


def _check_idle(
    critic: Any, critics: dict[str, str | nn.Module] | None, bound: Bound, given: Mapping[str, Any]
) -> None:
    """Options that act on nothing that these critics do are refused rather than ignored."""
    if critics is None:
        kinds = [kind for kind in CRITICS.values() if kind.density and "density" in bound.needs]
    else:
        kinds = [CRITICS[critic] for critic in critics.values() if isinstance(critic, str)]
    has_module = critics is not None and len(kinds) < len(critics)
    built = [kind for kind in kinds if kind.build is not None]
    for option in () if built else ("hidden", "preprocess") if has_module else BY_BOUND:
        value = given[option]
        if value is None or (
            option == "preprocess" and (value == "rank" or (has_module and value == "none"))
        ):
            continue  # not given, or what happens anyway
        if has_module:
            raise ValueError(
                f"{option}={value!r} does nothing for a critic of your own, which has its own layers and gets the rows as "
                "they are: leave it out"
            )
        raise ValueError(
            f"{option}={value!r} acts on networks trained by the bound itself, and critic={critic!r} trains none: name one, "
            f"such as critic='joint', or leave {option} out"
        )
    scheme = given["negatives"] or (built[0].negatives if built else "shifts")
    if given["n_negatives"] is not None and scheme in ("all", "chunked"):
        raise ValueError(
            f"n_negatives={given['n_negatives']} does nothing where a step takes all negatives of its batch "
            f"(negatives={scheme!r}): choose negatives='shifts', or leave it out"
        )


def _processes(n_jobs: int) -> int:
    """How many processes n_jobs stands for, where -1 is one a core."""
    if n_jobs > 0:
        return n_jobs
    from joblib import effective_n_jobs

    return int(effective_n_jobs(n_jobs))


def _check_bound_of_ones_own(critics: dict[str, str | nn.Module] | None, bound: Bound) -> None:
    """A bound that is no row of BOUNDS is tried on made-up scores."""
    if bounds.BOUNDS.get(bound.name) is not bound:
        trained = any(
            isinstance(critic, nn.Module) or CRITICS[critic].build is not None
            for critic in (critics or {}).values()
        )
        check_bound(bound, trained=trained)


def _check_density(critic: str | nn.Module | None, bound: Bound) -> None:
    """A density bound needs log q(y|x) for a critic; one that needs the known p(y) too gets it from the user."""
    is_module = isinstance(critic, nn.Module)
    wanted = "density" in bound.needs
    density = wanted if critic is None else hasattr(critic, "marginal")
    if isinstance(critic, str):
        density = CRITICS[critic].density
    if bound.known_marginal and (not is_module or getattr(critic, "log_marginal", True) is None):
        raise ValueError(
            f"bound={bound.name!r} needs the density p(y): pass critic=critics.ConditionalGaussian(dim_x, dim_y, "
            "log_marginal=...), or use bound='doe', which fits p(y)"
        )
    if wanted and not density:
        if not is_module:
            raise ValueError(
                f"bound={bound.name!r} needs a conditional density: use critic='density', not {critic!r}"
            )
        raise ValueError(
            f"bound={bound.name!r} needs a conditional density: your critic(x, y) must return log q(y|x) and have a method "
            f"marginal(y) that returns log q(y), and {type(critic).__name__} has none; critics.ConditionalGaussian has both"
        )
    if density and not wanted:
        named = "a critic with marginal(y), a density model," if is_module else f"critic={critic!r}"
        raise ValueError(f"{named} goes with bound='club', 'l1out' or 'doe', not with {bound.name!r}")
