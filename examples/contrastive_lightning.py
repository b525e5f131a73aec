"""FLO where InfoNCE stands, in a Lightning module: which right half of a handwritten digit belongs to this left half?

The same question as in contrastive.py. The loss is a module inside the module, so that its parameters (FLO's dual u, the
temperature) are trained, moved between devices and saved with the rest. Held out, each left half is asked for its right half
among 100: recall@1 and @5, chance 1 and 5 %.
"""

import logging
import warnings

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, TensorDataset

from flomi import losses

try:
    from lightning import pytorch as lightning
except ImportError:
    raise SystemExit(
        "this example needs Lightning: python -m pip install 'flomi[examples]' (or: pip install lightning)"
    ) from None


class TwoTowers(lightning.LightningModule):
    def __init__(self, loss: losses.ContrastiveLoss, lr: float = 2e-3) -> None:
        super().__init__()
        self.left, self.right = (
            nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 32)) for _ in range(2)
        )
        self.loss, self.lr = loss, lr

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        loss: Tensor = self.loss(self.left(batch[0]), self.right(batch[1]))
        self.log_dict({"loss": loss, "mi": self.loss.mi(), "ness": self.loss.ness()})
        return loss

    def test_step(self, batch: list[Tensor], _: int) -> None:
        query, key = self.left(batch[0]), self.right(batch[1])
        found = (normalize(query) @ normalize(key).T).argsort(1, descending=True)
        rank = (found == torch.arange(len(found), device=found.device)[:, None]).int().argmax(1)
        recalls = {f"recall@{k}": (rank < k).float().mean() for k in (1, 5)}
        self.log_dict({"held-out bound": self.loss.value(query, key), **recalls}, batch_size=len(query))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr)  # the loss's parameters are among them


images = torch.tensor(load_digits().images, dtype=torch.float32) / 16
halves = images[:, :, :4].flatten(1), images[:, :, 4:].flatten(1)
train = DataLoader(TensorDataset(*(half[:1200] for half in halves)), 64, shuffle=True, drop_last=True)
test = DataLoader(TensorDataset(*(half[1200:1700] for half in halves)), 100)

warnings.filterwarnings("ignore", ".*LeafSpec")  # Lightning 2.6 uses what torch 2.13 deprecates
warnings.filterwarnings("ignore", ".*many workers")  # the rows are in memory
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no word of which devices it found
for kind in (losses.InfoNCELoss, losses.FLOLoss):
    lightning.seed_everything(0, verbose=False)
    model = TwoTowers(kind(32, temperature=0.5, symmetric=True))
    trainer = lightning.Trainer(
        max_epochs=15,
        accelerator="cpu",
        logger=False,  # with a logger, mi() and ness() are curves in it
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, train)
    (found,) = trainer.test(model, test, verbose=False)
    numbers = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    print(f"{kind.__name__:12} {numbers}; MI {model.loss.mi():.2f} nats in training")
