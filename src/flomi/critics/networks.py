"""Networks that a bound trains, most with a dual u(x, y) of their own, and a user's own module as a critic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from itertools import chain, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from flomi.critics.all_pairs import all_pairs
from flomi.critics.base import Critic, PairScorer


def mlp(sizes: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Multilayer perceptron, Xavier-uniform weights and zero biases; `sizes` from input to output.

    >>> mlp([3, 8, 1])(torch.zeros(5, 3)).shape
    torch.Size([5, 1])
    """
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        layers += [activation()] if i else []
        layers.append(_linear(fan_in, fan_out))
    return nn.Sequential(*layers)


def _linear(fan_in: int, fan_out: int, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def dtype_of(module: nn.Module) -> torch.dtype:
    """Of the first floating-point parameter or buffer; float32 where there is none."""
    tensors = chain(module.parameters(), module.buffers())
    return next((v.dtype for v in tensors if v.is_floating_point()), torch.float32)


class Baseline(nn.Module):
    """a(x), a small network of x alone: [n, dim_x] -> [n]."""

    def __init__(self, dim_x: int, hidden: Sequence[int] = (64,)) -> None:
        super().__init__()
        self.net = mlp([dim_x, *hidden, 1])
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]  # starts at a = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1)).squeeze(-1)  # type: ignore[no-any-return]


class JointCritic(Critic):
    r"""Perceptron on concat(x, y) with two heads g and u on a shared trunk; the paper's default.

    .. math:: (g, u)(x, y) = \mathrm{MLP}(W_x x + W_y y + b)

    The first layer is kept as an x part and a y part: on all pairs each runs once per row, and they add by broadcasting.
    `heads=1` leaves out u. x: [n, dim_x], y: [n, dim_y]. Reference: Guo et al. 2022, section 4.

    >>> critic = JointCritic(3, 2, hidden=(16, 16))
    >>> critic(torch.zeros(5, 3), torch.zeros(5, 2)).shape
    torch.Size([5])
    """

    def __init__(self, dim_x: int, dim_y: int, hidden: Sequence[int] = (512, 512), heads: int = 2) -> None:
        super().__init__()
        width = hidden[0] if hidden else heads
        first = _linear(dim_x + dim_y, width)  # initialised as one layer on the concatenation
        self.first_x, self.first_y = _linear(dim_x, width), _linear(dim_y, width, bias=False)
        self.first_x.weight.data.copy_(first.weight[:, :dim_x])
        self.first_y.weight.data.copy_(first.weight[:, dim_x:])
        self.trunk = nn.Sequential(*[m for i, o in pairwise(hidden) for m in (nn.ReLU(), _linear(i, o))])
        self.heads = nn.Sequential(nn.ReLU(), _linear(hidden[-1], heads)) if hidden else nn.Identity()
        self.widths = (width, width)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.first_x(x), self.first_y(y)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        out = self.heads(self.trunk(a + b))
        return out[..., 0], out[..., 1] if out.shape[-1] > 1 else None

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return self.heads(self.trunk(a + b))[..., 0]  # type: ignore[no-any-return]

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        wanted = a.device.type == "cpu" and torch.is_grad_enabled() and len(a) and len(b)
        layers = self._layers() if wanted else []
        if not layers:
            return self.pairs(a[:, None], b[None])
        weight, bias = layers.pop()
        return all_pairs(a, b, [*layers, (weight[:1], bias[:1])])  # g alone: u is for positives

    def _layers(self) -> list[tuple[Tensor, Tensor]]:
        """(W, c) of trunk and heads; none where a layer was changed or has a hook, or the function is traced or transformed."""
        if not isinstance(self.heads, nn.Sequential):
            return []
        parts = [*self.trunk, *self.heads]
        layers: list[tuple[Tensor, Tensor]] = [
            (m.weight, m.bias) for m in parts if type(m) is nn.Linear and m.bias is not None
        ]
        hooked = any(
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks
            for m in (self.trunk, self.heads, *parts)
        )
        transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
        as_made = [type(m) for m in parts] == [nn.ReLU, nn.Linear] * len(layers)
        return (
            layers
            if as_made and not hooked and not torch.compiler.is_compiling() and not transformed()
            else []
        )


