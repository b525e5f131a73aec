"""Estimators of the bench: known answers, what does not apply, functions of one's own, every bound."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from flomi import bench, tasks
from flomi.bench import baselines, estimators, variational
from flomi.bench.baselines import Answer, NotApplicable
from flomi.bounds import BOUNDS
from flomi.critics import CRITICS

NORMAL = tasks.get("1v1-normal-0.75")
ROWS = NORMAL.sample(2000, seed=0)


@pytest.mark.parametrize("name", ["gaussian", "ksg-3", "ksg-5", "ksg-10", "histogram", "kde"])
def test_baselines_find_a_correlated_pair(name):
    r = bench.resolve(name).run(*ROWS, 0)
    assert r.estimate == pytest.approx(NORMAL.mi, abs=0.05)
    assert r.ci_low < r.estimate < r.ci_high and 0 < r.stderr < 0.05
    assert r.bound is None and r.lower_bound is None


@pytest.mark.parametrize("name", ["gaussian", "ksg-3", "histogram", "kde"])
def test_baselines_find_nothing_where_nothing_is(name):
    r = bench.resolve(name).run(*tasks.get("independence-1-1").sample(2000, seed=0), 0)
    assert abs(r.estimate) < 0.05


def test_baselines_ignore_scale_and_constant_columns():
    x, y = ROWS
    wide = np.hstack([1e6 * x, np.ones_like(x)])
    for name, rounding in (
        ("gaussian", 1e-6),
        ("ksg-3", 0.01),
    ):  # of two equal distances either may be the smaller
        run = bench.resolve(name).run
        assert run(wide, y - 7, 0).estimate == pytest.approx(run(x, y, 0).estimate, abs=rounding)


def test_kernels_leave_each_row_out_of_its_own_density():
    """With it they read 0.7 nats here, where there is nothing."""
    x, y = (np.random.default_rng(i).normal(size=(1000, 3)) for i in (0, 1))
    assert abs(baselines.kde(x, y, 0).estimate) < 0.2


def test_histogram_keeps_vectors_apart():
    """y tells which of x_1, x_2 is positive: no single column knows, the cells of both do."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 2))
    y = np.sign(x[:, :1] * x[:, 1:]) + 0.01 * rng.normal(size=(20_000, 1))
    assert baselines.histogram(x, y, 0).estimate == pytest.approx(math.log(2), abs=0.15)


@pytest.mark.parametrize(("name", "task", "n", "reason"), [
    ("histogram", "multinormal-sparse-5-5-2-2.0", 1000, "needs 4"),
    ("kde", "multinormal-dense-25-25-0.5", 200, "50 columns are too many"),
    ("gaussian", "multinormal-dense-25-25-0.5", 40, "too few"),
    ("ksg-10", "1v1-normal-0.75", 10, "no 10 neighbours"),
    ("flo", "1v1-normal-0.75", 39, "at least 40"),
])  # fmt: skip
def test_what_makes_no_sense_says_so(name, task, n, reason):
    with pytest.raises(NotApplicable, match=reason):
        bench.resolve(name).run(*tasks.get(task).sample(n, seed=0), 0)


def test_exact_relations_are_no_gaussians():
    with pytest.raises(NotApplicable, match="infinite"):
        baselines.gaussian(ROWS[0], ROWS[0], 0)
    with pytest.raises(NotApplicable, match="no density"):
        baselines.kde(np.hstack([ROWS[0], ROWS[0]]), ROWS[1], 0)


# --- bounds ---


def shorter(monkeypatch, **changes):
    monkeypatch.setattr(variational, "SETTINGS", dataclasses.replace(variational.SETTINGS, **changes))


@pytest.mark.parametrize("name", list(BOUNDS))
def test_every_bound_runs_and_reads_out_twice(name, monkeypatch):
    shorter(monkeypatch, steps=8, batch_size=32, m=16)
    task = tasks.get("multinormal-dense-2-2-0.5")
    x, y = task.sample(200, seed=0)
    before = torch.get_rng_state()
    r = variational.variational(x, y, 0, name, log_py=task.log_py)
    assert r.estimate == r.bound and all(map(math.isfinite, (r.bound, r.plug_in, r.stderr)))
    assert -1.5 < r.bound < 3
    assert torch.equal(torch.get_rng_state(), before)
    assert r == variational.variational(x, y, 0, name, log_py=task.log_py)  # the same bits


@pytest.mark.slow
def test_bounds_come_near_the_truth_from_below(monkeypatch):
    shorter(monkeypatch, steps=150)
    x, y = NORMAL.sample(2000, seed=0)
    for name in ("flo", "infonce"):
        r = variational.variational(x, y, 0, name)
        assert r.bound - 3 * r.stderr < NORMAL.mi and r.plug_in == pytest.approx(NORMAL.mi, abs=0.12)


