"""Random tasks: every family, on the laws that a pointwise MI obeys. No estimator is run here."""

from __future__ import annotations

import csv
import itertools
import pickle

import numpy as np
import pytest
from scipy.special import expit

from flomi import tasks
from flomi.tasks import random_suite
from flomi.tasks.core import Array
from flomi.tasks.random_copulas import COPULAS, Pair
from flomi.tasks.random_couplings import NOISES, Branches, Checkerboard, Circular, Ordinal
from flomi.tasks.random_families import FAMILIES, split
from flomi.tasks.random_indices import INDICES
from flomi.tasks.random_latent import chain, emission, shared
from flomi.tasks.random_law import diluted, stream
from flomi.tasks.random_suite import RandomTask, measure_law, random_task, random_tasks

N = 2000


@pytest.fixture(scope="module")
def drawn() -> dict[tuple[str, int], RandomTask]:
    """Two tasks of every family, the second one with its dependence given (strengths chosen on few rows, for speed)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_suite, "SETTINGS", random_suite.GeneratorSettings(trial_rows=1000))
        return {
            (name, seed): random_task(seed + 40, family=name, dims=(4, 3), nats=(None, 0.3)[seed])
            for name in FAMILIES
            for seed in (0, 1)
        }


def shuffled(task: RandomTask, x: Array, y: Array) -> Array:
    """The pointwise MI of unrelated pairs."""
    with np.errstate(divide="ignore", invalid="ignore"):
        pmi = task.pmi(x, np.roll(y, 1, axis=0))
    assert pmi is not None
    return np.where(np.isnan(pmi), -np.inf, pmi)  # pairs that cannot occur


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name: str, seed: int, drawn: dict[tuple[str, int], RandomTask]) -> None:
    """Shapes, finite rows, repeatable, and a pointwise MI that is a density ratio.

    With r = p(x, y) / (p(x) p(y)), the mean of r / (1 + r) over unrelated pairs is that of 1 / (1 + r) over pairs:
    both are bounded, so that every wrong r of this size would show. So does E r = 1, with heavier tails.
    """
    task = drawn[name, seed]
    x, y = task.sample(N, seed=1)
    assert x.shape == (N, 4) and y.shape == (N, 3)
    assert np.isfinite(x).all() and np.isfinite(y).all()
    pmi = task.pmi(x, y)
    assert pmi is not None and np.isfinite(pmi).all()
    again = task.sample(N, seed=1)
    assert np.array_equal(again[0], x) and np.array_equal(again[1], y)

    apart = shuffled(task, x, y)
    of_pairs, of_unrelated = expit(-pmi), expit(apart)
    error = np.sqrt((of_pairs.var() + of_unrelated.var()) / N) + 1e-9
    assert abs(of_pairs.mean() - of_unrelated.mean()) < 4.5 * error
    if seed == 1:
        assert abs(np.exp(apart).mean() - 1) < 5 * np.exp(apart).std() / N**0.5 + 0.03
        assert task.name.endswith("-4-3-0.3")
        assert abs(pmi.mean() - 0.3) < 0.1 + 4.5 * pmi.std() / N**0.5


@pytest.mark.parametrize("name", FAMILIES)
def test_truth_is_the_mean_pointwise_mi(name: str, drawn: dict[tuple[str, int], RandomTask]) -> None:
    task = drawn[name, 1]
    pmi = task.pmi(*task.sample(N, seed=2))
    truth = measure_law(task.law, task.name, rows=20_000, stderr=np.inf)
    assert pmi is not None
    assert abs(pmi.mean() - truth.mi) < 4.5 * np.hypot(pmi.std() / N**0.5, truth.stderr)
    assert truth.sd == pytest.approx(pmi.std(), rel=0.3)


def test_the_seed_decides_everything() -> None:
    a, b = random_task(7), random_task(7)
    assert a.name == b.name and a.families == b.families
    assert np.array_equal(a.sample(50, 0)[0], b.sample(50, 0)[0])
    assert len({random_task(seed, dims=(2, 2), nats=0.0).name for seed in range(8)}) == 8


def test_what_is_given_is_what_the_seed_would_have_drawn() -> None:
    free = random_task(12)
    nats = float(free.name.rsplit("-", 1)[1])
    given = random_task(12, family=free.families[0], dims=(free.dim_x, free.dim_y), nats=nats)
    assert given.name == free.name
    assert np.array_equal(given.sample(20, 3)[1], free.sample(20, 3)[1])


def test_draws_cover_columns_and_nats() -> None:
    dims = np.array([random_suite._draw_dims(seed, FAMILIES["gaussian"]) for seed in range(2000)])
    assert dims.min() == 1 and dims.max() == 50 and np.median(dims) < 10
    nats = np.array([random_suite._draw_nats(stream(seed, "nats")) for seed in range(2000)])
    assert nats.min() == 0 and 5.5 < nats.max() <= 6
    assert np.mean((nats >= 0.05) & (nats <= 3)) > 0.75 and 0.02 < np.mean(nats == 0) < 0.1


@pytest.mark.parametrize("dims", [(1, 1), (1, 3), (50, 2)])
def test_dims_are_honoured(dims: tuple[int, int]) -> None:
    for seed in range(3):
        task = random_task(seed, dims=dims, nats=0.0)
        x, y = task.sample(10, 0)
        assert (x.shape[1], y.shape[1]) == dims == (task.dim_x, task.dim_y)


def test_no_dependence() -> None:
    task = random_task(3, family="vine", dims=(2, 2), nats=0)
    assert task.mi == 0 == task.mi_stderr and task.efficient_stderr(10) == 0
    assert not np.any(task.pmi(*task.sample(10, 0)))


def test_strong_dependence() -> None:
    task = random_task(5, family="extremes", dims=(2, 2), nats=6)
    pmi = task.pmi(*task.sample(N, 0))
    assert pmi is not None and abs(pmi.mean() - 6) < 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "gauss"}, "no family"),
        ({"dims": (0, 1)}, "at least 1"),
        ({"dims": (1, 51)}, "from 1 to 50"),
        ({"family": "switch", "dims": (1, 2)}, "needs 3 and 1"),
        ({"family": "ordinal", "dims": (1, 1), "nats": 6}, "reaches"),
        ({"nats": -1}, "at least 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        random_task(0, **arguments)  # type: ignore[arg-type]


# --- halves ---


def test_halves() -> None:
    """The rule of the split, and what it is to guarantee."""
    rows = list(FAMILIES.values())
    assert split(rows) == {row.name: row.half for row in rows}
    halves = [{row.name for row in rows if row.half == half} for half in ("first", "second")]
    assert min(len(half) for half in halves) >= 7 and not halves[0] & halves[1]
    assert len(rows) >= 14 and 7 * sum(row.candidate for row in rows) <= len(rows)
    for half in halves:
        assert {FAMILIES[name].group for name in half} == {row.group for row in rows}


def test_lists_stay_in_their_half() -> None:
    for half in ("first", "second"):
        listed = random_tasks(half, 3, seed=5)
        assert all(FAMILIES[name].half == task.half == half for task in listed for name in task.families)
        assert len({task.name for task in listed}) == 3
    with pytest.raises(ValueError, match="half"):
        random_tasks("both", 1)  # type: ignore[arg-type]


def test_file_of_truths() -> None:
    with random_suite.TRUTH_FILE.open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    halves = [row["half"] for row in rows]
    assert halves.count("first") == halves.count("second") == 100
    assert max(float(row["stderr"]) for row in rows) <= 0.005
    first = random_tasks("first", 1)[0]
    assert first.name == rows[0]["name"] and first.mi == float(rows[0]["mi"])
    assert first.mi_stderr <= 0.005 and first.efficient_stderr(100) == pytest.approx(
        float(rows[0]["sd"]) / 10
    )


def test_half_and_families_of_the_file() -> None:
    with random_suite.TRUTH_FILE.open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    for row in rows:
        assert FAMILIES[row["name"].split("-")[2]].half == row["half"]


# --- tasks are tasks ---


def test_transform_and_stack_keep_the_pointwise_mi() -> None:
    task = random_task(1, family="several_valued", dims=(2, 2), nats=0.5)
    x, y = task.sample(100, 0)
    bent = task.transform(tasks.transforms.cube, tasks.transforms.asinh)
    assert bent.mi == task.mi
    assert np.allclose(bent.pmi(x**3, np.arcsinh(y)), task.pmi(x, y), atol=1e-5)
    two = tasks.stack("two", [task, task])
    assert two.mi == pytest.approx(2 * task.mi)


def test_pickle() -> None:
    task = pickle.loads(pickle.dumps(random_task(2, family="long_rows", dims=(3, 3), nats=0.3)))
    assert np.isfinite(task.pmi(*task.sample(10, 0))).all()


def test_disguise_keeps_every_row() -> None:
    """Rotations, networks and monotone maps are undone to rounding."""
    for seed in range(6):
        task = random_task(seed, family="manifold", dims=(5, 4), nats=1.0)
        side_x, side_y = task.log_ratio.args[1:]  # type: ignore[union-attr]
        rng = np.random.default_rng(seed)
        a, b = task.law.sampler(rng, 200)
        x, y = side_x.forward(rng, a), side_y.forward(rng, b)
        assert np.allclose(task.pmi(x, y), task.law.log_ratio(a, b), atol=1e-6)


# --- the parts, against sums and integrals ---


def test_shared_state_by_enumeration() -> None:
    table = np.array([[0.3, 0.1], [0.05, 0.55]])
    of_x = emission([("label", [[0.7, 0.2], [0.3, 0.8]])], 2)  # P(label | state), a row each label
    of_y = emission([("label", [[0.5, 0.1], [0.5, 0.9]]), ("label", [[0.9, 0.4], [0.1, 0.6]])], 2)
    law = shared(table, of_x, of_y)
    px, py1, py2 = (
        np.array([[0.7, 0.3], [0.2, 0.8]]),
        np.array([[0.5, 0.5], [0.1, 0.9]]),
        np.array([[0.9, 0.1], [0.4, 0.6]]),
    )
    joint = np.einsum("ij,ia,jb,jc->abc", table, px, py1, py2)
    cells = np.array(list(itertools.product((0.0, 1.0), repeat=3)))
    expected = np.log(joint / joint.sum(axis=(1, 2), keepdims=True) / joint.sum(axis=0)).ravel()
    assert np.allclose(law.log_ratio(cells[:, :1], cells[:, 1:]), expected)
    x, y = law.sampler(np.random.default_rng(0), 20_000)
    share = np.mean((x[:, 0] == 1) & (y[:, 0] == 1) & (y[:, 1] == 0))
    assert share == pytest.approx(joint[1, 1, 0], abs=0.015)


def test_chain_by_enumeration() -> None:
    start, step = np.array([0.4, 0.6]), np.array([[0.9, 0.1], [0.3, 0.7]])
    entry = emission([("label", [[0.8, 0.3], [0.2, 0.7]])], 2)
    law = chain(start, step, [entry] * 4, first=2)
    of_label = np.array([[0.8, 0.2], [0.3, 0.7]])
    joint = np.einsum("i,ij,jk,kl,ia,jb,kc,ld->abcd", start, step, step, step, *[of_label] * 4)
    expected = np.log(joint / joint.sum(axis=(2, 3), keepdims=True) / joint.sum(axis=(0, 1))).ravel()
    cells = np.array(list(itertools.product((0.0, 1.0), repeat=4)))
    assert np.allclose(law.log_ratio(cells[:, :2], cells[:, 2:]), expected)
    x, y = law.sampler(np.random.default_rng(0), 20_000)
    assert np.mean((x.sum(axis=1) == 0) & (y.sum(axis=1) == 0)) == pytest.approx(joint[0, 0, 0, 0], abs=0.015)


def test_ordinal_by_enumeration() -> None:
    coupling = Ordinal(np.array([-1.0, 1.0, 0.0]), 0.5, NOISES["logistic"], np.array([-0.5, 0.2]))
    u = (np.arange(4000) + 0.5) / 4000
    given = np.stack([np.exp(coupling.log_ratio(u, np.full(4000, v))) for v in (0.0, 1.0, 2.0)], axis=1)
    assert np.allclose(given.mean(axis=0), 1, atol=1e-4)  # E_u p(v | u) / p(v)
    _, v = coupling.sample(np.random.default_rng(0), 20_000)
    h = np.interp(u, [0, 0.5, 1], [-1, 1, 0])
    assert np.mean(v == 0) == pytest.approx(np.mean(NOISES["logistic"].cdf((-0.5 - h) / 0.5)), abs=0.015)


@pytest.mark.parametrize("noise", NOISES)
def test_branches_by_quadrature(noise: str) -> None:
    heights = np.array([[-1.0, 0.5, -0.2], [0.3, -0.6, 1.0]])
    coupling = Branches(heights, np.array([0.4, 0.6]), 0.3, NOISES[noise])
    u = (np.arange(20_000) + 0.5) / 20_000
    for v in (-0.4, 0.1, 0.9):
        assert np.exp(coupling.log_ratio(u, np.full_like(u, v))).mean() == pytest.approx(1, abs=1e-3)
    grid = (
        np.linspace(-400, 400, 800_001) if noise in ("cauchy", "student") else np.linspace(-12, 20, 320_001)
    )
    density = np.exp(NOISES[noise].log_pdf(grid))
    assert density.sum() * (grid[1] - grid[0]) == pytest.approx(1, abs=3e-3)
    assert np.allclose(NOISES[noise].cdf(grid) + NOISES[noise].sf(grid), 1)


@pytest.mark.parametrize("t", [0.3, 3.0])
@pytest.mark.parametrize("name", COPULAS)
def test_copulas(name: str, t: float) -> None:
    """Uniform margins, a density that is the slope of the conditional distribution, and its inverse."""
    for turns in ((False, False), (True, False)):
        pair = Pair(name, t, *turns)
        rng = np.random.default_rng(0)
        u, level = rng.random(400), rng.random(400)
        v = pair.solve(u, level)
        assert np.allclose(pair.given(u, v), level, atol=1e-7)
        step = 1e-5 * v * (1 - v)
        slope = (pair.given(u, v + step) - pair.given(u, v - step)) / (2 * step)
        assert np.allclose(np.log(slope), pair.log_ratio(u, v), atol=1e-3)
        assert np.allclose(pair.log_ratio(u, v), pair.log_ratio(v, u)) or any(turns)
        grid = (np.arange(4000) + 0.5) / 4000
        for other in (0.1, 0.6, 0.95):
            mean = np.exp(pair.log_ratio(grid, np.full_like(grid, other))).mean()
            assert mean == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("cauchy", [False, True])
def test_circular(cauchy: bool) -> None:
    coupling = Circular(-2, 3.0, cauchy, both_signs=True)
    u = (np.arange(1000) + 0.5) / 1000
    for v in (0.0, 0.3):
        assert np.exp(coupling.log_ratio(u, np.full_like(u, v))).mean() == pytest.approx(1, abs=1e-6)
    a, b = coupling.sample(np.random.default_rng(0), 20_000)
    assert np.histogram(b, bins=10, range=(0, 1))[0] / 20_000 == pytest.approx(np.full(10, 0.1), abs=0.015)
    assert np.exp(-coupling.log_ratio(a, b)).mean() == pytest.approx(1, abs=0.1)


def test_checkerboard() -> None:
    board = Checkerboard.of_permutations(np.array([[1, 2, 0], [0, 2, 1]]), 0.7)
    assert np.allclose(board.cells.sum(axis=0), 1 / 3) and np.allclose(board.cells.sum(axis=1), 1 / 3)
    a, b = board.sample(np.random.default_rng(0), 20_000)
    found = np.histogram2d(a, b, bins=3, range=((0, 1), (0, 1)))[0] / 20_000
    assert np.allclose(found, board.cells, atol=0.015)


@pytest.mark.parametrize("kind", INDICES)
def test_indices(kind: str) -> None:
    """Scattered rows have the value that they were given; rows scattered from uniforms have the stated columns."""
    index = INDICES[kind][1](stream(3, kind), 6)
    u = np.random.default_rng(0).random(3000)
    x = index.scatter(np.random.default_rng(1), u)
    assert x.shape == (3000, index.dim)
    assert np.allclose(index.value(x), u, atol=1e-9)


def test_dilution() -> None:
    law = random_task(1, family="pair_copulas", dims=(1, 1), nats=1.0).law
    part = diluted(law, 0.6)
    x, y = part.sampler(np.random.default_rng(0), N)
    apart = part.log_ratio(x, np.roll(y, 1, axis=0))
    assert np.allclose(np.exp(part.log_ratio(x, y)), 0.4 + 0.6 * np.exp(law.log_ratio(x, y)))
    assert abs(np.exp(apart).mean() - 1) < 5 * np.exp(apart).std() / N**0.5
