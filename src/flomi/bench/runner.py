"""Cells of task x size x seed x estimator, run through joblib, each a row in the file as soon as it is done."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, field
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from flomi._version import __version__
from flomi.bench.baselines import Answer, NotApplicable
from flomi.bench.estimators import expand, resolve
from flomi.bench.results import FAILED, SKIPPED, Key, opened
from flomi.parallel import one_thread
from flomi.support.names import suggestion
from flomi.tasks import SUITES, Task, consistency, suite

#: What runs unless told otherwise: flomi's own fast estimate, and these groups.
DEFAULT_ESTIMATORS = ("auto-fast", "baselines", "bounds")
DEFAULT_SIZES = (1000, 5000, 10_000)
CONSISTENCY = {  # suites without a known MI, by the images that they are made of
    "self-consistency": "digits",
    "self-consistency-mnist": "mnist",
    "self-consistency-fashion-mnist": "fashion-mnist",
}


@dataclass(frozen=True)
class Outcome:
    """How a run went: cells asked for, how many of them were there before, were skipped, and failed.

    `first_failure` names the first failed cell and says why; `versions` counts the cells from before by the flomi that ran
    them, where it is another.
    """

    cells: int
    before: int
    skipped: int
    failed: int
    path: Path
    first_failure: str = ""
    versions: Mapping[str, int] = field(default_factory=dict)


def names_of_suites() -> tuple[str, ...]:
    """All suites that can be run: those of `flomi.tasks` and the self-consistency tests."""
    return (*SUITES, *CONSISTENCY)


def tasks_of(name: str) -> tuple[Task | consistency.Pairing, ...]:
    """The tasks of a suite. Raises ValueError for an unknown name, or images that are not installed."""
    if name in CONSISTENCY:
        return _pairings(CONSISTENCY[name])
    if name not in SUITES:
        raise ValueError(f"no suite is called {name!r}; {suggestion(name, names_of_suites())}")
    return suite(name)


def sizes_of(name: str) -> tuple[int, ...]:
    """The sizes that a suite is run at unless told otherwise: two images a row allow half as many rows as images."""
    if name not in CONSISTENCY:
        return DEFAULT_SIZES
    most = len(_pairings(CONSISTENCY[name])[0].images) // 2
    return tuple(n for n in DEFAULT_SIZES if n <= most) or (most // 100 * 100,)


def run(
    suite: str,
    estimators: Sequence[str] = DEFAULT_ESTIMATORS,
    *,
    out: str | Path = "bench.csv",
    sizes: Sequence[int] | None = None,
    seeds: Sequence[int] = (0,),
    tasks: Sequence[str] | None = None,
    jobs: int | None = 1,
    retry: bool = False,
    progress: bool = False,
) -> Outcome:
    """Run every cell that `out` does not have yet, and leave `out` in canonical order.

    Cells go through `joblib.Parallel`, so within `joblib.parallel_config(backend=...)` they run wherever that backend runs
    them; `jobs` is how many at a time, None as many as the backend says. Each uses one thread, and its numbers depend on
    the task, the size, the seed and the estimator alone. Killed at any moment and called again it goes on where it was.
    `tasks` picks some of the suite; `retry` runs failed cells again. Raises ValueError for names, sizes or seeds that
    don't exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run("independence", ["gaussian"], sizes=[300], out=Path(folder, "bench.csv")).cells
    3
    """
    from joblib import Parallel, delayed
    from tqdm.auto import tqdm

    path = Path(out)
    wanted = _wanted(suite, expand(estimators), sizes or sizes_of(suite), seeds, tasks)
    with opened(path) as results:
        todo = [
            k for k in wanted if k not in results.rows or (retry and results.rows[k]["verdict"] == FAILED)
        ]
        kept = Counter(results.rows[key]["version"] for key in set(wanted) - set(todo))
        # batches would hold back finished rows, and a kill would lose them
        rows = Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")(
            delayed(cell)(*astuple(key)) for key in todo
        )
        for row in tqdm(rows, total=len(todo), desc=suite, unit="cell", disable=not progress, smoothing=0.1):
            results.add(row)
        results.finish()
        verdicts = [results.rows[key]["verdict"] for key in wanted]
        first = ""
        if FAILED in verdicts:
            key = wanted[verdicts.index(FAILED)]
            note = results.rows[key]["note"]
            first = f"{key.estimator} on {key.task}, {key.n} rows, seed {key.seed}: {note}"
    skipped, failed = verdicts.count(SKIPPED), verdicts.count(FAILED)
    versions = {version: kept[version] for version in sorted(kept) if version != __version__}
    return Outcome(len(wanted), len(wanted) - len(todo), skipped, failed, path, first, versions)


def cell(suite: str, task: str, n: int, seed: int, estimator: str) -> dict[str, Any]:
    """One cell as a row: the task's rows drawn, the estimator run on one thread; whatever it raises becomes the note."""
    target = {t.name: t for t in tasks_of(suite)}[task]
    row: dict[str, Any] = {
        "suite": suite,
        "task": task,
        "dim_x": target.dim_x,
        "dim_y": target.dim_y,
        "n": n,
        "seed": seed,
        "estimator": estimator,
        "true_mi": target.mi if isinstance(target, Task) else None,
        "version": __version__,
    }
    _reset_peak()
    start = time.perf_counter()
    try:
        with one_thread():
            x, y = target.sample(n, seed)
            start = time.perf_counter()
            answer = _estimated(estimator, target, x, y, seed)
        row |= asdict(answer)
        if math.isnan(answer.estimate):
            row |= {"estimate": None, "verdict": FAILED, "note": "the estimate is not a number"}
    except NotApplicable as reason:
        row |= {"verdict": SKIPPED, "note": str(reason)}
    except Exception as error:
        row |= {"verdict": FAILED, "note": f"{type(error).__name__}: {error}"}
    return row | {"seconds": round(time.perf_counter() - start, 3), "peak_mb": _peak_mb()}


