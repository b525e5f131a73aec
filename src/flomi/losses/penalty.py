"""A penalty that takes mutual information away: I(z; s) of a representation z and a variable s that it should not tell."""

from __future__ import annotations

import copy
import math
import warnings
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flomi.bounds import Bound, Scores, get
from flomi.critics import CRITICS, Baseline
from flomi.scores import score
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class PenaltySettings:
    """How the critic follows z, and when a fresh one takes over."""

    memory: int = setting(2048, f"{UNMEASURED}rows of the last batches that a fresh critic is tried on")
    recent: int = setting(
        4, f"{UNMEASURED}batches that the critic trains on: z is no longer that of older ones"
    )
    fresh_steps: int = setting(200, f"{UNMEASURED}training steps of a fresh critic")
    fresh_batch: int = setting(256, f"{UNMEASURED}rows of each of these steps")
    least_rows: int = setting(8, f"{UNMEASURED}rows, of which half train a fresh critic and half judge it")
    gain: float = setting(
        0.05, f"{UNMEASURED}nats that a fresh critic must find beyond the trained one to take over"
    )
    gain_errors: float = setting(3.0, "standard errors of the gain: chance exceeds them once in 700 checks")
    gain_share: float = setting(0.5, f"{UNMEASURED}share of what the fresh critic finds: less is no collapse")


SETTINGS = PenaltySettings()

Rows = list[tuple[Tensor, Tensor]]


