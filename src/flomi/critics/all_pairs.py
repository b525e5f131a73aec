"""Scores of a perceptron on all pairs of two sets of codes, with a gradient, a block of pairs at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

BLOCK = 2**18  # numbers of the widest layer in a block: with its gradient, about what a core's cache holds


def all_pairs(a: Tensor, b: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    r"""Matrix G [n, m] of a perceptron on the sum of codes.

    .. math:: G_{ij} = W_L \operatorname{relu}(\dots \operatorname{relu}(W_1 \operatorname{relu}(a_i + b_j) + c_1) \dots) + c_L

    a: [n, w], b: [m, w]; `layers` holds (W, c) from the first to the last, whose output is one number. The same as layer by layer
    on all n m pairs, but every pass over a layer stays in the cache, and what is narrow lies with the pairs along the long side.

    >>> a, b, w = torch.ones(3, 2), torch.ones(4, 2), torch.ones(1, 2)
    >>> all_pairs(a, b, [(w, torch.zeros(1))]).shape
    torch.Size([3, 4])
    """
    kind = layers[-1][0].dtype
    with torch.autocast(a.device.type, enabled=False):
        return _AllPairs.apply(a.to(kind), b.to(kind), *(t for layer in layers for t in layer))  # type: ignore[no-untyped-call, no-any-return]


class _AllPairs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, *layers: Tensor) -> Tensor:
        g, kept = a.new_empty(len(a), len(b)), list[Tensor]()
        ctx.rows = list(_blocks(a, b, layers))
        for rows, h in _first(a, b, ctx.rows):
            for w, c in zip(layers[:-2:2], layers[1:-2:2], strict=True):
                h = torch.addmm(c[:, None], w, h).relu_()
                kept.append(h)  # the products are not made again for the gradient
            g[rows] = torch.addmm(layers[-1][:, None], layers[-2], h).view(-1, len(b))
        ctx.save_for_backward(a, b, *layers, *kept)
        ctx.depth = len(layers) // 2
        return g

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b, *rest = ctx.saved_tensors
        depth = ctx.depth
        if torch.is_grad_enabled():  # create_graph: this gradient will be differentiated itself
            given = (a, b, *rest[: 2 * depth])
            wanted = [v for v, needed in zip(given, ctx.needs_input_grad, strict=True) if needed]
            found = iter(torch.autograd.grad(_at_once(*given), wanted, grad, create_graph=True))
            return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
        weights, kept = rest[: 2 * depth : 2], rest[2 * depth :]
        of_w = [torch.zeros_like(w) for w in weights]
        of_c = [torch.zeros_like(c) for c in rest[1 : 2 * depth : 2]]
        of_a, of_b = torch.empty_like(a), b.new_zeros(b.shape[::-1])
        with torch.autocast(a.device.type, enabled=False):
            pairs_a_block = len(a[ctx.rows[0]]) * len(b)
            memory = [a.new_empty(w.shape[1] * pairs_a_block) for w in weights]  # of every block in turn
            for k, (rows, first) in enumerate(_first(a, b, ctx.rows)):
                inputs = [first, *kept[k * (depth - 1) : (k + 1) * (depth - 1)]]
                d = grad[rows].reshape(1, -1)
                for layer in reversed(range(depth)):
                    h = inputs[layer]
                    of_w[layer].addmm_(d, h.T)
                    of_c[layer] += d.sum(1)
                    d = torch.mm(weights[layer].T, d, out=_part(memory[layer], *h.shape))
                    torch.ops.aten.threshold_backward.grad_input(d, h, 0, grad_input=d)
                pairs = d.view(len(d), -1, len(b))
                of_a[rows] = pairs.sum(2).T
                of_b += pairs.sum(1)
        grads = (t for layer in zip(of_w, of_c, strict=True) for t in layer)
        return of_a, of_b.T, *grads


def _at_once(a: Tensor, b: Tensor, *layers: Tensor) -> Tensor:
    h = a[:, None] + b
    for w, c in zip(layers[::2], layers[1::2], strict=True):
        h = nn.functional.linear(h.relu(), w, c)
    return h[..., 0]


def _blocks(a: Tensor, b: Tensor, layers: Sequence[Tensor]) -> Iterator[slice]:
    step = max(1, BLOCK // max(1, len(b) * max(w.shape[1] for w in layers[::2])))
    return (slice(start, start + step) for start in range(0, len(a), step))


def _first(a: Tensor, b: Tensor, blocks: Sequence[slice]) -> Iterator[tuple[slice, Tensor]]:
    """Each block's rows, and relu(a_i + b_j) [w, pairs] of them, in memory that the next block takes over."""
    at, bt = a.T.contiguous(), b.T.contiguous()
    memory = a.new_empty(len(at) * len(a[blocks[0]]) * len(b))
    for rows in blocks:
        h = at[:, rows, None]
        out = _part(memory, len(at), h.shape[1], len(b))
        yield rows, torch.add(h, bt[:, None], out=out).relu_().view(len(at), -1)


def _part(memory: Tensor, *shape: int) -> Tensor:
    """The start of `memory`, in this shape."""
    return memory[: math.prod(shape)].view(shape)
