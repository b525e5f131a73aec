"""The penalty on mutual information: the game ends where the leak is gone, and a dead critic is found out."""

from __future__ import annotations

import copy
import io
import math
import warnings

import pytest
import torch
from torch import Tensor, nn

from flomi.bounds import fenchel, get
from flomi.losses import MIPenalty


def leaky(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows x that tell of a target t, and of s in two places; t and s are independent."""
    t, s, e, f = torch.randn(4, n, 1)
    return torch.cat([t, s + 0.3 * e, s + 0.3 * f], 1), t, s


NOISE = 0.3


def leakage(encoder: nn.Module) -> float:
    """Squared correlation of s with its best linear prediction from noisy z: the encoder is Gaussian, so it is all there is."""
    x, _, s = leaky(4000)
    with torch.no_grad():
        z = encoder(x) + NOISE * torch.randn(4000, 2)
    z = torch.cat([z - z.mean(0), torch.ones(4000, 1)], 1)
    fit = z @ torch.linalg.lstsq(z, s).solution
    return float(1 - (s - fit).square().mean() / s.var())


@pytest.mark.slow
@pytest.mark.parametrize(("bound", "steps"), [("flo", 120), ("club", 150)])
def test_an_encoder_drops_what_it_should_not_tell(bound: str, steps: int) -> None:
    left = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        encoder, head, penalty = (
            nn.Linear(3, 2),
            nn.Linear(2, 1),
            MIPenalty(2, 1, bound=bound, hidden=(32, 32), check_every=0),
        )
        encoder.weight.data = torch.tensor([[0.5, 0.2, 0.2], [0.5, -0.2, -0.2]])
        groups = [{"params": encoder.parameters()}, {"params": head.parameters(), "lr": 3e-2}]
        optimiser = torch.optim.Adam(groups, lr=3e-3)
        for _ in range(steps):
            x, t, s = leaky(128)
            z = encoder(x) + NOISE * torch.randn(128, 2)
            loss = (head(z) - t).square().mean()
            if weight:
                loss = loss + weight * penalty(z, s)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        left[weight] = leakage(encoder)
        with torch.no_grad():
            x, t, _ = leaky(4000)
            error = float((head(encoder(x)) - t).square().mean())
        assert error < 0.3  # of a variance of 1: the task is still learned
    assert left[0.0] > 0.5
    assert left[1.0] < 0.04


def test_only_z_gets_a_gradient_and_only_training_moves_the_critic() -> None:
    penalty = MIPenalty(2, 1, critic_steps=2)
    z, s = torch.randn(32, 2, requires_grad=True), torch.randn(32, 1, requires_grad=True)
    before = copy.deepcopy(penalty.critic.state_dict())
    penalty(z, s).backward()
    assert z.grad is not None and s.grad is None
    assert all(p.grad is None and p.requires_grad for p in penalty.critic.parameters())
    after = copy.deepcopy(penalty.critic.state_dict())
    assert any(not torch.equal(before[k], after[k]) for k in before)
    penalty.eval()
    with torch.no_grad():
        penalty(z, s)
    assert all(torch.equal(after[k], v) for k, v in penalty.critic.state_dict().items())


def test_shrinking_hides_nothing() -> None:
    penalty = MIPenalty(2, 1).eval()
    z, s = torch.randn(64, 2, requires_grad=True), torch.randn(64)
    centred = z.detach() - z.detach().mean(0)
    values = []
    for scale in (1.0, 1e-3):
        torch.manual_seed(1)  # the same negatives
        values.append(penalty(scale * z, s))
    torch.testing.assert_close(values[0], values[1], rtol=1e-3, atol=1e-4)
    (slope,) = torch.autograd.grad(values[0], z)
    assert (slope * centred).sum(0).abs().max() < 1e-5  # none along the scale of a column


def dependent(n: int = 256) -> tuple[Tensor, Tensor]:
    z = torch.randn(n, 2)
    return z, z[:, :1] + 0.3 * torch.randn(n, 1)


def collapse(penalty: MIPenalty) -> None:
    with torch.no_grad():
        for p in penalty.critic.parameters():
            p.zero_()


def test_a_collapsed_critic_is_replaced_with_a_warning() -> None:
    penalty = MIPenalty(2, 1, critic="mlp", hidden=(32, 32), check_every=4, critic_steps=1)
    for _ in range(3):
        penalty(*dependent())
    collapse(penalty)
    found, current = penalty.fresh()
    assert found > 0.5 and abs(current) < 0.05
    with pytest.warns(UserWarning, match=r"had collapsed.*Raise critic_steps=") as caught:
        value = penalty(*dependent())
    assert caught[0].filename == __file__
    assert value > 0.5
    penalty.check_every = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        penalty(*dependent())


def test_no_warning_where_there_is_nothing_to_find() -> None:
    penalty = MIPenalty(2, 1, hidden=(32, 32), check_every=3, critic_steps=1)
    for _ in range(4):  # warnings are errors here
        penalty(torch.randn(256, 2), torch.randn(256, 1))


@pytest.mark.slow
def test_the_bound_of_a_known_dependence() -> None:
    rho = 0.8
    penalty = MIPenalty(1, 1, hidden=(32, 32), check_every=0)
    for _ in range(60):
        z, e = torch.randn(2, 256, 1)
        penalty(z, rho * z + math.sqrt(1 - rho**2) * e)
    z, e = torch.randn(2, 4000, 1)
    value = penalty.eval()(z, rho * z + math.sqrt(1 - rho**2) * e)
    assert value.item() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.1)


@pytest.mark.slow
def test_a_bound_with_a_baseline_reaches_the_truth() -> None:
    torch.manual_seed(0)
    penalty = MIPenalty(1, 1, bound="tuba", check_every=0, m=32)
    for _ in range(80):
        z, e = torch.randn(2, 256, 1)
        penalty(z, 0.8 * z + 0.6 * e)
    z, e = torch.randn(2, 4000, 1)
    value = penalty.eval()(z, 0.8 * z + 0.6 * e)
    assert value.item() == pytest.approx(-math.log(0.6), abs=0.1)
    found, current = penalty.fresh()  # the fresh critic has a baseline too, and is another one
    assert found == pytest.approx(current, abs=0.3)


def test_state_is_saved_with_the_optimiser() -> None:
    torch.manual_seed(0)
    first, second = MIPenalty(2, 1), MIPenalty(2, 1)
    z, s = dependent()
    first(z, s)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.calls == 1
    values = []
    for penalty in (first, second):
        torch.manual_seed(3)
        values.append(penalty(z, s))
    assert torch.equal(*values)


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["tuba", "i-alpha"])
def test_a_bound_with_a_baseline_has_one_of_its_own(bound: str) -> None:
    torch.manual_seed(0)
    penalty = MIPenalty(2, 1, bound=bound, check_every=0, hidden=(32, 32))
    before = [p.clone() for p in penalty.critic.baseline.parameters()]
    assert any("baseline" in name for name in penalty.state_dict())
    for _ in range(30):
        value = penalty(*dependent())
    after = list(penalty.critic.baseline.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert value > 0.5
    found, current = penalty.fresh()  # a copy, which has a baseline too
    assert found > 0.3 and current > 0.5


def test_bounds_and_critics_of_ones_own() -> None:
    z, s = dependent(64)
    for bound in ("nwj", "infonce", "js", "l1out"):
        assert torch.isfinite(MIPenalty(2, 1, bound=bound, critic_steps=1)(z, s))
    own = get(lambda s: fenchel(s.log_t, -s.pos))
    assert torch.isfinite(MIPenalty(2, 1, bound=own, critic="bilinear")(z.half(), s.half()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim_z": 0}, "dim_z must be at least 1"),
        ({"critic_steps": 0}, "critic_steps must be at least 1; found 0"),
        ({"lr": 0.0}, "lr must be positive"),
        ({"bound": "ba"}, "'ba' needs more than a critic: use 'flo', 'nwj', 'tuba'"),
        ({"bound": "mine"}, "'mine' needs more than a critic"),
        ({"bound": "flow"}, "'flow' is not known"),
        ({"critic": "gaussian"}, "cannot follow a moving z; choose one of joint"),
    ],
)
def test_a_wrong_option_says_what_to_do(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MIPenalty(**{"dim_z": 2, "dim_s": 1, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("z", "s", "error", "message"),
    [
        (torch.zeros(4, 3), torch.zeros(4), ValueError, r"z has shape \(4, 3\).*\[n, 2\]"),
        (torch.zeros(4, 2), torch.zeros(4, 2), ValueError, r"s has shape \(4, 2\).*\[n, 1\]"),
        (torch.zeros(4, 2), torch.zeros(5), ValueError, "found 4 and 5"),
        (torch.zeros(1, 2), torch.zeros(1), ValueError, "at least 2"),
        (torch.zeros(4, 2).long(), torch.zeros(4), TypeError, "z has type torch.int64"),
        (torch.zeros(4, 2), [0, 1, 0, 1], TypeError, "s must be a tensor, not list"),
    ],
)
def test_a_wrong_call_says_what_to_do(z: Tensor, s: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MIPenalty(2, 1)(z, s)


def test_fresh_needs_rows() -> None:
    with pytest.raises(ValueError, match="call the penalty on some batches first"):
        MIPenalty(2, 1).fresh()
