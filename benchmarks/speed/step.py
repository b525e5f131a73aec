"""Seconds of one training step beside the peers', and beside the matrix products that a step can't avoid; 20 + 20 dimensions.

    python benchmarks/speed/step.py --torch-mist PYTHON --benchmark-mi PYTHON
    python benchmarks/speed/step.py --only joint-256       # what needs no peer runs without one

PYTHON is the interpreter of a virtual environment that has the peer (README.md says which versions). flomi's side is its whole
training loop, with batches, clipping and schedule; the peers' is the shortest loop around their loss and optimiser.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import Row, Side, gaussian, in_turn, parser, record

ROWS, NATS = 8192, 2.0


def cases(data: str) -> list[tuple[str, str, dict, dict, tuple[int, int], str]]:
    """(case, other side, what flomi makes, what the other makes, steps a block of both, target of the ratio)."""
    found: list[tuple[str, str, dict, dict, tuple[int, int], str]] = []
    for batch, target, steps in ((256, "<= 0.05", (40, 5)), (1024, "<= 0.03", (6, 1))):
        for bound in ("flo", "infonce"):
            # the peer's default, hidden_dims=[128], is a linear map to 128 features on each side
            mine = {"what": "step", "data": data, "critic": "separable", "hidden": [], "features": 128}
            theirs = {
                "what": "step",
                "data": data,
                "hidden_dims": [128],
                "neg_samples": 0 if bound == "infonce" else -1,
            }
            shared = {"bound": bound, "batch": batch}
            found.append(
                (f"separable-{bound}-{batch}", "torch-mist", mine | shared, theirs | shared, steps, target)
            )
    for batch, steps in ((256, (20, 20)), (1024, (3, 3))):
        mine = {"what": "step", "data": data, "critic": "mlp", "heads": 1}
        shared = {"bound": "infonce", "batch": batch, "hidden": [16, 8]}
        found.append(
            (f"joint-16-8-{batch}", "benchmark-mi", mine | shared, {"data": data} | shared, steps, "<= 0.6")
        )
    wide = {"what": "step", "data": data, "critic": "mlp", "bound": "flo", "batch": 256, "hidden": [256, 256]}
    products = {"what": "products", "rows": 256 * 256, "width": 256}
    found.append(("joint-256-256-of-products", "flomi", wide, products, (3, 3), "<= 1.3"))
    if has_amx():
        found.append(
            ("joint-256-256-medium", "flomi", wide | {"precision": "medium"}, wide, (2, 1), "<= 0.5")
        )
    else:
        print("joint-256-256-medium is left out: this processor has no AMX", file=sys.stderr)
    return found


def has_amx() -> bool:
    """Whether the processor multiplies bfloat16 tiles, which precision "medium" is for."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and "amx_bf16" in flags.read_text()


def main() -> None:
    made = parser(__doc__, "torch-mist", "benchmark-mi")
    made.add_argument("--only", default="", help="the cases whose name starts so")
    made.add_argument("--blocks", type=int, default=7, help="pairs of blocks a case")
    call = made.parse_args()
    python = {"torch-mist": call.torch_mist, "benchmark-mi": call.benchmark_mi, "flomi": sys.executable}
    sides: dict[tuple[str, int], Side] = {}

    def side(
        name: str, k: int = 0
    ) -> Side:  # a second one of the same name where flomi stands against itself
        if (name, k) not in sides:
            sides[name, k] = Side(name, python[name], call.threads)
        return sides[name, k]

    with tempfile.TemporaryDirectory() as place:
        data = str(Path(place) / "rows.npz")
        x, y = gaussian(ROWS, NATS, seed=0)
        np.savez(data, x=x, y=y)
        for case, other, mine, theirs, steps, target in cases(data):
            if not case.startswith(call.only) or python[other] is None:
                continue
            a, b = side("flomi"), side(other, 1 if other == "flomi" else 0)
            a.make(**mine)
            b.make(**theirs)
            first, second, ratio = in_turn(a, b, steps, call.blocks)
            named = other if other != "flomi" else {"products": "products"}.get(theirs["what"], "float32")
            rows: list[Row] = [
                (case, "flomi", first * 1e3, "ms a step", ""),
                (case, named, second * 1e3, "ms a step", ""),
                (case, "ratio", ratio, "", target),
            ]
            record(rows, a.versions | b.versions, call)
    for each in sides.values():
        each.close()


if __name__ == "__main__":
    main()
