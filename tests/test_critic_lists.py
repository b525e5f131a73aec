"""`critic=` as a list: names and modules that compete, in any order, with networks on any of them."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor, nn

import flomi
from flomi.critics import CRITICS, Critic, CriticKind
from flomi.critics.copula import EllipticalCritic
from flomi.crossfit.options import label_critics

X = np.random.default_rng(0).normal(size=(200, 2))
Y = X + np.random.default_rng(1).normal(size=(200, 2))
FAST: dict = {"effort": "fast", "n_folds": 2}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (self.a(x) * y).sum(-1)  # type: ignore[no-any-return]


def namesake(name: str) -> nn.Module:
    return type(name, (Net,), {})()


def test_labels_are_unique_and_in_the_order_of_the_table() -> None:
    found = label_critics([Net(), "student", namesake("Net"), namesake("gaussian"), "gaussian"])
    assert found is not None
    assert list(found) == ["gaussian", "student", "Net", "Net-2", "gaussian-2"]
    assert label_critics("auto") is None
    for wrong, error in (
        ([], ValueError),
        (["gausian"], ValueError),
        ([3], TypeError),
        (["auto"], ValueError),
    ):
        with pytest.raises(error):
            label_critics(wrong)


@pytest.mark.parametrize(
    "critics",
    [
        pytest.param(["residual", "network"], marks=pytest.mark.slow),
        pytest.param(["network", "gaussian"], marks=pytest.mark.slow),
        ["null", "residual", "network"],
    ],
)
def test_several_ensembles_compete(critics: list[str]) -> None:
    r = flomi.estimate(X, Y, critic=critics, **FAST)
    assert r.candidates.keys() == set(critics)
    assert abs(r.mi - 2 * 0.3466) < 0.3


def test_a_module_named_like_a_row_is_no_row() -> None:
    r = flomi.estimate(X, Y, critic=namesake("gaussian"), steps=5, **FAST)
    assert r.critic == "gaussian-2" and "copula" not in r.mi_method
    assert r.config["modules"] == ["gaussian-2"] and r.config["own"] == ["critic"]


class Sized(EllipticalCritic):
    """A base that needs a number beside its tensors."""

    @classmethod
    def fit(cls, x: Tensor, y: Tensor, **_: bool) -> Sized:
        critic = super().fit(x, y)
        critic.sizes = {"bins": 7}
        return critic  # type: ignore[return-value]

    @classmethod
    def restore(cls, state: dict[str, Tensor], sizes: dict) -> Critic:
        assert sizes["bins"] == 7
        return super().restore(state, sizes)


def test_a_row_added_at_run_time_serves_as_a_base_and_in_other_processes(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(
        CRITICS, "sized", CriticKind("sized", "", fit=Sized.fit, restore=Sized.restore, base=True)
    )
    est = flomi.MIEstimator(critic=["sized", "residual"], **FAST).fit(X, Y)
    again = flomi.MIEstimator.load(est.save(tmp_path / "saved"))
    np.testing.assert_array_equal(again.pmi(X[:9], Y[:9]), est.pmi(X[:9], Y[:9]))
    two = flomi.MIEstimator(critic=["sized"], n_jobs=2, **FAST).fit(X, Y)
    assert two.result_.critic == "sized"
