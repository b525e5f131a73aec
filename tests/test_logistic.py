"""The logistic critic: a ratio that averages 1, classes that are rare or new, the better side, and saving."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import flomi
from flomi.critics.logistic import SETTINGS, LogisticCritic
from flomi.critics.table import TrainingRows, default_candidates

CLASSES = 3


def classes(n: int, seed: int = 0, apart: float = 1.5) -> tuple[Tensor, Tensor]:
    """Two columns around the centres of three classes, and the class."""
    random = torch.Generator().manual_seed(seed)
    c = torch.randint(CLASSES, (n,), generator=random)
    angle = 2 * math.pi * c.double() / CLASSES
    x = apart * torch.stack([angle.cos(), angle.sin()], 1)
    return x + torch.randn(n, 2, generator=random, dtype=torch.float64), c.double()[:, None]


def bayes(x: Tensor, c: Tensor, apart: float = 1.5) -> Tensor:
    """The exact pointwise MI of `classes`."""
    angle = 2 * math.pi * torch.arange(CLASSES).double() / CLASSES
    log_p = -0.5 * torch.cdist(x, apart * torch.stack([angle.cos(), angle.sin()], 1)).square()
    chosen = log_p.log_softmax(1).gather(1, c.long())
    return chosen[:, 0] + math.log(CLASSES)


def test_it_scores_new_rows_as_the_law_does_and_its_ratio_averages_one() -> None:
    x, c = classes(1000)
    critic = LogisticCritic.fit(x, c)
    new_x, new_c = classes(4000, seed=1)
    assert abs(float((critic(new_x, new_c) - bayes(new_x, new_c)).mean())) < 0.02
    assert critic.optimism < 0.03
    a, b = critic.encode(x, torch.arange(CLASSES).double()[:, None])
    torch.testing.assert_close(
        critic.matrix(a, b).exp().mean(0), torch.ones(CLASSES).double(), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("swapped", [False, True])
def test_pairs_matrix_positives_and_a_restored_critic_agree(swapped: bool) -> None:
    sides = classes(300)[::-1] if swapped else classes(300)
    critic = LogisticCritic.fit(*sides)
    assert bool(critic.from_x) != swapped
    x, y = (side[:9] for side in sides)
    a, b = critic.encode(x, y)
    table = critic.matrix(a, b[:5])
    torch.testing.assert_close(critic.pairs(a[:, None], b[None, :5]), table)
    torch.testing.assert_close(table.diagonal(), critic(x, y)[:5])
    g, u = critic.positives(a, b)
    assert torch.equal(u, -g)
    torch.testing.assert_close(critic(x[3:5], y[3:5]), g[3:5])
    assert torch.equal(LogisticCritic.restore(critic.state_dict(), {})(x, y), g)
    assert critic.float()(x.float(), y.float()).dtype == torch.float32


def test_unseen_classes_score_nothing_and_rare_ones_share_a_score() -> None:
    x, c = classes(400)
    c[:2], c[2:4] = 7, 8  # two rows each
    critic = LogisticCritic.fit(x, c)
    a, b = critic.encode(x, torch.tensor([[99.0], [7.0], [8.0]]).double())
    table = critic.matrix(a, b)
    assert (table[:, 0] == 0).all()
    assert torch.equal(table[:, 1], table[:, 2])
    assert torch.isfinite(table).all() and (table > -math.log(400) - 1e-9).all()


def test_only_the_most_frequent_of_many_classes_stand_alone() -> None:
    x = torch.arange(400).double()[:, None]
    critic = LogisticCritic.fit(x, (x / 10).floor())  # forty of ten rows each
    assert critic.weight.shape[1] == SETTINGS.classes + 1
    assert critic.kind.sum(0).tolist() == [1.0] * SETTINGS.classes + [10.0]


def test_squares_are_features_where_they_help() -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(1000, 2, dtype=torch.float64, generator=random)
    ring = (x.square().sum(1, keepdim=True) > 1.4).double()
    critic = LogisticCritic.fit(x, ring)
    assert critic.second
    new = torch.randn(2000, 2, dtype=torch.float64, generator=random)
    assert float(critic(new, (new.square().sum(1, keepdim=True) > 1.4).double()).mean()) > 0.55  # of 0.69
    assert not LogisticCritic.fit(x, (x[:, :1] > 0).double()).second


def test_independent_classes_lose_next_to_nothing() -> None:
    lost = []
    for seed in range(5):
        x, c = classes(300, seed)
        x = x[torch.randperm(300, generator=torch.Generator().manual_seed(seed))]
        new_x, _ = classes(1000, seed + 50)
        _, new_c = classes(1000, seed + 100)
        lost.append(float(LogisticCritic.fit(x, c)(new_x, new_c).mean()))
    assert -0.02 < min(lost) <= max(lost) < 0.02  # four weights, 300 rows: 0.007 without a penalty


def test_many_rows_and_wrong_rows() -> None:
    x, c = classes(100)
    with pytest.raises(ValueError, match="neither x nor y has rows that occur 5 times"):
        LogisticCritic.fit(x, x)
    with pytest.raises(ValueError, match=f"at least {SETTINGS.least_rows}"):
        LogisticCritic.fit(x[:20], c[:20])
    assert float(LogisticCritic.fit(c, c)(c, c).mean()) == pytest.approx(math.log(3), abs=0.15)


@pytest.mark.parametrize(
    ("n", "levels", "competes"), [(400, 3, True), (400, None, False), (400, 41, False), (60, 8, False)]
)
def test_it_competes_for_sides_with_few_different_rows(n: int, levels: int | None, competes: bool) -> None:
    rows = TrainingRows(n, 2, 1, False, levels_y=levels)
    assert ("logistic" in default_candidates(rows, density=False, costly=False)) == competes


def test_an_estimate_counts_the_different_rows_and_is_saved(tmp_path) -> None:
    x, c = (side.numpy() for side in classes(600, apart=2.0))
    est = flomi.MIEstimator(effort="fast", n_folds=2).fit(x, c)
    assert {"logistic", "forest"} <= est.result_.candidates.keys()
    named = flomi.MIEstimator(critic="logistic", n_folds=2).fit(x, c)
    truth = float(bayes(*classes(20_000, seed=1, apart=2.0), apart=2.0).mean())
    assert abs(named.result_.mi - truth) < 3 * named.result_.stderr < 0.2
    again = flomi.MIEstimator.load(named.save(tmp_path / "saved"))
    np.testing.assert_array_equal(again.pmi(x[:9], c[:9]), named.pmi(x[:9], c[:9]))
