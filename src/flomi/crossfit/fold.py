"""One fold, downwards: fit the candidates to training rows, select on validation rows, evaluate on test rows."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from flomi.critics import CRITICS
from flomi.critics.table import CriticKind
from flomi.crossfit.evaluate import Evaluation, Report, evaluate, pair_scores, report
from flomi.crossfit.options import Options
from flomi.crossfit.select import one_standard_error_rule
from flomi.crossfit.splits import Split
from flomi.inference.certificate import PairScores
from flomi.parallel import check_stop
from flomi.scores import Table
from flomi.support.settings import UNMEASURED, setting
from flomi.training.candidate import Candidate, fit, seed_of
from flomi.training.ensemble import Gain
from flomi.training.model import Model

Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class FoldSettings:
    """How a fold measures its candidates."""

    nothing: float = setting(
        1e-6,
        "nats, above rounding in single precision: a candidate whose every value is below is the null critic again",
    )
    training_rows: int = setting(1500, f"{UNMEASURED}on which the winner's training value is measured")
    validation_pairs: int = setting(
        250_000, f"{UNMEASURED}of the validation rows, which select and calibrate"
    )
    optimism: float = setting(
        0.05,
        f"{UNMEASURED}nats: a base that fits its own rows so much better than others leaves networks nothing to learn from",
    )
    below_batch: float = setting(
        1.0,
        "nats below the log of a batch, beyond which a few pairs carry what networks gain, and no fold relies on it",
    )


SETTINGS = FoldSettings()


@dataclass
class Fold:
    """One finished fold: the winner, and what was measured on the fold's own rows.

    `gains` is what networks added to their base, `bases` which candidate that was, where it was one; `training_value` the
    winner's Donsker-Varadhan value on rows that it was trained on; `left_out`: of what scores them, where the critic can do that.
    """

    test: np.ndarray
    winner: Candidate
    gains: dict[str, Gain]
    bases: dict[str, str]
    report: Report
    calibration: PairScores
    training_value: float
    left_out: bool
    evaluations: dict[str, Evaluation]
    seconds: dict[str, float]
    history: list[dict[str, Any]]
    interrupted: bool

    @property
    def won(self) -> Evaluation:
        """The winner's evaluation on test rows."""
        return self.evaluations[self.winner.name]


@dataclass
class _Fitted:
    """What a fold has fitted so far, by label: the candidates, and the FLO bound on validation rows, by row and in the mean."""

    candidates: dict[str, Candidate]
    values: dict[str, np.ndarray]
    means: dict[str, float]
    base: str | None = None

    @property
    def interrupted(self) -> bool:
        return any(c.interrupted for c in self.candidates.values())


def run_fold(
    critics: Mapping[str, str | nn.Module],
    options: Options,
    data: Rows,
    split: Split,
    *,
    pairs: int,
    most_pairs: int,
    seed: int,
    groups: np.ndarray | None = None,
    progress: str | None = None,
) -> Fold:
    """Fit every critic, in order of complexity; select by the one-standard-error rule; evaluate all on the fold's test rows.

    A closed form that was selected is fitted again to training and validation rows, and so is the one that networks stand on.
    """
    work = _Work(options, data, split, pairs, most_pairs, seed, groups, progress)
    fitted, winner = _fit_and_select(work, critics)
    won = fitted.candidates[winner]
    evaluations: dict[str, Evaluation] = {}
    scored: Table | None = None
    for (
        name,
        candidate,
    ) in fitted.candidates.items():  # only the winner's pairs are kept, which are most of the memory
        evaluations[name], some = work.evaluate(candidate, split.test, pairs)
        scored = some if name == winner else scored
    training_value = getattr(won.model.critic, "left_out", None)
    left_out = training_value is not None
    if training_value is None:
        seen = split.training[: SETTINGS.training_rows]
        training_value = work.evaluate(won, seen, SETTINGS.validation_pairs)[0].donsker_varadhan
    return Fold(
        test=split.test,
        winner=won,
        gains={name: c.gain for name, c in fitted.candidates.items() if c.gain is not None},
        bases={name: c.base for name, c in fitted.candidates.items() if c.base in fitted.candidates},
        report=report(
            won.model, options.bound, evaluation=evaluations[winner], some=scored, **work.at(split.test, won)
        ),
        calibration=pair_scores(won.model, options.bound, **work.at(split.validation, won)),
        training_value=training_value,
        left_out=left_out,
        evaluations=evaluations,
        seconds={name: c.seconds for name, c in fitted.candidates.items()},
        history=[
            {"critic": name, **dataclasses.asdict(c.history)}
            for name, c in fitted.candidates.items()
            if c.history and c.history.step
        ],
        interrupted=fitted.interrupted,
    )