def test_barber_agakov_needs_the_density_of_y(monkeypatch):
    shorter(monkeypatch, steps=150)
    task = tasks.get("staircase-20-20-2")
    with pytest.raises(NotApplicable, match=r"log p\(y\)"):
        variational.variational(*task.sample(200, seed=0), 0, "ba")
    x, y = NORMAL.sample(2000, seed=0)
    scaled = NORMAL.log_py
    moved = variational.variational(
        x, 100 * y + 5, 0, "ba", log_py=lambda v: scaled((v - 5) / 100) - math.log(100)
    )
    plain = variational.variational(x, y, 0, "ba", log_py=scaled)
    assert moved.bound == pytest.approx(plain.bound, abs=1e-3)  # units of y are not information
    assert plain.bound == pytest.approx(NORMAL.mi, abs=0.1)


# --- by name ---


def test_the_catalogue_has_every_bound_and_the_groups():
    known = bench.catalogue()
    assert set(BOUNDS) <= set(known) and {
        "auto",
        "auto-fast",
        "gaussian",
        "ksg-3",
        "histogram",
        "kde",
    } <= set(known)
    assert [n for n in estimators.expand(["bounds"])] == list(BOUNDS)
    assert estimators.expand(["flo", "bounds", "flo"])[0] == "flo"
    assert {row.group for row in known.values()} == set(estimators.GROUPS)


def test_a_critic_is_an_estimator_by_name():
    known = bench.catalogue()
    assert estimators.expand(["critics"]) == [f"critic:{k.name}" for k in CRITICS.values() if k.build is None]
    assert abs(known["critic:gaussian"].run(*NORMAL.sample(300, seed=0), 0).estimate - NORMAL.mi) < 0.2
    with pytest.raises(NotApplicable, match="one column each"):
        known["critic:local"].run(*tasks.get("independence-20-20").sample(300, seed=0), 0)


def test_auto_reports_what_flomi_reports():
    r = bench.resolve("auto-fast").run(*NORMAL.sample(300, seed=0), 0)
    assert r.lower_bound <= r.estimate and r.verdict in ("ok", "caution", "unreliable")
    assert abs(r.estimate - NORMAL.mi) < 0.2 and r.plug_in is not None


@pytest.mark.parametrize(("name", "message"), [
    ("infonc", "did you mean infonce"),
    ("zzz", "module:function"),
    ("critic:gausian", "did you mean critic:gaussian"),
    ("no_such_module:f", "can't be imported"),
    ("math:nothing", "has no 'nothing'"),
    ("math:pi", "is no function"),
])  # fmt: skip
def test_unknown_names_say_what_to_do(name, message):
    with pytest.raises(ValueError, match=message):
        estimators.expand([name])


@pytest.mark.parametrize(("text", "message"), [
    ("import os\ndef f(:\n", "SyntaxError: .*own_0.py, line 2"),
    ("\nimport no_such_module_anywhere\n", "ModuleNotFoundError: No module named .*own_1.py, line 2"),
    ("def f():\n    return 1 / 0\n\nf()\n", "ZeroDivisionError: division by zero; .*own_2.py, line 2"),
    ("import math\nmath.nothing\n", "AttributeError: .*own_3.py, line 2"),
    ("raise SystemExit('no')\n", "SystemExit: no; .*own_4.py, line 1"),
])  # fmt: skip
def test_a_module_that_breaks_at_import_is_named_with_its_line(text, message, tmp_path, monkeypatch):
    name = f"own_{message.split('own_')[1][0]}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"'{name}' can't be imported .{message}") as caught:
        estimators.expand([f"{name}:f"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("given", "found"), [
    (None, "None"),
    ("0.5", "a value of type str"),
    (np.array([0.5]), "a value of type ndarray of shape (1,)"),
    ([0.5, 0.6], "a value of type list"),
    ({}, "no estimate"),
    ({"estimate": None}, "no estimate"),
    ({"estimat": 1.0}, "estimat"),
    ({"estimate": 0.5, "stderr": torch.ones(2)}, "stderr as Tensor of shape (2,)"),
])  # fmt: skip
def test_what_ones_own_function_must_return(given, found):
    with pytest.raises(ValueError) as caught:
        estimators._own(lambda x, y, seed: given, *ROWS, 0)
    assert str(caught.value).startswith(
        f"it returned {found}; return a number, or a mapping with estimate and any of "
    )


@pytest.mark.parametrize("given", [1, np.float32(1), np.array(1.0), torch.tensor(1.0), True])
def test_numbers_of_any_make_will_do(given):
    assert estimators._own(lambda x, y, seed: given, *ROWS, 0) == Answer(1.0)


def test_ones_own_function_returns_a_number_or_a_mapping(tmp_path, monkeypatch):
    (tmp_path / "mine_for_test.py").write_text(
        "def number(x, y, seed):\n    return 0.5\n"
        "def mapping(x, y, seed):\n    return {'estimate': seed, 'stderr': 0.1, 'plug_in': None, 'verdict': 'fine'}\n"
        "def wrong(x, y, seed):\n    return {'estimat': 1.0}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert bench.resolve("mine_for_test:number").run(*ROWS, 0) == Answer(0.5)
    assert bench.resolve("mine_for_test:mapping").run(*ROWS, 3) == Answer(3.0, 0.1, verdict="fine")
    with pytest.raises(ValueError, match="it returned estimat; return a number, or a mapping with estimate"):
        bench.resolve("mine_for_test:wrong").run(*ROWS, 0)
