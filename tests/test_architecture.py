"""The structure that docs/design.md draws: rooms, the arrows between them, no circles, and a fit that goes down once."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import flomi

PACKAGE = Path(flomi.__file__).parent

# Every room, or file of the top level, with what it imports: all of these arrows are used, and there are no others.
# A room may import what stands above it.
ARROWS: dict[str, set[str]] = {
    "support": set(),
    "_version": set(),
    "bounds": set(),
    "preprocess": set(),
    "parallel": set(),
    "critics": {"bounds", "preprocess", "support"},
    "inference": {"support"},
    "data": {"preprocess", "support"},
    "tasks": {"support"},
    "streaming": {"data"},
    "scores": {"bounds", "critics"},
    "training": {"bounds", "critics", "parallel", "preprocess", "scores", "support"},
    "losses": {"bounds", "critics", "scores", "support"},
    "result": {"inference", "support"},
    "crossfit": {
        "_version", "bounds", "critics", "data", "inference", "parallel", "preprocess", "result", "scores", "support",
        "training",
    },
    "estimator": {"bounds", "crossfit", "data", "result", "scores", "support"},
    "report": {"_version", "result", "support"},
    "applications": {"bounds", "critics", "estimator", "losses", "scores", "support", "tasks", "training"},
    "bench": {
        "_version", "bounds", "critics", "estimator", "parallel", "preprocess", "report", "scores", "support", "tasks",
        "training",
    },
    "reproduce": {
        "_version", "applications", "bounds", "critics", "losses", "parallel", "report", "scores", "support", "tasks",
        "training",
    },
    "cli": {
        "_version", "bench", "bounds", "critics", "crossfit", "data", "estimator", "report", "reproduce", "result",
        "streaming", "support",
    },
    "__main__": {"cli"},
    "__init__": set(),
}  # fmt: skip

# The one exception: these two methods import the room that draws, when they are called.
MAY_DRAW = {("MIEstimate", "plot"), ("MIEstimate", "report")}

# What a room may use beyond the standard library and flomi; a room without a row here may use any dependency.
THIRD_PARTY: dict[str, set[str]] = {
    "support": set(),
    "parallel": {"torch", "threadpoolctl"},
    "bounds": {"torch"},
    "scores": {"torch"},
    "preprocess": {"torch", "numpy", "sklearn", "scipy"},
    "critics": {"torch", "numpy", "scipy", "sklearn"},
    "training": {"torch", "numpy", "tqdm"},
    "inference": {"numpy", "scipy"},
    "tasks": {"numpy", "scipy", "pandas", "sklearn"},
}

# Slow to import, so imported by the functions that need them and never at module level.
HEAVY = {"scipy", "sklearn", "pandas", "polars", "pyarrow", "matplotlib", "jinja2", "joblib"}
AT_ONCE = HEAVY | {"torch", "numpy"}  # for what answers before anything is loaded
ANSWERS_AT_ONCE = {"__main__", "__init__", "cli"}

LONGEST = 460  # lines of a file: what one person reads in one sitting
MOST_AT_THE_TOP = 10  # files beside the rooms

FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in FILES
}


def room(module: str) -> str:
    """flomi.critics.copula -> critics; flomi.bounds -> bounds; the package itself -> __init__."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(source: str, module: str = "flomi.x") -> Iterator[tuple[str, tuple[str, ...], bool]]:
    """(imported module, classes and functions around it, whether at module level) of every import, types included."""

    def walk(node: ast.AST, inside: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...], bool]]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, inside, not inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute, `from flomi.x import y`"
            base = str(node.module)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                yield submodule if submodule in NAMES else base, inside, not inside
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.body:  # for type checkers: a circle all the same, though nothing is loaded
                for name, _, _ in walk(child, inside):
                    yield name, (*inside, "TYPE_CHECKING"), False
            for child in node.orelse:
                yield from walk(child, inside)
            return
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inside = (*inside, node.name)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(source), ())


def internal(module: str) -> set[str]:
    """The modules of flomi that a module imports, but for the exception; the package's own lazy table is none."""
    if module == "flomi":
        return set()
    found = set()
    for name, inside, _ in imports(NAMES[module].read_text(encoding="utf-8"), module):
        if name.split(".")[0] == "flomi" and name != module and inside[-2:] not in MAY_DRAW:
            found.add(name)
    return found


