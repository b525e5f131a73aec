"""The paper's experiments: tables, determinism, files, the command line, and the estimators that only they use."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from flomi import cli, tasks
from flomi.bounds import BOUNDS
from flomi.critics import QuadraticCritic
from flomi.reproduce import (
    EXPERIMENTS,
    Experiment,
    Finding,
    architectures,
    batch_size,
    classical,
    convergence,
    core,
    framework,
    fresh_rows,
    is_complete,
    run,
    staircase,
    sweep,
    write,
)
from flomi.reproduce.fairness import MADE
from flomi.training.model import Model

# Everything twice costs most of the time: these show that a seed is enough, the others do it in `make test-slow`.
QUICK_TWICE = {"convergence", "depth", "bilinear-speed"}
SMALLER: dict[str, dict[str, object]] = {
    "fairness": {"data": ((MADE, False),), "steps": 5},
    "meta-learning": {"pools": (4,), "steps": 2},
    "self-supervised": {"epochs": 2, "readings": 2},
    "staircase": {"steps": 2, "warm_steps": 5},
    "cross-view": {
        "budgets": [
            replace(
                budget,
                runs={batch: (names, 2) for batch, (names, _) in budget.runs.items()},
                classifier_epochs=5,
            )
            for budget in EXPERIMENTS["cross-view"].sizes["tiny"]["budgets"]
        ]
    },
}


def unarranged(experiment: Experiment) -> Experiment:
    """Its figure without the search for a layout, which is most of what drawing takes."""

    def draw(table: pd.DataFrame) -> Figure:
        figure = experiment.draw(table)
        figure.set_layout_engine("none")
        return figure

    return replace(experiment, draw=draw)


def tiny(name: str) -> pd.DataFrame:
    """An experiment at its smallest size, which for some is smaller than "tiny"."""
    experiment = EXPERIMENTS[name]
    return run(
        replace(experiment, sizes={"tiny": {**experiment.sizes["tiny"], **SMALLER.get(name, {})}}),
        "tiny",
        seed=0,
    )


class Tables(dict[str, pd.DataFrame]):
    """Every experiment at its smallest size, run when it is first asked for."""

    def __missing__(self, name: str) -> pd.DataFrame:
        self[name] = tiny(name)
        return self[name]


@pytest.fixture(scope="module")
def tables() -> Tables:
    return Tables()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_table_files_and_findings(name: str, tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    experiment, table = EXPERIMENTS[name], tables[name]
    assert experiment.name == name and len(table) > 1 and not table.duplicated().any()
    files = write(unarranged(experiment), table, tmp_path, {"size": "tiny", "seed": 0})
    wanted = {f"{name}.csv", f"{name}.png", f"{name}.svg", f"{name}.json"}
    assert {path.name for path in files} >= wanted and all(path.stat().st_size > 100 for path in files)
    assert not set(experiment.timings) & set(pd.read_csv(tmp_path / f"{name}.csv").columns)
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    findings = experiment.compare(table)
    assert len(findings) >= 1 and all(isinstance(f, Finding) and f.what and f.ours for f in findings)
    before = (tmp_path / f"{name}.csv").read_bytes()
    assert before.count(b"\n") == len(table) + 1 and b"-0," not in before
    assert is_complete(experiment, tmp_path, "tiny", 0)
    assert not is_complete(experiment, tmp_path, "tiny", 1)
    assert not is_complete(experiment, tmp_path, "full", 0)


@pytest.mark.parametrize(
    "name", [n if n in QUICK_TWICE else pytest.param(n, marks=pytest.mark.slow) for n in EXPERIMENTS]
)
def test_the_same_seed_gives_the_same_table(name: str, tables: dict[str, pd.DataFrame]) -> None:
    experiment = EXPERIMENTS[name]
    torch.rand(3)  # what ran before must not matter
    again, times = tiny(name), list(experiment.timings)
    pd.testing.assert_frame_equal(
        tables[name].drop(columns=times), again.drop(columns=times), check_exact=True
    )


@pytest.mark.parametrize("name", ["convergence", pytest.param("depth", marks=pytest.mark.slow)])
def test_another_seed_gives_another_table(name: str, tables: dict[str, pd.DataFrame]) -> None:
    assert not run(EXPERIMENTS[name], "tiny", seed=1).equals(tables[name])


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    run(EXPERIMENTS["landscape"], "tiny", seed=0)
    assert torch.get_num_threads() == before


# What the experiments rest on -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_family_of_one_critic_is_ordered_and_below_the_truth() -> None:
    limit = {name: framework.population(u) for name, u in framework.duals(0, steps=300).items()}
    assert framework.TRUTH > limit["UBA"] > limit["TUBA"] > limit["DV"] > limit["NWJ"]
    assert limit["UBA"] >= limit["FLO"] > limit["FLO-u(x)"]
    assert limit["FLO"] > limit["UBA"] - 0.02


def test_fixed_critic_is_exact_where_it_is_the_pmi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framework, "critic", framework.pmi)
    for name in ("UBA", "DV", "NWJ", "TUBA"):
        assert framework.population(framework.duals(0, steps=1)[name]) == pytest.approx(
            framework.TRUTH, abs=1e-8
        )


def test_quadrature_agrees_with_a_large_sample() -> None:
    rng = np.random.default_rng(0)
    x, y, y_neg = framework.rows(rng, 200_000, 8)
    u = framework.duals(0, steps=1)["DV"]
    values = framework.fenchel(
        torch.logsumexp(framework.critic(x[:, None], y_neg), 1) - math.log(8) - framework.critic(x, y),
        u(x, y),
    )
    assert float(values.mean()) == pytest.approx(framework.population(u), abs=5 * float(values.std()) / 447)


def test_table_of_the_convergence_experiment_has_its_optimum_at_i() -> None:
    p = convergence.distribution()
    pmi = convergence.pointwise(p)
    truth = float((p * pmi).sum())
    drift = torch.randn(convergence.SHAPE[0], 1, dtype=p.dtype)
    assert float(convergence.exact_flo(p, pmi + drift, -pmi)) == pytest.approx(truth, abs=1e-12)
    assert float(convergence.exact_flo(p, pmi + 0.1 * torch.randn_like(pmi), -pmi)) < truth
    assert float(pmi.abs().max()) < convergence.BOX


def test_slope_of_a_power_law() -> None:
    table = pd.DataFrame({"step": np.arange(1, 2000), "gap": 3.0 / np.arange(1, 2000)})
    assert convergence.slope(table, "gap") == pytest.approx(-1)


@pytest.mark.slow
def test_convergence_converges() -> None:
    table = pd.DataFrame(convergence.convergence(0, starts=3, steps=8000))
    gap = table.groupby("step").gap.median()
    assert gap.iloc[-1] < 0.02 and (table.gap > 0).all()


def test_self_pairs_are_only_where_they_are_asked_for() -> None:
    """The trap keeps about one row in its place; the library's scheme none."""
    bound = BOUNDS["flo"]
    model = Model(QuadraticCritic(2, 2), (2,), bound)
    x = torch.randn(64, 2)
    generator = torch.Generator().manual_seed(0)
    own = torch.arange(64)[:, None]
    leaky = sweep.with_self_pairs(50)(model, x, x, generator).negatives.partners  # type: ignore[attr-defined]
    clean = fresh_rows.derangements(50)(model, x, x, generator).negatives.partners  # type: ignore[attr-defined]
    assert 20 < int((leaky == own).sum()) < 90
    assert not (clean == own).any()


