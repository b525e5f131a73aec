"""Closed-form critics: the pointwise MI of a Gaussian or Student copula, and the null critic g = u = 0.

An elliptical law has a density that depends on the Mahalanobis form Q only, so its PMI is known exactly. On the canonical
variates s = A x and t = B y (whitened, only matching pairs correlated, with canonical correlations r_i):

    h = sum_i r_i s_i t_i / (1 - r_i^2) - r_i^2 (s_i^2 + t_i^2) / (2 (1 - r_i^2)),    c = -1/2 sum_i log(1 - r_i^2)
    Gaussian   PMI = c + h
    Student    PMI = c + k - (v+p+q)/2 log(1 + Q/v) + (v+p)/2 log(1 + |s|^2/v) + (v+q)/2 log(1 + |t|^2/v)
               Q = |s|^2 + |t|^2 - 2 h,   k = log G((v+p+q)/2) G(v/2) / ( G((v+p)/2) G((v+q)/2) ),   G the gamma function

`formula` of a fitted critic is the efficient estimate of MI on its own training rows, corrected for small samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flomi.critics.base import SETTINGS as TRUNCATION
from flomi.critics.base import Critic, Formula
from flomi.preprocess import RankNormal, inverse_root
from flomi.support.settings import UNMEASURED, setting

TINY = 1e-10  # relative eigenvalue below which a direction counts as constant


@dataclass(frozen=True)
class CopulaSettings:
    folds: int = setting(5, f"{UNMEASURED}of the cross-validated canonical correlations")
    shrinkages: tuple[float, ...] = setting(
        (0.0, 0.1, 0.3, 0.6, 1.0),
        f"{UNMEASURED}of the correlations within x and within y, tried by cross-validation",
    )
    nu: tuple[float, float] = setting(
        (0.5, 60.0),
        f"{UNMEASURED}degrees of freedom searched; only of the upper end it is known that beyond it tails carry less than "
        "0.0002 nats in 1 + 1 columns and 0.003 in 5 + 5 (`tail_mi`)",
    )
    search_numbers: int = setting(
        400_000, f"{UNMEASURED}rows times columns that the search for nu looks at, for its time"
    )
    rows_per_column: int = setting(
        5, f"{UNMEASURED}with fewer rows tails can't be told from directions that the fit has used up"
    )
    rank_loss: float = setting(
        0.3,
        "a fit: what normal scores take off a correlation is 0.78 to 1.07 times this law for n from 50 to 5,000 rows and r from "
        "0.3 to 0.99, 0.83 to 0.94 times at 0.999 (1,200 to 20,000 samples of normal pairs each, 2026-11-30)",
    )
    rank_noise: float = setting(
        0.5,
        "standard deviation of what ranks change in MI, in units of their loss: 0.34 to 0.63 for r of 0.99 and more in the same "
        "samples; for weaker correlations more (1 at 0.8, 4 at 0.3), where it is a tenth of the sampling error of 1,000 rows",
    )


SETTINGS = CopulaSettings()


class NullCritic(Critic):
    """g = u = 0, the right answer for independent data: its bound is exactly 0 with no variance.

    >>> NullCritic()(torch.ones(3, 2), torch.ones(3, 1))
    tensor([0., 0., 0.])
    """

    row = "null"

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> NullCritic:
        critic = cls()
        method = "0, as no dependence was found; the error is the Gaussian copula's"
        critic.formula = Formula(0.0, 0.0, 0.0, method, torch.zeros(len(x)).double(), 0.0)
        return critic

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.new_zeros(len(x), 1), y.new_zeros(len(y), 1)


class EllipticalCritic(Critic):
    r"""Exact log density ratio of a Gaussian or a Student copula: g = PMI under the model, u = -g.

    `fit` is canonical correlation analysis on normal scores. With `heavy_tails` it also estimates the
    degrees of freedom nu by maximum likelihood, for the dependence in the tails that a Gaussian lacks; nu stays infinite
    (Gaussian) unless a finite one gains more than 1/2 log n. The canonical correlations and scales in g are
    cross-validated within the training rows, so that directions which only look correlated there cost little held-out
    score; `formula` uses the plain ones, and its influence values are the PMI by row, which is what the Gaussian MI's influence
    function is. g is truncated at -log n and `truncation_level`: beyond these n rows are no evidence, and rows
    unlike any in training can't carry the bound off. x: [n, dim_x], y: [n, dim_y]; ValueError below 10 rows.
    References: Hotelling 1936; Demarta and McNeil 2005, "The t copula and related copulas"; Bartz 2016,
    "Cross-validation based nonlinear shrinkage".

    >>> x = torch.randn(4000, 1)
    >>> critic = EllipticalCritic.fit(x, (0.75 * x + 0.4375**0.5 * torch.randn(4000, 1)) ** 3)
    >>> abs(critic.formula.mi - 0.4133) < 0.05
    True
    """

    row = "student"
    submodules = (("ranks_x", RankNormal), ("ranks_y", RankNormal))
    side_terms = 2

    ranks_x: RankNormal
    ranks_y: RankNormal
    nu: Tensor  # [], infinite for Gaussian
    center_x: Tensor
    center_y: Tensor
    weight_x: Tensor  # [dim_x, p], p the rank of x: the canonical variates
    weight_y: Tensor  # [dim_y, q]
    corr: Tensor  # [min(p, q)]

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, *, heavy_tails: bool = False) -> EllipticalCritic:
        if len(x) != len(y) or len(x) < 10:
            found = f"{len(x)} and {len(y)}"
            raise ValueError(f"x and y must have the same number of rows, at least 10; found {found}")
        dim, dtype = x.shape[1], x.dtype
        ranks = RankNormal.fit(x), RankNormal.fit(y)
        z = torch.cat([r(v).double() for r, v in zip(ranks, (x, y), strict=True)], 1)
        nu = _search_nu(z) if heavy_tails else math.inf
        t, center, dispersion, weights = _fit_law(z, nu)
        turn = _row_space(t - center, dim)
        kept = int(turn[:dim].any(0).sum())
        dispersion = turn.T @ dispersion @ turn
        weight_x, weight_y, corr = _canonical(_fold_moments((t - center) @ turn, weights), kept)
        weight_x, weight_y = turn[:dim, :kept] @ weight_x, turn[dim:, kept:] @ weight_y
        corr = corr.clamp(0, 1 - torch.finfo(dtype).eps ** 0.75)
        critic = cls(
            ranks_x=ranks[0],
            ranks_y=ranks[1],
            nu=torch.tensor(nu, dtype=dtype),
            center_x=center[:dim].to(dtype),
            center_y=center[dim:].to(dtype),
            weight_x=weight_x.to(dtype),
            weight_y=weight_y.to(dtype),
            corr=corr.to(dtype),
        )
        a = critic._side(z[:, :dim].to(dtype), critic.center_x, critic.weight_x)
        b = critic._side(z[:, dim:].to(dtype), critic.center_y, critic.weight_y)
        pmi = critic.pairs(a, b)
        critic.formula = _formula(dispersion, nu, kept, corr, pmi)
        some = critic.matrix(a[: TRUNCATION.rows], b[: TRUNCATION.rows])
        critic.truncate(some, pmi, low=-math.log(len(x)))
        return critic

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        a = self._side(self.ranks_x(x), self.center_x, self.weight_x)
        return a, self._side(self.ranks_y(y), self.center_y, self.weight_y)

    def _side(self, z: Tensor, center: Tensor, weight: Tensor) -> Tensor:
        s = (_t_scores(z, float(self.nu)) - center) @ weight
        r2 = self.corr.square()
        first = s[..., : len(r2)]
        alone = (first.square() * (r2 / (1 - r2))).sum(-1, keepdim=True) / 2
        return torch.cat([first * (self.corr / (1 - r2)).sqrt(), alone, s.square().sum(-1, keepdim=True)], -1)

    def combine(self, inner: Tensor, of_x: Tensor, of_y: Tensor) -> Tensor:
        """The law of the module's docstring from h's cross term and, of each side, the rest of h and |s|^2."""
        h = (inner - of_x[..., 0]).sub_(of_y[..., 0])
        c = -0.5 * torch.log1p(-self.corr.square()).sum()
        if not torch.isfinite(self.nu):
            return h.add_(c)
        nu, p, q = self.nu, self.weight_x.shape[1], self.weight_y.shape[1]
        qx, qy = of_x[..., 1], of_y[..., 1]
        k = torch.lgamma((nu + p + q) / 2) + torch.lgamma(nu / 2)
        k = k - torch.lgamma((nu + p) / 2) - torch.lgamma((nu + q) / 2)
        g = (nu + p) / 2 * torch.log1p(qx / nu) + (nu + q) / 2 * torch.log1p(qy / nu)
        return c + k + g - (nu + p + q) / 2 * torch.log1p((qx + qy - 2 * h).clamp(min=0) / nu)


def _fit_law(z: Tensor, nu: float, start: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores t of normal scores z, their centre, their correlation matrix by maximum likelihood, and the rows' EM weights."""
    t = _t_scores(z, nu)
    center = t.mean(0)  # 0 by symmetry, but for columns with ties
    t0, n, d = t - center, len(z), z.shape[1]
    weights = torch.ones_like(t[:, 0])
    s = _correlation((z - z.mean(0)).T @ (z - z.mean(0)) / n) if start is None else start
    for _ in range(100 if math.isfinite(nu) else 0):
        weights = (nu + d) / (nu + _whitened(t0, s)[0].square().sum(1))
        old, s = s, _correlation((t0 * weights[:, None]).T @ t0)
        if (s - old).abs().max() < 1e-5:
            break
    return t, center, s, weights


