"""Every bound in `BOUNDS` as an estimator, with one critic, one budget and one split for all: what differs is the bound.

This is not how `flomi.estimate` works (that cross-fits, lets critics compete and corrects): it compares bounds, fast. Of the
rows, in random order, 65 % train, 10 % say when to stop, and 25 % are measured and seen by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flomi.bench.baselines import Answer, Array, NotApplicable
from flomi.bounds import BOUNDS, Scores
from flomi.critics import CRITICS
from flomi.preprocess import RankNormal, Standardize
from flomi.scores import Table, shifts
from flomi.support.settings import UNMEASURED, setting
from flomi.training.bound import BoundTraining, fit_network
from flomi.training.model import Model


@dataclass(frozen=True)
class VariationalSettings:
    """One budget for all bounds."""

    hidden: tuple[int, ...] = setting((64, 64), f"{UNMEASURED}layers of the critic, the same for every bound")
    training: float = setting(0.65, f"{UNMEASURED}share of the rows that train")
    validation: float = setting(
        0.10, f"{UNMEASURED}share of the rows that say when to stop; the others are test rows"
    )
    pairs: int = setting(500_000, "scores of non-matching pairs on test rows: all of them up to 2,800 rows")
    least_rows: int = setting(40, f"{UNMEASURED}rows, of which 10 are then test rows")
    steps: int = setting(500, f"{UNMEASURED}training steps at most")
    patience: int = setting(6, f"{UNMEASURED}evaluations without a gain before training stops")
    batch_size: int = setting(64, "with all others as negatives it costs what 256 rows with 8 negatives cost")
    m: int = setting(
        63, "all others; with 8 negatives FlatNCE and FDV learn another ratio (0.58 nats of 1.02)"
    )


SETTINGS = VariationalSettings()
BLOCK = 16  # negatives a row scored at a time, for memory


def variational(
    x: Array, y: Array, seed: int, bound: str, *, log_py: Callable[[Array], Array] | None = None
) -> Answer:
    """Train the joint critic by a bound and measure it on held-out rows: both read-outs, in nats.

    `estimate` and `bound` are the bound's value; `plug_in` is the mean of the pointwise MI that it reads out: E[-u], E[g],
    ... The critic is `critics.CRITICS["joint"]`, a 64-64 perceptron and a quadratic form; the density bounds, which need
    log q(y|x), have `"density"` of the same width. Rows go through normal scores fitted on the training rows. `stderr` is
    that of the mean over rows, without what rows share: a common normaliser, and each other as negatives.

    x `[n, d]`, y `[n, e]`. `log_py` gives log p(y), which "ba" needs. NotApplicable for fewer than 40 rows, and for "ba"
    without `log_py`; KeyError for a name that is not in `BOUNDS`.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(400, 1))
    >>> r = variational(x, x + 0.5 * rng.normal(size=(400, 1)), 0, "flo")  # the truth is log(5) / 2 = 0.80
    >>> 0.4 < r.bound < 1.1
    True
    """
    row = BOUNDS[bound]
    density = "density" in row.needs
    if row.known_marginal and log_py is None:
        raise NotApplicable(f"{bound} needs log p(y), which this task does not have in closed form")
    if len(x) < SETTINGS.least_rows:
        raise NotApplicable(
            f"{len(x)} rows are too few to train, stop and measure on; at least {SETTINGS.least_rows}"
        )

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    ends = [int(share * len(x)) for share in (SETTINGS.training, SETTINGS.training + SETTINGS.validation)]
    parts = order.tensor_split(ends)
    rows_x, rows_y = (torch.from_numpy(np.ascontiguousarray(side)).double() for side in (x, y))
    # log p(y) is carried through an affine map by a constant, through normal scores it is not
    kind_y = Standardize if row.known_marginal else RankNormal
    prepare_x, prepare_y = RankNormal.fit(rows_x[parts[0]]), kind_y.fit(rows_y[parts[0]])
    training, validation, test = ((prepare_x(rows_x[p]).float(), prepare_y(rows_y[p]).float()) for p in parts)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build = CRITICS["density" if density else "joint"].build
        assert build is not None
        critic = build(x.shape[1], y.shape[1], SETTINGS.hidden)
        if log_py is not None and row.known_marginal:
            critic.log_marginal = _log_marginal(log_py, prepare_y)  # type: ignore[arg-type, assignment]
        model = Model(critic, (x.shape[1],), row)
        s = SETTINGS
        budget = BoundTraining(
            s.steps, batch_size=s.batch_size, negatives="shifts", m=s.m, patience=s.patience
        )
        fit_network(model, row, training, validation, budget, seed)
        model.eval()
        with torch.no_grad():
            scores = _test_scores(model, *test, generator)
            values, pmi = row.value(scores).double(), row.pmi(scores).double()
    value, stderr = float(values.mean()), float(values.std()) / math.sqrt(len(values))
    return Answer.of(value, stderr, bound=value, plug_in=float(pmi.mean()))


def _test_scores(model: Model, x: Tensor, y: Tensor, generator: torch.Generator) -> Scores:
    """Scores of test rows with the same non-matching pairs for every bound."""
    critic = model.critic
    a, b = critic.encode(x, y)  # type: ignore[operator]
    g, u = critic.positives(a, b)  # type: ignore[operator]
    partners = shifts(len(x), max(1, min(len(x) - 1, SETTINGS.pairs // len(x))), generator)
    blocks = [critic.pairs(a[:, None], b[block]) for block in partners.split(BLOCK, dim=1)]  # type: ignore[operator]
    return Scores(g, Table(torch.cat(blocks, 1), partners), u, model.a(x), model.marginal(y))


def _log_marginal(log_py: Callable[[Array], Array], prepare: Standardize) -> Callable[[Tensor], Tensor]:
    """log density of z = (y - c) / s: log p(y) + sum log s."""

    def of_prepared(z: Tensor) -> Tensor:
        y = z.double() * prepare.scale + prepare.center
        return (torch.from_numpy(log_py(y.numpy())) + prepare.scale.log().sum()).to(z)

    return of_prepared
