"""Point estimates of mutual information: the value of a formula, or the optimism-corrected midpoint of a fitted critic.

A fitted critic reads too high on the rows it was trained on and too low on others, by p/2n each for a regular model with p
parameters: with H = I - b^2 - v on test rows and T = I - b^2 + v on training rows the midpoint (T + H) / 2 is free of v. What a
model cannot express, b^2, and what a penalty smooths away are missing from both. For a formula its own small-sample correction
is better still, and networks on top of it add the midpoint of what they gained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flomi.inference.influence import Array
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class MissedSettings:
    """What a model may miss, calibrated on random tasks of the first half, 300 to 3,000 rows, effort "fast"."""

    optimism: float = setting(
        3.0,
        'times half of T - H: of 68 runs of 1,000 rows that found something 10 are then "ok", and all 10 intervals hold the '
        "truth, 7 of 8 at 3,000 rows; with 2 it is 10 of 11 and 6 of 10, with 4 8 of 8 and 3 of 4 (2026-11-30)",
    )
    share: float = setting(
        0.35, f"{UNMEASURED}of the estimate: five forests missed 0.12 to 0.43 of the truth, one 0.75"
    )


SETTINGS = MissedSettings()


@dataclass(frozen=True)
class PointEstimate:
    """A point estimate ``mi`` in nats, and what its error is made of.

    ``influence`` [n] one value a row, of mean mi; ``second_order`` the standard error of what these leave out; ``model`` that of
    what the model leaves open; ``folds`` the folds' estimates of the same number, if made apart; ``method`` in words.
    """

    mi: float
    influence: Array
    second_order: float
    model: float
    folds: tuple[float, ...] | None
    method: str


@dataclass(frozen=True)
class Rival:
    """A candidate that test rows cannot tell from the one selected: the value it loses there, with its standard error, and its
    formula's estimate where it has one."""

    loss: float
    loss_stderr: float
    mi: float | None = None
    stderr: float = 0.0


def disagreement(mi: float, stderr: float, rivals: Sequence[Rival]) -> float:
    """How far the rivals are from an estimate: the largest over them.

    A rival with a formula counts by its distance beyond twice what makes its formula noisier; one without by what it loses on
    test rows and the error of that, at most by ``stderr``, since at high MI a test value is so noisy that it says nothing.

    Example:
        >>> disagreement(1.0, 0.1, [Rival(0.01, 0.02, mi=1.3, stderr=0.1), Rival(0.03, 0.04)])
        0.30000000000000004
    """
    found = [0.0]
    for rival in rivals:
        if rival.mi is None:
            found.append(min(stderr, math.hypot(rival.loss, rival.loss_stderr)))
        else:
            noise = math.sqrt(max(0.0, rival.stderr**2 - stderr**2))
            found.append(abs(rival.mi - mi) - 2 * noise)
    return max(found)


def missed(mi: float, half: float | None) -> float:
    """The standard error, upwards only, of what the model cannot express, b^2, from what can be seen of it.

    A model that was tuned balances b^2 with the noise v of what it has learned, and v is ``half`` of T - H: so b^2 is taken to
    be a multiple of that. None where both values are of rows left out, which do not show v: then it is a share of ``mi``.

    Example:
        >>> missed(1.0, 0.02), missed(1.0, None)
        (0.06, 0.35)
    """
    return SETTINGS.share * abs(mi) if half is None else SETTINGS.optimism * half


def formula(mi: float, influence: Array, second_order: float, doubt: float, method: str) -> PointEstimate:
    """The value of a model's own formula on all rows; ``doubt`` is what the choice of the model leaves open."""
    return PointEstimate(mi, influence, second_order, doubt, None, method)


def midpoint(
    training: Array, test: Array, rows: Array, influence: Array, degenerate: float, method: str
) -> PointEstimate:
    """The optimism-corrected midpoint: (T + H) / 2 by fold, [K], folds weighted by their ``rows``.

    Either of T and H is one standard error away: half their distance, of order 1/n, is what the midpoint leaves open. As much of
    it as the ``degenerate`` part of the test rows' U-statistic explains is the second-order part, and the rest is the model's.

    Example:
        >>> p = midpoint(np.array([1.2, 1.0]), np.array([0.8, 0.8]), np.array([50, 50]), np.zeros(100), 0.0, "")
        >>> round(p.mi, 3), round(p.model, 3)
        (0.95, 0.15)
    """
    weight = rows / rows.sum()
    parts = (training + test) / 2
    half = float(weight @ np.abs(training - test)) / 2
    second_order = min(degenerate, half)
    model = math.sqrt(half**2 - second_order**2)
    return PointEstimate(
        float(weight @ parts), influence, second_order, model, tuple(map(float, parts)), method
    )


def formula_with_gain(
    values: Array,
    training_gain: Array,
    test_gain: Array,
    rows: Array,
    influence: Array,
    degenerate: float,
    method: str,
) -> PointEstimate:
    """The formula's value in each fold, [K], plus the midpoint of what networks on top of it gained there."""
    return midpoint(values + training_gain, values + test_gain, rows, influence, degenerate, method)
