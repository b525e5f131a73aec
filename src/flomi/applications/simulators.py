"""Three models of the literature on experimental design: a noisy line, pharmacokinetics, and an epidemic (E14).

    model = Epidemic.make(10_000, torch.Generator().manual_seed(0))      # paths are simulated once
    optimise_design(model.prior, model.simulate, torch.rand(5) * 100, low=0, high=100)

Each has `prior` and `simulate`, as `flomi.applications.design` takes them, and where there is one a likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Epidemic", "NoisyLinear", "Pharmacokinetic", "log_noise"]


def log_noise(w: Tensor, variance: float = 1.0) -> Tensor:
    r"""Log-density of N(0, variance) + Gamma(shape 2, rate 1/2), elementwise; the mean is 4.

    .. math:: p(w) = \frac14 e^{s^2/8 - w/2}\, s\,[z \Phi(z) + \varphi(z)], \qquad z = (w - s^2/2) / s

    >>> round(log_noise(torch.tensor(4.0)).exp().item(), 4)
    0.1342
    """
    s = math.sqrt(variance)
    z = (w - variance / 2) / s
    x = (-z).clamp_min(0)
    # Below 0 the bracket is phi(z) (1 - x R(x)), R Mills' ratio; beyond 30 the difference is lost, and its series is exact.
    mills = math.sqrt(math.pi / 2) * torch.special.erfcx(x.clamp_max(30) / math.sqrt(2))
    far = x.clamp_min(30) ** -2
    tail = torch.where(x < 30, 1 - x.clamp_max(30) * mills, far * (1 - far * (3 - far * (15 - 105 * far))))
    log_phi = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    above = torch.log(z.clamp_min(0) * torch.special.ndtr(z) + log_phi.exp())
    bracket = torch.where(z < 0, log_phi + tail.log(), above)
    return variance / 8 - w / 2 + bracket + math.log(s / 4)


@dataclass(frozen=True)
class NoisyLinear:
    """y_j = theta_0 + theta_1 d_j + eps_j + nu_j, eps ~ N(0, 1), nu ~ Gamma(2, rate 1/2), theta ~ N(0, 3^2 I), d in [-10, 10].

    Reference: Kleinegesse and Gutmann 2020, arXiv:2002.08129.
    """

    low, high = -10.0, 10.0

    def prior(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws of theta, [n, 2]."""
        return 3 * torch.randn(n, 2, generator=generator)

    def simulate(self, theta: Tensor, design: Tensor) -> Tensor:
        """Observations [n, T] at designs [T] or [n, T]."""
        mean = self._mean(theta, design)
        # A gamma of shape 2 is a sum of two exponentials.
        nu = -2 * torch.log(1 - torch.rand(2, *mean.shape, dtype=mean.dtype)).sum(0)
        return mean + torch.randn_like(mean) + nu

    def log_likelihood(self, y: Tensor, theta: Tensor, design: Tensor) -> Tensor:
        """log p(y | theta, design): y and design [..., T], theta [..., 2], together [...]."""
        return log_noise(y - self._mean(theta, design)).sum(-1)

    def _mean(self, theta: Tensor, design: Tensor) -> Tensor:
        return theta[..., :1] + theta[..., 1:] * design

    def information(self, d: float) -> float:
        """The truth for one measurement at d, nats, by quadrature: H(y) - H(y | theta), both of a normal plus a gamma.

        >>> round(NoisyLinear().information(10.0), 4)
        2.4158
        """
        signal = 9 * (1 + d**2)
        entropies = []
        for variance in (signal + 1, 1.0):
            w = torch.linspace(-12 * math.sqrt(variance), 100 + 12 * math.sqrt(variance), 200_001).double()
            log_p = log_noise(w, variance)
            entropies.append(-float(torch.trapezoid(log_p.exp() * log_p, w)))
        return entropies[0] - entropies[1]


