"""Seconds of training until the held-out estimate stays within 5 % of the truth: Gaussians, 20 + 20 dimensions, 100,000 rows.

    python benchmarks/speed/time_to_accuracy.py --torch-mist PYTHON
    python benchmarks/speed/time_to_accuracy.py --only call        # `flomi.estimate` from the call to the answer, 10,000 rows

Every weight starts at random, and all are looked at every ten steps. flomi maximises InfoNCE over y' and over x' on all pairs
of a batch, in one setting for all levels; its value is the Donsker-Varadhan bound on held-out rows, which is its plug-in too.
"encoders" is a network of two encoders beside a quadratic layer, "joint" a perceptron on both sides beside it; "quadratic" is
that layer alone, the right family for Gaussians and for nothing else, so it bears no ratio. A peer has its default critic and a
wider one; its value is what the library reports on the same rows. A peer that crosses the truth on its way up, and does not
stay, is timed at its first crossing, which flatters it. The clock stops during evaluation.

What this does not show: flomi's rate, steps and sizes were tried out on Gaussians of these levels (other rows and weights), the
peers' on nothing; and two of flomi's critics hold the layer that Gaussians ask for, though they do not start from it.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
from common import Row, Side, gaussian, parser, record

LEVELS = (2, 6, 10)
ROWS, HELD = 100_000, 10_000
MINE = {
    f"flomi {critic}": {
        "critic": critic, "hidden": hidden, "bound": "two-sided", "negatives": "all", "batch": 256, "lr": 6e-2, "every": 10,
        "m": 32, "weight_decay": 0.0,
    }
    for critic, hidden in (("encoders", [16]), ("joint", [8]), ("quadratic", []))
}  # fmt: skip
PEERS = {
    f"torch-mist {bound} {kind}": {
        "bound": bound, "batch": batch, "lr": lr, "every": 10, "hidden_dims": hidden, "neg_samples": 1,
    }
    for kind, batch, lr, hidden in (("default", 128, 5e-4, [128]), ("wide", 512, 1e-3, [256, 256]))
    for bound in ("smile", "mine")
}  # fmt: skip


def reached(trace: list[list[float]], truth: float) -> tuple[float, float]:
    """Seconds to the first value within 5 %, and to that from which all are; infinite where there is none."""
    near = [abs(row[1] / truth - 1) <= 0.05 for row in trace]
    first = next((row[0] for row, ok in zip(trace, near, strict=True) if ok), math.inf)
    away = max((k for k, ok in enumerate(near) if not ok), default=-1)
    return first, trace[away + 1][0] if away + 1 < len(trace) else math.inf


Part = tuple[list[Row], dict[str, str]]  # of one level: rows of the table, and versions


def networks(call: argparse.Namespace) -> Iterator[Part]:
    python = call.torch_mist
    sides = {"flomi": Side("flomi", sys.executable, call.threads)}
    if python:
        sides["torch-mist"] = Side("torch-mist", python, call.threads)
    settings = MINE | {k: v for k, v in PEERS.items() if python and k.split()[-1] in call.peer_kinds}
    with tempfile.TemporaryDirectory() as place:
        for nats in call.levels:
            data, held = (str(Path(place) / f"{what}-{nats}.npz") for what in ("rows", "held"))
            for file, n, seed in ((data, ROWS, 41), (held, HELD, 42)):
                x, y = gaussian(n, nats, seed)
                np.savez(file, x=x, y=y)
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in settings}
            for seed in range(200, 200 + call.seeds):
                for name, setting in settings.items():
                    side = sides[name.split()[0]]
                    side.make(what="trace", data=data, held=held, seed=seed, **setting)
                    steps = call.steps if name in MINE else call.peer_steps
                    _, trace = side.run(steps)
                    found[name].append((*reached(trace, nats), trace[-1][1]))
                    first, stays, end = found[name][-1]
                    print(
                        f"{nats} nats, seed {seed}, {name}: first {first:.2f} s, stays {stays:.2f} s, ends at {end:.2f} "
                        f"after {trace[-1][0]:.1f} s",
                        file=sys.stderr,
                        flush=True,
                    )
            middle = {
                name: [median(column) for column in zip(*runs, strict=True)] for name, runs in found.items()
            }
            rows = list[Row]()
            for name, (first, stays, end) in middle.items():
                rows += [
                    (f"{nats} nats", f"{name}: first", first, "s", ""),
                    (f"{nats} nats", f"{name}: stays", stays, "s", ""),
                    (f"{nats} nats", f"{name}: at the end", end, "nats", ""),
                ]
            best = min((middle[name][0] for name in settings if name not in MINE), default=math.inf)
            if math.isfinite(best):
                ratio = middle["flomi encoders"][1] / best
                rows.append((f"{nats} nats", "encoders' stays / the best peer's first", ratio, "", "<= 0.5"))
            yield rows, {k: v for side in sides.values() for k, v in side.versions.items()}
    for side in sides.values():
        side.close()


def calls(call: argparse.Namespace) -> Iterator[Part]:
    """`flomi.estimate` with critic="auto", effort "fast", in a process that has imported it and answered once."""
    side = Side("flomi", sys.executable, call.threads)
    with tempfile.TemporaryDirectory() as place:
        for nats in call.levels:
            data = str(Path(place) / f"call-{nats}.npz")
            x, y = gaussian(10_000, nats, seed=3)
            np.savez(data, x=x, y=y)
            side.make(what="call", data=data, effort="fast")
            seconds, mi = side.run(1)
            case = f"call, {nats} nats"
            found = [
                (case, "seconds", seconds, "s", "<= 5"),
                (case, "error", mi / nats - 1, "", "within 0.05"),
            ]
            yield found, side.versions
    side.close()


def main() -> None:
    made = parser(__doc__, "torch-mist")
    made.add_argument("--only", choices=("networks", "call"))
    made.add_argument("--levels", type=int, nargs="+", default=LEVELS, help="nats")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--steps", type=int, default=150, help="of flomi's training")
    made.add_argument("--peer-steps", type=int, default=4000)
    made.add_argument("--peer-kinds", nargs="+", choices=("default", "wide"), default=["default", "wide"])
    call = made.parse_args()
    for name, part in (("networks", networks), ("call", calls)):
        if call.only in (None, name):
            for rows, versions in part(call):  # a level at a time, so that what is done is kept
                record(rows, versions, call)


if __name__ == "__main__":
    main()
