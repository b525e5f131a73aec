"""The estimator: cross-fitting, determinism, every bound and critic, interrupts, scikit-learn's conventions, units."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from flomi import MIEstimator, bounds, estimate
from flomi.critics import CRITICS, ConditionalGaussian
from flomi.crossfit.options import Options
from flomi.crossfit.splits import enough_units, make_splits
from flomi.estimator import _DEFAULTS

FEW: dict = {"effort": "fast", "steps": 40, "n_folds": 2}  # for a user's own critic
QUICK: dict = {**FEW, "hidden": (16,)}  # and for networks trained by the bound


def gaussian(n: int, d: int = 1, rho: float = 0.7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, rho * x + math.sqrt(1 - rho**2) * rng.normal(size=(n, d))


def checked(estimator: MIEstimator) -> Options:
    return Options.of(estimator.get_params(), _DEFAULTS)


class Product(nn.Module):
    """A user's critic: g only."""

    def __init__(self, dim_x: int = 1, dim_y: int = 1) -> None:
        super().__init__()
        self.f, self.h = nn.Linear(dim_x, 8), nn.Linear(dim_y, 8)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.f(x.flatten(1)).tanh() * self.h(y.flatten(1)).tanh()).sum(-1)


def test_auto_finds_a_gaussian() -> None:
    x, y = gaussian(1000, 2)
    r = estimate(x, y, effort="fast", n_folds=2)
    truth = -math.log(1 - 0.49)
    assert abs(r.mi - truth) < 4 * r.stderr
    assert r.ci[0] < r.mi < r.ci[1]
    assert 0.5 * truth < r.lower_bound < truth
    assert r.bound < truth + 3 * r.bound_stderr
    assert float(r) == r.mi and r.n == 1000 and (r.dim_x, r.dim_y) == (2, 2)
    assert {"null", "gaussian", "student", "regression", "mixture", "residual"} <= set(r.candidates)
    assert sum(c["folds_won"] for c in r.candidates.values()) == r.config["n_folds"]


@pytest.mark.slow
def test_at_high_mi_a_rivals_noisy_value_does_not_count() -> None:
    truth = 10.0
    x, y = gaussian(1000, 5, rho=math.sqrt(-math.expm1(-2 * truth / 5)))
    r = estimate(x, y, effort="fast", n_folds=2)
    assert r.ci[0] < truth < r.ci[1] and r.ci[1] - r.ci[0] < 1.5


def test_networks_add_to_the_formula_where_it_misses_something() -> None:
    rng = np.random.default_rng(0)
    angle, (common, e) = rng.uniform(0, 2 * math.pi, size=400), rng.normal(size=(2, 400))
    x, y = np.stack([np.cos(angle), common], 1), np.stack([np.sin(angle), common + 0.5 * e], 1)
    critics = ["gaussian", "residual"]
    r = estimate(x + 0.05 * rng.normal(size=x.shape), y, critic=critics, effort="fast", n_folds=2)
    assert r.critic == "residual" and r.bound > r.candidates["gaussian"]["bound"] + 0.2
    assert "networks gained" in r.mi_method and r.mi > 0.8 + 0.4  # 0.8 of the column, and much of the ring


@pytest.mark.slow
def test_what_a_strong_formula_misses_is_found_or_told() -> None:
    rho = 0.935  # five pairs of 5.2 nats in all, near the log of a batch; the sixth adds 1.3 without any correlation
    truth = -2.5 * math.log1p(-(rho**2)) + 1.3
    for n in (1500, 2000):
        rng = np.random.default_rng(0)
        x, noise = rng.standard_normal((2, n, 6))
        y = rho * x + math.sqrt(1 - rho**2) * noise
        y[:, 5] = rng.choice([-1, 1], n) * x[:, 5] + 0.15 * noise[:, 5]
        turns = [np.linalg.qr(rng.standard_normal((6, 6)))[0] for _ in range(2)]
        critics = ["null", "gaussian", "student", "residual"]
        r = estimate(x @ turns[0], y @ turns[1], critic=critics, effort="fast")
        told = any("networks gained" in w for w in r.warnings)
        assert told or abs(r.mi - truth) < 4 * r.stderr
        assert told == (r.critic != "residual")


