"""A finished run: its options, its rows and its folds, and what several of a result's numbers need of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flomi.critics import CRITICS
from flomi.critics.base import Critic, Formula
from flomi.critics.table import TrainingRows
from flomi.crossfit.fold import Fold
from flomi.crossfit.options import Options
from flomi.crossfit.training_rows import training_rows
from flomi.data.pairs import Pairs
from flomi.inference.influence import Array, mean_stderr, within_folds
from flomi.inference.row_diagnostics import describe_rows
from flomi.inference.sight import limits
from flomi.inference.u_statistic import Summary, pooled
from flomi.preprocess import IndependentColumns


@dataclass
class FinishedRun:
    """What the numbers of a result are made of, each part worked out once.

    `x`, `y` are all rows in random order, `order`, since what looks at every fourth row, or at the first ones, must not depend
    on the order of the file; less the columns that are combinations of others, `columns` being those of x and y that stay.
    """

    options: Options
    data: Pairs
    folds: list[Fold]
    order: np.ndarray = field(init=False)
    x: Tensor = field(init=False)
    y: Tensor = field(init=False)
    columns: Tensor = field(init=False)
    formulas: dict[str, tuple[Formula, Critic]] = field(default_factory=dict)  # fitted once each

    def __post_init__(self) -> None:
        self.order = np.random.default_rng(self.options.seed).permutation(len(self.data.x))
        x, y = (torch.from_numpy(v[self.order]).flatten(1) for v in (self.data.x, self.data.y))
        of_x, of_y = (IndependentColumns.fit(v).columns for v in (x, y))
        self.x, self.y, self.columns = x[:, of_x], y[:, of_y], torch.cat([of_x, of_y + x.shape[1]])

    @cached_property
    def total(self) -> Summary:
        return pooled([fold.won.summary for fold in self.folds])

    @cached_property
    def fold_of_row(self) -> np.ndarray:
        """[n] which fold tested the row; -1 where none was finished."""
        found = np.full(len(self.data.x), -1)
        for k, fold in enumerate(self.folds):
            found[fold.test] = k
        return found

    def by_row(self, name: str, part: str = "won") -> Array:
        """[n] a field of the folds' reports or winners' evaluations, in the order of the rows; NaN where no fold was finished."""
        found = np.full(len(self.data.x), np.nan)
        for fold in self.folds:
            found[fold.test] = getattr(getattr(fold, part), name)
        return found

    def influence(self, values: Array, estimate: float) -> Array:
        return within_folds(values, self.fold_of_row, estimate, self.data.groups)

    @property
    def tested(self) -> np.ndarray:
        return self.fold_of_row >= 0

    def stderr(self, influence: Array) -> float:
        """Of the mean of influence values [n], clustered by group."""
        groups = None if self.data.groups is None else self.data.groups[self.tested]
        return mean_stderr(influence[self.tested], groups)

    @cached_property
    def units(self) -> int:
        """How many rows, or groups of them, are independent."""
        return len(self.data.x) if self.data.groups is None else len(np.unique(self.data.groups))

    @cached_property
    def sight(self) -> dict[str, float]:
        """What would have been seen, by kind of dependence; of the default candidates alone that is known."""
        return {} if self.options.critics else limits(self.units, self.x.shape[1], self.y.shape[1])

    @cached_property
    def regular(self) -> bool:
        """Whether columns are continuous and rows independent."""
        return self.data.groups is None and self.data.continuous

    @cached_property
    def rows(self) -> TrainingRows:
        return training_rows(self.data.x, self.data.y)

    def has_formula(self, name: str) -> bool:
        """Whether a candidate has a formula that serves here: formulas are meant for independent rows."""
        kind = CRITICS.get(name)
        return self.data.groups is None and kind is not None and kind.formula and kind.serves(self.rows)

    @cached_property
    def values(self) -> dict[str, Array]:
        """FLO bound by test row, by candidate: 0 where a fold does without one, as it found nothing there or could not compete;
        of folds that were interrupted only those that all have."""
        every = dict.fromkeys(k for fold in self.folds for k in fold.evaluations)
        if any(fold.interrupted for fold in self.folds):
            every = {k: None for k in every if all(k in fold.evaluations for fold in self.folds)}
        return {
            k: np.concatenate(
                [fold.evaluations[k].values if k in fold.evaluations else np.zeros(fold.test.size) for fold in self.folds]
            )
            for k in every
        }  # fmt: skip

    @cached_property
    def groups_of_values(self) -> np.ndarray | None:
        if self.data.groups is None:
            return None
        found: np.ndarray = self.data.groups[np.concatenate([fold.test for fold in self.folds])]
        return found

    def formula(self, name: str, *, full: bool = True) -> Formula:
        """A row's own formula on all rows; with `full` on those of a larger file too, where it can be summed over them."""
        if name not in self.formulas:
            fit = CRITICS[name].fit
            assert fit is not None  # whoever has a formula is fitted in closed form
            critic = fit(self.x, self.y)
            self.formulas[name] = critic.formula, critic
        form, critic = self.formulas[name]
        larger, of_correlation = self.data.full, CRITICS[name].of_correlation
        if not full or of_correlation is None or larger is None or larger.correlation is None:
            return form
        pmi = critic(self.x, self.y)
        whole = of_correlation(
            torch.from_numpy(larger.correlation)[self.columns][:, self.columns], self.x.shape[1], larger.rows,
            float(pmi.var()),
        )  # fmt: skip
        # the rows at hand stand for all: their values get the spread that is the sampling error of all
        sampling = math.sqrt(max(0.0, whole.stderr**2 - whole.second_order**2 - whole.model**2))
        method = f"{whole.method}, from all {larger.rows:,} rows"
        return Formula.of_rows(
            whole.mi, whole.bias, method, form.influence, sampling=sampling, second_order=whole.second_order,
            model=whole.model,
        )  # fmt: skip

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the rows themselves say."""
        x, y = (v.reshape(len(v), -1) for v in (self.data.x, self.data.y))
        return describe_rows(x, y, self.data.groups)

    def in_order(self, influence: Tensor) -> Array:
        """Values [n] of the mixed rows, in the order of the rows."""
        found = np.empty(len(influence))
        found[self.order] = influence.double().numpy()
        return found
