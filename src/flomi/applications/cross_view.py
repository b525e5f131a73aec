"""Cross-view representation learning: a few numbers for each of two views of one thing, that tell much about each other.

Each view has an encoder of its own; no label is seen. What both views share, such as which digit it is whose halves they show,
survives in the features; what only one of them has is left out. Any loss of `flomi.losses` trains them; `cca` is the best
that linear encoders do. `accuracy` and `shared` say how good features are: for a classifier, and in nats.

    >>> views = halves(Images(torch.randint(256, (64, 1, 4, 4), dtype=torch.uint8), torch.arange(64) % 2, ("a", "b")))
    >>> model = TwoViews(8, 8, features=2, width=16)
    >>> loss = losses.FLOLoss(16, learn_temperature=True)
    >>> train(model, loss, views, epochs=2, batch=16)
    >>> model.features(views).shape
    torch.Size([64, 4])
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flomi import losses
from flomi.applications.data.images import Images
from flomi.critics import mlp
from flomi.estimator import MIEstimate, estimate

__all__ = ["TwoViews", "Views", "accuracy", "cca", "halves", "held_out", "shared", "train"]


@dataclass(frozen=True)
class Views:
    """Row i of x [n, dim_x] and row i of y [n, dim_y] show the same thing, of class labels[i]."""

    x: Tensor
    y: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | Tensor) -> Views:
        """Some of the rows, by a slice or by their numbers."""
        return Views(self.x[rows], self.y[rows], self.labels[rows])


def halves(images: Images) -> Views:
    """Left and right half of every image, values from 0 to 1; of an odd width the middle column belongs to the right."""
    pixels = images.floats()
    middle = pixels.shape[-1] // 2
    return Views(pixels[..., :middle].flatten(1), pixels[..., middle:].flatten(1), images.labels)


class TwoViews(nn.Module):
    """An encoder for each view, into `features` numbers, and on top of each a head that lifts them into `width` for the loss.

    Encoders are perceptrons with two hidden layers, heads have one. The heads are the critic: g = <head(x), head(y)> / tau can
    then be any function of the features, and features are what is kept. Reference: Guo et al. 2022, section 5.
    """

    def __init__(self, dim_x: int, dim_y: int, features: int = 5, width: int = 512) -> None:
        super().__init__()
        self.encode_x, self.encode_y = (mlp([dim, width, width, features]) for dim in (dim_x, dim_y))
        self.head_x, self.head_y = (mlp([features, width, width]) for _ in range(2))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """What a loss takes: query and key, each [n, width]."""
        return self.head_x(self.encode_x(x)), self.head_y(self.encode_y(y))

    @torch.no_grad()
    def features(self, views: Views) -> Tensor:
        """[n, 2 features] those of x, then those of y."""
        return torch.cat([self.encode_x(views.x), self.encode_y(views.y)], -1)


def train(
    model: TwoViews,
    loss: losses.ContrastiveLoss,
    views: Views,
    *,
    epochs: int,
    batch: int = 128,
    lr: float = 5e-4,
    clip: float = 5.0,
    generator: torch.Generator | None = None,
    watch: Callable[[int], None] | None = None,
) -> None:
    """Minimise the loss with Adam at a constant rate, so that a curve which levels off has levelled off by itself.

    Every epoch is shuffled anew, and leaves out what does not fill a batch. `clip` bounds the norm of the gradient, never a
    value. `watch(epoch)` is called after each epoch, from 1. Raises ValueError if there are fewer rows than a batch.
    """
    if not 2 <= batch <= len(views):
        raise ValueError(f"batch={batch} is not possible with {len(views)} rows: use 2 to {len(views)}")
    parameters = [*model.parameters(), *loss.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=lr, fused=True)
    model.train()
    loss.train()
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(views), generator=generator)
        for rows in order[: len(order) // batch * batch].split(batch):
            optimiser.zero_grad(set_to_none=True)
            loss(*model(views.x[rows], views.y[rows])).backward()
            nn.utils.clip_grad_norm_(parameters, clip)
            optimiser.step()
        if watch is not None:
            watch(epoch)
    model.eval()
    loss.eval()


@torch.no_grad()
def held_out(model: TwoViews, loss: losses.ContrastiveLoss, views: Views, block: int = 1000) -> float:
    """The loss's own bound in nats, on rows that it has not seen, in blocks with all their pairs: FLO's is then a lower bound.

    Blocks are of equal size, at most `block` rows; what is left over, fewer rows than blocks, is not looked at.
    """
    blocks = math.ceil(len(views) / block)
    size = len(views) // blocks
    query, key = (side[: blocks * size].split(size) for side in model(views.x, views.y))
    return float(torch.stack([loss.value(q, k) for q, k in zip(query, key, strict=True)]).mean())


def shared(features: Tensor, **options: Any) -> MIEstimate:
    """Mutual information between the two halves of the columns, by `flomi.estimate`: the same referee for whatever made them.

    Give features of rows that the encoders were not trained on; `options` go to `flomi.estimate`.
    """
    x, y = features.chunk(2, -1)
    return estimate(x, y, **options)


def accuracy(
    features: tuple[Tensor, Tensor],
    labels: tuple[Tensor, Tensor],
    *,
    epochs: int = 20,
    width: int = 512,
    batch: int = 128,
    lr: float = 1e-3,
    generator: torch.Generator | None = None,
) -> float:
    """Share of the test rows that a classifier gets right, trained on the others: features and labels are (training, test).

    A perceptron with two hidden layers on standardised columns, Adam, read after its last epoch: not at its best one, which
    would be chosen by the test rows. Fewer rows than a batch are one batch.
    """
    centre, spread = features[0].mean(0), features[0].std(0).clamp_min(1e-12)
    seen, unseen = ((part - centre) / spread for part in features)
    classifier = mlp([seen.shape[1], width, width, int(torch.cat(labels).max()) + 1])
    optimiser = torch.optim.Adam(classifier.parameters(), lr=lr, fused=True)
    for _ in range(epochs):
        for rows in torch.randperm(len(seen), generator=generator).split(batch):
            optimiser.zero_grad(set_to_none=True)
            cross_entropy(classifier(seen[rows]), labels[0][rows]).backward()
            optimiser.step()
    with torch.no_grad():
        return float((classifier(unseen).argmax(1) == labels[1]).double().mean())


def cca(views: Views, features: int = 5, ridge: float = 1e-3) -> Callable[[Views], Tensor]:
    """The first canonical variables of both views, as a function from views to [n, 2 features].

    .. math:: C_{xx}^{-1/2} C_{xy} C_{yy}^{-1/2} = A S B^T, \\qquad z_x = A_k^T C_{xx}^{-1/2} (x - \\bar x)

    `ridge`, times the mean variance of a view, is added to the diagonal of its covariance: a pixel that is always black has none.
    In float64. Raises ValueError if a view has fewer columns than `features`.

    >>> x = torch.randn(500, 3)
    >>> z = cca(Views(x, x @ torch.randn(3, 3), torch.zeros(500)), 2)(Views(x, x, torch.zeros(500)))
    >>> z.shape
    torch.Size([500, 4])
    """
    narrowest = min(views.x.shape[1], views.y.shape[1])
    if not 1 <= features <= narrowest:
        raise ValueError(f"features={features} is not possible: a view has {narrowest} columns")
    x, y = views.x.double(), views.y.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    white_x, white_y = _whitening(x, ridge), _whitening(y, ridge)
    a, _, b = torch.linalg.svd(white_x @ (x.T @ y / len(x)) @ white_y)
    to_x, to_y = white_x @ a[:, :features], white_y @ b[:features].T

    def project(new: Views) -> Tensor:
        return torch.cat([(new.x.double() - mean_x) @ to_x, (new.y.double() - mean_y) @ to_y], -1).float()

    return project


def _whitening(x: Tensor, ridge: float) -> Tensor:
    """Inverse square root of the covariance of centred rows, with the ridge."""
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    root: Tensor = (vectors / (values.clamp_min(0) + ridge * values.mean()).sqrt()) @ vectors.T
    return root