class QuadraticCritic(Critic):
    r"""Quadratic forms, the exact shape of the PMI of Gaussian data, started at random and learned like any weight.

    .. math:: g(x, y) = x^\top A y + y^\top B y + x^\top C x + c, \quad u(x, y) \text{ the same with weights of its own.}

    >>> QuadraticCritic(3, 2)(torch.ones(5, 3), torch.ones(5, 2)).shape
    torch.Size([5])
    """

    side_terms = 1

    def __init__(self, dim_x: int, dim_y: int) -> None:
        super().__init__()
        self.cross = nn.Parameter(torch.randn(2, dim_x, dim_y) * 0.02 / math.sqrt(dim_y))
        self.in_x = nn.Parameter(torch.randn(2, dim_x, dim_x) * 0.02 / math.sqrt(dim_x))
        self.in_y = nn.Parameter(torch.randn(2, dim_y, dim_y) * 0.02 / math.sqrt(dim_y))
        self.constant = nn.Parameter(torch.zeros(2))
        self.widths = (2 * dim_y + 2, 2 * dim_y + 2)  # of g, then of u

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        of_x = (torch.matmul(x, self.in_x) * x).sum(-1).T + self.constant
        of_y = (torch.matmul(y, self.in_y) * y).sum(-1).T
        heads = range(2)
        a = [v for k in heads for v in (x @ self.cross[k], of_x[:, [k]])]
        b = [v for k in heads for v in (y, of_y[:, [k]])]
        return torch.cat(a, -1), torch.cat(b, -1)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        (ga, ua), (gb, ub) = a.chunk(2, -1), b.chunk(2, -1)
        return super().pairs(ga, gb), super().pairs(ua, ub)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return super().pairs(a.chunk(2, -1)[0], b.chunk(2, -1)[0])

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return super().matrix(a.chunk(2, -1)[0], b.chunk(2, -1)[0])


class SumCritic(Critic):
    """g = sum of the parts' g, u = sum of the parts' u: a network on top of a simpler critic."""

    inner = 0

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        widths: list[tuple[int, int]] = [part.widths for part in parts]  # type: ignore[misc]
        self.splits = [a for a, _ in widths], [b for _, b in widths]
        self.widths = (sum(self.splits[0]), sum(self.splits[1]))

    def addends(self) -> Sequence[PairScorer]:
        return self.parts  # type: ignore[return-value]

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        codes = [part.encode(x, y) for part in self.addends()]
        return torch.cat([a for a, _ in codes], -1), torch.cat([b for _, b in codes], -1)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        scores = [part.positives(u, v) for part, u, v in self.split(a, b)]
        us = [u for _, u in scores if u is not None]
        return reduce(torch.add, [g for g, _ in scores]), reduce(torch.add, us) if us else None


class SeparateCritic(Critic):
    """g and u as two perceptrons on concat(x, y) that share nothing (the paper's 2-D experiments)."""

    def __init__(self, dim_x: int, dim_y: int, hidden: Sequence[int] = (512, 512)) -> None:
        super().__init__()
        self.g = JointCritic(dim_x, dim_y, hidden, heads=1)
        self.u = JointCritic(dim_x, dim_y, hidden, heads=1)
        self.widths = (2 * self.g.widths[0], 2 * self.g.widths[1])  # of g, then of u

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        (ga, gb), (ua, ub) = self.g.encode(x, y), self.u.encode(x, y)
        return torch.cat([ga, ua], -1), torch.cat([gb, ub], -1)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        (ga, ua), (gb, ub) = a.chunk(2, -1), b.chunk(2, -1)
        return self.g.pairs(ga, gb), self.u.pairs(ua, ub)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return self.g.pairs(a.chunk(2, -1)[0], b.chunk(2, -1)[0])

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return self.g.matrix(a.chunk(2, -1)[0], b.chunk(2, -1)[0])


