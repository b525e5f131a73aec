"""Invertible preprocessing, fitted on training rows: robust scaling, normal scores of ranks, whitening.

Mutual information is the same before and after an injective map of x alone or of y alone, so these only make a critic's
task easier. Each module holds buffers only, its constructor takes just these, and `fit` estimates them: a state_dict `s`
is restored by `RankNormal(**s)`. x: [n, d] -> [n, d], in the dtype of x. Chain them with `nn.Sequential`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CONSTANT = 1e-6  # relative variance below which `Whiten.reduce` takes a direction for constant
# Of a column's size, what other columns leave of it where it is a combination of them: single precision leaves 1e-7, and what is
# smaller than the distance of two ranks no rank shows.
_DEPENDENT = 1e-6
_TAIL = 0.5  # normal scores: from the outermost training value out to the limit, and in to what sets the unit


class _Fitted(nn.Module):
    """A map whose fitted numbers are buffers, given by name."""

    def __init__(self, **buffers: Tensor) -> None:
        super().__init__()
        for name, value in buffers.items():
            self.register_buffer(name, value)


class Standardize(_Fitted):
    r"""Centre and scale each column by its median and interquartile range.

    .. math:: z_j = (x_j - \mathrm{median}_j) / s_j, \qquad s_j = \mathrm{IQR}_j / 1.349

    For a Gaussian column s is the standard deviation; the bulk of a heavy-tailed one gets unit scale too, while its outliers
    stay far out, as far as they were (mean and standard deviation would squeeze the bulk to a point instead; `RankNormal`
    brings the outliers in). Where the middle half of a column is one value, s is the standard deviation; where the whole
    column is, s = 1.

    >>> Standardize.fit(torch.tensor([[0.0], [1.0], [2.0], [3.0], [4e6]]))(torch.tensor([[2.0]]))
    tensor([[0.]])
    """

    center: Tensor
    scale: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> Standardize:
        x = _rows(x)
        ordered = x.T.contiguous().sort(-1).values.T
        n = len(x)
        iqr = (ordered[(3 * (n - 1) + 2) // 4] - ordered[(n - 1) // 4]) / 1.349
        deviation = x.std(0)
        scale = torch.where(iqr > 0, iqr, torch.where(deviation > 0, deviation, torch.ones_like(iqr)))
        return cls(center=(ordered[(n - 1) // 2] + ordered[n // 2]) / 2, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.center) / self.scale


class IndependentColumns(_Fitted):
    r"""Those columns of x of which no one is a linear combination of the others and 1: [n, d] -> [n, rank].

    The rest says nothing more, and has to go before ranks are taken: ranks bend each column on its own, and make noise of an
    exact relation, which whitening then blows up. Columns are chosen by a Cholesky decomposition with pivots, and stay in
    their order; all stay where there are too few rows to tell.

    >>> category = torch.tensor([0, 1, 2, 1, 0, 2, 1])
    >>> IndependentColumns.fit(torch.nn.functional.one_hot(category).double()).columns.numel()
    2
    """

    columns: Tensor

    @classmethod
    def fit(cls, x: Tensor) -> IndependentColumns:
        n, d = _rows(x).shape
        every = torch.arange(d, device=x.device)
        if d == 1:
            return cls(columns=every)
        from scipy.linalg.lapack import dpstrf

        z = torch.cat([torch.ones_like(x[:, :1]).double(), Standardize.fit(x.double())(x.double())], 1)
        z /= z.abs().amax(1, keepdim=True)  # rows have one size, so that a few far out do not hide the others
        one = z[:, :1] / z[:, :1].norm()
        z = z[:, 1:] - one * (one.T @ z[:, 1:])
        size = z.norm(dim=0)
        z /= torch.where(size > 0, size, 1.0)
        _, pivots, rank, _ = dpstrf((z.T @ z).cpu().numpy(), tol=_DEPENDENT**2)
        if rank >= min(d, n - 1):  # so many columns are independent in any rows
            return cls(columns=every)
        return cls(columns=torch.as_tensor(pivots[: max(rank, 1)] - 1).sort().values.to(every))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.columns]


class RankNormal(_Fitted):
    r"""Map each column to the normal scores of its ranks, by a continuous and strictly increasing function.

    .. math:: z(x) = \Phi^{-1}\big( (r(x) - 1/2) / n \big)

    at the training values, with r the mid-rank among ties; linear in between; and beyond the outermost training values
    e_\pm, which score z_\pm, hyperbolic, so that order is kept and outliers stay within half a unit of score:

    .. math:: z(x) = z_\pm \pm \tfrac12 \, \frac{|x - e_\pm|}{b_\pm + |x - e_\pm|},

    where b is how far one has to go inwards from e for half a unit of score, so that the slope continues. Above
    `max_knots` rows the function keeps that many training values, all of the extreme ones among them. A discrete column
    keeps its order and its ties, and a constant one maps to 0; `distinct` counts the different values of each
    column, so ties are where it is below n.
    After this map a Gaussian critic is a Gaussian copula. Reference: van der Waerden 1952 (normal scores); Liu,
    Lafferty, Wasserman 2009, "The Nonparanormal".

    >>> z = RankNormal.fit(torch.tensor([[1.0], [2.0], [4.0], [1e9]]))
    >>> z(torch.tensor([[1.0], [2.0], [3.0], [1e9], [1e12]])).flatten()
    tensor([-1.1503, -0.3186,  0.0000,  1.1503,  1.6498])
    """

    knots: Tensor  # [d, K], non-decreasing
    scores: Tensor  # [d, K]
    tails: Tensor  # [2, d], the b of the lower and of the upper tail
    distinct: Tensor  # [d]

    @classmethod
    def fit(cls, x: Tensor, max_knots: int = 2048) -> RankNormal:
        x = _rows(x)
        n = len(x)
        ordered = x.T.contiguous().sort(-1).values
        scores = torch.special.ndtri((_mid_ranks(ordered) - 0.5) / n)
        distinct = (ordered[:, 1:] > ordered[:, :-1]).sum(-1) + 1
        if n > max_knots:  # positions evenly spaced in score: dense in the tails
            end = -torch.special.ndtri(torch.tensor(0.5 / n, dtype=torch.float64))
            shares = torch.special.ndtr(end * torch.linspace(-1, 1, max_knots, dtype=end.dtype))
            keep = (n * shares - 0.5).round().long().unique().to(x.device)
            ordered, scores = ordered[:, keep], scores[:, keep]
        return cls.of_knots(ordered, scores, distinct)

    @classmethod
    def of_knots(cls, ordered: Tensor, scores: Tensor, distinct: Tensor) -> RankNormal:
        """The map through non-decreasing values [d, K] and their scores, both in float64 or the values in less."""
        span = ordered[:, -1] - ordered[:, 0]
        lower = _last_within(ordered, scores - scores[:, :1] <= _TAIL) - ordered[:, 0]
        upper = ordered[:, -1] + _last_within(-ordered.flip(-1), (scores[:, -1:] - scores).flip(-1) <= _TAIL)
        tails = torch.stack([torch.where(b > 0, b, torch.where(span > 0, span, 1.0)) for b in (lower, upper)])
        return cls(knots=ordered, scores=scores.to(ordered.dtype), tails=tails, distinct=distinct)

    def forward(self, x: Tensor) -> Tensor:
        v = x.T.contiguous()
        last = self.knots.shape[1] - 1
        right = torch.searchsorted(self.knots, v).clamp(1, last)
        a, b = self.knots.gather(1, right - 1), self.knots.gather(1, right)
        part = torch.where(b > a, (v - a) / torch.where(b > a, b - a, 1.0), 0.0).clamp(0, 1)
        z = torch.lerp(self.scores.gather(1, right - 1), self.scores.gather(1, right), part)
        below, above = (self.knots[:, :1] - v).clamp(min=0), (v - self.knots[:, -1:]).clamp(min=0)
        beyond = above / (self.tails[1, :, None] + above) - below / (self.tails[0, :, None] + below)
        return (z + _TAIL * beyond).T


class Whiten(_Fitted):
    r"""Rotate and scale so that the columns are uncorrelated with variance about 1.

    .. math:: z = S^{-1/2} (x - \bar x), \qquad S = (1 - \lambda) \hat\Sigma + \lambda \, \bar\sigma^2 \mathrm{Id}

    The symmetric root keeps each z_j close to its x_j. With `shrink=None`, lambda is the estimate of Ledoit and Wolf 2004,
    "A well-conditioned estimator for large-dimensional covariance matrices". Eigenvalues of S below 1e-10 of the
    largest are raised to that, so a rank-deficient x gives a finite and still injective map.

    >>> x = torch.randn(4000, 2, dtype=torch.float64) @ torch.tensor([[1.0, 2.0], [0.0, 0.5]], dtype=torch.float64)
    >>> bool((Whiten.fit(x)(x).T.cov() - torch.eye(2)).abs().max() < 0.05)
    True
    """

    center: Tensor
    weight: Tensor

    @classmethod
    def fit(cls, x: Tensor, shrink: float | None = None) -> Whiten:
        x = _rows(x)
        n, d = x.shape
        center = x.double().mean(0)
        deviations = x.double() - center
        cov = deviations.T @ deviations / n
        level = cov.diagonal().mean()
        if shrink is None:
            from sklearn.covariance import ledoit_wolf_shrinkage

            shrink = float(ledoit_wolf_shrinkage(deviations.cpu().numpy(), assume_centered=True))
        values, vectors = torch.linalg.eigh((1 - shrink) * cov + shrink * level * torch.eye(d).to(cov))
        floor = torch.where(values[-1] > 0, 1e-10 * values[-1], 1.0)
        weight = vectors / values.clamp(min=floor).sqrt() @ vectors.T
        return cls(center=center.to(x.dtype), weight=weight.to(x.dtype))

    @classmethod
    def reduce(cls, x: Tensor) -> Whiten:
        """Without shrinking, and less the directions that are constant up to rounding: copies of a column, one of all dummies."""
        center = x.mean(0)
        values, vectors = torch.linalg.eigh((x - center).T @ (x - center) / len(x))
        values[-1:].clamp_(min=1e-12)  # one direction stays
        weight, kept = inverse_root(values, vectors, _CONSTANT)
        return cls(center=center, weight=weight @ vectors.T if kept.all() else weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.center) @ self.weight


def inverse_root(values: Tensor, vectors: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """From the eigenvalues and vectors of a covariance, directions of unit variance [d, kept], and the mask [d] of those kept.

    Left out are those whose variance is below the share `least` of the largest: constant up to rounding.
    """
    kept = values > least * values[-1:].clamp(min=1e-300)
    return vectors[:, kept] / values[kept].sqrt(), kept


def _rows(x: Tensor) -> Tensor:
    if x.ndim != 2 or len(x) < 2 or not x.is_floating_point():
        raise ValueError(
            f"x must be a floating-point tensor [n, d] with at least 2 rows, found {x.dtype} {list(x.shape)}; "
            "reshape it (x[:, None] for one column) and call .float()"
        )
    return x


def _mid_ranks(ordered: Tensor) -> Tensor:
    """Ranks 1 ... n along non-decreasing rows [d, n], tied values sharing their mean rank."""
    # what scipy.stats.rankdata does; importing that takes most of a second, and every estimate ranks
    step = ordered[:, 1:] > ordered[:, :-1]
    edge = torch.ones_like(step[:, :1])
    place = torch.arange(1, ordered.shape[1] + 1, device=ordered.device).expand_as(ordered)
    first = torch.where(torch.cat([edge, step], 1), place, 0).cummax(1).values
    last = torch.where(torch.cat([step, edge], 1), place, ordered.shape[1]).flip(1).cummin(1).values.flip(1)
    return (first + last).double() / 2


def _last_within(ordered: Tensor, within: Tensor) -> Tensor:
    """The value furthest along each row for which `within`, true from the start on, still holds."""
    return ordered.gather(1, within.sum(1, keepdim=True) - 1).squeeze(1)
