"""Selection among candidates by their FLO bound on rows that they were not fitted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flomi.inference.influence import mean_stderr
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class SelectionSettings:
    """When one candidate is preferred to another."""

    margin: float = setting(
        1.0, "standard errors that a more complex one has to gain: Breiman et al. 1984, section 3.4.3"
    )
    unsettled: float = setting(
        2.0,
        f"{UNMEASURED}standard errors of a difference on test rows, below which a choice could have gone the other way",
    )


SETTINGS = SelectionSettings()
Values = Mapping[str, np.ndarray]  # FLO bound by row, by candidate


def one_standard_error_rule(values: Values, groups: np.ndarray | None) -> str:
    """The last candidate, simple ones first, whose bound exceeds the best before it by one standard error of the difference.

    >>> one_standard_error_rule({"simple": np.zeros(4), "better": np.ones(4), "no better": np.array([0.0, 2, 0, 2.1])}, None)
    'better'
    """
    names = list(values)
    top = names[0]
    for name in names[1:]:
        gain = values[name] - values[top]
        if np.isfinite(values[name]).all() and gain.mean() > SETTINGS.margin * mean_stderr(gain, groups):
            top = name
    return top


def loss(values: Values, name: str, selected: str, groups: np.ndarray | None) -> tuple[float, float]:
    """What `name` loses to the one selected, and the standard error of that."""
    difference = values[selected] - values[name]
    return float(difference.mean()), mean_stderr(difference, groups)


def unsettled(values: Values, selected: str, groups: np.ndarray | None) -> dict[str, tuple[float, float]]:
    """The rivals: candidates that these rows cannot tell from the one selected, with what they lose to it."""
    losses = {name: loss(values, name, selected, groups) for name in values if name != selected}
    return {name: (mean, se) for name, (mean, se) in losses.items() if mean < SETTINGS.unsettled * se}
