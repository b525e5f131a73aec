"""Preprocessing: fitted on training rows, strictly increasing or injective everywhere, calm at outliers, ties and constants."""

from __future__ import annotations

import pytest
import torch

from flomi.preprocess import IndependentColumns, RankNormal, Standardize, Whiten

KINDS = [Standardize, RankNormal, Whiten]


def heavy(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64) / torch.randn(n, 1, dtype=torch.float64).abs()


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_dict_restores_the_map_bit_for_bit(kind: type) -> None:
    x, new = heavy(200, 3), heavy(50, 3)
    module = kind.fit(x)
    assert torch.equal(kind(**module.state_dict())(new), module(new))
    assert not list(module.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_shape_and_finite_values_on_hard_columns(kind: type, dtype: torch.dtype) -> None:
    n = 300
    columns = [
        torch.zeros(n),
        torch.randn(n).sign(),
        torch.randn(n).exp() ** 8,
        (torch.rand(n) > 0.99).float(),
    ]
    x = torch.stack(columns, 1).to(dtype)
    module = kind.fit(x)
    z = module(10 * x[:7] - 3)
    assert z.shape == (7, 4) and z.dtype == dtype and torch.isfinite(z).all()
    assert torch.isfinite(module(x)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_anything_but_rows_of_numbers_is_refused(kind: type) -> None:
    for bad in (torch.zeros(5), torch.zeros(1, 2), torch.zeros(5, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match="floating-point"):
            kind.fit(bad)


def test_standardize_gives_the_bulk_unit_scale_whatever_the_outliers() -> None:
    x = torch.randn(20_000, 1, dtype=torch.float64)
    x[:50] *= 1e9
    z = Standardize.fit(x)(x)
    assert abs(z[50:].std() - 1) < 0.03 and abs(z.quantile(0.5)) < 1e-12


@pytest.mark.parametrize("n", [50, 5000])  # with all training values as knots, and with a part of them
def test_rank_normal_is_strictly_increasing_within_and_beyond_the_training_range(n: int) -> None:
    x = heavy(n, 2)
    map_ = RankNormal.fit(x)
    span = x.max(0).values - x.min(0).values
    grid = torch.linspace(-1, 2, 4001, dtype=torch.float64)[:, None] * span + x.min(0).values
    z = map_(torch.cat([grid, x]).sort(0).values)
    assert (z.diff(dim=0) > 0).all()
    assert z.abs().max() < map_(x).abs().max() + 0.5


def test_rank_normal_scores_are_those_of_the_mid_ranks() -> None:
    x = torch.tensor([[3.0], [1.0], [1.0], [7.0], [1.0]], dtype=torch.float64)
    z = RankNormal.fit(x)(x)
    expected = torch.special.ndtri(torch.tensor([3.5, 1.5, 1.5, 4.5, 1.5], dtype=torch.float64) / 5)
    torch.testing.assert_close(z[:, 0], expected)
    assert RankNormal.fit(x).distinct.tolist() == [3]


def test_rank_normal_with_part_of_the_knots_stays_close_to_all_of_them() -> None:
    x = torch.randn(20_000, 1, dtype=torch.float64).exp()
    part, full = RankNormal.fit(x, max_knots=1000), RankNormal.fit(x, max_knots=20_000)
    assert part.knots.shape[1] <= 1000
    assert (part(x) - full(x)).abs().max() < 0.02
    assert abs(part(x).std() - 1) < 1e-2


def test_rank_normal_continues_the_slope_at_the_edge() -> None:
    x = 7 * torch.special.ndtri((torch.arange(1000, dtype=torch.float64)[:, None] + 0.5) / 1000)
    map_, step = RankNormal.fit(x), 1e-6
    for edge, side in ((x[-1:], 1), (x[:1], -1)):
        assert abs(7 * side * float(map_(edge + side * step) - map_(edge)) / step - 1) < 0.3


def test_rank_normal_of_a_discrete_column_keeps_one_score_per_value() -> None:
    x = torch.randint(0, 4, (500, 1)).double()
    z = RankNormal.fit(x)(x)
    assert len(z.unique()) == 4
    assert (torch.stack([z[x == k].mean() for k in range(4)]).diff() > 0).all()


def test_whiten_gives_uncorrelated_columns_of_unit_variance() -> None:
    x = torch.randn(20_000, 5, dtype=torch.float64) @ torch.randn(5, 5, dtype=torch.float64)
    z = Whiten.fit(x, shrink=0.0)(x)
    torch.testing.assert_close(z.T.cov(), torch.eye(5, dtype=torch.float64), atol=1e-3, rtol=0)


def test_whiten_shrinks_more_where_rows_are_few_and_survives_a_missing_rank() -> None:
    x = torch.randn(20, 60, dtype=torch.float64)
    fresh = torch.randn(2000, 60, dtype=torch.float64)
    z = Whiten.fit(x)(fresh)
    assert 0.3 < z.square().mean() < 3  # without shrinkage it would be of the order of 1e9
    copy = torch.cat([fresh, fresh[:, :1]], 1)
    assert torch.isfinite(Whiten.fit(copy, shrink=0.0)(copy)).all()


def test_reduced_whitening_leaves_out_copies_and_keeps_one_direction_of_nothing() -> None:
    x = torch.randn(2000, 2, dtype=torch.float64)
    z = Whiten.reduce(torch.cat([x, x[:, :1], torch.ones_like(x)], 1))
    assert z.weight.shape == (5, 2)
    rows = z(torch.cat([x, x[:, :1], torch.ones_like(x)], 1))
    torch.testing.assert_close(rows.T.cov(correction=0), torch.eye(2, dtype=torch.float64), atol=1e-9, rtol=0)
    constant = torch.ones(50, 3, dtype=torch.float64)
    assert Whiten.reduce(constant)(constant).shape == (50, 1) and not Whiten.reduce(constant)(constant).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_independent_columns_are_as_many_as_the_rank_and_determine_the_others(dtype: torch.dtype) -> None:
    sources = heavy(400, 3)
    mixed = torch.cat([sources, sources @ torch.randn(3, 9).double() + 5, sources.new_ones(400, 1)], 1).to(
        dtype
    )
    module = IndependentColumns.fit(mixed)
    z = module(mixed)
    assert z.shape == (400, 3) and torch.equal(z, IndependentColumns(**module.state_dict())(mixed))
    design = torch.cat([z, z.new_ones(400, 1)], 1).double()
    size = mixed.double().abs().amax(1, keepdim=True)  # far out, single precision is coarse
    rest = (
        mixed.double() - design @ torch.linalg.lstsq(design / size, mixed.double() / size).solution
    ) / size
    assert float(rest.abs().max()) < 1e-4


def test_a_category_keeps_all_but_one_of_its_columns() -> None:
    category = torch.randint(0, 7, (300,))
    other = torch.randn(300, 2).double()
    x = torch.cat([torch.nn.functional.one_hot(category, 7).double(), other, other.sum(1, keepdim=True)], 1)
    assert len(IndependentColumns.fit(x).columns) == 6 + 2


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(30, 50).double(),  # in fewer rows than columns any are dependent
        torch.randn(300, 4).exp().double() ** 8,
        torch.randn(300, 2).double() @ torch.tensor([[1.0, 1.0], [0.0, 1e-3]]).double(),
        heavy(300, 1) + torch.randn(300, 2).double(),
    ],
    ids=["few rows", "outliers", "nearly equal", "one outlier in both"],
)
def test_columns_that_are_not_dependent_all_stay(x: torch.Tensor) -> None:
    assert len(IndependentColumns.fit(x).columns) == x.shape[1]
