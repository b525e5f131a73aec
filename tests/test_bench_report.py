"""What is made of results: the sums by hand, the page as HTML and in a browser, Markdown, the accuracy results."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from flomi import bench, cli
from flomi.bench import charts, summary
from flomi.bench.results import COLUMNS

ROOT = Path(__file__).parent.parent
ATTACK = "own:<script>alert(1)</script>&$x$"


def cell(estimator: str, task: str = "a", n: int = 100, seed: int = 0, **changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(COLUMNS, "") | {
        "suite": "s", "task": task, "dim_x": 1, "dim_y": 1, "n": n, "seed": seed, "estimator": estimator,
        "true_mi": 1.0, "seconds": 2.0, "peak_mb": 300, "version": "0.1.0",
    }  # fmt: skip
    return row | changes


def table(rows: list[dict[str, Any]], folder: Path) -> pd.DataFrame:
    path = folder / "results.csv"
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(path, index=False, lineterminator="\n")
    return bench.load([path])


@pytest.fixture
def small(tmp_path: Path) -> pd.DataFrame:
    """Two tasks with errors that can be added in one's head."""
    return table(
        [
            cell("good", "a", seed=0, estimate=1.1, ci_low=0.8, ci_high=1.4, lower_bound=0.5),
            cell("good", "a", seed=1, estimate=0.9, ci_low=0.8, ci_high=0.95, lower_bound=1.2),
            cell("good", "b", seed=0, estimate=1.3, ci_low=0.9, ci_high=1.7, seconds=4.0),
            cell("part", "a", estimate=1.0),
            cell("part", "b", verdict="skipped", note="too many columns"),
            cell("flo", "a", estimate=0.5, bound=0.5, plug_in=0.8),
            cell("flo", "b", estimate=0.7, bound=0.7, plug_in=0.9),
            cell("dv", "a", estimate=0.5, bound=0.5, plug_in=0.5),
            cell("dv", "b", estimate=-np.inf, bound=-np.inf, plug_in=-np.inf),
        ],
        tmp_path,
    )


def test_the_leaderboard_by_hand(small: pd.DataFrame) -> None:
    board = bench.leaderboard(small).set_index(["estimator", "readout"])
    assert list(board.index) == [
        ("flo", "plug-in"), ("good", "estimate"), ("flo", "bound"), ("dv", "bound"), ("part", "estimate"),
    ]  # fmt: skip
    good = board.loc["good", "estimate"]
    assert good.error == pytest.approx((0.1 + 0.3) / 2)  # first within a task, then over tasks
    assert good.bias == pytest.approx((0.0 + 0.3) / 2)
    assert good.spread == pytest.approx(np.sqrt(0.02))
    assert good.worst == pytest.approx(0.3) and good.seconds == 2.0
    assert (good.coverage, good.intervals, good.exceeded, good.certificates) == (
        pytest.approx(2 / 3),
        3,
        1,
        2,
    )
    assert board.loc["flo", "plug-in"].error == pytest.approx(0.15)
    assert np.isnan(board.loc["flo", "plug-in"].coverage) and np.isnan(board.loc["flo", "bound"].spread)
    assert board.loc["dv", "bound"].error == np.inf
    part = board.loc["part", "estimate"]
    assert (part.tasks, part.of, part.partial) == (1, 2, True)
    errors = bench.by_task(small, "s", 100)
    assert errors.loc["b", ("flo", "plug-in")] == pytest.approx(-0.1) and errors.loc["a", ("truth", "")] == 1
    assert errors.columns[1] == ("flo", "plug-in")


def test_markdown_has_the_numbers(small: pd.DataFrame) -> None:
    text = bench.markdown(small)
    assert text.startswith("### s\n") and "1 skipped" in text
    assert "| good | estimate | 0.200 | +0.150 | 0.67 | 2 of 2 | 2.0 |" in text
    assert "| dv | bound | inf | -inf |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_of_a_cell_in_two_files_the_last_counts(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        table([cell("good", estimate=value)], tmp_path / name)
    both = bench.load([tmp_path / "a" / "results.csv", tmp_path / "b" / "results.csv"])
    assert list(both.estimate) == [2.0]


