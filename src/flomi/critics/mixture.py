"""A critic from a Gaussian mixture of (x, y), whose marginals are mixtures again, so that the log ratio is in closed form.

Clusters, regimes, and a scale that changes from row to row are dependence that no copula of one piece has.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flomi.bounds import log_mean_exp, off_diagonal
from flomi.critics.base import SETTINGS as TRUNCATION
from flomi.critics.base import Critic, rebuilt, under
from flomi.critics.screen import choose_columns
from flomi.preprocess import RankNormal, Standardize
from flomi.support.settings import UNMEASURED, setting

BLOCK = 2**17  # pairs of a matrix that are worked on at a time: they stay in the cache


@dataclass(frozen=True)
class MixtureSettings:
    least_rows: int = setting(50, f"{UNMEASURED}for a fit at all")
    components: tuple[int, ...] = setting((1, 2, 3, 4, 6, 8, 12, 16), f"{UNMEASURED}numbers that are tried")
    patience: int = setting(2, f"{UNMEASURED}numbers in a row that don't lower the criterion end the search")
    rows_per_parameter: float = setting(2.0, f"{UNMEASURED}at least, for more than one component")
    columns: int = setting(
        12, f"{UNMEASURED}of both sides, up to which all of them are tried beside the chosen"
    )
    trial_rows: int = setting(2000, f"{UNMEASURED}that choose columns, space and components, for their time")
    trial_pairs: int = setting(250, f"{UNMEASURED}rows whose pairs truncate what is tried, for their time")
    held_out: int = setting(3, f"{UNMEASURED}one of so many trial rows is left out, to compare what is tried")
    rows: int = setting(10_000, f"{UNMEASURED}that the fit looks at, for its time")
    floor: float = setting(1e-3, f"{UNMEASURED}added to every variance, where a column has about variance 1")
    farthest: float = setting(
        10.0,
        f"{UNMEASURED}standard deviations, where columns end: a mixture of heavy tails has components of single rows",
    )
    steps: int = setting(60, f"{UNMEASURED}of expectation and maximisation at most")
    atom: float = setting(
        0.05, f"{UNMEASURED}share of the rows at one value, above which a column has no density"
    )
    distinct: float = setting(
        0.5, f"{UNMEASURED}share of different values, below which a column has no density"
    )


SETTINGS = MixtureSettings()
Columns = tuple[list[int], list[int]]
Space = type[RankNormal] | type[Standardize]


class MixtureCritic(Critic):
    r"""Log ratio of a Gaussian mixture and its own marginals, g = PMI under the model, u = -g.

    .. math:: g(x, y) = \log \frac{q(s, t)}{q(s) \, q(t)} = \log \sum_k p(k | s) N(t; m_k(s), S_k) - \log q(t),
        \qquad q(s, t) = \sum_k w_k N(s, t; \mu_k, \Sigma_k)

    s and t are columns of x and of y: normal scores, or standardised by median and interquartile range (ranks spoil clusters,
    and without them heavy tails spoil the fit); either all columns, if they are few, or those that `choose_columns` finds.
    Rows left out choose between these and the number of components, which goes on growing on all rows while BIC falls;
    covariances are full, with a floor of 1e-3. Columns that repeat a value often have no density and are left out; where
    nothing is gained over independence on left-out rows, or no column is left, g = 0. g is lowered where its exponential averages
    more than 1 over pairs that do not match, and truncated at -log n and `truncation_level`. At most 10,000 rows are used.
    x: [n, dim_x], y: [n, dim_y], float64. Reference: McLachlan and Peel 2000, "Finite Mixture Models".

    >>> cluster = torch.randint(3, (1000, 1))
    >>> x, y = (4 * cluster + torch.randn(1000, 1).double() for _ in "xy")  # independent within a cluster
    >>> 0.75 < float(MixtureCritic.fit(x, y)(x, y).mean()) < 1.1
    True
    """

    row = "mixture"

    space_x: RankNormal | Standardize
    space_y: RankNormal | Standardize
    columns_x: Tensor  # [p], which columns of x the model sees
    columns_y: Tensor  # [q]
    log_weights: Tensor  # [K]
    means_x: Tensor  # [K, p]
    means_y: Tensor  # [K, q]
    white_x: Tensor  # [K, p, p], inverse roots of the covariances of s
    white_y: Tensor  # [K, q, q], of t
    white: Tensor  # [K, q, q], of t given s
    slopes: Tensor  # [K, p, q], of t on s

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> MixtureCritic:
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < SETTINGS.least_rows:
            found, least = f"{list(x.shape)} and {list(y.shape)}", SETTINGS.least_rows
            raise ValueError(f"x and y must be [n, d] with the same n, at least {least}, found {found}")
        x, y = (v[_spread(len(x), SETTINGS.rows)].double() for v in (x, y))
        some = _spread(len(x), SETTINGS.trial_rows)
        left_out = torch.arange(len(some)) % SETTINGS.held_out == 0
        seen, unseen = ((x[rows], y[rows]) for rows in (some[~left_out], some[left_out]))
        best, most = None, 0.0
        for space in (RankNormal, Standardize):
            for columns in _sets_of_columns(x[some], y[some]) if best is None else [best.columns]:
                worse, highest = 0, -math.inf
                for k in _numbers(len(seen[0]), columns):
                    trial = _Mixture.fit(*seen, columns, space, k)
                    value = _held_out(cls._of(trial, *seen, SETTINGS.trial_pairs), *unseen)
                    worse, highest = (0, value) if value > highest else (worse + 1, highest)
                    if value > most:
                        best, most = trial, value
                    if worse == SETTINGS.patience:
                        break
        if best is None:
            return cls._of(_Mixture.fit(x, y, ([], []), RankNormal, 1), x, y)
        critic = cls._of(best.refitted(x, y), x, y)
        # what x and y of some rows gain by being fitted to: with p parameters p/2n, and p/2m is lost on rows that m others score
        gained = float((critic(*unseen) - cls._of(best, *seen)(*unseen)).mean())
        critic.optimism = gained * 2 / (1 + len(x) / len(seen[0]))
        return critic

    @classmethod
    def _of(cls, found: _Mixture, x: Tensor, y: Tensor, truncated_by: int = TRUNCATION.rows) -> MixtureCritic:
        """The critic that has this law, truncated as the rows x, y of the fit say."""
        p = len(found.columns[0])
        cov, means = found.covariances, found.means
        slopes = torch.linalg.solve(cov[:, :p, :p], cov[:, :p, p:])
        rest = cov[:, p:, p:] - slopes.mT @ cov[:, :p, p:]
        critic = cls(
            space_x=found.spaces[0], space_y=found.spaces[1],
            columns_x=torch.tensor(found.columns[0], dtype=torch.long),
            columns_y=torch.tensor(found.columns[1], dtype=torch.long),
            log_weights=found.weights.log(), means_x=means[:, :p], means_y=means[:, p:],
            white_x=_inverse_root(cov[:, :p, :p]), white_y=_inverse_root(cov[:, p:, p:]), white=_inverse_root(rest),
            slopes=slopes,
        )  # fmt: skip
        a, b = critic.encode(x, y)
        some = _spread(len(x), truncated_by)
        positive = critic.pairs(a, b)
        g = critic.matrix(a[some], b[some]).clamp(max=float(positive.max()))
        critic.truncate(g, positive, least_shift=0.0, low=-math.log(len(x)))
        return critic

    @classmethod
    def restore(cls, state: dict[str, Tensor], sizes: dict[str, Any]) -> MixtureCritic:
        space = RankNormal if "space_x.knots" in state else Standardize
        spaces = {name: rebuilt(space, under(state, f"{name}.")) for name in ("space_x", "space_y")}
        return cls(**spaces, **{name: value for name, value in state.items() if "." not in name})

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        far = SETTINGS.farthest
        s = self.space_x(x[:, self.columns_x]).clamp(-far, far)
        t = self.space_y(y[:, self.columns_y]).clamp(-far, far)
        apart_s, apart_t = s[:, None] - self.means_x, t[:, None] - self.means_y  # [n, K, p], [n, K, q]
        of_s = self.log_weights + _log_normal(apart_s, self.white_x)
        of_t = (self.log_weights + _log_normal(apart_t, self.white_y)).logsumexp(1, keepdim=True)
        weight = of_s - of_s.logsumexp(1, keepdim=True) + _log_det(self.white)
        expected = _turned(torch.einsum("nkp,kpq->nkq", apart_s, self.slopes), self.white)
        return (
            torch.cat([weight, expected.flatten(1)], 1),
            torch.cat([of_t, _turned(apart_t, self.white).flatten(1)], 1),
        )

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        k = len(self.log_weights)
        distance = (a[..., k:] - b[..., 1:]).square().unflatten(-1, (k, self.slopes.shape[2])).sum(-1)
        return self._truncated((a[..., :k] - 0.5 * distance).logsumexp(-1) - b[..., 0])

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        k, (weight, marginal) = len(self.log_weights), (a[:, : len(self.log_weights)], b[:, 0])
        expected, t = (v.unflatten(1, (k, self.slopes.shape[2])) for v in (a[:, k:], b[:, 1:]))
        of_x, of_y = (
            weight - 0.5 * expected.square().sum(2),
            -0.5 * t.square().sum(2) - marginal[:, None],
        )
        g = torch.empty(len(a), len(b)).to(a)
        for rows in torch.arange(len(a)).split(max(1, BLOCK // len(b))):
            total = torch.zeros(()).to(a)
            for j in range(
                k
            ):  # without overflow below e^88; truncation is within, and denormal numbers are slow
                part = torch.addmm(of_y[:, j], expected[rows, j], t[:, j].T).add_(of_x[rows, j, None])
                total = part.clamp_(min=-60).exp_().add_(total)
            g[rows] = torch.log(total)
        return self._truncated(g)


@dataclass(frozen=True)
class _Mixture:
    """A mixture [K] of some columns of x and y, in a space that was fitted to the same rows."""

    columns: Columns
    space: Space
    spaces: tuple[RankNormal | Standardize, RankNormal | Standardize]
    weights: Tensor
    means: Tensor
    covariances: Tensor
    bic: float

    @classmethod
    def fit(
        cls, x: Tensor, y: Tensor, columns: Columns, space: Space, k: int, start: _Mixture | None = None
    ) -> _Mixture:
        """k components by maximum likelihood."""
        sides = [side[:, some] for side, some in zip((x, y), columns, strict=True)]
        spaces = space.fit(sides[0]), space.fit(sides[1])
        z = torch.cat([fitted(side) for fitted, side in zip(spaces, sides, strict=True)], 1)
        z = z.clamp(-SETTINGS.farthest, SETTINGS.farthest)
        if z.shape[1] == 0:  # of nothing
            return cls(columns, space, spaces, x.new_ones(1), x.new_zeros(1, 0), x.new_zeros(1, 0, 0), 0.0)
        return cls(columns, space, spaces, *_expectation_maximisation(z, k, start))

    def refitted(self, x: Tensor, y: Tensor) -> _Mixture:
        """To other rows, by which there may be more components: as long as these lower the criterion."""
        best = _Mixture.fit(x, y, self.columns, self.space, len(self.weights), self)
        for k in _numbers(len(x), self.columns):
            if k > len(self.weights):
                more = _Mixture.fit(x, y, self.columns, self.space, k)
                if more.bic >= best.bic:
                    break
                best = more
        return best


def _numbers(n: int, columns: Columns) -> list[int]:
    """Of components, that n rows can fit."""
    d = len(columns[0]) + len(columns[1])
    most = n / (d * (d + 3) / 2 * SETTINGS.rows_per_parameter)
    return [k for k in SETTINGS.components if k == 1 or k <= most]


def _expectation_maximisation(
    z: Tensor, k: int, start: _Mixture | None
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Weights, means, covariances and BIC of k components, from `start` if it has as many."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    rows = z.numpy()
    model = GaussianMixture(k, reg_covar=SETTINGS.floor, max_iter=SETTINGS.steps, random_state=0)
    if start is not None and len(start.weights) == k:
        precisions = torch.linalg.inv(start.covariances)
        model.set_params(
            weights_init=start.weights.numpy(), means_init=start.means.numpy(), precisions_init=precisions.numpy()
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(rows)
    weights, means, covariances = (
        torch.as_tensor(v) for v in (model.weights_, model.means_, model.covariances_)
    )
    return weights, means, covariances, float(model.bic(rows))


def _sets_of_columns(x: Tensor, y: Tensor) -> list[Columns]:
    """Columns that may go into a mixture: those that the screen finds, and all of them where they are few."""
    dense = [[j for j, column in enumerate(side.T) if _has_density(column)] for side in (x, y)]
    found = choose_columns(x, y)
    chosen = [[j for j in some if j in known] for some, known in zip(found, dense, strict=True)]
    sets: list[Columns] = [(chosen[0], chosen[1])]
    if len(dense[0]) + len(dense[1]) <= SETTINGS.columns and [sorted(v) for v in chosen] != dense:
        sets.append((dense[0], dense[1]))
    return [some for some in sets if some[0] and some[1]]


def _has_density(column: Tensor) -> bool:
    counts = column.unique(return_counts=True)[1]
    few = counts.max() > max(1, SETTINGS.atom * len(column))
    return not few and len(counts) > SETTINGS.distinct * len(column)


def _held_out(critic: MixtureCritic, x: Tensor, y: Tensor) -> float:
    """The Donsker-Varadhan value."""
    g = critic.matrix(*critic.encode(x, y))
    return float(g.diagonal().mean() - log_mean_exp(off_diagonal(g).flatten()))


def _inverse_root(covariances: Tensor) -> Tensor:
    """[K, d, d] lower triangular W with W S W' = Id."""
    root = torch.linalg.cholesky(covariances)
    inverse: Tensor = torch.linalg.solve_triangular(root, torch.eye(root.shape[-1]).to(root), upper=False)
    return inverse


def _turned(apart: Tensor, white: Tensor) -> Tensor:
    """[n, K, d] distances from the means in units of each component."""
    turned: Tensor = torch.einsum("nkq,krq->nkr", apart, white)
    return turned


def _log_det(white: Tensor) -> Tensor:
    log_det: Tensor = white.diagonal(dim1=1, dim2=2).log().sum(1)
    return log_det


def _log_normal(apart: Tensor, white: Tensor) -> Tensor:
    """[n, K] log density, up to the constant that cancels from the ratio."""
    log_density: Tensor = _log_det(white) - 0.5 * _turned(apart, white).square().sum(2)
    return log_density


def _spread(n: int, count: int) -> Tensor:
    """At most `count` rows, evenly spaced, so that a file in some order is seen as a whole."""
    return torch.linspace(0, n - 1, min(n, count)).round().long()
