"""Cross-fitting: folds of rows, every fold's competition, and the numbers of the result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from flomi.critics import CRITICS
from flomi.critics.base import Formula
from flomi.critics.copula import EllipticalCritic, of_correlation
from flomi.critics.nearest_neighbours import ksg
from flomi.crossfit import fold as candidates
from flomi.crossfit.checkpoint import Checkpoint
from flomi.crossfit.fold import Fold
from flomi.crossfit.options import Plan
from flomi.data.pairs import Pairs, Whole
from flomi.inference import u_statistic as inference
from flomi.inference.row_diagnostics import describe_rows
from flomi.parallel import side_by_side
from flomi.preprocess import RankNormal
from flomi.result import MIEstimate
from flomi.training.candidate import seed_of
from flomi.training.user_models import scale_note

__all__ = ["assemble", "cross_fit", "enough"]

VALIDATION = 0.2  # of the rows outside the fold
MIN_TRAINING = 10  # rows
MOST_AT_A_TIME = 5  # folds in threads: each has the pairs that it evaluates in memory
NEIGHBOUR_ROWS, NEIGHBOUR_DIMENSIONS = 5000, 4  # nearest neighbours are slow beyond, and read too low
UNSETTLED = 2.0  # standard errors of a difference in held-out value, below which a choice could have gone the other way


@torch.inference_mode(False)  # fitting needs gradients, whatever the caller's loop is doing
@torch.enable_grad()
def cross_fit(plan: Plan, data: Pairs, *, ranks: bool = False) -> list[Fold]:
    """Every fold's competition; those finished before a Ctrl-C are kept, and those in the plan's checkpoint are not run again.

    `ranks`: the processes of torch.distributed, which hold the same rows, share the folds, and each gets all of them.
    """
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    parts = _parts(len(data.x), plan.n_folds, plan.seed, data.groups)
    least = min(len(part[0]) for part in parts)
    _check_rows(plan, data, least)
    names: tuple[str | nn.Module, ...] = (plan.critic,)
    if plan.critic == "auto":
        names = candidates.contenders(plan.bound, x, y, least)
        names = tuple(name for name in names if name not in plan.how.without)

    kept = None if plan.checkpoint is None else Checkpoint(plan.checkpoint, plan, data)

    def job(k: int) -> Callable[[], Fold]:
        compete = partial(
            candidates.compete, names, plan.bound, (x, y), parts[k], plan.how,
            seed=seed_of(plan.seed, k), groups=data.groups,
            progress=f"fold {k + 1} of {len(parts)}" if plan.progress and plan.n_jobs == 1 else None,
        )  # fmt: skip
        return compete if kept is None else partial(_once, kept, k, compete)

    if not ranks:
        return _run([job(k) for k in range(len(parts))], plan, names)
    rank, world = dist.get_rank(), dist.get_world_size()
    mine: list[Fold] | BaseException
    try:
        mine = _run([job(k) for k in range(rank, len(parts), world)], plan, names)
    except (Exception, KeyboardInterrupt) as error:
        mine = error  # the others wait for it
    shares: list[list[Fold] | BaseException] = [[] for _ in range(world)]
    dist.all_gather_object(shares, mine)
    folds: list[list[Fold]] = []
    for share in shares:
        if isinstance(share, BaseException):
            raise share
        folds.append(share)
    return [share[k] for k in range(max(map(len, folds))) for share in folds if k < len(share)]


def _run(jobs: list[Callable[[], Fold]], plan: Plan, names: Sequence[str | nn.Module]) -> list[Fold]:
    """The folds of the jobs, in processes or threads as the plan says, up to a Ctrl-C."""
    if plan.n_jobs > 1:
        from joblib import Parallel, delayed

        return list(Parallel(n_jobs=plan.n_jobs)(delayed(job)() for job in jobs))
    # networks trained by the bound draw from torch's global generator, which threads would share
    alone = all(isinstance(name, str) and CRITICS[name].build is None for name in names)
    threads = min(torch.get_num_threads(), len(jobs), MOST_AT_A_TIME)
    folds: list[Fold] = []
    interrupted = False
    if alone and threads > 1 and torch.device(plan.how.fit.device).type == "cpu":
        folds, interrupted = side_by_side(jobs, threads)
    else:
        try:
            for job in jobs:
                folds.append(job())
                if folds[-1].interrupted:
                    break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        if not folds:
            raise KeyboardInterrupt
        folds[-1].interrupted = True
    return folds


def _once(kept: Checkpoint, k: int, compete: Callable[[], Fold]) -> Fold:
    """Fold k from the checkpoint, or run and kept there."""
    fold = kept.load(k)
    if fold is None:
        fold = compete()
        kept.save(k, fold)
    return fold


def _parts(
    n: int, n_folds: int, seed: int, groups: np.ndarray | None
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(training, validation, held-out) rows of each fold, in random order; groups stay together."""
    rng = np.random.default_rng(seed)
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    if not enough(count, n_folds):
        what = "rows" if groups is None else "groups"
        raise ValueError(f"{count} {what} are too few for {n_folds} folds: use fewer folds or more {what}")
    order = rng.permutation(count)  # the order of the rows, not the pairing of x with y
    blocks = np.array_split(order, n_folds)
    parts = []
    for block in blocks:
        rest = order[~np.isin(order, block)]
        rest = rest[rng.permutation(len(rest))]
        cut = _validation(len(rest))
        parts.append((rest[cut:], rest[:cut], block))

    def rows(chosen: np.ndarray) -> np.ndarray:
        return chosen if groups is None else rng.permutation(np.flatnonzero(np.isin(units, chosen)))

    found = [(rows(a), rows(b), rows(c)) for a, b, c in parts]
    return found


