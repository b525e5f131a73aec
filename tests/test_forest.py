"""The forest critic: honest on its own rows, mixed kinds of columns, either direction, nothing found where there is nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import flomi
from flomi.bounds import log_mean_exp, off_diagonal
from flomi.critics.forest import SETTINGS, ForestCritic
from flomi.critics.table import TrainingRows, default_candidates


def value(critic: ForestCritic, x: Tensor, y: Tensor) -> float:
    """Donsker-Varadhan on rows, all pairs."""
    g = critic.matrix(*critic.encode(x, y))
    return float(g.diagonal().mean() - log_mean_exp(off_diagonal(g).flatten()))


def mixed(n: int, seed: int = 0, *, dependent: bool = True) -> tuple[Tensor, Tensor]:
    """Two colours and five numbers; y is a number whose sign goes with one of them in one colour only, and a flag."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, dtype=torch.float64, generator=random)
    x[:, 0] = (x[:, 0] > 0).double()
    noise = torch.randn(n, 2, dtype=torch.float64, generator=random)
    if dependent:
        first = torch.where(x[:, 0] > 0, x[:, 1], 0) + 0.3 * noise[:, 0]
        second = (x[:, 2].abs() + 0.3 * noise[:, 1] > 0.7).double()
        return x, torch.stack([first, second], 1)
    return x, torch.stack([noise[:, 0], (noise[:, 1] > 0).double()], 1)


@pytest.mark.parametrize("swapped", [False, True])
def test_it_finds_what_hides_in_columns_of_all_kinds_and_knows_how_much(swapped: bool) -> None:
    turn = -1 if swapped else 1
    critic = ForestCritic.fit(*mixed(1000)[::turn])
    assert len(critic.column) == 2  # the values of the flag, or of the colour
    new = value(critic, *mixed(1000, seed=1)[::turn])
    assert new > 0.5
    assert critic.left_out is not None and abs(critic.left_out - new) < 0.1
    assert value(critic, *mixed(1000)[::turn]) > critic.left_out + 0.1  # what its own rows would say


def test_the_ratio_averages_one() -> None:
    critic = ForestCritic.fit(*mixed(1000))
    x, y = mixed(1000, seed=1)
    g = critic.matrix(*critic.encode(x, y))
    assert float(off_diagonal(g).exp().mean()) == pytest.approx(1, abs=0.05)


def test_independent_rows_lose_next_to_nothing() -> None:
    for seed in range(4):
        critic = ForestCritic.fit(*mixed(400, seed, dependent=False))
        assert -0.05 < value(critic, *mixed(800, seed + 50, dependent=False)) < 0.02
        assert critic.left_out is not None and abs(critic.left_out) < 0.06


def test_values_that_training_did_not_hold() -> None:
    x, y = mixed(300)
    critic = ForestCritic.fit(x, y)
    far = torch.tensor([[5.0, 1e9, -1e9, 0, 0, 0]]).double(), torch.tensor([[-1e9, 7.0]]).double()
    assert torch.isfinite(
        critic.matrix(*critic.encode(*(torch.cat([v, w]) for v, w in zip(far, (x, y), strict=True))))
    ).all()


def test_more_rows_than_it_takes_are_seen_as_a_whole() -> None:
    x, y = mixed(2 * SETTINGS.rows)
    order = x[:, 1].argsort()
    critic = ForestCritic.fit(x[order], y[order])
    assert len(critic.centers) == SETTINGS.rows
    assert value(critic, *mixed(600, seed=1)) > 0.6


def test_wrong_rows() -> None:
    x, y = mixed(60)
    with pytest.raises(ValueError, match="at least 50"):
        ForestCritic.fit(x[:40], y[:40])
    with pytest.raises(ValueError, match="one side must have at most 6"):
        ForestCritic.fit(x.repeat(1, 2), x.repeat(1, 2))


@pytest.mark.parametrize(
    ("rows", "competes"),
    [
        (TrainingRows(300, 50, 6, False), True),
        (TrainingRows(300, 7, 7, False), False),
        (TrainingRows(99, 5, 5, False), False),
        (TrainingRows(300, 5, 5, True), False),
        (TrainingRows(300, 1, 1, False), True),
    ],
)
def test_where_it_competes(rows: TrainingRows, competes: bool) -> None:
    assert ("forest" in default_candidates(rows, density=False, costly=False)) == competes


def test_an_estimate_is_no_higher_than_rows_left_out_say(tmp_path) -> None:
    x, y = (side.numpy() for side in mixed(600))
    est = flomi.MIEstimator(critic="forest", n_folds=2).fit(x, y)
    r = est.result_
    assert abs(r.mi - r.bound) < 0.15 and r.mi > 0.3
    assert math.isfinite(r.stderr)
    again = flomi.MIEstimator.load(est.save(tmp_path / "saved"))
    np.testing.assert_array_equal(again.pmi(x[:9], y[:9]), est.pmi(x[:9], y[:9]))
