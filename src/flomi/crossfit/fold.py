"""What competes to be the critic: `fit` makes one candidate, `compete` lets the referee of held_out.py choose among them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from flomi.bounds import Bound
from flomi.critics.table import CRITICS, TrainingRows, default_candidates
from flomi.crossfit.evaluate import HeldOut, Measured, measure, pair_scores, report
from flomi.inference.u_statistic import PairScores, mean_stderr
from flomi.parallel import check_stop
from flomi.scores import Table
from flomi.training.candidate import Candidate, FitSettings, fit, seed_of
from flomi.training.ensemble import CONTRAST

__all__ = ["Fold", "How", "best", "compete", "contenders", "continuous"]

Rows = tuple[Tensor, Tensor]
TRAINING_ROWS = 1500  # on which the winner's training value is measured
ATOM = 0.05  # share of a column at one value, from which on it is a value of its own
OPTIMISM = 0.05  # nats: a base that fits its own rows so much better than others leaves a network nothing to learn from
CALIBRATION_PAIRS = 250_000  # of the validation rows, which choose and calibrate


@dataclass(frozen=True)
class How:
    """Everything that decides how a fold's candidates are fitted and scored, and is the same for all folds."""

    fit: FitSettings
    pairs: int
    most_pairs: int
    without: tuple[str, ...] = ()


@dataclass
class Fold:
    """One fold after the competition: who won, and everything on the fold's own rows.

    base is the closed form that a residual critic stands on, `residual` that critic, whether it won or not. training_value is
    the winner's Donsker-Varadhan value on rows that it was trained on, `measured` what the referee says of every candidate.
    """

    index: np.ndarray
    winner: Candidate
    base: str | None
    residual: Candidate | None
    held: HeldOut
    calibration: PairScores
    training_value: float
    measured: dict[str, Measured]
    seconds: dict[str, float]
    history: list[dict[str, Any]]
    interrupted: bool

    @property
    def won(self) -> Measured:
        """What the referee says of the winner."""
        return self.measured[self.winner.name]


def contenders(bound: Bound, x: Tensor, y: Tensor, rows: int) -> tuple[str, ...]:
    """The names that compete under critic="auto", simple ones first, given the number of `rows` that each will train on.

    One column against one is what the local critic is for. It takes any shape, so no network follows it there. Forms with more
    parameters than so few rows can fit are left out: they would only cost time.
    """
    both = continuous(x) and continuous(y)
    return default_candidates(
        TrainingRows(rows, x[0].numel(), y[0].numel(), both), density="density" in bound.needs, costly=True
    )


def continuous(v: Tensor) -> bool:
    """Whether every column takes many values, more than half as many as there are rows, and none of them often."""
    counts = (column.unique(return_counts=True)[1] for column in v.flatten(1).T)
    return all(len(c) > len(v) / 2 and int(c.max()) <= max(1, ATOM * len(v)) for c in counts)


def compete(
    names: Sequence[str | nn.Module],
    bound: Bound,
    data: Rows,
    parts: tuple[np.ndarray, np.ndarray, np.ndarray],
    how: How,
    *,
    seed: int,
    groups: np.ndarray | None = None,
    progress: str | None = None,
) -> Fold:
    """Fit every name on the first part of the rows, choose on the second, report on the third.

    The names stand in order of complexity, and `best` chooses on the second part's rows. A closed form that was chosen is
    fitted again to both parts, and so is the one that a residual critic starts from.
    """
    (x, y), (training, validation, held) = data, parts

    def at(part: np.ndarray, candidate: Candidate) -> dict[str, Any]:
        labels = None if groups is None else groups[part]
        return {"rows": candidate.prepared(x[part], y[part]), "seed": seed, "groups": labels}

    def measured(candidate: Candidate, part: np.ndarray, pairs: int) -> tuple[Measured, Table | None]:
        most = max(pairs, how.most_pairs)
        return measure(candidate.model, bound, pairs=pairs, most=most, **at(part, candidate))

    def make(name: str | nn.Module, rows: np.ndarray, base: nn.Module | None = None) -> Candidate:
        check_stop()
        text = name if isinstance(name, str) else "own"
        label = None if progress is None else f"{progress}, {text}"
        among = None if groups is None else groups[np.concatenate([rows, validation])]
        return fit(
            name, bound, (x[rows], y[rows]), (x[validation], y[validation]), how.fit, seed=seed_of(seed, text), base=base,
            groups=among, progress=label,
        )  # fmt: skip

    fitted: dict[str, Candidate] = {}
    values: dict[str, np.ndarray] = {}  # FLO bound by validation row
    based: str | None = None
    for name in names:
        if isinstance(name, str) and CRITICS[name].ensemble is not None:
            based = name
            continue
        candidate = make(name, training)
        by_row = measured(candidate, validation, CALIBRATION_PAIRS)[0].by_row
        if fitted and np.abs(by_row).max() < 1e-6:
            continue  # it found nothing: the null critic again
        fitted[candidate.name] = candidate
        values[candidate.name] = by_row
        if candidate.interrupted:
            break
    interrupted = any(c.interrupted for c in fitted.values())
    labels = None if groups is None else groups[validation]
    winner = best(values, labels) if values else None
    bases = {
        name: v
        for name, v in values.items()
        if name in CRITICS
        and CRITICS[name].base
        and getattr(fitted[name].model.critic, "optimism", 0.0) <= OPTIMISM
    }
    base = best(bases, labels) if based and values else None
    for chosen in {winner, base}:
        if chosen in CRITICS and CRITICS[chosen].fit is not None and not interrupted:
            fitted[chosen] = make(chosen, np.concatenate([training, validation]))
    residual: Candidate | None = None
    if based is not None and not interrupted:
        residual = make(based, training, None if base is None else fitted[base].model.critic)
        fitted[residual.name] = residual
        assert residual.gain is not None  # fit gives every candidate with a base its gain
        lead = 0.0 if base is None or winner is None else float((values[winner] - values[base]).mean())
        # near the log of a batch and beyond, a few held-out pairs carry what a network gains: no fold relies on it
        reliable = base is None or float(values[base].mean()) < math.log(CONTRAST) - 1
        if winner is None or (reliable and residual.gain.validation - lead > residual.gain.stderr):
            winner = residual.name
    assert winner is not None
    won = fitted[winner]
    on_held: dict[str, Measured] = {}
    pairs: Table | None = None
    for name, candidate in fitted.items():  # only the winner's pairs are kept, which are most of the memory
        on_held[name], some = measured(candidate, held, how.pairs)
        pairs = some if name == winner else pairs
    return Fold(
        index=held,
        winner=won,
        base=base,
        residual=residual,
        held=report(won.model, bound, measured=on_held[winner], some=pairs, **at(held, won)),
        calibration=pair_scores(won.model, bound, **at(validation, won)),
        training_value=measured(won, training[:TRAINING_ROWS], CALIBRATION_PAIRS)[0].recalibrated,
        measured=on_held,
        seconds={name: c.seconds for name, c in fitted.items()},
        history=[
            {"critic": name, **dataclasses.asdict(c.history)}
            for name, c in fitted.items()
            if c.history and c.history.step
        ],
        interrupted=any(c.interrupted for c in fitted.values()),
    )


def best(values: dict[str, np.ndarray], groups: np.ndarray | None) -> str:
    """The last name whose FLO bound is higher than the best before it by more than one standard error of the difference."""
    names = list(values)
    top = names[0]
    for name in names[1:]:
        gain = values[name] - values[top]
        if np.isfinite(values[name]).all() and gain.mean() > mean_stderr(gain, groups):
            top = name
    return top
