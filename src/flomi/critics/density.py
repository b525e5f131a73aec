"""Density models: critics whose g is log q(y|x), for the bounds that need a conditional density."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flomi.critics.base import Critic
from flomi.critics.networks import mlp


class ConditionalGaussian(Critic):
    r"""Density model for CLUB, L1Out, BA and DoE: g = log q(y|x), a mixture of Gaussians whose parameters depend on x.

    .. math:: q(y|x) = \sum_c w_c(x)\, N(L y;\, \mu_c(x), \operatorname{diag} e^{2 s_c(x)})\, |\det L|

    L is a learned triangular matrix that takes up correlation within y. One component is the usual conditional Gaussian;
    several, with the marginal of the same form, make DoE the estimator KNIFE. The marginal q(y) is that mixture with free
    parameters, or `log_marginal` (y [n, dim_y] -> log p(y) [n]) where p(y) is known, as BA needs it.

    >>> q = ConditionalGaussian(3, 2)
    >>> q(torch.zeros(5, 3), torch.zeros(5, 2)).shape, q.marginal(torch.zeros(5, 2)).shape
    (torch.Size([5]), torch.Size([5]))
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int,
        hidden: Sequence[int] = (64, 64),
        components: int = 1,
        log_marginal: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.dim_y, self.components, self.log_marginal = dim_y, components, log_marginal
        size = components * (2 * dim_y + 1)
        self.net = mlp([dim_x, *hidden, size])
        self.mix = nn.ParameterList([nn.Parameter(torch.zeros(dim_y, dim_y)) for _ in range(2)])
        self.free = nn.Parameter(torch.randn(size) * 0.5) if log_marginal is None else None
        self.widths = (size, dim_y + 1)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), self._mixed(y, 0)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.pairs(a, b), None

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        log_w, mu, s = self._mixture(a)
        z = (b[..., None, :-1] - mu) * torch.exp(-s)
        return self._log_density(log_w, z.square().sum(-1), s, b[..., -1])

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        log_w, mu, s = self._mixture(a)  # [n_a, c], [n_a, c, d], [n_a, c, d]
        precision, y = torch.exp(-2 * s), b[:, :-1]
        square = (
            torch.einsum("icd,jd->ijc", precision, y.square())
            - 2 * torch.einsum("icd,jd->ijc", precision * mu, y)
            + (precision * mu.square()).sum(-1)[:, None]
        )
        return self._log_density(log_w[:, None], square, s[:, None], b[None, :, -1])

    def marginal(self, y: Tensor) -> Tensor:
        """log q(y) [n], or the known log p(y)."""
        if self.log_marginal is not None:
            return self.log_marginal(y)
        assert self.free is not None
        return self.pairs(self.free.expand(len(y), -1), self._mixed(y, 1))

    def _mixed(self, y: Tensor, which: int) -> Tensor:
        raw = self.mix[which]
        factor = raw.tril(-1) + torch.diag(raw.diagonal().exp())
        return torch.cat([y @ factor.T, raw.diagonal().sum().expand(len(y), 1)], -1)

    def _mixture(self, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shaped = a.unflatten(-1, (self.components, 2 * self.dim_y + 1))
        return (
            torch.log_softmax(shaped[..., 0], -1),
            shaped[..., 1 : self.dim_y + 1],
            shaped[..., self.dim_y + 1 :],
        )

    def _log_density(self, log_w: Tensor, square: Tensor, s: Tensor, log_det: Tensor) -> Tensor:
        constant = self.dim_y * math.log(2 * math.pi) / 2
        return torch.logsumexp(log_w - square / 2 - s.sum(-1), -1) - constant + log_det
