"""Saving and loading: the same numbers afterwards, no code run by a hostile file, errors that say what to do."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from flomi import MIEstimator
from flomi.critics import CRITICS
from flomi.crossfit.storage import JSON, TENSORS

SAVED = sorted(
    (Path(__file__).parent / "saved").glob("*.zip")
)  # by flomi 0.1 before critics had one base class
X = np.random.default_rng(0).normal(size=(300, 2))
Y = X + np.random.default_rng(1).normal(size=(300, 2))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (self.f(x) * y).sum(1)


def fitted(critic: str | nn.Module = "gaussian", bound: str = "flo", **options: object) -> MIEstimator:
    if critic == "local":  # one column against one
        return MIEstimator(critic, effort="fast", n_folds=2).fit(X[:, 0], Y[:, 0])
    if critic == "logistic":  # classes on one side
        return MIEstimator(critic, effort="fast", n_folds=2).fit(X, Y > 0)
    if isinstance(critic, nn.Module) or CRITICS[critic].build is not None:
        options["steps"] = 20
    return MIEstimator(critic, bound, effort="fast", n_folds=2, **options).fit(X, Y)  # type: ignore[arg-type]


LIKE_JOINT = {"mlp", "separate", "separable", "bilinear"}  # saved as joint, a network trained by a bound, is


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LIKE_JOINT)) for n in CRITICS]
)
@pytest.mark.usefixtures("short_offsets")
def test_round_trip(name: str, tmp_path: Path) -> None:
    estimator = fitted(name, "doe" if name == "density" else "flo")
    again = MIEstimator.load(estimator.save(tmp_path / "saved"))
    x, y = {"local": (X[:, 0], Y[:, 0]), "logistic": (X, Y > 0)}.get(name, (X, Y))
    assert np.array_equal(estimator.pmi(x, y), again.pmi(x, y))
    assert estimator.score(x, y) == again.score(x, y)
    assert np.array_equal(estimator.result_.pmi, again.result_.pmi)
    assert estimator.result_.to_dict() == again.result_.to_dict()
    assert again.get_params() == estimator.get_params() and again.columns_ == estimator.columns_


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_folders_of_earlier_versions_give_the_same_numbers(path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(path) as saved:
        saved.extractall(tmp_path)
    expected = json.loads((tmp_path / "expected.json").read_text())
    found = MIEstimator.load(tmp_path).pmi(np.array(expected["x"]), np.array(expected["y"]))
    np.testing.assert_allclose(found, expected["pmi"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("hidden", [[8], pytest.param((8, 4), marks=pytest.mark.slow)])
@pytest.mark.usefixtures("short_offsets")
def test_options_come_back_as_they_were_given(hidden: object, tmp_path: Path) -> None:
    estimator = MIEstimator(
        "joint", effort="fast", n_folds=2, steps=np.int64(5), hidden=hidden, seed=np.int64(2)
    ).fit(X, Y)  # type: ignore[arg-type]
    again = MIEstimator.load(estimator.save(tmp_path / "saved"))
    assert again.get_params() == estimator.get_params() and type(again.hidden) is type(hidden)
    assert np.array_equal(estimator.pmi(X, Y), again.pmi(X, Y))


@pytest.mark.parametrize("preprocess", ["standardize", pytest.param("none", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("short_offsets")
def test_preprocessing_is_kept(preprocess: str, tmp_path: Path) -> None:
    estimator = fitted("joint", preprocess=preprocess)
    assert np.array_equal(estimator.pmi(X, Y), MIEstimator.load(estimator.save(tmp_path / "s")).pmi(X, Y))


@pytest.mark.usefixtures("short_offsets")
def test_own_critic_is_given_again(tmp_path: Path) -> None:
    estimator = fitted(Own())
    path = estimator.save(tmp_path / "saved")
    with pytest.raises(ValueError, match="pass it as critic="):
        MIEstimator.load(path)
    assert np.array_equal(estimator.pmi(X, Y), MIEstimator.load(path, critic=Own()).pmi(X, Y))


def test_saving_twice_replaces_and_other_folders_are_safe(tmp_path: Path) -> None:
    estimator = fitted()
    assert estimator.save(tmp_path / "saved") == estimator.save(tmp_path / "saved")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("ten years")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / JSON).write_text("of another program")
    (tmp_path / "file.csv").write_text("1,2")
    (tmp_path / "empty").mkdir()
    for name in ("mine", "half", "file.csv"):
        with pytest.raises(FileExistsError, match=f"{name} exists and is no saved estimator"):
            estimator.save(tmp_path / name)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "ten years"
    assert (tmp_path / "half" / JSON).read_text() == "of another program"
    assert (tmp_path / "file.csv").read_text() == "1,2"
    estimator.save(tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file.csv", "half", "mine", "saved"]


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = fitted().save(tmp_path / "saved")

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (lambda where: Path(where).touch()), (str(tmp_path / "ran"),)

    torch.save({"a": torch.ones(2)}, path / TENSORS)  # a pickle in the place of the tensors
    with pytest.raises(ValueError, match="can't be read"):
        MIEstimator.load(path)
    assert not (tmp_path / "ran").exists()


def _edit(path: Path, **changes: object) -> None:
    record = json.loads((path / JSON).read_text())
    record.update(changes)
    (path / JSON).write_text(json.dumps(record))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 99},
        {"folds": [{"critic": "__import__('os')", "shape_x": [2], "shape_y": [2]}]},
        {"folds": 3},
        {"folds": []},
        {"options": {"evil": 1}},
        {"result": {}},
        {"log_normaliser": "x"},
        {"log_normaliser": math.nan},
    ],
)
def test_a_changed_file_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    path = fitted().save(tmp_path / "saved")
    _edit(path, **changes)
    with pytest.raises(ValueError, match="saved estimator"):
        MIEstimator.load(path)


@pytest.mark.usefixtures("short_offsets")
def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = fitted("joint").save(tmp_path / "saved")
    tensors = load_file(path / TENSORS)
    name = next(n for n in tensors if n.endswith("trunk.0.weight") or "first_x.weight" in n)
    tensors[name] = torch.zeros(3, 3)
    save_file(tensors, path / TENSORS)
    with pytest.raises(ValueError, match="saved estimator"):
        MIEstimator.load(path)


def test_a_missing_tensor_of_a_closed_form_is_refused(tmp_path: Path) -> None:
    path = fitted().save(tmp_path / "saved")
    tensors = load_file(path / TENSORS)
    del tensors["0.model.critic.weight_x"]
    save_file(tensors, path / TENSORS)
    with pytest.raises(ValueError, match="saved estimator"):
        MIEstimator.load(path)


def test_missing_folder_and_unfitted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no saved estimator"):
        MIEstimator.load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="not fitted"):
        MIEstimator().save(tmp_path / "saved")
