"""From the facts of a run to "ok" | "caution" | "unreliable", and why: one row of `CHECKS` for every doubt.

How to call it: fill an ``Evidence`` with what is known (anything left out is not judged), then ``judge(evidence)``.
``row_diagnostics.describe_rows(x, y)`` gives the part that needs the data, ready for ``Evidence(..., **describe_rows(x, y))``.
To add a check, add a row: the verdict, its sentences and the table of the documentation are made from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flomi.inference.check import LEVELS, Amount, Check, Finding, Measured, above, below
from flomi.inference.evidence import Evidence
from flomi.support.settings import UNMEASURED, setting

Verdict = Literal["ok", "none found", "caution", "unreliable"]


@dataclass(frozen=True)
class VerdictSettings:
    """From where on a fact is a doubt; amounts of information in nats."""

    tolerance: float = setting(0.1, f"{UNMEASURED}the smallest error that counts as serious")
    relative_tolerance: float = setting(0.1, f"{UNMEASURED}a serious error as a share of the estimate")
    imprecise: float = setting(0.5, "derived: two standard errors as wide as the tolerance")
    clear: float = setting(2.0, "derived: standard errors that noise alone exceeds in one run of forty")
    near_ceiling: float = setting(1.0, f"{UNMEASURED}InfoNCE-like values bend away from the truth here")
    at_ceiling: float = setting(0.5, f"{UNMEASURED}and here say only that MI is large")
    near_log_n: float = setting(
        1.0,
        "no method confirms more than about log n (McAllester and Stratos 2020); below, large pairs are too few",
    )
    effective_pairs: float = setting(30.0, f"{UNMEASURED}a mean over fewer hides an error of its own size")
    imbalance: float = setting(0.05, f"{UNMEASURED}the normaliser of a usable score is 1 to some percent")
    bad_imbalance: float = setting(0.3, f"{UNMEASURED}beyond, the bound and the plug-in are two numbers")
    imbalance_errors: float = setting(4.0, f"{UNMEASURED}standard errors, of a mean with a heavy tail")
    read_out_errors: float = setting(3.0, f"{UNMEASURED}standard errors beyond the tolerance, as above")
    extrapolation: float = setting(0.25, f"{UNMEASURED}share of the estimate that a correction may be")
    reference_margin: float = setting(0.02, f"{UNMEASURED}losing less to a simpler critic matters little")
    late_gain: float = setting(0.02, f"{UNMEASURED}nats, or share of the estimate: the curve has not ended")
    fold_p_value: float = setting(1e-3, "derived: one honest run in a thousand")
    fold_spread: float = setting(2.0, f"{UNMEASURED}tolerances that folds may be apart without harm")
    bad_fold_spread: float = setting(0.5, f"{UNMEASURED}so far apart, and by the estimate, no answer is left")
    rows_per_dimension: float = setting(5.0, f"{UNMEASURED}below, even a covariance is mostly noise")
    hopeless_rows_per_dimension: float = setting(
        2.0,
        "derived: a fold trains on 0.64 of the rows, whose covariance is singular below 1.6 rows a dimension",
    )
    rows: int = setting(100, f"{UNMEASURED}a standard error from fewer rows is itself uncertain")
    duplicates: float = setting(0.01, f"{UNMEASURED}fewer repeated rows may be rounding")
    many_duplicates: float = setting(0.1, f"{UNMEASURED}so many are copies")
    effective_share: float = setting(
        0.5,
        "below, intervals are 1.4 times too narrow, and a certificate may lie above the truth: 0 of 20 did for independent "
        "autoregressive series just above it, 4 of 20 far below (600 rows, correlations of 0.5, 0.6 and 0.95, 2026-11-30)",
    )
    linear_noise: float = setting(
        1e-8, "derived: 9 nats in one direction, beyond the precision of measurements"
    )
    local_noise: float = setting(0.01, f"{UNMEASURED}the same for one column, as neighbours show it")
    weak_certificate: float = setting(
        0.25, f"{UNMEASURED}share of the estimate; less says little of its size"
    )


SETTINGS = S = VerdictSettings()


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _flag(doubtful: bool) -> list[Measured]:
    return [Measured()] if doubtful else []


def _tolerance(e: Evidence) -> float:
    return max(S.tolerance, S.relative_tolerance * abs(e.mi))


# Measures that silence other checks, or take more than a line.


def _rows_per_dimension(e: Evidence) -> list[Measured]:
    return below(e.n / (e.dim_x + e.dim_y), S.rows_per_dimension, S.hopeless_rows_per_dimension)


def rows_depend(effective_share: float | None) -> bool:
    """Whether rows depend so much on those near them that no certificate holds."""
    return effective_share is not None and effective_share < S.effective_share


def _exact_function(e: Evidence) -> list[Measured]:
    return below(e.local_noise, S.local_noise)


def _near_log_n(e: Evidence) -> list[Measured]:
    return above(e.mi, math.log(e.n) - S.near_log_n, log_n=math.log(e.n))


def _few_pairs(e: Evidence) -> list[Measured]:
    return below(e.effective_pairs, S.effective_pairs)


def _imbalance(e: Evidence) -> list[Measured]:
    if e.imbalance is None or _few_pairs(e):  # with few pairs its standard error is too small
        return []
    limit = max(S.imbalance, S.imbalance_errors * e.imbalance_stderr)
    return above(abs(e.imbalance), limit, max(limit, S.bad_imbalance))


def _read_outs(e: Evidence) -> list[Measured]:
    gap = _minus(e.plug_in, e.bound)
    if gap is None or _few_pairs(e) or _imbalance(e):
        return []
    return above(abs(gap), _tolerance(e) + S.read_out_errors * e.bound_stderr)


def _above_entropy(e: Evidence) -> list[Measured]:
    sides = (("x", e.entropy_x), ("y", e.entropy_y))
    least = e.mi - S.clear * e.stderr
    return [m for side, limit in sides if limit is not None for m in above(least, limit, side=side)]


def _second_opinions(e: Evidence) -> list[Measured]:
    found = []
    for words, value, stderr in e.second_opinions:
        limit = max(_tolerance(e), S.clear * math.hypot(stderr, e.stderr))
        found += above(value - e.mi, limit, words=words, opinion=value)
    return found


def _folds(e: Evidence) -> list[Measured]:
    """Their range, where a chi-square test of homogeneity rejects."""
    values, errors = np.asarray(e.fold_values), np.maximum(np.asarray(e.fold_stderrs), 1e-12)
    if len(values) != len(errors) or len(values) < 2 or not np.isfinite(values).all():
        return []
    from scipy.special import chdtrc

    weight = (errors.min() / errors) ** 2
    residuals = (values - np.sum(weight * values) / weight.sum()) / errors
    if not chdtrc(values.size - 1, float(np.sum(residuals**2))) < S.fold_p_value:
        return []
    low, high = float(values.min()), float(values.max())
    limits = S.fold_spread * _tolerance(e), max(S.bad_fold_spread, abs(e.mi))
    return above(high - low, *limits, low=low, high=high)


def _nothing_found(e: Evidence) -> list[Measured]:
    if e.sight is None:
        return []
    if not e.sight:
        return [Measured(grade=1, facts={"told": ""})]
    most, log_n = max(e.sight.values()), math.log(e.independent or e.n)
    linear, pair, three = (Amount(e.sight[kind], e.units) for kind in ("linear", "pair", "three"))
    told = (
        f". Of samples like this one, 19 in 20 would have shown a linear dependence of {linear}, a smooth one of one pair of "
        f"columns of {pair}, one spread over three columns a side of {three}"
    )
    return [Measured(most, log_n, int(most >= log_n), {"told": told})]


def _large_error(e: Evidence) -> list[Measured]:
    return above(e.stderr, S.imprecise * _tolerance(e))


def _may_miss(e: Evidence) -> list[Measured]:
    if e.above is None or _large_error(e):
        return []
    return above(e.above, S.imprecise * _tolerance(e), most=2 * e.above)


def _weak_certificate(e: Evidence) -> list[Measured]:
    clearly_positive = e.mi > max(S.tolerance, S.clear * e.stderr)
    return below(e.lower_bound, S.weak_certificate * e.mi) if clearly_positive else []


_CLEAR = f"{S.clear:g} standard errors"

CHECKS: tuple[Check, ...] = (
    Check(
        "nothing-found", ("none found", "caution"),
        "whether any candidate beats independence on test rows",
        "none does; caution where the smallest MI that would have been seen is above log n, or not known",
        _nothing_found,
        "no candidate beats independence on test rows{told}",
        "what these critics would have seen is not known: use critic='auto'",
        "dependence of another shape may be larger; add rows to see less",
    ),
    Check(
        "linear-relation", ("unreliable",),
        "the share of variance that no linear combination of one side explains in one of the other",
        f"below {S.linear_noise:g}",
        lambda e: below(e.linear_noise, S.linear_noise),
        "a linear combination of x determines one of y (unexplained share {value:.1g}), so MI is infinite or set by rounding",
        "remove the shared column, or add the noise that the measurement has",
        asked_of="all",
    ),
    Check(
        "exact-function", ("unreliable",),
        "how differences between nearest neighbours in one side, or one column of it, shrink in the other",
        f"unexplained share below {S.local_noise:g}",
        _exact_function,
        "one side looks like an exact function of the other (unexplained share {value:.1g} among nearest neighbours): MI of a "
        "deterministic relation is infinite, or the entropy where values lie on a grid, and any number shown measures the number "
        "of rows",
        "add the noise that the measurement has",
        asked_of="all",
    ),
    Check(
        "above-entropy", ("unreliable",),
        "the entropy of a discrete side, which MI cannot exceed", f"the estimate is above it by {_CLEAR}",
        _above_entropy,
        "{side} is discrete and its entropy, which MI cannot exceed, is {threshold}, but the estimate is {mi}",
        "do not use this number",
        asked_of="all",
    ),
    Check(
        "duplicates", ("caution", "unreliable"),
        "the share of rows that repeat another row exactly, in values that are no zeros, limits or codes",
        f"above {100 * S.duplicates:g} %; unreliable above {100 * S.many_duplicates:g} %",
        lambda e: [] if _exact_function(e) else above(e.duplicates, S.duplicates, S.many_duplicates, percent=100 * e.duplicates),
        "{percent:.1f} % of the rows repeat another row exactly: copies are not independent, sit in training and held-out parts "
        "alike, and make MI look infinite",
        "remove them, or mark them by groups=",
        asked_of="all",
    ),
    Check(
        "serial-dependence", ("caution",),
        "rank correlations of rows near each other, on both sides (a file sorted by a column is no series)",
        f"n rows are worth fewer than {S.effective_share:g} n independent ones",
        lambda e: below(e.effective_share, S.effective_share, left=e.n * (e.effective_share or 0.0)),
        "rows near each other resemble each other on both sides: if the file is in the order of time, {n} rows say no more than "
        "about {left:.0f} independent ones, dependence may be invented, and there is no certificate",
        "mark blocks of time by groups=; if the file is only sorted, shuffle its rows",
        asked_of="all",
    ),
    Check(
        "rows-per-dimension", ("caution", "unreliable"),
        "the number of rows over that of columns",
        f"below {S.rows_per_dimension:g}; unreliable below {S.hopeless_rows_per_dimension:g}",
        _rows_per_dimension,
        "{n} rows for {dim_x} + {dim_y} dimensions are {value:.1f} rows a dimension: the estimate can miss dependence and "
        "invent it",
        "add rows, or reduce the dimensions before",
        asked_of="all",
    ),
    Check(
        "few-rows", ("caution",),
        "the number of rows", f"below {S.rows}",
        lambda e: [] if _rows_per_dimension(e) else below(e.n, S.rows),
        "{n} rows are few: below {threshold:.0f} the standard error is itself uncertain",
        "add rows",
        asked_of="all",
    ),
    Check(
        "near-ceiling", ("caution", "unreliable"),
        "how far the value of the bound asked for is below its cap (InfoNCE and its kin)",
        f"less than {S.near_ceiling:g} nats; unreliable below {S.at_ceiling:g}",
        lambda e: below(_minus(e.ceiling, e.requested_bound), S.near_ceiling, S.at_ceiling),
        "the {bound_name} value {requested_bound} is near its ceiling of {ceiling}, which it cannot pass whatever the truth",
        "use more negatives, or bound='flo'",
    ),
    Check(
        "near-log-n", ("caution",),
        "the estimate, and log n", f"above log n - {S.near_log_n:g}",
        _near_log_n,
        "the estimate {mi} is close to log n = {log_n}: {n} rows cannot confirm values that large, which rest on the form of the "
        "critic",
        "add rows, or trust the certificate only",
    ),
    Check(
        "few-pairs", ("caution",),
        "the effective number of pairs in the bound's exponential term",
        f"below {S.effective_pairs:g}, and the estimate not near log n",
        lambda e: [] if _near_log_n(e) else _few_pairs(e),
        "the bound's exponential term rests on about {value:.0f} pairs, so its standard error may be too small",
        "add rows or negatives, or trust the certificate only",
    ),
    Check(
        "imbalance", ("caution", "unreliable"),
        "the normalisation error of the critic, where pairs are not few",
        f"above {S.imbalance:g} and {S.imbalance_errors:g} standard errors; unreliable if above {S.bad_imbalance:g} too",
        _imbalance,
        "the critic's normalisation is off by {imbalance:+.2f} (standard error {imbalance_stderr:.2f}; it should be 0): the "
        "plug-in is wrong by about as much",
        "train longer, use more rows, or rely on the bound",
    ),
    Check(
        "read-outs-differ", ("caution",),
        "the plug-in against the FLO bound, where the two checks before find nothing",
        f"apart by more than the tolerance and {S.read_out_errors:g} standard errors",
        _read_outs,
        "the two read-outs differ: FLO bound {bound}, plug-in {plug_in}; only the bound is known to lie below the truth on "
        "average",
        "train longer, use more rows, or another critic",
    ),
    Check(
        "large-correction", ("caution",),
        "how much of the estimate is a correction beyond the test bound",
        f"more than {S.extrapolation:g} of it (at least {S.tolerance:g} nats) and {_CLEAR}",
        lambda e: above(
            _minus(e.mi, e.bound), max(S.tolerance, S.extrapolation * e.mi) + S.clear * e.bound_stderr
        ),
        "{value} of the estimate {mi} are a correction beyond the test bound of {bound}: they rest on the model, not on "
        "test rows",
        "add rows",
    ),
    Check(
        "below-reference", ("caution",),
        "the test bound of the critic used against that of the simplest dependence",
        f"lower by {S.reference_margin:g} nats, or {_CLEAR} if larger",
        lambda e: above(_minus(e.reference_bound, e.bound), max(S.reference_margin, S.clear * e.reference_stderr)),
        "{reference_name} reaches {reference_bound} on the same test rows, {value} more than the critic used",
        "use critic='auto'", "use effort='thorough' or more rows",
    ),
    Check(
        "second-opinion", ("caution",),
        "what nearest neighbours, or the correlations alone, give",
        f"more than the estimate by the tolerance, or {_CLEAR} if larger",
        _second_opinions,
        "{words} {opinion}, {value} more than the estimate, and they seldom read too high: the critic misses dependence",
        "use critic='auto'", "use effort='thorough' or more rows",
    ),
    Check(
        "unreplicated-gain", ("caution",),
        "what networks gained over the critic used on training and validation rows, and test rows don't show",
        "more than the tolerance",
        lambda e: above(e.unreplicated_gain, _tolerance(e)),
        "networks gained {value} over the critic used, in training and on validation rows, and test rows don't confirm it: "
        "the estimate may be too low by that",
        "add rows",
    ),
    Check(
        "late-gain", ("caution",),
        "what the validation bound gained in the last tenth of training",
        f"more than {S.late_gain:g} nats, or {S.late_gain:g} of the estimate if larger",
        lambda e: above(e.late_validation_gain, S.late_gain * max(1.0, abs(e.mi))),
        "the validation bound still rose by {value} in the last tenth of training: the estimate is too low",
        "use effort='thorough' or more steps",
    ),
    Check(
        "interrupted", ("caution",),
        "training", "stopped by hand",
        lambda e: _flag(e.interrupted),
        "training was interrupted: the estimate is that of the best state so far",
        "run it to the end",
    ),
    Check(
        "folds-disagree", ("caution", "unreliable"),
        "the range of the folds' bounds, and a chi-square test of their homogeneity",
        f"p below {S.fold_p_value:g} and a range above {S.fold_spread:g} times the tolerance; unreliable if it is above "
        f"{S.bad_fold_spread:g} nats and the estimate too",
        _folds,
        "the folds disagree, from {low} to {high}, more than sampling explains",
        "look for outliers, drift along the file or dependent rows (groups=), or train longer",
    ),
    Check(
        "large-error", ("caution",),
        "the standard error", f"above {S.imprecise:g} times the tolerance",
        _large_error,
        "the standard error {value} is large against the estimate {mi}",
        "read the interval, not the number; add rows",
    ),
    Check(
        "may-miss", ("caution",),
        "the standard error upwards, with what the model may miss, where the other is not large",
        f"above {S.imprecise:g} times the tolerance",
        _may_miss,
        "models of this kind, from so many rows, may miss {most} beside the estimate {mi}",
        "read the interval, not the number; add rows",
    ),
    Check(
        "below-certificate", ("caution", "unreliable"),
        "the estimate against its own certificate", f"below it; unreliable by {_CLEAR}",
        # a certificate of 0 says nothing, and an estimate just below 0 is noise
        lambda e: above(e.lower_bound, max(e.mi, 0.0), max(e.mi, 0.0) + S.clear * e.stderr),
        "the estimate {mi} lies below its own certificate {lower_bound}: the estimate's model does not fit",
        "rely on the certificate, since MI is at least that",
    ),
    Check(
        "weak-certificate", ("note",),
        "the certificate against the estimate, where that is clearly above 0", f"below {S.weak_certificate:g} of it",
        _weak_certificate,
        "the certificate {lower_bound} is far below the estimate {mi}: {n} rows prove no more without assumptions",
        "add rows if you need a guarantee",
    ),
    Check(
        "unscaled-columns", ("note",),
        "means and standard deviations of the columns, where your own critic gets them", "far from 0 and 1",
        lambda e: _flag(e.own_critic and e.unscaled_columns is not None),
        "your critic gets the rows as they are: {unscaled_columns}, on which networks often fail to learn",
        "standardise them first",
        asked_of="all",
    ),
    Check(
        "bound-not-finite", ("unreliable",),
        "the test value of the bound chosen", "not finite",
        lambda e: _flag(e.requested_bound is not None and not math.isfinite(e.requested_bound)),
        "the {bound_name} value on test rows is not finite",
        "mend the bound, or use bound='flo'",
        asked_of="all",
    ),
    Check(
        "not-finite", ("unreliable",),
        "the estimate, where no other check explains it", "not finite",
        lambda e: _flag(not math.isfinite(e.mi)),
        "the estimate is not finite: the critic's scores overflowed",
        "scale the columns, or use another critic",
        asked_of="unexplained",
    ),
)  # fmt: skip


def judge(evidence: Evidence, checks: Sequence[Check] = CHECKS) -> tuple[Verdict, tuple[Finding, ...]]:
    """The verdict, which is the level of the gravest finding, and the findings, the gravest first.

    Example:
        >>> judge(Evidence(n=5000, dim_x=2, dim_y=2, mi=0.8, stderr=0.02, bound=0.79, lower_bound=0.7))
        ('ok', ())
        >>> verdict, findings = judge(Evidence(n=60, dim_x=20, dim_y=20, mi=0.8, stderr=0.02))
        >>> verdict, findings[0].code, findings[0].text[:28]
        ('unreliable', 'rows-per-dimension', '60 rows for 20 + 20 dimensio')
    """
    findings: list[Finding] = []
    for check in checks:
        asked = {
            "finite": math.isfinite(evidence.mi),
            "all": True,
            "unexplained": all(finding.level != LEVELS[-1] for finding in findings),
        }
        if asked[check.asked_of]:
            findings += check.findings(evidence)
    findings.sort(key=lambda finding: -LEVELS.index(finding.level))
    gravest = findings[0].level if findings else "note"
    return "ok" if gravest == "note" else gravest, tuple(findings)


def table_markdown(checks: Sequence[Check] = CHECKS) -> str:
    """The checks as a table in Markdown, a row each, and what its words mean."""

    def share(value: float | None) -> str:
        return "not measured yet" if value is None else f"{100 * value:.1f} %"

    rows = [("check", "level", "looks at", "threshold", "what to do", "false alarms", "misses"), ("---",) * 7]
    for c in checks:
        remedy = c.remedy + (f"; where it was, {c.automatic_remedy}" if c.automatic_remedy else "")
        remedy = re.sub(r"\w+=('\w+')?", r"`\g<0>`", remedy)
        facts = f"`{c.code}`", ", ".join(c.levels), c.looks_at, c.threshold, remedy
        rows.append((*facts, share(c.false_alarm), share(c.miss)))
    tolerance = (
        f"The tolerance is {S.tolerance:g} nats, or {S.relative_tolerance:g} of the estimate if that is more."
    )
    return "\n".join((*(f"| {' | '.join(row)} |" for row in rows), "", tolerance))