def test_cubic_pairs_keep_their_mi_and_nothing_else() -> None:
    plain, bent = sweep.pairs(0.8, cubic=False), sweep.pairs(0.8, cubic=True)
    assert bent.mi == plain.mi == pytest.approx(-5 * math.log(1 - 0.64))
    _, y = bent.sample(4000, seed=0)
    assert float((y**2).mean()) == pytest.approx(15, rel=0.1)  # of a cubed standard normal


def test_alpha_infonce_has_the_papers_caps() -> None:
    cap = sweep.USED["i-alpha-0.8"].cap
    assert cap is not None
    assert (round(cap(5), 2), round(cap(50), 2), round(sweep.LEAK_CAP, 2)) == (2.83, 5.14, 5.85)


def test_reading_a_gaussian_critic_is_right() -> None:
    """FLO at the exact critic on all off-diagonal pairs of fresh rows is the truth within its standard error."""
    rho = 0.8
    task = tasks.base.pairs("pair", (rho,), 1, 1)
    critic = QuadraticCritic(1, 1)
    with torch.no_grad():
        scale = rho / (1 - rho**2)
        critic.cross[0], critic.in_x[0], critic.in_y[0] = scale, -rho * scale / 2, -rho * scale / 2
        critic.constant[0] = task.mi
        for weight in critic.parameters():
            weight[1] = -weight[0]
    model = Model(critic, (1,), BOUNDS["flo"])
    found = fresh_rows.read(
        model, BOUNDS["flo"], fresh_rows.fresh(task, np.random.default_rng(0)), n=20_000, block=500
    )
    assert found.value == pytest.approx(task.mi, abs=4 * found.stderr) and found.stderr < 0.01
    assert found.plug_in == pytest.approx(task.mi, abs=0.03)


