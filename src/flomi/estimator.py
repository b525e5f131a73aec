"""`estimate` and `MIEstimator`: what a user calls. crossfit/ does the work, result.py holds the answer.

The rows are cut into folds. For each fold the critics are trained on some of the other rows, stopped and chosen on the rest
of them, and evaluated on the fold. So every row is evaluated by a model that saw it neither in training, nor in validation,
nor in preprocessing.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from flomi.bounds import Bound, Scores
from flomi.crossfit.assemble import assemble
from flomi.crossfit.options import Options
from flomi.crossfit.run import cross_fit
from flomi.crossfit.storage import Fitted, load, save
from flomi.data.columns import list_names
from flomi.data.pairs import Pairs, from_arrays, new_rows
from flomi.result import MIEstimate
from flomi.scores import shifts
from flomi.support.names import suggestion
from flomi.support.settings import UNMEASURED, setting

__all__ = ["MIEstimate", "MIEstimator", "estimate"]


@dataclass(frozen=True)
class ScoreSettings:
    """What `score` and `pmi` of new rows rest on."""

    pairs: int = setting(4_000_000, f"{UNMEASURED}that do not match, in the mean of e^p of `score`")
    calibration: int = setting(
        500_000, f"{UNMEASURED}of the rows of `fit`, over which e^p of `pmi` is made to average 1"
    )


SETTINGS = ScoreSettings()


def estimate(x: Any, y: Any, *, groups: Any = None, **options: Any) -> MIEstimate:
    r"""Mutual information between x and y, with its standard error, a certificate and a verdict.

    .. math:: I(X; Y) = E\left[\log \frac{p(x, y)}{p(x)\,p(y)}\right] \ge E\left[1 - u - e^{-u} E_{y'} e^{g(x,y') - g(x,y)}\right]

    x, y: arrays, tensors, DataFrames or Series, [n], [n, d] or [n, ...]; row i of x belongs to row i of y. `groups` [n]
    marks rows that belong together, which are kept in one fold. `options` are those of `MIEstimator`, `units`
    among them. Raises ValueError or TypeError, saying what was found and what to do, for unusable input.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=2000)
    >>> r = estimate(x, x + rng.normal(size=2000), critic="gaussian")  # the truth is log(2) / 2 = 0.347
    >>> abs(r.mi - 0.347) < 0.05
    True
    """
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(_unknown(name, "groups", *_OPTIONS))
    if options.get("keep_scores"):
        raise ValueError(
            "estimate returns no scores to keep; fit MIEstimator(keep_scores=True), whose test_scores_ has them"
        )
    return MIEstimator(**options).fit(x, y, groups=groups).result_


class MIEstimator:
    """Cross-fitted estimator in scikit-learn's manner: options in the constructor, `fit`, then what was learned.

    critic: "auto" (several compete), a name in `critics.CRITICS`, your nn.Module whose forward(x, y)
    returns g [n] (it gets the rows as they are, in float32, and starts every fold afresh), or a list of names and modules,
    which then compete. bound: a name in `bounds.BOUNDS`, a `Bound`, or one function of `Scores` that returns [n] values to
    maximise. effort: "fast", "standard" or "thorough": seconds, up to about a minute, or as long as it helps, for 10,000
    rows on two cores; the options from `n_folds` on replace what it sets. Those from `hidden` on, and preprocess, are for
    networks trained by the bound itself, such as critic="joint", and an error elsewhere. preprocess: "rank" (normal scores
    of the ranks, then whitened), "standardize" or "none". precision="medium" lets their steps multiply in bfloat16 where
    the processor can, which is faster in wide layers; what is judged is judged in float32. missing="drop" leaves out rows
    with a missing or infinite value and says so. Folds of critic="auto" share one process, as many at a time as torch has
    threads; n_jobs runs folds in processes of their own, -1 in one a core. progress shows a bar. checkpoint is a folder in
    which finished folds are kept: the same call goes on from there after any interruption, and ends in the same numbers.
    level is that of the interval and the certificate. folds cuts the rows your way: labels [n] (such as the `folds` of
    another result), pairs (training rows, test rows), or a scikit-learn splitter; every row is tested once. keep_scores
    keeps the scores of test rows as `test_scores_`.

    Learned: `result_` (an `MIEstimate`), `critics_` (each fold's winning model). The same seed on the same machine and
    thread count gives the same bits. Raises ValueError or TypeError in `fit` for options and data that can't be used.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(500, 2))
    >>> est = MIEstimator(critic="gaussian", n_folds=2).fit(x, x + rng.normal(size=(500, 2)))
    >>> est.pmi(x[:3], x[:3]).shape
    (3,)
    """

    def __init__(
        self,
        critic: str | nn.Module | Sequence[str | nn.Module] = "auto",
        bound: str | Bound | Callable[[Scores], Tensor] = "flo",
        *,
        effort: Literal["fast", "standard", "thorough"] = "standard",
        seed: int = 0,
        units: Literal["nats", "bits"] = "nats",
        device: str = "cpu",
        preprocess: Literal["rank", "standardize", "none"] = "rank",
        missing: Literal["error", "drop"] = "error",
        n_jobs: int = 1,
        progress: bool = False,
        checkpoint: str | Path | None = None,
        level: float = 0.95,
        folds: Any = None,
        keep_scores: bool = False,
        n_folds: int | None = None,
        eval_pairs: int | None = None,
        hidden: Sequence[int] | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        negatives: str | None = None,
        n_negatives: int | None = None,
        patience: int | None = None,
        precision: Literal["highest", "high", "medium"] | None = None,
    ) -> None:
        self.critic = critic
        self.bound = bound
        self.effort = effort
        self.seed = seed
        self.units = units
        self.device = device
        self.preprocess = preprocess
        self.missing = missing
        self.n_jobs = n_jobs
        self.progress = progress
        self.checkpoint = checkpoint
        self.level = level
        self.folds = folds
        self.keep_scores = keep_scores
        self.n_folds = n_folds
        self.eval_pairs = eval_pairs
        self.hidden = hidden
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.negatives = negatives
        self.n_negatives = n_negatives
        self.patience = patience
        self.precision = precision

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The options, as scikit-learn's `clone` and searches read them."""
        return {name: getattr(self, name) for name in _OPTIONS}

    def set_params(self, **options: Any) -> MIEstimator:
        """Replace options; raises ValueError for one that does not exist."""
        for name, value in options.items():
            if name not in _OPTIONS:
                raise ValueError(_unknown(name, *_OPTIONS))
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        given = ((name, repr(value)) for name, value in self.get_params().items())
        changed = [f"{name}={text}" for name, text in given if text != repr(_OPTIONS[name].default)]
        return f"MIEstimator({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        # not inherited from BaseEstimator, since importing it takes as long as torch does
        from sklearn.utils import Tags, TargetTags

        return Tags(estimator_type=None, target_tags=TargetTags(required=True))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "result_")

    def fit(self, x: Any, y: Any, groups: Any = None) -> MIEstimator:
        """Cross-fit on paired rows; `result_` is then the `MIEstimate`, `critics_` the folds' models."""
        start = time.perf_counter()
        options = Options.of(self.get_params(), _DEFAULTS)
        x, y = _collected(x), _collected(y)
        return self._fit(options, from_arrays(x, y, groups=groups, missing=self.missing), len(x), start)

    def fit_pairs(self, pairs: Pairs, *, ranks: bool = False) -> MIEstimator:
        """`fit` on rows that `flomi.data.read` or `flomi.streaming.read` took from files; row i of `pmi` is row pairs.rows[i].

        ranks: share the folds with the other processes of torch.distributed's default group. All must call this, with the
        same options and pairs, and all end with the same result, which is that of one process.
        """
        options = Options.of(self.get_params(), _DEFAULTS)
        return self._fit(options, pairs, len(pairs.x), time.perf_counter(), ranks)

    def _fit(self, options: Options, data: Pairs, n: int, start: float, ranks: bool = False) -> MIEstimator:
        folds = cross_fit(options, data, ranks=ranks)
        result = assemble(options, data, folds, time.perf_counter() - start)
        self.critics_ = [fold.winner for fold in folds]
        self.columns_ = (data.x_names, data.y_names)
        vars(self).pop("test_scores_", None)  # of an earlier fit
        if options.keep_scores:
            self.test_scores_ = [(data.rows[fold.test], fold.report.scores) for fold in folds]
        _, negative = self._scores(torch.from_numpy(data.x), torch.from_numpy(data.y), SETTINGS.calibration)
        self.log_normaliser_ = float(torch.logsumexp(negative.flatten(), 0)) - math.log(negative.numel())
        self.result_ = (result.spread(data.rows, n) if n > result.n else result).to(self.units)
        return self

    def pmi(self, x: Any, y: Any) -> np.ndarray:
        """Pointwise MI [n] of new rows, nats: the folds' scores averaged in log space, recalibrated on the training rows."""
        positive, _ = self._scores(*self._rows(x, y), 0)
        return np.asarray(positive - self.log_normaliser_)

    def score(self, x: Any, y: Any) -> float:
        r"""FLO bound of the fitted score p on new rows, nats: a lower bound on I in expectation.

        .. math:: E[p] + 1 - E_{y'}[e^{p(x, y')}]
        """
        rows = self._rows(x, y)
        if len(rows[0]) < 2:
            raise ValueError(
                "score compares rows with each other and needs 2 at least; found 1: use pmi(x, y) for it"
            )
        positive, negative = self._scores(*rows, SETTINGS.pairs)
        return float(
            positive.mean() - self.log_normaliser_ + 1 - torch.exp(negative - self.log_normaliser_).mean()
        )

    @torch.no_grad()
    def _scores(self, x: Tensor, y: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
        """The folds' PMI scores, averaged: of aligned rows [n], and of about `pairs` pairs that do not match [n, m]."""
        n = len(x)
        m = min(n - 1, max(1, pairs // n)) if pairs else 0
        columns = shifts(n, m, torch.Generator().manual_seed(int(self.seed)))
        parts = [candidate.scores(x, y, columns) for candidate in self.critics_]
        positive, negative = (torch.stack(part).mean(0) for part in zip(*parts, strict=True))
        return positive, negative

    def save(self, path: str | Path) -> Path:
        """Write the fitted estimator as a folder of safetensors and JSON; returns its path."""
        self._check_fitted()
        fitted = Fitted(self.get_params(), self.result_, self.critics_, self.columns_, self.log_normaliser_)
        return save(fitted, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, critic: Any = None, bound: Any = None) -> MIEstimator:
        """Read what `save` wrote. Your own critics (one, or the list that was given) or bound have to be given again, since no
        code is stored."""
        fitted = load(Path(path), critic, bound)
        try:
            estimator = cls(**fitted.options)
        except TypeError as error:
            raise ValueError(f"{path} can't be read as a saved estimator: {error}") from error
        estimator.critics_, estimator.columns_ = fitted.critics, fitted.columns
        estimator.log_normaliser_ = fitted.log_normaliser
        estimator.result_ = fitted.result.to(estimator.units)
        return estimator

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            from sklearn.exceptions import NotFittedError  # a ValueError

            raise NotFittedError("this MIEstimator is not fitted yet: call fit(x, y) first")

    def _rows(self, x: Any, y: Any) -> tuple[Tensor, Tensor]:
        self._check_fitted()
        x, y = _collected(x), _collected(y)
        fitted, arrays = self.critics_[0], new_rows(x, y)
        shapes = (fitted.shape_x, fitted.shape_y)
        for name, given, array, shape, columns in zip(
            "xy", (x, y), arrays, shapes, self.columns_, strict=True
        ):
            if array.shape[1:] != shape:
                raise ValueError(
                    f"{name} has rows of shape {array.shape[1:]}; this estimator was fitted on rows of shape {shape}"
                )
            names = tuple(map(str, getattr(given, "columns", columns)))
            if names != columns and sorted(names) == sorted(columns):
                raise ValueError(
                    f"{name} has the columns of fit in another order; put them in that of fit: {list_names(columns)}"
                )
        return torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])


def _collected(data: Any) -> Any:
    """The rows of a lazy frame, of polars for example, which has no length before."""
    return data.collect() if type(data).__name__ == "LazyFrame" else data


def _unknown(name: str, *known: str) -> str:
    return f"{name!r} is no option; {suggestion(name, known)}"


_OPTIONS = inspect.signature(MIEstimator).parameters
_DEFAULTS = {name: option.default for name, option in _OPTIONS.items()}
