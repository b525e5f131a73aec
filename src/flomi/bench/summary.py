"""From files of results to the tables that are shown: leaderboard, errors by task, self-consistency."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from flomi.bench.results import COLUMNS, FAILED, SKIPPED, read
from flomi.tasks import consistency

Frame: TypeAlias = Any  # a pandas DataFrame or Series, whose columns the type checker doesn't know by name


WORDS = ("suite", "task", "estimator", "verdict", "version", "note")
KEY = ["suite", "task", "n", "seed", "estimator"]
BOUND, PLUG_IN, ESTIMATE = "bound", "plug-in", "estimate"


def load(paths: Iterable[str | Path]) -> Frame:
    """The results of several files as one table with the columns of `results.COLUMNS`; of a cell in two files the last counts.

    Files of `flomi bench run`, or of benchmarks/accuracy.py (see `from_accuracy`). Raises ValueError for any other.
    """
    import pandas as pd

    frames = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            header = file.readline()
        if "critic_asked" in header:
            frames.append(from_accuracy(pd.read_csv(path)))
        else:
            frames.append(pd.DataFrame(read(path), columns=list(COLUMNS)))
    table = pd.concat([frame.astype(object) for frame in frames], ignore_index=True)
    for name in set(COLUMNS) - set(WORDS):
        table[name] = pd.to_numeric(table[name])
    table = table.drop_duplicates(KEY, keep="last").sort_values(KEY, ignore_index=True)
    if table.empty:
        raise ValueError("there are no results in these files yet; flomi bench run adds some")
    return table


def from_accuracy(frame: Frame) -> Frame:
    """Runs of benchmarks/accuracy.py in the columns of the bench.

    `flomi.estimate` at its defaults is "auto"; another effort is "auto-fast", "auto-thorough"; another critic, by its name,
    "critic-network".
    """
    from flomi.estimator import MIEstimator

    names = {"truth": "true_mi", "mi": "estimate", "low": "ci_low", "high": "ci_high", "versions": "version"}
    new = frame.rename(columns=names)
    default = MIEstimator().get_params()
    effort = frame["effort"].map(lambda name: "" if name == default["effort"] else f"-{name}")
    critic = frame["critic_asked"].map(lambda name: name if name == default["critic"] else f"critic-{name}")
    new["estimator"], new["peak_mb"], new["note"] = critic + effort, None, ""
    new["version"] = new["version"].str.extract(r"flomi ([^,]+)")[0]
    return new[list(COLUMNS)]


def readouts(table: Frame) -> Frame:
    """One row a number that was read out: columns suite, task, n, seed, estimator, readout, value, error, and others.

    A variational bound has two read-outs, "bound" and "plug-in" (one where they agree everywhere); others have "estimate".
    Only its main read-out has an interval; `covered` says whether it holds the truth, `exceeded` whether lower_bound is
    above it. NaN where there is no such number, or the truth is not known.
    """
    import pandas as pd

    answered = table[table.estimate.notna()]
    parts = []
    for _, mine in answered.groupby("estimator", sort=False):
        two = bool((mine.bound == mine.estimate).all())
        main = mine.assign(readout=BOUND if two else ESTIMATE, value=mine.estimate)
        known = mine.true_mi.notna()
        inside = (mine.ci_low <= mine.true_mi) & (mine.true_mi <= mine.ci_high)
        main["covered"] = _where(known & mine.ci_low.notna(), inside)
        main["exceeded"] = _where(known & mine.lower_bound.notna(), mine.lower_bound > mine.true_mi)
        parts.append(main)
        if two and not np.allclose(mine.plug_in, mine.bound, rtol=1e-6, equal_nan=True):
            parts.append(mine.assign(readout=PLUG_IN, value=mine.plug_in, covered=np.nan, exceeded=np.nan))
    if not parts:
        return answered.assign(readout="", value=np.nan, covered=np.nan, exceeded=np.nan, error=np.nan)
    every = pd.concat(parts, ignore_index=True)
    return every.assign(error=every.value - every.true_mi)


def leaderboard(table: Frame) -> Frame:
    """By suite, size, estimator and read-out, over tasks: from the mean over seeds within a task.

    `tasks` of the suite's `of` were answered, and rows that answered all come first. `error` is the mean absolute error,
    by which they are sorted; `bias` the mean signed error; `spread` the root mean variance between seeds (NaN with one);
    `worst` the largest absolute error; `coverage` that of the 95 % intervals, `intervals` their number; `exceeded` the
    lower bounds above the truth, `certificates` their number; `seconds` the median. Nats.
    """
    import pandas as pd

    rows = readouts(table)
    rows = rows[rows.true_mi.notna()]
    sizes = table[table.true_mi.notna()].groupby(["suite", "n"]).task.nunique()
    found = []
    for (suite, n, estimator, readout), cells in rows.groupby(["suite", "n", "estimator", "readout"]):
        by_task = cells.groupby("task").error
        variances = by_task.var()
        found.append(
            {
                "suite": suite,
                "n": int(n),
                "estimator": estimator,
                "readout": readout,
                "tasks": cells.task.nunique(),
                "of": int(sizes[suite, n]),
                "error": cells.error.abs().groupby(cells.task).mean().mean(),
                "bias": by_task.mean().mean(),
                "spread": float(np.sqrt(variances.mean())) if variances.notna().any() else np.nan,
                "worst": cells.error.abs().max(),
                "coverage": cells.covered.mean(),
                "intervals": int(cells.covered.notna().sum()),
                "exceeded": int(cells.exceeded.sum()),
                "certificates": int(cells.exceeded.notna().sum()),
                "seconds": cells.seconds.median(),
            }
        )
    board = pd.DataFrame(found)
    if board.empty:
        return board
    board["partial"] = board.tasks < board.of
    return board.sort_values(["suite", "n", "partial", "error"], ignore_index=True)


def by_task(table: Frame, suite: str, n: int) -> Frame:
    """Mean error over seeds: a row a task, with its truth, and a column an estimator and read-out, the best first."""
    return errors_of(readouts(table), leaderboard(table), suite, n)


def errors_of(rows: Frame, board: Frame, suite: str, n: int) -> Frame:
    """As `by_task`, from the read-outs and the leaderboard."""
    rows = rows[(rows.suite == suite) & (rows.n == n)]
    errors = rows.pivot_table("error", "task", ["estimator", "readout"], aggfunc="mean", sort=False)
    mine = board[(board.suite == suite) & (board.n == n)]
    best_first = zip(mine.estimator, mine.readout, strict=True)
    errors = errors[[pair for pair in best_first if pair in errors.columns]]
    errors.insert(0, ("truth", ""), rows.groupby("task").true_mi.first())
    return errors


def consistency_table(table: Frame) -> Frame:
    """The self-consistency tests found in the table, averaged over t and seeds.

    Columns: suite, n, estimator, readout, test, expected, ratio, error (see `flomi.tasks.consistency`).
    """
    import pandas as pd

    rows = readouts(table)
    found = []
    keys = ["suite", "n", "estimator", "readout"]
    for (suite, n, estimator, readout, seed), cells in rows[rows.true_mi.isna()].groupby([*keys, "seed"]):
        values = {}
        for task, value in zip(cells.task, cells.value, strict=True):
            _, kind, top = task.rsplit("-", 2)
            values[kind, int(top)] = float(value)
        cell = {"suite": suite, "n": int(n), "estimator": estimator, "readout": readout, "seed": seed}
        found += [{**cell, **asdict(ratio), "error": ratio.error} for ratio in consistency.ratios(values)]
    frame = pd.DataFrame(found)
    if frame.empty:
        return frame
    return frame.groupby([*keys, "test", "expected"], sort=False)[["ratio", "error"]].mean().reset_index()


def markdown(table: Frame) -> str:
    """The leaderboards as Markdown tables, a suite each: mean absolute error by size, then coverage and seconds."""
    board = leaderboard(table)
    blocks = []
    for suite, rows in board.groupby("suite") if len(board) else ():
        sizes = sorted(rows.n.unique())
        blocks.append(_heading(str(suite), table))
        by_size = [f"{n:,} rows" for n in sizes]
        lines = [["estimator", "read-out", *by_size, "bias", "coverage", "tasks", "seconds"]]
        for (estimator, readout), cells in ranked(rows):
            last = cells.loc[cells.n.idxmax()]
            errors = {int(n): value for n, value in zip(cells.n, cells.error, strict=True)}
            coverage = f"{last.coverage:.2f}" if last.intervals else ""
            lines.append(
                [estimator, readout, *(shown(errors.get(n)) for n in sizes), shown(last.bias, sign=True), coverage,
                 f"{last.tasks} of {last.of}", f"{last.seconds:.1f}"]
            )  # fmt: skip
        blocks.append(_table(lines))
    checks = consistency_table(table)
    for (suite, n), rows in checks.groupby(["suite", "n"]) if len(checks) else ():
        blocks.append(f"### {suite}, {n:,} rows\n\nRatios, and what they must be.")
        tests = list(dict.fromkeys(rows.test))
        expected = rows.groupby("test").expected.first()
        lines = [["estimator", "read-out", *(f"{test} ({_must(test, expected[test])})" for test in tests)]]
        for (estimator, readout), cells in rows.groupby(["estimator", "readout"], sort=False):
            ratio = dict(zip(cells.test, cells.ratio, strict=True))
            lines.append([str(estimator), str(readout), *(shown(ratio.get(test)) for test in tests)])
        blocks.append(_table(lines))
    return "\n\n".join(blocks) + "\n"


def _table(lines: list[list[str]]) -> str:
    """Markdown of a head and rows: two columns of names, the others numbers."""
    marks = ["---", "---", *["---:"] * (len(lines[0]) - 2)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], marks, *lines[1:]))


def ranked(rows: Frame) -> list[tuple[tuple[str, str], Frame]]:
    """One suite's leaderboard by estimator and read-out: complete ones first, then by error at the largest size."""

    def rank(item: tuple[Any, Frame]) -> tuple[int, bool, float]:
        last = item[1].loc[item[1].n.idxmax()]
        return -int(last.n), bool(last.partial), float(last.error)

    return sorted(rows.groupby(["estimator", "readout"], sort=False), key=rank)


