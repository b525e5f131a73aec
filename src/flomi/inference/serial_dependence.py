"""How much rows say that stand in the order of time: `effective_share`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flomi.support.settings import UNMEASURED, setting

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SerialSettings:
    """What is looked at for dependence between rows near each other."""

    serial_errors: float = setting(
        3.0, f"{UNMEASURED}standard errors of independent rows, below which a correlation of rows is 0"
    )
    around: int = setting(
        21, f"{UNMEASURED}rows around one, whose mean is what the sorting of a file leaves of it"
    )
    serial_rows: int = setting(20_000, f"{UNMEASURED}a file's first rows tell its order; more take seconds")
    serial_columns: int = setting(50, f"{UNMEASURED}a side's first columns tell its order")


SETTINGS = S = SerialSettings()


def effective_share(x: Floats, y: Floats) -> float:
    """What n rows in order of time are worth: 1 / (1 + 2 sum_k a_k b_k), with a_k and b_k the rank correlations of rows k apart.

    That is the share of independent rows with as noisy a correlation between a column of x and one of y (Bartlett 1935); the
    least over columns. A file that is sorted by a column of one side is no series: of the other side only what neighbours share
    beyond the rows around them counts then.
    """
    x, y = x[: S.serial_rows], y[: S.serial_rows]
    n = len(x)
    ranks = [np.stack([_mean_ranks(column) for column in side.T[: S.serial_columns]]) for side in (x, y)]
    is_sorted = [any(bool((s >= 0).all() or (s <= 0).all()) for s in np.diff(side, axis=1)) for side in ranks]
    ranks = [
        _beside_neighbours(side) if other else side
        for side, other in zip(ranks, is_sorted[::-1], strict=True)
    ]
    lags = [_autocorrelations(side)[:, : n // 10] for side in ranks]
    for side, other in zip(lags, is_sorted[::-1], strict=True):
        if other:  # a mean taken away makes negative correlations further on
            side *= np.minimum.accumulate(side > 0, axis=1)
    return 1 / (1 + 2 * max(0.0, float((lags[0] @ lags[1].T).max(initial=0.0))))


def _beside_neighbours(series: Floats) -> Floats:
    """Series [columns, n] less the mean of the rows around."""
    n = series.shape[1]
    width = min(S.around, n // 10 * 2 + 1)
    kernel, middle = np.full(width, 1 / width), slice(width // 2, n - width // 2)
    return np.stack([v[middle] - np.convolve(v, kernel, "valid") for v in series])


def _autocorrelations(series: Floats) -> Floats:
    """[columns, lags] of series [columns, n]; those that independent rows may show are 0."""
    n = series.shape[1]
    series = series - series.mean(axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(series, 2 * n)) ** 2
    products = np.fft.irfft(spectrum, 2 * n)[:, : n // 2]
    variance = np.where(products[:, :1] > 0, products[:, :1], 1.0)
    found: Floats = products[:, 1:] / variance
    return np.where(np.abs(found) > S.serial_errors / math.sqrt(n), found, 0.0)


def _mean_ranks(values: Floats) -> Floats:
    """Ranks, of ties their mean."""
    _, kind, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - counts / 2)[kind.ravel()]
