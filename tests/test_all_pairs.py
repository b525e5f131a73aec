"""The score matrix of a joint critic made block by block: values and gradients are those of all pairs at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flomi.critics import JointCritic
from flomi.critics import all_pairs as module
from flomi.critics.all_pairs import all_pairs

WIDTHS = ([5], [5, 4], [3, 6, 2])


def problem(widths: list[int]) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    made = lambda *size: torch.randn(*size, dtype=torch.float64, requires_grad=True)  # noqa: E731
    layers = [(made(o, i), made(o)) for i, o in zip(widths, [*widths[1:], 1], strict=True)]
    return made(7, widths[0]), made(9, widths[0]), layers


def plain(a: Tensor, b: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    h = a[:, None] + b[None]
    for w, c in layers:
        h = torch.relu(h) @ w.T + c
    return h[..., 0]


@pytest.mark.parametrize(
    "block", [1, 60, 10**6]
)  # a row at a time, a last block that is shorter, all at once
@pytest.mark.parametrize("widths", WIDTHS)
def test_blocks_give_the_values_and_gradients_of_all_pairs_at_once(
    widths: list[int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    a, b, layers = problem(widths)
    inputs = [a, b, *(t for layer in layers for t in layer)]
    weight = torch.randn(7, 9, dtype=torch.float64)
    found, expected = all_pairs(a, b, layers), plain(a, b, layers)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    grads = (torch.autograd.grad((g * weight).sum(), inputs) for g in (found, expected))
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-11, atol=1e-11)


def test_a_gradient_can_be_differentiated_again() -> None:
    a, b, layers = problem(WIDTHS[2])
    inputs = [a, b, *(t for layer in layers[:-1] for t in layer)]

    def penalty(g: Tensor) -> list[Tensor]:
        slope = torch.autograd.grad(g.sum(), a, create_graph=True)[0]  # what comes in is constant
        return [*torch.autograd.grad(slope.square().sum(), inputs, allow_unused=True)]

    for mine, other in zip(penalty(all_pairs(a, b, layers)), penalty(plain(a, b, layers)), strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(zero if mine is None else mine, zero if other is None else other)


def test_frozen_weights_get_no_gradient_and_codes_do() -> None:
    a, b, layers = problem(WIDTHS[1])
    frozen = [(w.detach(), c.detach()) for w, c in layers]
    all_pairs(a, b, frozen).sum().backward()
    expected = torch.autograd.grad(plain(a, b, layers).sum(), (a, b))
    for v, grad in zip((a, b), expected, strict=True):
        torch.testing.assert_close(v.grad, grad, rtol=1e-11, atol=1e-11)
    assert all(t.grad is None for layer in layers for t in layer)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
def test_matrix_is_the_same_with_and_without_gradient(hidden: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    critic = JointCritic(3, 2, hidden).double()
    a, b = critic.encode(torch.randn(6, 3).double(), torch.randn(5, 2).double())
    with torch.no_grad():
        expected = critic.matrix(a, b)
    torch.testing.assert_close(critic.matrix(a, b), expected, rtol=1e-12, atol=1e-12)


def test_u_learns_nothing_from_pairs_that_do_not_match() -> None:
    critic = JointCritic(3, 2, (8,))
    critic.matrix(*critic.encode(torch.randn(6, 3), torch.randn(6, 2))).sum().backward()
    grad = critic.heads[1].weight.grad
    assert grad[0].abs().sum() > 0 and grad[1].abs().sum() == 0


def test_under_autocast_the_pairs_stay_in_single_precision() -> None:
    critic = JointCritic(3, 2, (8, 6))
    x, y = torch.randn(6, 3), torch.randn(5, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        g = critic.matrix(*critic.encode(x, y))
    assert g.dtype == torch.float32
    g.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in critic.parameters())


def test_layers_that_were_changed_empty_sides_and_transforms_take_the_plain_way() -> None:
    torch.manual_seed(1)
    critic = JointCritic(3, 2, (8, 6))
    a, b = critic.encode(torch.randn(6, 3), torch.randn(5, 2))
    assert critic.matrix(a[:0], b).shape == (0, 5) and critic.matrix(a, b[:0]).shape == (6, 0)
    several = torch.func.vmap(critic.matrix)(torch.stack([a, a + 1]), torch.stack([b, b]))
    torch.testing.assert_close(several[0], critic.matrix(a, b))
    seen: list[torch.Size] = []
    hook = critic.trunk[1].register_forward_hook(lambda module, given, made: seen.append(made.shape))
    critic.matrix(a, b)
    hook.remove()
    assert seen == [(6, 5, 6)]
    critic.trunk[0] = torch.nn.GELU()
    with torch.no_grad():
        expected = critic.matrix(a, b)
    torch.testing.assert_close(critic.matrix(a, b), expected)
