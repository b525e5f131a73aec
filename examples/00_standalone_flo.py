"""FLO from scratch: mutual information (MI) of a 2-D Gaussian, with torch and nothing else.

For a critic g(x, y) and a second function u(x, y), y' a sample of p(y) that does not belong to x,

    I(X;Y)  >=  E[ 1 - u(x, y) - t(x, y) e^{-u(x, y)} ],      t(x, y) = E_{y'}[ e^{g(x, y') - g(x, y)} ].

It holds for every g and u, so we may simply maximise it. At the top g = PMI + c(x) and u = -PMI, the pointwise MI.
"""

import math

import torch
from torch import Tensor, nn

RHO = 0.8  # correlation of x and y; the truth is I = -1/2 log(1 - rho^2)
TRUTH = -0.5 * math.log(1 - RHO**2)


def sample(n: int) -> tuple[Tensor, Tensor]:
    x, e = torch.randn(2, n, 1)
    return x, RHO * x + math.sqrt(1 - RHO**2) * e


class Critic(nn.Module):
    """g and u as the two outputs of one network on (x, y)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        g, u = self.net(torch.cat([x, y], 1)).unbind(1)
        return g, u


def flo(critic: Critic, x: Tensor, y: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The bound of each row, [n], and its u. The m negatives are cyclic shifts of y: never a row's own y."""
    g, u = critic(x, y)
    shifts = (1 + torch.randperm(len(y) - 1)[:m]).tolist()
    g_neg = torch.stack([critic(x, y.roll(shift, 0))[0] for shift in shifts])
    log_t = g_neg.logsumexp(0) - math.log(m) - g
    return 1 - u - torch.exp(log_t - u), u


torch.manual_seed(0)
x, y = sample(10_000)
critic = Critic()
optimiser = torch.optim.Adam(critic.parameters(), lr=2e-3)
for _ in range(2000):
    rows = torch.randint(len(x), (256,))
    optimiser.zero_grad()
    (-flo(critic, x[rows], y[rows], m=4)[0].mean()).backward()
    optimiser.step()

with torch.no_grad():  # on rows that the critic has not seen
    bound, u = flo(critic, *sample(10_000), m=50)
print(
    f"FLO bound {bound.mean():.3f} +- {bound.std() / 100:.3f}, plug-in E[-u] {-u.mean():.3f}, truth {TRUTH:.3f} nats"
)
