"""Bayesian experimental design: where to measure, so that the outcome tells most about what one wants to know (E14).

    model = Pharmacokinetic()
    best = optimise_design(model.prior, model.simulate, torch.rand(5) * 24, low=0, high=24)
    expected_information_gain(model.prior, model.simulate, best.design)          # judged on draws never seen, in nats

The expected information gain of a design d is the mutual information I(theta; y | d) under prior and simulator. Both are plain
functions: `prior(n, generator)` gives n draws [n, p], `simulator(draws, design)` an observation of each, [n, ...], with noise
from torch's global generator; differentiable in the design if it is to be optimised. Nobody has to know a likelihood.
`interest` picks out of a draw what one wants to know, where the rest is nuisance.

Where the likelihood is known, `pce` bounds the gain from both sides without any critic. `flomi.applications.simulators` has
three models of the literature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from flomi.bounds import Bound, Scores, get
from flomi.critics import JointCritic, mlp
from flomi.training.loop import cosine
from flomi.training.model import Model

__all__ = [
    "Adaptive", "Critic", "Gain", "Optimised", "Reference", "Static", "expected_information_gain", "fit", "from_pyro",
    "optimise_design", "pce",
]  # fmt: skip

Prior: TypeAlias = Callable[[int, torch.Generator], Tensor]
Simulator: TypeAlias = Callable[[Tensor, Tensor], Tensor]
LogLikelihood: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
Interest: TypeAlias = Callable[[Tensor], Tensor]


def everything(draw: Tensor) -> Tensor:
    """All of a draw is of interest."""
    return draw


# A critic, and a bound that it and the design climb together --------------------------------------------------------


class Critic(nn.Module):
    """g and u of an observation [n, q] and theta [n, p]: the joint network of flomi on columns standardised by the batch.

    Observations are then of unit scale wherever the design goes, and scale, which carries no information, gives no gradient.
    """

    def __init__(self, dim_y: int, dim_theta: int, bound: Bound, width: int = 64) -> None:
        super().__init__()
        self.bound = bound
        self.scale_y, self.scale_theta = (nn.BatchNorm1d(dim, affine=False) for dim in (dim_y, dim_theta))
        self.model = Model(JointCritic(dim_y, dim_theta, (width, width)), (dim_y,), bound)

    def scores(
        self, y: Tensor, theta: Tensor, negatives: str, m: int = 1, generator: torch.Generator | None = None
    ) -> Scores:
        """What the bound is a function of: each observation with its theta, and with m others or all of the batch."""
        y, theta = self.scale_y(y.flatten(1)), self.scale_theta(theta.flatten(1))
        return self.model.scores(y, theta, negatives, m, generator)


def fit(
    experiment: Callable[[Tensor], Tensor],
    prior: Prior,
    bound: str | Bound = "flo",
    *,
    learn: Iterable[nn.Parameter] = (),
    interest: Interest = everything,
    steps: int = 1000,
    warmup: int = 100,
    batch: int = 128,
    m: int = 32,
    width: int = 64,
    lr: float = 2e-3,
    lr_design: float = 0.02,
    seed: int = 0,
    watch: Callable[[int], None] | None = None,
) -> Critic:
    """Maximise a bound on I(theta; y) over a critic and, at once, over the parameters `learn` of the experiment.

    `experiment`, a function from draws to observations, is a `Static`, an `Adaptive` or your own. Every step has new
    draws, and m negatives a row. For `warmup` steps only the critic learns: where a critic that knows nothing points
    is nowhere. Adam; both rates fall along a cosine; that of the design is in parts of its box. `watch(step)` is called
    after each step, from 1. Raises ValueError for a bound that is not known or has a state of its own, for rows that are
    missing, and where no step is left for the design.
    """
    bound, learn = get(bound), list(learn)
    if bound.state is not None or "density" in bound.needs:
        raise ValueError(
            f"bound={bound.name!r} can't be used here: take flo, nwj, infonce or another of g and u"
        )
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup} of steps={steps} leaves no step for the design: use fewer")
    with torch.random.fork_rng(devices=[]):
        generator = _seeded(seed)
        with torch.no_grad():
            draw = prior(batch, generator)
            y = experiment(draw)
        for name, rows in (("prior", draw), ("simulator", y)):
            if len(rows) != batch:
                raise ValueError(
                    f"the {name} gave {len(rows)} rows for n={batch}: it must give one for each draw"
                )
        critic = Critic(y.flatten(1).shape[1], interest(draw).flatten(1).shape[1], bound, width)
        optimiser = torch.optim.Adam([{"params": list(critic.parameters()), "top": lr}])
        if learn:
            optimiser.add_param_group({"params": learn, "top": lr_design})
        for step in range(1, steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = group["top"] * cosine(step, steps, 0.01)
            draw = prior(batch, generator)
            with torch.set_grad_enabled(bool(learn) and step > warmup):
                y = experiment(draw)
            optimiser.zero_grad(set_to_none=True)
            (-bound.maximise(critic.scores(y, interest(draw), "shifts", m, generator))).backward()
            nn.utils.clip_grad_norm_(critic.parameters(), 5.0)
            optimiser.step()
            if watch is not None:
                watch(step)
    return critic.eval()


# Judging a design ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gain:
    """Expected information gain in nats, on draws that the critic has not seen.

    `value` is the bound, below the truth in expectation, with its standard error `stderr`; `plug_in` the mean of the
    pointwise MI, E[-u] for FLO, no bound. They agree where the critic is right.
    """

    value: float
    stderr: float
    plug_in: float


def expected_information_gain(
    prior: Prior,
    simulator: Simulator,
    design: Tensor | Adaptive,
    *,
    n: int = 5000,
    block: int = 250,
    held_out: tuple[Prior, Simulator] | None = None,
    bound: str | Bound = "flo",
    seed: int = 0,
    **options: Any,
) -> Gain:
    r"""Expected information gain of a design: a critic is trained on fresh draws, and the bound read on n others.

    .. math:: \mathrm{EIG}(d) = I(\theta; y \mid d) \ge E[1 - u - e^{-u} E_{\theta'} e^{g(y, \theta') - g(y, \theta)}]

    `design` is passed to the simulator as it is, or is an `Adaptive` policy, whose whole history is then the observation.
    Held-out rows are read in blocks with all their pairs. `held_out` gives them a prior and simulator of their own, where the
    first ones can repeat a draw, as stored paths do. Other `options` are those of `fit`, `interest` among them; the
    simulator need not be differentiable. Raises ValueError as `fit` does, and for fewer than two blocks.

    >>> prior = lambda n, generator: torch.randn(n, 1, generator=generator)
    >>> simulator = lambda theta, d: d * theta + torch.randn_like(theta)
    >>> r = expected_information_gain(prior, simulator, torch.tensor(2.0), n=2000, block=100, steps=200, m=4)
    >>> 0.6 < r.value < 0.9  # the truth is log(5) / 2 = 0.805
    True
    """
    if n < 2 * block:
        raise ValueError(f"n={n} rows are not two blocks of {block}: use more rows or smaller blocks")
    interest = options.get("interest", everything)
    critic = fit(_experiment(simulator, design), prior, bound, seed=seed, **options)
    prior, simulator = held_out or (prior, simulator)
    experiment = _experiment(simulator, design)
    values, plug_in = [], []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        draws = prior(n // block * block, _seeded(seed + 1_000_003))
        for draw in draws.split(block):
            s = critic.scores(experiment(draw), interest(draw), "all")
            values.append(critic.bound.value(s).double().mean())
            plug_in.append(critic.bound.pmi(s).double().mean())
    means = torch.stack(values)
    stderr = float(means.std()) / math.sqrt(len(means))
    return Gain(float(means.mean()), stderr, float(torch.stack(plug_in).mean()))


def _experiment(simulator: Simulator, design: Tensor | Adaptive) -> Callable[[Tensor], Tensor]:
    if isinstance(design, Adaptive):
        return lambda draw: torch.cat(design.history(draw, simulator), 1)
    return lambda draw: simulator(draw, design)


@dataclass(frozen=True)
class Reference:
    """Bounds on the expected information gain from a known likelihood, nats: lower (PCE) <= EIG <= upper (NMC) in expectation."""

    lower: float
    lower_stderr: float
    upper: float
    upper_stderr: float


@torch.no_grad()
def pce(
    prior: Prior,
    simulator: Simulator,
    log_likelihood: LogLikelihood,
    design: Tensor | Adaptive,
    *,
    n: int = 1000,
    contrasts: int = 20_000,
    seed: int = 0,
    at_once: int = 2**20,
) -> Reference:
    r"""Prior contrastive estimation and its upper counterpart, nested Monte Carlo, from a known likelihood.

    .. math:: E\left[\log \frac{p(y|\theta_0)}{\frac{1}{L+1} \sum_{l=0}^{L} p(y|\theta_l)}\right] \le \mathrm{EIG} \le
              E\left[\log \frac{p(y|\theta_0)}{\frac{1}{L} \sum_{l=1}^{L} p(y|\theta_l)}\right]

    `log_likelihood(y [..., T], theta [..., p], design [..., T])` gives [...], broadcasting. n outer draws, L = `contrasts`
    others, new ones for every block of rows that fits `at_once` likelihoods, so that memory is O(at_once T); PCE can't
    exceed log(L + 1).
    Reference: Foster et al. 2020, arXiv:1911.00294.

    >>> from flomi.applications.simulators import NoisyLinear
    >>> model = NoisyLinear()
    >>> r = pce(model.prior, model.simulate, model.log_likelihood, torch.tensor([10.0]), n=200, contrasts=500)
    >>> r.lower < r.upper
    True
    """
    with torch.random.fork_rng(devices=[]):
        generator = _seeded(seed)
        theta = prior(n, generator)
        if isinstance(design, Adaptive):
            designs, y = design.history(theta, simulator)
        else:
            y, designs = simulator(theta, design), design.expand(n, -1)
        own = log_likelihood(y, theta, designs)
        others = []
        for rows in torch.arange(n).split(max(1, at_once // contrasts)):
            theta = prior(contrasts, generator)
            likelihoods = log_likelihood(y[rows, None], theta[None], designs[rows, None])
            others.append(torch.logsumexp(likelihoods, 1))
    rest = torch.cat(others)
    lower = (own - torch.logaddexp(own, rest)).double() + math.log(contrasts + 1)
    upper = (own - rest).double() + math.log(contrasts)
    ends = [(float(v.mean()), float(v.std()) / math.sqrt(n)) for v in (lower, upper)]
    return Reference(*ends[0], *ends[1])


# Improving it --------------------------------------------------------------------------------------------------------


class Static(nn.Module):
    """An experiment planned in advance: T designs in a box, to be learned; forward gives the observations of draws.

    design = low + (high - low) unit. After a step that has left the box, `unit` is put back on its edge, where it
    can stay and from where it can leave; a squashing function would never get there, and hardly away.
    """

    def __init__(self, simulator: Simulator, start: Tensor, low: float, high: float) -> None:
        super().__init__()
        _check_box(start, low, high)
        self.simulator, self.low, self.high = simulator, low, high
        self.unit = nn.Parameter((start - low) / (high - low))

    @property
    def design(self) -> Tensor:
        """The designs [T], as they are now."""
        return self.low + (self.high - self.low) * self.unit.detach().clamp(0, 1)

    def forward(self, draw: Tensor) -> Tensor:
        self.unit.data.clamp_(0, 1)
        return self.simulator(draw, self.low + (self.high - self.low) * self.unit)


class Adaptive(nn.Module):
    r"""An experiment that looks at what it has measured: design t is a network of the history (d, y) of the t - 1 before.

    .. math:: d_t = low + (high - low)\,\sigma\left(z_t + f(t, \sum_{s<t} h(d_s, y_s))\right)

    Starts as the static experiment `start` [T], since f starts at 0. The sum forgets the order, as the posterior does. The
    simulator must take designs [n, 1] and give observations [n, 1], independent given the draw; `pilot` draws set the scale of y.
    forward: draws [n, p] -> designs and observations, [n, 2T]. Reference: Foster et al. 2021 (DAD), arXiv:2103.02438.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self, simulator: Simulator, start: Tensor, low: float, high: float, pilot: Tensor, width: int = 64
    ) -> None:
        super().__init__()
        _check_box(start, low, high)
        self.simulator, self.low, self.high = simulator, low, high
        # Not nearer to an edge than 1 %: at the edge itself the sigmoid has no gradient to leave it by.
        self.z = nn.Parameter(((start - low) / (high - low)).clamp(0.01, 0.99).logit())
        self.width = width
        self.encode, self.decide = mlp([2, width, width]), mlp([width + 1, width, 1])
        last = self.decide[-1]
        assert isinstance(last, nn.Linear)  # mlp ends with one
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            y = simulator(pilot, start.expand(len(pilot), -1))
        self.register_buffer("centre", y.mean())
        self.register_buffer("spread", y.std())

    def history(self, draw: Tensor, simulator: Simulator | None = None) -> tuple[Tensor, Tensor]:
        """Designs and observations of every draw, both [n, T]; of another simulator than its own, if one is given."""
        simulator = simulator or self.simulator
        seen = draw.new_zeros(len(draw), self.width)
        designs, ys = [], []
        for t, z in enumerate(self.z):
            now = seen.new_full((len(draw), 1), t / len(self.z))
            unit = (z + self.decide(torch.cat([seen, now], 1))).sigmoid()
            design = self.low + (self.high - self.low) * unit
            y = simulator(draw, design)
            seen = seen + self.encode(torch.cat([2 * unit - 1, (y - self.centre) / self.spread], 1))
            designs.append(design)
            ys.append(y)
        return torch.cat(designs, 1), torch.cat(ys, 1)

    def forward(self, draw: Tensor) -> Tensor:
        return torch.cat(self.history(draw), 1)


