"""Folds: every row is tested once by models that saw neither it nor its group, whoever cut them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold

from flomi.crossfit.splits import enough_units, make_splits

GROUPS = np.repeat(np.arange(12), [1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize("groups", [None, GROUPS])
@pytest.mark.parametrize("folds", [None, KFold(3), np.arange(42) % 3, "pairs"])
def test_every_row_is_tested_once_and_apart_from_its_training(folds, groups):
    n = 42
    if groups is not None and folds is not None:
        folds = GroupKFold(3) if isinstance(folds, KFold) else groups % 3
    elif isinstance(folds, str):
        folds = [(np.flatnonzero(np.arange(n) // 14 != k), np.arange(n) // 14 == k) for k in range(3)]
    splits = make_splits(n, 3, 0, groups, folds)
    assert sorted(np.concatenate([s.test for s in splits])) == list(range(n))
    units = np.arange(n) if groups is None else groups
    for split in splits:
        parts = [set(units[rows]) for rows in (split.training, split.validation, split.test)]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
        assert min(map(len, parts)) >= 2
        assert len(split.training) + len(split.validation) + len(split.test) == n


def test_two_calls_share_their_folds():
    first, again, other = (make_splits(50, 5, seed) for seed in (3, 3, 4))
    assert all(
        (a.test == b.test).all() and (a.training == b.training).all()
        for a, b in zip(first, again, strict=True)
    )
    assert any((a.test != b.test).any() for a, b in zip(first, other, strict=True))
    labels = np.empty(50, int)
    for k, split in enumerate(first):
        labels[split.test] = k
    for given, split in zip(make_splits(50, 9, 0, folds=labels), first, strict=True):
        assert set(given.test) == set(split.test)


def test_a_splitter_may_leave_rows_out_of_training():
    # as blocks of time with a gap between training and test do
    pairs = [(np.arange(30, 60), np.arange(20)), (np.arange(10), np.arange(20, 60))]
    splits = make_splits(60, 5, 0, folds=pairs)
    assert set(splits[0].training) | set(splits[0].validation) == set(range(30, 60))


@pytest.mark.parametrize(
    ("folds", "groups", "message"),
    [
        (np.zeros(9), None, "9 labels for 10 rows"),
        (np.zeros(10), None, "two at least"),
        ([(np.arange(5), np.arange(5, 10))] * 2, None, "row 0 is tested 0 times"),
        (
            [(np.arange(5, 10), np.arange(5)), (np.arange(7), np.arange(5, 10))],
            None,
            "trains and tests on the same rows",
        ),
        ([(np.arange(5), [11.5]), (np.arange(5), [2])], None, "must be labels"),
        (3, None, "must be labels"),
        (np.arange(10) % 2, np.arange(10) // 2, "rows of one group into several folds"),
        ([(np.arange(5, 8), np.arange(5)), (np.arange(5), np.arange(5, 10))], None, "a part with 1 rows"),
    ],
)
def test_folds_that_do_not_fit_are_refused(folds, groups, message):
    with pytest.raises(ValueError, match=message):
        make_splits(10, 2, 0, groups, folds)


def test_enough_units_is_what_the_split_needs():
    for count in range(2, 40):
        for n_folds in range(2, 12):
            if enough_units(count, n_folds):
                splits = make_splits(count, n_folds, 0)
                assert min(len(part) for s in splits for part in (s.training, s.validation, s.test)) >= 2
            else:
                with pytest.raises(ValueError, match="too few"):
                    make_splits(count, n_folds, 0)


def test_rows_that_were_taken_out_of_training_stay_out_with_groups_too():
    groups = np.arange(80) // 4
    pairs = [(np.arange(40, 80, 2), np.arange(40)), (np.arange(0, 40, 2), np.arange(40, 80))]
    for split, (training, _) in zip(make_splits(80, 2, 0, groups, pairs), pairs, strict=True):
        assert set(split.training) | set(split.validation) == set(training)


def test_labels_of_the_input_serve_where_rows_were_left_out():
    places = np.delete(np.arange(30), [3, 17])
    labels = np.where(np.isin(np.arange(30), places), np.arange(30) % 2, -1)
    splits = make_splits(28, 5, 0, folds=labels, places=places)
    assert set(places[splits[1].test]) == {k for k in places if k % 2}
    with pytest.raises(ValueError, match="tested in no fold"):
        make_splits(30, 5, 0, folds=labels, places=np.arange(30))
