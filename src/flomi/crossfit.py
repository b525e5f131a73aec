"""Cross-fitting: from options to a checked plan, folds of rows, every fold's competition, and the numbers of the result."""

from __future__ import annotations

import dataclasses
import math
import platform
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import flomi
from flomi import bounds, candidates, inference
from flomi.bounds import Bound
from flomi.candidates import Fold, How
from flomi.closed_form import EllipticalCritic
from flomi.critics import CRITICS
from flomi.data import Pairs
from flomi.ensemble import EnsembleRecipe
from flomi.local_ratio import ksg
from flomi.own import check_bound, scale_note
from flomi.preprocess import RankNormal
from flomi.result import MIEstimate
from flomi.rows import describe_rows
from flomi.scores import NEGATIVES
from flomi.training import Recipe

if TYPE_CHECKING:
    from flomi.estimator import MIEstimator

__all__ = ["EFFORTS", "Effort", "Plan", "assemble", "cross_fit"]

VALIDATION = 0.2  # of the rows outside the fold
NEIGHBOUR_ROWS, NEIGHBOUR_DIMENSIONS = 5000, 4  # nearest neighbours are slow beyond, and read too low
LEAST = {  # of the options that are whole numbers
    "seed": 0,
    "n_folds": 2,
    "eval_pairs": 1,
    "steps": 1,
    "batch_size": 2,
    "n_negatives": 1,
    "patience": 1,
}
TRAINING = (
    "hidden",
    "steps",
    "batch_size",
    "lr",
    "weight_decay",
    "negatives",
    "n_negatives",
    "patience",
    "preprocess",
)
UNSETTLED = 2.0  # standard errors of a difference in held-out value, below which a choice could have gone the other way


@dataclass(frozen=True)
class Effort:
    """What a word buys: folds, the pairs of rows that are evaluated, and how networks are trained."""

    folds: int
    pairs: int
    ensemble: EnsembleRecipe
    recipe: Recipe
    hidden: tuple[int, ...]


EFFORTS = {
    "fast": Effort(
        5,
        2_000_000,
        EnsembleRecipe(members=1, steps=200),
        Recipe(steps=600, patience=6, negatives="auto"),
        (64,),
    ),
    "standard": Effort(5, 20_000_000, EnsembleRecipe(), Recipe(steps=1500, negatives="auto"), (64, 64)),
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
        _choose("preprocess", options.preprocess, candidates.PREPROCESS)
        _choose("units", options.units, ("nats", "bits"))
        _choose("missing", options.missing, ("error", "drop"))
        if options.negatives is not None:
            _choose("negatives", options.negatives, NEGATIVES)
        _check_device(options.device)
        given = {  # numbers of numpy as Python's, which JSON knows
            name: value.tolist() if isinstance(value, (np.generic, np.ndarray)) else value
            for name, value in options.get_params().items()
        }
        _check_numbers(given)
        _check_hidden(given["hidden"])
        hidden = tuple(map(int, effort.hidden if given["hidden"] is None else given["hidden"]))
        named = {n: given[n] for n in ("steps", "batch_size", "lr", "weight_decay", "negatives", "patience")}
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
                "flomi": flomi.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
            "threads": torch.get_num_threads(),
        }
        how = How(
            recipe, effort.ensemble, hidden, options.preprocess,
            (given["eval_pairs"] or effort.pairs) // config["n_folds"], options.device,
        )  # fmt: skip
        return cls(
            critic,
            bound,
            config["n_folds"],
            how,
            given["seed"],
            _processes(given["n_jobs"]),
            options.progress,
            config,
        )


def _choose(name: str, value: Any, allowed: Iterable[str]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(allowed)}; found {value!r}")
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(allowed)}")
    return str(value)


def _check_device(device: str) -> None:
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


