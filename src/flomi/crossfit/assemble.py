"""From finished folds to the record: point estimate, interval, certificate, verdict."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from statistics import NormalDist
from typing import Any

import numpy as np
from torch import nn

from flomi.bounds import flo
from flomi.critics import CRITICS
from flomi.critics.table import reference_kind
from flomi.crossfit.finished_run import FinishedRun
from flomi.crossfit.fold import Fold
from flomi.crossfit.options import Options
from flomi.crossfit.second_opinions import second_opinions
from flomi.crossfit.select import SETTINGS as SELECTION
from flomi.crossfit.select import one_standard_error_rule, unsettled
from flomi.data.pairs import Pairs
from flomi.inference.certificate import certificate
from flomi.inference.check import Finding
from flomi.inference.evidence import Evidence
from flomi.inference.influence import Array
from flomi.inference.interval import Interval, interval
from flomi.inference.point_estimate import (
    PointEstimate,
    Rival,
    disagreement,
    formula,
    formula_with_gain,
    midpoint,
    missed,
)
from flomi.inference.projection import project
from flomi.inference.u_statistic import pooled
from flomi.inference.verdict import Verdict, judge, rows_depend
from flomi.result import MIEstimate


def assemble(options: Options, data: Pairs, folds: list[Fold], seconds: float) -> MIEstimate:
    """From the folds to the record."""
    run = FinishedRun(options, data, folds)
    total, n = run.total, len(data.x)
    point, critic, selected = _point_estimate(run)
    sampling = run.stderr(point.influence)
    upwards = _missed(run, point.mi)
    error = interval(
        point.mi, sampling, second_order=point.second_order, folds=point.folds, model=point.model, missed=upwards,
        level=options.level,
    )  # fmt: skip
    error = _not_below_sight(run, error, selected)
    proof = certificate(
        [(fold.report.scores, fold.calibration) for fold in folds], alpha=1 - options.level, seed=options.seed
    )
    proven = math.nan if rows_depend(run.facts["effective_share"]) else proof.value
    requested, pmi = run.by_row("value", "report"), run.by_row("pmi", "report")
    is_flo = options.bound.value is flo
    bound = total.bound if is_flo else float(np.nanmean(requested))
    influences = {
        "mi": point.influence,
        "bound": run.influence(run.by_row("influence", "report"), bound),
        "plug_in": run.influence(pmi, float(np.nanmean(pmi))),
        "imbalance": run.influence(run.by_row("partition"), total.imbalance),
    }
    bound_stderr = total.bound_stderr if is_flo else run.stderr(influences["bound"])
    entries = _entries(folds)
    verdict, findings = _judge(run, point.mi, error, bound, proven, critic, entries, _is_null(selected))
    projection, labels = project(data.x, data.y, data.x_names, data.y_names)
    return MIEstimate(
        mi=point.mi, stderr=error.stderr, ci=(error.low, error.high), level=options.level, mi_method=point.method,
        error_parts=error.parts, missed=upwards, lower_bound=proven, bound=bound, bound_stderr=bound_stderr,
        bound_name=options.bound.name, bound_side=options.bound.side, plug_in=float(np.nanmean(pmi)),
        imbalance=total.imbalance, pmi=pmi, influences=influences, folds=run.fold_of_row, groups=data.groups,
        critic=critic, candidates=entries, verdict=verdict,
        warnings=(*data.notes, *(finding.text for finding in findings)),
        findings=tuple(finding.to_dict() for finding in findings),
        history=[{"fold": k, **h} for k, fold in enumerate(folds) for h in fold.history],
        projection=projection, projection_labels=labels, config={**options.config, **_used(options, data, folds)},
        seconds=seconds, n=n, dim_x=data.x[0].size, dim_y=data.y[0].size,
    )  # fmt: skip


def _has_own_critic(options: Options) -> bool:
    return any(isinstance(critic, nn.Module) for critic in (options.critics or {}).values())


def _used(options: Options, data: Pairs, folds: list[Fold]) -> dict[str, Any]:
    """What the run made of options and rows."""
    used: dict[str, Any] = {
        "negatives_a_row": sorted({fold.won.negatives for fold in folds}),
        "groups": None if data.groups is None else len(np.unique(data.groups)),
    }
    if options.folds is not None:
        used["n_folds"] = len(folds)
    if data.full is not None:
        summed = len(data.x) if data.full.correlation is None else data.full.rows
        used["rows"] = {"complete": data.full.rows, "drawn": len(data.x), "correlations": summed}
    return used


def _point_estimate(run: FinishedRun) -> tuple[PointEstimate, str, str]:
    """The best point estimate that the folds allow, the critic that it rests on in most folds, and the one selected.

    Whether a formula serves, and which, is decided once for all folds, by the test values of all rows; a midpoint is that of each
    fold's winner. Where test rows can't tell another candidate from the one selected, their distance is part of the error.
    """
    closed = {k: v for k, v in run.values.items() if k in CRITICS and CRITICS[k].fit is not None}
    selected = one_standard_error_rule(closed | run.values, run.groups_of_values)
    stands_on = [selected] if selected in closed else [fold.bases.get(selected, "") for fold in run.folds]
    if _is_null(selected) or all(k in closed and run.has_formula(k) for k in stands_on):
        return (
            (_by_formula if selected in closed else _by_formula_with_gain)(run, selected),
            selected,
            selected,
        )
    most = Counter(fold.winner.name for fold in run.folds).most_common(1)[0][0]
    return _by_midpoint(run, selected), most, selected


def _rivals(run: FinishedRun, selected: str, *, full: bool) -> list[Rival]:
    """The candidates that test rows cannot tell from the one selected."""
    found = []
    for name, (lost, stderr) in unsettled(run.values, selected, run.groups_of_values).items():
        form = None
        if run.has_formula(name):
            form = run.formula(name, full=full)
        mi, noise = (None, 0.0) if form is None else (form.mi, form.stderr)
        found.append(Rival(lost, stderr, mi, noise))
    return found


def _unseen(run: FinishedRun, *, full: bool = True) -> float:
    """The standard error where nothing was found: a dependence too weak to win on test rows may still be there."""
    reference = run.formula(reference_kind().name, full=full)
    return math.hypot(reference.mi, reference.stderr)


def _by_formula(run: FinishedRun, selected: str) -> PointEstimate:
    form, at_hand = run.formula(selected), run.formula(selected, full=False)
    second_order, error = form.second_order, at_hand.stderr
    if CRITICS[selected].null:
        few = math.sqrt(len(run.x) / run.units)
        second_order, error = few * _unseen(run), few * _unseen(run, full=False)
    # rivals were judged on the rows at hand, and are compared there
    doubt = disagreement(at_hand.mi, error, _rivals(run, selected, full=False))
    model = math.hypot(doubt, form.model)
    return formula(form.mi, run.in_order(form.influence), second_order, model, form.method)


def _by_formula_with_gain(run: FinishedRun, selected: str) -> PointEstimate:
    """Networks won: the formula of each fold's base, and the midpoint of what they gained on it."""
    bases = [fold.bases[selected] for fold in run.folds]
    training = np.array([fold.gains[selected].training for fold in run.folds])
    test = np.array(
        [
            fold.evaluations[selected].donsker_varadhan - fold.evaluations[base].donsker_varadhan
            for fold, base in zip(run.folds, bases, strict=True)
        ]
    )
    named = run.formula(Counter(bases).most_common(1)[0][0])
    point = formula_with_gain(
        np.array([run.formula(base).mi for base in bases]), training, test, _sizes(run), run.by_row("positive"),
        run.total.degenerate, f"{named.method}; plus the midpoint of what the networks gained on training and on test rows",
    )  # fmt: skip
    return _with_rivals(run, point, selected)


