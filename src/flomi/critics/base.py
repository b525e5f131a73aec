"""The one shape of a critic: an inner product of encodings, terms of each side alone, other critics' scores, then truncation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from flomi.bounds import off_diagonal
from flomi.support.settings import UNMEASURED, setting

M = TypeVar("M", bound=nn.Module)
T = TypeVar("T")


@dataclass(frozen=True)
class TruncationSettings:
    rows: int = setting(1000, f"{UNMEASURED}rows whose pairs fix the level: a million pairs")
    largest: int = setting(
        2**14,
        f"{UNMEASURED}scores among which the level is looked for, the highest 1.6 % of a million: sorting all of them is slow",
    )
    mean: float = setting(
        1.25,
        f"{UNMEASURED}mean of e^g over pairs that don't match, 1 for a PMI, up to which scores stay as they are. That there is a "
        "level gains little on average: mean error over 40 tasks 0.0218 with and without, certificate 0.5968 for 0.5960 "
        "(benchmarks/ablation.py, 'no cap', 2026-11-25); it is for single outliers",
    )
    support: int = setting(
        10,
        "rows k that must reach a level beyond log(n / k), which is as much as they can show by themselves: fewer may be a rare "
        "class, or outliers, fitted row by row. Of 24 samples of 300 to 2,000 rows with a class of 1 in 300 beside six columns, "
        "0.01 nats, the worst estimate was -0.01 +- 0.02, and -0.44 +- 0.62 without (2026-11-30)",
    )
    rounds: int = setting(
        20, f"{UNMEASURED}of finding normaliser and level, each of which depends on the other"
    )
    settled: float = setting(1e-3, "nats: an error of the normaliser that matters nowhere")


SETTINGS = TruncationSettings()


@dataclass(frozen=True, eq=False)
class Formula:
    """MI in nats by a formula from all rows of a fit, in words its `method`: the plug-in value less its small-sample `bias`.

    `influence` [n], float64, holds one value a row with mean `mi`, whose spread is the sampling error to first order (it is empty
    where the rows are not in memory); `second_order` is what sampling leaves of order 1/n, `model` what the model does:
    stderr^2 = var(influence) / n + second_order^2 + model^2.
    """

    mi: float
    stderr: float
    bias: float
    method: str
    influence: Tensor
    second_order: float
    model: float = 0.0

    @classmethod
    def of_rows(
        cls,
        mi: float,
        bias: float,
        method: str,
        by_row: Tensor,
        *,
        sampling: float,
        second_order: float,
        model: float,
    ) -> Formula:
        """From values by row, whose mean does not matter and whose spread is scaled to the error `sampling`, and other errors."""
        deviations = by_row.double() - by_row.double().mean()
        spread = float(deviations.var()) / len(by_row)
        influence = deviations * (sampling / math.sqrt(spread) if spread > 0 else 0.0) + mi
        return cls(
            mi, math.hypot(sampling, second_order, model), bias, method, influence, second_order, model
        )


class PairScorer(Protocol):
    """What a critic must offer, a user's own too: encoders that run once a row, and scores made of their encodings."""

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Encodings (a, b) of the rows of x and of y, every encoder run once."""
        ...

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        """(g, u) of aligned encodings, [n] each; u is None where there is no dual."""
        ...

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """g of encodings that broadcast over leading dimensions."""
        ...

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        """G [n_x, n_y] of all pairs, rows x, columns y."""
        ...


class Critic(nn.Module):
    r"""Scores g of pairs on the log scale, and a dual u = -g unless a class has another.

    .. math:: g = \operatorname{clamp}_l^h ( f(\langle a, b \rangle, \alpha, \beta) + \sum_k g_k(a_k, b_k) - c )

    An encoding holds, in this order, a side's part of the inner product, its `side_terms` numbers alpha or beta, and what
    the `addends` g_k want. f is `combine`, by default the sum. c, l and h are the buffers `shift`, `low` and `high`, if there
    are any. A class gives `encode`; networks whose scores have another shape give `pairs` and `matrix` too. The
    constructor takes submodules and buffers by name, so that `restore` can call it.
    """

    inner: int | None = None  # width of the inner product; None: all that the side terms leave
    side_terms: int = 0
    splits: tuple[list[int], list[int]] | None = None  # widths of the addends' encodings; None: one takes all
    submodules: ClassVar[tuple[tuple[str, type[nn.Module]], ...]] = ()  # that `restore` builds
    row: str = ""  # of CRITICS, whose `restore` rebuilds it

    formula: Formula  # set by the `fit` of those that have one
    optimism: float = 0.0  # by how much g reads higher on the rows of the fit than on rows left out, nats
    left_out: float | None = (
        None  # Donsker-Varadhan value of rows of the fit, each left out of what scores it
    )

    def __init__(self, **parts: Tensor | nn.Module) -> None:
        super().__init__()
        self.sizes: dict[str, Any] = {}  # what `restore` needs beside the tensors, as JSON knows it
        for name, part in parts.items():
            if isinstance(part, Tensor):
                self.register_buffer(name, part)
            else:
                self.add_module(name, part)

    @classmethod
    def restore(cls, state: dict[str, Tensor], sizes: dict[str, Any]) -> Critic:
        """The critic that has this state_dict and these sizes."""
        return rebuilt(cls, state)

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def addends(self) -> Sequence[PairScorer]:
        return ()

    def combine(self, inner: Tensor, of_x: Tensor, of_y: Tensor) -> Tensor:
        """f of the inner products and of side terms [..., side_terms] that broadcast to them, in memory that no one else has."""
        return (inner + of_x[..., 0]).add_(of_y[..., 0]) if self.side_terms else inner

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.pairs(*self.encode(x, y))

    def positives(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor | None]:
        g = self.pairs(a, b)
        return g, -g

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        (ia, sa, ra), (ib, sb, rb) = self._parts(a), self._parts(b)
        terms = [part.pairs(u, v) for part, u, v in self.split(ra, rb)]
        if self.inner != 0 or not terms:
            terms.append(self.combine((ia * ib).sum(-1), sa, sb))
        return self._truncated(reduce(torch.add, terms))

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        (ia, sa, ra), (ib, sb, rb) = self._parts(a), self._parts(b)
        terms = [part.matrix(u, v) for part, u, v in self.split(ra, rb)]
        if self.inner != 0 or not terms:
            terms.append(self.combine(ia @ ib.T, sa[:, None], sb[None]))
        return self._truncated(reduce(torch.add, terms))

    def truncate(
        self,
        g: Tensor,
        positive: Tensor,
        *,
        least_shift: float | None = None,
        low: float | None = None,
    ) -> None:
        """From now on scores end at `low` and at the truncation level.

        With `least_shift` they are lowered before, by that at least, so that e^g has mean 1 over pairs that do not match. The
        level is that of g [m, m], scores of some rows' pairs, and `positive` [n], those of all training pairs.
        """
        if least_shift is not None:
            shift = log_mean_off(g).clamp(min=least_shift)
            for _ in range(SETTINGS.rounds):  # a few pairs that will be cut off must not lower all others
                level = shift + truncation_level(g - shift, positive - shift)
                before, shift = shift, log_mean_off(g.clamp(max=level)).clamp(min=least_shift)
                if before - shift < SETTINGS.settled:
                    break
            self.register_buffer("shift", shift)
            g, positive = g - shift, positive - shift
        if low is not None:
            self.register_buffer("low", torch.tensor(low, dtype=positive.dtype))
        self.register_buffer("high", truncation_level(g, positive))

    def _parts(self, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is for the inner product, for the side terms and for the addends."""
        k = code.shape[-1] - self.side_terms if self.inner is None else self.inner
        end = k + self.side_terms
        return code[..., :k], code[..., k:end], code[..., end:]

    def split(self, a: Tensor, b: Tensor) -> Iterator[tuple[PairScorer, Tensor, Tensor]]:
        """The addends with their encodings."""
        parts = self.addends()
        if self.splits is None:
            return zip(parts, (a,), (b,), strict=False)
        return zip(parts, a.split(self.splits[0], -1), b.split(self.splits[1], -1), strict=True)

    def _truncated(self, g: Tensor) -> Tensor:
        shift, low, high = (self._buffers.get(name) for name in ("shift", "low", "high"))
        g = g if shift is None else g.sub_(shift)
        return g if high is None else g.clamp_(low, high)


