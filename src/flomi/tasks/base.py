"""Gaussian, Student, additive and mixture distributions: the ground that transforms build on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from flomi.tasks.core import Array, Task
from flomi.tasks.densities import Mixture


def gaussian(name: str, covariance: npt.ArrayLike, dim_x: int) -> Task:
    """(x, y) ~ N(0, C), x the first `dim_x` coordinates.

        I = 1/2 log( det C_x det C_y / det C )

    Raises ValueError if C is not a positive definite matrix or leaves no coordinate for y.

    Example:
        >>> round(gaussian("pair", [[1.0, 0.75], [0.75, 1.0]], dim_x=1).mi, 5)
        0.41334
    """
    c = _dispersion("covariance", covariance, dim_x)
    return _elliptical(name, c, dim_x, df=np.inf, mi=_gaussian_mi(c, dim_x))


def pairs(name: str, rho: Sequence[float], dim_x: int, dim_y: int) -> Task:
    """Standard normals with corr(x_i, y_i) = rho_i for the first pairs; everything else independent.

        I = -1/2 sum_i log(1 - rho_i^2)

    Raises ValueError if there are more correlations than columns, or one outside (-1, 1).
    """
    r = np.asarray(rho, dtype=np.float64)
    if len(r) > min(dim_x, dim_y) or np.any(np.abs(r) >= 1):
        raise ValueError(f"rho must hold at most {min(dim_x, dim_y)} values in (-1, 1); found {list(rho)}")
    c = np.eye(dim_x + dim_y)
    i = np.arange(len(r))
    c[i, dim_x + i] = c[dim_x + i, i] = r
    return _elliptical(name, c, dim_x, df=np.inf, mi=0.0 - float(0.5 * np.log1p(-(r**2)).sum()))


def dense(name: str, dim_x: int, dim_y: int, correlation: float) -> Task:
    """Standard normals, every two of them with the same correlation, within x and y too.

    I = 1/2 log(D_m D_n / D_{m+n}),    D_k = (1 - c)^(k-1) (1 + (k-1) c)
    """
    d = dim_x + dim_y
    return gaussian(name, np.full((d, d), correlation) + (1 - correlation) * np.eye(d), dim_x)


def independent(name: str, dim_x: int, dim_y: int) -> Task:
    """Independent standard normals: I = 0, and so is every row's pointwise MI."""
    return pairs(name, (), dim_x, dim_y)


def student(name: str, dispersion: npt.ArrayLike, dim_x: int, df: float) -> Task:
    """(x, y) = z / sqrt(w / df) with z ~ N(0, S) and one w ~ chi^2_df a row.

        I = I_gauss(S) + h_m + h_n - h_{m+n}
        h_k = log Gamma(df/2) - log Gamma((df+k)/2) + (k/2) log(df pi)
              + ((df+k)/2) [psi((df+k)/2) - psi(df/2)]

    A shared w makes x and y dependent even where S has no correlation. Raises ValueError for df <= 0.

    Example:
        >>> import numpy as np
        >>> round(student("heavy", np.eye(2), dim_x=1, df=1).mi, 5)
        0.22417
    """
    if not df > 0:
        raise ValueError(f"df is {df}; the degrees of freedom must be positive")
    s = _dispersion("dispersion", dispersion, dim_x)
    h_x, h_y, h_both = (_t_entropy(k, df) for k in (dim_x, len(s) - dim_x, len(s)))
    mi = _gaussian_mi(s, dim_x) + h_x + h_y - h_both
    return _elliptical(name, s, dim_x, df=df, mi=mi)


def _t_entropy(k: int, df: float) -> float:
    from scipy.special import digamma, gammaln

    half, top = df / 2, (df + k) / 2
    return float(
        gammaln(half) - gammaln(top) + k / 2 * np.log(df * np.pi) + top * (digamma(top) - digamma(half))
    )


def additive(name: str, width: float) -> Task:
    """x uniform on (0, 1), y = x + e, e uniform on (-width, width).

    I = width - log(2 width) for width <= 1/2, else 1 / (4 width)
    """
    if not width > 0:
        raise ValueError(f"width is {width}; it must be positive")
    mi = width - np.log(2 * width) if width <= 0.5 else 1 / (4 * width)
    sampler, log_ratio = partial(_additive_sample, width), partial(_additive_pmi, width)
    return Task(name, 1, 1, float(mi), sampler, log_ratio, log_py=partial(_additive_log_py, width))


