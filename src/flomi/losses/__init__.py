"""MI as a training objective: losses over feature pairs for a loop of one's own, and a penalty that takes MI away.

    >>> import torch
    >>> from flomi import losses
    >>> loss = losses.FLOLoss(32)  # where losses.InfoNCELoss(32) stands
    >>> loss(torch.randn(64, 32), torch.randn(64, 32)).shape
    torch.Size([])

`LOSSES` has the loss of each bound by the bound's name. A new one: a class in `of_bounds`, made from its row of `BOUNDS`.
"""

from __future__ import annotations

from flomi.losses.contrastive import ContrastiveLoss
from flomi.losses.of_bounds import (
    LOSSES,
    AnchorLoss,
    DVLoss,
    FDVLoss,
    FlatNCELoss,
    FLOLoss,
    GANDIMELoss,
    HDDIMELoss,
    IAlphaLoss,
    InfoNCELoss,
    JSLoss,
    KLDIMELoss,
    MINELoss,
    NWJLoss,
    SMILELoss,
    TUBALoss,
)
from flomi.losses.penalty import MIPenalty

__all__ = [
    "LOSSES",
    "AnchorLoss",
    "ContrastiveLoss",
    "DVLoss",
    "FDVLoss",
    "FLOLoss",
    "FlatNCELoss",
    "GANDIMELoss",
    "HDDIMELoss",
    "IAlphaLoss",
    "InfoNCELoss",
    "JSLoss",
    "KLDIMELoss",
    "MINELoss",
    "MIPenalty",
    "NWJLoss",
    "SMILELoss",
    "TUBALoss",
]
