"""Pages that load nothing from anywhere: figures as inline SVG, a template, one file that appears whole or not at all."""

from __future__ import annotations

import importlib
import io
import os
import warnings
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from xml.etree import ElementTree

from flomi._version import __version__
from flomi.report.style import STYLE
from flomi.support.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Data = TypeVar("Data")


def save(make: Callable[[], str], path: str | os.PathLike[str]) -> Path:
    """Write what `make` returns to `path`, once it is known that this can be done. ValueError where it can't."""
    target = Path(path)
    if target.is_dir():
        raise ValueError(f"path: {target} is a folder; give the name of a file, such as report.html")
    if not target.parent.is_dir():
        raise ValueError(f"path: the folder {target.parent} does not exist; create it first")
    return write_whole(target, make().encode("utf-8", errors="replace"))


def render(template: str, **values: Any) -> str:
    """A template of the folder `templates` as HTML, with the common style as `style` and the `version`; all text is escaped."""
    need("jinja2")
    import jinja2

    def source(name: str) -> str:
        return resources.files("flomi").joinpath("templates", name).read_text("utf-8")

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(source(template))
    return page.render(style=source("style.css"), version=__version__, **values)


def need(*packages: str) -> None:
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(f"plots and reports need {package}: pip install 'flomi[report]'") from error


def inline_svg(
    draw: Callable[[Axes, Data], str], data: Data, name: str, size: tuple[float, float]
) -> dict[str, str]:
    """What `draw` draws as an SVG element to put into HTML, and the caption that it returns; `name` is unique on the page."""
    from matplotlib import style
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # the reader's own font draws it
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.subplots()
        caption = draw(ax, data)
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True, dpi=220)
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.endswith(("}metadata", "}style"))]:
            parent.remove(child)  # a style element would apply to the whole page
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        for key, value in attributes.items():  # several figures share a page: ids get the panel's name
            if key == "id":
                attributes[key] = f"{name}-{value}"
            elif key == "href" and value.startswith("#"):
                attributes[key] = f"#{name}-{value[1:]}"
            else:
                attributes[key] = value.replace("url(#", f"url(#{name}-")
        element.attrib = attributes
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
    }
    for tag, text in (("desc", caption), ("title", ax.get_title(loc="left"))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(0, element)
    return {"svg": ElementTree.tostring(root, encoding="unicode"), "caption": caption}
