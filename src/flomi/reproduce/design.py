"""E14: experiments designed by maximising a bound on I(theta; y | design), on three models, and judged by something else.

The judge is not the bound that was climbed: quadrature for one measurement of the noisy line, PCE from the likelihood for ten of
them and for pharmacokinetics, and a new critic on paths never seen for the epidemic, whose likelihood nobody has. For one
model and seed all bounds start from the same random design, critic and draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flomi.applications.design import Adaptive, expected_information_gain, fit, optimise_design, pce
from flomi.applications.simulators import Epidemic, NoisyLinear, Pharmacokinetic
from flomi.reproduce.core import COLOURS, Experiment, Finding, Row, colour, panels, records, streams

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


TRUTH = 2.4158  # of one measurement of the noisy line at an edge, by quadrature
KNOWN = {  # designs of other people, and what PCE with 20,000 contrasts says of them
    "noisy-linear": {"equal": 4.64},
    "pharmacokinetic": {"hours": 2.91},
}
HOURS = torch.tensor([1.0, 3.0, 6.0, 12.0, 24.0])


def design(
    seed: int,
    *,
    bounds: Sequence[str],
    epidemic_bounds: Sequence[str],
    climb: Mapping[str, Any],
    judge: Mapping[str, Any],
    likelihood: Mapping[str, Any],
    policy_steps: int,
    paths: int,
    grid: int,
) -> Iterator[Row]:
    """Rows (model, T, by, judge): a design, who made it, and its information gain in nats with who says so.

    `climb` and `judge` are options of `fit`, `likelihood` of `pce`; of `paths` epidemics half are for judging.
    """
    line, drug = NoisyLinear(), Pharmacokinetic()
    # One measurement: the truth is known, and the critic's own number can be set beside it.
    start = _start(seed, "noisy-linear", 1, line.low, line.high)
    for name in bounds:
        found = optimise_design(
            line.prior, line.simulate, start, line.low, line.high, name, seed=seed, **climb
        ).design
        row = _row("noisy-linear", name, seed, found)
        yield {**row, "judge": "quadrature", "gain": line.information(float(found)), "stderr": 0.0}
        gain = expected_information_gain(line.prior, line.simulate, found, bound=name, seed=seed + 1, **judge)
        yield {**row, "judge": "critic", "gain": gain.value, "stderr": gain.stderr}

    def by_likelihood(model: NoisyLinear | Pharmacokinetic, what: Tensor | Adaptive) -> Row:
        r = pce(model.prior, model.simulate, model.log_likelihood, what, seed=seed, **likelihood)
        return {"judge": "pce", "gain": r.lower, "stderr": r.lower_stderr, "upper": r.upper}

    models: list[tuple[str, NoisyLinear | Pharmacokinetic, int, dict[str, Tensor]]] = [
        ("noisy-linear", line, 10, {"equal": torch.linspace(-10, 10, 10),
                                    "ends": torch.tensor([-10.0, 10.0]).repeat_interleave(5)}),
        ("pharmacokinetic", drug, 5, {"hours": HOURS, "equal": _equal(drug.low, drug.high)}),
    ]  # fmt: skip
    for label, model, t, others in models:
        start = _start(seed, label, t, model.low, model.high)
        designs = {"start": start, **others}
        for name in bounds:
            designs[name] = optimise_design(
                model.prior, model.simulate, start, model.low, model.high, name, seed=seed, **climb
            ).design
        for name, found in designs.items():
            yield {**_row(label, name, seed, found), **by_likelihood(model, found)}
    if policy_steps:
        _, generator = streams(seed, "design policy")
        policy = Adaptive(drug.simulate, designs["flo"], drug.low, drug.high, drug.prior(500, generator))
        options = {**climb, "steps": policy_steps, "lr_design": 2e-3}
        fit(policy, drug.prior, "flo", learn=policy.parameters(), seed=seed, **options)
        with torch.no_grad():
            typical = policy.history(drug.prior(500, generator))[0].median(0).values
        yield {**_row("pharmacokinetic", "policy", seed, typical), **by_likelihood(drug, policy)}
    yield from _epidemic(seed, epidemic_bounds, climb, judge, paths, grid)


def _epidemic(
    seed: int,
    bounds: Sequence[str],
    climb: Mapping[str, Any],
    judge: Mapping[str, Any],
    paths: int,
    grid: int,
) -> Iterator[Row]:
    _, generator = streams(seed, "design epidemic")
    every = Epidemic.make(paths, generator, grid)
    learned, unseen = every.split(len(every.theta) // 2)
    judge = {**judge, "n": min(judge.get("n", 5000), len(unseen.theta))}
    start = _equal(learned.low, learned.high)
    designs = {"equal": start}
    for name in bounds:
        designs[name] = optimise_design(
            learned.prior, learned.simulate, start, learned.low, learned.high, name,
            interest=learned.interest, seed=seed, **climb,
        ).design  # fmt: skip
    for name, found in designs.items():
        gain = expected_information_gain(
            learned.prior, learned.simulate, found, held_out=(unseen.prior, unseen.simulate),
            interest=learned.interest, seed=seed + 1, **judge,
        )  # fmt: skip
        row = _row("epidemic", name, seed, found)
        yield {**row, "judge": "critic", "gain": gain.value, "stderr": gain.stderr}


def _start(seed: int, label: str, t: int, low: float, high: float) -> Tensor:
    """A design drawn evenly from the box."""
    _, generator = streams(seed, "design start", label, t)
    return low + (high - low) * torch.rand(t, generator=generator)


def _equal(low: float, high: float, t: int = 5) -> Tensor:
    """t inner points, equally far from each other and from the edges."""
    return torch.linspace(low, high, t + 2)[1:-1]


def _row(label: str, by: str, seed: int, found: Tensor) -> Row:
    points = " ".join(f"{d:.2f}" for d in sorted(found.tolist()))
    return {"model": label, "T": len(found), "by": by, "seed": seed, "design": points, "upper": math.nan}


# What the table says -------------------------------------------------------------------------------------------------


def _points(row: Any) -> list[float]:
    return [float(d) for d in str(row.design).split()]


def _said(part: pd.DataFrame) -> str:
    """Gains of all seeds, the mean with its standard error; that of one seed is the judge's."""
    gain, n = part.gain.mean(), len(part)
    error = part.gain.std() / math.sqrt(n) if n > 1 else part.stderr.iloc[0]
    return f"{gain:.3f} ± {error:.3f}" if error > 0 else f"{gain:.4f}"


