"""The standard error and the interval of a point estimate, from independent sources of error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """Standard error and two-sided interval, whose sides may differ; ``parts`` holds each source's standard error."""

    stderr: float
    low: float
    high: float
    parts: dict[str, float]


def interval(
    mi: float,
    sampling: float,
    *,
    second_order: float = 0.0,
    folds: Sequence[float] | None = None,
    model: float = 0.0,
    missed: float = 0.0,
    level: float = 0.95,
) -> Interval:
    """Standard error of a point estimate and its interval, from independent sources of error.

        stderr^2 = sampling^2 + second_order^2 + tau^2/K + model^2

    ``sampling`` is the standard error of the mean of the influence values (``mean_stderr``), ``second_order`` what they leave
    out, of order 1/n. ``folds`` are the K folds' estimates of the same number: tau^2 is their variance beyond what sampling and
    its second order explain, at least 0, and stands for selection and training. ``model`` is what a debiasing term, or the
    choice among models, leaves open. ``missed``, what the model cannot express, lies above: it widens the upper side alone,
    and is no part of the stderr.
    The quantile is Student's, with Welch and Satterthwaite's degrees of freedom, so few folds widen the interval. Nats.

    Raises ValueError for negative standard errors and for a level outside (0, 1).

    Example:
        >>> i = interval(1.0, 0.03, model=0.04)
        >>> (round(i.stderr, 3), round(i.low, 3), round(i.high, 3))
        (0.05, 0.902, 1.098)
        >>> i = interval(1.0, 0.03, missed=0.04)
        >>> (round(i.low, 3), round(i.high, 3))
        (0.941, 1.098)
    """
    from scipy.special import ndtri, stdtrit

    if min(sampling, second_order, model, missed) < 0:
        raise ValueError(
            f"standard errors must not be negative, found {sampling}, {second_order}, {model} and {missed}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, found {level}")
    rows = float(np.hypot(sampling, second_order))
    parts = {"sampling": float(sampling), "second_order": float(second_order), "model": float(model)}
    dof = np.inf
    if folds is not None and len(folds) > 1:
        k = len(folds)
        found = float(np.var(folds, ddof=1)) / k
        parts["folds"] = float(np.sqrt(max(found - rows**2, 0.0)))
        if parts["folds"] > 0:
            dof = (k - 1) * sum(value**2 for value in parts.values()) ** 2 / found**2
    tail = (1 + level) / 2
    quantile = float(stdtrit(dof, tail) if np.isfinite(dof) else ndtri(tail))
    stderr = float(np.sqrt(sum(value**2 for value in parts.values())))
    high = mi + quantile * float(np.hypot(stderr, missed))
    return Interval(stderr, mi - quantile * stderr, high, parts)
