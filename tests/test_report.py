"""The report: the numbers are there, nothing is loaded, nothing from the data becomes markup."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from matplotlib import style
from matplotlib.figure import Figure

import flomi
from flomi.report import page as report
from flomi.report import plots as panels
from flomi.report.style import STYLE
from flomi.result import MIEstimate

ATTACK = "<script>alert(1)</script> \"quoted' & $x$"


def a_result(n: int = 400, **changes: Any) -> MIEstimate:
    """A correlated Gaussian pair with its exact PMI; made-up curves, and numbers that are easy to find in a page."""
    rng = np.random.default_rng(3)
    rho = 0.75
    x, noise = rng.standard_normal((2, n))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    quadratic = (rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (2 * (1 - rho**2))
    steps = np.arange(50, 1550, 50)
    history = [
        {
            "fold": fold,
            "critic": "joint",
            "step": steps.tolist(),
            "train": (0.43 - 0.5 * np.exp(-steps / 200)).tolist(),
            "validation": (
                0.405 - 0.45 * np.exp(-steps / 180) + 0.012 * rng.standard_normal(steps.size)
            ).tolist(),
            "best_step": 900 + 50 * fold,
            "ceiling": None,
        }
        for fold in range(5)
    ]
    result = MIEstimate(
        mi=0.4123,
        stderr=0.0101,
        ci=(0.3926, 0.4321),
        mi_method="the held-out bound plus its estimated deficit",
        lower_bound=0.3871,
        bound=0.4052,
        bound_stderr=0.0105,
        bound_name="flo",
        bound_side="lower",
        plug_in=0.4182,
        imbalance=0.0132,
        verdict="ok",
        warnings=(),
        critic="joint",
        projection_labels=("first canonical variate of x", "first canonical variate of y"),
        seconds=21.34,
        dim_x=5,
        dim_y=3,
        pmi=-0.5 * np.log(1 - rho**2) - quadratic,
        projection=np.stack([x, y], axis=1),
        n=n,
        history=history,
        candidates={
            "gaussian": {"bound": 0.3621, "stderr": 0.0113, "folds_won": 0, "seconds": 0.12},
            "joint": {"bound": 0.4052, "stderr": 0.0105, "folds_won": 5, "seconds": 19.4},
        },
        config={
            "critic": "auto",
            "bound": "flo",
            "effort": "standard",
            "seed": 7,
            "units": "nats",
            "n_folds": 5,
            "negatives_a_row": [79, 80],
            "changed": ["effort", "seed"],
            "own": [],
        },
    )
    return replace(result, **changes)


class Page(HTMLParser):
    """Text, tags and attributes of a page, and whether the tags are balanced."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def drawn(panel: Callable[..., str], result: MIEstimate) -> tuple[Any, str]:
    """The Axes a panel drew on, and its caption."""
    with style.context(["default", STYLE]):
        ax = Figure().subplots()
        return ax, panel(ax, result)