def test_accuracy_results_are_read_as_auto() -> None:
    path = ROOT / "benchmarks" / "results" / "accuracy.csv"
    if not path.exists():
        pytest.skip("benchmarks/ is not part of the source distribution")
    found = bench.load([path])
    assert tuple(found.columns) == COLUMNS and found.estimate.notna().all()
    raw = pd.read_csv(path)
    plain = raw[
        (raw.suite == "bmi-v1") & (raw.n == 1000) & (raw.effort == "standard") & (raw.critic_asked == "auto")
    ]
    errors = (plain.mi - plain.truth).abs().groupby(plain.task).mean()
    board = bench.leaderboard(found)
    mine = board[(board.suite == "bmi-v1") & (board.n == 1000) & (board.estimator == "auto")].iloc[0]
    assert mine.error == pytest.approx(errors.mean()) and mine.readout == "estimate" and mine.tasks == 40
    assert {"auto", "auto-fast"} <= set(found.estimator)
    assert set(found.version) == {"0.1.0"}


def test_self_consistency_has_its_own_table(tmp_path: Path) -> None:
    values = {
        "digits-other-4": 0.2,
        "digits-top-4": 1.0,
        "digits-top-8": 2.0,
        "digits-processed-4": 1.1,
        "digits-two-4": 1.7,
    }
    rows = [
        cell("ksg-3", name, suite="self-consistency", true_mi="", estimate=v) for name, v in values.items()
    ]
    found = bench.consistency_table(table(rows, tmp_path)).set_index("test")
    assert found.ratio.to_dict() == pytest.approx(
        {"independence": 0.2, "monotonicity": 0.5, "data processing": 1.1, "additivity": 1.7}
    )
    assert found.loc["additivity"].error == pytest.approx(0.3)
    frame = table(rows, tmp_path)
    assert "| ksg-3 | estimate | 0.200 | 0.500 | 1.100 | 1.700 |" in bench.markdown(frame)
    page = bench.write_page(frame, tmp_path / "p.html").read_text("utf-8")
    assert "1.700" in page and "Leaderboard</h3>" not in page


# --- the page ---


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """A suite as wide as a real one: thirty estimators with two read-outs, three sizes, long names, an attack."""
    rng = np.random.default_rng(0)
    names = [f"bound-{i}" for i in range(28)] + ["auto", ATTACK]
    tasks = ["spiral-normal_cdf-multinormal-sparse-25-25-2-2.0", "a", "b"]
    rows = []
    for i, name in enumerate(names):
        for n in (1000, 5000, 10_000):
            for task in tasks:
                value = 1.0 + (0.3 + i / 10) * rng.normal() * (1000 / n) ** 0.5
                two = {"bound": value, "plug_in": value + 0.1} if name.startswith("bound") else {}
                low, high = value - 0.2, value + 0.2
                rows.append(
                    cell(name, task, n, estimate=value, ci_low=low, ci_high=high, seconds=0.1 + i, **two)
                )
    rows.append(cell("kde", "a", 1000, verdict="skipped", note="6 columns are too many"))
    return table(rows, tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="module")