class MIPenalty(nn.Module):
    r"""Penalty on I(z; s): trains its own critic on every call, then returns the bound, differentiable in z alone.

    .. math:: \min_\theta\; \text{task}(\theta) + \lambda \max_{g, u} \mathrm{FLO}(g, u;\, z_\theta, s)

    **What it can promise.** FLO, NWJ, InfoNCE and the like are *lower* bounds: made large they certify that MI is large; made
    small they certify nothing, since a weak critic also gives a small value. This is a min-max game, and the critic must stay
    near its optimum: hence `critic_steps` a call, on the batches before this one, at a rate `lr` that should not be below the
    model's (else the two chase each other in circles); standardised z (an encoder cannot hide by shrinking), and every
    `check_every` calls a fresh critic on the last rows, which takes over, with a warning, if it finds on held-out rows what the
    trained one no longer sees. CLUB and L1Out (`bound="club"`) are above I only as far as their density model is exact. Judge the
    result on other rows, by `flomi.estimate(z, s)` or a classifier of s.

    `dim_z`, `dim_s`: columns of z and s; give classes as one-hot columns. `bound`: a name of `BOUNDS`, or your own.
    `critic`: a name of `CRITICS` that is learned, or a module of that form; `hidden`: its layers. A bound with a baseline a(z),
    such as TUBA, has it beside the critic, unless the module says `has_baseline` and has its own. `m`: negatives a row. The
    critic's AdamW is inside: give its parameters to no other optimiser. Under torch.distributed each process
    trains a critic of its own. Reference: the min-max use of Guo et al. 2022, section 5 (fair representations).

    >>> penalty = MIPenalty(4, 1)
    >>> z, s = torch.randn(64, 4, requires_grad=True), torch.randn(64, 1)
    >>> (0.1 * penalty(z, s)).backward()
    >>> z.grad is not None and all(p.grad is None for p in penalty.parameters())
    True
    """

    def __init__(
        self,
        dim_z: int,
        dim_s: int,
        *,
        bound: str | Bound = "flo",
        critic: str | nn.Module | None = None,
        hidden: tuple[int, ...] = (64, 64),
        critic_steps: int = 5,
        lr: float = 5e-3,
        m: int = 8,
        check_every: int = 500,
    ) -> None:
        super().__init__()
        self.bound = get(bound)
        least = {"dim_z": 1, "dim_s": 1, "critic_steps": 1, "m": 1, "check_every": 0}
        for name, value in least.items():
            if not locals()[name] >= value:
                raise ValueError(f"{name} must be at least {value}; found {locals()[name]}")
        if not lr > 0:
            raise ValueError(f"lr must be positive; found {lr}")
        own = not isinstance(bound, str)  # a function of one's own is not known to need what `get` allows it
        if self.bound.state or ("marginal" in self.bound.needs and not own):
            raise ValueError(
                f"bound={self.bound.name!r} needs more than a critic: use 'flo', 'nwj', 'tuba', 'infonce', 'js' or 'club'"
            )
        self.critic = self._made(critic, dim_z, dim_s, hidden)
        if "baseline" in self.bound.needs and not own and not getattr(self.critic, "has_baseline", False):
            self.critic = _WithBaseline(self.critic, dim_z)
        self.dim_z, self.dim_s, self.critic_steps, self.lr, self.m = dim_z, dim_s, critic_steps, lr, m
        self.check_every, self.calls = check_every, 0
        self._untrained = [copy.deepcopy(self.critic)]  # in a list, so that it is no submodule
        self._optimiser: torch.optim.Optimizer | None = None
        self._rows: deque[tuple[Tensor, Tensor]] = deque()

    def forward(self, z: Tensor, s: Tensor) -> Tensor:
        """The bound of this batch in nats, to be minimised in z; in training mode the critic takes its steps first."""
        self._check(z, s)
        with torch.autocast(z.device.type, enabled=False):
            z, s = z.float(), s.detach().float().reshape(len(s), -1)
            if self.training:
                # The critic learns from the batches before this one: on rows that it has fitted, it would measure itself.
                past = list(self._rows)[-SETTINGS.recent :] or [(z.detach(), s)]
                self.calls += 1
                if self.check_every and self.calls % self.check_every == 0 and self._rows:
                    self._compare()
                self._optimiser = self._optimiser or self._adam(self.critic)
                self._train(self.critic, self._optimiser, past, self.critic_steps, len(z))
                self._remember(z.detach(), s)
            learned = [p for p in self.critic.parameters() if p.requires_grad]
            for p in learned:  # the model's loss must not move the critic
                p.requires_grad_(False)
            try:
                return self.bound.value(self._scores(self.critic, z, s)).mean()
            finally:
                for p in learned:
                    p.requires_grad_(True)

    def fresh(self) -> tuple[float, float]:
        """What a new critic finds on held-out rows of the last batches, and what the trained one finds there, in nats."""
        found, current, _, _ = self._rival()
        return found, current

    # --- The critic's side of the game --------------------------------------------------------------------------------

    def _scores(self, critic: nn.Module, z: Tensor, s: Tensor) -> Scores:
        baseline = critic.baseline if getattr(critic, "has_baseline", False) else None
        m = min(self.m, len(z) - 1)
        return score(critic, _standard(z), _standard(s), "shifts", m=m, baseline=baseline)  # type: ignore[arg-type]

    def _train(
        self, critic: nn.Module, optimiser: torch.optim.Optimizer, rows: Rows, steps: int, batch: int
    ) -> None:
        z, s = (torch.cat(v) for v in zip(*rows, strict=True))
        with torch.enable_grad():
            for _ in range(steps):
                drawn = torch.randperm(len(z), device=z.device)[:batch]
                (-self.bound.maximise(self._scores(critic, z[drawn], s[drawn]))).backward()
                torch.nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)  # so that an optimiser outside finds nothing to step on

    def _adam(self, critic: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(critic.parameters(), lr=self.lr, weight_decay=1e-2, fused=True)

    def _remember(self, z: Tensor, s: Tensor) -> None:
        self._rows.append((z, s))
        while sum(len(z) for z, _ in list(self._rows)[1:]) >= SETTINGS.memory:  # enough without the oldest
            self._rows.popleft()

    def _rival(self) -> tuple[float, float, float, nn.Module]:
        """A fresh critic, trained on half of the last rows: its value on the others, the trained one's, the error, itself."""
        if (n := sum(len(z) for z, _ in self._rows)) < SETTINGS.least_rows:
            raise ValueError(f"only {n} rows were seen in training: call the penalty on some batches first")
        z, s = (torch.cat(v) for v in zip(*self._rows, strict=True))
        order = torch.randperm(n, device=z.device)
        z, s = z[order], s[order]
        half = n // 2
        rival = copy.deepcopy(self._untrained[0]).to(z.device)
        rows, steps, batch = [(z[:half], s[:half])], SETTINGS.fresh_steps, SETTINGS.fresh_batch
        self._train(rival, self._adam(rival), rows, steps, batch)
        with torch.no_grad():
            both = (self._scores(critic, z[half:], s[half:]) for critic in (rival, self.critic))
            mine, others = map(self.bound.value, both)
        error = float((mine - others).std()) / math.sqrt(len(mine))
        return float(mine.mean()), float(others.mean()), error, rival

    def _compare(self) -> None:
        """Let a fresh critic take over where it finds what the trained one does not."""
        if self.bound.side == "upper":  # larger is no better there
            return
        found, current, error, rival = self._rival()
        least = max(SETTINGS.gain, SETTINGS.gain_errors * error, SETTINGS.gain_share * found)
        if not found - current > least:
            return
        self.critic.load_state_dict(rival.state_dict())
        self._optimiser = self._adam(self.critic)
        warnings.warn(
            f"the critic of MIPenalty had collapsed: it read {current:.2f} nats where a fresh one finds {found:.2f}; the "
            f"fresh one takes over. Raise critic_steps= (now {self.critic_steps}) or lower the weight of the penalty",
            stacklevel=5,
        )

    # --- State, and what can be wrong with the call -------------------------------------------------------------------

    def get_extra_state(self) -> dict[str, Any]:
        return {"calls": self.calls, "optimiser": self._optimiser.state_dict() if self._optimiser else None}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]
        if state["optimiser"] is not None:
            self._optimiser = self._adam(self.critic)
            self._optimiser.load_state_dict(state["optimiser"])

    def _made(
        self, critic: str | nn.Module | None, dim_z: int, dim_s: int, hidden: tuple[int, ...]
    ) -> nn.Module:
        if isinstance(critic, nn.Module):
            return critic
        name = critic or ("density" if "density" in self.bound.needs else "joint")
        build = CRITICS[name].build if name in CRITICS else None
        if build is None:
            learned = ", ".join(kind.name for kind in CRITICS.values() if kind.build)
            raise ValueError(
                f"critic={name!r} is not known, or cannot follow a moving z; choose one of {learned}, or a module"
            )
        return build(dim_z, dim_s, hidden)

    def _check(self, z: Tensor, s: Tensor) -> None:
        for name, v, width in (("z", z, self.dim_z), ("s", s, self.dim_s)):
            if not isinstance(v, Tensor):
                raise TypeError(f"{name} must be a tensor, not {type(v).__name__}")
            if v.ndim not in (1, 2) or (v.shape[1] if v.ndim == 2 else 1) != width:
                raise ValueError(
                    f"{name} has shape {tuple(v.shape)}, and the penalty was made for [n, {width}]"
                )
        if not z.is_floating_point():
            raise TypeError(f"z has type {z.dtype}: give floating-point numbers")
        if len(z) != len(s) or len(z) < 2:
            raise ValueError(
                f"z and s must have the same number of rows, at least 2; found {len(z)} and {len(s)}"
            )


class _WithBaseline(nn.Module):
    """A critic and a baseline a(z) that is trained, replaced and saved together with it."""

    has_baseline = True

    def __init__(self, critic: nn.Module, dim_z: int) -> None:
        super().__init__()
        self.critic, self.baseline = critic, Baseline(dim_z)
        self.encode, self.positives = critic.encode, critic.positives
        self.pairs, self.matrix = critic.pairs, critic.matrix


def _standard(v: Tensor) -> Tensor:
    """Columns of mean 0 and variance 1 in this batch, with gradient: what only shrinks is not gone."""
    v = v.reshape(len(v), -1)
    return (v - v.mean(0)) / (v.var(0, correction=0) + 1e-12).sqrt()