def page(tmp_path: Path, result: MIEstimate) -> Page:
    return Page(report.write(result, tmp_path / "report.html"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of a result without anything special."""
    return page(tmp_path_factory.mktemp("report"), a_result(2_000))


def test_plot_is_a_figure_of_three_panels_outside_pyplot() -> None:
    figure = report.plot(a_result())
    assert isinstance(figure, Figure)
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert titles == ["Training", "Pointwise MI of the rows", "Where in the data"]
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


def test_plot_draws_a_curve_a_fold_and_the_mean_of_pmi() -> None:
    result = a_result()
    training, histogram, *_ = report.plot(result).axes
    curves = [line for line in training.lines if len(line.get_xdata()) > 1]
    assert len(curves) == 5
    np.testing.assert_allclose(curves[0].get_ydata(), result.history[0]["validation"])
    assert any(np.allclose(line.get_xdata(), result.pmi.mean()) for line in histogram.lines)


def test_plot_uses_the_axes_given() -> None:
    figure = Figure()
    axes = figure.subplots(3, 1)
    assert report.plot(a_result(), axes) is figure
    assert axes[0].get_title(loc="left") == "Training"
    with pytest.raises(ValueError, match=r"axes: three .* found 2"):
        report.plot(a_result(), axes[:2])


@pytest.mark.parametrize(("ceiling", "shown"), [(0.5, True), (7.9, False)])
def test_ceiling_is_drawn_where_it_does_not_squeeze_the_curves(ceiling: float, shown: bool) -> None:
    result = a_result()
    history = [run | {"ceiling": ceiling} for run in result.history]
    ax, caption = drawn(panels.curves, replace(result, history=history))
    assert ("ceiling" in [text.get_text() for text in ax.texts]) == shown
    assert (ax.get_ylim()[1] > ceiling) == shown
    assert f"ceiling, {ceiling:.3f} nats" in caption


def test_closed_form_winner_shows_the_candidates_instead_of_training() -> None:
    ax, caption = drawn(panels.curves, a_result(critic="gaussian"))
    assert ax.get_title(loc="left") == "Candidates"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["gaussian (won)", "joint"]
    assert "no training curve" in caption


def test_scatter_is_centred_at_zero_and_limited_to_5000_rows() -> None:
    result = a_result(6_000)
    ax, caption = drawn(panels.scatter, result)
    dots = ax.collections[0]
    low, high = dots.get_clim()
    assert low == -high
    assert len(dots.get_offsets()) == 5_000
    assert "5,000 of 6,000 rows are shown" in caption
    again, _ = drawn(panels.scatter, result)
    np.testing.assert_array_equal(dots.get_offsets(), again.collections[0].get_offsets())


def test_columns_with_few_values_are_spread_and_far_values_left_out() -> None:
    result = a_result()
    projection = result.projection.copy()
    projection[:, 1] = projection[:, 1] > 0
    projection[0, 0] = 1e6
    labels = ("age", "diagnosis")
    ax, caption = drawn(panels.scatter, replace(result, projection=projection, projection_labels=labels))
    assert ax.get_yticks().tolist() == [0, 1]
    assert ax.get_xlim()[1] < 10
    assert "spread a little around the few values of diagnosis" in caption
    assert "1 point lies beyond the axes" in caption
    assert result.projection[0, 0] < 10  # the caller's array is left alone


def test_histogram_says_what_it_does_not_show() -> None:
    result = a_result()
    pmi = np.clip(result.pmi, -1, 2)
    pmi[:3], pmi[3] = -np.inf, 1e3
    _, caption = drawn(panels.histogram, replace(result, pmi=pmi))
    assert "3 rows have no finite value" in caption
    assert "1 row lies beyond the axis" in caption
    assert drawn(panels.histogram, replace(result, pmi=pmi[:3]))[1] == "No row has a finite pointwise MI."


def test_page_has_every_number_in_both_units(plain: Page) -> None:
    text = plain.text
    for nats, bits in (
        ("0.412 ± 0.010 nats", "0.595 ± 0.015 bits"),
        ("0.393 to 0.432 nats", "0.566 to 0.623 bits"),
        ("at least 0.387 nats", "0.558 bits"),
        ("0.405 ± 0.011 nats", "0.585 ± 0.015 bits"),
        ("0.418 nats", "0.603 bits"),
    ):
        assert nats in text
        assert bits in text
    assert "0.013" in text
    assert "correlation of 0.75" in text
    assert "0.362 ± 0.011" in text
    assert "Verdict: OK" in text
    assert "2,000" in plain.text


def test_page_in_bits_says_the_same_and_lists_doubts(tmp_path: Path) -> None:
    doubts = ("Only 90 rows.", "3 rows are duplicates.")
    bits = {"mi": 0.595, "stderr": 0.0146, "ci": (0.566, 0.623), "units": "bits"}
    parsed = page(tmp_path, a_result(**bits, verdict="caution", warnings=doubts))
    assert "0.595 ± 0.015 bits" in parsed.text
    assert "0.412 ± 0.010 nats" in parsed.text
    assert "correlation of 0.75" in parsed.text
    assert "Verdict: Caution" in parsed.text
    assert all(doubt in parsed.text for doubt in doubts)
    assert ("div", "class", "badge caution") in parsed.attributes


def test_page_of_no_dependence_and_of_what_could_not_be_computed(tmp_path: Path) -> None:
    failed = {"separable": {"bound": float("nan"), "stderr": None, "folds_won": 0}}
    result = a_result(mi=-0.0021, ci=(-0.022, 0.018), verdict="unreliable", plug_in=float("nan"))
    result = replace(result, candidates=result.candidates | failed, lower_bound=float("-inf"))
    parsed = page(tmp_path, result)
    assert "\N{MINUS SIGN}0.002 ± 0.010 nats" in parsed.text
    assert "No dependence was found" in parsed.text
    assert "does not rule out independence" in parsed.text
    assert "Gaussian variables" not in parsed.text
    assert parsed.text.count("n/a") >= 5
    assert ("div", "class", "badge unreliable") in parsed.attributes


def test_a_certificate_that_is_absent_is_said_to_be(tmp_path: Path) -> None:
    result = a_result(lower_bound=float("nan"))
    assert "has no lower bound that holds whatever the model" in page(tmp_path, result).text
    assert "no certificate" in result._repr_html_() and "at least" not in str(result)


def test_page_loads_nothing(plain: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(plain.tags)
    for tag, key, value in plain.attributes:
        if key.rpartition(":")[2] in ("src", "href", "srcset", "data", "action"):
            assert tag == "a" or value.startswith(("#", "data:image/png;base64,")), (tag, key, value[:60])
        assert not key.startswith("on")
    assert "@import" not in plain.source
    assert not re.search(r"url\((?!#)", plain.source)
    assert "default-src 'none'" in plain.source


def test_text_from_the_data_stays_text_and_the_command_and_facts_given_are_shown(tmp_path: Path) -> None:
    result = a_result(
        projection_labels=(ATTACK, ATTACK + "\x00\ud800"),
        warnings=(ATTACK,),
        mi_method=ATTACK,
        critic=ATTACK,
        candidates={ATTACK: {"bound": 0.4, "stderr": 0.01, "folds_won": 5, "seconds": 1.0}},
        config=a_result().config | {"critic": ATTACK, "bound": ATTACK, "changed": ["critic", "bound"]},
        dim_x=1,
        dim_y=1,
    )
    command = "flomi estimate 'a b.csv' --x 0"
    parsed = Page(report.write(result, tmp_path / "report.html", command=command, about={"file": ATTACK}))
    assert "script" not in parsed.tags
    assert parsed.text.count("<script>alert(1)</script>") >= 8
    assert "file <script>" in parsed.text
    assert command in parsed.text and "DATA" not in parsed.text


def test_ids_are_unique_and_every_reference_resolves(plain: Page) -> None:
    ids = [value for _, key, value in plain.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]+)\)", plain.source)
    used += [value[1:] for _, key, value in plain.attributes if key == "href" and value.startswith("#")]
    for _, key, value in plain.attributes:
        if key == "aria-labelledby":
            used += value.split()
    assert set(used) <= set(ids)
    assert plain.tags.count("svg") == 4
    assert plain.tags.count("desc") == 4


def test_page_shows_how_to_do_it_again(plain: Page) -> None:
    text = plain.text
    assert "flomi.estimate(x, y, effort='standard', seed=7)" in text
    assert (
        "flomi estimate DATA --x COLUMNS --y COLUMNS --effort standard --seed 7 --report report.html" in text
    )
    assert '"lower_bound": 0.3871' in text
    assert "negatives a row 79, 80" in text


@pytest.mark.parametrize(
    ("options", "python", "command"),
    [
        ({"bound": "nwj", "units": "bits"}, "bound='nwj'", "--bound nwj"),
        ({"n_folds": 3, "device": "cuda"}, "n_folds=3", "--folds 3"),
        ({"critic": "MyCritic", "own": ["critic"]}, "critic=MyCritic,", None),
        (
            {"critic": ["gaussian", "MyCritic"], "own": ["critic"], "modules": ["MyCritic"]},
            "critic=['gaussian', MyCritic],",
            None,
        ),
        ({"critic": ["gaussian", "local"]}, "critic=['gaussian', 'local'],", "--critic gaussian,local"),
        ({"lr": 0.01}, "lr=0.01", None),
        ({}, "(x, y, effort='standard', seed=7)", "--seed 7"),
    ],
)
def test_only_what_the_command_line_can_say_is_said_there(
    options: dict[str, Any], python: str, command: str | None
) -> None:
    changed = [*(name for name in options if name not in ("own", "modules")), "effort", "seed"]
    config = a_result().config | {"changed": changed} | options
    assert python in report._python(config)
    assert report._command(config) == "" if command is None else command in report._command(config)


def test_write_replaces_in_one_go_and_writes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "report.html"
    target.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", fail)
        with pytest.raises(OSError, match="disk full"):
            report.write(a_result(), target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    assert report.write(a_result(), str(target)) == target
    first = target.read_bytes()
    assert first.startswith(b"<!DOCTYPE html>") and list(tmp_path.iterdir()) == [target]
    assert report.write(a_result(), target).read_bytes() == first  # the same result, the same bytes


def test_write_says_where_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path: .* is a folder"):
        report.write(a_result(), tmp_path)
    with pytest.raises(ValueError, match=r"path: the folder .* does not exist"):
        report.write(a_result(), tmp_path / "missing" / "report.html")


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_missing_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"need {package}: pip install 'flomi\[report\]'"):
        report.write(a_result(), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.41234, 0.0101, "0.412"),
        (0.41234, 0.00012, "0.41234"),
        (-0.0001, 0.02, "0.000"),
        (-1.5, None, "\N{MINUS SIGN}1.500"),
        (12.3456, 0.5, "12.346"),
        (float("inf"), None, "n/a"),
        (None, None, "n/a"),
    ],
)
def test_numbers_show_two_digits_of_their_error(value: float | None, error: float | None, text: str) -> None:
    assert panels.number(value, error) == text


@pytest.mark.parametrize("rho", [0.01, 0.5, 0.9999])
def test_equivalent_correlation_inverts_the_gaussian_formula(rho: float) -> None:
    found = report._correlation(-0.5 * np.log1p(-(rho**2)))
    assert found is not None
    assert float(found) == pytest.approx(rho, abs=0.005)


def test_report_and_plot_of_a_real_estimate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    result = flomi.estimate(x, x + rng.normal(size=300), critic="gaussian", n_folds=2, units="bits")
    assert result.plot().axes[0].get_title(loc="left") == "Candidates"
    text = Page(result.report(tmp_path / "report.html")).text
    assert f"{result.mi:.3f} ± {result.stderr:.3f} bits" in text
    assert "critic='gaussian', effort='standard', seed=0, units='bits', n_folds=2" in text
    assert "--critic gaussian --effort standard --seed 0 --folds 2 --bits" in text
