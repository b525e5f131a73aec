"""From a user's options to a checked plan: what each effort buys, and errors for options that don't fit, before any work."""

from __future__ import annotations

import dataclasses
import inspect
import math
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from flomi import bounds
from flomi._version import __version__
from flomi.bounds import Bound
from flomi.critics import CRITICS
from flomi.crossfit.fold import How
from flomi.scores import NEGATIVES
from flomi.training.candidate import PREPROCESS, FitSettings
from flomi.training.ensemble import EnsembleRecipe
from flomi.training.loop import Recipe
from flomi.training.user_models import check_bound

if TYPE_CHECKING:
    from flomi.estimator import MIEstimator

__all__ = ["EFFORTS", "Effort", "Plan"]

MOST_PAIRS = 50_000_000  # of all folds, so many numbers being in memory at once; "thorough" and eval_pairs may ask for more

PRECISIONS = ("highest", "high", "medium")  # torch's words

LEAST = {  # of the options that are whole numbers
    "seed": 0,
    "n_folds": 2,
    "eval_pairs": 1,
    "steps": 1,
    "batch_size": 2,
    "n_negatives": 1,
    "patience": 1,
}
TRAINING = (  # options of networks trained by the bound itself
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
    """What a word buys: folds, the pairs of rows that are evaluated, how networks are trained, and what does not compete."""

    folds: int
    pairs: int
    ensemble: EnsembleRecipe
    recipe: Recipe
    hidden: tuple[int, ...]
    without: tuple[str, ...] = ()


EFFORTS = {
    "fast": Effort(
        4,
        1_200_000,
        EnsembleRecipe(members=1, steps=150, checks=10, patience=4, judged=900),
        Recipe(steps=600, patience=6, negatives="auto"),
        (64,),
        without=("expanded",),
    ),
    "standard": Effort(5, 8_000_000, EnsembleRecipe(), Recipe(steps=1500, negatives="auto"), (64, 64)),
    "thorough": Effort(
        10,
        100_000_000,
        EnsembleRecipe(members=8, steps=800),
        Recipe(steps=6000, patience=24, m=16, negatives="auto"),
        (128, 128),
    ),
}


@dataclass(frozen=True)
class Plan:
    """The options with every default filled in, checked before any work starts."""

    critic: str | nn.Module
    bound: Bound
    n_folds: int
    how: How
    seed: int
    n_jobs: int
    progress: bool
    checkpoint: Path | None
    config: dict[str, Any]

    @classmethod
    def of(cls, options: MIEstimator) -> Plan:
        chosen = _choose("effort", options.effort, EFFORTS)
        effort = EFFORTS[chosen]
        bound = bounds.get(options.bound)
        critic = options.critic
        if isinstance(critic, str):
            _choose("critic", critic, ("auto", *CRITICS))
        elif not isinstance(critic, nn.Module):
            raise TypeError(
                f"critic must be a name or an nn.Module, not {type(critic).__name__}; pass an instance"
            )
        _choose("preprocess", options.preprocess, PREPROCESS)
        _choose("units", options.units, ("nats", "bits"))
        _choose("missing", options.missing, ("error", "drop"))
        if options.negatives is not None:
            _choose("negatives", options.negatives, NEGATIVES)
        if options.precision is not None:
            _choose("precision", options.precision, PRECISIONS)
        _check_device(options.device)
        if options.checkpoint is not None and not isinstance(options.checkpoint, (str, os.PathLike)):
            raise TypeError(f"checkpoint must be the path of a folder; found {options.checkpoint!r}")
        given = {  # numbers of numpy as Python's, which JSON knows
            name: value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
            for name, value in options.get_params().items()
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
        recipe = dataclasses.replace(effort.recipe, **{k: v for k, v in named.items() if v is not None})
        _check_match(critic, bound)
        _check_idle(critic, bound, given)
        config = {
            **given,
            "device": str(options.device),
            "critic": critic if isinstance(critic, str) else type(critic).__name__,
            "bound": bound.name,
            "n_folds": given["n_folds"] or effort.folds,
            "hidden": list(hidden),
            "recipe": dataclasses.asdict(recipe),
            "versions": {
                "flomi": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "threads": torch.get_num_threads(),
        }
        config["changed"] = _changed(config, effort, options)
        config["own"] = [
            name
            for name, known in (
                ("critic", isinstance(critic, str)),
                ("bound", bounds.BOUNDS.get(bound.name) is bound),
            )
            if not known
        ]
        pairs = given["eval_pairs"] or effort.pairs
        how = How(
            FitSettings(recipe, effort.ensemble, hidden, options.preprocess, options.device),
            pairs // config["n_folds"], max(pairs, MOST_PAIRS) // config["n_folds"], effort.without,
        )  # fmt: skip
        return cls(
            critic,
            bound,
            config["n_folds"],
            how,
            given["seed"],
            _processes(given["n_jobs"]),
            options.progress,
            None if given["checkpoint"] is None else Path(given["checkpoint"]).expanduser(),
            config,
        )


def _changed(config: dict[str, Any], effort: Effort, options: MIEstimator) -> list[str]:
    """Names of the options that differ from their defaults, effort and seed always; those that change no number never."""
    defaults = {name: row.default for name, row in inspect.signature(type(options)).parameters.items()}
    defaults |= {"n_folds": effort.folds, "hidden": list(effort.hidden), "effort": None, "seed": None}
    return [
        name
        for name, default in defaults.items()
        if name not in ("n_jobs", "progress") and config[name] is not None and config[name] != default
    ]


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


def _check_idle(critic: str | nn.Module, bound: Bound, given: dict[str, Any]) -> None:
    """Options that act on nothing that this critic does are refused rather than ignored."""
    name = "density" if critic == "auto" and "density" in bound.needs else critic
    kind = CRITICS.get(name) if isinstance(name, str) else None
    own = isinstance(critic, nn.Module)
    for option in ("hidden", "preprocess") if own else () if kind and kind.build else TRAINING:
        value = given[option]
        if value is None or (option == "preprocess" and (value == "rank" or (own and value == "none"))):
            continue  # not given, or what happens anyway
        if own:
            raise ValueError(
                f"{option}={value!r} does nothing for a critic of your own, which has its own layers and gets the rows as "
                "they are: leave it out"
            )
        raise ValueError(
            f"{option}={value!r} acts on networks trained by the bound itself, and critic={critic!r} trains none: name one, "
            f"such as critic='joint', or leave {option} out"
        )
    scheme = given["negatives"] or (kind.negatives if kind else "shifts")
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


def _check_match(critic: str | nn.Module, bound: Bound) -> None:
    """A density bound needs log q(y|x) for a critic; BA needs the known p(y) too, which only the user can give."""
    own = isinstance(critic, nn.Module)
    if bounds.BOUNDS.get(bound.name) is not bound:
        check_bound(bound, trained=own or (critic in CRITICS and CRITICS[str(critic)].build is not None))
    if bound.name == "ba" and (isinstance(critic, str) or getattr(critic, "log_marginal", True) is None):
        raise ValueError(
            "bound='ba' needs the density p(y): pass critic=critics.ConditionalGaussian(dim_x, dim_y, log_marginal=...), "
            "or use bound='doe', which fits p(y)"
        )
    if "density" in bound.needs and isinstance(critic, str) and critic not in ("auto", "density"):
        raise ValueError(
            f"bound={bound.name!r} needs a conditional density: use critic='density', not {critic!r}"
        )
    if "density" in bound.needs and own and not hasattr(critic, "marginal"):
        raise ValueError(
            f"bound={bound.name!r} needs a conditional density: your critic(x, y) must return log q(y|x) and have a method "
            f"marginal(y) that returns log q(y), and {type(critic).__name__} has none; critics.ConditionalGaussian has both"
        )
    if "density" not in bound.needs and (critic == "density" or (own and hasattr(critic, "marginal"))):
        named = (
            "critic='density'" if isinstance(critic, str) else "a critic with marginal(y), a density model,"
        )
        raise ValueError(f"{named} goes with bound='club', 'l1out' or 'doe', not with {bound.name!r}")