@dataclass(frozen=True)
class Optimised:
    """`design` [T] as it ended, and its `path` [steps + 1, T] from the start on."""

    design: Tensor
    path: Tensor


def optimise_design(
    prior: Prior,
    simulator: Simulator,
    start: Tensor,
    low: float,
    high: float,
    bound: str | Bound = "flo",
    **options: Any,
) -> Optimised:
    """The static design [T] in [low, high] with the largest information gain, by gradient through the simulator from `start`.

    `options` are those of `fit`. The gain has local optima: try several starts, and compare the ends by
    `expected_information_gain`. Raises ValueError if `start` is not in the box.

    >>> from flomi.applications.simulators import NoisyLinear
    >>> model = NoisyLinear()
    >>> optimise_design(model.prior, model.simulate, torch.tensor([1.0]), -10, 10, steps=3, warmup=1).path.shape
    torch.Size([4, 1])
    """
    experiment = Static(simulator, start, low, high)
    path = [experiment.design]
    watch = {"learn": experiment.parameters(), "watch": lambda _: path.append(experiment.design)}
    fit(experiment, prior, bound, **{**watch, **options})
    return Optimised(path[-1], torch.stack(path))


def _check_box(start: Tensor, low: float, high: float) -> None:
    if not low < high or not bool(((low <= start) & (start <= high)).all()):
        raise ValueError(f"start must lie between low={low} and high={high}; found {start.tolist()}")


