"""Classical estimators, one function each: (x, y, seed) -> `Answer`, in nats. `NotApplicable` where one makes no sense.

gaussian      canonical correlations: what jointly Gaussian data would have
ksg           nearest neighbours (Kraskov, Stoegbauer and Grassberger 2004)
histogram     counts in bins of equal frequency, with the correction of Miller and Madow
kde           Gaussian kernel densities of Scott's width, each row left out of its own
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from flomi.critics import kernel_density, nearest_neighbours
from flomi.support.settings import UNMEASURED, setting

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Answer", "NotApplicable", "gaussian", "histogram", "kde", "ksg"]

Array = npt.NDArray[np.float64]

Z95 = 1.959964


@dataclass(frozen=True)
class BaselineSettings:
    """What the baselines do where their papers leave a choice."""

    rows_a_cell: int = setting(
        5, "the rule of thumb of the chi-square test: five expected counts a cell (Cochran 1954)"
    )
    least_bins: int = setting(
        4, f"{UNMEASURED}bins a column of the histogram, below which it says hardly anything"
    )
    most_kde_columns: int = setting(
        6, f"{UNMEASURED}columns, above which hardly a row has another within its kernel"
    )
    kde_rows: int = setting(2000, f"{UNMEASURED}rows that the mean is over, for time")


SETTINGS = BaselineSettings()


class NotApplicable(ValueError):
    """The estimator makes no sense for these data, and the message says why: a gap in the table, not a failure."""


@dataclass(frozen=True)
class Answer:
    """What an estimator says of one data set, in nats; None where it offers no such number.

    estimate, stderr, ci_low, ci_high: the number and its 95 % interval. lower_bound: one-sided 95 % confidence bound.
    bound, plug_in: the two read-outs of a variational bound. verdict: its own judgement, in a word.
    """

    estimate: float
    stderr: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    lower_bound: float | None = None
    bound: float | None = None
    plug_in: float | None = None
    verdict: str = ""

    @classmethod
    def of(
        cls, estimate: float, stderr: float, bound: float | None = None, plug_in: float | None = None
    ) -> Answer:
        """With the interval that a normal distribution of the estimate gives."""
        low, high = estimate - Z95 * stderr, estimate + Z95 * stderr
        return cls(estimate, stderr, low, high, bound=bound, plug_in=plug_in)


def gaussian(x: Array, y: Array, seed: int) -> Answer:
    """Gaussian MI from the sample's canonical correlations, uncorrected.

        I = -1/2 sum_i log(1 - r_i^2),    stderr^2 = sum_i r_i^2 / n

    x `[n, d]`, y `[n, e]`; `seed` changes nothing. NotApplicable where the rows are no more than the columns, or a linear
    function of x is one of y, whose MI is infinite.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(2000, 1))
        >>> abs(gaussian(x, x + rng.normal(size=(2000, 1)), 0).estimate - 0.3466) < 0.05
        True
    """
    n = len(x)
    bases = [_orthonormal(side) for side in (x, y)]
    if sum(basis.shape[1] for basis in bases) >= n:
        raise NotApplicable(
            f"{n} rows are too few for the correlations of {x.shape[1]} + {y.shape[1]} columns"
        )
    r = np.linalg.svd(bases[0].T @ bases[1], compute_uv=False)
    if np.any(r > 1 - 1e-9):
        raise NotApplicable("a linear function of x equals one of y: for Gaussians the MI is infinite")
    return Answer.of(float(-0.5 * np.log1p(-(r**2)).sum()), float(np.sqrt((r**2).sum() / n)))


def _orthonormal(side: Array) -> Array:
    """An orthonormal basis of the centred columns, without the directions in which they don't vary."""
    u, s, _ = np.linalg.svd(_standard(side), full_matrices=False)
    return u[:, s > 1e-9 * max(s.max(initial=0.0), 1e-300)]


def ksg(x: Array, y: Array, seed: int, k: int = 3) -> Answer:
    """Nearest neighbours in the maximum norm, on columns of variance 1; the first algorithm.

        I = psi(k) + psi(n) - < psi(n_x + 1) + psi(n_y + 1) >

    The standard error is that of the mean over rows as if they were independent. Reference: Kraskov, Stoegbauer and
    Grassberger 2004. NotApplicable for k rows or fewer.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(2000, 1))
        >>> abs(ksg(x, x + rng.normal(size=(2000, 1)), 0).estimate - 0.3466) < 0.1
        True
    """
    if len(x) <= k:
        raise NotApplicable(f"{len(x)} rows have no {k} neighbours each")
    return _mean(nearest_neighbours.ksg(*_standard_tensors(x, y), k))


