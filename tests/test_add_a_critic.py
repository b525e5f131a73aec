"""What docs/design.md says of adding a critic, done to the letter: its code, and everything that then knows the critic."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import flomi
from flomi import bench, cli
from flomi.critics import CRITICS

DESIGN = Path(__file__).parent.parent / "docs" / "design.md"


@pytest.fixture
def binned():
    """The row that the page's code adds, taken away afterwards."""
    section = DESIGN.read_text(encoding="utf-8").split("## Add a critic")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    before = dict(CRITICS)
    exec(compile(code, str(DESIGN), "exec"), {})
    (name,) = set(CRITICS) - set(before)
    yield name
    del CRITICS[name]


@pytest.fixture(scope="module")
def ring():
    """A ring, which correlations do not see; MI 0.44."""
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 900)
    noise = 0.15 * rng.normal(size=(2, 900))
    return np.cos(angle) + noise[0], np.sin(angle) + noise[1]


def test_it_is_estimated_compared_saved_and_reported(binned, ring, tmp_path):
    x, y = ring
    r = flomi.estimate(x, y, critic=binned, n_folds=2)
    assert r.critic == binned and r.mi > 0.3
    both = flomi.MIEstimator(critic=["gaussian", binned], n_folds=2).fit(x, y)
    assert both.result_.candidates.keys() == {"gaussian", binned}
    assert both.result_.critic == binned
    loaded = flomi.MIEstimator.load(both.save(tmp_path / "saved"))
    np.testing.assert_array_equal(loaded.pmi(x[:50], y[:50]), both.pmi(x[:50], y[:50]))
    page = both.result_.report(tmp_path / "page.html").read_text(encoding="utf-8")
    assert binned in page


def test_it_competes_where_its_row_says(binned, ring):
    x, y = ring
    assert binned in flomi.estimate(x, y, effort="fast", n_folds=2).candidates
    assert binned not in flomi.estimate(x[:300], y[:300], effort="fast", n_folds=2).candidates


def test_the_command_line_and_the_bench_know_it(binned, ring, tmp_path, capsys):
    table = tmp_path / "ring.csv"
    pd.DataFrame({"x": ring[0], "y": ring[1]}).to_csv(table, index=False)
    words = ["estimate", str(table), "--x", "x", "--y", "y", "--critic", binned, "--folds", "2", "--json"]
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["critic"] == binned
    out = tmp_path / "bench.csv"
    bench.run(
        "independence", [f"critic:{binned}"], sizes=[200], seeds=[0], tasks=["independence-1-1"], out=out
    )
    assert set(bench.load([out]).estimator) == {f"critic:{binned}"}