def _seeded(seed: int) -> torch.Generator:
    """A generator for the prior; the global one, which simulators use, is seeded too."""
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed + 1)


# Models of others ----------------------------------------------------------------------------------------------------


def from_pyro(
    model: Callable[[Tensor], Any], theta: Sequence[str], observations: Sequence[str], example: Tensor
) -> tuple[Prior, Simulator]:
    """Prior and simulator of a pyro model, as `pyro.contrib.oed` wants it: `model(design)`, design [n, ...].

    `theta` and `observations` name its sample sites, each of n rows; `example` is any one design, for
    the prior does not depend on it.
    Needs `pip install pyro-ppl`. A design can be optimised where the observations are reparametrised (`rsample`).

        def model(design):                                                     # design [n, 1]
            slope = pyro.sample("slope", Normal(torch.zeros(len(design)), 1))
            pyro.sample("y", Normal(slope * design[:, 0], 1))

        prior, simulator = from_pyro(model, ["slope"], ["y"], torch.zeros(1))
    """
    from pyro import condition, poutine

    def many(design: Tensor, n: int) -> Tensor:
        return design if design.ndim > example.ndim else design.expand(n, *design.shape)

    def sites(run: Callable[[Tensor], Any], design: Tensor, names: Sequence[str]) -> list[Tensor]:
        nodes: Any = poutine.trace(run).get_trace(design).nodes
        return [nodes[name]["value"] for name in names]

    def flat(values: list[Tensor]) -> Tensor:
        return torch.cat([value.reshape(len(value), -1) for value in values], 1)

    with torch.random.fork_rng(devices=[]):
        shapes = [value.shape[1:] for value in sites(model, many(example, 2), theta)]

    def prior(n: int, generator: torch.Generator) -> Tensor:
        with torch.random.fork_rng(devices=[]):  # pyro draws from the global generator
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            return flat(sites(model, many(example, n), theta)).detach()

    def simulator(draw: Tensor, design: Tensor) -> Tensor:
        parts = zip(draw.split([math.prod(shape) for shape in shapes], 1), shapes, strict=True)
        values = [part.reshape(len(draw), *shape) for part, shape in parts]
        known = dict(zip(theta, values, strict=True))
        return flat(sites(condition(model, data=known), many(design, len(draw)), observations))

    return prior, simulator
