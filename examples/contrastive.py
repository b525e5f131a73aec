"""FLO where InfoNCE stands, in a plain training loop: which right half of a handwritten digit belongs to this left half?

Two encoders squeeze the halves into five numbers each, without labels, so that they tell as much about each other as they can.
A linear probe then says how much of the digit these ten numbers hold; canonical correlations are what a linear encoder would
reach. To compare losses, change the one line that makes it. FLO's loss has parameters: they go to the optimiser too.
"""

import numpy as np
import torch
from sklearn.cross_decomposition import CCA
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from flomi import losses

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32) / 16
left, right = images[:, :, :4].flatten(1), images[:, :, 4:].flatten(1)
train, test = slice(0, 1200), slice(1200, None)


def probe(features: np.ndarray) -> str:
    features = (features - features[train].mean(0)) / features[train].std(0)
    model = LogisticRegression(max_iter=1000).fit(features[train], digits.target[train])
    return f"{100 * model.score(features[test], digits.target[test]):.1f} % of held-out digits right"


def run(loss: losses.ContrastiveLoss, epochs: int = 30) -> str:
    torch.manual_seed(0)
    encoders = [nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 5)) for _ in range(2)]
    heads = [nn.Sequential(nn.Linear(5, 128), nn.ReLU(), nn.Linear(128, 32)) for _ in range(2)]
    parameters = [p for module in (*encoders, *heads, loss) for p in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(1200).split(64)[:-1]:
            query, key = (
                head(encoder(half[rows]))
                for head, encoder, half in zip(heads, encoders, (left, right), strict=True)
            )
            optimiser.zero_grad()
            loss(query, key).backward()
            optimiser.step()
    with torch.no_grad():
        z = [encoder(half) for encoder, half in zip(encoders, (left, right), strict=True)]
        held_out = float(loss.value(heads[0](z[0][test]), heads[1](z[1][test])))
    ceiling = "none" if loss.ceiling is None else f"{loss.ceiling:.2f}"
    return (
        f"{probe(torch.cat(z, 1).numpy())}; MI {loss.mi():.2f} nats in training, {held_out:.2f} held out, "
        f"ceiling {ceiling}; {100 * loss.ness():.0f} % of the negatives count"
    )


inked = [half[:, half[train].std(0) > 0].numpy() for half in (left, right)]
cca = CCA(5, max_iter=2000).fit(*(half[train] for half in inked))
print("CCA    ", probe(np.hstack(cca.transform(*inked))))
print("InfoNCE", run(losses.InfoNCELoss(32, temperature=0.5, symmetric=True)))
print("FLO    ", run(losses.FLOLoss(32, temperature=0.5, symmetric=True)))
