"""Two photographs that come with scikit-learn, as signals: what a linear mixture of pictures is made of."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["crops"]


def crops(count: int, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Grey values of `count` squares of size x size pixels at random places, [size * size, count] float32, standardised columns.

    The photographs are taken in turn: a temple in China, a flower; 427 x 640 pixels, both CC BY. Raises ValueError if Pillow,
    which reads them, is missing, or for a size that they don't have.
    """
    from sklearn.datasets import load_sample_images

    try:
        photographs = load_sample_images().images
    except ImportError:
        raise ValueError("Pillow is needed to read photographs: python -m pip install pillow") from None
    height, width, _ = photographs[0].shape
    if not 2 <= size <= min(height, width):
        raise ValueError(f"size={size} is not possible: use 2 to {min(height, width)}")
    columns = []
    for i in range(count):
        top, left = (int(torch.randint(side - size + 1, (), generator=generator)) for side in (height, width))
        square = torch.tensor(photographs[i % 2][top : top + size, left : left + size]).float()
        columns.append(square.mean(-1).flatten())
    signals = torch.stack(columns, 1)
    return (signals - signals.mean(0)) / signals.std(0).clamp_min(1e-6)
