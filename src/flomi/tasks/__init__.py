"""Distributions whose mutual information is known, to test estimators on.

    suite("bmi-v1")        a tuple of tasks; `SUITES` names them all
    get("circle-1-1")      one task by name
    task.sample(n, seed)   rows;  task.mi  the truth;  task.pmi(x, y)  the exact pointwise MI
    task.transform(f, g)   a new task with the same MI
    random_task(seed)      a task of one of many `FAMILIES`; random_tasks("first", 100) a list of them
    consistency            tests on data whose MI is not known: images, or your own

New distributions: a function that returns a `Task` (see `base`, `copulas`, `curves`), and its row in a suite.
"""

from __future__ import annotations

from flomi.tasks import base, consistency, copulas, curves, transforms
from flomi.tasks.consistency import self_consistency
from flomi.tasks.core import Task, Transform, stack
from flomi.tasks.random_families import FAMILIES
from flomi.tasks.random_suite import RandomTask, random_task, random_tasks
from flomi.tasks.suites import SUITES, get, suite

__all__ = [
    "FAMILIES",
    "SUITES",
    "RandomTask",
    "Task",
    "Transform",
    "base",
    "consistency",
    "copulas",
    "curves",
    "get",
    "random_task",
    "random_tasks",
    "self_consistency",
    "stack",
    "suite",
    "transforms",
]
