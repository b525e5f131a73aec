"""Gaussian and Student mixtures: density, sampling, marginals. The tasks of several families rest on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flomi.tasks.core import Array

_CHUNK = 4096  # rows at a time where a [rows, nodes] table is built


def log_sum_exp(terms: Array) -> Array:
    """log sum_k exp(terms[:, k]) for each row of `[n, k]`, without overflow."""
    top = terms.max(axis=1)
    total: Array = top + np.log(np.exp(terms - top[:, None]).sum(axis=1))
    return total


@dataclass(frozen=True)
class Mixture:
    """A mixture of k elliptical components in d dimensions, Gaussian (df infinite) or Student.

    p(z) = sum_k w_k t(z; mean_k, dispersion_k, df_k), with

        log t = log Gamma((df + d)/2) - log Gamma(df/2) - (d/2) log(df pi) - 1/2 log|S|
                - ((df + d)/2) log(1 + r^2 / df),      r^2 = (z - mean)' S^-1 (z - mean)

    `weights [k]`, `means [k, d]`, `dispersions [k, d, d]`, `df [k]`. Any subset of the coordinates is again
    such a mixture, which is what makes the pointwise MI exact.
    """

    weights: Array
    means: Array
    dispersions: Array
    df: Array

    def marginal(self, columns: slice) -> Mixture:
        """The mixture that the chosen coordinates follow."""
        return Mixture(self.weights, self.means[:, columns], self.dispersions[:, columns, columns], self.df)

    def sample(self, rng: np.random.Generator, n: int) -> Array:
        """n rows, `[n, d]`."""
        label = rng.choice(len(self.weights), size=n, p=self.weights)
        z: Array = rng.standard_normal((n, self.means.shape[1]))
        for k, (mean, dispersion, df) in enumerate(zip(self.means, self.dispersions, self.df, strict=True)):
            mine = label == k
            part = z[mine] @ np.linalg.cholesky(dispersion).T
            if np.isfinite(df):
                part /= np.sqrt(rng.chisquare(df, size=len(part)) / df)[:, None]
            z[mine] = mean + part
        return z

    def log_components(self, z: Array) -> Array:
        """log t(z; component k) for every row and component, `[n, k]`."""
        parts = zip(self.means, self.dispersions, self.df, strict=True)
        return np.stack([_log_elliptical(z - mean, dispersion, df) for mean, dispersion, df in parts], axis=1)

    def log_density(self, z: Array) -> Array:
        """log p(z), `[n]`."""
        return log_sum_exp(self.log_components(z) + np.log(self.weights))


def _log_elliptical(centred: Array, dispersion: Array, df: float) -> Array:
    d = centred.shape[1]
    whiten = np.linalg.inv(np.linalg.cholesky(dispersion))
    half_log_det = -np.log(np.diag(whiten)).sum()
    square: Array = ((centred @ whiten.T) ** 2).sum(axis=1)
    if not np.isfinite(df):
        gaussian: Array = -0.5 * (square + d * np.log(2 * np.pi)) - half_log_det
        return gaussian
    from scipy.special import gammaln

    constant = gammaln((df + d) / 2) - gammaln(df / 2) - d / 2 * np.log(df * np.pi) - half_log_det
    student: Array = constant - (df + d) / 2 * np.log1p(square / df)
    return student


@dataclass(frozen=True)
class ScaleMixture:
    """A scalar density written as a quadrature: p(t) = sum_k w_k N(t; mean_k, scale_k^2).

    A scalar Y given a latent is Gaussian in several tasks; with the latent on a quadrature grid its marginal
    is this sum, accurate to rounding where the grid resolves the integrand.
    """

    weights: Array
    means: Array
    scales: Array

    def log_density(self, t: Array) -> Array:
        """log p(t) for `t [n]`, `[n]`."""
        constant = np.log(self.weights) - np.log(self.scales) - 0.5 * np.log(2 * np.pi)
        pieces = [
            log_sum_exp(constant - 0.5 * ((part[:, None] - self.means) / self.scales) ** 2)
            for part in np.array_split(t, max(1, len(t) // _CHUNK))
        ]
        return np.concatenate(pieces)

    def entropy(self, n_nodes: int = 2001) -> float:
        """h = -int p log p in nats, by the trapezoid rule in asinh(t), which takes light and heavy tails alike."""
        reach = float(np.max(np.abs(self.means) + 12 * self.scales))
        v = np.linspace(-np.arcsinh(reach), np.arcsinh(reach), n_nodes)
        log_p = self.log_density(np.sinh(v))
        return float(-np.sum(np.exp(log_p) * log_p * np.cosh(v)) * (v[1] - v[0]))