@cache
def graph_of_imports() -> dict[str, set[str]]:
    return {module: internal(module) for module in NAMES}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one module: modules that reach each other."""

    def reach(start: str) -> set[str]:
        seen, todo = set(), list(graph[start])
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo += graph.get(module, ())
        return seen

    reached = {module: reach(module) for module in graph}
    found = [{m} | {o for o in reached[m] if m in reached.get(o, ())} for m in graph if m in reached[m]]
    return [part for k, part in enumerate(found) if part not in found[:k]]


def arrows(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for module, others in graph.items():
        mine = found.setdefault(room(module), set())
        mine |= {room(other) for other in others} - {room(module)}
    return found


def test_no_module_reaches_itself() -> None:
    assert circles(graph_of_imports()) == []


def test_a_circle_is_found_however_it_hides() -> None:
    for hidden in (
        "from flomi.b import x",
        "def f():\n    import flomi.b",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from flomi.b import x",
    ):
        (name, _, _), *_ = [i for i in imports(hidden) if i[0].startswith("flomi")]
        assert circles({"flomi.a": {name}, "flomi.b": {"flomi.c"}, "flomi.c": {"flomi.a"}}) == [
            {"flomi.a", "flomi.b", "flomi.c"}
        ]


def test_the_arrows_are_those_of_the_picture_and_all_are_used() -> None:
    assert arrows(graph_of_imports()) == ARROWS


def test_arrows_point_up_the_list() -> None:
    names = list(ARROWS)
    for name, others in ARROWS.items():
        assert all(names.index(other) < names.index(name) for other in others), name


def test_the_rooms_that_know_nothing_of_each_other() -> None:
    rooms = {"critics", "inference", "data", "tasks"}
    assert not any(ARROWS[name] & rooms for name in rooms)


def test_few_files_at_the_top_and_none_too_long() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_AT_THE_TOP
    long = {str(p.relative_to(PACKAGE)): n for p in FILES if (n := len(p.read_text().splitlines())) > LONGEST}
    assert long == {}


def complaints(name: str, source: str) -> list[str]:
    """What in a module of the room `name` breaks the rules on imports, docstrings and printing, in sentences."""
    wrong = []
    for imported, inside, at_once in imports(source):
        top = imported.split(".")[0]
        if top == "flomi" or top in sys.stdlib_module_names:
            continue
        typing_only = "TYPE_CHECKING" in inside
        if name in THIRD_PARTY and top not in THIRD_PARTY[name]:
            wrong.append(f"{name} must not use {top}")
        if at_once and not typing_only and top in (AT_ONCE if name in ANSWERS_AT_ONCE else HEAVY):
            wrong.append(f"{name} must import {top} inside the functions that use it")
    tree = ast.parse(source)
    if not ast.get_docstring(tree):
        wrong.append(f"{name} has a module without a docstring")
    if name != "cli" and _prints(tree):
        wrong.append(f"{name} prints: only the command line does")
    return wrong


def _prints(tree: ast.AST) -> bool:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "main":
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            return True
        if _prints(node):
            return True
    return False


@pytest.mark.parametrize("module", NAMES)
def test_module_keeps_the_rules(module: str) -> None:
    assert complaints(room(module), NAMES[module].read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("inference", '"""."""\nimport torch', "inference must not use torch"),
        ("data", '"""."""\nimport pandas as pd', "data must import pandas inside the functions that use it"),
        ("cli", '"""."""\nimport numpy', "cli must import numpy inside the functions that use it"),
        ("training", '"""."""\nprint(1)', "training prints: only the command line does"),
        ("training", "x = 1", "training has a module without a docstring"),
    ],
)
def test_a_breach_is_found(name: str, source: str, complaint: str) -> None:
    assert complaints(name, source) == [complaint]


@pytest.mark.parametrize("path", [p for p in FILES if p.name == "__init__.py"], ids=lambda p: p.parent.name)
def test_a_room_says_in_ten_lines_what_is_in_it(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text is not None
    assert len(text.splitlines()) <= 10 or path.parent.name in (
        "flomi",
        "tasks",
        "bench",
        "reproduce",
        "losses",
    )


def test_a_fit_goes_down_through_the_rooms_once() -> None:
    """Calls of `estimate` from room to room: never upward, and from the estimator each stage once and in order."""
    order = list(ARROWS)
    upward: set[tuple[str, str]] = set()
    stages: list[str] = []
    calls: list[str] = []

    def watch(frame, event, argument):  # type: ignore[no-untyped-def]
        if event != "call":
            return
        name = frame.f_globals.get("__name__", "")
        if not name.startswith("flomi."):
            return
        caller = frame.f_back
        while caller is not None and not caller.f_globals.get("__name__", "").startswith("flomi."):
            caller = caller.f_back  # through torch, and the thread pool
        if caller is None or frame.f_code.co_name.startswith("<") or frame.f_code.co_name == "__init__":
            return
        source, target = room(caller.f_globals["__name__"]), room(name)
        if source != target and order.index(target) > order.index(source):
            upward.add((source, target))
        if caller.f_code.co_name in ("fit", "_fit") and source == "estimator" and target != source:
            calls.append(f"{target}.{frame.f_code.co_name}")
        if caller.f_globals["__name__"] == "flomi.crossfit.assemble" and target == "inference":
            stages.append(frame.f_code.co_name)

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = x + rng.normal(size=(200, 2))
    flomi.estimate(x[:60], y[:60], critic="gaussian", n_folds=2)  # what is imported late is imported now
    sys.setprofile(watch)
    try:
        flomi.estimate(x, y, effort="fast", n_folds=2)
    finally:
        sys.setprofile(None)
    assert upward == set()
    assert calls == [
        "crossfit.of",
        "data.from_arrays",
        "crossfit.cross_fit",
        "crossfit.assemble",
        "result.to",
    ]
    order_of = ["formula", "interval", "certificate", "judge", "project"]
    assert [name for name in stages if name in order_of] == order_of
