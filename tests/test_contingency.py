"""Two discrete sides: the table's ratio, its formula, and where it serves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from flomi import MIEstimator, estimate
from flomi.critics.contingency import ContingencyCritic
from flomi.critics.table import TrainingRows, default_candidates


def law(size: int, linked: float) -> np.ndarray:
    """A table whose diagonal has the share `linked` of all rows beyond independence."""
    return (1 - linked) / size**2 * np.ones((size, size)) + linked / size * np.eye(size)


def truth(p: np.ndarray) -> float:
    ratio = p / np.outer(p.sum(1), p.sum(0))
    return float((p[p > 0] * np.log(ratio[p > 0])).sum())


def draw(p: np.ndarray, n: int, seed: int) -> tuple[Tensor, Tensor]:
    cells = np.random.default_rng(seed).choice(p.size, size=n, p=p.ravel())
    return tuple(torch.from_numpy(v.astype(float)[:, None]) for v in np.unravel_index(cells, p.shape))  # type: ignore[return-value]


def test_matrix_pairs_and_floor() -> None:
    x, y = draw(law(4, 0.9), 60, 0)
    critic = ContingencyCritic.fit(x, y)
    a, b = critic.encode(x[:20], y[:15])
    g = critic.matrix(a, b)
    assert torch.equal(critic.pairs(a[:, None], b[None]), g) and g.isfinite().all()


def test_the_ratio_is_normalised_exactly() -> None:
    x, y = draw(law(5, 0.3), 300, 0)
    critic = ContingencyCritic.fit(x, y)
    g = critic.matrix(*critic.encode(x, y))
    torch.testing.assert_close(g.exp().mean(1), torch.ones(300).double())
    torch.testing.assert_close(g.exp().mean(0), torch.ones(300).double())


def test_values_that_were_not_seen_say_nothing() -> None:
    x, y = draw(law(5, 0.3), 300, 0)
    critic = ContingencyCritic.fit(x, y)
    assert not critic(x[:3] + 0.5, y[:3]).any() and not critic(x[:3], y[:3] - 7).any()
    assert torch.equal(
        critic(torch.cat([x[:5] + 0.5, x[5:9]]), y[:9])[5:], critic(x[5:9], y[5:9])
    )  # alone or among others


def test_a_value_is_a_whole_row() -> None:
    x = torch.randint(2, (900, 2)).double()
    y = (x.sum(1, keepdim=True) % 2) * 3.0  # neither column alone says anything
    assert abs(ContingencyCritic.fit(x, y).formula.mi - math.log(2)) < 0.01


@pytest.mark.parametrize(
    ("size", "linked", "n"), [(5, 0.0, 200), (5, 0.5, 200), (20, 0.0, 1000), (20, 0.5, 1000)]
)
def test_the_formula_is_unbiased_and_knows_its_error(size: int, linked: float, n: int) -> None:
    p = law(size, linked)
    found = [ContingencyCritic.fit(*draw(p, n, seed)).formula for seed in range(60)]
    errors = np.array([f.mi - truth(p) for f in found])
    typical = float(np.median([f.stderr for f in found]))
    assert abs(errors.mean()) < typical / 2
    assert 0.6 < typical / math.sqrt(float((errors**2).mean())) < 3
    f = found[0]
    assert math.isclose(float(f.influence.mean()), f.mi, abs_tol=1e-9)
    assert math.isclose(
        f.stderr**2, float(f.influence.var()) / n + f.second_order**2 + f.model**2, rel_tol=1e-6
    )


@pytest.mark.parametrize("size", [2, 5, 20, 60])
def test_nothing_is_made_of_independent_values(size: int) -> None:
    critic = ContingencyCritic.fit(*draw(law(size, 0.0), 800, 1))
    g = critic.matrix(*critic.encode(*draw(law(size, 0.0), 2000, 2)))
    assert float(g.diagonal().mean() - g.exp().mean().log()) > -0.01


def test_too_many_values_are_refused() -> None:
    x = torch.arange(3000.0)[:, None]
    with pytest.raises(ValueError, match="too many for a table"):
        ContingencyCritic.fit(x, x)


def test_it_competes_where_both_sides_are_discrete() -> None:
    def names(levels_x: int | None, levels_y: int | None) -> tuple[str, ...]:
        rows = TrainingRows(500, 1, 1, False, levels_x, levels_y)
        return default_candidates(rows, density=False, costly=True)

    assert "table" in names(4, 9)
    assert all("table" not in names(*levels) for levels in ((None, 4), (4, None), (400, 400)))


def test_its_formula_is_the_estimate_on_discrete_data(tmp_path) -> None:
    p = law(5, 0.5)
    x, y = (v.numpy() for v in draw(p, 1000, 3))
    m = MIEstimator(effort="fast").fit(x, y)
    r = m.result_
    assert r.critic == "table" and "Grassberger" in r.mi_method
    assert abs(r.mi - truth(p)) < 3 * r.stderr < 0.2
    loaded = MIEstimator.load(m.save(tmp_path / "saved"))
    np.testing.assert_array_equal(loaded.pmi(x[:50], y[:50]), m.pmi(x[:50], y[:50]))
    grouped = estimate(x, y, critic=["null", "table"], effort="fast", groups=np.arange(1000) // 2)
    assert "Grassberger" not in grouped.mi_method  # for independent rows only


def test_of_continuous_data_the_table_has_no_estimate() -> None:
    x, y = (v.numpy() for v in draw(law(5, 0.5), 300, 3))
    r = estimate(x + np.random.default_rng(0).normal(size=x.shape), y, critic="table", n_folds=2)
    assert "Grassberger" not in r.mi_method