@pytest.mark.slow
def test_learning_on_fresh_rows_learns() -> None:
    task = tasks.base.pairs("pair", (0.9,), 1, 1)
    rng, generator = core.streams(0, "test")
    model = Model(QuadraticCritic(1, 1), (1,), BOUNDS["flo"])
    seen: list[float] = []
    rows = fresh_rows.fresh(task, rng)
    fresh_rows.learn(model, BOUNDS["flo"], rows, fresh_rows.every_pair, generator, steps=500, batch=64, lr=5e-2,
               watch=lambda step, value: seen.append(value))  # fmt: skip
    assert len(seen) == 500
    assert fresh_rows.read(model, BOUNDS["flo"], rows, n=5000, block=500).value == pytest.approx(
        task.mi, abs=0.08
    )


def test_every_bound_is_in_one_group_of_the_staircase() -> None:
    names = [bound.name for group in staircase.alike() for bound in group]
    assert sorted(names) == sorted(BOUNDS)
    assert ["js", "smile", "smile-1", "smile-inf", "gan-dime"] in [
        [b.name for b in group] for group in staircase.alike()
    ]


def test_batches_at_once_are_the_batches_one_by_one() -> None:
    task = tasks.get("staircase-20-20-2")
    rows = fresh_rows.fresh(task, np.random.default_rng(0))
    for group in staircase.alike():
        model = Model(staircase.critic_for(group[0]), (20,), group[0])
        x, y = rows(48)
        found = batch_size.batch_values(model, group, x, y, 16)
        with torch.no_grad():
            single = [
                [
                    bound.value(model.scores(a, b, "all")).mean()
                    for a, b in zip(x.split(16), y.split(16), strict=True)
                ]
                for bound in group
            ]
        assert torch.allclose(found, torch.tensor(single), rtol=1e-3, atol=1e-4)


def test_epochs_to_a_level_interpolates() -> None:
    table = pd.DataFrame(
        {"critic": "joint", "lr": 1e-3, "epoch": [1.0, 2.0, 3.0], "bound": [0.9, 1.0, 1.2], "repeat": 0}
    )
    assert architectures.epochs_to(table, "joint", 1e-3) == pytest.approx(2.5)
    assert math.isnan(architectures.epochs_to(table, "joint", 1e-3, level=2.0))


def test_epochs_to_a_level_is_where_the_curve_stays_above_it() -> None:
    bound = np.concatenate([np.linspace(0.1, 1.0, 10), np.full(10, 1.0), np.full(10, 1.2)])
    bound[12], bound[25] = 1.3, 0.5  # touches the level and falls back; one bad reading late
    table = pd.DataFrame(
        {"critic": "joint", "lr": 1e-3, "epoch": np.arange(30.0), "bound": bound, "repeat": 0}
    )
    assert architectures.epochs_to(table, "joint", 1e-3) == pytest.approx(19.5)


def test_depth_writes_the_rate_that_was_used(tables: dict[str, pd.DataFrame]) -> None:
    rates = tables["depth"].groupby("layers").lr.first()
    assert rates[0] == pytest.approx(10 * rates[2])


def test_deciles_and_std_of_single_rows_are_both_reported(tables: dict[str, pd.DataFrame]) -> None:
    whats = [finding.what for finding in EXPERIMENTS["single-negative"].compare(tables["single-negative"])]
    assert any("std of single rows" in what for what in whats) and any(
        "width of the deciles" in what for what in whats
    )


def test_a_linear_critic_reads_nothing_and_a_network_something(tables: dict[str, pd.DataFrame]) -> None:
    value = tables["depth"].groupby("layers").value.max()
    assert value[0] < 0.1 and value[2] > value[0]


def test_bilinear_critic_does_the_same_work_at_every_k(tables: dict[str, pd.DataFrame]) -> None:
    work = tables["bilinear-speed"].pivot(index="K", columns="critic", values="gflop_an_epoch")
    assert work.bilinear[16] < 1.5 * work.bilinear[4]
    assert work.joint[16] > 3 * work.joint[4]


@pytest.mark.parametrize(
    ("estimate", "tolerance"), [(classical.ksg, 0.08), (classical.revised_ksg, 0.15), (classical.kde, 0.1)]
)
def test_classical_estimators_are_right_in_two_dimensions(estimate, tolerance: float) -> None:  # type: ignore[no-untyped-def]
    task = tasks.base.pairs("pair", (0.8,), 1, 1)
    assert estimate(*task.sample(2000, seed=0)) == pytest.approx(task.mi, abs=tolerance)


