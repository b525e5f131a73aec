"""The losses by name, one class for each bound that fits, each a row of `LOSSES`: the bound, and what to know before using it.

What they share, and every argument, is in `ContrastiveLoss`. "No parameters" holds unless the temperature is learned.
"""

from __future__ import annotations

from flomi.bounds import BOUNDS
from flomi.losses.contrastive import ContrastiveLoss


class FLOLoss(ContrastiveLoss):
    r"""FLO; **it has parameters**: its u(x, y) is a network, so give `loss.parameters()` to your optimiser too.

    .. math:: u(x, y) + e^{-u(x, y) + \mathrm{LME}_{y'} g(x, y') - g(x, y)} - 1

    u runs on the features of the n positives only, so the loss costs what InfoNCE costs. `mi()` is a lower bound without
    ceiling on rows not trained on. At the optimum -u is the pointwise MI. Reference: Guo et al. 2022, arXiv:2107.01131.

    >>> import torch
    >>> encoder, loss = torch.nn.Linear(6, 32), FLOLoss(32)
    >>> optimiser = torch.optim.Adam([*encoder.parameters(), *loss.parameters()])
    >>> view = torch.randn(64, 6)
    >>> loss(encoder(view), encoder(view + 0.1 * torch.randn(64, 6))).backward()
    """

    bound = BOUNDS["flo"]


class InfoNCELoss(ContrastiveLoss):
    r"""InfoNCE (NT-Xent, CLIP with `symmetric=True`): cross-entropy of the positive among K = m + 1 candidates, minus log K.

    .. math:: \log \tfrac1K \Bigl(e^{g(x, y)} + \sum_{y'} e^{g(x, y')}\Bigr) - g(x, y)

    `mi()` cannot exceed `ceiling`, log K, and the gradient of a row fades as its positive becomes easy. No parameters, unless
    the temperature is learned. Reference: van den Oord et al. 2018, arXiv:1807.03748.

    >>> import torch
    >>> loss = InfoNCELoss(temperature=0.07, symmetric=True)
    >>> image, text = torch.randn(2, 64, 32)
    >>> value = loss(image, text)
    >>> loss.mi() < loss.ceiling, round(loss.ceiling, 3)  # log 64
    (True, 4.159)
    """

    bound = BOUNDS["infonce"]


class FlatNCELoss(ContrastiveLoss):
    r"""FlatNCE, InfoNCE for small batches: its gradient does not fade as positives become easy. **Its value is always 1.**

    .. math:: e^{l - \mathrm{sg}[l]}, \qquad l = \log \sum_{y'} e^{g(x, y') - g(x, y)}

    Watch `mi()`, which is the value of InfoNCE, not the loss. The gradient is that of DCL, arXiv:2110.06848. No parameters.
    Reference: Chen et al. 2021, arXiv:2107.01152.

    >>> import torch
    >>> query = torch.randn(16, 8, requires_grad=True)
    >>> FlatNCELoss()(query, torch.randn(16, 8)).item()
    1.0
    """

    bound = BOUNDS["flatnce"]


class FDVLoss(ContrastiveLoss):
    r"""FDV: the gradient of FlatNCE with a value to look at, leave-one-out Donsker-Varadhan. No parameters.

    .. math:: \log \tfrac1m \sum_{y'} e^{g(x, y') - g(x, y)}

    `mi()` is biased upward, the more the fewer negatives there are. Reference: Guo et al. 2022, arXiv:2107.01131.

    >>> import torch
    >>> FDVLoss()(torch.eye(4), torch.eye(4)).item()
    -10.0
    """

    bound = BOUNDS["fdv"]


class NWJLoss(ContrastiveLoss):
    r"""Nguyen-Wainwright-Jordan: minus (1 + E[g] - E[e^{g'}]), g the PMI itself. No parameters.

    .. math:: \mathrm{mean}_{y'} e^{g(x, y')} - g(x, y) - 1

    The scores must get their level right, which unit-norm features at a fixed temperature hardly can: prefer
    `normalize=False` or FLO. Reference: Nguyen et al. 2010, arXiv:0809.0853.

    >>> import torch
    >>> NWJLoss(normalize=False, temperature=1.0)(torch.zeros(4, 2), torch.zeros(4, 2)).item()
    0.0
    """

    bound = BOUNDS["nwj"]


class TUBALoss(ContrastiveLoss):
    r"""TUBA; **it has parameters**: its baseline a(x) is a network, so give `loss.parameters()` to your optimiser too.

    .. math:: \mathrm{mean}_{y'} e^{g(x, y') - a(x)} + a(x) - g(x, y) - 1

    Reference: Poole et al. 2019, arXiv:1905.06922.

    >>> import torch
    >>> TUBALoss(8)(torch.randn(16, 8), torch.randn(16, 8)).requires_grad
    True
    """

    bound = BOUNDS["tuba"]


