"""What estimators that need no training say of the same rows, beside the candidates."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from flomi.critics.nearest_neighbours import ksg
from flomi.critics.table import reference_kind
from flomi.inference.influence import mean_stderr
from flomi.preprocess import RankNormal
from flomi.support.settings import UNMEASURED, setting


@dataclass(frozen=True)
class NeighbourSettings:
    """Where nearest neighbours are asked: they are slow beyond, and read too low."""

    rows: int = setting(5000, f"{UNMEASURED}the first rows, in random order")
    dimensions: int = setting(4, f"{UNMEASURED}columns of the wider side")


SETTINGS = NeighbourSettings()


def second_opinions(x: Tensor, y: Tensor, *, reference: bool) -> tuple[tuple[str, float, float], ...]:
    """(words, nats, standard error) by estimator, for continuous columns and independent rows in random order.

    `reference`: whether to ask the reference model too, which is needless where it was a candidate.
    """
    found = []
    if reference:
        fit = reference_kind().fit
        assert fit is not None  # the simplest dependence is a closed form
        form = fit(x, y).formula
        found.append(("the correlations alone give", form.mi, form.stderr))
    if max(x.shape[1], y.shape[1]) <= SETTINGS.dimensions:
        some = slice(SETTINGS.rows)
        value = ksg(*(RankNormal.fit(v[some])(v[some]) for v in (x, y))).numpy()
        found.append(("nearest neighbours give", float(value.mean()), mean_stderr(value, None)))
    return tuple(found)
