"""The one table of critics, and which of them are tried by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from flomi.critics.base import Critic, Formula, under
from flomi.critics.contingency import SETTINGS as TABLE
from flomi.critics.contingency import ContingencyCritic
from flomi.critics.copula import SETTINGS as COPULA
from flomi.critics.copula import EllipticalCritic, NullCritic, of_correlation
from flomi.critics.density import ConditionalGaussian
from flomi.critics.features import ExpandedCritic
from flomi.critics.forest import SETTINGS as FOREST
from flomi.critics.forest import ForestCritic
from flomi.critics.kernel_density import SETTINGS as LOCAL
from flomi.critics.kernel_density import LocalCritic
from flomi.critics.kernel_ridge import RegressionCritic
from flomi.critics.logistic import SETTINGS as LOGISTIC
from flomi.critics.logistic import LogisticCritic
from flomi.critics.mixture import SETTINGS as MIXTURE
from flomi.critics.mixture import MixtureCritic
from flomi.critics.networks import JointCritic, QuadraticCritic, SeparableCritic, SeparateCritic, SumCritic
from flomi.critics.paired_columns import MatchedCritic
from flomi.critics.predicted_columns import PredictedCritic
from flomi.critics.residual import QuadraticNetwork, ResidualCritic
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class CandidateSettings:
    regression_rows: int = setting(100, f"{UNMEASURED}from which on kernel ridge regression is tried")
    rows_per_column: int = setting(
        10,
        f"{UNMEASURED}from which on the regression, and the expanded form, have fewer parameters than rows can fit",
    )
    forest_rows: int = setting(100, f"{UNMEASURED}from which on a forest is tried")
    paired_rows: int = setting(100, f"{UNMEASURED}from which on sums of local critics are tried")
    mixture_rows: int = setting(100, f"{UNMEASURED}from which on a Gaussian mixture is tried")


SETTINGS = CandidateSettings()


@dataclass(frozen=True)
class TrainingRows:
    """What the choice of candidates may look at: how many rows a fold trains on, their columns, whether all of these take
    many values, none of them often, and of a side of which none does how many different rows it has."""

    n: int
    dim_x: int
    dim_y: int
    continuous: bool
    levels_x: int | None = None
    levels_y: int | None = None

    @property
    def columns(self) -> int:
        return self.dim_x + self.dim_y


@dataclass(frozen=True)
class Ensemble:
    """Networks on a base: the selected critic, or what `fallback` fits where there is none; or one that training learns from
    `untrained` (x, y, seed), and that `restore` rebuilds."""

    fallback: Callable[[Tensor, Tensor], Critic] | None = None
    untrained: Callable[[Tensor, Tensor, int], QuadraticNetwork] | None = None
    restore: Callable[[dict[str, Tensor], dict[str, Any]], Critic] | None = None


def _never(rows: TrainingRows) -> bool:
    return False


def _continuous(rows: TrainingRows) -> bool:
    return rows.continuous


@dataclass(frozen=True)
class CriticKind:
    """One row of `CRITICS`: a network to `build` from (dim_x, dim_y, hidden), a closed form to `fit` to rows (x, y), or an
    `ensemble` of networks on a base.

    `competes` says of rows whether it is a default candidate there, and `costly` that an effort may leave it out; `negatives` is
    the scheme that training can afford; `formula`: `critic.formula` is an estimate of its own where `serves` says so of the rows,
    and `of_correlation` the same for rows that are not in memory; `base`: networks may stand on it; `density`: g is log q(y|x);
    `reference`: the simplest dependence, which others are compared with; `null`: independence; `shape_free`: it takes any shape
    of dependence, so that none is missed; `least_rows` are needed to train on; `restore` rebuilds a fitted one from its tensors
    and `sizes`.
    """

    name: str
    about: str
    build: Callable[[int, int, Sequence[int]], nn.Module] | None = None
    fit: Callable[[Tensor, Tensor], Critic] | None = None
    ensemble: Ensemble | None = None
    competes: Callable[[TrainingRows], bool] = _never
    negatives: str = "shifts"
    formula: bool = False
    serves: Callable[[TrainingRows], bool] = _continuous
    base: bool = False
    density: bool = False
    costly: bool = False
    reference: bool = False
    null: bool = False
    shape_free: bool = False
    of_correlation: Callable[[Tensor, int, int, float], Formula] | None = None
    least_rows: int = 10
    restore: Callable[[dict[str, Tensor], dict[str, Any]], Critic] | None = None


def _joint(dim_x: int, dim_y: int, hidden: Sequence[int]) -> nn.Module:
    return SumCritic(JointCritic(dim_x, dim_y, hidden), QuadraticCritic(dim_x, dim_y))


def _restore_on_base(state: dict[str, Tensor], sizes: dict[str, Any]) -> Critic:
    below = CRITICS[sizes["base"]]
    restore = below.ensemble.restore if below.ensemble else below.restore
    if restore is None:
        raise ValueError(f"no network stands on the critic {below.name}")
    return ResidualCritic.on_base(state, sizes, restore(under(state, "base."), sizes.get("base_sizes", {})))


def _always(rows: TrainingRows) -> bool:
    return True


def _any_shape(rows: TrainingRows) -> bool:
    """Whether the local critic serves: it takes any shape, so that nothing else is worth its time there."""
    return rows.dim_x == rows.dim_y == 1 and rows.n >= LOCAL.least_rows and rows.continuous


def _tails(rows: TrainingRows) -> bool:
    return rows.n >= COPULA.rows_per_column * rows.columns


def _smooth(rows: TrainingRows) -> bool:
    least = max(SETTINGS.regression_rows, SETTINGS.rows_per_column * rows.columns)
    return rows.n >= least and not _any_shape(rows)


def _classes(rows: TrainingRows) -> bool:
    """Whether a side has few different rows, each often enough."""
    most = min(LOGISTIC.classes, rows.n // LOGISTIC.rows_per_class)
    return rows.n >= LOGISTIC.least_rows and any(
        levels is not None and 2 <= levels <= most for levels in (rows.levels_x, rows.levels_y)
    )


def _forest(rows: TrainingRows) -> bool:
    """Among continuous columns alone a forest won 1 of 100 random tasks of the first half, and took a third of the time."""
    narrow = min(rows.dim_x, rows.dim_y) <= FOREST.predicted
    return rows.n >= SETTINGS.forest_rows and narrow and not rows.continuous


def _paired(rows: TrainingRows) -> bool:
    return rows.n >= SETTINGS.paired_rows and not _any_shape(rows)


def _paired_and_smooth(rows: TrainingRows) -> bool:
    return rows.continuous and _paired(rows) and _smooth(rows)


def _clustered(rows: TrainingRows) -> bool:
    return rows.n >= SETTINGS.mixture_rows and rows.continuous and not _any_shape(rows)


def _few_values(rows: TrainingRows) -> bool:
    """Whether both sides are discrete, and the rows enough for a table of all pairs of values."""
    if rows.levels_x is None or rows.levels_y is None:
        return False
    return (rows.levels_x - 1) * (rows.levels_y - 1) <= TABLE.cells_per_row * rows.n


def _expanded(rows: TrainingRows) -> bool:
    return rows.n >= SETTINGS.rows_per_column * (rows.columns + 1) and not _any_shape(rows)


_KINDS = (  # closed forms in the order of complexity in which they are tried
    CriticKind(
        "null", "g = u = 0: x and y independent", fit=NullCritic.fit, competes=_always, formula=True, base=True, null=True,
        restore=NullCritic.restore,
    ),
    CriticKind(
        "gaussian", "Gaussian copula: exact PMI from canonical correlations", fit=EllipticalCritic.fit, competes=_always,
        formula=True, base=True, reference=True, of_correlation=of_correlation, restore=EllipticalCritic.restore,
    ),
    CriticKind(
        "student", "Student copula: the Gaussian's with tail dependence", fit=partial(EllipticalCritic.fit, heavy_tails=True),
        competes=_tails, formula=True, base=True, restore=EllipticalCritic.restore,
    ),
    CriticKind(
        "logistic", "class probabilities by logistic regression, for a side with few different rows", fit=LogisticCritic.fit,
        competes=_classes, base=True, least_rows=LOGISTIC.least_rows, restore=LogisticCritic.restore,
    ),
    CriticKind(
        "table", "table of how often values meet, for two discrete sides", fit=ContingencyCritic.fit, competes=_few_values,
        formula=True, serves=_few_values, base=True, restore=ContingencyCritic.restore,
    ),
    CriticKind(
        "local", "kernel density ratio, for one column against one", fit=LocalCritic.fit, competes=_any_shape, formula=True,
        base=True, shape_free=True, least_rows=LOCAL.least_rows, restore=LocalCritic.restore,
    ),
    CriticKind(
        "regression", "Gaussian around a smooth function of the other side, by kernel ridge regression",
        fit=RegressionCritic.fit, competes=_smooth, base=True, least_rows=50, restore=RegressionCritic.restore,
    ),
    CriticKind(
        "matched", "sum of local critics over columns that go together", fit=MatchedCritic.fit, competes=_paired, base=True,
        least_rows=LOCAL.least_rows, restore=MatchedCritic.restore,
    ),
    CriticKind(
        "predicted", "sum of local critics between columns and their predictions from the other side",
        fit=PredictedCritic.fit, competes=_paired_and_smooth, base=True, least_rows=LOCAL.least_rows,
        restore=PredictedCritic.restore,
    ),
    CriticKind(  # no base: its own rows it knows by heart
        "forest", "conditional density by a random forest's weights", fit=ForestCritic.fit, competes=_forest,
        least_rows=FOREST.least_rows, restore=ForestCritic.restore,
    ),
    CriticKind(
        "mixture", "Gaussian mixture of columns that go together, and its own marginals", fit=MixtureCritic.fit,
        competes=_clustered, base=True, least_rows=MIXTURE.least_rows, restore=MixtureCritic.restore,
    ),
    CriticKind(  # no base: networks have the same features
        "expanded", "Gaussian copula of normal scores, their norm and the products of the two", fit=ExpandedCritic.fit,
        competes=_expanded, costly=True, restore=ExpandedCritic.restore,
    ),
    CriticKind(
        "residual", "small networks on top of the best closed form",
        ensemble=Ensemble(fallback=partial(EllipticalCritic.fit, heavy_tails=True)),
        competes=lambda rows: not _any_shape(rows), restore=_restore_on_base,
    ),
    CriticKind(
        "network", "the same on top of a quadratic layer; every weight starts at random",
        ensemble=Ensemble(untrained=QuadraticNetwork.untrained, restore=QuadraticNetwork.restore), restore=_restore_on_base,
    ),
    CriticKind("joint", "perceptron on concat(x, y) with heads g and u, plus a quadratic form each", _joint),
    CriticKind("mlp", "the perceptron alone: two heads on a shared trunk, the paper's default", JointCritic),
    CriticKind("separate", "a perceptron for g and another for u", SeparateCritic),
    CriticKind("separable", "inner product of two encoders", SeparableCritic, negatives="all"),
    CriticKind(
        "bilinear", "inner product of unit-norm features over a learned temperature (FLO-BiL)",
        partial(SeparableCritic, unit_norm=True), negatives="all",
    ),
    CriticKind(
        "density", "log q(y|x), a mixture of Gaussians, for CLUB, L1Out and DoE", partial(ConditionalGaussian, components=4),
        competes=_always, negatives="all", density=True,
    ),
)  # fmt: skip

CRITICS: dict[str, CriticKind] = {kind.name: kind for kind in _KINDS}


def default_candidates(rows: TrainingRows, density: bool, costly: bool) -> tuple[str, ...]:
    """The names that are tried under critic="auto", simple ones first: models of the conditional `density` where the bound asks
    for one, and those that cost much time only if `costly`.

    >>> default_candidates(TrainingRows(1000, 1, 1, True), density=False, costly=True)
    ('null', 'gaussian', 'student', 'local')
    """
    return tuple(
        kind.name
        for kind in CRITICS.values()
        if kind.density == density and kind.competes(rows) and (costly or not kind.costly)
    )


def reference_kind() -> CriticKind:
    """The row of the simplest dependence, with which others are compared."""
    return next(kind for kind in CRITICS.values() if kind.reference)
