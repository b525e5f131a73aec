"""Estimators side by side where the truth is known: suite x size x seed x estimator, resumable, on any joblib backend.

    run("bmi-v1", ["flo", "ksg-3"], sizes=[1000])     fills bench.csv, or goes on where it was stopped
    catalogue()                                       the estimators by name; module:function is one of your own
    table = load(["bench.csv"])                       the results as a DataFrame; leaderboard(table) and by_task(...) sum up
    write_page(table, "bench.html")                   one page; markdown(table) has the leaderboards as text

`flomi bench` on the command line does the same. A new baseline: a function in `baselines`, and its row in `estimators`.
"""

from __future__ import annotations

from flomi.bench.estimators import Estimator, catalogue, resolve
from flomi.bench.page import write_page
from flomi.bench.runner import DEFAULT_ESTIMATORS, Outcome, names_of_suites, run, tasks_of
from flomi.bench.summary import by_task, consistency_table, leaderboard, load, markdown, readouts

__all__ = [
    "DEFAULT_ESTIMATORS",
    "Estimator",
    "Outcome",
    "by_task",
    "catalogue",
    "consistency_table",
    "leaderboard",
    "load",
    "markdown",
    "names_of_suites",
    "readouts",
    "resolve",
    "run",
    "tasks_of",
    "write_page",
]