def compare(table: pd.DataFrame) -> list[Finding]:
    """Where the designs end, and what they are worth beside those that one would take without thinking."""
    findings = []
    one = table[(table.model == "noisy-linear") & (table["T"] == 1)]
    for by, part in one.groupby("by", sort=False):
        ends = " ".join(
            f"{p:+.2f}" for row in records(part[part.judge == "quadrature"]) for p in _points(row)
        )
        truth, own = (_said(part[part.judge == judge]) for judge in ("quadrature", "critic"))
        findings.append(Finding(f"noisy line, T = 1, {by}: end; truth there; own bound held out, nats",
                                f"±10; {TRUTH}", f"{ends}; {truth}; {own}"))  # fmt: skip
    for label, t in (("noisy-linear", 10), ("pharmacokinetic", 5), ("epidemic", 5)):
        some = table[(table.model == label) & (table["T"] == t)]
        for by, part in some.groupby("by", sort=False):
            known = KNOWN.get(label, {}).get(str(by))
            findings.append(Finding(f"{label}, T = {t}, {by}, nats by {part.judge.iloc[0]}",
                                    f"{known} (ours, L = 20,000)" if known else "",
                                    f"{_said(part)}; {part.design.iloc[0]}"))  # fmt: skip
    return findings


def draw(table: pd.DataFrame) -> Figure:
    """The truth over d with the ends of one measurement; for the others the designs as points and their gains."""
    figure, axes = panels(2, 2, 4.6, 3.2)
    grid = torch.linspace(0, 10, 21).tolist()
    half = [NoisyLinear().information(d) for d in grid]  # the same at -d
    left = [-d for d in grid[:0:-1]]
    axes[0].plot([*left, *grid], half[:0:-1] + half, color=COLOURS["truth"], label="truth")
    one = table[(table.model == "noisy-linear") & (table["T"] == 1) & (table.judge == "critic")]
    for row in records(one):
        axes[0].errorbar(
            _points(row)[0], row.gain, 2 * row.stderr, fmt="o", color=colour(row.by), label=row.by
        )
    handles: dict[str, Any] = dict(zip(*axes[0].get_legend_handles_labels()[::-1], strict=True))
    axes[0].legend(handles.values(), handles.keys())
    axes[0].set(xlabel="d", ylabel="nats", xlim=(-10.6, 10.6), ylim=(0, None))
    axes[0].set_title("Noisy line, one measurement")
    parts = (
        ("noisy-linear", 10, "Noisy line, ten: d"),
        ("pharmacokinetic", 5, "Pharmacokinetics: hours"),
        ("epidemic", 5, "Epidemic: days"),
    )
    for ax, (label, t, title) in zip(axes[1:], parts, strict=True):
        some = table[(table.model == label) & (table["T"] == t)]
        names = list(some.by.unique())
        for row in records(some):
            at = len(names) - 1 - names.index(row.by)
            shift = 0.12 * (row.seed - some.seed.min())
            ax.plot(_points(row), [at - shift] * t, "o", ms=5, alpha=0.6, color=colour(row.by))
        labels = [f"{name}: {some[some.by == name].gain.mean():.2f}" for name in names]
        ax.set_yticks(range(len(names)), labels=labels[::-1])
        ax.set_ylim(-0.6, len(names) - 0.4)
        ax.set_title(f"{title}, and nats")
        ax.grid(axis="x")
    return figure


# The record ----------------------------------------------------------------------------------------------------------

ALL = ("flo", "nwj", "infonce")

EXPERIMENT = Experiment(
    name="design",
    title="Experiments designed by a bound on MI: a noisy line, a drug, an epidemic (E14)",
    paper="no numbers: FLO against NWJ, InfoNCE and others on three models, static and adaptive",
    run=design,
    sizes={
        "full": {
            "bounds": ALL, "epidemic_bounds": ALL, "climb": {"steps": 2000, "warmup": 200}, "judge": {"steps": 3000, "n": 10_000},
            "likelihood": {"n": 2000, "contrasts": 10_000}, "policy_steps": 2000, "paths": 40_000, "grid": 1000,
        },
        "quick": {
            "bounds": ALL, "epidemic_bounds": ("flo",), "climb": {"steps": 500, "m": 16}, "judge": {"steps": 800, "m": 16},
            "likelihood": {"n": 1000, "contrasts": 2000}, "policy_steps": 300, "paths": 12_000, "grid": 1000,
        },
        "tiny": {
            "bounds": ("flo", "infonce"), "epidemic_bounds": ("flo",), "climb": {"steps": 6, "warmup": 2, "batch": 16, "m": 2},
            "judge": {"steps": 5, "warmup": 0, "batch": 16, "m": 2, "n": 40, "block": 20},
            "likelihood": {"n": 20, "contrasts": 30}, "policy_steps": 4, "paths": 200, "grid": 50,
        },
    },
    draw=draw,
    compare=compare,
)  # fmt: skip
