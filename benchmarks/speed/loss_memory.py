"""Memory and time of the FLO loss with dot-product scores, forward and backward: 32,768 rows of 128 features.

    python benchmarks/speed/loss_memory.py
    python benchmarks/speed/loss_memory.py --rows 8192 --chunk 128 256 512

A child process for each chunk. Memory is the child's peak less what it held just before the call. Time is beside that of the
matrix products which the loss can't avoid with the same chunks: scores, scores again for the gradient, two gradients.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from common import Row, parser, record
from torch import Tensor

import flomi
from flomi.losses import FLOLoss


def resident() -> float:
    """MB that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def products(a: Tensor, b: Tensor, chunk: int) -> None:
    g, of_a, of_b = a.new_empty(chunk, len(b)), torch.empty_like(a), torch.zeros_like(b)
    for start in range(0, len(a), chunk):
        torch.mm(a[start : start + chunk], b.T, out=g)
        torch.mm(a[start : start + chunk], b.T, out=g)
        torch.mm(g, b, out=of_a[start : start + chunk])
        of_b.addmm_(g.T, a[start : start + chunk])


def seconds(f: Callable[[], object]) -> float:
    start = time.process_time()
    f()
    return time.process_time() - start


def child(rows: int, dim: int, chunk: int, blocks: int) -> dict[str, float]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    loss = FLOLoss(dim, chunk=chunk)
    query, key = (torch.randn(rows, dim, requires_grad=True) for _ in range(2))
    loss(query[:64], key[:64]).backward()  # the gradients of the loss's own weights are there from now on
    query.grad = key.grad = None
    before = resident()
    times = [seconds(lambda: loss(query, key).backward())]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6 - before
    a, b = query.detach(), key.detach()
    pairs = []
    for k in range(blocks):  # the loss and its products in turn
        if k:
            times.append(seconds(lambda: loss(query, key).backward()))
        pairs.append((times[-1], seconds(lambda: products(a, b, chunk))))
    return {
        "peak": peak,
        "loss": median(p[0] for p in pairs),
        "products": median(p[1] for p in pairs),
        "ratio": median(p[0] / p[1] for p in pairs),
    }


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rows", type=int, default=32_768)
    made.add_argument("--dim", type=int, default=128)
    made.add_argument("--chunk", type=int, nargs="+", default=[256])
    made.add_argument("--blocks", type=int, default=3)
    made.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    call = made.parse_args()
    if call.child:
        print(json.dumps(child(call.rows, call.dim, call.chunk[0], call.blocks)))
        return
    rows = list[Row]()
    for chunk in call.chunk:
        command = [sys.executable, __file__, "--child", "--chunk", str(chunk)]
        command += [f"--{name}={getattr(call, name)}" for name in ("rows", "dim", "blocks")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
        case = f"{call.rows} x {call.dim}, chunk {chunk}"
        for quantity, name, unit, target in (
            ("peak additional memory", "peak", "MB", "<= 300"),
            ("loss", "loss", "s", ""),
            ("products", "products", "s", ""),
            ("ratio", "ratio", "", "<= 1.6"),
        ):
            rows.append((case, quantity, found[name], unit, target))
    about = {"flomi": flomi.__version__, "torch": torch.__version__, "python": platform.python_version()}
    record(rows, about, call)


if __name__ == "__main__":
    main()