def _whitened(t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """t on the axes of s, unit variance, and the eigenvalues of s; directions without variance are left out."""
    values, vectors = torch.linalg.eigh(s)
    root, kept = inverse_root(values, vectors, TINY)
    return t @ root, values[kept]


def _log_likelihood(t: Tensor, s: Tensor, nu: float) -> float:
    """Mean log density of the copula: the joint law over the product of the columns' own."""
    white, values = _whitened(t, s)

    def radial(q: Tensor, d: int) -> Tensor:
        if math.isinf(nu):
            return -0.5 * d * math.log(2 * math.pi) - q / 2
        k = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - 0.5 * d * math.log(nu * math.pi)
        return k - (nu + d) / 2 * torch.log1p(q / nu)

    alone = radial(t.square(), 1).mean() * len(values)  # as many columns as there are directions
    return float(radial(white.square().sum(1), len(values)).mean() - values.log().sum() / 2 - alone)


def _correlation(s: Tensor) -> Tensor:
    scale = s.diagonal().sqrt()
    scale = torch.where(scale > 1e-150, scale, 1.0)  # a column that is constant in these rows stays at 0
    return s / scale / scale[:, None]


def _row_space(t: Tensor, dim: int) -> Tensor:
    """[d, kept] orthonormal columns that hold all rows of each block: as many as rows, where a block has more columns."""
    turn: Tensor = torch.block_diag(
        *(
            torch.linalg.qr(b.T).Q if b.shape[1] > len(b) else torch.eye(b.shape[1], dtype=b.dtype)
            for b in (t[:, :dim], t[:, dim:])
        )
    )
    return turn


def _t_scores(z: Tensor, nu: float) -> Tensor:
    r"""Normal scores to Student scores, :math:`T_\nu^{-1}(\Phi(z))`, from a table that is linear in asinh."""
    if math.isinf(nu):
        return z
    from scipy import special

    grid = torch.linspace(0, 12, 1025, dtype=torch.float64)
    table = torch.asinh(-torch.as_tensor(special.stdtrit(nu, special.ndtr(-grid.numpy())))).to(z)
    place = (z.abs() * (1024 / 12)).clamp(max=1024 - 1e-3)
    low = place.long()
    return torch.sinh(torch.lerp(table[low], table[low + 1], place - low)) * z.sign()


def _search_nu(z: Tensor) -> float:
    """The nu of largest likelihood; infinite unless a finite one gains BIC's 1/2 log n over all rows looked at."""
    from scipy.optimize import minimize_scalar

    n, d = z.shape
    if n < SETTINGS.rows_per_column * d:
        return math.inf
    rows = z[:: max(1, n // max(SETTINGS.rows_per_column * d, SETTINGS.search_numbers // d))]
    s: Tensor | None = None

    def height(log_nu: float) -> float:
        nonlocal s
        nu = math.exp(log_nu)
        t, center, s, _ = _fit_law(rows, nu, s)
        return len(rows) * _log_likelihood(t - center, s, nu)

    low, high = (math.log(v) for v in SETTINGS.nu)
    gaussian = height(math.inf)
    if height(high) <= gaussian:  # the likelihood falls as soon as 1 / nu leaves 0
        return math.inf
    best = minimize_scalar(
        lambda v: -height(v), bounds=(low, high), method="bounded", options={"xatol": 0.005}
    )
    return math.exp(best.x) if -best.fun > gaussian + 0.5 * math.log(len(rows)) else math.inf


def _fold_moments(z: Tensor, w: Tensor) -> Tensor:
    """Weighted second moments of each fold of interleaved rows, [folds, d, d]."""
    k = SETTINGS.folds
    folds = [(z[f::k], w[f::k, None]) for f in range(k)]
    return torch.stack([(v * u).T @ v * (k / len(z)) for v, u in folds])


class _Blocks:
    """A covariance matrix of (x, y), with the axes of both blocks, which shrinking leaves as they are."""

    def __init__(self, cov: Tensor, dim: int) -> None:
        blocks = cov[:dim, :dim], cov[dim:, dim:]
        self.cross, self.axes = cov[:dim, dim:], [torch.linalg.eigh(block) for block in blocks]

    def directions(self, shrink: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Canonical directions of both blocks and the canonical correlations; `shrink` mixes in a multiple of the identity."""
        wx, wy = (self._root(values, vectors, shrink) for values, vectors in self.axes)
        u, r, vh = torch.linalg.svd(wx.T @ self.cross @ wy)
        return wx @ u, wy @ vh.T, r

    @staticmethod
    def _root(values: Tensor, vectors: Tensor, shrink: float) -> Tensor:
        return inverse_root((1 - shrink) * values + shrink * values.mean(), vectors, TINY)[0]


def _canonical(moments: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical directions, scaled, and correlations, as left-out folds see those of the other folds; best shrinkage."""
    every = _Blocks(moments.mean(0), dim)
    others = [_Blocks(moments.mean(0) - left, dim) for left in moments / len(moments)]
    found = [
        _cross_validated(every, others, moments / len(moments), dim, shrink) for shrink in SETTINGS.shrinkages
    ]
    return max(found, key=lambda f: -float(torch.log1p(-f[2].square()).sum()))


def _cross_validated(
    every: _Blocks, others: list[_Blocks], moments: Tensor, dim: int, shrink: float
) -> tuple[Tensor, Tensor, Tensor]:
    wx, wy, r = every.directions(shrink)
    sx, sy, c = torch.zeros(wx.shape[1]).to(r), torch.zeros(wy.shape[1]).to(r), torch.zeros_like(r)
    for left, other in zip(moments, others, strict=True):
        ax, ay, rf = other.directions(shrink)
        p, q, m = (min(len(a), b) for a, b in ((sx, ax.shape[1]), (sy, ay.shape[1]), (r, len(rf))))
        sx[:p] += (ax * (left[:dim, :dim] @ ax)).sum(0)[:p]
        sy[:q] += (ay * (left[dim:, dim:] @ ay)).sum(0)[:q]
        c[:m] += (ax[:, :m] * (left[:dim, dim:] @ ay[:, :m])).sum(0)[:m]
    # ax whitens 4/5 of the moments and left is 1/5 of them: four times a mean over the folds' own rows
    sx, sy, c = (v * (len(moments) - 1) / len(moments) for v in (sx, sy, c))
    sx, sy = (torch.where(v > 0, v, 1.0) for v in (sx, sy))  # directions that no fold has
    r = _decreasing(c / (sx[: len(c)] * sy[: len(c)]).sqrt())
    return wx / sx.sqrt(), wy / sy.sqrt(), r.clamp(0, 1 - 1e-12)


def _decreasing(r: Tensor) -> Tensor:
    """Isotonic regression on non-increasing sequences."""
    from scipy.optimize import isotonic_regression

    return torch.as_tensor(isotonic_regression(r.numpy(), increasing=False).x.copy())


def of_correlation(s: Tensor, dim: int, n: int, variance: float) -> Formula:
    """`formula` of a Gaussian copula from the correlations s [d, d] of n rows' normal scores, the first `dim` columns being x.

    For rows that are not in memory; `variance` is that of the PMI, measured on some of them. More rows than columns are needed.

    >>> round(of_correlation(torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=torch.float64), 1, 10**6, 0.4).mi, 4)
    0.2231
    """
    mi, bias, method, errors = _estimate(s, math.inf, dim, torch.zeros(1), n, variance)
    none = torch.zeros(0).double()
    return Formula(
        mi, math.hypot(*errors.values()), bias, method, none, errors["second_order"], errors["model"]
    )


def _formula(s: Tensor, nu: float, dim: int, corr: Tensor, pmi: Tensor) -> Formula:
    mi, bias, method, errors = _estimate(s, nu, dim, corr, len(pmi), float(pmi.double().var()))
    return Formula.of_rows(mi, bias, method, pmi, **errors)


def _estimate(
    s: Tensor, nu: float, dim: int, corr: Tensor, n: int, of_pmi: float
) -> tuple[float, float, str, dict[str, float]]:
    """MI, bias, method and the parts of the standard error, from the dispersion s and the variance of the PMI."""
    wx, wy, r = _Blocks(s, dim).directions()
    p, q = wx.shape[1], wy.shape[1]
    name = "Gaussian copula" if math.isinf(nu) else f"Student copula with {nu:.3g} degrees of freedom"
    # dispersion is estimated from Student rows as well as from this share of Gaussian rows
    share = 1.0 if math.isinf(nu) else (nu + p + q) / (nu + p + q + 2)
    dof = share * n - 1
    if dof <= p + q:
        mi = -0.5 * float(torch.log1p(-corr.square()).sum())
        errors = {"sampling": 0.0, "second_order": 0.0, "model": p * q / n / 2}
        return mi, 0.0, f"{name}, cross-validated: too few rows for its formula", errors
    bias, variance = small_sample_bias(p, q, dof)
    loss = _rank_loss(s, dim, n) if math.isinf(nu) else 0.0
    bias -= loss
    plug_in = -0.5 * float(torch.log1p(-torch.where(r > 1 - 1e-12, 1.0, r).square()).sum())
    plug_in += 0.0 if math.isinf(nu) else tail_mi(nu, p, q)
    spread = max(of_pmi, float(r.square().sum()) - p * q / dof)  # Gaussian data: Var[PMI] = sum r^2
    errors = {
        "sampling": math.sqrt(spread / n),
        "second_order": math.sqrt(variance),
        "model": abs(SETTINGS.rank_noise * loss),
    }
    return plug_in - bias, bias, f"{name}, in sample with small-sample correction", errors


def small_sample_bias(p: int, q: int, dof: float) -> tuple[float, float]:
    """Bias of the plug-in Gaussian MI of p and q columns, and its variance at independence; both exact for a Wishart matrix."""
    half = (dof - torch.arange(p + q, dtype=torch.float64)) / 2
    psi, psi1 = torch.special.digamma(half), torch.special.polygamma(1, half)
    bias = (psi[:p].sum() + psi[:q].sum() - psi.sum()) / 2
    return float(bias), float((psi1.sum() - psi1[:p].sum() - psi1[:q].sum()) / 4)


def _rank_loss(s: Tensor, dim: int, n: int) -> float:
    """What normal scores take off, to first order: each correlation is low by 0.3 log(n / (1 - r^2)) r sqrt(1 - r^2) / n."""
    r2 = s.square().clamp(max=1 - 1e-12)
    low = SETTINGS.rank_loss * torch.log(n / (1 - r2)) * s * (1 - r2).sqrt() / n
    # the largest of d^2 / 2 squared standard normals is about 2 log(d^2 / 2) < 4 log d: what noise alone reaches counts as 0
    low = torch.where(r2 * n > 4 * math.log(len(s)), low, 0.0)
    low = low - low.diagonal().diag()

    def slope(block: slice) -> float:
        values, vectors = torch.linalg.eigh(s[block, block])
        root, kept = inverse_root(values, vectors, TINY)
        inverse = root @ root.T
        # times what makes the inverse unbiased
        return float((inverse * low[block, block]).sum()) * max(n - int(kept.sum()) - 2, 0) / n

    every, first, second = slice(None), slice(None, dim), slice(dim, None)
    return 0.5 * (slope(first) + slope(second) - slope(every))


def tail_mi(nu: float, p: int, q: int) -> float:
    """MI of a Student law with identity dispersion, h_p + h_q - h_{p+q}."""

    def entropy(k: int) -> float:
        psi = torch.special.digamma(torch.tensor([(nu + k) / 2, nu / 2], dtype=torch.float64))
        return math.lgamma(nu / 2) - math.lgamma((nu + k) / 2) + (nu + k) / 2 * float(psi[0] - psi[1])

    return entropy(p) + entropy(q) - entropy(p + q)
