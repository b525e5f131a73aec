"""Cross-view features: known answers for CCA, the halves, training, the read-outs, and what the experiment's table says."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from flomi import losses
from flomi.applications import cross_view as app
from flomi.applications.data.images import Images
from flomi.reproduce import cross_view


def clusters(n: int = 600, noise: float = 0.1) -> app.Views:
    """Two views of four clusters, through different maps."""
    labels = torch.arange(n) % 4
    centres, maps = torch.randn(4, 3), torch.randn(2, 3, 6)
    x, y = (torch.tanh(centres[labels] @ m) + noise * torch.randn(n, 6) for m in maps)
    return app.Views(x, y, labels)


def test_halves_are_the_left_and_the_right() -> None:
    pixels = torch.arange(2 * 3 * 5, dtype=torch.uint8).reshape(2, 1, 3, 5)
    views = app.halves(Images(pixels, torch.tensor([0, 1]), ("a", "b")))
    assert views.x.shape == (2, 6) and views.y.shape == (2, 9)
    both = torch.cat([views.x.view(2, 3, 2), views.y.view(2, 3, 3)], -1)
    assert torch.allclose(both * 255, pixels[:, 0].float(), atol=1e-4)


def test_cca_finds_the_canonical_correlations() -> None:
    """Two pairs of Gaussian columns of correlations 0.9 and 0.5, hidden by invertible maps."""
    n, rho = 50_000, torch.tensor([0.9, 0.5, 0.0])
    a = torch.randn(n, 3)
    b = rho * a + (1 - rho**2).sqrt() * torch.randn(n, 3)
    views = app.Views(a @ torch.randn(3, 3), b @ torch.randn(3, 3), torch.zeros(n))
    z = app.cca(views, 2, ridge=1e-9)(views)
    assert torch.allclose(z.T.cov().diagonal(), torch.ones(4), atol=1e-3)
    found = z.T.corrcoef()
    assert found[0, 2].item() == pytest.approx(0.9, abs=0.01) and found[1, 3].item() == pytest.approx(
        0.5, abs=0.02
    )
    assert abs(float(found[0, 3])) < 0.01 and abs(float(found[0, 1])) < 0.01


def test_cca_bears_columns_that_are_constant() -> None:
    views = clusters()
    blank = app.Views(torch.cat([views.x, torch.zeros(600, 2)], 1), views.y, views.labels)
    assert torch.allclose(
        app.cca(blank, 2)(blank)[:, 2:].std(0), app.cca(views, 2)(views)[:, 2:].std(0), rtol=1e-2
    )
    with pytest.raises(ValueError, match="features=9 is not possible: a view has 6 columns"):
        app.cca(views, 9)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n not in ("flo", "infonce"))) for n in cross_view.USED],
)
def test_every_loss_finds_what_the_views_share(name: str) -> None:
    torch.manual_seed(0)
    views = clusters()
    model = app.TwoViews(6, 6, features=2, width=32)
    loss = cross_view.USED[name](32, temperature=0.2, learn_temperature=True)
    before = app.held_out(model, loss, views[:200])
    epochs = []
    app.train(model, loss, views[200:], epochs=15, batch=50, lr=5e-3, watch=epochs.append)
    assert epochs == list(range(1, 16)) and not model.training and not loss.training
    assert app.held_out(model, loss, views[:200]) > before + 0.1
    z = model.features(views)
    right = app.accuracy(
        (z[200:], z[:200]), (views.labels[200:], views.labels[:200]), epochs=20, width=32, batch=50
    )
    assert right > 0.9  # of four classes


def test_the_same_generator_gives_the_same_features() -> None:
    views = clusters(200)

    def features() -> torch.Tensor:
        torch.manual_seed(1)
        model, loss = app.TwoViews(6, 6, 2, 16), losses.InfoNCELoss()
        app.train(model, loss, views, epochs=2, batch=32, generator=torch.Generator().manual_seed(0))
        return model.features(views)

    assert torch.equal(features(), features())


def test_a_batch_that_is_too_large_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch=128 is not possible with 40 rows: use 2 to 40"):
        app.train(app.TwoViews(6, 6), losses.InfoNCELoss(), clusters(40), epochs=1)


def test_held_out_blocks_are_equal() -> None:
    """InfoNCE cannot pass log of a block's rows, so the value tells the block: 250 rows in three blocks of 83."""
    x = torch.randn(250, 6)
    model = app.TwoViews(6, 6, features=6, width=64)
    model.encode_y, model.head_y = model.encode_x, model.head_x
    loss = losses.InfoNCELoss(temperature=1e-5)
    value = app.held_out(model, loss, app.Views(x, x, torch.zeros(250)), block=100)
    assert value == pytest.approx(math.log(83), abs=1e-2)


def test_shared_is_the_mi_between_the_halves_of_the_columns() -> None:
    x = torch.randn(2000, 1)
    y = x + torch.randn(2000, 1)
    assert app.shared(torch.cat([x, y], 1), critic="gaussian").mi == pytest.approx(0.347, abs=0.06)


def test_chance_is_what_noise_is_worth() -> None:
    z, labels = torch.randn(3000, 4), torch.randint(2, (3000,))
    right = app.accuracy((z[:1000], z[1000:]), (labels[:1000], labels[1000:]), epochs=3, width=16)
    assert right == pytest.approx(0.5, abs=0.06)


# The experiment's table -----------------------------------------------------------------------------------------------


def table() -> pd.DataFrame:
    ends = {
        ("cca", 0): 60.0,
        ("infonce", 128): 70.0,
        ("flo", 128): 71.0,
        ("infonce", 16): 68.0,
        ("flo", 16): 69.0,
    }
    rows = [
        {"data": "d", "loss": loss, "batch": batch, "seed": seed, "epoch": 1 + last, "last": last,
         "accuracy": end + (seed if (loss, batch) == ("flo", 128) else 0) - (not last), "mi": 2.0, "mi_stderr": 0.1,
         "training": 3.0, "held_out": 2.5}
        for seed in range(3)
        for (loss, batch), end in ends.items()
        for last in ((False, True) if batch else (True,))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed() -> None:
    assert np.array_equal(cross_view.paired(table(), "d", 128), [1.0, 2.0, 3.0])
    assert np.array_equal(cross_view.paired(table(), "d", 16), [1.0, 1.0, 1.0])


def test_findings_of_several_seeds() -> None:
    found = {finding.what: finding.ours for finding in cross_view.compare(table())}
    assert found["d: FLO over InfoNCE at batch 128, points"] == "+2.00 ± 0.58 (3 seeds)"
    assert found["d: worst MI loss (infonce) over CCA, points"] == "+10.0"
    assert found["d: best and worst MI loss, points apart"] == "2.0 (flo, infonce)"
    assert (
        found["d: accuracy gained in the second half of training, points"] == "+1.0 on average, +1.0 at most"
    )


def test_losses_of_one_seed_start_alike() -> None:
    """At equal seeds the accuracies of two losses differ by the loss alone."""
    plan = cross_view.Budget("generated", 100, {32: (("infonce",), 2)}, width=8, classifier_epochs=1, referee_rows=50,
                           referee={"effort": "fast", "critic": "gaussian", "n_folds": 2}, lr=1e-12)  # fmt: skip
    training, test = cross_view.views("generated", 0)
    rows = [
        list(cross_view._trained(plan, 0, training, test, name, 32, 2))[-1]["accuracy"]
        for name in cross_view.USED
    ]
    assert len(set(rows)) == 1
