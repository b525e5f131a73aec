"""Problems with known answers: Gaussian pairs with exact critics, and discrete tables p(x, y) with full enumeration.

On a table every expectation is a finite sum, so nothing here has sampling error. `Discrete.population` makes the scores of
all cells (x, y) with the true normalisers, as if every row had infinitely many negatives; `Discrete.enumerated` makes those of
all tuples (x, y, y'_1 .. y'_m). Both come with `weights`, the probability of each row: a bound's expected value is
`expect(scores, bound.value)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flomi.bounds import BOUNDS, Bound, Scores
from flomi.critics import ConditionalGaussian
from flomi.scores import score

MANY = 2**45  # negatives a row where the expectation is exact: K/(K - 1) is 1 to 1e-13


# --- Gaussian pairs ---------------------------------------------------------------------------------------------------


class ExactCritic(nn.Module):
    """g = PMI + c(x) and u = -PMI of Gaussian pairs: y_i = rho x_i + noise, all unit variance."""

    def __init__(
        self, rho: float, drift: Callable[[Tensor], Tensor] | None = None, shift: float = 0.0
    ) -> None:
        super().__init__()
        self.rho, self.drift, self.shift = rho, drift, shift

    def pmi(self, x: Tensor, y: Tensor) -> Tensor:
        r2 = self.rho**2
        each = self.rho * x * y / (1 - r2) - r2 * (x**2 + y**2) / (2 * (1 - r2)) - 0.5 * math.log1p(-r2)
        return each.sum(-1)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return self.pmi(a, b) + self.shift + (self.drift(a) if self.drift else 0.0)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return self.pairs(a, b), -self.pmi(a, b)

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return self.pairs(a[:, None], b[None])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.pairs(x, y)


@dataclass(frozen=True)
class Gaussian:
    """d independent pairs of correlation rho; I = -d/2 log(1 - rho^2)."""

    rho: float
    d: int

    @property
    def mi(self) -> float:
        return -self.d / 2 * math.log1p(-(self.rho**2))

    @property
    def jeffreys(self) -> float:
        """KL(p(x,y) || p(x)p(y)) + KL(p(x)p(y) || p(x,y))."""
        return self.d * self.rho**2 / (1 - self.rho**2)

    def sample(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        x, noise = torch.randn(
            2, n, self.d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        return x, self.rho * x + math.sqrt(1 - self.rho**2) * noise

    def critic(self, drift: Callable[[Tensor], Tensor] | None = None, shift: float = 0.0) -> ExactCritic:
        return ExactCritic(self.rho, drift, shift)

    def conditional(self) -> ConditionalGaussian:
        """The library's density model with the exact p(y|x) = N(rho x, 1 - rho^2) and the known p(y) = N(0, 1)."""

        def log_p(y: Tensor) -> Tensor:
            return (-y.square() / 2 - math.log(2 * math.pi) / 2).sum(-1)

        q = ConditionalGaussian(self.d, self.d, hidden=(), components=1, log_marginal=log_p).double()
        with torch.no_grad():
            weight = torch.zeros(1 + 2 * self.d, self.d, dtype=torch.float64)
            bias = torch.zeros(1 + 2 * self.d, dtype=torch.float64)
            weight[1 : self.d + 1] = self.rho * torch.eye(
                self.d, dtype=torch.float64
            )  # rows: log weight, means, log scales
            bias[self.d + 1 :] = math.log1p(-(self.rho**2)) / 2
            q.net[0].weight.copy_(weight)
            q.net[0].bias.copy_(bias)
        return q

    def scores(
        self, n: int, negatives: str = "shifts", m: int = 1, seed: int = 0, critic: nn.Module | None = None
    ) -> Scores:
        """Scores of n fresh rows under the exact critic, with the exact baseline log Z(x) = 0, or under `critic`."""
        x, y = self.sample(n, seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            return score(
                critic or self.critic(),
                x,
                y,
                negatives,
                m=m,
                baseline=lambda x: x.new_zeros(len(x)),
                generator=generator,
            )


# --- Discrete tables --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weighted:
    """`Negatives` with probabilities: scores [rows, m] of (x, y'_k) and of (x'_k, y), each row of weight `weights`.

    Where `log_weights_*` is given the m scores of a row have these log probabilities instead of 1/m each, and `count` is as
    good as infinite.
    """

    over_y: Tensor
    over_x: Tensor
    weights: Tensor
    log_y: Tensor | None = None
    log_x: Tensor | None = None

    @property
    def count(self) -> int:
        return MANY if self.log_y is not None else self.over_y.shape[1]

    def lme(self, over: str = "y", drop: int = 0) -> Tensor:
        g, log_p = (self.over_y, self.log_y) if over == "y" else (self.over_x, self.log_x)
        if log_p is not None:
            return torch.logsumexp(g + log_p, 1)
        return torch.logsumexp(g[:, drop:], 1) - math.log(self.count - drop)

    def lme_all(self) -> Tensor:
        return torch.logsumexp(self.lme() + self.weights.log(), 0)

    def mean(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        inner = (
            (f(self.over_y) * self.log_y.exp()).sum(1) if self.log_y is not None else f(self.over_y).mean(1)
        )
        return (self.weights * inner).sum()

    def probe(self, rows: int) -> Tensor:
        return self.over_y[:rows]


def expect(s: Scores, value: Callable[[Scores], Tensor]) -> Tensor:
    """The expected value of a bound over the rows of a table."""
    assert isinstance(s.neg, Weighted)
    return (s.neg.weights * value(s)).sum()


@dataclass(frozen=True)
class Discrete:
    """A joint probability table p [nx, ny], all entries positive."""

    p: Tensor

    @classmethod
    def random(cls, nx: int = 3, ny: int = 4, seed: int = 0, strength: float = 1.0) -> Discrete:
        logits = strength * torch.randn(
            nx, ny, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        return cls(torch.softmax(logits.reshape(-1), 0).view(nx, ny))

    @property
    def px(self) -> Tensor:
        return self.p.sum(1)

    @property
    def py(self) -> Tensor:
        return self.p.sum(0)

    @property
    def pmi(self) -> Tensor:
        return self.p.log() - self.px.log()[:, None] - self.py.log()

    @property
    def mi(self) -> float:
        return float((self.p * self.pmi).sum())

    @property
    def jeffreys(self) -> float:
        return float(((self.p - self.px[:, None] * self.py) * self.pmi).sum())

    @property
    def log_conditional(self) -> Tensor:
        """log p(y|x)."""
        return self.p.log() - self.px.log()[:, None]

    @property
    def log_half(self) -> Tensor:
        """[nx] log of sum_y sqrt(p(y|x) p(y)); the Renyi divergence of order 1/2 is -2 times this."""
        return torch.logsumexp((self.log_conditional + self.py.log()) / 2, 1)

    @property
    def renyi_half(self) -> float:
        return float(-2 * (self.px * self.log_half).sum())

    def population(
        self, g: Tensor, u: Tensor | None = None, a: Tensor | None = None, marginal: Tensor | None = None
    ) -> Scores:
        """Scores of all cells for tables g, u [nx, ny], a [nx] and marginal [ny], with exact normalisers."""
        nx, ny = self.p.shape
        i, j = (v.reshape(-1) for v in torch.meshgrid(torch.arange(nx), torch.arange(ny), indexing="ij"))
        neg = Weighted(g[i], g.T[j], self.p.reshape(-1), self.py.log(), self.px.log())
        return self._at(i, j, neg, g, u, a, marginal)

    def enumerated(
        self, g: Tensor, m: int, u: Tensor | None = None, a: Tensor | None = None, marginal: Tensor | None = None,
        over: str = "y",
    ) -> Scores:  # fmt: skip
        """Scores of all tuples (x, y, y'_1 .. y'_m), or (x, y, x'_1 .. x'_m) where `over` is "x"."""
        nx, ny = self.p.shape
        sizes = [nx, ny] + m * [ny if over == "y" else nx]
        i, j, *others = (v.reshape(-1) for v in torch.meshgrid(*map(torch.arange, sizes), indexing="ij"))
        weights, p_other = self.p[i, j], self.py if over == "y" else self.px
        for other in others:
            weights = weights * p_other[other]
        k = torch.stack(others, 1)
        same = g[i[:, None], k] if over == "y" else g[k, j[:, None]]
        return self._at(i, j, Weighted(same, same, weights), g, u, a, marginal)

    @staticmethod
    def _at(
        i: Tensor,
        j: Tensor,
        neg: Weighted,
        g: Tensor,
        u: Tensor | None,
        a: Tensor | None,
        marginal: Tensor | None,
    ) -> Scores:
        own_u, own_a = None if u is None else u[i, j], None if a is None else a[i]
        return Scores(g[i, j], neg, own_u, own_a, None if marginal is None else marginal[j])

    def optimum(self, bound: Bound) -> dict[str, Tensor]:
        """The tables g, u, a, marginal at which `bound` is optimal, as its row of `BOUNDS` states it."""
        if "density" in bound.needs:
            return {"g": self.log_conditional, "marginal": self.py.log()}
        if bound.name == "flo-ux":
            return {"g": self.pmi / 2, "a": 2 * self.log_half}
        return {"g": self.pmi, "u": -self.pmi, "a": torch.zeros_like(self.px)}

    def best(self, bound: Bound) -> float:
        """The value of `bound` at its optimum, with infinitely many negatives."""
        if bound.name == "smile-1":
            clipped = (self.px[:, None] * self.py * self.pmi.clamp(-1, 1).exp()).sum()
            return self.mi - float(clipped.log())
        return {"flo-ux": self.renyi_half, "club": self.jeffreys}.get(bound.name, self.mi)


def with_side(*sides: str) -> list[Bound]:
    return [row for row in BOUNDS.values() if row.side in sides]