def log_mean_off(g: Tensor) -> Tensor:
    """log mean of e^G over the off-diagonal of [..., n, n]; pairs at -inf, which are of one group, do not count."""
    off = off_diagonal(g)
    pairs = torch.tensor(off.shape[-2] * off.shape[-1])
    count = (off > -math.inf).sum((-2, -1)) if off.amin() == -math.inf else pairs
    return off.logsumexp((-2, -1)) - count.log()


def truncation_level(g: Tensor, positive: Tensor) -> Tensor:
    """The score of a training pair that is highest, of `positive` [n], or less where g [m, m] says that this is too high.

    Of k = `SETTINGS.support` pairs or fewer it counts up to log(n / k).
    For a PMI the mean of e^g over pairs that do not match is 1. A few pairs of outliers that carry it far beyond are errors
    of the model, and held-out rows would bring more of them: the level is lowered until the mean is at most `SETTINGS.mean`.
    """
    n, k = len(positive), min(SETTINGS.support, len(positive))
    highest = torch.maximum(positive.topk(k).values[-1], positive.max().clamp(max=math.log(n / k)))
    off = off_diagonal(g).flatten().double()
    count = min(len(off), SETTINGS.largest)
    some = off[::16]  # whose largest say what to sort: topk of all of them is slow
    likely = off[off >= some.topk(min(len(some), count // 8)).values[-1]]
    largest = (likely if len(likely) >= count else off).topk(count).values
    e = torch.exp(largest)
    rest = torch.exp(off.clamp(max=float(largest[-1]))).sum() - e[-1] * len(e)
    # with the level at the k-th largest, the first k are that high, those below as they are
    truncated = e * torch.arange(1, len(e) + 1).to(e) + e.flip(0).cumsum(0).flip(0) - e
    too_high = int(((rest + truncated) / len(off) > SETTINGS.mean).sum())
    if too_high == 0:
        return highest
    return torch.minimum(highest, largest[min(too_high, len(e) - 1)].to(positive))


def rebuilt(kind: Callable[..., M], state: dict[str, Tensor]) -> M:
    """A module whose constructor takes its `submodules` and its buffers by name, from its state_dict."""
    parts = {name: rebuilt(part, under(state, f"{name}.")) for name, part in getattr(kind, "submodules", ())}
    return kind(**parts, **{name: value for name, value in state.items() if "." not in name})


def under(tensors: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
