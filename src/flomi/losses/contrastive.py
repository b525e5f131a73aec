"""Losses for a training loop of one's own: `loss(query, key)` is a value to minimise, made from a bound of `flomi.bounds`.

Row i of `key` is the positive of row i of `query`; its negatives are the other keys of the batch (of all processes, under
torch.distributed), or those that are given. The score is g = <query, key> / temperature, of unit-norm features unless
`normalize=False`. What the loss of a bound is stands in bounds.py alone: minus its objective, mean over the rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from flomi.bounds import Bound, Negatives, Scores
from flomi.critics import Baseline, dtype_of
from flomi.losses.pairs import Expanded, ProductNegatives, gather, world_size
from flomi.scores import Table

PROBE = 64  # rows of a batch that the effective sample size is measured on
PATIENCE = 100  # training calls after which parameters that have not moved are worth a warning


class ContrastiveLoss(nn.Module):
    r"""Loss of the bound in the class attribute `bound`, which each loss below sets, and a subclass of yours can set too.

    .. math:: \text{loss} = -\frac1n \sum_i \text{objective}_i, \qquad g(x_i, y_j) = \langle x_i, y_j \rangle / \tau

    Arguments:

    - `dim`: width d of the features. Needed where the bound has a network, u or a; else it is only checked.
    - `temperature`: tau, or where it starts with `learn_temperature`, which makes log tau a parameter.
    - `normalize`: give features unit norm first. Then no score exceeds 1/tau: two contrasts differ by at most 2/tau nats.
    - `symmetric`: mean of both directions; without it keys alone are negatives.
    - `reduction`: "mean", "sum", or "none" for one value a row, [n].
    - `positives`: "own", or "all" to count every key of the same label as a positive, each anchor weighing the same.
    - `chunk`: rows whose scores are in memory at a time, computed again for the gradient: memory O(n chunk), not O(n^2).
    - `gather`: take the keys of all ranks as negatives, where torch.distributed runs.
    - `hidden`: width of u and a. `decay`: of the running averages, a step.

    Call it with query [n, d], key [n, d], and either `negatives`, [m, d] for all rows or [n, m, d] for each its own, in place
    of the other keys; or `labels` [n], where rows of equal labels are no negatives of each other. Only negatives drawn from p(y)
    make the value a bound on MI: against hand-picked ones, or against other labels only, it can exceed I without limit.

    Scores and exponentials are float32 (float64 for float64 features), under autocast too. Raises ValueError or TypeError for
    arguments that do not fit together.

    >>> from flomi import bounds
    >>> class Own(ContrastiveLoss):
    ...     bound = bounds.get("flo-ux")
    >>> Own(dim=8)(torch.randn(16, 8), torch.randn(16, 8)).shape
    torch.Size([])
    """

    bound: ClassVar[Bound]
    running: Tensor

    def __init__(
        self,
        dim: int | None = None,
        *,
        temperature: float = 0.1,
        learn_temperature: bool = False,
        normalize: bool = True,
        symmetric: bool = False,
        reduction: Literal["mean", "sum", "none"] = "mean",
        positives: Literal["own", "all"] = "own",
        chunk: int | None = None,
        gather: bool = True,
        hidden: int = 128,
        decay: float = 0.99,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not hasattr(self, "bound"):
            raise TypeError(
                f"{name} has no bound: use one of the losses made from it, or set `bound` in a subclass"
            )
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} is not possible: use a positive number, such as 0.1")
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} is not possible: use a number from 0 to below 1, such as 0.99")
        choices = ("reduction", reduction, ("mean", "sum", "none")), ("positives", positives, ("own", "all"))
        for option, value, known in choices:
            if value not in known:
                raise ValueError(f"{option}={value!r} is not known; choose one of {', '.join(known)}")
        for option, size in (("dim", dim), ("chunk", chunk), ("hidden", hidden)):
            if size is not None and size < 1:
                raise ValueError(f"{option}={size} is not possible: use at least 1")
        wanted = [field for field in ("u", "baseline") if field in self.bound.needs]
        if wanted and dim is None:
            raise ValueError(
                f"{name} needs dim=, the width of the features: its {wanted[0]} is a network with parameters"
            )
        self.dim, self.symmetric, self.reduction, self.positives = dim, symmetric, reduction, positives
        self.normalize, self.chunk, self.gather, self.decay = normalize, chunk, gather, decay
        self.u = Baseline(2 * dim, (hidden,)) if dim and "u" in wanted else None
        self.a, self.a_back = (
            Baseline(dim, (hidden,)) if dim and "baseline" in wanted and needed else None
            for needed in (True, symmetric)
        )
        self.log_tau: float | Tensor = math.log(temperature)
        if learn_temperature:
            self.log_tau = nn.Parameter(torch.tensor(self.log_tau))
        self.state = self.bound.state() if self.bound.state else None
        self.register_buffer("running", torch.zeros(4))  # averages of 1, bound, effective sample size, m
        self._calls, self._start = 0, list[Tensor]()

    def forward(
        self, query: Tensor, key: Tensor, negatives: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """The loss, to minimise: a scalar, or [n] with `reduction="none"`. In training it also moves the running averages."""
        with torch.autocast(query.device.type if isinstance(query, Tensor) else "cpu", enabled=False):
            directions = self._directions(query, key, negatives, labels)
            loss = -self._mean_of(directions, self._objective)
            if self.training:
                self._watch(directions)
        if self.training and torch.is_grad_enabled():
            self._warn_if_still()
        return loss if self.reduction == "none" else loss.mean() if self.reduction == "mean" else loss.sum()

    @torch.no_grad()
    def value(
        self, query: Tensor, key: Tensor, negatives: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """The bound of this batch in nats, a scalar, moving nothing: on held-out rows it is free of training's optimism."""
        with torch.autocast(query.device.type if isinstance(query, Tensor) else "cpu", enabled=False):
            return self._mean_of(self._directions(query, key, negatives, labels), self.bound.value).mean()

    @torch.no_grad()
    def pmi(
        self, query: Tensor, key: Tensor, negatives: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """The pointwise MI of every pair in nats, [n], as the bound reads it out, moving nothing: -u for FLO, g for JS.

        Of InfoNCE and its like it is g less the log mean of e^g over the row's negatives, so it depends on the batch.

        >>> from flomi.losses import FLOLoss
        >>> FLOLoss(dim=8).pmi(torch.randn(16, 8), torch.randn(16, 8)).shape
        torch.Size([16])
        """
        with torch.autocast(query.device.type if isinstance(query, Tensor) else "cpu", enabled=False):
            return self._mean_of(self._directions(query, key, negatives, labels), self.bound.pmi)

    def mi(self) -> float:
        """Running bound on training batches in nats, NaN before the first: optimistic, since the model has seen its rows.

        It is the bound's `value`: for FlatNCE that of InfoNCE, for FDV leave-one-out DV, biased upward. See `value` for
        held-out rows, and `ceiling` for the most that it can reach.
        """
        return self._average(1)

    def ness(self) -> float:
        """Running effective sample size of the negatives, 1 / (m sum_k w_k^2), w the softmax of their scores: in [1/m, 1].

        Near 1/m a single hard negative carries the gradient: raise the temperature, or take a larger batch.
        """
        return self._average(2)

    @property
    def ceiling(self) -> float | None:
        """The most that `mi()` can reach with so many negatives, log K for InfoNCE; None where the bound has no such cap."""
        m = self._average(3)
        return None if self.bound.cap is None or math.isnan(m) else self.bound.cap(round(m))

    @property
    def temperature(self) -> float:
        """tau, as it is now."""
        return math.exp(float(torch.as_tensor(self.log_tau).detach()))

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:.3g}, symmetric={self.symmetric}, chunk={self.chunk}"

    # --- From features to scores --------------------------------------------------------------------------------------

    def _directions(
        self, query: Tensor, key: Tensor, negatives: Tensor | None, labels: Tensor | None
    ) -> list[tuple[Scores, Tensor | None]]:
        """Scores of query against key, and of key against query where symmetric; with the anchor of each positive."""
        ranks = world_size() if self.gather and negatives is None else 1
        self._check(query, key, negatives, labels, ranks)
        kind = torch.float64 if torch.float64 in (query.dtype, key.dtype) else torch.float32
        x, y = self._features(query, kind), self._features(key, kind)
        scale = torch.exp(-torch.as_tensor(self.log_tau, dtype=kind, device=x.device))
        if negatives is not None:
            z = self._features(negatives, kind)
            return [(self._positives(x, y, scale, self._given(x * scale, z)), None)]
        first, kinds, every_y = 0, None if labels is None else (labels, labels), y
        if ranks > 1:
            self._check_ranks(x, labels)
            first, every_y = torch.distributed.get_rank() * len(x), gather(y).flatten(0, 1)
            kinds = None if labels is None else (labels, gather(labels).flatten())
        if kinds is not None and bool((kinds[1] == kinds[1][0]).all()):
            raise ValueError(
                "labels are all the same, so no row has a negative: use a larger or a mixed batch"
            )
        there = ProductNegatives(x * scale, every_y, first, kinds, self.chunk, ranks)
        found = [self._scores(x, y, scale, there, every_y)]
        if self.symmetric:
            every_x = gather(x).flatten(0, 1) if ranks > 1 else x
            there = ProductNegatives(y * scale, every_x, first, kinds, self.chunk, ranks)
            found.append(self._scores(y, x, scale, there, every_x, back=True))
        return found

    def _scores(
        self,
        x: Tensor,
        y: Tensor,
        scale: Tensor,
        pairs: ProductNegatives,
        every_y: Tensor,
        back: bool = False,
    ) -> tuple[Scores, Tensor | None]:
        if self.positives == "own":
            return self._positives(x, y, scale, pairs, back), None
        rows, columns = pairs.positives()
        x, y = x.index_select(0, rows), every_y.index_select(0, columns)
        return self._positives(x, y, scale, Expanded(pairs, rows), back), rows

    def _positives(self, x: Tensor, y: Tensor, scale: Tensor, neg: Negatives, back: bool = False) -> Scores:
        """Scores of aligned rows; u and a run here, on the positives only, in the type of their weights."""
        u = baseline = None
        if self.u is not None:  # the same function of (query, key) in both directions
            u = self.u(torch.cat([y, x] if back else [x, y], -1).to(dtype_of(self.u))).to(x.dtype)
        a = self.a_back if back else self.a
        if a is not None:
            baseline = a(x.to(dtype_of(a))).to(x.dtype)
        return Scores((x * y).sum(-1) * scale, neg, u, baseline)

    def _given(self, a: Tensor, negatives: Tensor) -> Negatives:
        if negatives.ndim == 3:
            return Table(torch.einsum("nd,nmd->nm", a, negatives))
        return ProductNegatives(a, negatives, None, chunk=self.chunk)

    def _features(self, v: Tensor, kind: torch.dtype) -> Tensor:
        v = v.to(kind)
        return normalize(v, dim=-1) if self.normalize else v

    # --- From scores to the loss and its read-outs --------------------------------------------------------------------

    def _objective(self, s: Scores) -> Tensor:
        if self.state is not None and self.training:
            return self.state.objective(s)
        return (self.bound.objective or self.bound.value)(s)

    def _mean_of(
        self, directions: list[tuple[Scores, Tensor | None]], f: Callable[[Scores], Tensor]
    ) -> Tensor:
        """[n] f, its mean over the positives of each anchor and over the directions."""
        values = []
        for s, rows in directions:
            v = f(s)
            if rows is not None:
                size = rows.bincount()
                v = v.new_zeros(len(size)).index_add(0, rows, v / size[rows])
            values.append(v)
        return torch.stack(values).mean(0)

    @torch.no_grad()
    def _watch(self, directions: list[tuple[Scores, Tensor | None]]) -> None:
        """Move the running averages, the same on all ranks; a batch that is not finite leaves them as they are."""
        value = self._mean_of(directions, self.bound.value).mean()
        neg = directions[0][0].negatives
        g = neg.probe(PROBE)
        m = (g > -math.inf).sum(1)
        ness = torch.exp(2 * torch.logsumexp(g, 1) - torch.logsumexp(2 * g, 1)) / m
        now = torch.stack([value.new_ones(()), value, ness.mean(), m.to(g).mean()])
        if getattr(neg, "ranks", 1) > 1:
            now = gather(now).mean(0)
        self.running = self.running.to(now.device)
        moved = self.running.lerp(now.to(self.running.dtype), 1 - self.decay)
        self.running.copy_(torch.where(moved.isfinite().all(), moved, self.running))

    def _average(self, which: int) -> float:
        weight, total = float(self.running[0]), float(self.running[which])
        return total / weight if weight else math.nan

    def _warn_if_still(self) -> None:
        """Warn once where no parameter has moved in many training calls: nobody gave them to an optimiser."""
        learned = [p for p in self.parameters() if p.requires_grad]
        if self._calls >= PATIENCE or not learned:
            return
        if self._calls == 0:
            self._start = [p.detach().clone() for p in learned]
        self._calls += 1
        if self._calls == PATIENCE:
            start, self._start = self._start, []
            if len(start) == len(learned) and all(map(torch.equal, start, learned)):
                warnings.warn(
                    f"{type(self).__name__} has parameters, and none of them changed in {PATIENCE} training calls: "
                    "give them to the optimiser, as in Adam([*model.parameters(), *loss.parameters()])",
                    stacklevel=5,
                )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ContrastiveLoss:
        """Move or cast as any module; running averages are never kept in half precision, where they would stand still."""
        kept = [(m, name, v) for m in self.modules() for name, v in m.named_buffers(recurse=False)]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for module, name, v in kept:
            now: Any = getattr(module, name)
            if now.dtype in (torch.float16, torch.bfloat16):
                setattr(module, name, v.to(now.device))
        return self

    # --- What can be wrong with the call ------------------------------------------------------------------------------

    def _check(
        self, query: Tensor, key: Tensor, negatives: Tensor | None, labels: Tensor | None, ranks: int
    ) -> None:
        given = {"query": query, "key": key, "negatives": negatives, "labels": labels}
        tensors = {name: v for name, v in given.items() if v is not None or name in ("query", "key")}
        for name, v in tensors.items():
            if not isinstance(v, Tensor):
                raise TypeError(f"{name} must be a tensor, not {type(v).__name__}")
            if name != "labels" and not v.is_floating_point():
                raise TypeError(f"{name} has type {v.dtype}: give features as floating-point numbers")
            if v.device != query.device:
                raise ValueError(
                    f"{name} is on {v.device} and query on {query.device}: move them to one device"
                )
        home = next((p.device for p in self.parameters()), query.device)
        if home != query.device:
            raise ValueError(
                f"query is on {query.device} and the loss's parameters on {home}: call loss.to(query.device)"
            )
        if query.ndim != 2:
            raise ValueError(f"query has shape {tuple(query.shape)}: give one feature vector a row, [n, d]")
        n, d = query.shape
        if key.shape != query.shape:
            raise ValueError(
                f"query and key must have the same shape, row i of key being the positive of row i of query; found "
                f"{tuple(query.shape)} and {tuple(key.shape)}"
            )
        if self.dim not in (None, d):
            raise ValueError(f"query has {d} columns, and the loss was made for dim={self.dim}")
        if self.positives == "all" and labels is None:
            raise ValueError("positives='all' needs labels=, [n], which say what belongs together")
        if negatives is None:
            if n == 0 or n * ranks < 2:
                raise ValueError(
                    f"query has {n} rows: negatives are the other rows, so give 2 at least, or negatives="
                )
        else:
            if labels is not None:
                raise ValueError(
                    "labels= exclude keys of the batch, and do not go with negatives=: leave one of them out"
                )
            if self.symmetric:
                raise ValueError(
                    "negatives= belong to the side of the keys, and do not go with symmetric=True"
                )
            if n == 0 or negatives.numel() == 0:
                raise ValueError(
                    f"query has shape {(n, d)}, negatives {tuple(negatives.shape)}: give at least one of each"
                )
            if negatives.shape[-1] != d or negatives.shape[:-2] not in ((), (n,)):
                raise ValueError(
                    f"negatives has shape {tuple(negatives.shape)}; for query of shape {(n, d)} use [m, {d}] or [{n}, m, {d}]"
                )
        if labels is not None:
            if labels.shape != (n,):
                raise ValueError(f"labels has shape {tuple(labels.shape)}: give one a row, ({n},)")
            if self.bound.replaces:
                raise ValueError(
                    f"{type(self).__name__} needs equally many negatives for every row: leave out labels="
                )

    def _check_ranks(self, x: Tensor, labels: Tensor | None) -> None:
        """All ranks must bring the same, or the gathering hangs: each learns of it, and stops."""
        here = torch.tensor([*x.shape, x.dtype.itemsize, labels is not None], device=x.device)
        everywhere = gather(here)
        if not bool((everywhere == here).all()):
            raise ValueError(
                f"the ranks bring query of shapes {[tuple(row[:2]) for row in everywhere.tolist()]}, or not all of "
                "them labels or the same type; give each the same (drop_last=True in the loader), or set gather=False"
            )
