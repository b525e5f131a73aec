"""The shape of a check: what it measures on the facts of a run, and the finding that it makes of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flomi.inference.evidence import Evidence

Level = Literal["note", "none found", "caution", "unreliable"]
LEVELS: tuple[Level, ...] = ("note", "none found", "caution", "unreliable")  # rising


@dataclass(frozen=True)
class Finding:
    """One doubt: its check, how grave, what was found, what to do; the value and the threshold it passed, if finite numbers."""

    code: str
    level: Level
    sentence: str
    remedy: str
    value: float | None = None
    threshold: float | None = None

    @property
    def text(self) -> str:
        """The sentence with its remedy, as `r.warnings` shows it."""
        return f"{self.sentence}{';' if ': ' in self.sentence else ':'} {self.remedy}"

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-able values, of which `Finding(**fields)` is the same again."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Measured:
    """A value beyond a threshold, the number of the level that this is, and other facts that the sentence names."""

    value: float = math.nan
    threshold: float = math.nan
    grade: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One row of the verdict: `measure` returns what is beyond the threshold, mostly nothing, and `sentence` says it.

    `levels` are in the order of `Measured.grade`. `sentence` is a format string of the fields of `Evidence`, `Measured` and its
    facts; a number without a format is an amount of information. `remedy` is what to do, `automatic_remedy` what instead
    where critic="auto" was asked for. A check is asked of "finite" estimates, of "all", or of "unexplained" ones, which no
    check before it found unreliable. `false_alarm`, `miss`: shares of good runs that it doubts, of bad ones that it lets pass.
    """

    code: str
    levels: tuple[Level, ...]
    looks_at: str
    threshold: str
    measure: Callable[[Evidence], Sequence[Measured]]
    sentence: str
    remedy: str
    automatic_remedy: str | None = None
    asked_of: Literal["finite", "all", "unexplained"] = "finite"
    false_alarm: float | None = None
    miss: float | None = None

    def findings(self, e: Evidence) -> list[Finding]:
        """What the check has to say of a run."""
        remedy = (self.automatic_remedy if e.automatic else None) or self.remedy
        found = []
        for m in self.measure(e):
            facts = {**vars(e), **vars(m), **m.facts}
            words = {k: Amount(v, e.units) if isinstance(v, float) else v for k, v in facts.items()}
            numbers = (v if math.isfinite(v) else None for v in (m.value, m.threshold))
            found.append(
                Finding(self.code, self.levels[m.grade], self.sentence.format(**words), remedy, *numbers)
            )
        return found


class Amount:
    """A number in a sentence: as the format says, else as an amount of information in the units asked for."""

    def __init__(self, nats: float, units: str) -> None:
        self.nats, self.units = nats, units

    def __format__(self, spec: str) -> str:
        if spec:
            return format(self.nats, spec)
        return f"{self.nats / math.log(2):.3g} bits" if self.units == "bits" else f"{self.nats:.3g} nats"


def above(value: float | None, *limits: float, **facts: Any) -> list[Measured]:
    """A value above the first of the limits (rising, one a level), with the last one below it; nothing where unknown."""
    if value is None or not value > limits[0]:
        return []
    grade = sum(value > limit for limit in limits) - 1
    return [Measured(float(value), float(limits[grade]), grade, facts)]


def below(value: float | None, *limits: float, **facts: Any) -> list[Measured]:
    """The same downwards."""
    found = above(None if value is None else -value, *(-limit for limit in limits), **facts)
    return [Measured(-m.value, -m.threshold, m.grade, facts) for m in found]
