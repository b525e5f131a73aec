"""Imports point one way. The table says which modules of flomi each module may import; a new module needs its row here."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "flomi"

MATHEMATICS = {
    "all_pairs",
    "bounds",
    "classical",
    "critics",
    "preprocess",
    "closed_form",
    "features",
    "local_ratio",
    "matched",
    "regression",
    "residual",
    "sketch",
}
TRAINING = MATHEMATICS | {"scores", "own", "threads", "training"}
STATISTICS = {"inference", "certificate", "verdict", "rows"}
DATA = {"data", "checks", "columns", "sources", "tables"}
BELOW = (
    TRAINING | STATISTICS | DATA | {"ensemble", "held_out", "candidates", "result"}
)  # everything that the estimator is made of
CORE = BELOW | {"plan", "storage", "checkpoint", "crossfit", "streaming", "estimator"}

MAY_IMPORT: dict[str, set[str]] = {
    "all_pairs": set(),
    "bounds": set(),
    "threads": set(),
    "preprocess": set(),
    "closed_form": {"preprocess"},
    "sketch": {"preprocess"},
    "classical": set(),
    "local_ratio": {"classical", "closed_form", "preprocess"},
    "matched": {"closed_form", "local_ratio", "preprocess"},
    "regression": {"closed_form", "preprocess"},
    "features": {"closed_form", "preprocess"},
    "residual": {"features"},
    "critics": {"all_pairs", "closed_form", "features", "local_ratio", "matched", "regression"},
    "scores": {"bounds", "critics"},
    "training": {"bounds", "critics", "scores"},
    "own": {"bounds", "critics", "scores", "training"},
    "ensemble": {"closed_form", "features", "residual", "threads", "training"},
    "losses": {"bounds", "critics", "scores"},
    "verdict": set(),
    "rows": set(),
    "certificate": set(),
    "inference": {"certificate", "verdict"},
    "held_out": TRAINING | STATISTICS,
    "candidates": TRAINING | STATISTICS | {"ensemble", "held_out"},
    "columns": set(),
    "tables": set(),
    "checks": {"columns"},
    "sources": {"columns", "tables"},
    "data": {"checks", "columns", "sources", "tables"},
    "result": set(),
    "plan": BELOW | {"the package"},
    "storage": BELOW | {"the package"},
    "checkpoint": BELOW | {"plan", "storage", "the package"},
    "crossfit": BELOW | {"plan", "checkpoint"},
    "streaming": {"checkpoint", "sketch", "preprocess"} | DATA,
    "estimator": BELOW | {"plan", "crossfit", "storage"},
    "panels": CORE,
    "webpage": {"panels", "the package"},
    "report": CORE | {"panels", "webpage", "the package"},
    "tasks": CORE,
    "applications": CORE | {"losses"},
    "bench": CORE | {"tasks", "threads", "panels", "webpage", "the package"},
    "doctor": CORE | {"the package"},
    "outputs": CORE | {"report"},
    "reproduce": CORE | {"panels", "tasks", "threads", "applications", "losses", "the package"},
    "cli_bench": {"bench", "outputs", "the package"},
    "cli_reproduce": {"reproduce", "outputs"},
    "cli": CORE
    | {
        "losses",
        "report",
        "tasks",
        "applications",
        "doctor",
        "outputs",
        "cli_bench",
        "cli_reproduce",
        "the package",
    },
    "__main__": {"cli"},
    "__init__": CORE | {"losses", "tasks"},
}

# For type checkers only: what a module may name although it stands above it.
MAY_NAME = {"plan": {"estimator"}, "residual": {"scores"}, "storage": {"estimator"}}

# The one exception: these two methods import the module that draws, when they are called.
MAY_DRAW = {("MIEstimate", "plot"), ("MIEstimate", "report")}

# What a module may use beyond the standard library and flomi; a module without a row here may use any dependency.
THIRD_PARTY: dict[str, set[str]] = {
    "bounds": {"torch"},
    "critics": {"torch"},
    "threads": {"torch", "threadpoolctl"},
    "preprocess": {"torch", "numpy"},
    "closed_form": {"torch", "numpy", "scipy"},
    "classical": {"torch", "scipy"},
    "local_ratio": {"torch", "scipy"},
    "matched": {"torch", "numpy", "scipy"},
    "regression": {"torch"},
    "sketch": {"torch", "numpy"},
    "features": {"torch"},
    "residual": {"torch"},
    "ensemble": {"torch", "tqdm"},
    "inference": {"numpy", "scipy"},
    "certificate": {"numpy", "scipy"},
    "rows": {"numpy", "scipy"},
    "scores": {"torch"},
    "training": {"torch", "numpy", "tqdm"},
    "own": {"torch"},
}

# Slow to import, so imported by the functions that need them and never at module level.
HEAVY = {"scipy", "sklearn", "pandas", "polars", "pyarrow", "matplotlib", "jinja2", "joblib"}
AT_ONCE = HEAVY | {"torch", "numpy"}  # what answers before anything is loaded
HEAVY_FOR: dict[str, set[str]] = {
    "__main__": AT_ONCE,
    "cli": AT_ONCE,
    "cli_bench": AT_ONCE,
    "cli_reproduce": AT_ONCE,
    "__init__": AT_ONCE,
}

MAY_PRINT = {"cli"}  # and `main` of a module that can be run

MODULES = sorted(PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The row of the table that a file belongs to: its name, or the name of its folder (flomi/tasks/*.py -> "tasks")."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(source: str) -> list[tuple[str, tuple[str, ...], bool]]:
    """(imported name, classes and functions around it, for type checkers only) of every import statement."""
    found = []

    def walk(node: ast.AST, inside: tuple[str, ...], typing_only: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute: `from flomi.x import y`"
            if (
                node.module == "flomi"
            ):  # `from flomi import bounds` imports a module, `__version__` the package
                names = (
                    "flomi" if alias.name.startswith("__") else f"flomi.{alias.name}" for alias in node.names
                )
                found.extend((name, inside, typing_only) for name in names)
            else:
                found.append((str(node.module), inside, typing_only))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.body:
                walk(child, inside, True)
            for child in node.orelse:
                walk(child, inside, typing_only)
            return
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inside = (*inside, node.name)
        for child in ast.iter_child_nodes(node):
            walk(child, inside, typing_only)

    walk(ast.parse(source), (), False)
    return found


def _prints(tree: ast.AST) -> bool:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            return True
        if _prints(node):
            return True
    return False


def violations(name: str, source: str) -> list[str]:
    """What in the source of a module that belongs to the row `name` breaks the rules above, in sentences."""
    if name not in MAY_IMPORT:
        return [f"{name} has no row in MAY_IMPORT: add one that says what it may import"]
    wrong = []
    for imported, inside, typing_only in imports(source):
        top, *rest = imported.split(".")
        if top == "flomi":
            target = rest[0] if rest else "the package"
            draws = target == "report" and inside[-2:] in MAY_DRAW
            named = typing_only and target in MAY_NAME.get(name, ())
            if target != name and target not in MAY_IMPORT[name] and not draws and not named:
                wrong.append(f"{name} must not import {target}")
        elif top not in sys.stdlib_module_names:
            if name in THIRD_PARTY and top not in THIRD_PARTY[name]:
                wrong.append(f"{name} must not use {top}")
            if not inside and not typing_only and top in HEAVY_FOR.get(name, HEAVY):
                wrong.append(f"{name} must import {top} inside the functions that use it")
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        wrong.append(f"{name} has no module docstring")
    if name not in MAY_PRINT and _prints(tree):
        wrong.append(f"{name} prints: only the command line does")
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_keeps_the_rules(path: Path) -> None:
    assert violations(part(path), path.read_text(encoding="utf-8")) == []


def test_the_picture_has_no_cycle() -> None:
    for name, allowed in MAY_IMPORT.items():
        for other in allowed - {name, "the package"}:
            assert name not in MAY_IMPORT[other], f"{name} and {other} may import each other"


def test_the_core_knows_nothing_of_what_is_built_on_it() -> None:
    above = {
        "report",
        "panels",
        "webpage",
        "tasks",
        "bench",
        "reproduce",
        "applications",
        "doctor",
        "outputs",
        "cli",
        "cli_bench",
        "cli_reproduce",
        "__main__",
    }
    assert not any(MAY_IMPORT[name] & above for name in CORE | {"losses"})


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("bounds", '"""."""\nfrom flomi import critics', "bounds must not import critics"),
        ("scores", '"""."""\nimport flomi.estimator', "scores must not import estimator"),
        ("scores", '"""."""\nimport flomi', "scores must not import the package"),
        ("critics", '"""."""\ndef f():\n    import scipy.stats', "critics must not use scipy"),
        ("data", '"""."""\nimport pandas as pd', "data must import pandas inside the functions that use it"),
        ("result", '"""."""\nfrom flomi.report import page', "result must not import report"),
        ("storage", '"""."""\nfrom flomi.estimator import load', "storage must not import estimator"),
        ("training", '"""."""\nprint(1)', "training prints: only the command line does"),
        (
            "tasks",
            '"""."""\ndef f():\n    if True:\n        print(1)',
            "tasks prints: only the command line does",
        ),
        ("training", "x = 1", "training has no module docstring"),
        ("novel", '"""."""', "novel has no row in MAY_IMPORT: add one that says what it may import"),
    ],
)
def test_a_breach_is_found(name: str, source: str, complaint: str) -> None:
    assert violations(name, source) == [complaint]


def test_the_exception_is_allowed() -> None:
    method = '"""."""\nclass MIEstimate:\n    def plot(self):\n        from flomi import report'
    assert violations("result", method) == []
