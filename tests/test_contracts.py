"""What `estimate` owes to mutual information: no change of view on the same rows may move it by more than a stated share.

I(X; Y) stays what it is under strictly monotone maps of single columns, when x and y change places, in any order of the
columns and of the rows, and when a column is there twice or an independent one joins in. An estimate from finitely many rows
moves a little, for its folds and starts are drawn anew: CASES says by how many of its standard errors at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flomi import MIEstimate, estimate

Array = NDArray[np.float64]
Pair = tuple[Array, Array]


def gaussian(n: int, seed: int = 0, d: int = 2, rho: float = 0.7) -> Pair:
    x, e = np.random.default_rng(seed).normal(size=(2, n, d))
    return x, rho * x + math.sqrt(1 - rho**2) * e


def heavy(n: int, seed: int = 0) -> Pair:
    """Gaussian pairs whose rows are stretched by one number each: a Student t with 2 degrees of freedom."""
    x, y = gaussian(n, seed)
    stretch = np.sqrt(np.random.default_rng([seed, 1]).chisquare(2, size=(n, 1)) / 2)
    return x / stretch, y / stretch


def parabola(n: int, seed: int = 0) -> Pair:
    x, e = np.random.default_rng(seed).normal(size=(2, n, 1))
    return x, x**2 + 0.5 * e


def product(n: int, seed: int = 0) -> Pair:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return x, np.stack([x[:, 0] * x[:, 1], x[:, 2]], 1) + 0.5 * rng.normal(size=(n, 2))


def folded(n: int, seed: int = 0) -> Pair:
    """Two columns |x| + noise in reverse order: no correlation, and much information."""
    x, e = np.random.default_rng(seed).normal(size=(2, n, 2))
    return x, (np.abs(x) + 0.3 * e)[:, ::-1].copy()


def ring(n: int, seed: int = 0) -> Pair:
    """The cosine of an angle and a column; the sine of it and the column with noise."""
    rng = np.random.default_rng(seed)
    angle, (common, e) = rng.uniform(0, 2 * math.pi, size=n), rng.normal(size=(2, n))
    x, y = np.stack([np.cos(angle), common], 1), np.stack([np.sin(angle), common + 0.5 * e], 1)
    return x + 0.05 * rng.normal(size=x.shape), y + 0.05 * rng.normal(size=y.shape)


def parts(n: int, seed: int = 0) -> Pair:
    """Two columns, and which of three parts of the plane they are from."""
    rng = np.random.default_rng(seed)
    part = rng.integers(3, size=n)
    x = 2 * np.stack([np.cos(2.1 * part), np.sin(2.1 * part)], 1) + rng.normal(size=(n, 2))
    return x, part[:, None].astype(float)


def independent(n: int, seed: int = 0) -> Pair:
    x, y = np.random.default_rng(seed).normal(size=(2, n, 2))
    return x, y


def monotone(x: Array, y: Array) -> Pair:
    x, y = x.copy(), y.copy()
    x[:, 0], y[:, -1] = np.exp(x[:, 0]), y[:, -1] ** 3
    return x, y


def swapped(x: Array, y: Array) -> Pair:
    return y, x


def columns(x: Array, y: Array) -> Pair:
    return x[:, ::-1].copy(), y[:, ::-1].copy()


def rows(x: Array, y: Array) -> Pair:
    order = np.random.default_rng(5).permutation(len(x))
    return x[order], y[order]


def duplicated(x: Array, y: Array) -> Pair:
    return np.hstack([x, x[:, :1]]), y


def joined(x: Array, y: Array) -> Pair:
    return np.hstack([x, np.random.default_rng(6).normal(size=(len(x), 1))]), y


CHANGES = (monotone, swapped, columns, rows, duplicated, joined)


@dataclass(frozen=True)
class Case:
    """Data on which `winner` wins, and for each of CHANGES the share of a standard error that it may move the estimate by.

    A share of 0 means rounding alone; None that the change makes no sense, such as a second column for one-column critics.
    """

    data: Callable[..., Pair]
    n: int
    winner: str
    shares: tuple[float | None, ...]
    critic: str | list[str] | None = None  # the winner, unless it has to win among others


# Measured on three or four draws of each, the largest moves were, in standard errors: of closed forms 1e-8 where x and y
# swap or columns change places, 2e-3 under monotone maps (0 where the copula is all that is read), and 0.44 where local,
# regression and matched get their rows in another order, and so in other folds; of networks 0.35, 0.01 and 1.1. Where networks
# learn little they move by more: by 1.9 with a column more on `ring`, by up to 3 on 400 rows of `folded`, which is not here.
CASES = {  # monotone, swapped, columns, rows, duplicated, joined
    "gaussian": Case(gaussian, 400, "gaussian", (0, 0, 0, 0, 0.01, 0.5)),
    "student": Case(heavy, 400, "student", (0, 0, 0, 0, 0, 2)),
    "local": Case(parabola, 400, "local", (0, 0, 0, 0.5, None, None)),
    "regression": Case(product, 400, "regression", (0.01, 0, 0, 0.5, 0, 0.5)),
    "logistic": Case(parts, 400, "logistic", (0.01, 0.001, 0.001, 0.5, 0.2, 0.5)),
    "forest": Case(folded, 500, "forest", (0.1, 0.5, 0.5, 2, 1, 2)),
    "matched": Case(folded, 500, "matched", (0.01, 0, 0, 0.5, 0, 0.5)),
    "null": Case(independent, 300, "null", (0, 0, 0, 0, 0, 0)),
    "residual": Case(product, 500, "residual", (0.01, 1, 1, 1, 1, 2)),
    "network": Case(gaussian, 400, "network", (0.01, 1, 1, 1.5, 1, 2)),
    "auto, gaussian": Case(gaussian, 400, "gaussian", (0, 0, 0, 0, 0.01, 0.5), "auto"),
    "chosen, residual": Case(ring, 400, "residual", (0.01, 1, 1, 1, 2, 2), ["null", "gaussian", "residual"]),
    "chosen, regression": Case(
        folded, 500, "regression", (0.01, 0, 0, 0.5, 0, 2), ["null", "gaussian", "regression"]
    ),
}
ROUNDING = 1e-6  # in standard errors
SLOW = {"student", "residual", "network", "auto, gaussian", "chosen, regression", "chosen, residual"}


@cache
def found(name: str, change: Callable[[Array, Array], Pair] | None = None) -> MIEstimate:
    case = CASES[name]
    data = case.data(case.n)
    options: dict[str, Any] = {"critic": case.critic or case.winner, "effort": "fast", "n_folds": 2}
    return estimate(*(data if change is None else change(*data)), **options)


@pytest.mark.parametrize(
    ("name", "change", "share"),
    [
        pytest.param(
            name, change, share, id=f"{name}-{change.__name__}", marks=[pytest.mark.slow] * (name in SLOW)
        )
        for name, case in CASES.items()
        for change, share in zip(CHANGES, case.shares, strict=True)
        if share is not None
    ],
)
def test_a_change_of_view_moves_no_information(
    name: str, change: Callable[[Array, Array], Pair], share: float
) -> None:
    before, after = found(name), found(name, change)
    assert before.critic == after.critic == CASES[name].winner
    assert before.stderr > 0 and abs(before.mi - after.mi) <= max(share, ROUNDING) * before.stderr
    if name != "null":  # so that there is something to lose
        assert before.mi > 0.4


@pytest.mark.slow
def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 40 intervals of 95 % two miss on average; more than seven miss by chance once in 1,400 such tests."""
    truth = -math.log(1 - 0.7**2) / 2
    held, above = 0, 0
    for seed in range(40):
        r = estimate(*gaussian(300, seed, d=1), critic="gaussian", n_folds=2)
        held += r.ci[0] <= truth <= r.ci[1]
        above += r.lower_bound > truth
    assert held >= 33 and above <= 7