def _check_rows(plan: Plan, data: Pairs, least: int) -> None:
    """ValueError unless the `least` rows that a fold trains on are enough for the critic asked for."""
    kind = CRITICS.get(plan.critic) if isinstance(plan.critic, str) else None
    needed = kind.least_rows if kind else MIN_TRAINING
    if least < needed:
        largest = "" if data.groups is None else f" (one group holds {np.bincount(data.groups).max():,})"
        raise ValueError(
            f"{len(data.x):,} rows{largest} in {plan.n_folds} folds leave {least} to train on, and this critic needs {needed}: "
            f"use fewer folds, more rows{'' if data.groups is None else ', smaller groups'} or another critic"
        )


def _validation(rest: int) -> int:
    """How many of the rows or groups outside a fold are for validation: two at least, so that there are pairs."""
    return max(2, round(VALIDATION * rest))


def enough(count: int, n_folds: int) -> bool:
    """Whether so many rows or groups give every fold two or more to train on, to validate on and to hold out."""
    rest = count + -count // n_folds
    return count >= 2 * n_folds and rest - _validation(rest) >= 2


def assemble(plan: Plan, data: Pairs, folds: list[Fold], seconds: float) -> MIEstimate:
    """From the folds to the numbers; inference.py says how each of them is computed."""
    n, rows = len(data.x), np.concatenate([fold.index for fold in folds])
    # what looks at every fourth row, or at the first ones, must not depend on the order of the file
    mixed = np.random.default_rng(plan.seed).permutation(n)
    x, y = (torch.from_numpy(v[mixed]).flatten(1) for v in (data.x, data.y))
    groups = None if data.groups is None else data.groups[rows]
    pmi = np.full(n, np.nan)
    pmi[rows] = np.concatenate([fold.held.pmi for fold in folds])
    value = np.concatenate([fold.held.value for fold in folds])
    total = inference.pooled([fold.won.summary for fold in folds])
    flo = plan.bound.name == "flo"  # whose held-out value is the referee's
    bound = total.bound if flo else float(value.mean())
    bound_stderr = total.bound_stderr if flo else inference.mean_stderr(value, groups)

    point = _point(folds, total, x, y, groups, data.whole)
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
            ceiling=plan.bound.cap(folds[0].won.negatives) if plan.bound.cap else None,
            fold_values=total.fold_bounds,
            fold_stderrs=total.fold_stderrs,
            gaussian_bound=None if gaussian is None or critic == "gaussian" else gaussian["bound"],
            gaussian_stderr=0.0 if gaussian is None else gaussian["stderr"],
            others=_others(x, y, groups, plan.critic),
            unconfirmed=_unconfirmed(folds, critic),
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
    used: dict[str, Any] = {
        "negatives_a_row": sorted({fold.won.negatives for fold in folds}),
        "groups": None if data.groups is None else len(np.unique(data.groups)),
    }
    if data.whole is not None:
        used["rows"] = {
            "complete": data.whole.rows,
            "drawn": n,
            "correlations": n if data.whole.correlation is None else data.whole.rows,
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
    folds: list[Fold],
    total: inference.Summary,
    x: Tensor,
    y: Tensor,
    groups: np.ndarray | None,
    whole: Whole | None,
) -> _Point:
    """The best point estimate that the folds allow.

    A fitted critic reads too high on rows it was trained on, and too low on others, by p/2n each for a regular model with p
    parameters; so the middle of the two is unbiased to first order (what a penalty smooths away is missing from both). For a
    closed form, its own formula with the exact correction is better still, and a network on top of it adds the middle of what
    it gained. The formula is meant for continuous columns and independent rows; elsewhere the middle serves there too. Whether
    a formula serves, and which, is decided once for all folds, by the held-out values of all rows; a middle is that of each
    fold's winner. Where held-out rows can't tell another candidate from the one chosen, how far apart the two lie is part of
    the error. Where these rows are a part of the `whole`, the Gaussian formula is that of all rows.
    """
    weights = np.array([fold.index.size for fold in folds], float) / sum(fold.index.size for fold in folds)
    shared = [name for name in folds[0].measured if all(name in fold.measured for fold in folds)]
    values = {name: np.concatenate([fold.measured[name].by_row for fold in folds]) for name in shared}
    forms = {name: v for name, v in values.items() if name in CRITICS and CRITICS[name].fit is not None}
    chosen = candidates.best(forms | values, groups)

    def loss(name: str) -> tuple[float, float]:
        """Held-out value that `name` loses to the one chosen, and its standard error."""
        difference = values[chosen] - values[name]
        return float(difference.mean()), inference.mean_stderr(difference, groups)

    rivals = [name for name in values if name != chosen and loss(name)[0] < UNSETTLED * loss(name)[1]]

    @cache
    def fitted(name: str) -> Any:
        return CRITICS[name].fit(x, y)  # type: ignore[misc]

    def at_hand(name: str) -> Formula:
        return fitted(name).formula  # type: ignore[no-any-return]

    @cache
    def formula(name: str) -> Formula:
        if name != "gaussian" or whole is None or whole.correlation is None:
            return at_hand(name)
        variance = float(fitted(name)(x, y).var())
        form = of_correlation(torch.from_numpy(whole.correlation), x.shape[1], whole.rows, variance)
        return replace(form, method=f"{form.method}, from all {whole.rows:,} rows")

    def apart(mi: float, stderr: float, form_of: Callable[[str], Formula]) -> float:
        """How far `mi` is from what the rivals would have given, beyond twice what makes a rival's formula noisier.

        A rival without a formula counts by what it loses on held-out rows and the error of that, at most by `stderr`: at high
        MI a held-out value is so noisy that it says nothing.
        """
        found = [0.0]
        for name in rivals:
            if regular and name in forms and CRITICS[name].formula:
                rival = form_of(name)
                noise = math.sqrt(max(0.0, rival.stderr**2 - stderr**2))
                found.append(abs(rival.mi - mi) - 2 * noise)
            else:
                found.append(min(stderr, math.hypot(*loss(name))))
        return max(found)

    regular = groups is None and candidates.continuous(x) and candidates.continuous(y)
    under = [chosen] if chosen in forms else [str(fold.base) for fold in folds]
    if regular and all(name in forms and CRITICS[name].formula for name in under):
        if chosen in forms:

            def error(form_of: Callable[[str], Formula]) -> float:
                if chosen != "null":
                    return form_of(chosen).stderr
                # a dependence too weak to win on other rows may still be there
                return math.hypot(form_of("gaussian").mi, form_of("gaussian").stderr)

            form = formula(chosen)
            # rivals were judged on the rows at hand, and are compared there
            doubt = apart(at_hand(chosen).mi, error(at_hand), at_hand)
            return _Point(form.mi, error(formula), doubt, None, form.method, chosen)
        base = np.array([formula(name).mi for name in under])
        training = np.array([fold.residual.gain.training for fold in folds])  # type: ignore[union-attr]
        held = np.array(
            [
                fold.measured[chosen].recalibrated - fold.measured[str(fold.base)].recalibrated
                for fold in folds
            ]
        )
        training, held = base + training, base + held
        named = Counter(under).most_common(1)[0][0]
        method = f"{formula(named).method}; plus the middle of what the networks gained on training and on held-out rows"
        critic = chosen
    else:
        held = np.array([fold.won.recalibrated for fold in folds])
        training = np.array([fold.training_value for fold in folds])
        method = "middle of the Donsker-Varadhan values on training and on held-out rows"
        critic = Counter(fold.winner.name for fold in folds).most_common(1)[0][0]
    parts = (training + held) / 2
    deficit = float(weights @ np.abs(training - held)) / 2  # either of the two is one standard error away
    mi, stderr = float(weights @ parts), total.plug_in_stderr
    if stderr == 0:  # nothing was found anywhere: a dependence too weak for that may still be there
        units = len(x) if groups is None else len(np.unique(groups))
        stderr = math.hypot(formula("gaussian").mi, formula("gaussian").stderr) * math.sqrt(len(x) / units)
    return _Point(mi, stderr, math.hypot(deficit, apart(mi, stderr, formula)), tuple(parts), method, critic)