@dataclass(frozen=True)
class _Work:
    """What is the same for all candidates of a fold."""

    options: Options
    data: Rows
    split: Split
    pairs: int
    most_pairs: int
    seed: int
    groups: np.ndarray | None
    progress: str | None

    def at(self, rows: np.ndarray, candidate: Candidate) -> dict[str, Any]:
        x, y = self.data
        prepared = candidate.prepared(x[rows], y[rows])
        return {"rows": prepared, "seed": self.seed, "groups": self.labels(rows)}

    def labels(self, rows: np.ndarray) -> np.ndarray | None:
        return None if self.groups is None else self.groups[rows]

    def evaluate(self, candidate: Candidate, rows: np.ndarray, pairs: int) -> tuple[Evaluation, Table | None]:
        most = max(pairs, self.most_pairs)
        return evaluate(
            candidate.model, self.options.bound, pairs=pairs, most=most, **self.at(rows, candidate)
        )

    def fit(
        self,
        label: str,
        critic: str | nn.Module,
        rows: np.ndarray,
        base: Candidate | None = None,
    ) -> Candidate:
        check_stop()
        (x, y), validation = self.data, self.split.validation
        key = label if isinstance(critic, str) else label.replace(type(critic).__name__, "own", 1)
        return fit(
            critic, self.options.bound, (x[rows], y[rows]), (x[validation], y[validation]), self.options.fit,
            label=label, seed=seed_of(self.seed, key), base=base, groups=self.labels(np.concatenate([rows, validation])),
            progress=None if self.progress is None else f"{self.progress}, {label}",
        )  # fmt: skip


def _fit_and_select(work: _Work, critics: Mapping[str, str | nn.Module]) -> tuple[_Fitted, str]:
    """All candidates, and the label of the one selected."""
    split, fitted = work.split, _Fitted({}, {}, {})
    ensembles = {label: critic for label, critic in critics.items() if _is_ensemble(critic)}
    for label, critic in critics.items():
        if label in ensembles:
            continue
        candidate = work.fit(label, critic, split.training)
        values = work.evaluate(candidate, split.validation, SETTINGS.validation_pairs)[0].values
        if fitted.candidates and np.abs(values).max() < SETTINGS.nothing:
            continue
        fitted.candidates[label], fitted.values[label] = candidate, values
        fitted.means[label] = float(values.mean())
        if candidate.interrupted:
            break
    labels = work.labels(split.validation)
    winner = one_standard_error_rule(fitted.values, labels) if fitted.values else None
    if ensembles:
        bases = {label: v for label, v in fitted.values.items() if _may_be_base(fitted.candidates[label])}
        fitted.base = one_standard_error_rule(bases, labels) if bases else None
    if fitted.interrupted:
        assert winner is not None  # whoever was interrupted has values
        return fitted, winner
    for chosen in {winner, fitted.base} - {None}:
        kind = _kind(critics[str(chosen)])
        if kind is not None and kind.fit is not None:
            both = np.concatenate([split.training, split.validation])
            fitted.candidates[str(chosen)] = work.fit(str(chosen), critics[str(chosen)], both)
    for label, critic in ensembles.items():
        winner = _add_ensemble(work, fitted, label, critic, winner)
    assert winner is not None  # there is one critic at least
    return fitted, winner


def _add_ensemble(
    work: _Work, fitted: _Fitted, label: str, critic: str | nn.Module, winner: str | None
) -> str:
    """Networks on a base, and who wins then: they do where they gain more than a standard error beyond the winner so far."""
    kind = _kind(critic)
    on_selected = kind is not None and kind.ensemble is not None and kind.ensemble.fallback is not None
    base = fitted.base if on_selected else None
    stands_on = None if base is None else fitted.candidates[base]
    candidate = work.fit(label, critic, work.split.training, stands_on)
    fitted.candidates[label] = candidate
    assert candidate.gain is not None  # fit gives every candidate with a base its gain
    if base is not None:
        mean = fitted.means[base]
    else:  # a base of its own
        alone = dataclasses.replace(
            candidate, model=Model(cast(nn.Module, candidate.model.critic.base), (), None)
        )
        mean = float(work.evaluate(alone, work.split.validation, SETTINGS.validation_pairs)[0].values.mean())
    fitted.means[label] = mean + candidate.gain.validation
    if winner is None:
        return label
    beyond = fitted.means[label] - fitted.means[winner]
    reliable = mean < math.log(work.options.fit.ensemble.batch) - SETTINGS.below_batch
    return label if reliable and beyond > candidate.gain.stderr else winner


def _kind(critic: str | nn.Module) -> CriticKind | None:
    return CRITICS[critic] if isinstance(critic, str) else None


def _is_ensemble(critic: str | nn.Module) -> bool:
    kind = _kind(critic)
    return kind is not None and kind.ensemble is not None


def _may_be_base(candidate: Candidate) -> bool:
    kind = CRITICS.get(candidate.name)
    optimism = getattr(candidate.model.critic, "optimism", 0.0)
    return kind is not None and kind.base and float(optimism) <= SETTINGS.optimism
