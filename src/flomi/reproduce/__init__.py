"""The paper's experiments, each with its data, run, table and figure, those that its claims need, and further uses of MI.

    EXPERIMENTS["bias-variance"]       the record of one; `flomi reproduce bias-variance` runs it from the shell

Guo et al., "Tight Mutual Information Estimation With Contrastive Fenchel-Legendre Optimization", NeurIPS 2022.
A new experiment: a generator of rows, what draws them and what compares them, and its record in this table.
"""

from __future__ import annotations

from flomi.reproduce import (
    architectures,
    batch_size,
    bivariate,
    classical,
    convergence,
    cross_view,
    design,
    fairness,
    framework,
    ica,
    information_bottleneck,
    meta_learning,
    self_supervised,
    staircase,
    sweep,
)
from flomi.reproduce.core import Experiment, Finding, is_complete, run, write

__all__ = ["EXPERIMENTS", "Experiment", "Finding", "is_complete", "run", "write"]

_ALL = (
    bivariate.BOUND_VS_TRUTH,
    bivariate.LANDSCAPE,
    sweep.BIAS_VARIANCE,
    sweep.CUBIC,
    sweep.SINGLE_NEGATIVE,
    architectures.SHARED_VS_SEPARATE,
    architectures.BILINEAR_SPEED,
    architectures.DEPTH,
    classical.EXPERIMENT,
    staircase.EXPERIMENT,
    convergence.EXPERIMENT,
    batch_size.EXPERIMENT,
    framework.EXPERIMENT,
    fairness.EXPERIMENT,
    cross_view.EXPERIMENT,
    design.EXPERIMENT,
    self_supervised.SELF_SUPERVISED,
    self_supervised.PRECISION,
    information_bottleneck.EXPERIMENT,
    ica.EXPERIMENT,
    meta_learning.EXPERIMENT,
)

EXPERIMENTS: dict[str, Experiment] = {experiment.name: experiment for experiment in _ALL}
