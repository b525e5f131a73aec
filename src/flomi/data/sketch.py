"""Quantiles of more rows than memory holds, in one pass: what normal scores of ranks need."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from flomi.data.settings import SETTINGS
from flomi.preprocess import RankNormal

Floats = NDArray[np.float64]


class QuantileSketch:
    r"""The values of d columns, thinned as they come, so that ranks stay right to about 1 / size of the rows.

    `size` sorted values of weight 1 are a block. Two blocks of equal weight become one of twice the weight: merged, with every
    second value kept, from the first or from the second at random. So blocks are carried like the digits of a binary number,
    and log2(n / size) of them remain. A merge into weight 2w shifts a rank by 0 or w to either side with mean 0, and there
    are n / (2 w size) of them; over all weights the variance of a rank is at most n^2 / (4 size^2). Below twice
    `size` rows nothing is thinned. The least and the largest value are kept as they are.

    Memory O(d size log(n / size)), time O(n d log size). References: Manku, Rajagopalan, Lindsay 1998, "Approximate medians
    and other quantiles in one pass and with limited memory"; Karnin, Lang, Liberty 2016, "Optimal quantile approximation in
    streams".

    >>> sketch = QuantileSketch(1, size=64)
    >>> for part in np.random.default_rng(0).permutation(100_000.0 * np.linspace(0, 1, 50_001)).reshape(-1, 3, 1):
    ...     sketch.add(part)
    >>> ranks = sketch.normal_scores()
    >>> abs(float(ranks(torch.tensor([[50_000.0]], dtype=torch.float64)))) < 0.1
    True
    """

    def __init__(self, dim: int, size: int | None = None, seed: int = 0) -> None:
        if size is None:
            most = min(SETTINGS.sketch_size, SETTINGS.sketch_numbers // max(1, dim))
            size = max(SETTINGS.sketch_least, most)
        if dim < 1 or size < 2:
            raise ValueError(
                f"a sketch needs at least one column and two values; found dim={dim}, size={size}"
            )
        self.dim, self.size, self.rows = dim, size, 0
        self.rng = np.random.default_rng(seed)
        self.open, self.used = np.empty((dim, size)), 0
        self.blocks: list[Floats | None] = []  # [d, size] of weight 2^h at place h
        self.low, self.high = np.full(dim, np.inf), np.full(dim, -np.inf)

    def add(self, x: Floats) -> None:
        """More rows [n, d], all finite."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"rows must have shape [n, {self.dim}], found {list(x.shape)}")
        if len(x):
            self.rows += len(x)
            self.low, self.high = np.minimum(self.low, x.min(0)), np.maximum(self.high, x.max(0))
        while len(x):
            some = x[: self.size - self.used]
            self.open[:, self.used : self.used + len(some)] = some.T
            self.used, x = self.used + len(some), x[len(some) :]
            if self.used == self.size:
                self._carry(np.sort(self.open, axis=1))
                self.used = 0

    def _carry(self, block: Floats) -> None:
        for h, other in enumerate(self.blocks):
            if other is None:
                self.blocks[h] = block
                return
            self.blocks[h] = None
            both = np.sort(np.concatenate([other, block], axis=1), axis=1)
            block = np.ascontiguousarray(both[:, int(self.rng.integers(2)) :: 2])
        self.blocks.append(block)

    def _weighted(self) -> tuple[Floats, Floats]:
        """The values that are left, sorted, and how many rows each stands for: [d, N] both."""
        parts, weights = [self.open[:, : self.used]], [np.ones(self.used)]
        for h, block in enumerate(self.blocks):
            if block is not None:
                parts.append(block)
                weights.append(np.full(self.size, 2.0**h))
        if len(self.blocks) > 1:  # the ends may have been thinned out
            parts.append(np.stack([self.low, self.high], axis=1))
            weights.append(np.ones(2))
        values = np.concatenate(parts, axis=1)
        order = values.argsort(axis=1, kind="stable")
        return np.take_along_axis(values, order, axis=1), np.concatenate(weights)[order]

    def normal_scores(self, knots: int = 2048) -> RankNormal:
        """The map that `RankNormal.fit` would find on all rows, with about so many knots, evenly spaced in score."""
        if self.rows < 2:
            raise ValueError(f"ranks need at least 2 rows, found {self.rows}")
        values, weight = self._weighted()
        above = weight.cumsum(axis=1)
        total = above[0, -1]
        step = values[:, 1:] > values[:, :-1]
        edge = np.ones((self.dim, 1), dtype=bool)
        first = np.where(np.concatenate([edge, step], axis=1), above - weight, 0.0)
        last = np.where(np.concatenate([step, edge], axis=1), above, total)
        # ties share the middle of the ranks that they take together
        start = np.maximum.accumulate(first, axis=1)
        stop = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
        scores = torch.special.ndtri(torch.from_numpy((start + stop) / (2 * total)))
        ordered = torch.from_numpy(values)
        if values.shape[1] > knots:
            end = float(-torch.special.ndtri(torch.tensor(0.5 / total, dtype=torch.float64)))
            wanted = torch.special.ndtr(end * torch.linspace(-1, 1, knots, dtype=torch.float64)) * total
            keep = torch.searchsorted(torch.from_numpy(above), wanted.expand(self.dim, -1).contiguous())
            keep = keep.clamp(max=values.shape[1] - 1)
            ordered, scores = ordered.gather(1, keep), scores.gather(1, keep)
        distinct = torch.from_numpy(step.sum(axis=1) + 1)
        return RankNormal.of_knots(ordered.contiguous(), scores, distinct)
