"""From the facts of a run to "ok" | "caution" | "unreliable", and why, in sentences.

How to call it: fill an ``Evidence`` with what is known (anything left out is not judged), then ``judge(evidence)``.
``rows.describe_rows(x, y)`` gives the part that needs the data, ready for ``Evidence(..., **describe_rows(x, y))``.
A sentence of level "note" is shown and leaves the verdict as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["Evidence", "judge"]

Verdict = Literal["ok", "caution", "unreliable"]
LEVELS: tuple[Verdict, ...] = ("ok", "caution", "unreliable")
NOTE, CAUTION, UNRELIABLE = 0, 1, 2

# What counts as a serious error: the larger of 0.1 nats and a tenth of the estimate.
TOLERANCE, RELATIVE_TOLERANCE = 0.1, 0.1
# Two standard errors as wide as the tolerance: one run in twenty would be off by more.
IMPRECISE = 0.5
# InfoNCE-like values bend away from the truth about one nat below their cap, and are useless half a nat below it.
NEAR_CEILING, AT_CEILING = 1.0, 0.5
# The normaliser of a usable score is within some percent of 1; beyond a third the bound and the plug-in are two numbers.
IMBALANCE, BAD_IMBALANCE, IMBALANCE_SIGMAS = 0.05, 0.3, 4.0
# Debiasing by more than this share of the estimate (plus noise) is extrapolation.
EXTRAPOLATION = 0.25
# Folds differ by more than sampling explains once in a thousand honest runs.
FOLD_P_VALUE = 1e-3
# A validation curve that still gains a fiftieth of the estimate (at least 0.02) in its last tenth has not ended.
RISING = 0.02
# Losing to a Gaussian critic by two standard errors and 0.02 nats means the network did not learn.
GAUSSIAN_MARGIN, GAUSSIAN_SIGMAS = 0.02, 2.0
# Below five rows a dimension even a Gaussian's covariance is mostly noise; below two it is not invertible in the folds.
ROWS_PER_DIMENSION, HOPELESS_ROWS_PER_DIMENSION = 5.0, 2.0
MIN_ROWS = 100
# A mean over fewer effective pairs than this has an error of its own size that nothing reveals.
MIN_EFFECTIVE_PAIRS = 30.0
# No method can confirm more than about log n; one nat below, the exponential term has too few large pairs.
NEAR_LOG_N = 1.0
# Repeated rows of continuous data: a few may be rounding, a tenth are copies.
DUPLICATES, MANY_DUPLICATES = 0.01, 0.1
# Rows in the order of time that are worth fewer than half as many independent ones.
SERIAL = 0.5
# Share of the variance left unexplained by the other side: 1e-8 is 9 nats in one linear direction.
LINEAR_NOISE = 1e-8
# The same, for one column, as differences between nearest neighbours show it.
LOCAL_NOISE = 0.01
# A certificate below a quarter of the estimate says little about its size.
WEAK_CERTIFICATE = 0.25


@dataclass(frozen=True)
class Evidence:
    """The facts that a verdict rests on; values in nats, None where unknown.

    ``bound``, ``plug_in``, ``imbalance`` are the referee's, the FLO bound of the score. ``ceiling`` is the cap of the bound
    asked for, log(m + 1) for InfoNCE, and ``asked`` that bound's value; ``rise`` the gain of the validation bound in the last
    tenth of training; ``gaussian_bound`` the held-out bound of the Gaussian critic and ``gaussian_stderr`` the standard error of
    its difference from ``bound``; ``others`` what other estimators that seldom read too high give, with their standard
    errors; ``unconfirmed`` what networks gained in training and validation and held-out rows don't show; ``automatic`` whether
    critic="auto" was asked for; ``ess`` the effective number of pairs of the exponential term;
    ``duplicates`` the share of rows that repeat another row in x and y together; ``serial`` the share of
    the rows that would be left of them as independent ones, if their order is that of time; ``entropy_x``, ``entropy_y`` the
    entropies of sides that are discrete; ``linear_noise``, ``local_noise`` the smallest share of variance in one direction or
    column of y (or x) that x (or y) leaves open, linearly or by nearest neighbours (the latter only for what looks exact).
    """

    n: int
    dim_x: int
    dim_y: int
    mi: float
    stderr: float = 0.0
    bound: float | None = None
    bound_stderr: float = 0.0
    bound_name: str = "flo"
    plug_in: float | None = None
    imbalance: float | None = None
    imbalance_stderr: float = 0.0
    lower_bound: float | None = None
    ess: float | None = None
    ceiling: float | None = None
    asked: float | None = None
    fold_values: tuple[float, ...] = ()
    fold_stderrs: tuple[float, ...] = ()
    gaussian_bound: float | None = None
    gaussian_stderr: float = 0.0
    others: tuple[tuple[str, float, float], ...] = ()
    unconfirmed: float = 0.0
    automatic: bool = False
    rise: float | None = None
    interrupted: bool = False
    duplicates: float = 0.0
    serial: float | None = None
    entropy_x: float | None = None
    entropy_y: float | None = None
    linear_noise: float | None = None
    local_noise: float | None = None
    units: str = "nats"


Finding = tuple[int, str]


def note(text: str) -> Finding:
    return NOTE, text


def caution(text: str) -> Finding:
    return CAUTION, text


def unreliable(text: str) -> Finding:
    return UNRELIABLE, text


def _tolerance(e: Evidence) -> float:
    return max(TOLERANCE, RELATIVE_TOLERANCE * abs(e.mi))


def _other_critic(e: Evidence) -> str:
    return "use effort='thorough' or more rows" if e.automatic else "use critic='auto'"


def _show(e: Evidence, value: float) -> str:
    return f"{value / np.log(2):.3g} bits" if e.units == "bits" else f"{value:.3g} nats"


def _data(e: Evidence) -> Iterator[Finding]:
    """What the rows themselves forbid: infinite MI, copies, too few rows."""
    if e.linear_noise is not None and e.linear_noise < LINEAR_NOISE:
        yield unreliable(
            f"a linear combination of x determines one of y (unexplained share {e.linear_noise:.1g}), so MI "
            "is infinite or set by rounding: remove the shared column, or add the noise that the "
            "measurement has"
        )
    if e.local_noise is not None and e.local_noise < LOCAL_NOISE:
        yield unreliable(
            f"one side looks like an exact function of the other (unexplained share {e.local_noise:.1g} "
            "among nearest neighbours): MI of a deterministic relation between continuous variables is "
            "infinite, and any number shown measures the number of rows; add the noise that the "
            "measurement has"
        )
    for name, entropy in (("x", e.entropy_x), ("y", e.entropy_y)):
        if entropy is not None and e.mi - 2 * e.stderr > entropy:
            yield unreliable(
                f"{name} is discrete and its entropy, which MI cannot exceed, is {_show(e, entropy)}, but the "
                f"estimate is {_show(e, e.mi)}: do not use this number"
            )
    if e.duplicates > DUPLICATES:
        grade = unreliable if e.duplicates > MANY_DUPLICATES else caution
        yield grade(
            f"{100 * e.duplicates:.1f} % of the rows repeat another row exactly: copies are not "
            "independent, sit in training and held-out parts alike, and make MI look infinite; remove "
            "them, or mark them by groups="
        )
    if e.serial is not None and e.serial < SERIAL:
        yield caution(
            f"neighbouring rows resemble each other on both sides: if the file is in the order of time, {e.n} rows say no more "
            f"than about {e.serial * e.n:.0f} independent ones, and dependence may be invented; mark blocks of time by groups=; "
            "if the file is only sorted, shuffle its rows"
        )
    per_dimension = e.n / (e.dim_x + e.dim_y)
    if per_dimension < ROWS_PER_DIMENSION:
        grade = unreliable if per_dimension < HOPELESS_ROWS_PER_DIMENSION else caution
        yield grade(
            f"{e.n} rows for {e.dim_x} + {e.dim_y} dimensions are {per_dimension:.1f} rows a dimension: the "
            "estimate can miss dependence and invent it; add rows, or reduce the dimensions before"
        )
    elif e.n < MIN_ROWS:
        yield caution(
            f"{e.n} rows are few: below {MIN_ROWS} the standard error is itself uncertain; add rows"
        )


def _limits(e: Evidence) -> Iterator[Finding]:
    """Caps, and what the number of rows can support."""
    if e.ceiling is not None and e.asked is not None and e.ceiling - e.asked < NEAR_CEILING:
        grade = unreliable if e.ceiling - e.asked < AT_CEILING else caution
        yield grade(
            f"the {e.bound_name} value {_show(e, e.asked)} is near its ceiling of {_show(e, e.ceiling)}, "
            "which it cannot pass whatever the truth: use more negatives, or bound='flo'"
        )
    few_pairs = e.ess is not None and e.ess < MIN_EFFECTIVE_PAIRS
    if e.mi > np.log(e.n) - NEAR_LOG_N:
        yield caution(
            f"the estimate {_show(e, e.mi)} is close to log n = {_show(e, float(np.log(e.n)))}: {e.n} rows "
            "cannot confirm values that large, which rest on the form of the critic; add rows, or trust "
            "the certificate only"
        )
    elif few_pairs:
        yield caution(
            f"the bound's exponential term rests on about {e.ess:.0f} pairs, so its standard error may be "
            "too small: add rows or negatives, or trust the certificate only"
        )


def _score(e: Evidence) -> Iterator[Finding]:
    """Whether the critic is what it should be: normalised, better than simple ones, trained to the end."""
    off = 0.0 if e.imbalance is None else e.imbalance
    few_pairs = e.ess is not None and e.ess < MIN_EFFECTIVE_PAIRS
    unbalanced = abs(off) > max(IMBALANCE, IMBALANCE_SIGMAS * e.imbalance_stderr) and not few_pairs
    if unbalanced:
        grade = unreliable if abs(off) > BAD_IMBALANCE else caution
        yield grade(
            f"the critic's normalisation is off by {off:+.2f} (standard error {e.imbalance_stderr:.2f}; it "
            "should be 0): the plug-in is wrong by about as much; train longer, use more rows, or rely on "
            "the bound"
        )
    if e.bound is not None and e.plug_in is not None and not unbalanced and not few_pairs:
        gap = e.plug_in - e.bound
        if abs(gap) > _tolerance(e) + 3 * e.bound_stderr:
            yield caution(
                f"the two read-outs differ: FLO bound {_show(e, e.bound)}, plug-in {_show(e, e.plug_in)}; only "
                "the bound is known to lie below the truth on average; train longer, use more rows, or another critic"
            )
    if e.bound is not None and e.mi - e.bound > max(TOLERANCE, EXTRAPOLATION * e.mi) + 2 * e.bound_stderr:
        yield caution(
            f"{_show(e, e.mi - e.bound)} of the estimate {_show(e, e.mi)} are a correction beyond the "
            f"held-out bound of {_show(e, e.bound)}: they rest on the model, not on held-out rows; add rows"
        )
    if e.bound is not None and e.gaussian_bound is not None:
        loss = e.gaussian_bound - e.bound
        if loss > max(GAUSSIAN_MARGIN, GAUSSIAN_SIGMAS * e.gaussian_stderr):
            yield caution(
                f"a Gaussian critic reaches {_show(e, e.gaussian_bound)} on the same held-out rows, "
                f"{_show(e, loss)} more than the critic used: {_other_critic(e)}"
            )
    for name, value, stderr in e.others:
        gap = value - e.mi
        if gap > max(_tolerance(e), 2 * np.hypot(stderr, e.stderr)):
            yield caution(
                f"{name} {_show(e, value)}, {_show(e, gap)} more than the estimate, and they seldom read too "
                f"high: the critic misses dependence; {_other_critic(e)}"
            )
    if e.unconfirmed > _tolerance(e):
        yield caution(
            f"networks gained {_show(e, e.unconfirmed)} over the critic used, in training and on validation rows, and held-out "
            "rows don't confirm it: the estimate may be too low by that; add rows"
        )
    if e.rise is not None and e.rise > max(RISING, RISING * abs(e.mi)):
        yield caution(
            f"the validation bound still rose by {_show(e, e.rise)} in the last tenth of training: the "
            "estimate is too low; use effort='thorough' or more steps"
        )
    if e.interrupted:
        yield caution(
            "training was interrupted: the estimate is that of the best state so far; run it to the end"
        )


def _agreement(e: Evidence) -> Iterator[Finding]:
    """Whether the parts of the answer agree with one another."""
    known = len(e.fold_values) == len(e.fold_stderrs) and np.isfinite(e.fold_values).all()
    if known and len(e.fold_values) > 1:
        from scipy.special import chdtrc

        values, errors = np.asarray(e.fold_values), np.maximum(np.asarray(e.fold_stderrs), 1e-12)
        weight = (errors.min() / errors) ** 2
        apart = (values - np.sum(weight * values) / weight.sum()) / errors
        statistic = float(np.sum(apart**2))
        spread = float(np.ptp(values))
        if spread > 2 * _tolerance(e) and chdtrc(values.size - 1, statistic) < FOLD_P_VALUE:
            grade = unreliable if spread > max(5 * TOLERANCE, abs(e.mi)) else caution
            yield grade(
                f"the folds disagree, from {_show(e, float(values.min()))} to "
                f"{_show(e, float(values.max()))}, more than sampling explains: look for outliers, drift "
                "along the file or dependent rows (groups=), or train longer"
            )
    if e.stderr > IMPRECISE * _tolerance(e):
        yield caution(
            f"the standard error {_show(e, e.stderr)} is large against the estimate {_show(e, e.mi)}: read "
            "the interval, not the number; add rows"
        )
    if e.lower_bound is not None:
        if e.lower_bound > e.mi:
            grade = unreliable if e.lower_bound > e.mi + 2 * e.stderr else caution
            yield grade(
                f"the estimate {_show(e, e.mi)} lies below its own certificate {_show(e, e.lower_bound)}: "
                "MI is at least the certificate; the estimate's model does not fit"
            )
        elif e.mi > 2 * e.stderr and e.mi > TOLERANCE and e.lower_bound < WEAK_CERTIFICATE * e.mi:
            yield note(
                f"the certificate {_show(e, e.lower_bound)} is far below the estimate {_show(e, e.mi)}: "
                f"{e.n} rows prove no more without assumptions; add rows if you need a guarantee"
            )


def judge(evidence: Evidence) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict, and its reasons in sentences: what was found, the number, and what to do; the gravest first.

    Example:
        >>> judge(Evidence(n=5000, dim_x=2, dim_y=2, mi=0.8, stderr=0.02, bound=0.79, lower_bound=0.7))
        ('ok', ())
        >>> verdict, warnings = judge(Evidence(n=60, dim_x=20, dim_y=20, mi=0.8, stderr=0.02))
        >>> verdict, warnings[0][:28]
        ('unreliable', '60 rows for 20 + 20 dimensio')
    """
    checks = (_data, _limits, _score, _agreement) if np.isfinite(evidence.mi) else (_data,)
    findings = [finding for check in checks for finding in check(evidence)]
    if evidence.asked is not None and not np.isfinite(evidence.asked):
        findings.append(
            unreliable(
                f"the {evidence.bound_name} value on held-out rows is not finite: mend the bound, or use bound='flo'"
            )
        )
    if not np.isfinite(evidence.mi) and all(level < UNRELIABLE for level, _ in findings):
        findings.append(
            unreliable(
                "the estimate is not finite: the critic's scores overflowed; scale the columns, or use another critic"
            )
        )
    findings.sort(key=lambda finding: -finding[0])
    level = max((severity for severity, _ in findings), default=NOTE)
    return LEVELS[level], tuple(sentence for _, sentence in findings)
