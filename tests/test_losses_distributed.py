"""Two processes give what one gives on the global batch: losses, gradients through DDP, and read-outs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from flomi.losses import LOSSES

N, D = 12, 4  # rows of the global batch, columns
WORLD = 2
LABELS = torch.tensor([0, 1, 2, 0, 3, 1, 4, 0, 5, 5, 6, 2])

pytestmark = pytest.mark.slow  # two processes

CASES: dict[str, tuple[str, dict[str, object], bool]] = {
    **{name: (name, {}, False) for name in LOSSES},
    "flo, symmetric": ("flo", {"symmetric": True, "learn_temperature": True}, False),
    "flo, chunked": ("flo", {"chunk": 4, "symmetric": True}, False),
    "infonce, chunked": ("infonce", {"chunk": 5}, False),
    "flo, labels": ("flo", {}, True),
    "infonce, labels": ("infonce", {"symmetric": True}, True),
    "flatnce, all positives": ("flatnce", {"positives": "all", "symmetric": True}, True),
    "flo, all positives, chunked": ("flo", {"positives": "all", "chunk": 4}, True),
    "dv, labels": ("dv", {}, True),
    "dv, chunked": ("dv", {"chunk": 4, "symmetric": True}, True),
    "js, labels": ("js", {"chunk": 4}, True),
    "tuba, symmetric": ("tuba", {"symmetric": True}, False),
}


class Both(nn.Module):
    """Encoder and loss in one module, so that DDP averages the gradients of both."""

    def __init__(self, case: str) -> None:
        super().__init__()
        name, options, self.labelled = CASES[case]
        torch.manual_seed(0)
        self.left, self.right = nn.Linear(D, 6), nn.Linear(D, 6)
        self.loss = LOSSES[name](6, temperature=0.5, **options)  # type: ignore[arg-type]
        for p in self.loss.parameters():
            nn.init.normal_(p, std=0.3)

    def forward(self, x: Tensor, y: Tensor, labels: Tensor) -> Tensor:
        return self.loss(self.left(x), self.right(y), labels=labels if self.labelled else None)


def batch(rank: int = 0, world: int = 1) -> list[Tensor]:
    x, y = torch.randn(2, N, D, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return [v.chunk(world)[rank] for v in (x, x + y, LABELS)]


def step(case: str, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """Two steps of SGD: the loss, the gradients and the read-outs of the second, the gradients of the inputs."""
    model = Both(case).double()
    trained = DistributedDataParallel(model) if world > 1 else model
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y, labels = batch(rank, world)
    x.requires_grad_(), y.requires_grad_()
    for _ in range(2):
        optimiser.zero_grad()
        x.grad = y.grad = None
        loss = trained(x, y, labels)
        loss.backward()
        optimiser.step()
    found = {name: p.grad for name, p in model.named_parameters()}
    found |= {"x": x.grad, "y": y.grad, "loss": loss.detach(), "mi": torch.tensor(model.loss.mi())}
    return found  # type: ignore[return-value]


def process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    found: dict[str, object] = {case: step(case, rank, WORLD) for case in CASES}
    loss = LOSSES["flo"](D)
    x, y, labels = (v.float() if v.is_floating_point() else v for v in batch(rank, WORLD))
    errors = []
    for rows, some in ((4 + rank, None), (4, labels[:4] if rank else None)):
        try:
            loss(x[:rows], y[:rows], labels=some)
        except ValueError as error:
            errors.append(str(error))
    found["errors"] = errors
    found["one row each"] = loss(x[:1], y[:1]).detach()
    found["alone"] = LOSSES["infonce"](gather=False)(x, y).detach()
    torch.save(found, folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(process, args=(folder,), nprocs=WORLD)
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case: str, ranks: list[dict[str, dict[str, Tensor]]]) -> None:
    one, (first, second) = step(case), (found[case] for found in ranks)
    for name, expected in one.items():
        if name in ("x", "y"):  # DDP averages gradients of parameters only
            found = torch.cat([first[name], second[name]]) / WORLD
        elif name == "loss":
            found = (first[name] + second[name]) / WORLD
        else:
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
            found = first[name]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_ranks_that_do_not_fit_together_all_learn_of_it(ranks: list[dict[str, object]]) -> None:
    for found in ranks:
        sizes, labels = found["errors"]  # type: ignore[misc]
        assert "[(4, 4), (5, 4)]" in sizes and "drop_last=True" in sizes  # type: ignore[has-type]
        assert "not all of them labels" in labels  # type: ignore[has-type]
        assert torch.isfinite(found["one row each"])  # type: ignore[call-overload]


def test_gather_can_be_switched_off(ranks: list[dict[str, Tensor]]) -> None:
    for rank, found in enumerate(ranks):
        x, y, _ = (v.float() for v in batch(rank, WORLD))
        torch.testing.assert_close(found["alone"], LOSSES["infonce"]()(x, y))
