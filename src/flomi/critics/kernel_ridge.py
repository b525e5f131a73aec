"""A critic from regression: one side is Gaussian around a smooth function of the other, found by kernel ridge regression.

Data of the form y = f(x) + noise are the most frequent kind; here f is found in closed form, from few rows, where a network
would need many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flomi.critics.base import SETTINGS as TRUNCATION
from flomi.critics.base import Critic
from flomi.critics.screen import choose_columns
from flomi.preprocess import RankNormal, Whiten, inverse_root
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class KernelRidgeSettings:
    least_rows: int = setting(10, f"{UNMEASURED}for a fit at all")
    centers: int = setting(300, f"{UNMEASURED}of the kernel; time grows with their square")
    rows: int = setting(5000, f"{UNMEASURED}that the fit looks at, for its time")
    trial_centers: int = setting(100, f"{UNMEASURED}to choose direction and width by")
    trial_rows: int = setting(1000, f"{UNMEASURED}to choose direction and width by")
    widths: tuple[float, ...] = setting(
        (0.25, 0.5, 1.0, 2.0), f"{UNMEASURED}of the kernel, in distances between two rows"
    )
    penalties: tuple[float, ...] = setting(
        (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0),
        f"{UNMEASURED}tried by leaving one row out",
    )
    linear: float = setting(0.3, f"{UNMEASURED}weight of the linear features beside those of the kernel")
    kernel_columns: int = setting(
        10, f"{UNMEASURED}beyond these a kernel sees only the directions that correlate with the other side"
    )
    floor: float = setting(
        1e-4, "of a residual variance, where t has variance 1: codes stay small enough for single precision"
    )
    components: int = setting(500, f"{UNMEASURED}rows whose predictions make up the mixture")


SETTINGS = KernelRidgeSettings()


class RegressionCritic(Critic):
    r"""Log ratio of a Gaussian around a regression to the marginal density; g = PMI, u = -g.

    .. math:: g(x, y) = \log N(t; f(s), S) - \log q(t) - c

    s and t are whitened normal scores of the two sides (dependent columns share their directions): t those of y and s those
    of x, or the other way round, whichever leaves less of t unexplained. f is linear plus a Gaussian kernel's part, its penalty
    chosen for every column of t by leaving one out; of more than ten columns the kernel sees the leading canonical directions.
    S is the covariance of the left-out residuals, drawn a little towards its diagonal, with a floor of 1e-4. The marginal q is
    N(0, Id), or the mixture of N(t; f(s_j), S) over training rows j where other rows are more likely under that. c >= 0 lowers g
    where its exponential averages more than 1 over pairs that do not match; then g is truncated at -log n and
    `truncation_level`. At most 5,000 rows are used.
    x: [n, dim_x], y: [n, dim_y], float64. Reference: Rasmussen and Williams 2006, sections 2.2 and 5.4 (kernel ridge
    regression is the mean of a Gaussian process; leaving one out in closed form).

    >>> x = torch.randn(1000, 2).double()
    >>> y = x.prod(1, keepdim=True) + 0.3 * torch.randn(1000, 1)  # no correlation
    >>> 0.7 < float(RegressionCritic.fit(x, y)(x, y).mean()) < 1.3
    True
    """

    row = "regression"
    submodules = (("ranks_x", RankNormal), ("ranks_y", RankNormal), ("whiten_x", Whiten), ("whiten_y", Whiten))  # fmt: skip
    side_terms = 1

    ranks_x: RankNormal
    ranks_y: RankNormal
    whiten_x: Whiten
    whiten_y: Whiten
    from_x: Tensor
    turn: Tensor
    centers: Tensor
    width: Tensor
    kernel_weight: Tensor
    linear_weight: Tensor
    offset: Tensor
    root: Tensor
    components: Tensor

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> RegressionCritic:
        return cls.with_predictions(x, y)[0]

    @classmethod
    def with_predictions(cls, x: Tensor, y: Tensor) -> tuple[RegressionCritic, Tensor, Tensor]:
        """`fit`, with the predictions of the rows that it looked at, each left out, and their t, [n, columns of t] both."""
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < SETTINGS.least_rows:
            found, least = f"{list(x.shape)} and {list(y.shape)}", SETTINGS.least_rows
            raise ValueError(f"x and y must be [n, d] with the same n, at least {least}, found {found}")
        some = _spread(len(x), SETTINGS.rows)
        x, y = x[some], y[some]
        ranks = RankNormal.fit(x), RankNormal.fit(y)
        scores = [rank(v).double() for rank, v in zip(ranks, (x, y), strict=True)]
        whiten = [Whiten.reduce(z) for z in scores]
        zx, zy = (w(z) for w, z in zip(whiten, scores, strict=True))

        some = _spread(len(x), SETTINGS.trial_rows)
        best = -math.inf
        columns = choose_columns(x, y)
        for from_x, s, t in ((True, zx, zy), (False, zy, zx)):
            own = 0 if from_x else 1
            for turn in _seen_by_kernel(s, t, columns[own], whiten[own].weight):
                for factor in SETTINGS.widths:
                    width = factor * math.sqrt(2 * turn.shape[1])
                    explained = _ridge(s[some], t[some], turn, width, SETTINGS.trial_centers)[0]
                    if explained > best:
                        best, chosen = explained, (from_x, turn, width)
        from_x, turn, width = chosen
        s, t = (zx, zy) if from_x else (zy, zx)
        _, left_out, buffers = _ridge(s, t, turn, width, SETTINGS.centers)
        critic = cls(
            ranks_x=ranks[0], ranks_y=ranks[1], whiten_x=whiten[0], whiten_y=whiten[1],
            from_x=torch.tensor(from_x), components=t[:0], **buffers,
        )  # fmt: skip
        mean = critic._mean(s)
        residual = (t - mean) @ critic.root
        critic.optimism = (t.shape[1] - float(residual.square().sum(1).mean())) / 2
        critic._choose_marginal(mean, t)
        a, b = critic._codes(mean, t)
        some = _spread(len(x), TRUNCATION.rows)
        g = critic.matrix(a[some], b[some])
        # at high MI the pairs that make the mean are too rare to be seen: g is never raised
        critic.truncate(g, critic.pairs(a, b), least_shift=0.0, low=-math.log(len(x)))
        return critic, left_out, t

    def _choose_marginal(self, mean: Tensor, t: Tensor) -> None:
        """The mixture as q where it makes rows that are not in it more likely than the normal law does; mean is f(s)."""
        inside = _spread(len(t), min(SETTINGS.components, len(t) // 2))
        outside = torch.ones(len(t), dtype=torch.bool)
        outside[inside] = False
        scored = t[outside]
        scored = scored[_spread(len(scored), len(inside))]
        normal = float(self._log_marginal(scored).mean())
        self.components = mean[inside] @ self.root
        if float(self._log_marginal(scored).mean()) <= normal:
            self.components = self.components[:0]

    def _mean(self, s: Tensor) -> Tensor:
        """f(s), [n, columns of t]."""
        kernel = _kernel(s @ self.turn, self.centers, self.width)
        return kernel @ self.kernel_weight + s @ self.linear_weight - self.offset

    def _log_marginal(self, t: Tensor) -> Tensor:
        """log q(t) [n], up to the constant that both densities share."""
        if len(self.components) == 0:
            return -0.5 * t.square().sum(-1)
        log_det = self.root.diagonal().log().sum()
        parts = t.split(1000)  # so that no table is larger than need be
        return log_det + torch.cat(
            [(-0.5 * _squared_distance(p @ self.root, self.components)).logsumexp(1) for p in parts]
        ).sub(math.log(len(self.components)))

    def prediction(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """f(s) and t, [n, columns of t] both."""
        zx = self.whiten_x(self.ranks_x(x).to(self.whiten_x.weight))
        zy = self.whiten_y(self.ranks_y(y).to(self.whiten_y.weight))
        s, t = (zx, zy) if self.from_x else (zy, zx)
        return self._mean(s), t

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._codes(*self.prediction(x, y))

    def _codes(self, mean: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The encodings from f(s) and t."""
        f, w = mean @ self.root, t @ self.root
        log_det = self.root.diagonal().log().sum()
        alone = log_det - 0.5 * w.square().sum(-1, keepdim=True) - self._log_marginal(t)[:, None]
        of_s, of_t = torch.cat([f, -0.5 * f.square().sum(-1, keepdim=True)], -1), torch.cat([w, alone], -1)
        return (of_s, of_t) if self.from_x else (of_t, of_s)


