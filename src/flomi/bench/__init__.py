"""Estimators side by side where the truth is known: suite x size x seed x estimator, resumable, on any joblib backend.

    run("bmi-v1", ["flo", "ksg-3"], sizes=[1000])     fills bench.csv, or goes on where it was stopped
    catalogue()                                       the estimators by name; module:function is one of your own
    load(["bench.csv"])                               the results as a table; `summary` has what is drawn from it
    write_page(table, "bench.html")                   one page: leaderboard, errors, time, coverage

`flomi bench` on the command line does the same.
"""

from __future__ import annotations

from flomi.bench.estimators import catalogue, resolve
from flomi.bench.runner import Outcome, names_of_suites, run

__all__ = ["Outcome", "catalogue", "names_of_suites", "resolve", "run"]
