"""Numbers that decide, each with its reason: the fields of one frozen record a part.

A reason names a source, a derivation, or the benchmark and date that chose the number. `UNMEASURED` marks those that were
set by judgement and that no measurement has confirmed yet.
"""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Any, TypeVar

T = TypeVar("T")
UNMEASURED = "unmeasured: "  # starts the reason of a number that no measurement has confirmed


def setting(default: T, reason: str) -> T:
    """A field of a settings record, whose `reason` `reasons` reads.

    >>> @dataclasses.dataclass(frozen=True)
    ... class Settings:
    ...     folds: int = setting(5, "Kohavi 1995")
    >>> Settings().folds, reasons(Settings)
    (5, {'folds': 'Kohavi 1995'})
    """
    return field(default=default, metadata={"reason": reason})


def reasons(record: type[Any]) -> dict[str, str]:
    """Why each number of a settings record is what it is."""
    return {f.name: f.metadata["reason"] for f in dataclasses.fields(record)}