class SeparableCritic(Critic):
    r"""Two encoders and an inner product; all pairs cost one matrix product.

    .. math:: g(x, y) = \langle h(x), k(y) \rangle \quad\text{or, with unit norms,}\quad e^{-\log\tau} \langle h, k \rangle

    u is a small perceptron on the features of the positives only. `unit_norm=True` is the bilinear critic FLO-BiL, with a
    learned log temperature that starts at 0. x: [n, dim_x], y: [n, dim_y]. Reference: Guo et al. 2022, section 4.

    >>> SeparableCritic(3, 2, unit_norm=True)(torch.ones(5, 3), torch.ones(5, 2)).shape
    torch.Size([5])
    """

    def __init__(
        self,
        dim_x: int,
        dim_y: int,
        hidden: Sequence[int] = (256, 256),
        features: int = 64,
        *,
        unit_norm: bool = False,
    ) -> None:
        super().__init__()
        self.h, self.k = mlp([dim_x, *hidden, features]), mlp([dim_y, *hidden, features])
        self.u = mlp([2 * features, 128, 1])
        self.log_tau = nn.Parameter(torch.zeros(())) if unit_norm else None
        self.widths = (features, features)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.h(x), self.k(y)
        if self.log_tau is None:
            return a, b
        return normalize(a, dim=-1), normalize(b, dim=-1)

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.pairs(a, b), self.u(torch.cat([a, b], -1)).squeeze(-1)

    def combine(self, inner: Tensor, of_x: Tensor, of_y: Tensor) -> Tensor:
        return inner if self.log_tau is None else inner * torch.exp(-self.log_tau)


class PlainCritic(Critic):
    """Any module whose forward(x, y) returns g [n] for aligned rows, with a dual fitted beside it.

    If the module has a method `u(x, y)` that is the dual; otherwise u = c(x, y) - g with a small perceptron c.
    `shape_x`, `shape_y` are the shapes of one row. On all pairs every pair is one row of a forward pass, so the module must
    not normalise batches of pairs: matching pairs are scored in a call of their own. Where the module has `marginal(y)`, it is a
    density model: g is log q(y|x), `marginal` gives log q(y), and there is no dual.
    """

    def __init__(
        self, module: nn.Module, shape_x: Sequence[int], shape_y: Sequence[int], hidden: Sequence[int] = (64,)
    ) -> None:
        super().__init__()
        self.module = module
        self.shape_x, self.shape_y = tuple(shape_x), tuple(shape_y)
        size = math.prod(self.shape_x) + math.prod(self.shape_y)
        self.c: nn.Module | None = None
        if hasattr(module, "marginal"):
            self.marginal = module.marginal
        elif not hasattr(module, "u"):
            self.c = mlp([size, *hidden, 1]).to(dtype_of(module))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        g = self.module(x, y)
        if not isinstance(g, Tensor) or g.shape != (len(x),):
            found = tuple(g.shape) if isinstance(g, Tensor) else type(g).__name__
            raise ValueError(
                f"critic(x, y) must return one score a row, a tensor of shape ({len(x)},); found {found}"
            )
        return g

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, y

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        g = self(a, b)
        if hasattr(self, "marginal"):
            return g, None
        if self.c is None:
            return g, self.module.u(a, b)  # type: ignore[operator]
        return g, self.c(torch.cat([a.flatten(1), b.flatten(1)], -1)).squeeze(-1) - g

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        lead = torch.broadcast_shapes(
            a.shape[: a.ndim - len(self.shape_x)], b.shape[: b.ndim - len(self.shape_y)]
        )
        rows_a = a.expand(*lead, *self.shape_x).reshape(-1, *self.shape_x)
        rows_b = b.expand(*lead, *self.shape_y).reshape(-1, *self.shape_y)
        return self.forward(rows_a, rows_b).view(lead)

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return self.pairs(a[:, None], b[None])

    @property
    def has_baseline(self) -> bool:
        return hasattr(self.module, "baseline")

    def baseline(self, x: Tensor) -> Tensor:
        """The module's own a(x)."""
        return self.module.baseline(x)  # type: ignore[operator, no-any-return]