def _others(
    x: Tensor, y: Tensor, groups: np.ndarray | None, critic: str | nn.Module
) -> tuple[tuple[str, float, float], ...]:
    """What estimators that need no training give on continuous, independent rows, with standard errors."""
    if groups is not None or not (candidates.continuous(x) and candidates.continuous(y)):
        return ()
    found = []
    if critic not in ("auto", "gaussian"):
        form = EllipticalCritic.fit(x, y).formula
        found.append(("the correlations alone give", form.mi, form.stderr))
    if max(x.shape[1], y.shape[1]) <= NEIGHBOUR_DIMENSIONS:
        some = slice(NEIGHBOUR_ROWS)
        value = ksg(*(RankNormal.fit(v[some])(v[some]) for v in (x, y))).numpy()
        found.append(("nearest neighbours give", float(value.mean()), inference.mean_stderr(value, None)))
    return tuple(found)


def _unconfirmed(folds: list[Fold], critic: str) -> float:
    """What networks gained over `critic`, in training and in validation both; 0 where most folds did not see it clearly."""
    gains = []
    for fold in folds:
        network = fold.residual
        if network is None or network.gain is None or critic not in fold.measured or network.name == critic:
            continue
        lead = fold.measured[critic].recalibrated - fold.measured[str(fold.base)].recalibrated
        gain = min(network.gain.validation, network.gain.training) - max(0.0, lead)
        if gain > UNSETTLED * network.gain.stderr:
            gains.append(gain)
    return float(np.mean(gains)) if 2 * len(gains) > len(folds) else 0.0


def _rise(history: dict[str, Any]) -> float:
    """What the best validation value gained in the last tenth of training."""
    seen = history["validation"]
    early = seen[: max(1, len(seen) * 9 // 10)]
    return float(max(seen) - max(early))


def _entries(folds: list[Fold]) -> dict[str, dict[str, Any]]:
    """What competed, and what each reached on held-out rows; only folds in which it finished count."""
    won = Counter(fold.winner.name for fold in folds)
    entries: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for fold in folds for name in fold.measured):
        seen = [fold for fold in folds if name in fold.measured]
        whole = inference.pooled([fold.measured[name].summary for fold in seen])
        entries[name] = {
            "bound": whole.bound,
            "stderr": whole.bound_stderr,
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