def _additive_sample(width: float, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    x = rng.uniform(0, 1, (n, 1))
    return x, x + rng.uniform(-width, width, (n, 1))


def _additive_log_py(width: float, y: Array) -> Array:
    reach = np.minimum(1, y[:, 0] + width) - np.maximum(0, y[:, 0] - width)  # = 2 width p(y)
    with np.errstate(divide="ignore"):
        log_py: Array = np.log(np.maximum(reach, 0)) - np.log(2 * width)
    return log_py


def _additive_pmi(width: float, x: Array, y: Array) -> Array:
    possible = np.abs(y - x)[:, 0] <= width
    return np.where(possible, -np.log(2 * width) - _additive_log_py(width, y), -np.inf)


def mixture(
    name: str,
    weights: Sequence[float],
    means: npt.ArrayLike,
    dispersions: npt.ArrayLike,
    dim_x: int,
    *,
    df: float = np.inf,
    mi: float,
    mi_stderr: float,
) -> Task:
    """A mixture of Gaussians, or of Students with `df` degrees of freedom, over (x, y).

    The pointwise MI is exact, log p(x, y) - log p(x) - log p(y), each a mixture. The MI has no closed form:
    `mi` is the mean of the pointwise MI over many rows and `mi_stderr` its standard error
    (`flomi.tasks.truth` measures both).
    """
    return _of_mixture(name, _mixture(weights, means, dispersions, df), dim_x, mi, mi_stderr)


def classes(
    name: str,
    weights: Sequence[float],
    means: npt.ArrayLike,
    covariances: npt.ArrayLike,
    *,
    mi: float,
    mi_stderr: float,
) -> Task:
    """y a class label 0, 1, ..., drawn with the given weights; x Gaussian within each class.

        pmi(x, y) = log N(x; mean_y, C_y) - log sum_k w_k N(x; mean_k, C_k)

    I is at most the entropy of the label. `mi` and `mi_stderr` as in `mixture`.
    """
    m = _mixture(weights, means, covariances, np.inf)
    sampler, log_ratio = partial(_label_sample, m), partial(_label_pmi, m)
    return Task(name, m.means.shape[1], 1, mi, sampler, log_ratio, mi_stderr)


def _elliptical(name: str, dispersion: Array, dim_x: int, df: float, mi: float) -> Task:
    m = _mixture((1.0,), np.zeros((1, len(dispersion))), dispersion[None], df)
    return _of_mixture(name, m, dim_x, mi)


def _of_mixture(name: str, m: Mixture, dim_x: int, mi: float, mi_stderr: float = 0.0) -> Task:
    dim_y, log_py = m.means.shape[1] - dim_x, m.marginal(slice(dim_x, None)).log_density
    sampler, log_ratio = partial(_joint_sample, m, dim_x), partial(_joint_pmi, m, dim_x)
    return Task(name, dim_x, dim_y, mi, sampler, log_ratio, mi_stderr, log_py)


def _mixture(
    weights: Sequence[float], means: npt.ArrayLike, dispersions: npt.ArrayLike, df: float
) -> Mixture:
    w, centres, spreads = (np.array(part, dtype=np.float64) for part in (weights, means, dispersions))
    k, d = centres.shape
    if w.shape != (k,) or spreads.shape != (k, d, d) or abs(w.sum() - 1) > 1e-9:
        raise ValueError(
            f"weights {w.shape}, means {centres.shape} and dispersions {spreads.shape} do not fit; "
            "give [k] that sum to 1, [k, d] and [k, d, d]"
        )
    return Mixture(w, centres, spreads, np.full(k, float(df)))


def _joint_sample(m: Mixture, dim_x: int, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    z = m.sample(rng, n)
    return z[:, :dim_x], z[:, dim_x:]


def _joint_pmi(m: Mixture, dim_x: int, x: Array, y: Array) -> Array:
    of_x, of_y = m.marginal(slice(None, dim_x)), m.marginal(slice(dim_x, None))
    return m.log_density(np.hstack([x, y])) - of_x.log_density(x) - of_y.log_density(y)


def _label_sample(m: Mixture, rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    label = rng.choice(len(m.weights), size=n, p=m.weights)
    noise = rng.standard_normal((n, m.means.shape[1]))
    x = m.means[label] + np.einsum("nij,nj->ni", np.linalg.cholesky(m.dispersions)[label], noise)
    return x, label[:, None].astype(np.float64)


def _label_pmi(m: Mixture, x: Array, y: Array) -> Array:
    label = y[:, 0].astype(np.intp)
    given_class: Array = np.take_along_axis(m.log_components(x), label[:, None], axis=1)[:, 0]
    return given_class - m.log_density(x)


def _gaussian_mi(c: Array, dim_x: int) -> float:
    def log_det(block: Array) -> float:
        return float(np.linalg.slogdet(block)[1])

    return 0.5 * (log_det(c[:dim_x, :dim_x]) + log_det(c[dim_x:, dim_x:]) - log_det(c))


def _dispersion(argument: str, matrix: npt.ArrayLike, dim_x: int) -> Array:
    c: Array = np.array(matrix, dtype=np.float64)
    if c.ndim != 2 or c.shape[0] != c.shape[1] or not 0 < dim_x < len(c):
        raise ValueError(
            f"{argument} has shape {c.shape} with dim_x {dim_x}; give [m + n, m + n] with 0 < m = dim_x"
        )
    if not np.allclose(c, c.T) or np.linalg.eigvalsh(c)[0] <= 0:
        raise ValueError(f"{argument} is not symmetric and positive definite; check its entries")
    return c