@pytest.mark.slow
def test_independent_data_reads_zero() -> None:
    x, _ = gaussian(1000, 3)
    _, y = gaussian(1000, 3, seed=1)
    r = estimate(x, y, effort="fast", n_folds=2)
    assert abs(r.mi) < 0.03 and r.lower_bound <= 0.01


# One for every way that a bound is trained and read; tests of the training loop have all of them.
OF_EVERY_KIND = {"flo", "flo-ux", "tuba", "dv", "mine", "infonce", "fdv", "js", "club"}


@pytest.mark.parametrize(
    "name",
    [
        n if n in OF_EVERY_KIND else pytest.param(n, marks=pytest.mark.slow)
        for n in bounds.BOUNDS
        if n != "ba"
    ],
)
@pytest.mark.usefixtures("short_offsets")
def test_every_bound_runs_and_is_held_out(name: str) -> None:
    x, y = gaussian(200)
    critic = "density" if "density" in bounds.BOUNDS[name].needs else "joint"
    r = estimate(x, y, bound=name, critic=critic, **QUICK)
    assert r.bound_name == name and r.bound_side == bounds.BOUNDS[name].side
    assert math.isfinite(r.bound) and np.isfinite(r.pmi).all() and r.pmi.shape == (200,)
    assert r.plug_in == pytest.approx(r.pmi.mean())


LONG = {"mlp", "separate", "separable", "bilinear"}  # trained as joint is


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in CRITICS if n != "density"]
)
@pytest.mark.usefixtures("short_offsets")
def test_every_critic_runs(name: str) -> None:
    x, y = gaussian(300)
    if name == "logistic":  # for classes
        y = y.round()
    r = estimate(x, y, critic=name, **(QUICK if CRITICS[name].build else {"effort": "fast", "n_folds": 2}))
    assert r.critic == name and list(r.candidates) == [name]
    assert (len(r.history) > 0) == (CRITICS[name].fit is None)


def test_pmi_of_a_row_does_not_depend_on_the_row_itself() -> None:
    # A model that had seen its rows would react where a row's y is replaced; its fold's models must not.
    x, y = gaussian(200)
    estimator = MIEstimator("gaussian", n_folds=2, seed=4).fit(x, y)
    test = make_splits(200, 2, 4)[0].test
    changed = y.copy()
    changed[test[0]] += 50
    again = MIEstimator("gaussian", n_folds=2, seed=4).fit(x, changed)
    same = test[1:]
    assert np.array_equal(estimator.result_.pmi[same], again.result_.pmi[same])
    other = np.setdiff1d(np.arange(200), test)
    assert not np.array_equal(estimator.result_.pmi[other], again.result_.pmi[other])


def numbers(seed: int) -> str:
    r = estimate(*gaussian(100), critic="joint", **QUICK, seed=seed)
    return f"{r.mi.hex()} {r.bound.hex()} {r.lower_bound.hex()} {float(r.pmi.sum()).hex()}"


@pytest.mark.usefixtures("short_offsets")
def test_same_seed_same_bits() -> None:
    assert numbers(3) == numbers(3) != numbers(4)


@pytest.mark.slow
def test_same_seed_same_bits_in_a_new_process() -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_estimator as t; print(t.numbers(3))"
    threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=threads
    )
    assert run.stdout.strip() == numbers(3)


@pytest.mark.usefixtures("short_offsets")
def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    estimate(*gaussian(200), critic="joint", **QUICK)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()


def test_own_critic_and_bound_run_without_registration() -> None:
    def own(s: bounds.Scores) -> torch.Tensor:
        return s.pos - s.negatives.lme_all()

    x, y = gaussian(400)
    r = estimate(x, y, critic=Product(), bound=own, **FEW)
    assert (r.critic, r.bound_name, r.bound_side) == ("Product", "own", "none")
    images = np.stack([x, x**2], 2)  # rows of any shape
    r = estimate(images, y, critic=Product(2, 1), effort="fast", steps=150, lr=5e-3, n_folds=2)
    assert r.dim_x == 2 and r.bound > 0.05


