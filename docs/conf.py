"""Settings of the documentation, and what it computes: lists of bounds and losses, the table of checks, formulas as MathML."""

from __future__ import annotations

import dataclasses
import re

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import flomi
from flomi.bounds import BOUNDS, Bound
from flomi.inference.verdict import table_markdown
from flomi.losses import LOSSES, ContrastiveLoss
from flomi.support.settings import reasons, records

project = "flomi"
author = "The flomi developers"
copyright = "2026, The flomi developers"
version = release = flomi.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"flomi {release}"
html_math_renderer = "mathml"
default_role = "literal"
highlight_language = "text"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"


def entry(bound: Bound) -> str:
    """What `BOUNDS` says of one bound, as an entry of a definition list."""
    function = getattr(bound.value, "func", bound.value)  # a partial has the docstring of its function
    value = " ".join((function.__doc__ or "").split("\n\n")[0].split())
    side = {"lower": "lower bound", "upper": "upper bound", "none": "no bound"}[bound.side]
    facts = [f"optimum {bound.optimum}", f"needs {', '.join(sorted(bound.needs))}"]
    if bound.cap is not None:
        facts.append(f"at most {bound.cap(127):.2f} with 127 negatives")
    text = f"{value}\n\n{side}; {'; '.join(facts)}. {bound.reference}.".replace("|", r"\|").replace(
        "*", r"\*"
    )
    return f"`{bound.name}`\n: " + text.replace("\n\n", "\n\n  ")


class BoundsList(SphinxDirective):
    """`BOUNDS` in words, read from the code when the pages are built."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n\n".join(map(entry, BOUNDS.values())))


def loss_entry(loss: type[ContrastiveLoss]) -> str:
    """What `LOSSES` and `BOUNDS` say of one loss, as an entry of a definition list."""
    bound = loss.bound
    first = " ".join((loss.__doc__ or "").split("\n\n")[0].split())
    side = {"lower": "a lower bound, on rows not trained on", "none": "no bound"}[bound.side]
    cap = f", at most {bound.cap(127):.2f} with 127 negatives" if bound.cap is not None else ""
    return f"`{loss.__name__}`\n: {first}\n\n  `mi()` is {side}{cap}; optimum {bound.optimum}."


class LossesList(SphinxDirective):
    """`LOSSES` in words, read from the code when the pages are built."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n\n".join(map(loss_entry, LOSSES.values())))


class VerdictTable(SphinxDirective):
    """The checks of the verdict, read from the code when the pages are built."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(table_markdown())


def settings_entry(record: type) -> str:
    """A settings record as a table of its numbers and their reasons."""
    about = " ".join((record.__doc__ or "").split("\n\n")[0].split())
    values = {f.name: f.default for f in dataclasses.fields(record)}
    rows = [
        f"| `{name}` | `{values[name]!r}` | {reason} |".replace("*", r"\*")
        for name, reason in reasons(record).items()
    ]
    title = f"`{record.__module__}.{record.__name__}`: {about}"
    return "\n".join([title, "", "| number | value | reason |", "|---|---|---|", *rows])


class SettingsList(SphinxDirective):
    """Every settings record of the package, read from the code when the pages are built."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes("\n\n".join(map(settings_entry, records())))


def mathml(writer: object, node: nodes.Element) -> None:
    """A formula that browsers show by themselves: no script, no network."""
    block = isinstance(node, nodes.math_block)
    text = re.sub(
        r"(&ApplyFunction;</mo>)(?!\s*<mo)", r'\1<mspace width="0.17em"/>', tex2mathml(node.astext(), block)
    )
    writer.body.append(f'<div style="padding: 0.4em 0">{text}</div>' if block else text)  # type: ignore[attr-defined]
    raise nodes.SkipNode


def indented(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Show indented lines of a docstring, formulas mostly, as they stand."""
    before, result = "", list[str]()
    for line in lines:
        if line.startswith(" ") and result and not result[-1] and not before.startswith((" ", "..")):
            result += [] if before.endswith("::") else ["::", ""]
        result.append(line)
        before = line if line.strip() else before
    lines[:] = result


def setup(app: Sphinx) -> None:
    app.add_directive("bounds-list", BoundsList)
    app.add_directive("losses-list", LossesList)
    app.add_directive("settings-list", SettingsList)
    app.add_directive("verdict-table", VerdictTable)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("autodoc-process-docstring", indented)
