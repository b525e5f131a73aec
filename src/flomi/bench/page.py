"""The page that shows results of the bench: one HTML file, nothing loaded from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import flomi.bench.charts as charts
import flomi.bench.summary as summary
from flomi.bench.results import FAILED, SKIPPED
from flomi.bench.summary import Frame
from flomi.report.webpage import inline_svg, need, render, save

WIDTH = 3.8  # inches: text is legible where a figure fills the screen of a phone, and on half of a laptop's


def write_page(table: Frame, path: str | Path) -> Path:
    """Write a table of results (`summary.load`) as one page: leaderboards by suite and size, charts, errors by task, gaps.

    The file appears whole or not at all, and the same table gives the same bytes. Raises ImportError without matplotlib or
    jinja2, and ValueError where `path` can't be written.
    """
    need("matplotlib", "jinja2")
    return save(lambda: _page(table), path)


def _page(table: Frame) -> str:
    board, found = summary.leaderboard(table), summary.readouts(table)
    by_suite = board.groupby("suite") if len(board) else ()
    suites = [_suite(str(name), rows, table, found) for name, rows in by_suite]
    return render(
        "bench.html.j2",
        suites=suites,
        checks=_checks(table),
        cells=len(table),
        versions=sorted(set(table.version.dropna().astype(str))),
        shown=summary.shown,
    )


def _suite(name: str, rows: Frame, table: Frame, found: Frame) -> dict[str, Any]:
    """What the template needs of one suite: `rows` of the leaderboard, the results, and their read-outs."""
    cells = table[table.suite == name]
    sizes = sorted(map(int, rows.n.unique()))
    lines = []
    for (estimator, readout), mine in summary.ranked(rows):
        last = mine.loc[mine.n.idxmax()]
        lines.append(
            {
                "estimator": estimator,
                "readout": readout,
                "errors": [_at(mine, n, "error") for n in sizes],
                "bias": last.bias,
                "spread": last.spread,
                "worst": last.worst,
                "coverage": f"{last.coverage:.2f}" if last.intervals else "",
                "tasks": f"{last.tasks} of {last.of}",
                "partial": bool(last.partial),
                "seconds": last.seconds,
            }
        )
    best = [
        min((line["errors"][i] for line in lines if _counts(line, i)), default=None)
        for i in range(len(sizes))
    ]
    tall = charts.height(rows)
    plans = (
        ("errors", charts.errors, tall),
        ("bias", charts.bias, charts.height(rows[rows.n == charts.main_size(rows)])),
        ("coverage", charts.coverage, charts.height(rows[rows.intervals > 0])),
        ("time", charts.time, 3.8),
    )
    return {
        "name": name,
        "tasks": cells.task.nunique(),
        "seeds": cells.seed.nunique(),
        "cells": len(cells),
        "sizes": sizes,
        "lines": lines,
        "best": best,
        "figures": [inline_svg(draw, rows, f"{name}-{kind}", (WIDTH, tall)) for kind, draw, tall in plans],
        "by_task": [_errors_by_task(summary.errors_of(found, rows, name, n), n) for n in sizes],
        "gaps": _gaps(cells),
    }


def _errors_by_task(frame: Frame, n: int) -> dict[str, Any]:
    columns = [(name, readout if readout == summary.PLUG_IN else "") for name, readout in frame.columns[1:]]
    rows = []
    for task, line in frame.iterrows():
        errors = [(value, _tint(value)) for value in line.iloc[1:]]
        rows.append({"task": task, "truth": line.iloc[0], "errors": errors})
    return {"n": n, "columns": columns, "rows": rows}


def _tint(error: float) -> str:
    """A colour for a signed error: blue below the truth, orange above, stronger by the decade from 0.01 to 1 nat."""
    if np.isnan(error) or abs(error) < 0.01:
        return ""
    strength = min(1.0, (np.log10(min(abs(error), 1.0)) + 2) / 2)
    color = "213, 94, 0" if error > 0 else "0, 114, 178"
    return f"background: rgba({color}, {0.08 + 0.42 * strength:.2f})"


def _gaps(cells: Frame) -> list[tuple[str, str, int, str]]:
    """(verdict, estimator, cells, a reason) of cells without a number, one line an estimator."""
    empty = cells[cells.verdict.isin([FAILED, SKIPPED])]
    groups = empty.groupby(["verdict", "estimator"])
    return [(str(key[0]), str(key[1]), len(mine), str(mine.note.iloc[0])) for key, mine in groups]


def _checks(table: Frame) -> list[dict[str, Any]]:
    """The self-consistency tests, a table for each suite and size."""
    frame = summary.consistency_table(table)
    if frame.empty:
        return []
    found = []
    for (suite, n), rows in frame.groupby(["suite", "n"]):
        tests = list(dict.fromkeys(rows.test))
        lines = []
        for (estimator, readout), mine in rows.groupby(["estimator", "readout"]):
            by_test = {row.test: (row.ratio, row.error) for row in mine.itertuples()}
            values = [by_test.get(test, (np.nan, np.nan)) for test in tests]
            lines.append((estimator, readout, values))
        lines.sort(key=lambda line: float(np.nanmean([error for _, error in line[2]])))
        found.append({"suite": suite, "n": int(n), "tests": tests, "lines": lines})
    return found


def _at(rows: Frame, n: int, column: str) -> float:
    mine = rows[rows.n == n]
    return float(mine[column].iloc[0]) if len(mine) else float("nan")


def _counts(line: dict[str, Any], size: int) -> bool:
    return not line["partial"] and bool(np.isfinite(line["errors"][size]))