def _spread(n: int, count: int) -> Tensor:
    """At most `count` rows, evenly spaced, so that a file in some order is seen as a whole."""
    return torch.linspace(0, n - 1, min(n, count)).round().long()


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    return (a.square().sum(1)[:, None] - 2 * a @ b.T).add_(b.square().sum(1)).clamp_(min=0)


def _kernel(a: Tensor, b: Tensor, width: Tensor | float) -> Tensor:
    return _squared_distance(a, b).mul_(-0.5 / width**2).exp_()


def _seen_by_kernel(s: Tensor, t: Tensor, columns: list[int], weight: Tensor) -> list[Tensor]:
    """[columns of s, k] each, what the kernel may see: all columns, or of many the canonical directions beyond chance; and the
    `columns` that a screen found, of the scores that `weight` whitened."""
    n, p = s.shape
    found = []
    if p <= SETTINGS.kernel_columns:
        found.append(torch.eye(p).to(s))
    else:
        left, r, _ = torch.linalg.svd(s.T @ t / n, full_matrices=False)
        chance = (math.sqrt(p) + math.sqrt(t.shape[1])) / math.sqrt(n)  # the largest of independent sides
        found.append(left[:, : min(max(1, int((r > chance).sum())), SETTINGS.kernel_columns)])
    if 0 < len(columns) < p:
        found.append(torch.linalg.pinv(weight)[:, columns])
    return found