def _by_midpoint(run: FinishedRun, selected: str) -> PointEstimate:
    training = np.array([fold.training_value for fold in run.folds])
    test = np.array([fold.won.donsker_varadhan for fold in run.folds])
    point = midpoint(
        training, test, _sizes(run), run.by_row("positive"), run.total.degenerate,
        "midpoint of the Donsker-Varadhan values on training and on test rows",
    )  # fmt: skip
    return _with_rivals(run, point, selected)


def _sizes(run: FinishedRun) -> Array:
    return np.array([fold.test.size for fold in run.folds], float)


def _with_rivals(run: FinishedRun, point: PointEstimate, selected: str) -> PointEstimate:
    """A midpoint with influence values around it, and the rivals' disagreement in its error."""
    influence = run.influence(point.influence, point.mi)
    second_order, stderr = point.second_order, run.stderr(influence)
    if stderr == 0:  # nothing was found anywhere
        second_order = stderr = _unseen(run) * math.sqrt(len(run.x) / run.units)
    doubt = disagreement(point.mi, stderr, _rivals(run, selected, full=True))
    model = math.hypot(point.model, doubt)
    return PointEstimate(point.mi, influence, second_order, model, point.folds, point.method)


def _is_null(name: str) -> bool:
    return name in CRITICS and CRITICS[name].null


