"""Mutual information of the tasks that have no formula, measured once on many rows and kept here.

`python benchmarks/truth.py` measures them again and prints the table (about ten minutes on one core).
"""

from __future__ import annotations

import math

from flomi.tasks.core import Task

# name: (MI in nats, standard error), from 10,000,000 rows
MEASURED: dict[str, tuple[float, float]] = {
    "clusters-1-1": (0.375530, 0.000223),
    "clusters-2-3": (1.530275, 0.000294),
    "clusters-5-5": (1.063354, 0.000377),
    "student-clusters-2-2": (0.983754, 0.000407),
    "two-classes-5-1": (0.265778, 0.000178),
    "four-classes-2-1": (0.888827, 0.000197),
}


def measure(task: Task, n: int, *, seed: int = 0, chunk: int = 100_000) -> tuple[float, float]:
    """The mean of the task's exact pointwise MI over at least n fresh rows, and its standard error, in nats.

    I = E log p(x, y) / (p(x) p(y)). Raises ValueError if the task has no exact pointwise MI.

    Example:
        >>> from flomi import tasks
        >>> mean, stderr = measure(tasks.get("1v1-normal-0.75"), n=100_000)
        >>> abs(mean - 0.41334) < 4 * stderr
        True
    """
    count, total, square = 0, 0.0, 0.0
    for part in range(math.ceil(n / chunk)):
        pmi = task.pmi(*task.sample(min(chunk, n), seed + part))
        if pmi is None:
            raise ValueError(f"{task.name} has no exact pointwise MI; there is nothing to average")
        count, total, square = count + len(pmi), total + float(pmi.sum()), square + float((pmi**2).sum())
    mean = total / count
    return mean, math.sqrt(max(0.0, square / count - mean**2) / count)
