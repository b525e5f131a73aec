"""The public face: names resolve, importing is cheap, and what is said in several places agrees."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import flomi
from flomi import cli

ROOT = Path(__file__).parent.parent


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def fresh(code: str) -> str:
    """What a new Python process prints."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", flomi.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(flomi, name) is not None
    assert name in dir(flomi)


def test_unknown_name_says_what_there_is() -> None:
    with pytest.raises(AttributeError, match="estimate"):
        _ = flomi.estimat  # type: ignore[attr-defined]


def test_import_is_light() -> None:
    loaded = set(fresh("import sys, flomi; print(*sys.modules)").split())
    heavy = {"torch", "numpy", "scipy", "sklearn", "pandas", "matplotlib", "jinja2", "pyarrow", "typer"}
    assert not loaded & heavy


def test_estimator_brings_torch_but_none_of_its_heavy_friends() -> None:
    loaded = set(fresh("import sys, flomi; flomi.MIEstimator, flomi.bounds; print(*sys.modules)").split())
    assert "torch" in loaded
    assert not loaded & {"scipy.stats", "sklearn", "pandas", "matplotlib", "jinja2", "pyarrow"}


def test_package_is_typed() -> None:
    assert (Path(flomi.__file__).parent / "py.typed").exists()


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("pyproject.toml", r'^version = "(.+)"$'),
        ("CITATION.cff", r"^version: (.+)$"),
        ("CHANGELOG.md", r"^## \[(\d.*)\]"),
    ],
)
def test_version_agrees(file: str, pattern: str) -> None:
    found = re.search(pattern, read(file), re.MULTILINE)
    assert found is not None
    assert found.group(1) == flomi.__version__


def test_release_date_agrees() -> None:
    date = re.search(r'^date-released: "(.+)"$', read("CITATION.cff"), re.MULTILINE)
    assert date is not None
    assert f"## [{flomi.__version__}] - {date.group(1)}" in read("CHANGELOG.md")


def test_constraints_pin_every_dependency() -> None:
    def key(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pinned = {key(line.split("==")[0]) for line in read("constraints.txt").splitlines() if "==" in line}
    named = {
        key(name) for name in re.findall(r'^  "([A-Za-z0-9_.-]+)>=', read("pyproject.toml"), re.MULTILINE)
    }
    assert {"torch", "ruff", "pytest"} <= named  # the pattern finds dependencies and extras
    assert named <= pinned


def test_readme_code_is_the_first_example() -> None:
    example = read("examples/first_number.py").split('"""', 2)[2].strip()
    assert example in read("README.md").replace("\r\n", "\n")


@pytest.mark.parametrize("page", ["README.md", "docs/your_file.md"])
def test_options_that_are_described_exist(page: str) -> None:
    command = typer.main.get_command(cli.app).get_command(None, "estimate")  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    described = set(re.findall(r"(?<![\w-])--[a-z]+", read(page))) - {"--help", "--nproc"}  # torchrun's
    assert {"--x", "--y", "--report"} <= described <= options


def test_standalone_example_stands_alone() -> None:
    text = read("examples/00_standalone_flo.py")
    assert len(text.splitlines()) <= 60
    assert "import flomi" not in text and "from flomi" not in text