class DVLoss(ContrastiveLoss):
    r"""Donsker-Varadhan: one normaliser for the batch, of all ranks under torch.distributed. No parameters.

    .. math:: \log \mathrm{mean}_{x, y'} e^{g(x, y')} - g(x, y)

    Reference: Donsker and Varadhan 1983.

    >>> import torch
    >>> DVLoss()(torch.eye(4), torch.eye(4)).item()
    -10.0
    """

    bound = BOUNDS["dv"]


class MINELoss(ContrastiveLoss):
    r"""MINE: Donsker-Varadhan with a running average of the normaliser in the gradient, which takes out most of its bias.

    .. math:: \mathrm{mean}_{x, y'} e^{g(x, y')} / \mathrm{average} - g(x, y)

    Watch `mi()`, not the loss. The average is a buffer; no parameters. Reference: Belghazi et al. 2018, arXiv:1801.04062.

    >>> import torch
    >>> loss = MINELoss()
    >>> value = loss(torch.eye(4), torch.eye(4))
    >>> round(loss.mi(), 4)
    10.0
    """

    bound = BOUNDS["mine"]


class IAlphaLoss(ContrastiveLoss):
    r"""alpha-InfoNCE between TUBA and InfoNCE, alpha = 1/2; **it has parameters**, those of its baseline a(x).

    Its ceiling is 1 + log(2 m); formula in `flomi.bounds.i_alpha`. Takes no labels. Reference: Poole et al. 2019,
    arXiv:1905.06922.

    >>> import torch
    >>> IAlphaLoss(8)(torch.randn(16, 8), torch.randn(16, 8)).requires_grad
    True
    """

    bound = BOUNDS["i-alpha"]


class JSLoss(ContrastiveLoss):
    r"""Jensen-Shannon: logistic regression of positives against negatives, each side weighing the same. No parameters.

    .. math:: \mathrm{softplus}(-g(x, y)) + \mathrm{mean}_{x, y'} \mathrm{softplus}(g(x, y'))

    Steady; `mi()` is NWJ's bound of the same scores. Reference: Hjelm et al. 2019, arXiv:1808.06670.

    >>> import torch
    >>> round(JSLoss()(torch.zeros(4, 2), torch.zeros(4, 2)).item(), 3)  # 2 log 2
    1.386
    """

    bound = BOUNDS["js"]


class SMILELoss(ContrastiveLoss):
    r"""SMILE: the loss of `JSLoss`, with another read-out in `mi()`, clipped Donsker-Varadhan, which is no bound.

    Reference: Song and Ermon 2020, arXiv:1910.06222.

    >>> import torch
    >>> x = torch.eye(4)
    >>> bool(SMILELoss()(x, x) == JSLoss()(x, x))
    True
    """

    bound = BOUNDS["smile"]


class KLDIMELoss(ContrastiveLoss):
    """KL-DIME: the loss of `NWJLoss`, with the mean score as read-out in `mi()`, which is no bound.

    Reference: Letizia et al. 2024, arXiv:2305.20025.

    >>> import torch
    >>> x = torch.eye(4)
    >>> bool(KLDIMELoss()(x, x) == NWJLoss()(x, x))
    True
    """

    bound = BOUNDS["kl-dime"]


class GANDIMELoss(ContrastiveLoss):
    """GAN-DIME: the loss of `JSLoss`, with the mean score as read-out in `mi()`, which is no bound.

    Reference: Letizia et al. 2024, arXiv:2305.20025.

    >>> import torch
    >>> x = torch.eye(4)
    >>> bool(GANDIMELoss()(x, x) == JSLoss()(x, x))
    True
    """

    bound = BOUNDS["gan-dime"]


class HDDIMELoss(ContrastiveLoss):
    r"""HD-DIME, squared Hellinger distance; `mi()` is the mean score, which is no bound. No parameters.

    .. math:: e^{-g(x, y) / 2} + \mathrm{mean}_{x, y'} e^{g(x, y') / 2} - 2

    Reference: Letizia et al. 2024, arXiv:2305.20025.

    >>> import torch
    >>> HDDIMELoss()(torch.zeros(4, 2), torch.zeros(4, 2)).item()
    0.0
    """

    bound = BOUNDS["hd-dime"]


class AnchorLoss(ContrastiveLoss):
    """InfoNCE-anchor: InfoNCE with a further class "none is the positive", which takes away the drift. No parameters.

    `mi()` is the mean score, which is no bound; formula in `flomi.bounds.anchor_objective`. Takes no labels. Reference: Ryu et
    al. 2025, arXiv:2510.25983.

    >>> import torch
    >>> AnchorLoss()(torch.randn(16, 8), torch.randn(16, 8)).isfinite().item()
    True
    """

    bound = BOUNDS["anchor"]


_CLASSES = (
    FLOLoss, InfoNCELoss, FlatNCELoss, FDVLoss, NWJLoss, TUBALoss, DVLoss, MINELoss, IAlphaLoss, JSLoss, SMILELoss,
    KLDIMELoss, GANDIMELoss, HDDIMELoss, AnchorLoss,
)  # fmt: skip

LOSSES: dict[str, type[ContrastiveLoss]] = {loss.bound.name: loss for loss in _CLASSES}
