"""Self-supervised images: views of each image by its own draw, the probe, training, and FlatNCE's gradient in low precision."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch

from flomi import losses
from flomi.applications import self_supervised as app
from flomi.reproduce import self_supervised as experiment


def test_views_are_drawn_for_each_image() -> None:
    """Equal images of one batch come out unequal: one draw a batch would make them alike."""
    image = torch.rand(1, 1, 16, 16)
    seen = app.views(image.expand(6, -1, -1, -1), torch.Generator().manual_seed(0), rotated=1, cropped=1)
    assert all(not torch.allclose(seen[0], other, atol=1e-2) for other in seen[1:])
    assert seen.shape == (6, 1, 16, 16) and bool(((seen >= 0) & (seen <= 1)).all())


def test_a_view_without_change_is_the_image() -> None:
    image = torch.rand(4, 3, 10, 14)
    assert torch.allclose(app.views(image, rotated=0, cropped=0), image, atol=1e-5)
    full = app.views(image, rotated=0, cropped=1, area=1.0)
    assert torch.allclose(full, image, atol=1e-5)


def test_a_turned_view_is_the_image_turned() -> None:
    """Turning by a quarter, whichever way, is exact on a square, and keeps what is a circle."""
    image = torch.rand(40, 1, 9, 9)
    torch.manual_seed(0)
    drawn = app.views(image, torch.Generator().manual_seed(3), degrees=1e-9, rotated=1, cropped=0)
    assert torch.allclose(drawn, image, atol=1e-4)
    across, down = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 65), indexing="ij")
    disc = (((across * 33) ** 2 + (down * 65) ** 2).sqrt() < 12).float().expand(10, 1, 33, 65)
    turned = app.views(disc, torch.Generator().manual_seed(0), degrees=90, rotated=1, cropped=0)
    assert float((turned - disc).abs().mean()) < 0.01  # in pixels, not in shares of each side


def test_a_flip_is_a_mirror_image() -> None:
    image = torch.rand(30, 1, 6, 6)
    seen = app.views(image, torch.Generator().manual_seed(0), rotated=0, cropped=0, flip=True)
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(seen, image, strict=True)]
    mirrored = [torch.allclose(a, b.flip(-1), atol=1e-5) for a, b in zip(seen, image, strict=True)]
    assert 5 < sum(same) < 25 and all(a != b for a, b in zip(same, mirrored, strict=True))


def test_bytes_and_brightness() -> None:
    image = torch.full((50, 1, 4, 4), 51, dtype=torch.uint8)
    seen = app.views(image, torch.Generator().manual_seed(0), rotated=0, cropped=0, light=0.5)[:, 0, 0, 0]
    assert 0.1 - 1e-6 <= float(seen.min()) < 0.15 and 0.25 < float(seen.max()) <= 0.3 + 1e-6
    with pytest.raises(ValueError, match="area=0 is not possible"):
        app.views(image, area=0)


def test_an_image_does_not_learn_of_the_others_of_its_batch() -> None:
    model = app.Encoder(width=8)
    x = torch.rand(6, 1, 16, 16)
    assert torch.allclose(model(x)[:1], model(x[:1]), atol=1e-5)


@pytest.mark.parametrize("name", experiment.USED)
def test_training_makes_views_alike(name: str) -> None:
    torch.manual_seed(0)
    training, _ = experiment.pixels_of("generated", 0)
    model, loss = app.Encoder(width=8), losses.LOSSES[name](64)
    judge = losses.InfoNCELoss()

    def value() -> float:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            pair = [model(app.views(training.pixels, generator)) for _ in range(2)]
        return float(judge.value(*pair))

    before, steps = value(), []
    app.train(model, loss, training.pixels, epochs=8, batch=32, lr=3e-3, watch=steps.append)
    assert steps == list(range(1, 41))
    assert value() > before + 0.1  # FLO is slowest: its u has to be learned first


def test_a_batch_that_is_too_large_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch=64 is not possible with 40 images"):
        app.train(app.Encoder(), losses.FDVLoss(), torch.zeros(40, 1, 8, 8), epochs=1, batch=64)


def test_linear_probe_of_noise_and_of_an_answer() -> None:
    labels = torch.arange(600) % 3
    answer = torch.nn.functional.one_hot(labels).float() + 0.1 * torch.randn(600, 3)
    split = (labels[:300], labels[300:])
    assert app.linear_probe((answer[:300], answer[300:]), split) == 1
    noise = torch.randn(600, 3)
    assert app.linear_probe((noise[:300], noise[300:]), split) < 0.45


# FlatNCE in low precision ---------------------------------------------------------------------------------------------


def rows(margins: tuple[float, ...], negatives: int = 15) -> pd.DataFrame:
    return pd.DataFrame(experiment.precision(0, margins=margins, negatives=negatives))


def test_gradients_are_exact_where_rounding_does_not_matter() -> None:
    table = rows((0.0, 1.0, 2.0))
    for kind, tolerance in (("float32", 1e-5), ("float16", 5e-3), ("bfloat16", 3e-2)):
        part = table[table.type == kind]
        assert (part.infonce - part.exact_infonce).abs().max() < tolerance
        assert (part.flatnce + 1).abs().max() < tolerance
    assert table.exact_infonce.iloc[0] == pytest.approx(-15 / 16)


def test_infonce_loses_its_gradient_and_flatnce_does_not() -> None:
    table = rows((25.0, 40.0))
    assert (table.infonce == 0).all() and (table.exact_infonce < 0).all()
    assert (table.flatnce + 1).abs().max() < 0.05  # bfloat16 has eight bits
    assert (table.flomi_flatnce + 1).abs().max() < 1e-2


def test_flomi_computes_in_float32_whatever_the_features() -> None:
    """At a margin of 12 bfloat16 has no gradient left; the loss of features of this type has it to their precision."""
    table = rows((12.0,)).set_index("type")
    assert table.infonce["bfloat16"] == 0
    for kind in ("float16", "bfloat16", "float32"):
        assert table.flomi_infonce[kind] == pytest.approx(table.exact_infonce[kind], rel=1e-2)


# The experiment's table -----------------------------------------------------------------------------------------------


def test_points_lost_are_paired_by_seed() -> None:
    ends = {("infonce", 16): 80.0, ("infonce", 512): 86.0, ("flo", 16): 84.0, ("flo", 512): 86.0}
    table = pd.DataFrame(
        [
            {
                "loss": loss,
                "batch": batch,
                "seed": seed,
                "last": last,
                "accuracy": end + seed if last else math.nan,
            }
            for (loss, batch), end in ends.items()
            for seed in range(2)
            for last in (False, True)
        ]
    )
    assert experiment.lost(table, "infonce").tolist() == [6, 6]
    assert experiment.lost(table, "flo").tolist() == [2, 2]


def test_batch_sizes_see_equally_many_images() -> None:
    size = {**experiment.SELF_SUPERVISED.sizes["tiny"], "batches": (16, 32), "epochs": 1, "readings": 2}
    table = pd.DataFrame(experiment.self_supervised(0, **size))
    ends = table[table["last"] & (table.batch > 0)]
    assert ends.seen.tolist() == [160] * 8
    assert ends.accuracy.notna().all() and table[~table["last"]].accuracy.isna().all()
    assert table[table.batch > 0].ness.between(0, 1).all()