@pytest.mark.usefixtures("short_offsets")
def test_own_critic_starts_every_fold_afresh_and_stays_untouched() -> None:
    critic = Product()
    before = {k: v.clone() for k, v in critic.state_dict().items()}
    estimate(*gaussian(200), critic=critic, **FEW)
    assert all(torch.equal(before[k], v) for k, v in critic.state_dict().items())


def test_own_critic_of_wrong_shape_is_told_so() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(2, 1)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.f(torch.cat([x, y], 1))

    with pytest.raises(ValueError, match="one score a row"):
        estimate(*gaussian(200), critic=Wrong(), **FEW)


def test_barber_agakov_needs_the_known_marginal() -> None:
    with pytest.raises(ValueError, match="log_marginal"):
        estimate(*gaussian(600), bound="ba")


@pytest.mark.slow
def test_barber_agakov_with_the_known_marginal_reaches_the_truth() -> None:
    x, y = gaussian(600)

    def log_p(v: torch.Tensor) -> torch.Tensor:
        return -v.square().sum(1) / 2 - math.log(2 * math.pi) / 2

    r = estimate(
        x,
        y,
        bound="ba",
        critic=ConditionalGaussian(1, 1, (16,), log_marginal=log_p),
        effort="fast",
        n_folds=2,
        steps=300,
        lr=5e-3,
    )
    assert abs(r.bound - -math.log(1 - 0.49) / 2) < 0.12


@pytest.mark.usefixtures("short_offsets")
def test_interrupt_keeps_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def interrupting(s: bounds.Scores) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        if calls == 80 and torch.is_grad_enabled():
            raise KeyboardInterrupt
        return s.pos - s.negatives.lme_all()

    x, y = gaussian(400)
    r = estimate(x, y, critic="joint", bound=interrupting, effort="fast", n_folds=3)
    assert any("interrupt" in sentence.lower() for sentence in r.warnings)
    assert r.verdict != "ok" and math.isfinite(r.mi)
    assert 0 < np.isfinite(r.pmi).sum() < 400


@pytest.mark.usefixtures("short_offsets")
def test_units_and_json() -> None:
    x, y = gaussian(300)
    r = estimate(x, y, critic="joint", **QUICK)
    b = r.to("bits")
    assert b.mi == pytest.approx(r.mi / math.log(2)) and b.units == "bits"
    assert b.to("nats").mi == pytest.approx(r.mi) and r.to("nats") is r
    assert b.candidates["joint"]["bound"] == pytest.approx(r.candidates["joint"]["bound"] / math.log(2))
    record = json.loads(json.dumps(r.to_dict(pmi=True), allow_nan=False))
    assert record["mi"] == r.mi and len(record["pmi"]) == 300 and "pmi" not in r.to_dict()
    assert estimate(x, y, critic="gaussian", units="bits").units == "bits"


def test_result_shows_itself() -> None:
    r = dataclasses.replace(
        estimate(*gaussian(300), critic="gaussian"), warnings=("x < y & so on", "b"), verdict="caution"
    )
    assert f"{r:.2f}" == f"{r.mi:.2f}" and f"{r}" == str(r)
    assert str(r).endswith("verdict: caution (2 warnings)")
    assert str(dataclasses.replace(r, warnings=("a",))).endswith("caution (1 warning)")
    assert str(dataclasses.replace(r, warnings=(), verdict="ok")).endswith("verdict: ok")
    page = r._repr_html_()
    ElementTree.fromstring(page)
    assert "x &lt; y &amp; so on" in page and "(2 warnings)" in page


