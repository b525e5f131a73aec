"""The local critic and its nearest-neighbour estimate, where formulas fail and where they hold."""

from __future__ import annotations

import math

import pytest
import torch

from flomi.critics.kernel_density import LocalCritic, nearest_neighbour_mi


def draw(kind: str, n: int) -> tuple[torch.Tensor, torch.Tensor, float]:
    x, e = torch.randn(n, 1), torch.randn(n, 1)
    if kind == "gaussian":
        return x, 0.75 * x + math.sqrt(1 - 0.75**2) * e, 0.41334
    if kind == "edges":
        x = torch.rand(n, 1)
        return x, x + 0.2 * (torch.rand(n, 1) - 0.5), 1.70944
    return x, e, 0.0


@pytest.mark.parametrize("kind", ["gaussian", "edges", "independent"])
def test_nearest_neighbours_and_held_out_score(kind: str) -> None:
    x, y, truth = draw(kind, 4000)
    critic = LocalCritic.fit(x, y)
    assert abs(critic.formula.mi - truth) < 3 * critic.formula.stderr < 0.1
    new_x, new_y, _ = draw(kind, 1500)
    g = critic.matrix(*critic.encode(new_x, new_y))
    off = float((g.exp().sum() - g.diagonal().exp().sum()) / (1500 * 1499))
    assert truth - 0.15 < float(g.diagonal().mean()) + 1 - off < truth + 0.08


def test_pairs_matrix_and_a_rebuilt_critic_agree() -> None:
    x, y, _ = draw("gaussian", 500)
    critic = LocalCritic.fit(x, y)
    a, b = critic.encode(1e6 * x[:5], y[:4])
    torch.testing.assert_close(critic.pairs(a[:, None], b[None]), critic.matrix(a, b))
    assert torch.isfinite(critic.matrix(a, b)).all()
    assert torch.equal(LocalCritic.restore(critic.state_dict(), {})(x, y), critic(x, y))


def test_ties_give_numbers() -> None:
    x = torch.randint(0, 3, (400, 1)).float()
    critic = LocalCritic.fit(x, x + torch.randn(400, 1))
    assert torch.isfinite(critic(x, x)).all() and math.isfinite(critic.formula.mi)
    assert math.isfinite(nearest_neighbour_mi(torch.cat([x, x], 1)).mi)


def test_more_than_one_column_is_refused() -> None:
    with pytest.raises(ValueError, match="one column"):
        LocalCritic.fit(torch.randn(200, 2), torch.randn(200, 1))