def page(large: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench.write_page(large, tmp_path_factory.mktemp("page") / "bench.html")


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.broken: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.broken.append(tag)


def test_the_page_is_whole_and_loads_nothing(page: Path) -> None:
    text = page.read_text("utf-8")
    found = Elements()
    found.feed(text)
    assert found.broken == [] and found.open == []
    names = [tag for tag, _ in found.tags]
    assert "script" not in names and "<script>alert" not in text and html.escape("<script>alert(1)") in text
    for _, attributes in found.tags:
        for key in ("src", "href", "xlink:href"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:")), value
    assert not re.search(r"@import|url\((?!#|\"#)", text)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert names.count("svg") == 4 and names.count("details") == 4
    for words in (
        "Leaderboard",
        "Error by task, 10,000 rows",
        "Coverage of 95 % intervals",
        "6 columns are too many",
    ):
        assert words in text


@pytest.mark.slow
def test_the_same_results_give_the_same_page(small: pd.DataFrame, tmp_path: Path) -> None:
    one, two = (bench.write_page(small, tmp_path / name).read_bytes() for name in ("one.html", "two.html"))
    assert one == two


def test_the_page_shows_the_leaderboards_numbers(large: pd.DataFrame, page: Path) -> None:
    board = bench.leaderboard(large)
    best = board[(board.n == 10_000) & ~board.partial].iloc[0]
    text = page.read_text("utf-8")
    assert f"<b>{summary.shown(best.error)}</b>" in text
    rows = board[board.suite == "s"]
    assert charts.main_size(rows) == 10_000


def test_report_from_the_command_line(
    small: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small.to_csv("bench.csv", index=False, lineterminator="\n")
    assert cli.main(["bench", "report", "--markdown", "a.md"]) == 0
    assert Path("a.md").read_text("utf-8") == bench.markdown(small) and not Path("bench.html").exists()
    assert cli.main(["bench", "report", "bench.csv"]) == 0
    assert Path("bench.html").read_text("utf-8").startswith("<!DOCTYPE html>")


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)

MEASURE = """
<body style="margin:0"><iframe id="f" style="border:0;width:WIDTHpx;height:3000px" srcdoc="PAGE"></iframe><script>
onload = () => {
  const d = document.getElementById("f").contentDocument, all = (s) => [...d.querySelectorAll(s)];
  const width = (e) => e.getBoundingClientRect().width, shown = (e) => width(e) > 0;
  document.title = JSON.stringify({
    overflow: d.documentElement.scrollWidth - d.documentElement.clientWidth,
    outside: all("p, h1, h2, h3, .card, svg, nav").filter(shown).filter((e) => {
      const box = e.getBoundingClientRect();
      return box.left < -1 || box.right > d.documentElement.clientWidth + 1;
    }).map((e) => e.outerHTML.slice(0, 80)),
    svg: all("svg").map((e) => Math.round(width(e))),
    text: Math.min(...all("svg text").map((e) => e.getBoundingClientRect().height).filter((h) => h > 0)),
    names: Math.min(...all(".leaderboard tbody th").map(width)),
    rows: all(".leaderboard tbody tr").length,
  });
};
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page is tested as HTML only")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(page: Path, tmp_path: Path, width: int) -> None:
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        MEASURE.replace("WIDTH", str(width)).replace("PAGE", html.escape(page.read_text("utf-8"))),
        encoding="utf-8",
    )
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1400,1000", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom",
        wrapper.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None, done.stderr[-2000:]
    assert "Content Security Policy" not in done.stderr
    found = json.loads(html.unescape(title.group(1)))
    assert found["overflow"] <= 0 and found["outside"] == []
    assert found["rows"] == 58 and found["names"] > 50
    assert len(found["svg"]) == 4 and all(250 < w <= 480 for w in found["svg"])
    assert found["text"] > 8  # pixels: legible


def test_no_rows_need_no_shades() -> None:
    assert charts._sizes(pd.DataFrame({"n": []})) == []


@pytest.mark.parametrize("count", [1, 2, 4, 5, 9])
def test_every_size_has_a_shade_of_its_own(count: int) -> None:
    pairs = charts._sizes(pd.DataFrame({"n": [1000 * i for i in range(count, 0, -1)]}))
    assert [n for _, n in pairs] == [1000 * i for i in range(1, count + 1)]
    shades = [shade for shade, _ in pairs]
    assert len(set(shades)) == count and shades[-1] == charts.SHADES[-1]
    light = [sum(bytes.fromhex(shade[1:])) for shade in shades]
    assert light == sorted(light, reverse=True)
