"""Memory and time of `flomi estimate` on a Parquet folder, against a file that is read whole: 10 + 10 columns, truth known.

    python benchmarks/stream.py 2000000       # about 0.3 GB on disk; appends to benchmarks/results/stream.csv
    python benchmarks/stream.py 20000000      # the size that the claim is about: 3.2 GB on disk, about 10 minutes
    python benchmarks/stream.py 20000000 --kind npy --effort standard --folder /big/disk

x is Gaussian and y is x plus Gaussian noise in rotated coordinates, every column then stretched by an increasing function of
its own. A child process makes the data, row group by row group, and others run the command line on it: once on a file of
200,000 rows, which is read whole, and once on the folder. Their peak resident memory is what the system reports of them. Times
are of the processor (user and system), as other work on the machine doubles those of the clock; both are written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
import torch

import flomi

OUT = Path(__file__).parent / "results" / "stream.csv"
DIM, NATS, ROWS = 10, 2.0, 200_000
GROUP, FILE = 100_000, 1_000_000  # rows of a row group, and of a file


def columns(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows [n, DIM] of x and of y with mutual information NATS."""
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(DIM, DIM)))[0]
    rho = math.sqrt(1 - math.exp(-2 * NATS / DIM))
    x, noise = rng.normal(size=(2, n, DIM))
    y = (rho * x + math.sqrt(1 - rho**2) * noise) @ turn
    stretch = (lambda v: v, np.exp, lambda v: v**3, np.arctan, lambda v: np.sign(v) * np.sqrt(np.abs(v)))
    for side in (x, y):
        for j in range(DIM):
            side[:, j] = stretch[j % len(stretch)](side[:, j])
    return x, y


def make(kind: str, n: int, place: Path) -> list[str]:
    """Write the data and return the arguments that name it."""
    rng = np.random.default_rng(n)
    names = [f"{side}{j}" for side in "xy" for j in range(DIM)]
    starts = range(0, n, GROUP)
    if kind == "npy":
        files = [place / f"{side}-{n}.npy" for side in "xy"]
        sides = [np.lib.format.open_memmap(file, "w+", np.float64, (n, DIM)) for file in files]
        for start in starts:
            for side, values in zip(sides, columns(min(GROUP, n - start), rng), strict=True):
                side[start : start + GROUP] = values
        return [str(file) for file in files]
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = place / f"rows-{n}"
    folder.mkdir()
    writer = None
    for start in starts:
        if start % FILE == 0:
            if writer is not None:
                writer.close()
            writer = pq.ParquetWriter(
                folder / f"part-{start // FILE:03d}.parquet", pa.schema([(c, pa.float64()) for c in names])
            )
        sides = np.concatenate(columns(min(GROUP, n - start), rng), axis=1)
        writer.write_table(pa.table(dict(zip(names, sides.T, strict=True))), row_group_size=GROUP)
    writer.close()
    chosen = ["--x", "x*", "--y", "y*"]
    return [str(folder if n > FILE else folder / "part-000.parquet"), *chosen]


def run(kind: str, n: int, effort: str, place: Path) -> dict[str, object]:
    """One process of the command line: its peak memory, its times, its numbers."""
    made = subprocess.run(
        [sys.executable, __file__, str(n), "--kind", kind, "--make", str(place)],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        sys.exit(made.stderr)
    command = [
        sys.executable,
        "-m",
        "flomi",
        "estimate",
        *json.loads(made.stdout),
        "--effort",
        effort,
        "--json",
        "-q",
    ]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    text = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    result, processor = json.loads(text), used.ru_utime + used.ru_stime
    return {
        "kind": kind, "rows": n, "effort": effort, "peak_mb": round(used.ru_maxrss / 1024), "processor_s": round(processor, 1),
        "clock_s": round(time.perf_counter() - start, 1), "rows_a_processor_s": round(n / processor), "truth": NATS,
        "mi": round(result["mi"], 5), "stderr": round(result["stderr"], 5), "bound": round(result["bound"], 4),
        "lower_bound": round(result["lower_bound"], 4), "critic": result["critic"], "drawn": result["n"],
        "flomi": flomi.__version__, "torch": torch.__version__, "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("rows", type=int)
    parser.add_argument("--kind", choices=("parquet", "npy"), default="parquet")
    parser.add_argument("--effort", default="fast")
    parser.add_argument(
        "--folder", help="where the data is made, and removed again; a temporary folder unless given"
    )
    parser.add_argument("--make", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        print(json.dumps(make(options.kind, options.rows, Path(options.make))))
        return
    found = []
    for n in (ROWS, options.rows):
        with tempfile.TemporaryDirectory(dir=options.folder) as place:
            found.append(run(options.kind, n, options.effort, Path(place)))
            print(found[-1], flush=True)
    small, large = (row["rows_a_processor_s"] for row in found)
    print(
        f"rows a second of processor: {large / small:.2f} of those of {ROWS:,} rows; {found[1]['peak_mb']} MB at most"
    )
    table = pd.DataFrame(found)
    if OUT.exists():
        table = pd.concat([pd.read_csv(OUT), table])
    table.to_csv(OUT, index=False)


if __name__ == "__main__":
    main()