def test_new_rows() -> None:
    estimator = MIEstimator("gaussian", n_folds=2).fit(*gaussian(2000, 2))
    x, y = gaussian(3000, 2, seed=9)
    assert abs(estimator.score(x, y) - -math.log(1 - 0.49)) < 0.08
    assert abs(estimator.pmi(x, y).mean() - -math.log(1 - 0.49)) < 0.08
    with pytest.raises(ValueError, match=r"x has rows of shape \(3,\); .* fitted on rows of shape \(2,\)"):
        estimator.pmi(gaussian(60, 3)[0], y[:60])
    assert estimator.pmi(x[:1], y[:1]).shape == (1,)
    with pytest.raises(ValueError, match="needs 2 at least"):
        estimator.score(x[:1], y[:1])
    assert math.isfinite(estimator.score(x[:2], y[:2]))
    with pytest.raises(ValueError, match="not fitted"):
        MIEstimator().score(x, y)


def test_scikit_learn_conventions() -> None:
    from sklearn.base import clone

    original = MIEstimator("joint", "nwj", seed=3, hidden=(8,))
    copy = clone(original)
    assert copy is not original and copy.get_params() == original.get_params()
    assert copy.set_params(seed=4).seed == 4
    with pytest.raises(ValueError, match=r"'sede' is no option; did you mean seed\?"):
        copy.set_params(sede=4)
    assert repr(copy) == "MIEstimator(critic='joint', bound='nwj', seed=4, hidden=(8,))"
    assert repr(MIEstimator()) == "MIEstimator()"


def test_scikit_learn_searches_and_validation() -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.utils.validation import check_is_fitted

    x, y = gaussian(300, 2)
    estimator = MIEstimator("gaussian", n_folds=2)
    for check in (lambda: check_is_fitted(estimator), lambda: estimator.pmi(x, y)):
        with pytest.raises(NotFittedError):
            check()
    assert cross_val_score(estimator, x, y, cv=3).mean() > 0.4
    search = GridSearchCV(estimator, {"critic": ["null", "gaussian"]}, cv=2).fit(x, y)
    assert search.best_params_ == {"critic": "gaussian"} and "n_folds=2" in repr(search)
    check_is_fitted(search.best_estimator_)


def test_misspelt_options_are_told_apart() -> None:
    x, y = gaussian(60)
    for options, hint in (
        ({"efort": "fast"}, "did you mean effort?"),
        ({"group": x}, "did you mean groups?"),
        ({"zzz": 1}, "there are groups, critic"),
    ):
        with pytest.raises(TypeError, match=f"is no option; {hint}".replace("?", r"\?")):
            estimate(x, y, **options)


def test_new_rows_look_like_those_of_fit() -> None:
    x, y = gaussian(200, 6)
    estimator = MIEstimator("gaussian", n_folds=2).fit(x.reshape(200, 2, 3), y)
    assert estimator.pmi(x.reshape(200, 2, 3), y).shape == (200,)
    with pytest.raises(
        ValueError, match=r"shape \(6,\); this estimator was fitted on rows of shape \(2, 3\)"
    ):
        estimator.pmi(x, y)
    frame = pd.DataFrame(x, columns=list("abcdef"))
    estimator.fit(frame, y)
    assert np.array_equal(estimator.pmi(frame, y), estimator.pmi(x, y))
    with pytest.raises(ValueError, match=r"x has the columns of fit in another order.*'a', 'b'"):
        estimator.pmi(frame[list("fedcba")], y)