def cross_fit(plan: Plan, data: Pairs) -> list[Fold]:
    """Every fold's competition; those finished before a Ctrl-C are kept."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    parts = _parts(len(data.x), plan.n_folds, plan.seed, data.groups)
    least = min(len(part[0]) for part in parts)
    names = candidates.contenders(plan.bound, x, y, least) if plan.critic == "auto" else (plan.critic,)

    def job(k: int) -> Callable[[], Fold]:
        return partial(
            candidates.compete, names, plan.bound, (x, y), parts[k], plan.how,
            seed=candidates.seed_of(plan.seed, k), groups=data.groups,
            progress=f"fold {k + 1} of {len(parts)}" if plan.progress and plan.n_jobs == 1 else None,
        )  # fmt: skip

    if plan.n_jobs > 1:
        from joblib import Parallel, delayed

        return list(Parallel(n_jobs=plan.n_jobs)(delayed(job(k))() for k in range(len(parts))))
    folds: list[Fold] = []
    try:
        for k in range(len(parts)):
            folds.append(job(k)())
            if folds[-1].interrupted:
                break
    except KeyboardInterrupt:
        if not folds:
            raise
        folds[-1].interrupted = True
    return folds


def _parts(
    n: int, n_folds: int, seed: int, groups: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(training, validation, held-out) rows of each fold, in random order; groups stay together."""
    rng = np.random.default_rng(seed)
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    if count < 2 * n_folds:
        what = "rows" if groups is None else "groups"
        raise ValueError(
            f"{n_folds} folds need at least {2 * n_folds} {what}; found {count}: use fewer folds or more {what}"
        )
    order = rng.permutation(count)  # the order of the rows, not the pairing of x with y
    blocks = np.array_split(order, n_folds)
    parts = []
    for block in blocks:
        rest = order[~np.isin(order, block)]
        rest = rest[rng.permutation(len(rest))]
        cut = max(1, round(VALIDATION * len(rest)))
        parts.append((rest[cut:], rest[:cut], block))

    def rows(chosen: np.ndarray) -> np.ndarray:
        return chosen if groups is None else rng.permutation(np.flatnonzero(np.isin(units, chosen)))

    return [(rows(a), rows(b), rows(c)) for a, b, c in parts]


def assemble(plan: Plan, data: Pairs, folds: list[Fold], seconds: float) -> MIEstimate:
    """From the folds to the numbers; inference.py says how each of them is computed."""
    n, rows = len(data.x), np.concatenate([fold.index for fold in folds])
    x, y = torch.from_numpy(data.x).flatten(1), torch.from_numpy(data.y).flatten(1)
    groups = None if data.groups is None else data.groups[rows]
    pmi = np.full(n, np.nan)
    pmi[rows] = np.concatenate([fold.held.pmi for fold in folds])
    value = np.concatenate([fold.held.value for fold in folds])
    total = inference.summarise([fold.held.referee for fold in folds])
    flo = plan.bound.name == "flo"  # whose held-out value is the referee's
    bound = total.bound if flo else float(value.mean())
    bound_stderr = total.bound_stderr if flo else inference.mean_stderr(value, groups)

    point = _point(folds, total, x, y, groups)
    mi, method, critic = point.mi, point.method, point.critic
    interval = inference.interval(mi, point.stderr, folds=point.folds, model=point.model)
    certificate = inference.certificate([(f.held.score, f.calibration) for f in folds], seed=plan.seed)
    entries = _entries(folds)
    history = [{"fold": k, **h} for k, fold in enumerate(folds) for h in fold.history]
    curves = [h for h in history if h["critic"] == critic]
    gaussian = entries.get("gaussian")
    verdict, warnings = inference.judge(
        inference.Evidence(
            n=n,
            dim_x=x.shape[1],
            dim_y=y.shape[1],
            mi=mi,
            stderr=interval.stderr,
            bound=total.bound,
            bound_stderr=total.bound_stderr,
            bound_name=plan.bound.name,
            asked=bound,
            plug_in=total.plug_in,
            imbalance=total.imbalance,
            imbalance_stderr=total.imbalance_stderr,
            lower_bound=certificate.value,
            ess=total.ess,
            ceiling=plan.bound.cap(int(folds[0].held.score.shifts.size)) if plan.bound.cap else None,
            fold_values=total.fold_bounds,
            fold_stderrs=total.fold_stderrs,
            gaussian_bound=None if gaussian is None or critic == "gaussian" else gaussian["bound"],
            gaussian_stderr=0.0 if gaussian is None else gaussian["stderr"],
            others=_others(x, y, groups, plan.critic),
            automatic=plan.critic == "auto",
            rise=float(np.mean([_rise(h) for h in curves])) if curves else None,
            interrupted=any(fold.interrupted for fold in folds),
            units=plan.config["units"],
            **describe_rows(data.x.reshape(n, -1), data.y.reshape(n, -1), data.groups),
        )
    )
    note = scale_note(x, y) if isinstance(plan.critic, nn.Module) else None
    scale = () if note is None else (note,)
    projection, labels = _projection(data)
    used = {
        "negatives_a_row": sorted({int(fold.held.score.shifts.size) for fold in folds}),
        "groups": None if data.groups is None else len(np.unique(data.groups)),
    }
    return MIEstimate(
        mi=mi, stderr=interval.stderr, ci=(interval.low, interval.high), mi_method=method,
        lower_bound=certificate.value, bound=bound, bound_stderr=bound_stderr, bound_name=plan.bound.name,
        bound_side=plan.bound.side, plug_in=float(np.nanmean(pmi)), imbalance=total.imbalance, pmi=pmi, critic=critic,
        candidates=entries, verdict=verdict, warnings=(*data.notes, *scale, *warnings), history=history, projection=projection,
        projection_labels=labels, config={**plan.config, **used}, seconds=seconds, n=n,
        dim_x=x.shape[1], dim_y=y.shape[1],
    )  # fmt: skip