# Saving and the command line -----------------------------------------------------------------------------------------


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Two experiments whose quick size is the tiny one; counts the runs."""
    runs: dict[str, int] = {}
    sizes = {
        "framework": {"batches": 3, "batch": 16, "negatives": (1, 2), "steps": 5},
        "convergence": {"starts": 2, "steps": 50},
    }

    def counted(experiment: Experiment) -> Experiment:
        def counting(seed: int, **size: object):  # type: ignore[no-untyped-def]
            runs[experiment.name] = runs.get(experiment.name, 0) + 1
            return experiment.run(seed, **size)

        return replace(
            experiment,
            run=counting,
            sizes={"quick": sizes[experiment.name]},
            draw=lambda table: Figure((1, 1)),
        )

    chosen = {name: counted(EXPERIMENTS[name]) for name in ("framework", "convergence")}
    for name in list(EXPERIMENTS):
        monkeypatch.delitem(EXPERIMENTS, name)
    for name, experiment in chosen.items():
        monkeypatch.setitem(EXPERIMENTS, name, experiment)
    return runs


def test_one_experiment_by_name(
    fast: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["reproduce", "framework", "--quick", "--out", str(tmp_path / "new" / "folder")]) == 0
    out, err = capsys.readouterr()
    assert "UBA >= DV >= NWJ" in out and "paper" in out
    assert err.startswith("wrote ") and "framework.csv" in err
    about = json.loads((tmp_path / "new/folder/framework.json").read_text())
    assert about["size"] == "quick" and about["seed"] == 0 and "torch" in about["versions"]
    assert about["command"].startswith("flomi reproduce framework --quick")


def test_all_goes_on_where_it_was(
    fast: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["reproduce", "all", "--quick", "--out", str(tmp_path)]
    assert cli.main(call) == 0 and fast == {"framework": 1, "convergence": 1}
    (tmp_path / "framework.json").unlink()  # as if it had been killed while writing
    assert cli.main(call) == 0 and fast == {"framework": 2, "convergence": 1}
    assert "has it already" in capsys.readouterr().err
    assert cli.main([*call, "--seed", "1"]) == 0 and fast == {"framework": 3, "convergence": 2}


def test_an_interruption_says_what_is_kept(
    fast: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stop(seed: int, **size: object):  # type: ignore[no-untyped-def]
        raise KeyboardInterrupt
        yield

    monkeypatch.setitem(EXPERIMENTS, "convergence", replace(EXPERIMENTS["convergence"], run=stop))
    assert cli.main(["reproduce", "all", "--quick", "--out", str(tmp_path)]) == 130
    err = capsys.readouterr().err
    assert "interrupted: convergence was not finished; 1 of 2 are in" in err
    assert "before there was a result" not in err
    assert (tmp_path / "framework.csv").exists() and not (tmp_path / "convergence.csv").exists()


def test_missing_data_leaves_the_others_to_run(
    fast: dict[str, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(seed: int, **size: object):  # type: ignore[no-untyped-def]
        raise ValueError("there are no images")
        yield

    monkeypatch.setitem(EXPERIMENTS, "framework", replace(EXPERIMENTS["framework"], run=missing))
    assert cli.main(["reproduce", "all", "--quick", "--out", str(tmp_path)]) == 2
    assert "framework (there are no images)" in capsys.readouterr().err
    assert fast["convergence"] == 1 and (tmp_path / "convergence.csv").exists()


def test_list_names_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reproduce", "list"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", out, re.MULTILINE) for name in EXPERIMENTS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bias-varianc"], "no experiment is called 'bias-varianc'; did you mean bias-variance?"),
        (["zzz"], "no experiment is called 'zzz'; there are bound-vs-truth, landscape"),
        ([], "Missing argument 'NAME'"),
        (["depth", "--quik"], "there is no option --quik; did you mean --quick?"),
        (["depth", "--seed", "-1"], "--seed is -1; it must be from 0"),
        (["depth", "--seed", "x"], "--seed must be a whole number"),
        (["depth", "--out", "FILE"], "is a file; name a folder"),
        (["depth", "--out", "FILE/folder"], "folder can't be written (Not a directory); name another"),
    ],
)
def test_a_wrong_call_is_one_line_and_code_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert cli.main(["reproduce", *(a.replace("FILE", str(file)) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1, err
    assert message in err