def shown(value: float | None, sign: bool = False) -> str:
    """Three decimals below 10, then fewer; nothing for what there is not.

    >>> shown(0.12345), shown(12345.0), shown(None), shown(0.1, sign=True), shown(float("-inf"))
    ('0.123', '1.2e+04', '', '+0.100', '-inf')
    """
    if value is None or np.isnan(value):
        return ""
    size = abs(value)
    form = "{:{s}.3f}" if size < 10 else "{:{s}.1f}" if size < 1000 else "{:{s}.2g}"
    return form.format(value, s="+" if sign else "")


def _must(test: str, expected: float) -> str:
    return "0 or more" if test == "monotonicity" else f"{expected:g}"


def _heading(suite: str, table: Frame) -> str:
    cells = table[table.suite == suite]
    gaps = {word: int((cells.verdict == word).sum()) for word in (SKIPPED, FAILED)}
    note = ", ".join(f"{count} {word}" for word, count in gaps.items() if count)
    return (
        f"### {suite}\n\nMean absolute error in nats over tasks; bias, coverage of the 95 % interval and median seconds at "
        f"the largest size. {len(cells):,} cells{', ' + note if note else ''}."
    )


def _where(condition: Frame, values: Frame) -> Frame:
    return values.astype(float).where(condition)