def histogram(x: Array, y: Array, seed: int) -> Answer:
    """Counts in cells, every column cut into bins of equal frequency, less the bias that empty cells make.

        I = sum p_xy log( p_xy / (p_x p_y) ) - (c_xy - c_x - c_y + 1) / (2 n),    c the cells that are not empty

    As many bins a column as leave 5 rows a cell: (n / 5)^(1/(d + e)). NotApplicable where that is fewer than 4, so from
    five columns in all at 5,000 rows. Reference: Miller 1955.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(2000, 1))
        >>> abs(histogram(x, x + rng.normal(size=(2000, 1)), 0).estimate - 0.3466) < 0.1
        True
    """
    n, columns = len(x), x.shape[1] + y.shape[1]
    bins = int((n / SETTINGS.rows_a_cell) ** (1 / columns) + 1e-9)
    if bins < SETTINGS.least_bins:
        raise NotApplicable(
            f"{columns} columns leave {bins} bins each at {n} rows; a histogram needs {SETTINGS.least_bins}: "
            f"{SETTINGS.rows_a_cell * SETTINGS.least_bins**columns:,} rows"
        )
    of_x, of_y = (_cells(side, bins) for side in (x, y))
    both = np.stack([of_x, of_y], axis=1)
    _, of_xy, joint = np.unique(both, axis=0, return_inverse=True, return_counts=True)
    count_x, count_y = np.bincount(of_x), np.bincount(of_y)
    pmi = np.log(n * joint[of_xy.reshape(-1)] / (count_x[of_x] * count_y[of_y]))
    excess = (len(joint) - len(count_x) - len(count_y) + 1) / (2 * n)
    return Answer.of(float(pmi.mean() - excess), float(pmi.std(ddof=1) / np.sqrt(n)))


def _cells(side: Array, bins: int) -> npt.NDArray[np.intp]:
    """The cell of each row, numbered 0, 1, ... without gaps."""
    inner = np.quantile(side, np.arange(1, bins) / bins, axis=0)
    bin_of = [
        np.searchsorted(cuts, column, side="right") for cuts, column in zip(inner.T, side.T, strict=True)
    ]
    place = np.stack(bin_of, axis=1)
    return np.unique(place, axis=0, return_inverse=True)[1].reshape(-1)


def kde(x: Array, y: Array, seed: int) -> Answer:
    """The mean log ratio of three kernel densities, of (x, y), x and y, each of Scott's width n^(-1/(d+4)).

        I = < log p(x, y) - log p(x) - log p(y) >

    Each row is left out of its own densities, which are made of all others; the mean is over at most 2,000 rows.
    NotApplicable above six columns in all, where hardly a row has another within its kernel, and for columns that hang
    together exactly.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.normal(size=(2000, 1))
        >>> abs(kde(x, x + rng.normal(size=(2000, 1)), 0).estimate - 0.3466) < 0.1
        True
    """
    columns = x.shape[1] + y.shape[1]
    if columns > SETTINGS.most_kde_columns:
        raise NotApplicable(
            f"{columns} columns are too many for kernel densities; up to {SETTINGS.most_kde_columns} make sense"
        )
    if np.linalg.matrix_rank(_standard(np.hstack([x, y]))) < columns:
        raise NotApplicable("a column is constant or a linear function of others: there is no density")
    return _mean(kernel_density.kde(*_standard_tensors(x, y), rows=SETTINGS.kde_rows))


def _mean(local: Tensor) -> Answer:
    """The mean over rows, as if they were independent."""
    return Answer.of(float(local.mean()), float(local.std()) / len(local) ** 0.5)


def _standard_tensors(x: Array, y: Array) -> tuple[Tensor, Tensor]:
    import torch

    return torch.from_numpy(_standard(x)), torch.from_numpy(_standard(y))


def _standard(side: Array) -> Array:
    scale = side.std(axis=0)
    standard: Array = (side - side.mean(axis=0)) / np.where(scale > 0, scale, 1)
    return standard