@dataclass(frozen=True)
class Pharmacokinetic:
    """Concentration of a drug at times t in [0, 24] h after a dose of 400: theta = log(ka, ke, V) ~ N(log(1, 0.1, 20), 0.05 I).

    mean(t) = 400/V ka/(ka - ke) (e^{-ke t} - e^{-ka t}), y ~ N(mean, 0.01 mean^2 + 0.1). ka < ke is seven deviations away.
    Reference: Ryan et al. 2014; Kleinegesse and Gutmann 2021.
    """

    low, high = 0.0, 24.0

    def prior(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws of theta, [n, 3], logarithms."""
        return torch.tensor([1, 0.1, 20]).log() + math.sqrt(0.05) * torch.randn(n, 3, generator=generator)

    def simulate(self, theta: Tensor, design: Tensor) -> Tensor:
        """Observations [n, T] at times [T] or [n, T]."""
        mean, variance = self._moments(theta, design)
        return mean + variance.sqrt() * torch.randn_like(mean)

    def log_likelihood(self, y: Tensor, theta: Tensor, design: Tensor) -> Tensor:
        """log p(y | theta, design): y and design [..., T], theta [..., 3], together [...]."""
        mean, variance = self._moments(theta, design)
        return -0.5 * ((y - mean) ** 2 / variance + (2 * math.pi * variance).log()).sum(-1)

    def _moments(self, theta: Tensor, design: Tensor) -> tuple[Tensor, Tensor]:
        ka, ke, v = (rate[..., None] for rate in theta.exp().unbind(-1))
        mean = 400 / v * ka / (ka - ke) * (torch.exp(-ke * design) - torch.exp(-ka * design))
        return mean, 0.01 * mean**2 + 0.1


class _AtTimes(torch.autograd.Function):
    """Stored paths at the nearest grid points; the gradient in t is the central difference on the path.

    Central and not one-sided: E[f(I_t)] of a diffusion moves by f' drift + f'' variance / 2, and the second term is in
    f'(I_t) (I_{t+h} - I_{t-h}) / 2h through the increment before t, which I_t depends on.
    """

    @staticmethod
    def forward(ctx: Any, times: Tensor, paths: Tensor, rows: Tensor, step: float) -> Tensor:
        nearest = (times / step).round().long().clamp(0, paths.shape[1] - 1)
        ctx.save_for_backward(paths, rows, nearest)
        ctx.step = step
        return paths[rows[:, None], nearest]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        paths, rows, nearest = ctx.saved_tensors
        after, before = (nearest + 1).clamp_max(paths.shape[1] - 1), (nearest - 1).clamp_min(0)
        rise = paths[rows[:, None], after] - paths[rows[:, None], before]
        return grad * rise / ((after - before) * ctx.step), None, None, None


@dataclass(frozen=True)
class Epidemic:
    """SIR as an Ito diffusion, N = 500, two infected at first; log(beta, gamma) ~ N(log(0.5, 0.1), 0.25 I), t in [0, 100].

    drift of (S, I) = (-beta S I / N, beta S I / N - gamma I); noise sqrt(beta S I / N) (-1, 1) dW_1 + sqrt(gamma I) (0, -1) dW_2.
    Observed is I(t). Paths are made once, by `Epidemic.make`, and read at the nearest grid point, so that one path serves any
    design: a draw is (log beta, log gamma, number of its path), and `interest` its first two.
    Reference: Kleinegesse and Gutmann 2021, arXiv:2105.04379.

    >>> model = Epidemic.make(50, torch.Generator().manual_seed(0), grid=100)
    >>> model.simulate(model.prior(8, torch.Generator()), torch.tensor([10.0, 30.0])).shape
    torch.Size([8, 2])
    """

    theta: Tensor
    infected: Tensor
    low, high = 0.0, 100.0

    @staticmethod
    def make(n: int, generator: torch.Generator, grid: int = 1000) -> Epidemic:
        """n paths [n, grid + 1] by Euler and Maruyama, less those whose mean of I is below 1: the disease that died at once."""
        theta = torch.tensor([0.5, 0.1]).log() + 0.5 * torch.randn(n, 2, generator=generator)
        beta, gamma = theta.exp().unbind(1)
        population, dt = 500.0, 100 / grid
        s, i = torch.full((n,), 498.0), torch.full((n,), 2.0)
        path = [i]
        for _ in range(grid):
            noise = torch.randn(2, n, generator=generator) * math.sqrt(dt)
            caught, healed = beta * s * i / population, gamma * i
            new = caught * dt + caught.sqrt() * noise[0]
            gone = healed * dt + healed.sqrt() * noise[1]
            s, i = (s - new).clamp(0, population), (i + new - gone).clamp(0, population)
            path.append(i)
        infected = torch.stack(path, 1)
        kept = infected.mean(1) >= 1
        return Epidemic(theta[kept], infected[kept])

    def prior(self, n: int, generator: torch.Generator) -> Tensor:
        """n different paths with their parameters, [n, 3]. Raises ValueError if there are fewer."""
        if n > len(self.theta):
            raise ValueError(f"n={n} is more than the {len(self.theta)} paths there are: make more")
        rows = torch.randperm(len(self.theta), generator=generator)[:n]
        return torch.cat([self.theta[rows], rows[:, None]], 1)  # exact in float32 up to 16 million

    def simulate(self, draw: Tensor, times: Tensor) -> Tensor:
        """I(t) of each draw at times [T] or [n, T]: [n, T]."""
        step = self.high / (self.infected.shape[1] - 1)
        times = times.expand(len(draw), -1)
        return _AtTimes.apply(times, self.infected, draw[:, 2].long(), step)  # type: ignore[no-untyped-call, no-any-return]

    def split(self, n: int) -> tuple[Epidemic, Epidemic]:
        """The first n paths, and the others: to learn from and to judge by."""
        return Epidemic(self.theta[:n], self.infected[:n]), Epidemic(self.theta[n:], self.infected[n:])

    @staticmethod
    def interest(draw: Tensor) -> Tensor:
        """(log beta, log gamma), [n, 2]."""
        return draw[:, :2]