@dataclass(frozen=True)
class _Point:
    """The point estimate; what sampling adds to its error, and what the model does; the folds' parts that should agree; which
    critic it rests on."""

    mi: float
    stderr: float
    model: float
    folds: tuple[float, ...] | None
    method: str
    critic: str


def _point(
    folds: list[Fold], total: inference.Summary, x: Tensor, y: Tensor, groups: np.ndarray | None
) -> _Point:
    """The best point estimate that the folds allow.

    A fitted critic reads too high on rows it was trained on, and too low on others, by p/2n each for a regular model with p
    parameters; so the middle of the two is unbiased to first order. For a closed form, its own formula with the exact
    correction is better still, and a network on top of it adds the middle of what it gained. The formula is meant for
    continuous columns and independent rows; elsewhere the middle serves there too. Which closed form, and whether the
    networks' gain counts, is decided once for all folds, by the held-out values of all rows. Where these can't tell another
    closed form from the one chosen, how far apart the two lie is part of the error.
    """
    weights = np.array([fold.index.size for fold in folds], float) / sum(fold.index.size for fold in folds)
    shared = [name for name in folds[0].values if all(name in fold.values for fold in folds)]
    values = {name: np.concatenate([fold.values[name] for fold in folds]) for name in shared}
    forms = {name: v for name, v in values.items() if name in CRITICS and CRITICS[name].fit is not None}
    chosen = candidates.best(forms | values, groups)

    def loss(name: str) -> tuple[float, float]:
        """Held-out value that `name` loses to the one chosen, and its standard error."""
        difference = values[chosen] - values[name]
        return float(difference.mean()), inference.mean_stderr(difference, groups)

    rivals = [name for name in forms if name != chosen and loss(name)[0] < UNSETTLED * loss(name)[1]]
    fitted: dict[str, Any] = {}

    def formula(name: str) -> Any:
        if name not in fitted:
            fitted[name] = CRITICS[name].fit(x, y).in_sample  # type: ignore[misc]
        return fitted[name]

    def apart(mi: float) -> float:
        """How far `mi` is from what the rivals would have given."""
        return max(
            (
                abs(formula(k).mi - mi) if regular and CRITICS[k].formula else math.hypot(*loss(k))
                for k in rivals
            ),
            default=0.0,
        )

    regular = groups is None and candidates.continuous(x) and candidates.continuous(y)
    under = [chosen] if chosen in forms else [str(fold.base) for fold in folds]
    if regular and all(name in forms and CRITICS[name].formula for name in under):
        if chosen in forms:
            form = formula(chosen)
            stderr = form.stderr
            if chosen == "null":  # a dependence too weak to win on other rows may still be there
                stderr = math.hypot(formula("gaussian").mi, formula("gaussian").stderr)
            return _Point(form.mi, stderr, apart(form.mi), None, str(form.method), chosen)
        base = np.array([formula(name).mi for name in under])
        training = np.array([fold.residual.gain.training for fold in folds])  # type: ignore[union-attr]
        held = np.array([fold.recalibrated[chosen] - fold.recalibrated[fold.base] for fold in folds])  # type: ignore[index]
        training, held = base + training, base + held
        named = Counter(under).most_common(1)[0][0]
        method = f"{formula(named).method}; plus the middle of what the networks gained on training and on held-out rows"
        critic = chosen
    else:
        held = np.array([candidates.recalibrated(fold.held.score) for fold in folds])
        training = np.array([fold.training_value for fold in folds])
        method = "middle of the Donsker-Varadhan values on training and on held-out rows"
        critic = Counter(fold.winner.name for fold in folds).most_common(1)[0][0]
    parts = (training + held) / 2
    deficit = float(weights @ np.abs(training - held)) / 2  # either of the two is one standard error away
    model = math.hypot(deficit, apart(float(weights @ parts)))
    return _Point(float(weights @ parts), total.plug_in_stderr, model, tuple(parts), method, critic)