def _estimated(name: str, target: Task | consistency.Pairing, x: Any, y: Any, seed: int) -> Answer:
    estimator = resolve(name)
    if estimator.needs_py:
        return estimator.run(x, y, seed, log_py=target.log_py if isinstance(target, Task) else None)
    return estimator.run(x, y, seed)


def _wanted(
    name: str,
    estimators: Sequence[str],
    sizes: Sequence[int],
    seeds: Sequence[int],
    chosen: Sequence[str] | None,
) -> list[Key]:
    """The cells in the order in which they run: small sizes first."""
    known = [task.name for task in tasks_of(name)]
    unknown = [task for task in chosen or () if task not in known]
    if unknown:
        raise ValueError(f"suite {name} has no task {unknown[0]!r}; `flomi bench list {name}` shows them")
    for what, values, least in (("sizes", sizes, 1), ("seeds", seeds, 0)):
        if not values or min(values) < least:
            raise ValueError(f"{what} must be whole numbers from {least} up; found {list(values)}")
    picked = [task for task in known if not chosen or task in chosen]
    order = product(sorted(set(sizes)), sorted(set(seeds)), picked, estimators)
    return [Key(name, task, n, seed, estimator) for n, seed, task, estimator in order]


@cache
def _pairings(dataset: str) -> tuple[consistency.Pairing, ...]:
    return consistency.pairings(consistency.images(dataset), dataset)


def _reset_peak() -> None:
    """Linux forgets the process's peak memory on request; other systems tell none."""
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _peak_mb() -> int | None:
    """The process's largest resident memory since then, in MB; None where the system doesn't tell."""
    try:
        with open(f"/proc/{os.getpid()}/status") as file:
            return next((int(line.split()[1]) // 1024 for line in file if line.startswith("VmHWM")), None)
    except OSError:
        return None
