"""Self-supervised learning on small images: two random views of each, an encoder that makes them alike, a linear probe after.

>>> pixels = torch.randint(256, (40, 1, 16, 16), dtype=torch.uint8)
>>> model = Encoder(channels=1, width=8)
>>> loss = losses.FLOLoss(64)
>>> train(model, loss, pixels, epochs=1, batch=8)
>>> model.features(pixels).shape
torch.Size([40, 32])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from flomi import losses
from flomi.critics import mlp
from flomi.training.loop import cosine

__all__ = ["Encoder", "linear_probe", "train", "views"]


def views(
    pixels: Tensor,
    generator: torch.Generator | None = None,
    *,
    degrees: float = 30.0,
    rotated: float = 0.9,
    area: float = 0.5,
    cropped: float = 0.8,
    flip: bool = False,
    light: float = 0.0,
) -> Tensor:
    """A random view of each image, each by its own draw: pixels [n, c, h, w], uint8 or from 0 to 1, to float32 from 0 to 1.

    With probability `rotated` turned by up to `degrees` either way; with probability `cropped` a part of `area` to 1 of the
    image, somewhere in it and in its proportions, enlarged to the full size; mirrored half of the time if `flip`; and made
    brighter or darker by a factor within 1 ± `light`. What lies outside the image is black. One bilinear sampling does the
    geometry.

    >>> view = views(torch.full((5, 3, 8, 8), 255, dtype=torch.uint8), rotated=0)
    >>> bool(torch.allclose(view, torch.ones(5, 3, 8, 8)))
    True
    """
    if not 0 < area <= 1:
        raise ValueError(f"area={area} is not possible: use a share of the image, above 0 and at most 1")
    x = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    n, (height, width) = len(x), x.shape[-2:]

    def draw(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(n, generator=generator)).to(x.device)

    angle = math.radians(degrees) * draw(-1, 1) * (draw(0, 1) < rotated)
    side = torch.where(draw(0, 1) < cropped, draw(area, 1).sqrt(), torch.ones(n, device=x.device))
    across, down = draw(-1, 1) * (1 - side), draw(-1, 1) * (1 - side)
    mirror = torch.where(draw(0, 1) < 0.5, -1.0, 1.0) if flip else torch.ones(n, device=x.device)
    brightness = 1 + light * draw(-1, 1)
    sin, cos = angle.sin(), angle.cos()
    # From the output's corners at -1 and 1 to where in the input to look; axes are scaled, so angles need the proportions.
    theta = torch.stack(
        [
            torch.stack([side * cos * mirror, -side * sin * (height / width), across], -1),
            torch.stack([side * sin * (width / height) * mirror, side * cos, down], -1),
        ],
        1,
    )
    grid = affine_grid(theta.to(x.dtype), [*x.shape], align_corners=False)
    # Beyond the border the nearest pixel, then black: a crop's own edge must not fade.
    inside = (grid.abs() <= 1).all(-1)[:, None]
    seen = grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False) * inside
    return (seen * brightness[:, None, None, None].to(x.dtype)).clamp(0, 1)


class Encoder(nn.Module):
    """Three convolutions of stride 2 and the mean over what is left, [n, 4 width]; a projection into 64 numbers for the loss.

    Group normalisation: unlike batch normalisation it is the same at every batch size, and no row learns of the others. The
    projection is thrown away after training, as usual: `features` are what comes before it.
    """

    def __init__(self, channels: int = 1, width: int = 32, projection: int = 64) -> None:
        super().__init__()
        sizes = [channels, width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(sizes):
            layers += [
                nn.Conv2d(inner, outer, 3, stride=2, padding=1),
                nn.GroupNorm(min(8, outer), outer),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers)
        self.project = mlp([4 * width, 4 * width, projection])

    def encode(self, x: Tensor) -> Tensor:
        """[n, 4 width] of images from 0 to 1."""
        code: Tensor = self.body(x).mean((-2, -1))
        return code

    def forward(self, x: Tensor) -> Tensor:
        """What a loss takes, [n, projection]."""
        projected: Tensor = self.project(self.encode(x))
        return projected

    @torch.no_grad()
    def features(self, pixels: Tensor, block: int = 1000) -> Tensor:
        """[n, 4 width] of images as they are, uint8."""
        return torch.cat([self.encode(part.float() / 255) for part in pixels.split(block)])


def train(
    model: nn.Module,
    loss: losses.ContrastiveLoss,
    pixels: Tensor,
    *,
    epochs: int,
    batch: int,
    lr: float = 1e-3,
    clip: float = 5.0,
    generator: torch.Generator | None = None,
    watch: Callable[[int], None] | None = None,
    view: Callable[[Tensor, torch.Generator | None], Tensor] = views,
) -> None:
    """Minimise the loss between two views of every image, with Adam; the rate falls to 0 along a cosine.

    pixels [n, c, h, w]; `view(pixels, generator)` makes a view. Every epoch is shuffled anew, and leaves out what does not fill a
    batch. `watch(step)` is called after each step, from 1. Raises ValueError if there are fewer images than a batch.
    """
    if not 2 <= batch <= len(pixels):
        raise ValueError(f"batch={batch} is not possible with {len(pixels)} images: use 2 to {len(pixels)}")
    parameters = [*model.parameters(), *loss.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=lr, fused=True)
    steps, step = epochs * (len(pixels) // batch), 0
    model.train()
    loss.train()
    for _ in range(epochs):
        order = torch.randperm(len(pixels), generator=generator)
        for rows in order[: len(order) // batch * batch].split(batch):
            optimiser.param_groups[0]["lr"] = lr * cosine(step, steps)
            some = pixels[rows]
            query, key = model(torch.cat([view(some, generator), view(some, generator)])).chunk(2)
            optimiser.zero_grad(set_to_none=True)
            loss(query, key).backward()
            nn.utils.clip_grad_norm_(parameters, clip)
            optimiser.step()
            step += 1
            if watch is not None:
                watch(step)
    model.eval()
    loss.eval()


def linear_probe(
    features: tuple[Tensor, Tensor], labels: tuple[Tensor, Tensor], decay: float = 1e-3, iterations: int = 100
) -> float:
    """Share of the test rows that a linear classifier gets right: features and labels are (training, test).

    Multinomial logistic regression on columns standardised by the training rows, by L-BFGS to its optimum, with `decay` times
    half the squared weights; nothing is chosen by the test rows.

    >>> x = torch.randn(200, 3)
    >>> linear_probe((x[:100], x[100:]), ((x[:100, 0] > 0).long(), (x[100:, 0] > 0).long())) > 0.9
    True
    """
    centre, spread = features[0].mean(0), features[0].std(0).clamp_min(1e-12)
    seen, unseen = ((part - centre) / spread for part in features)
    classes = int(torch.cat(labels).max()) + 1
    weight = torch.zeros(seen.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = cross_entropy(seen @ weight + bias, labels[0]) + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimiser.step(closure)
    with torch.no_grad():
        return float(((unseen @ weight + bias).argmax(1) == labels[1]).double().mean())