def test_lazy_frames_are_collected() -> None:
    pl = pytest.importorskip("polars")
    x, y = gaussian(100, 2)
    lazy = pl.DataFrame(x, schema=["a", "b"]).lazy()
    estimator = MIEstimator("gaussian", n_folds=2).fit(lazy, y)
    assert np.array_equal(estimator.pmi(lazy, y), estimator.pmi(x, y))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"critic": "jiont"}, "critic='jiont'"),
        ({"critic": 3}, "critic must be"),
        ({"critic": Product}, "pass an instance"),
        ({"bound": "folo"}, "bound='folo'"),
        ({"bound": 3}, "bound must be"),
        ({"effort": "slow"}, "effort='slow'"),
        ({"preprocess": "scale"}, "preprocess='scale'"),
        ({"negatives": "permutation"}, "negatives='permutation'"),
        ({"units": "bit"}, "units='bit'"),
        ({"n_folds": 1}, "n_folds must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 1.5}, "seed must be"),
        ({"steps": 0}, "steps must be"),
        ({"lr": -1.0}, "lr must be"),
        ({"lr": math.nan}, "lr must be"),
        ({"lr": "fast"}, "lr must be a number"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"batch_size": 1}, "batch_size must be"),
        ({"n_negatives": 0}, "n_negatives must be"),
        ({"patience": True}, "patience must be a whole number; found True"),
        ({"precision": "low"}, "precision='low' is not known; choose one of highest, high, medium"),
        ({"seed": True}, "seed must be"),
        ({"seed": None}, "seed must be"),
        ({"seed": 2**63}, "below 2"),
        ({"eval_pairs": 1e6}, "eval_pairs must be"),
        ({"n_jobs": 0}, "n_jobs must be"),
        ({"n_jobs": 2.0}, "n_jobs must be"),
        ({"effort": ["fast"]}, "effort must be one of"),
        ({"bound": "club", "critic": "joint"}, "conditional density"),
        ({"bound": "flo", "critic": "density"}, "goes with"),
        ({"n_folds": 200}, "too few for 200 folds"),
        ({"device": "gpu"}, "device='gpu'"),
        ({"hidden": (0,)}, "hidden"),
        ({"hidden": ()}, "at least one width"),
        ({"hidden": 64}, r"write hidden=\(64,\)"),
        ({"hidden": "64"}, "such as"),
        ({"hidden": (64.0,)}, "such as"),
    ],
)
def test_bad_options_say_what_to_do(options: dict, match: str) -> None:
    with pytest.raises((ValueError, TypeError), match=match):
        estimate(*gaussian(100), **options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("hidden", (8,)),
        ("steps", 100),
        ("batch_size", 64),
        ("lr", 1e-3),
        ("weight_decay", 0),
        ("negatives", "all"),
        ("n_negatives", 4),
        ("patience", 3),
        ("precision", "medium"),
        ("preprocess", "none"),
    ],
)
def test_options_that_would_change_nothing_are_refused(option: str, value: object) -> None:
    x, y = gaussian(100)
    for critic in ("auto", *(name for name, kind in CRITICS.items() if kind.build is None)):
        with pytest.raises(ValueError, match=f"^{option}=.* trains none: .* leave {option} out"):
            estimate(x, y, critic=critic, **{option: value})
    options = checked(MIEstimator("joint", **{option: value})).config
    assert options[option] in (value, [8])


def test_own_critic_and_full_batches_refuse_what_they_ignore() -> None:
    x, y = gaussian(100)
    for options in ({"hidden": (8,)}, {"preprocess": "standardize"}):
        with pytest.raises(ValueError, match="critic of your own"):
            estimate(x, y, critic=Product(), **options)
    checked(MIEstimator(Product(), preprocess="none"))
    checked(MIEstimator(bound="club", hidden=(8,)))  # auto is the density critic there
    for critic, options in (("separable", {}), ("joint", {"negatives": "chunked"})):
        with pytest.raises(ValueError, match="n_negatives=4 does nothing"):
            estimate(x, y, critic=critic, n_negatives=4, **options)


@pytest.mark.usefixtures("short_offsets")
def test_numbers_of_numpy_are_numbers() -> None:
    whole = {
        name: np.int64(3) for name in ("seed", "n_folds", "steps", "batch_size", "n_negatives", "patience")
    }
    options = {
        "lr": np.float32(0.01),
        "hidden": np.array([4, 4]),
        "eval_pairs": np.int32(9000),
        "n_jobs": np.int8(1),
    }
    r = estimate(*gaussian(100), critic="joint", **whole, **options)
    again = {name: np.asarray(value).tolist() for name, value in (whole | options).items()}
    assert estimate(*gaussian(100), critic="joint", **again).mi == r.mi
    assert json.loads(json.dumps(r.config))["hidden"] == [4, 4]


