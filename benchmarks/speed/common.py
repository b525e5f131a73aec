"""What the scripts of this folder share: sides in processes of their own, blocks in turn, and the table of results.

Each side is a persistent child under its own interpreter, so that peers whose dependencies exclude each other run side by
side on the same data. Blocks of steps go A B A B, and a ratio is the median over these pairs. With one thread a side, seconds
are of the processor (user and system), since other work on the machine moves those of the clock; with more they are of the clock.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
OUT = HERE.parent / "results" / "speed.csv"
DIM = 20


class Side:
    """A child process that answers orders: `make` a configuration, then `run` steps of it."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        self.name, self.threads = name, threads
        self.versions: dict[str, str] = {}
        env = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "OMP_WAIT_POLICY": "PASSIVE",
            "NPROC": str(threads),  # read by XLA
            "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={'true' if threads > 1 else 'false'}",
        }
        self.child = subprocess.Popen(
            [python, str(HERE / f"side_{name.replace('-', '_')}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def close(self) -> None:
        self.child.stdin.close()
        self.child.wait()

    def _ask(self, **order: Any) -> dict[str, Any]:
        print(json.dumps(order), file=self.child.stdin, flush=True)
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"the side {self.name} ended on {order}")
        answer = json.loads(line)
        self.versions = answer["versions"]
        return answer

    def make(self, **configuration: Any) -> None:
        self._ask(make=configuration)

    def run(self, steps: int) -> tuple[float, Any]:
        """Seconds of `steps` steps, and what they returned."""
        answer = self._ask(run=steps)
        return answer["processor" if self.threads == 1 else "wall"], answer["result"]


def in_turn(a: Side, b: Side, steps: tuple[int, int], blocks: int) -> tuple[float, float, float]:
    """Median seconds a step of a and of b, and the median ratio a / b, from blocks that run A B A B."""
    pairs = []
    for _ in range(blocks):
        pairs.append([side.run(n)[0] / n for side, n in zip((a, b), steps, strict=True)])
    return median(p[0] for p in pairs), median(p[1] for p in pairs), median(p[0] / p[1] for p in pairs)


def gaussian(n: int, nats: float, seed: int, dim: int = DIM) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, dim] of x and of y, float32: independent pairs of columns that hold `nats` together."""
    rng = np.random.default_rng(seed)
    rho = math.sqrt(1 - math.exp(-2 * nats / dim))
    x, noise = rng.standard_normal((2, n, dim), dtype=np.float32)
    return x, np.float32(rho) * x + np.float32(math.sqrt(1 - rho**2)) * noise


def parser(doc: str | None, *peers: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for peer in peers:
        made.add_argument(
            f"--{peer}", metavar="PYTHON", help=f"interpreter of an environment that has {peer}"
        )
    made.add_argument("--threads", type=int, default=1, choices=(1, 2), help="of each side")
    made.add_argument("--dry", action="store_true", help="print, and add nothing to the table")
    return made


Row = tuple[str, str, float, str, str]  # case, quantity, value, unit, target


def record(rows: Iterable[Row], versions: dict[str, str], call: argparse.Namespace) -> None:
    """Print the rows and append them to results/speed.csv, with command, versions and date."""
    frame = pd.DataFrame(list(rows), columns=["case", "quantity", "value", "unit", "target"])
    print(frame.to_string(index=False), flush=True)
    if call.dry:
        return
    script = Path(sys.argv[0])
    # interpreters are named by what they hold, not by where they lie on this machine
    words = ["PYTHON" if i and sys.argv[i].startswith("--") and word.endswith("python") else word
             for i, word in enumerate(sys.argv[1:])]  # fmt: skip
    head = ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(head, capture_output=True, text=True).stdout.strip()
    about = {"python": platform.python_version(), **versions} | ({"commit": commit} if commit else {})
    frame = frame.assign(
        threads=call.threads,
        command=shlex.join(["python", f"benchmarks/speed/{script.name}", *words]),
        versions=", ".join(f"{k} {v}" for k, v in about.items()),
        date=datetime.date.today().isoformat(),
    )
    frame.insert(0, "script", script.stem)
    frame["value"] = frame["value"].map(lambda v: f"{v:.5g}" if isinstance(v, float) else v)
    OUT.parent.mkdir(exist_ok=True)
    frame.to_csv(OUT, mode="a", header=not OUT.exists(), index=False)
