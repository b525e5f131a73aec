"""A critic or a bound of the user's own: what is asked of it, checked on a few rows before any training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from flomi.bounds import Bound, Scores
from flomi.critics import PlainCritic
from flomi.critics.base import PairScorer
from flomi.scores import Table
from flomi.support.settings import UNMEASURED, setting
from flomi.training.model import Model, training_mode


@dataclass(frozen=True)
class UserModelSettings:
    """What the checks look at."""

    rows: int = setting(
        16, f"{UNMEASURED}of a check; it shows a wrong shape, dependence between rows, or a score not finite"
    )


SETTINGS = UserModelSettings()


def check_critic(model: Model, x: Tensor, y: Tensor) -> None:
    """Run the user's critic in `model` on a few rows; ValueError, saying what was found, where training can't use it."""
    critic, x, y = model.critic, x[: SETTINGS.rows], y[: SETTINGS.rows]
    model.eval()
    plain = isinstance(critic, PlainCritic)
    module: Any = critic.module if plain else critic

    def g(x: Tensor, y: Tensor) -> Any:
        return module(x, y) if plain else module.positives(*module.encode(x, y))[0]

    outputs = [_ask("critic(x, y)", g, x=x, y=y)]
    for name, rows in (("u", {"x": x, "y": y}), ("baseline", {"x": x}), ("marginal", {"y": y})):
        if hasattr(module, name) and (plain or name == "marginal"):
            outputs.append(_ask(f"{name}({', '.join(rows)})", getattr(module, name), **rows))
    trained = any(p.requires_grad for p in module.parameters())
    if trained and not any(out.requires_grad for out in outputs):
        raise ValueError(
            "your critic has trainable parameters, but its scores do not depend on them: look for detach(), no_grad() or "
            "numpy in forward, or freeze the parameters by requires_grad_(False)"
        )
    half = max(1, len(x) // 2)
    with torch.no_grad():
        if not _close(g(x[:half], y[:half]), g(x, y)[:half]):
            raise ValueError(
                "your critic gives a pair another score when other rows are beside it: g(x_i, y_i) must depend on row i "
                "alone, so do not subtract a mean over the rows, or the like"
            )
        if plain:
            _check_batch_norm(model, x, y)
        _check_pairs(critic, x, y)


def _ask(what: str, call: Callable[..., Any], **rows: Tensor) -> Tensor:
    """The answer of a user's function to a few rows, which must be one finite number each."""
    n = len(next(iter(rows.values())))
    try:
        out = call(*rows.values())
    except Exception as error:
        given = " and ".join(f"{name} {list(v.shape)}" for name, v in rows.items())
        raise ValueError(f"your {what} failed on {n} rows, {given}: {_told(error)}") from error
    return _one_a_row(f"your {what}", out, n)


def _one_a_row(what: str, out: Any, n: int) -> Tensor:
    must = f"{what} must return one score a row, a tensor of shape ({n},)"
    if not isinstance(out, Tensor):
        raise TypeError(f"{must}; found {type(out).__name__}")
    if out.shape != (n,):
        hints: dict[tuple[int, ...], str] = {
            (n, 1): ": add .squeeze(-1)",
            (n, n): ": score row i of x with row i of y only, all other pairs are formed outside",
        }
        raise ValueError(f"{must}; found shape {tuple(out.shape)}{hints.get(tuple(out.shape), '')}")
    if not out.is_floating_point():
        raise TypeError(f"{must} and of floating-point numbers; found {out.dtype}")
    bad = int((~out.isfinite()).sum())
    if bad:
        raise ValueError(
            f"{must}, all finite; found {bad} of {n} that are not: mend the formula, or scale x and y"
        )
    return out


def _check_pairs(critic: nn.Module, x: Tensor, y: Tensor) -> None:
    """All pairs, as `PairScorer` wants them: a critic with methods of its own may get them wrong."""
    module: PairScorer = critic  # type: ignore[assignment]
    n = len(x)
    try:
        a, b = module.encode(x, y)
        g, table, matrix = module.positives(a, b)[0], module.pairs(a[:, None], b[None]), module.matrix(a, b)
    except Exception as error:
        raise ValueError(f"your critic failed on all pairs of {n} rows: {_told(error)}") from error
    for name, found, shape in (("positives", g, (n,)), ("pairs", table, (n, n)), ("matrix", matrix, (n, n))):
        if tuple(found.shape) != shape:
            raise ValueError(
                f"your critic's {name} must return scores of shape {shape}; found {tuple(found.shape)}"
            )
    if not _close(matrix.diagonal(), g):
        raise ValueError("your critic's matrix(a, b) has other scores on its diagonal than positives(a, b)")


def _check_batch_norm(model: Model, x: Tensor, y: Tensor) -> None:
    """Refuse batch normalisation over pairs: in training it tells matching pairs, scored on their own, from the others."""
    if not any(isinstance(part, _BatchNorm) for part in model.critic.modules()) or len(x) < 3:
        return
    probe = copy.deepcopy(model)
    training_mode(probe)
    for part in probe.modules():
        part.training = part.training and isinstance(part, _BatchNorm)  # no dropout
    alone = probe.critic(x, y)
    beside = probe.critic(torch.cat([x, x]), torch.cat([y, y.roll(1, 0)]))[: len(x)]
    if not _close(alone, beside):
        raise ValueError(
            "your critic normalises batches of pairs (BatchNorm on features of x and y together), which in training tells "
            "matching pairs from others: use LayerNorm there, or normalise x and y each on its own"
        )


def _close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-2, atol=1e-3)  # equal but for rounding


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def check_bound(bound: Bound, trained: bool) -> None:
    """Try the user's bound on made-up scores; ValueError where it is no function of `Scores` that training can use."""
    n, m = SETTINGS.rows, SETTINGS.rows - 1
    draw = torch.Generator().manual_seed(0)
    pos, neg, u, rest = (
        (0.1 * torch.randn(*shape, generator=draw)).requires_grad_() for shape in ((n,), (n, m), (n,), (n,))
    )
    partners = (torch.arange(n)[:, None] + torch.arange(1, n)) % n
    density = "density" in bound.needs
    scores = Scores(pos, Table(neg, partners), None if density else u, rest, rest if density else None)

    parts = {
        "value": bound.value,
        "objective": bound.objective,
        "criterion": bound.criterion,
        "pmi": bound.pmi,
    }
    for name, part in parts.items():
        if part is None:
            continue
        what = f"bound {bound.name!r}" + ("" if name == "value" else f" (its {name})")
        try:
            out = part(scores)
        except Exception as error:
            raise ValueError(
                f"your {what} failed on scores of {n} rows with {m} negatives each: {_told(error)}"
            ) from error
        out = _one_a_row(f"your {what}", out, n)
        maximised = name == ("objective" if bound.objective else "value") and bound.state is None
        if trained and maximised and not out.requires_grad:
            raise ValueError(f"your {what} does not depend on the scores, so there is nothing to maximise")
