r"""Independent components: the rotation of white data whose coordinates tell least about each other, by FLO.

.. math:: x = A s, \qquad \hat s = Q V (x - \bar x), \quad \min_Q \; TC(\hat s), \qquad
          TC(s) = \sum_k H(s_k) - H(s)

V makes x white, Q is orthogonal, TC is the total correlation, 0 for independent coordinates. Its gradient is that of
:math:`\sum_k I(s_k; s_{-k})` in which all but s_k are held fixed, since H(s_{-k}) does not move: one `MIPenalty` a coordinate.

    >>> s = torch.rand(2000, 2)  # two uniform signals, and a mixture of them
    >>> mixing = torch.tensor([[1.0, 0.6], [0.4, 1.0]])
    >>> x = s @ mixing.T
    >>> w = unmix(x, steps=20)  # a thousand by default; then amari(w @ mixing) is about 0
    >>> (x @ w.T).T.cov().diagonal().allclose(torch.ones(2), atol=1e-3)
    True
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from flomi.bounds import Bound
from flomi.critics.nearest_neighbours import ksg
from flomi.losses import MIPenalty
from flomi.training.loop import cosine

__all__ = ["amari", "total_correlation", "unmix", "whitening"]


def whitening(x: Tensor) -> Tensor:
    """The symmetric matrix V [k, k], of x's type, for which V x has unit covariance; x [n, k].

    Raises ValueError where a column depends linearly on the others.
    """
    values, vectors = torch.linalg.eigh(x.T.cov())
    if not float(values[0]) > 1e-6 * float(values[-1]):
        raise ValueError("a column of x is constant, or a linear combination of the others: leave it out")
    root: Tensor = (vectors / values.sqrt()) @ vectors.T
    return root


def unmix(
    x: Tensor,
    *,
    bound: str | Bound = "flo",
    steps: int = 1000,
    batch: int = 256,
    lr: float = 1e-2,
    critic_steps: int = 3,
    seed: int = 0,
) -> Tensor:
    """The unmixing matrix W [k, k], so that x W^T [n, k] are the components, of unit variance, in any order and sign.

    x: [n, k] with independent rows or not (rows are drawn at random), k >= 2. Adam on Q, which starts at the identity, the rate
    falling along a cosine; every step trains the critics too. The last Q counts. The same seed gives the same matrix. Raises
    ValueError for fewer rows than a batch, a single column, or columns that depend on each other linearly.
    """
    n, k = x.shape
    if k < 2 or not 2 <= batch <= n:
        raise ValueError(f"x has shape {(n, k)}: give at least 2 columns, and at least batch={batch} rows")
    torch.manual_seed(seed)
    v = whitening(x)
    white = (x - x.mean(0)) @ v.T
    rotation = orthogonal(nn.Linear(k, k, bias=False))
    rotation.weight = torch.eye(k)
    penalties = [
        MIPenalty(1, k - 1, bound=bound, hidden=(32, 32), critic_steps=critic_steps, check_every=0)
        for _ in range(k)
    ]
    optimiser = torch.optim.Adam(rotation.parameters(), lr=lr)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * cosine(step, steps)
        s = rotation(white[torch.randint(n, (batch,))])
        dependence = [
            penalty(s[:, i], torch.cat([s[:, :i], s[:, i + 1 :]], 1)) for i, penalty in enumerate(penalties)
        ]
        optimiser.zero_grad(set_to_none=True)
        torch.stack(dependence).sum().backward()
        optimiser.step()
    with torch.no_grad():
        found: Tensor = rotation.weight @ v
    return found


def amari(p: Tensor) -> float:
    r"""Amari distance of p = W A [k, k] from a scaled permutation: 0 where each component is one source, at most 1.

    .. math:: \frac{1}{2k(k-1)} \left[\sum_i \left(\sum_j \frac{|p_{ij}|}{\max_l |p_{il}|} - 1\right)
              + \sum_j \left(\sum_i \frac{|p_{ij}|}{\max_l |p_{lj}|} - 1\right)\right]

    Reference: Amari, Cichocki and Yang 1996.

    >>> amari(torch.tensor([[0.0, -2.0], [3.0, 0.0]])), amari(torch.ones(3, 3))
    (0.0, 1.0)
    """
    p, k = p.abs().double(), len(p)
    over = [(p / p.amax(dim, keepdim=True)).sum() - k for dim in (0, 1)]
    return float(sum(over)) / (2 * k * (k - 1))


def total_correlation(s: Tensor, k: int = 5) -> float:
    """TC of the columns of s [n, d] in nats by neighbours, a referee that has no part in the training: sum I(s_i; s_{i+1..d}).

    KSG's estimate of each term from its k nearest neighbours; it can be a little below 0.
    """
    terms = [ksg(s[:, i : i + 1], s[:, i + 1 :], k).mean() for i in range(s.shape[1] - 1)]
    return float(sum(terms))