def _ridge(
    s: Tensor, t: Tensor, turn: Tensor, width: float, centers: int
) -> tuple[float, Tensor, dict[str, Tensor]]:
    """Ridge regression of t on s and on a kernel of it: the left-out value of -1/2 log det S, the left-out predictions of t, and
    the critic's buffers.

    With features F = U diag(d) V' and penalty v, the left-out residual is (t - U h U't)_i / (1 - sum_k U_ik^2 h_k),
    h = d^2 / (d^2 + v). Every column of t takes the v, infinity included, that leaves least.
    """
    # scikit-learn's Nystroem and RidgeCV, its errors by left-out row too, take two to four times as long, and 2 s to import
    n = len(s)
    at = (s @ turn)[_spread(n, min(centers, n // 2))]
    values, vectors = torch.linalg.eigh(_kernel(at, at, width))
    nystroem, _ = inverse_root(values, vectors, 1e-7)
    features = torch.cat([_kernel(s @ turn, at, width) @ nystroem, SETTINGS.linear * s], 1)
    center = features.mean(0)
    features -= center
    squares, v = torch.linalg.eigh(features.T @ features)
    keep = squares > 1e-9 * squares[-1]
    squares, v = squares[keep], v[:, keep]
    u = features @ (v / squares.sqrt())
    along, leverage = u.T @ t, u.square()
    left_out, least, weight = t.clone(), t.square().mean(0), torch.zeros_like(along)
    for penalty in SETTINGS.penalties:
        h = squares / (squares + penalty)
        residual = (t - u @ (h[:, None] * along)) / (1 - leverage @ h - 1 / n).clamp(min=0.01)[:, None]
        size = residual.square().mean(0)
        better = size < least
        least = torch.where(better, size, least)
        left_out[:, better] = residual[:, better]
        weight[:, better] = ((h / squares.sqrt())[:, None] * along)[:, better]
    covariance = left_out.T @ left_out / n
    covariance.diagonal().clamp_(min=SETTINGS.floor)
    q = t.shape[1]
    # towards a diagonal, by what so few rows leave open
    covariance = torch.lerp(covariance, covariance.diagonal().diag(), min(1.0, 2 * (q + 1) / n))
    weight = v @ weight
    m = nystroem.shape[1]
    buffers = {
        "turn": turn,
        "centers": at,
        "width": torch.tensor(width).to(s),
        "kernel_weight": nystroem @ weight[:m],
        "linear_weight": SETTINGS.linear * weight[m:],
        "offset": center @ weight,
        "root": torch.linalg.cholesky(torch.linalg.inv(covariance)),
    }
    return -0.5 * float(torch.logdet(covariance)), t - left_out, buffers