def _others(
    x: Tensor, y: Tensor, groups: np.ndarray | None, critic: str | nn.Module
) -> tuple[tuple[str, float, float], ...]:
    """What estimators that need no training give on continuous, independent rows, with standard errors."""
    if groups is not None or not (candidates.continuous(x) and candidates.continuous(y)):
        return ()
    found = []
    if critic not in ("auto", "gaussian"):
        form = EllipticalCritic.fit(x, y).in_sample
        found.append(("the correlations alone give", form.mi, form.stderr))
    if max(x.shape[1], y.shape[1]) <= NEIGHBOUR_DIMENSIONS:
        some = slice(NEIGHBOUR_ROWS)
        value = ksg(*(RankNormal.fit(v[some])(v[some]) for v in (x, y))).numpy()
        found.append(("nearest neighbours give", float(value.mean()), inference.mean_stderr(value, None)))
    return tuple(found)


def _rise(history: dict[str, Any]) -> float:
    """What the best validation value gained in the last tenth of training."""
    seen = history["validation"]
    early = seen[: max(1, len(seen) * 9 // 10)]
    return float(max(seen) - max(early))


def _entries(folds: list[Fold]) -> dict[str, dict[str, Any]]:
    """What competed, and what each reached on held-out rows; only folds in which it finished count."""
    won = Counter(fold.winner.name for fold in folds)
    entries: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for fold in folds for name in fold.summaries):
        seen = [fold for fold in folds if name in fold.summaries]
        weight = np.array([fold.index.size for fold in seen], float)
        weight /= weight.sum()
        entries[name] = {
            "bound": float(weight @ [fold.summaries[name].bound for fold in seen]),
            "stderr": float(np.sqrt(weight**2 @ [fold.summaries[name].bound_stderr ** 2 for fold in seen])),
            "folds_won": won[name],
            "seconds": float(sum(fold.seconds[name] for fold in seen)),
        }
    return entries


def _projection(data: Pairs) -> tuple[np.ndarray, tuple[str, str]]:
    """One number a row for each side: the column where there is one, else the first canonical variate.

    Canonical correlation analysis on at most 20 principal components a side: for looking at, not for the estimate.
    """
    sides = []
    for v in (data.x, data.y):
        flat = v.reshape(len(v), -1)
        flat = flat / np.abs(flat).max(0).clip(min=1e-300)  # so that no square overflows
        centred = (flat - flat.mean(0)) / flat.std(0).clip(min=1e-300)
        sides.append(np.linalg.svd(centred, full_matrices=False)[0][:, :20])
    left, _, right = np.linalg.svd(sides[0].T @ sides[1])
    columns, labels = [], []
    for side, v, basis, direction, names in (
        ("x", data.x, sides[0], left[:, 0], data.x_names),
        ("y", data.y, sides[1], right[0], data.y_names),
    ):
        single = v.size == len(v)
        columns.append(v.reshape(-1) if single else basis @ direction * np.sqrt(len(v)))
        labels.append(names[0] if single else f"first canonical variate of {side}")
    return np.stack(columns, 1), (labels[0], labels[1])
