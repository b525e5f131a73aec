"""Regression first, then the local ratio of what is left: columns of one side against what the other side predicts of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flomi.critics.base import Critic, rebuilt, under
from flomi.critics.kernel_ridge import RegressionCritic
from flomi.critics.paired_columns import MatchedCritic


class PredictedCritic(Critic):
    r"""Sum of local critics between f(s) and t, the regression of `RegressionCritic`, column by column.

    .. math:: g(x, y) = \sum_k \mathrm{PMI}_k(f_k(s), t_k) - c

    By the data processing inequality I(f(s); t) <= I(s; t): of what the regression finds, the local critics keep the direction
    and drop its Gaussian noise, so that noise of another shape, its size, and several values of t at one f(s) count too. The
    critics are fitted to predictions that leave each row out. x: [n, dim_x], y: [n, dim_y], float64. u = -g.

    >>> import torch
    >>> x = torch.randn(2000, 2).double()
    >>> y = x.prod(1, keepdim=True).sign() * torch.rand(2000, 1)
    >>> float(PredictedCritic.fit(x, y)(x, y).mean()) > 0.3
    True
    """

    row = "predicted"

    regression: RegressionCritic
    matched: MatchedCritic

    def __init__(self, regression: RegressionCritic, matched: MatchedCritic) -> None:
        super().__init__(regression=regression, matched=matched)

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> PredictedCritic:
        regression, predicted, t = RegressionCritic.with_predictions(x, y)
        return cls(regression, MatchedCritic.fit(predicted, t))

    @classmethod
    def restore(cls, state: dict[str, Tensor], sizes: dict[str, Any]) -> PredictedCritic:
        return cls(
            rebuilt(RegressionCritic, under(state, "regression.")),
            MatchedCritic.restore(under(state, "matched."), {}),
        )

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        of_prediction, of_column = self.matched.encode(*self.regression.prediction(x, y))
        return (of_prediction, of_column) if self.regression.from_x else (of_column, of_prediction)

    def pairs(self, a: Tensor, b: Tensor) -> Tensor:
        return self.matched.pairs(*((a, b) if self.regression.from_x else (b, a)))

    def matrix(self, a: Tensor, b: Tensor) -> Tensor:
        return self.matched.matrix(a, b) if self.regression.from_x else self.matched.matrix(b, a).T
