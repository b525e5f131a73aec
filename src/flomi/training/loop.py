"""The one training loop, for everything that learns by gradient: `train` runs a `Task` by a `Schedule` and keeps a `History`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from flomi.parallel import check_stop
from flomi.support.settings import UNMEASURED, setting


def cosine(step: int, steps: int, floor: float = 0.0) -> float:
    """1 at step 0, falling along half a cosine to `floor` at `steps`.

    >>> cosine(0, 100), cosine(100, 100)
    (1.0, 0.0)
    """
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / steps))


def batches(order: Callable[[], Tensor], size: int) -> Iterator[Tensor]:
    """Batches [..., size] without replacement, from one random `order` [..., n] of the rows after another."""
    while True:
        some = order()
        yield from some[..., : some.shape[-1] // size * size].split(size, -1)


@dataclass(frozen=True)
class Schedule:
    """How long a task trains, at what rate, and when it is evaluated on validation rows.

    The rate rises linearly over `warmup` steps and falls along a cosine, which sets in at step `fall_from`, to `floor` of its
    full value. Evaluations are `every` so many steps and after the last one, with `from_start` also before the first. A gain is
    more than `least_gain` nats above the best so far. Training ends after `patience` evaluations without one, and at the first
    evaluation from step `give_up` on if there has been none since the start.
    """

    steps: int
    every: int
    patience: int = 1
    warmup: int = 1
    fall_from: int = 0
    floor: float = setting(0.02, f"{UNMEASURED}share of its full value that the rate ends at")
    from_start: bool = False
    least_gain: float = 0.0
    give_up: int | None = None

    def rate(self, step: int) -> float:
        """Share of the full rate that step `step`, from 0, is taken at.

        >>> Schedule(steps=100, every=10, warmup=4).rate(0)
        0.25
        """
        rise = min(1.0, (step + 1) / self.warmup)
        return rise if step < self.fall_from else rise * cosine(step, self.steps, self.floor)

    def evaluates(self, step: int) -> bool:
        """Whether the task is evaluated after `step` steps."""
        return step == self.steps or (step % self.every == 0 and (step > 0 or self.from_start))


@dataclass
class History:
    """Training curves by step, in nats: the value on training rows, a mean since the last evaluation, and on validation rows.

    `ceiling` is the most that the validation curve can reach, where there is such a limit.
    """

    step: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_step: int = 0
    ceiling: float | None = None
    interrupted: bool = False


class Task(Protocol):
    """What is trained: parameters with their optimiser and rows. Members of an ensemble are evaluated and kept one by one."""

    def update(self, rate: float) -> Tensor | None:
        """Take a step at this share of the full rate; the value on its training rows, None where no parameter acts on it."""

    def validation(self) -> Tensor:
        """[members] values on validation rows."""

    def keep(self, better: Tensor) -> None:
        """Remember the state of the members in the mask `better`."""

    def restore(self) -> None:
        """Go back to the state that was kept last, or to the start."""


def train(
    task: Task, schedule: Schedule, progress: str | None = None, ceiling: float | None = None
) -> History:
    """Train, and leave the task in the state that did best on its validation rows.

    Ctrl-C ends the loop early: the best state so far stays, and `History.interrupted` says so. `progress` labels a bar.
    """
    history = History(ceiling=ceiling)
    best: Tensor | float = -math.inf
    waited, count, total = 0, 0, torch.zeros(())
    bar = tqdm(total=schedule.steps, desc=progress, disable=progress is None, leave=False, mininterval=0)
    try:
        for step in range(schedule.steps + 1):
            if schedule.evaluates(step):
                values = task.validation()
                better = values > best + schedule.least_gain
                best = torch.where(better, values, best)
                waited += 1
                if better.any():
                    task.keep(better)
                    waited, history.best_step = 0, step
                history.step.append(step)
                history.validation.append(float(values.mean()))
                if count:
                    history.train.append(float(total) / count)
                count, total = 0, torch.zeros(())
                limit = "" if ceiling is None else f" of at most {ceiling:.2f}"
                shown = f"validation {history.validation[-1]:.3f}{limit}, best {float(best.mean()):.3f}"
                bar.set_postfix_str(shown, refresh=False)
                bar.update(step - bar.n)
                given_up = (
                    schedule.give_up is not None and history.best_step == 0 and step >= schedule.give_up
                )
                if given_up or waited >= schedule.patience or step == schedule.steps:
                    break
            check_stop()
            value = task.update(schedule.rate(step))
            if value is None:  # a closed formula
                break
            count, total = count + 1, total.to(value) + value
            if len(history.train) < len(history.step):  # the start is shown with the first batch's value
                history.train.append(float(value))
    except KeyboardInterrupt:
        history.interrupted = True
    finally:
        bar.close()
    task.restore()
    return history
