"""Names never decide: what differs between critics, bounds and efforts is a field of their row, and no code asks for a name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from flomi.bounds import BOUNDS
from flomi.critics import CRITICS
from flomi.crossfit.options import EFFORTS

PACKAGE = Path(__file__).parent.parent / "src" / "flomi"
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
NAMES = {*BOUNDS, *CRITICS, *EFFORTS}
TABLES = {"BOUNDS", "CRITICS", "EFFORTS", "LOSSES"}  # a row may be named: BOUNDS["flo"] is a value
OF_TABLES = {"bounds.py", "critics/table.py"}  # where rows are written down
LOOKUPS = {"get", "pop", "setdefault", "startswith", "endswith"}


@cache
def classes_of_critics() -> set[str]:
    """Classes of the modules in critics/, but for those that every critic has in common, and the wrap of a user's module."""
    found = {
        node.name
        for path in (PACKAGE / "critics").glob("*.py")
        if path.name not in ("base.py", "table.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    return found - {"PlainCritic"}


def names_in(node: ast.AST) -> set[str]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and part.value in NAMES}


def last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def decisions(source: str, *, experiment: bool = False) -> Iterator[str]:
    """What in a module asks for a name or a critic's class, with its line; an experiment's dictionaries are its data."""
    tree = ast.parse(source)
    tables = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and last(node.targets[0]) in TABLES
    }
    for node in ast.walk(tree):
        match node:
            case ast.Compare(comparators=[ast.Attribute(attr="needs")]):
                continue  # a word of what a bound needs, of which "density" is one
            case ast.Compare() | ast.MatchValue():
                found = names_in(node)
            case ast.Call(func=ast.Name(id="isinstance"), args=[_, kinds]):
                found = {last(k) for k in ast.walk(kinds) if isinstance(k, ast.expr)} & classes_of_critics()
            case ast.Call(func=ast.Attribute(attr=attr), args=[first, *_]) if attr in LOOKUPS:
                found = set() if experiment or last(node.func.value) in TABLES else names_in(first)
            case ast.Subscript(value=value, slice=ast.Constant() as key):
                found = set() if experiment or last(value) in TABLES else names_in(key)
            case ast.Dict(keys=keys):
                found = {name for key in keys if key for name in names_in(key)}
                found = set() if experiment or id(node) in tables else found
            case _:
                continue
        if found:
            yield f"line {node.lineno}: {', '.join(sorted(found))}"


@pytest.mark.parametrize("file", [file for file in FILES if file not in OF_TABLES])
def test_no_name_decides(file: str) -> None:
    source = (PACKAGE / file).read_text(encoding="utf-8")
    found = list(decisions(source, experiment=file.startswith(("reproduce/", "tasks/"))))  # tasks name laws
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        'if name == "gaussian": pass',
        'if "flo" != bound.name: pass',
        'x = name in ("i-alpha", "anchor")',
        'x = name not in {"fast", "new"}',
        'x = [n for n in names if n != "null"]',
        'match name:\n    case "gaussian" | "student": pass',
        'x = {"gaussian": 1}[name]',
        'x = entries.get("gaussian")',
        'x = entries["residual"]',
        "x = isinstance(critic, EllipticalCritic)",
        "x = isinstance(critic, (nn.Linear, critics.NullCritic))",
    ],
)
def test_a_decision_is_found(source: str) -> None:
    assert list(decisions(source))


@pytest.mark.parametrize(
    "source",
    [
        '"""Not "gaussian" == name."""',
        'def f(critic="gaussian"): ...',
        'r = estimate(x, y, critic="gaussian", bound="nwj")',
        'loss = BOUNDS["flo"]',
        'kind = table.CRITICS.get("density")',
        'x = "density" in bound.needs',
        'x = name == "mean"',
        'EFFORTS = {"fast": 1}',
        'USED = ("flo", "nwj")\nfor name in USED: pass',
        "x = isinstance(critic, nn.Module)",
    ],
)
def test_a_value_is_no_decision(source: str) -> None:
    assert list(decisions(source)) == []


def test_an_experiment_may_keep_data_by_name() -> None:
    assert list(decisions('PAPER = {"flo": 1.96}\nx = PAPER["flo"]', experiment=True)) == []
    assert list(decisions('x = name == "flo"', experiment=True))
