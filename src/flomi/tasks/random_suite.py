"""Random tasks: distributions of many families, drawn by seed, with exact pointwise MI.

random_task(seed, family=..., dims=..., nats=...)   one task
random_tasks("first", count, seed)                  a list: choose and calibrate on the first half of the families ...
random_tasks("second", count, seed)                 ... and check on the second, twice at most
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import get_args

import numpy as np

from flomi.support.settings import UNMEASURED, setting
from flomi.tasks.core import LogRatio, Sampler, Task, _whole
from flomi.tasks.random_families import FAMILIES, Family, Half
from flomi.tasks.random_law import Law, LawOfLevel, diluted, flipped, independent, side_by_side, stream
from flomi.tasks.random_maps import draw_side, wrapped

__all__ = ["TRUTH_FILE", "RandomTask", "Truth", "measure_law", "random_task", "random_tasks"]

TRUTH_FILE = Path(__file__).with_name("random_truth.csv")


@dataclass(frozen=True)
class GeneratorSettings:
    """What the generator draws from. A change makes other tasks: the file of truths is then to be measured again."""

    most_columns: int = setting(50, "the widest tasks of bmi-v1, whose results are published")
    levels: int = setting(
        256,
        "strengths 4 % apart: MI within the 20 % that are promised, on a grid that rounding does not move",
    )
    trial_rows: int = setting(
        4_000, "a standard error of 0.006 at 0.05 nats, where sd(PMI) is about sqrt(2 I)"
    )
    chance_beside: float = setting(0.15, f"{UNMEASURED}two families side by side in about one task of eight")
    chance_diluted: float = setting(0.15, f"{UNMEASURED}unrelated rows in about one task of seven")
    chance_plain: float = setting(0.3, f"{UNMEASURED}columns left unmixed, as in most tables")
    truth_rows: int = setting(
        40_000, "four times the largest sample of the benchmarks; the file takes 200,000"
    )
    truth_stderr: float = setting(0.005, "below 5 % of the sampling error of 1,000 rows at sd(PMI) = 1")


SETTINGS = GeneratorSettings()


@dataclass(frozen=True)
class Truth:
    """I(X; Y) in nats, its standard error (0 where there is a formula), and the spread of the pointwise MI over rows."""

    mi: float
    stderr: float
    sd: float


class RandomTask(Task):
    """A `Task` whose MI is looked up in the file of truths, or measured when it is first asked for (seconds).

    `families` are those that it is made of (one, or two side by side), `half` the half that they belong to.
    """

    def __init__(
        self,
        name: str,
        dim_x: int,
        dim_y: int,
        sampler: Sampler,
        log_ratio: LogRatio,
        law: Law,
        families: tuple[str, ...],
        half: Half,
    ) -> None:
        # the record is frozen, and its own __init__ would ask for the MI
        self.__dict__.update(
            name=name, dim_x=dim_x, dim_y=dim_y, sampler=sampler, log_ratio=log_ratio, log_py=None
        )
        self.__dict__.update(law=law, families=families, half=half)

    law: Law
    families: tuple[str, ...]
    half: Half

    @cached_property
    def truth(self) -> Truth:
        """What the file says, else 40,000 rows and more until the standard error is 0.005."""
        known = _truths().get(self.name)
        return known if known is not None else measure_law(self.law, self.name)

    @property
    def mi(self) -> float:
        """I(X; Y) in nats."""
        return self.truth.mi

    @property
    def mi_stderr(self) -> float:
        """The standard error of `mi`, 0 where it is exact."""
        return self.truth.stderr

    def efficient_stderr(self, n: int) -> float:
        """sd(PMI) / sqrt(n), the standard error of the mean of the exact pointwise MI over n rows.

        No regular estimator that knows nothing of the distribution does better for large n. Raises ValueError for n < 1.

        Example:
            >>> task = random_task(0, family="gaussian", dims=(1, 1), nats=0.5)
            >>> bool(0 < task.efficient_stderr(10_000) < 0.01)
            True
        """
        return self.truth.sd / math.sqrt(_whole("n", n, at_least=1))

    def __repr__(self) -> str:
        return f"RandomTask(name={self.name!r}, dim_x={self.dim_x}, dim_y={self.dim_y})"


def random_task(
    seed: int, family: str | None = None, dims: tuple[int, int] | None = None, nats: float | None = None
) -> RandomTask:
    """A distribution that the seed decides: its family, its columns, how strong the dependence is, and its disguise.

        log p(x, y) / (p(x) p(y)) = log p(a, b) / (p(a) p(b)),      x = f(a, irrelevant),  y = h(b, irrelevant)

    (a, b) follow a law of the family whose pointwise MI is exact; f and h are random invertible maps: rotations, networks,
    monotone maps of columns, another order of columns. Now and then two families stand side by side, or some rows are
    unrelated, pmi' = log(1 - s + s e^pmi); x and y change places half of the time.

    `family` is a name in `FAMILIES`, `dims` the columns of x and y (drawn between 1 and 50, small ones more often), `nats` the MI
    to aim at (drawn between 0 and 6, mostly between 0.05 and 3): the strength is chosen to meet it within about 20 %, while
    `task.mi` is the truth. Given some of these, the seed draws the rest. Raises ValueError for an unknown family, for
    fewer columns than the family needs, and for more nats than it reaches.

    Example:
        >>> task = random_task(3, family="interaction", dims=(3, 2), nats=1.0)
        >>> x, y = task.sample(5000, seed=0)
        >>> x.shape, y.shape, task.half
        ((5000, 3), (5000, 2), 'first')
        >>> bool(abs(task.pmi(x, y).mean() - task.mi) < 0.1)
        True
    """
    seed = _whole("seed", seed, at_least=0)
    row = _family(seed, family, dims)
    dim_x, dim_y = dims if dims is not None else _draw_dims(seed, row)
    build, names = _law(seed, row, dim_x, dim_y)
    target, law = _tuned(seed, build, nats, row.name)
    name = f"random-{seed}-{row.name}-{dim_x}-{dim_y}-{target:g}"
    draw = stream(seed, row.name, "sides")
    plain = draw.rand() < SETTINGS.chance_plain
    pilot = law.sampler(np.random.default_rng([seed, 1]), 1000)
    side_x, side_y = (
        draw_side(draw, values, discrete, dim, plain=plain)
        for values, discrete, dim in zip(pilot, (law.discrete_x, law.discrete_y), (dim_x, dim_y), strict=True)
    )
    return RandomTask(name, dim_x, dim_y, *wrapped(law, side_x, side_y), law, names, row.half)


def random_tasks(half: Half, count: int, seed: int = 0) -> tuple[RandomTask, ...]:
    """`count` random tasks of one half of the families, in turn. Raises ValueError for another half.

    Choose and calibrate on the first half, and say so where it is done; run the second half at most twice. The truths
    of `random_tasks("first", 100)` and `random_tasks("second", 100)` are kept in a file.

    Example:
        >>> [task.families[0] for task in random_tasks("first", 2)]
        ['smooth_function', 'gaussian_mixture']
    """
    if half not in get_args(Half):
        raise ValueError(f'half is {half!r}; it must be "first" or "second"')
    names = [family.name for family in FAMILIES.values() if family.half == half]
    seeds = stream(_whole("seed", seed, at_least=0), "list", half).randint(2**31 - 1, size=count)
    return tuple(random_task(int(start), family=names[i % len(names)]) for i, start in enumerate(seeds))


def measure_law(
    law: Law, name: str, *, rows: int = SETTINGS.truth_rows, stderr: float = SETTINGS.truth_stderr
) -> Truth:
    """The mean of the pointwise MI over at least so many rows, and more until its standard error is small (at most 4 million)."""
    rng = np.random.default_rng([2026, *name.encode()])
    count, total, square, error = 0, 0.0, 0.0, math.inf
    while count < rows or (error > stderr and count < 4_000_000):
        pmi = law.log_ratio(*law.sampler(rng, 20_000))
        count, total, square = count + len(pmi), total + float(pmi.sum()), square + float((pmi**2).sum())
        error = math.sqrt(max(0.0, square / count - (total / count) ** 2) / count)
    sd = error * math.sqrt(count)
    return Truth(total / count, error, sd) if law.mi is None else Truth(law.mi, 0.0, sd)


@cache
def _truths() -> dict[str, Truth]:
    if not TRUTH_FILE.exists():
        return {}
    with TRUTH_FILE.open(newline="") as lines:
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return {row["name"]: Truth(float(row["mi"]), float(row["stderr"]), float(row["sd"])) for row in rows}


# --- what the seed draws ---


def _fits(row: Family, dims: Sequence[int]) -> bool:
    return any(a >= row.least[0] and b >= row.least[1] for a, b in (tuple(dims), tuple(dims)[::-1]))


def _family(seed: int, family: str | None, dims: tuple[int, int] | None) -> Family:
    if dims is not None and (
        len(dims) != 2 or max(_whole("dims", d, at_least=1) for d in dims) > SETTINGS.most_columns
    ):
        raise ValueError(
            f"dims is {dims}; give the columns of x and of y, each from 1 to {SETTINGS.most_columns}"
        )
    if family is None:
        rows = [row for row in FAMILIES.values() if dims is None or _fits(row, dims)]
        return rows[stream(seed, "family").randint(len(rows))]
    if family not in FAMILIES:
        raise ValueError(f"no family is called {family!r}; known are {', '.join(FAMILIES)}")
    row = FAMILIES[family]
    if dims is not None and not _fits(row, dims):
        raise ValueError(
            f"dims is {tuple(dims)}; the family {family!r} needs {row.least[0]} and {row.least[1]} columns"
        )
    return row


def _draw_dims(seed: int, row: Family) -> tuple[int, int]:
    a, b = (int((SETTINGS.most_columns + 1) ** (u**1.3)) for u in stream(seed, "dims").rand(2))
    if not _fits(row, (a, b)):
        a, b = max(a, row.least[0]), max(b, row.least[1])
    return a, b


def _draw_nats(draw: np.random.RandomState) -> float:
    kind, place = draw.rand(2)
    if kind < 0.06:
        return 0.0
    return float(0.05 * 60**place if kind < 0.9 else 3 + 3 * place)


def _law(seed: int, row: Family, dim_x: int, dim_y: int) -> tuple[LawOfLevel, tuple[str, ...]]:
    """The law for every level, and the families in it."""
    draw = stream(seed, row.name)
    flip, beside, some, share = draw.rand(4)
    flips = flip < 0.5
    if flips:
        dim_x, dim_y = dim_y, dim_x
    if dim_x < row.least[0] or dim_y < row.least[1]:
        flips, dim_x, dim_y = not flips, dim_y, dim_x
    others = [f for f in FAMILIES.values() if f.half == row.half and f is not row and not f.candidate]
    other = others[draw.randint(len(others))]
    room = dim_x >= row.least[0] + other.least[0] and dim_y >= row.least[1] + other.least[1]
    parts = [(row, dim_x, dim_y)]
    if beside < SETTINGS.chance_beside and room:
        half_x, half_y = (max(1, d // 2) for d in (dim_x, dim_y))
        half_x, half_y = max(half_x, row.least[0]), max(half_y, row.least[1])
        half_x, half_y = min(half_x, dim_x - other.least[0]), min(half_y, dim_y - other.least[1])
        parts = [(row, half_x, half_y), (other, dim_x - half_x, dim_y - half_y)]
    builds = [f.build(stream(seed, row.name, f.name, "law"), a, b) for f, a, b in parts]

    def law(level: float) -> Law:
        whole = side_by_side([build(level) for build in builds])
        if some < SETTINGS.chance_diluted:
            whole = diluted(whole, 0.3 + 0.65 * share)
        return flipped(whole) if flips else whole

    return law, tuple(f.name for f, _, _ in parts)


def _tuned(seed: int, build: LawOfLevel, nats: float | None, family: str) -> tuple[float, Law]:
    """The nats aimed at, and the law of the weakest level that has them on 4,000 rows, or its neighbour if that is nearer."""
    draw = stream(seed, "nats")
    drawn = _draw_nats(draw)
    target = round(drawn, 3) if nats is None else float(nats)
    if not target >= 0:
        raise ValueError(f"nats is {nats}; it must be at least 0")
    if target == 0:
        return 0.0, independent(build(0.5))
    trial = cache(partial(_trial, seed, build))
    level = _least_level(trial, target)
    if trial(level) < target:  # the strongest is too weak
        if nats is not None:
            raise ValueError(
                f"nats is {nats}; with this seed and these columns the family {family!r} reaches {trial(level):.2f}"
            )
        target = round(trial(level) * draw.uniform(0.3, 0.9), 3)
        level = _least_level(trial, target)
    if level > 0 and target - trial(level - 1) < trial(level) - target:
        level -= 1
    return target, build(level / (SETTINGS.levels - 1))


def _least_level(trial: Callable[[int], float], target: float) -> int:
    low, high = 0, SETTINGS.levels - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if trial(middle) >= target else (middle + 1, high)
    return low


def _trial(seed: int, build: LawOfLevel, level: int) -> float:
    law = build(level / (SETTINGS.levels - 1))
    if law.mi is not None:
        return law.mi
    return float(law.log_ratio(*law.sampler(np.random.default_rng([seed, 0]), SETTINGS.trial_rows)).mean())
