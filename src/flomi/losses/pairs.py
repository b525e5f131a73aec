"""Scores of feature pairs for a loss: whole or in blocks of rows, on one process or over all ranks, with or without labels.

`ProductNegatives` is what a bound asks of negatives (`flomi.bounds.Negatives`) where the score is an inner product, g = a b^T.
It goes beyond `flomi.scores` in three ways: the rows of one rank stand against the columns of all ranks, rows of equal labels
are no negatives of each other, and the row log-sum-exp is computed in place, in blocks twice, as flash attention does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from flomi.scores import near_diagonal


def world_size() -> int:
    """Number of processes in the default group; 1 where there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.stack(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)  # gloo has no reduce-scatter
        return total[dist.get_rank()]


def gather(rows: Tensor) -> Tensor:
    """`rows` of every rank, stacked along a new first axis; the gradient of a rank's rows is the sum over all ranks' losses.

    DDP divides gradients by the number of ranks afterwards, and what is left is the gradient of the mean of all ranks' losses:
    that of one process on the global batch.
    """
    return _Gather.apply(rows)  # type: ignore[no-untyped-call, no-any-return]


class _RowLSE(torch.autograd.Function):
    """[n] log-sum-exp over the negatives of each row: three matrix products, four where blocks are computed again."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, pairs: ProductNegatives, drop: int) -> Tensor:
        lse, weights = a.new_empty(len(a)), None
        for start, stop in pairs.blocks():
            g = pairs.hide(a[start:stop] @ b.T, start, drop)
            top = g.amax(1)
            total = g.sub_(top[:, None]).exp_().sum(1)
            lse[start:stop] = total.log().add_(top)
            if pairs.chunk is None:  # all in memory anyway: keep the softmax for the gradient
                weights = g.div_(total[:, None])
        ctx.save_for_backward(a, b, lse, weights)
        ctx.pairs, ctx.drop = pairs, drop
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        a, b, lse, weights = ctx.saved_tensors
        with torch.autocast(a.device.type, enabled=False):
            if weights is not None:
                g = weights * grad[:, None]
                return g @ b, g.T @ a, None, None
            grad_a, grad_b = torch.empty_like(a), torch.zeros_like(b)
            for start, stop in ctx.pairs.blocks():
                g = ctx.pairs.hide(a[start:stop] @ b.T, start, ctx.drop)
                g.sub_(lse[start:stop, None]).exp_().mul_(grad[start:stop, None])
                torch.mm(g, b, out=grad_a[start:stop])
                grad_b.addmm_(g.T, a[start:stop])
        return grad_a, grad_b, None, None


@dataclass(frozen=True)
class ProductNegatives:
    """Scores g = a b^T of n rows with N columns, of which each row's negatives are all but its own and those of its label.

    a: [n, d] anchors, divided by the temperature; b: [N, d] candidates. `positive` is the column of row 0's positive, those of
    the other rows following it (None: every column is a negative). `labels`: those of the rows [n] and of the columns [N].
    `chunk`: rows whose scores are in memory at a time (None: all). `ranks`: processes whose rows make up one batch.
    """

    a: Tensor
    b: Tensor
    positive: int | None
    labels: tuple[Tensor, Tensor] | None = None
    chunk: int | None = None
    ranks: int = 1

    @cached_property
    def count(self) -> int | Tensor:
        if self.labels is None:
            return len(self.b) - (self.positive is not None)
        rows, columns = self.labels
        kinds, size = columns.unique(return_counts=True)
        m: Tensor = len(self.b) - size[torch.searchsorted(kinds, rows)]
        return m.to(self.a.dtype)

    def lme(self, over: Literal["y", "x"] = "y", drop: int = 0) -> Tensor:
        if over == "x":
            raise ValueError("losses take their negatives along y; swap query and key for those along x")
        if drop and self.labels is not None:
            raise ValueError("this bound needs equally many negatives for every row: leave out labels=")
        m = self.count
        return self._lse(drop) - (m.log() if isinstance(m, Tensor) else math.log(m - drop))

    def lme_all(self) -> Tensor:
        total = torch.logsumexp(self._lse(0), 0)
        if self.ranks > 1:  # one normaliser for the rows of all ranks
            total = torch.logsumexp(gather(total), 0) - math.log(self.ranks)
        return total - self._size.log()

    def mean(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        mean = torch.stack([self._sum(f, *block) for block in self.blocks()]).sum() / self._size
        return gather(mean).mean() if self.ranks > 1 else mean

    @cached_property
    def _size(self) -> Tensor:
        """Number of negatives of all rows together, the mean over the ranks: they weigh by it."""
        m = self.count
        if not isinstance(m, Tensor):
            return self.a.new_tensor(len(self.a) * m)
        return gather(m.sum()).mean() if self.ranks > 1 else m.sum()

    @cached_property
    def _kept(self) -> dict[int, Tensor]:
        return {}

    def _lse(self, drop: int) -> Tensor:
        """[n] log-sum-exp over the negatives, computed once: objective and read-out share it."""
        if drop not in self._kept:
            # A copy, for the graph must not hold what holds the graph: memory would wait for the garbage collector.
            self._kept[drop] = _RowLSE.apply(self.a, self.b, replace(self), drop)  # type: ignore[no-untyped-call]
        return self._kept[drop]

    def _sum(self, f: Callable[[Tensor], Tensor], start: int, stop: int) -> Tensor:
        mask = self.mask(start, stop)

        def total(g: Tensor) -> Tensor:
            # Hidden before f, so that none of them overflows, and after it, so that none counts.
            return f(g).sum() if mask is None else f(g.masked_fill(mask, 0)).masked_fill(mask, 0).sum()

        if self.chunk is None or not torch.is_grad_enabled():
            return total(self.a[start:stop] @ self.b.T)
        return checkpoint(lambda a, b: total(a @ b.T), self.a[start:stop], self.b, use_reentrant=False)  # type: ignore[no-any-return]

    def blocks(self) -> Iterator[tuple[int, int]]:
        """First row and end of each block that is in memory at a time."""
        n = len(self.a)
        step = self.chunk or n
        return ((start, min(start + step, n)) for start in range(0, n, step))

    def mask(self, start: int, stop: int, drop: int = 0) -> Tensor | None:
        """[stop - start, N] what is no negative of rows start to stop, and the `drop` columns after it; None where all are."""
        if self.labels is not None:
            rows, columns = self.labels
            return rows[start:stop, None] == columns
        n = len(self.b)
        if self.positive is not None:
            return near_diagonal(n, drop, self.a.device, self.positive + start, self.positive + stop)
        if not drop:
            return None
        mask = self.a.new_zeros(stop - start, n, dtype=torch.bool)
        mask[:, :drop] = True
        return mask

    def hide(self, g: Tensor, start: int, drop: int = 0) -> Tensor:
        """`g`, rows from `start` on, with -inf in place, in the memory of g, of what is no negative."""
        if self.labels is None and self.positive is not None and not drop:  # the same without a mask
            g.diagonal(self.positive + start).fill_(-math.inf)
            return g
        mask = self.mask(start, start + len(g), drop)
        return g if mask is None else g.masked_fill_(mask, -math.inf)

    def positives(self) -> tuple[Tensor, Tensor]:
        """Rows and columns of all pairs of equal labels."""
        found = []
        for start, stop in self.blocks():
            mask = self.mask(start, stop)
            if mask is not None:
                found.append(mask.nonzero() + mask.new_tensor([start, 0], dtype=torch.long))
        index = torch.cat(found)
        return index[:, 0], index[:, 1]

    def probe(self, rows: int) -> Tensor:
        """[rows, N] the scores of the first few rows, -inf for what is no negative; without gradient."""
        return self.hide(self.a[:rows].detach() @ self.b.detach().T, 0)


@dataclass(frozen=True)
class Expanded:
    """The negatives of rows `rows` of another set of negatives: one entry for every positive of an anchor that has several."""

    of: ProductNegatives
    rows: Tensor

    @property
    def ranks(self) -> int:
        return self.of.ranks

    @property
    def count(self) -> int | Tensor:
        m = self.of.count
        return m[self.rows] if isinstance(m, Tensor) else m

    def lme(self, over: Literal["y", "x"] = "y", drop: int = 0) -> Tensor:
        return self.of.lme(over, drop)[self.rows]

    def lme_all(self) -> Tensor:
        return self.of.lme_all()

    def mean(self, f: Callable[[Tensor], Tensor]) -> Tensor:
        return self.of.mean(f)

    def probe(self, rows: int) -> Tensor:
        return self.of.probe(rows)
