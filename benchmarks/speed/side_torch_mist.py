"""torch-mist's side: its estimators and its optimiser in the shortest loop around them, without its data loader and its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from serve import serve
from torch_mist.estimators import factories
from torch_mist.utils.train.model import instantiate_optimizer


def make(what: str, **options: Any) -> Callable[[int], Any]:
    return {"step": step, "trace": trace}[what](**options)


def load(data: str) -> tuple[torch.Tensor, torch.Tensor]:
    arrays = np.load(data)
    return torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])


def step(data: str, bound: str, batch: int, **options: Any) -> Callable[[int], None]:
    torch.manual_seed(0)
    x, y = load(data)
    model = factories.instantiate_estimator(bound, x.shape[1], y.shape[1], **options)
    optimiser, _ = instantiate_optimizer(model, max_iterations=1)

    def run(steps: int) -> None:
        for index in batches(len(x), batch, steps):
            optimiser.zero_grad()
            model.loss(x[index], y[index]).backward()
            optimiser.step()

    run(2)
    return run


def batches(n: int, size: int, steps: int) -> Any:
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(n)
        index, order = order[:size], order[size:]
        yield index


def trace(
    data: str, held: str, bound: str, batch: int, lr: float, every: int, seed: int, **options: Any
) -> Callable[[int], Any]:
    """Training with the held-out value that the library reports, every few steps, that clock stopped."""
    (x, y), (xe, ye) = load(data), load(held)
    xe, ye = xe[len(xe) // 2 :], ye[len(ye) // 2 :]

    def run(steps: int) -> Any:
        torch.manual_seed(seed)
        model = factories.instantiate_estimator(bound, x.shape[1], y.shape[1], **options)
        optimiser, _ = instantiate_optimizer(model, max_iterations=steps, optimizer_params={"lr": lr})
        found, spent, since = [], 0.0, time.process_time()
        for k, index in enumerate(batches(len(x), batch, steps), 1):
            optimiser.zero_grad()
            model.loss(x[index], y[index]).backward()
            optimiser.step()
            if k % every == 0:
                spent += time.process_time() - since
                model.eval()
                with torch.no_grad():
                    found.append((spent, *[float(model.mutual_information(xe, ye))] * 2))
                model.train()
                since = time.process_time()
        return found

    return run


if __name__ == "__main__":
    serve(make, {"torch-mist": version("torch-mist"), "torch (torch-mist)": torch.__version__})
