"""Experimental design: densities, references and gradients with known answers, the judge, the optimiser, and policies."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.distributions import Gamma, Normal

from flomi.applications import design as app
from flomi.applications import simulators
from flomi.reproduce import design


def normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 1, generator=generator)


def scaled(theta: Tensor, d: Tensor) -> Tensor:
    """y = d theta + noise: EIG = log(1 + |d|^2) / 2."""
    return theta * d + torch.randn(len(theta), d.shape[-1])


def scaled_likelihood(y: Tensor, theta: Tensor, d: Tensor) -> Tensor:
    return Normal(theta * d, 1.0).log_prob(y).sum(-1)


# The models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [1.0, 25.0, 910.0])
def test_noise_density_integrates_to_one(variance: float) -> None:
    s = math.sqrt(variance)
    w = torch.linspace(-15 * s, 120 + 15 * s, 100_001, dtype=torch.float64)
    p = simulators.log_noise(w, variance).exp()
    mean = torch.trapezoid(p * w, w)
    assert float(torch.trapezoid(p, w)) == pytest.approx(1, abs=1e-9)
    assert float(mean) == pytest.approx(4, abs=1e-7)
    assert float(torch.trapezoid(p * (w - mean) ** 2, w)) == pytest.approx(variance + 8, rel=1e-7)


def test_noise_density_is_the_convolution() -> None:
    """Where the series takes over, beyond 30 deviations, too; float32 agrees with float64."""
    w = torch.tensor([-40.0, -29.6, -29.4, -5.0, 0.5, 4.0, 30.0], dtype=torch.float64)
    nu = torch.linspace(0, 80, 400_001, dtype=torch.float64)[1:]
    joint = Gamma(2.0, 0.5).log_prob(nu) + Normal(0.0, 1.0).log_prob(w[:, None] - nu)
    expected = torch.logsumexp(joint, 1) + math.log(float(nu[1] - nu[0]))
    assert torch.allclose(simulators.log_noise(w), expected, atol=1e-3)
    assert torch.allclose(
        simulators.log_noise(w.float()).double(), simulators.log_noise(w), rtol=1e-4, atol=1e-3
    )


def test_information_of_one_measurement_by_quadrature() -> None:
    model = simulators.NoisyLinear()
    found = [model.information(d) for d in (0.0, 1.0, 10.0, -10.0)]
    assert found == pytest.approx([0.4364, 0.6483, 2.4158, 2.4158], abs=1e-4)


def test_noisy_line_has_the_noise_that_its_likelihood_says() -> None:
    model = simulators.NoisyLinear()
    y = model.simulate(torch.zeros(40_000, 2), torch.tensor([3.0]))
    assert y.shape == (40_000, 1)
    assert float(y.mean()) == pytest.approx(4, abs=0.08) and float(y.var()) == pytest.approx(9, rel=0.06)
    # Cross-entropy of the draws under the density is the entropy: H = H(y) - I at theta known.
    w = torch.linspace(-15, 120, 100_001, dtype=torch.float64)
    log_p = simulators.log_noise(w)
    entropy = -float(torch.trapezoid(log_p.exp() * log_p, w))
    assert -float(simulators.log_noise(y).mean()) == pytest.approx(entropy, abs=0.03)


def test_concentration_rises_from_nothing_and_falls() -> None:
    model = simulators.Pharmacokinetic()
    theta = torch.tensor([[1.0, 0.1, 20.0]]).log()
    mean, variance = model._moments(theta, torch.tensor([0.0, 2.0, 24.0]))
    by_hand = 400 / 20 * 1 / 0.9 * (math.exp(-0.2) - math.exp(-2.0))
    assert mean[0].tolist() == pytest.approx([0, by_hand, 22.2222 * math.exp(-2.4)], rel=1e-4, abs=1e-6)
    assert torch.allclose(variance, 0.01 * mean**2 + 0.1)


def test_epidemic_starts_with_two_and_stays_in_the_population() -> None:
    model = simulators.Epidemic.make(300, torch.Generator().manual_seed(0), grid=500)
    assert (model.infected[:, 0] == 2).all() and 0 < len(model.theta) <= 300
    assert float(model.infected.min()) >= 0 and float(model.infected.max()) <= 500
    assert float(model.infected.mean(1).min()) >= 1
    learned, unseen = model.split(100)
    assert len(learned.theta) == 100 and len(unseen.theta) == len(model.theta) - 100
    draw = unseen.prior(len(unseen.theta), torch.Generator())
    assert draw[:, 2].unique().numel() == len(draw)  # each path once
    with pytest.raises(ValueError, match="n=101 is more than the 100 paths there are"):
        learned.prior(101, torch.Generator())


def test_gradient_of_stored_paths_is_a_finite_difference() -> None:
    """On a smooth path the slope; at an edge of the grid the one-sided difference."""
    grid = torch.linspace(0, 100, 1001)
    paths = torch.stack([grid.sin(), (grid / 20).exp()])
    model = simulators.Epidemic(torch.zeros(2, 2), paths)
    draw = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    times = torch.tensor([0.0, 10.04, 55.5, 100.0], requires_grad=True)
    y = model.simulate(draw, times)
    assert torch.allclose(y, paths[:, [0, 100, 555, 1000]])
    h = 0.1
    for row in range(2):
        (found,) = torch.autograd.grad(y[row].sum(), times, retain_graph=True)
        with torch.no_grad():
            late, early = (model.simulate(draw, (times + s).clamp(0, 100))[row] for s in (h, -h))
        expected = (late - early) / torch.tensor([h, 2 * h, 2 * h, h])
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_gradient_of_stored_paths_has_the_term_of_ito() -> None:
    """E[W_t^2] = t moves by 1 a unit of time though W has no drift; a one-sided difference would say 0 or 2."""
    step, n = 0.1, 20_000
    increments = math.sqrt(step) * torch.randn(n, 1000)
    paths = torch.cat([torch.zeros(n, 1), increments.cumsum(1)], 1)[:, :101]
    times = torch.tensor([5.0], requires_grad=True)
    y = simulators._AtTimes.apply(times, paths, torch.arange(n), step)
    (y**2).mean(0).sum().backward()  # type: ignore[no-untyped-call]
    assert times.grad is not None
    assert float(times.grad) == pytest.approx(1, abs=0.3)  # its standard error is about 0.07


# Judges ---------------------------------------------------------------------------------------------------------------


def test_pce_and_nmc_enclose_the_closed_form() -> None:
    d = torch.tensor([1.0, 2.0])
    truth = math.log(1 + 5) / 2
    r = app.pce(normal, scaled, scaled_likelihood, d, n=3000, contrasts=300, at_once=50_000)
    assert r.lower == pytest.approx(truth, abs=4 * r.lower_stderr) and r.lower_stderr < 0.03
    assert r.lower < r.upper and r.upper == pytest.approx(truth, abs=4 * r.upper_stderr + 0.02)
    few = app.pce(normal, scaled, scaled_likelihood, 100 * d, n=50, contrasts=9)
    assert few.lower < math.log(10) < few.upper


def test_pce_of_one_measurement_is_the_quadrature() -> None:
    model = simulators.NoisyLinear()
    for d in (0.0, 10.0):
        r = app.pce(
            model.prior, model.simulate, model.log_likelihood, torch.tensor([d]), n=1500, contrasts=300
        )
        assert r.lower == pytest.approx(model.information(d), abs=4 * r.lower_stderr + 0.05)


def test_the_judge_is_near_the_truth_and_leaves_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    d = torch.tensor([2.0])
    options = {"n": 2000, "block": 100, "steps": 250, "batch": 64, "m": 4, "width": 32}
    r = app.expected_information_gain(normal, scaled, d, **options)
    truth = math.log(5) / 2
    assert truth - 0.15 < r.value < truth + 4 * r.stderr and r.plug_in == pytest.approx(truth, abs=0.15)
    assert torch.equal(before, torch.random.get_rng_state())
    few = {**options, "steps": 3, "warmup": 0, "n": 200}
    assert app.expected_information_gain(normal, scaled, d, **few) == app.expected_information_gain(
        normal, scaled, d, **few
    )


def test_a_design_without_effect_tells_nothing() -> None:
    options = {"n": 2000, "block": 100, "steps": 60, "batch": 64, "m": 4, "warmup": 0}
    r = app.expected_information_gain(normal, scaled, torch.tensor([0.0]), **options)
    assert r.value < 4 * r.stderr


def test_nuisance_is_left_out() -> None:
    """Of two equal signals only one is of interest: I = log(1 + 1 / (1 + 1)) / 2, not that of both."""
    options = {"n": 2000, "block": 100, "steps": 150, "batch": 64, "m": 4, "width": 32}
    r = app.expected_information_gain(
        lambda n, g: torch.randn(n, 2, generator=g),
        lambda theta, d: theta @ d[:, None] + torch.randn(len(theta), 1),
        torch.ones(2),
        interest=lambda draw: draw[:, :1],
        **options,
    )
    assert r.value == pytest.approx(math.log(1.5) / 2, abs=0.08)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"n": 300}, "n=300 rows are not two blocks of 250"),
        ({"bound": "mine"}, "bound='mine' can't be used here"),
        ({"bound": "flow"}, "bound='flow' is not known"),
        ({"steps": 50, "warmup": 50}, "warmup=50 of steps=50 leaves no step"),
    ],
)
def test_wrong_calls_say_so(call: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        app.expected_information_gain(normal, scaled, torch.ones(1), **call)  # type: ignore[arg-type]


def test_rows_that_are_missing_are_told() -> None:
    with pytest.raises(ValueError, match="the simulator gave 5 rows for n=128"):
        app.fit(lambda draw: draw[:5], normal)


# Optimisers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", design.ALL)
def test_design_goes_to_the_edge_where_it_tells_most(bound: str) -> None:
    found = app.optimise_design(
        normal, scaled, torch.tensor([0.6]), -2, 2, bound, steps=120, warmup=50, batch=64, m=4, lr_design=0.05
    )
    assert found.path.shape == (121, 1) and float(found.path[0]) == pytest.approx(0.6)
    assert torch.equal(found.path[0], found.path[50])  # warm-up
    assert float(found.design) > 1.9 and bool((found.path.abs() <= 2).all())


def test_start_outside_the_box_is_an_error() -> None:
    with pytest.raises(ValueError, match="start must lie between low=0 and high=1"):
        app.optimise_design(normal, scaled, torch.tensor([2.0]), 0, 1)


def test_policy_starts_as_the_static_design_and_then_looks() -> None:
    start = torch.tensor([1.0, 3.0, 10.0])
    model = simulators.Pharmacokinetic()
    generator = torch.Generator().manual_seed(0)
    policy = app.Adaptive(model.simulate, start, 0, 24, model.prior(100, generator))
    designs, y = policy.history(model.prior(8, generator))
    assert torch.allclose(designs, start.expand(8, 3), atol=1e-4) and y.shape == (8, 3)
    options = {"n": 40, "contrasts": 50}
    likelihood = model.prior, model.simulate, model.log_likelihood
    assert app.pce(*likelihood, policy, **options).lower < math.log(51)
    app.fit(policy, model.prior, learn=policy.parameters(), steps=30, warmup=5, batch=32, m=4, lr_design=1e-2)
    with torch.no_grad():
        designs, _ = policy.history(model.prior(8, generator))
    assert float(designs[:, 0].std()) == pytest.approx(0, abs=1e-6)  # nothing seen yet
    assert float(designs[:, 2].std()) > 0 and bool(((designs >= 0) & (designs <= 24)).all())


def test_a_policy_is_judged_on_what_it_looked_at() -> None:
    """Half the draws show their second coordinate at d = 0, half at d = 1, and d = 0.5 tells which: looking is worth much."""

    def prior(n: int, generator: torch.Generator) -> Tensor:
        side = (torch.rand(n, 1, generator=generator) < 0.5).float()
        return torch.cat([side, torch.randn(n, 1, generator=generator)], 1)

    def centre(theta: Tensor, d: Tensor) -> Tensor:
        near = torch.exp(-((d - theta[..., :1]) ** 2) / 0.02)
        return 3 * theta[..., 1:] * near + 4 * theta[..., :1] * torch.exp(-((d - 0.5) ** 2) / 0.02)

    def simulator(theta: Tensor, d: Tensor) -> Tensor:
        mean = centre(theta, d)
        return mean + 0.3 * torch.randn_like(mean)

    def likelihood(y: Tensor, theta: Tensor, d: Tensor) -> Tensor:
        return Normal(centre(theta, d), 0.3).log_prob(y).sum(-1)

    class Oracle(app.Adaptive):
        def history(self, draw: Tensor, simulator: app.Simulator | None = None) -> tuple[Tensor, Tensor]:
            first = simulator(draw, torch.full((len(draw), 1), 0.5))  # type: ignore[misc]
            second = (first > 2).float()
            return torch.cat([torch.full_like(second, 0.5), second], 1), torch.cat(
                [first, simulator(draw, second)],  # type: ignore[misc]
                1,
            )

    policy = Oracle(simulator, torch.tensor([0.5, 0.5]), 0, 1, prior(50, torch.Generator()))
    adaptive, static = (
        app.pce(prior, simulator, likelihood, what, n=400, contrasts=400).lower
        for what in (policy, torch.tensor([0.5, 1.0]))
    )
    assert adaptive > static + 0.5


def test_a_pyro_model_is_a_prior_and_a_simulator() -> None:
    pyro = pytest.importorskip("pyro")

    def model(d: Tensor) -> Tensor:
        slope = pyro.sample("slope", pyro.distributions.Normal(torch.zeros(len(d)), 1.0))
        return pyro.sample("y", pyro.distributions.Normal(slope[:, None] * d, 1.0).to_event(1))  # type: ignore[no-any-return]

    prior, simulator = app.from_pyro(model, ["slope"], ["y"], torch.zeros(2))
    theta = prior(500, torch.Generator().manual_seed(0))
    assert theta.shape == (500, 1) and torch.equal(theta, prior(500, torch.Generator().manual_seed(0)))
    d = torch.tensor([1.0, 100.0], requires_grad=True)
    y = simulator(theta, d)
    assert y.shape == (500, 2) and float((y.detach()[:, 1] / 100 - theta[:, 0]).std()) == pytest.approx(
        0.01, rel=0.2
    )
    (grad,) = torch.autograd.grad(y.sum(), d)
    assert torch.allclose(grad, theta.sum().expand(2), rtol=1e-3)


# The experiment's table -----------------------------------------------------------------------------------------------


def test_findings_of_several_seeds() -> None:
    table = pd.DataFrame(
        [
            {"model": "pharmacokinetic", "T": 5, "by": by, "seed": seed, "design": "1.00 2.00", "judge": "pce",
             "gain": gain + seed, "stderr": 0.1, "upper": 9.0}
            for seed in range(2)
            for by, gain in (("hours", 2.9), ("flo", 3.1))
        ]
    )  # fmt: skip
    found = {finding.what: (finding.paper, finding.ours) for finding in design.compare(table)}
    assert found["pharmacokinetic, T = 5, hours, nats by pce"] == (
        "2.91 (ours, L = 20,000)",
        "3.400 ± 0.500; 1.00 2.00",
    )
    assert found["pharmacokinetic, T = 5, flo, nats by pce"][1].startswith("3.600 ± 0.500")


def test_points_of_a_row_are_read_back() -> None:
    row = design._row("epidemic", "flo", 0, torch.tensor([30.0, 1.5]))
    assert row["design"] == "1.50 30.00" and row["T"] == 2