def test_parallel_folds_agree_with_one_process() -> None:
    x, y = gaussian(300)
    one, two, every = (estimate(x, y, critic="gaussian", n_folds=3, n_jobs=n) for n in (1, 2, -1))
    assert one.mi == two.mi == every.mi and one.bound == pytest.approx(two.bound, abs=1e-9)


@pytest.mark.slow
def test_shifts_of_a_large_fold_agree_with_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flomi.scores.SPARSE", 1)  # pair by pair, as where rows are too many for a matrix
    x, y = gaussian(3000)
    every, some = (estimate(x, y, critic="gaussian", n_folds=2, eval_pairs=p) for p in (10**8, 10**5))
    assert some.config["negatives_a_row"][0] < every.config["negatives_a_row"][0] == 1499
    assert abs(every.bound - some.bound) < some.bound_stderr


def test_rows_with_missing_values_are_left_out_only_when_asked() -> None:
    x, y = gaussian(200)
    x[3] = np.nan
    with pytest.raises(ValueError, match="missing"):
        estimate(x, y, critic="gaussian")
    r = estimate(x, y, critic="gaussian", missing="drop")
    assert r.n == 199 and r.pmi.shape == (200,) and r.projection.shape == (200, 2)
    assert np.flatnonzero(np.isnan(r.pmi)).tolist() == [3]
    assert any("1 of 200" in sentence for sentence in r.warnings)


@pytest.mark.slow
def test_the_order_of_the_rows_does_not_matter() -> None:
    rng = np.random.default_rng(20)
    season = np.tile(np.arange(4), 300)
    x, y = 4 * season + rng.normal(size=(2, 1200))
    mixed = rng.permutation(1200)
    in_turn, shuffled = (estimate(x[i], y[i], effort="fast", n_folds=2) for i in (np.arange(1200), mixed))
    assert abs(in_turn.mi - shuffled.mi) < 2 * (in_turn.stderr + shuffled.stderr) < 0.4


def test_a_side_that_is_constant_in_training_gives_a_number() -> None:
    rng = np.random.default_rng(21)
    y = np.zeros(150)
    y[3] = 1
    r = estimate(rng.normal(size=(150, 2)), y, effort="fast", n_folds=3)
    assert abs(r.mi) < 0.05 and 0 < r.stderr < 0.2


def test_nothing_found_is_not_certainty() -> None:
    rng = np.random.default_rng(22)
    x = rng.normal(size=(1000, 3))
    r = estimate(x, rng.normal(size=(1000, 3)), critic="matched", effort="fast")
    assert r.mi == 0 and 0.001 < r.stderr < 0.05


@pytest.mark.parametrize("n_groups", [6, 8, 15])
def test_as_few_groups_as_the_message_allows_do_work(n_groups: int) -> None:
    rng = np.random.default_rng(23)
    x = rng.normal(size=(240, 2))
    groups = np.arange(240) % n_groups
    folds = max(k for k in range(2, n_groups // 2 + 1) if enough_units(n_groups, k))
    r = estimate(x, x + rng.normal(size=x.shape), groups=groups, n_folds=folds, critic="gaussian")
    assert np.isfinite(r.pmi).all() and r.stderr > 0
    with pytest.raises(ValueError, match=f"{n_groups} groups are too few"):
        estimate(x, x + 1e-3 * x[::-1], groups=groups, n_folds=n_groups, critic="gaussian")


def test_one_giant_group_is_named() -> None:
    rng = np.random.default_rng(24)
    x = rng.normal(size=(200, 2))
    groups = np.concatenate([np.zeros(188, int), np.arange(1, 13)])
    with pytest.raises(ValueError, match="one group holds 188"):
        estimate(x, rng.normal(size=(200, 2)), groups=groups, n_folds=3, effort="fast")


@pytest.mark.parametrize("critic", ["local", "matched"])
def test_too_few_rows_for_a_critic_are_told_in_the_users_numbers(critic: str) -> None:
    rng = np.random.default_rng(25)
    with pytest.raises(
        ValueError, match="150 rows in 5 folds leave 96 to train on, and this critic needs 100"
    ):
        estimate(rng.normal(size=150), rng.normal(size=150), critic=critic)