def _missed(run: FinishedRun, mi: float) -> float:
    """What the folds' winners may miss, in the mean; nothing where they take any shape of dependence, or find none, whose limits
    are told apart."""
    fitted, left_out = [], 0
    for fold in run.folds:
        kind = CRITICS.get(fold.winner.name)
        if kind is not None and (kind.null or kind.shape_free):
            continue
        if fold.left_out:
            left_out += 1
        else:
            fitted.append((fold.training_value - fold.won.donsker_varadhan) / 2)
    if not fitted and not left_out:
        return 0.0
    # one fold's test value is too noisy by itself
    parts = len(fitted) * missed(mi, abs(float(np.mean(fitted)))) if fitted else 0.0
    return (parts + left_out * missed(mi, None)) / (len(fitted) + left_out)


def _not_below_sight(run: FinishedRun, error: Interval, selected: str) -> Interval:
    """No interval ends below what would not have been seen, but for a critic that takes any shape; from 0 where nothing was."""
    if selected in CRITICS and CRITICS[selected].shape_free:
        return error
    nothing = _is_null(selected)
    most = [math.log(run.units)]
    most += [h for h in (run.facts["entropy_x"], run.facts["entropy_y"]) if h is not None]
    unseen = max(run.sight.values(), default=math.inf if nothing else 0.0)
    high = max(error.high, min(unseen, *most))
    return dataclasses.replace(error, low=0.0 if nothing else error.low, high=high)


def _quantile(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _judge(
    run: FinishedRun,
    mi: float,
    error: Interval,
    bound: float,
    lower_bound: float,
    critic: str,
    entries: dict[str, dict[str, Any]],
    nothing_found: bool,
) -> tuple[Verdict, tuple[Finding, ...]]:
    options, total = run.options, run.total
    curves = [h for fold in run.folds for h in fold.history if h["critic"] == critic]
    simplest = reference_kind().name
    reference = entries.get(simplest) if simplest != critic else None
    asked = list(options.critics or ())
    opinions = (
        second_opinions(run.x, run.y, reference=bool(asked) and simplest not in asked) if run.regular else ()
    )
    cap = options.bound.cap
    return judge(
        Evidence(
            n=len(run.x),
            dim_x=run.x.shape[1],
            dim_y=run.y.shape[1],
            mi=mi,
            stderr=error.stderr,
            above=None if nothing_found else (error.high - mi) / _quantile(options.level),
            sight=run.sight if nothing_found else None,
            independent=run.units,
            bound=total.bound,
            bound_stderr=total.bound_stderr,
            bound_name=options.bound.name,
            requested_bound=bound,
            plug_in=total.plug_in,
            imbalance=total.imbalance,
            imbalance_stderr=total.imbalance_stderr,
            lower_bound=lower_bound,
            effective_pairs=total.ess,
            ceiling=cap(run.folds[0].won.negatives) if cap else None,
            fold_values=total.fold_bounds,
            fold_stderrs=total.fold_stderrs,
            reference_bound=None if reference is None else reference["bound"],
            reference_stderr=0.0 if reference is None else reference["stderr"],
            reference_name=f"a {simplest.capitalize()} critic",
            second_opinions=opinions,
            unreplicated_gain=_unreplicated_gain(run.folds, critic),
            automatic=options.critics is None,
            own_critic=_has_own_critic(options),
            late_validation_gain=float(np.mean([_late_gain(h) for h in curves])) if curves else None,
            interrupted=any(fold.interrupted for fold in run.folds),
            units=options.config["units"],
            **run.facts,
        )
    )


def _unreplicated_gain(folds: list[Fold], critic: str) -> float:
    """What networks gained over `critic`, in training and in validation both; 0 where most folds did not see it clearly."""
    gains = []
    for fold in folds:
        for name, gain in fold.gains.items():
            if name == critic or critic not in fold.evaluations or name not in fold.bases:
                continue
            base = fold.evaluations[fold.bases[name]]
            lead = fold.evaluations[critic].donsker_varadhan - base.donsker_varadhan
            seen = min(gain.validation, gain.training) - max(0.0, lead)
            if seen > SELECTION.unsettled * gain.stderr:
                gains.append(seen)
    return float(np.mean(gains)) if 2 * len(gains) > len(folds) else 0.0


def _late_gain(history: dict[str, Any]) -> float:
    """What the best validation value gained in the last tenth of training."""
    seen = history["validation"]
    early = seen[: max(1, len(seen) * 9 // 10)]
    return float(max(seen) - max(early))


def _entries(folds: list[Fold]) -> dict[str, dict[str, Any]]:
    """What competed, and what each reached on test rows; only folds in which it finished count."""
    won = Counter(fold.winner.name for fold in folds)
    entries: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for fold in folds for name in fold.evaluations):
        seen = [fold for fold in folds if name in fold.evaluations]
        whole = pooled([fold.evaluations[name].summary for fold in seen])
        entries[name] = {
            "bound": whole.bound,
            "stderr": whole.bound_stderr,
            "folds_won": won[name],
            "seconds": float(sum(fold.seconds[name] for fold in seen)),
        }
    return entries
