"""How little dependence does the default call find? The smallest MI found in 19 of 20 samples, by kind, rows and columns.

    python benchmarks/sight.py run --out benchmarks/results/sight.csv [--part 0/2]     # resumable: a line for each sample
    python benchmarks/sight.py table benchmarks/results/sight.csv                      # writes src/flomi/inference/sight.csv
    python benchmarks/sight.py confirm --out benchmarks/results/sight_confirmed.csv    # then `table ... --confirmed` of this

Three kinds of dependence, each with an exact MI, between two sides of normal columns that are independent otherwise:

    linear    a correlation between one random direction of each side
    pair      one column of each side, of which one rises with the distance of the other from its middle: no correlation
    three     the same between sums of three columns of each side

Levels are drawn where the chance to be found goes from low to high; a logistic curve in log MI says where it is 19/20. No random
task is looked at.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pandas as pd
from scipy import optimize, special

SIZES = (300, 1000, 3000)
COLUMNS = {"linear": (1, 5, 25), "pair": (1, 5, 25), "three": (3, 10, 30)}
RUNS = 10
TABLE = Path(__file__).parents[1] / "src/flomi/inference/sight.csv"


def sample(kind: str, n: int, d: int, mi: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x, y = rng.standard_normal((2, n, d))
    if mi == 0:
        return x, y
    count = {"linear": d, "pair": 1, "three": min(3, d)}[kind]
    directions = []
    for _ in range(2):
        w = np.zeros(d)
        w[:count] = rng.standard_normal(count) if kind == "linear" else 1.0
        directions.append(w / np.linalg.norm(w))
    s = x @ directions[0]
    if kind != "linear":  # normal again, and independent of the sign that it forgets
        s = special.ndtri(np.abs(2 * special.ndtr(s) - 1).clip(1e-12, 1 - 1e-12))
    rho = np.sqrt(1 - np.exp(-2 * mi))
    t = rho * s + np.sqrt(1 - rho**2) * rng.standard_normal(n)
    y += (t - y @ directions[1])[:, None] * directions[1]
    return (x, y) if rng.random() < 0.5 else (y, x)


def found(kind: str, x: np.ndarray, y: np.ndarray, seed: int) -> bool:
    """Of a correlation and of one pair the closed forms see all that networks would, in a fraction of the time."""
    import flomi
    from flomi.critics import CRITICS
    from flomi.critics.table import TrainingRows, default_candidates

    rows = TrainingRows(int(0.6 * len(x)), x.shape[1], y.shape[1], continuous=True)
    names = default_candidates(rows, density=False, costly=False)
    quick = [name for name in names if CRITICS[name].fit is not None]
    r = flomi.estimate(x, y, critic="auto" if kind == "three" else quick, effort="fast", seed=seed)
    return not CRITICS[r.critic].null


def limits(cells: dict[tuple[int, int], pd.DataFrame]) -> dict[tuple[int, int], float]:
    """Where the likeliest logistic curves in log MI, a place a cell and one slope, cross 19/20; 2 log n if none is found."""

    def place(at: np.ndarray, seen: np.ndarray, slope: float) -> tuple[float, float]:
        def cost(p: float) -> float:
            z = slope * (at - p)
            return float(np.sum(np.logaddexp(0, z) - seen * z))

        best = optimize.minimize_scalar(cost, bounds=(at.min() - 1, at.max() + 1), method="bounded")
        return float(best.x), float(best.fun)

    data = {
        key: (np.log(runs.mi.to_numpy(float)), runs.found.to_numpy().astype(float))
        for key, runs in cells.items()
    }
    both = {key: v for key, v in data.items() if 0 < v[1].sum() < len(v[1])}
    slope = optimize.minimize_scalar(
        lambda s: sum(place(*v, s)[1] for v in both.values()), bounds=(0.5, 8), method="bounded"
    ).x
    print(f"slope {slope:.2f}")
    return {
        key: np.exp(place(*v, slope)[0] + np.log(19) / slope) if v[1].any() else 2 * np.log(key[0])
        for key, v in data.items()
    }


def run(out: Path, part: int, parts: int) -> None:
    import torch

    torch.set_num_threads(1)
    known = (
        pd.read_csv(out) if out.exists() else pd.DataFrame(columns=["kind", "n", "columns", "mi", "found"])
    )
    cells = [(kind, n, d) for n in SIZES for kind, many in COLUMNS.items() for d in many]
    for kind, n, d in cells[part::parts]:
        runs = known[(known.kind == kind) & (known.n == n) & (known["columns"] == d)]
        lines = list(zip(runs.mi, runs.found, strict=True))
        for k in range(len(lines), RUNS):
            rng = np.random.default_rng([n, d, k, *kind.encode()])
            misses = [mi for mi, seen in lines if not seen]
            finds = [mi for mi, seen in lines if seen]
            # around the border that the samples so far show, at first far from it
            low = max(misses) if misses else min(finds, default=4.0 * d / n) / 2
            high = min(finds) if finds else 2 * low
            centre = np.sqrt(low * high)
            mi = float(min(centre * np.exp(rng.uniform(-0.4, 0.7)), np.log(n)))
            seen = found(kind, *sample(kind, n, d, mi, rng), k)
            lines.append((mi, seen))
            fresh = not out.exists()
            with out.open("a", newline="") as file:
                writer = csv.writer(file)
                if fresh:
                    writer.writerow(["kind", "n", "columns", "mi", "found", "date"])
                writer.writerow([kind, n, d, f"{mi:.5f}", seen, datetime.date.today()])


def confirm(out: Path, kinds: list[str], part: int, parts: int) -> None:
    """Twenty fresh samples at each limit of the table, which rises until 19 are found: levels that were sought lie low."""
    import torch

    torch.set_num_threads(1)
    with TABLE.open(newline="") as lines:
        cells = [
            r
            for r in csv.DictReader(line for line in lines if not line.startswith("#"))
            if r["kind"] in kinds
        ]
    for cell in cells[part::parts]:
        kind, n, d, mi = cell["kind"], int(cell["n"]), int(cell["columns"]), float(cell["limit"])
        while mi < np.log(n):
            seen = 0
            for k in range(20):
                rng = np.random.default_rng([n, d, k, int(1e6 * mi), *kind.encode()])
                seen += found(kind, *sample(kind, n, d, mi, rng), 1000 + k)
                if k + 1 - seen > 1:
                    break
            if seen >= 19:
                break
            mi *= 1.5
        fresh = not out.exists()
        with out.open("a", newline="") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["kind", "n", "columns", "limit", "date"])
            writer.writerow([kind, n, d, f"{mi:.5f}", datetime.date.today()])


def table(files: list[Path], confirmed: Path | None) -> None:
    d = pd.concat([pd.read_csv(f) for f in files])
    known = {}
    if confirmed is not None:
        known = {(r.kind, r.n, r.columns): r.limit for r in pd.read_csv(confirmed).itertuples(index=False)}
    with TABLE.open("w", newline="") as file:
        print(
            f"# smallest MI found in 19 of 20, nats; python benchmarks/sight.py table, {datetime.date.today()}",
            file=file,
        )
        writer = csv.writer(file)
        writer.writerow(["kind", "n", "columns", "limit", "confirmed"])
        for kind, of_kind in d.groupby("kind"):
            cells = {(int(n), int(c)): runs for (n, c), runs in of_kind.groupby(["n", "columns"])}
            for (n, columns), found in limits(cells).items():
                checked = known.get((kind, n, columns))
                writer.writerow(
                    [kind, n, columns, f"{checked or found:.4f}", "no" if checked is None else "yes"]
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--part", default="0/1")
    two = commands.add_parser("table")
    two.add_argument("files", type=Path, nargs="+")
    two.add_argument("--confirmed", type=Path)
    three = commands.add_parser("confirm")
    three.add_argument("--out", type=Path, required=True)
    three.add_argument("--kinds", nargs="+", default=["linear", "pair", "three"])
    three.add_argument("--part", default="0/1")
    given = parser.parse_args()
    if given.command == "run":
        run(given.out, *map(int, given.part.split("/")))
    elif given.command == "confirm":
        confirm(given.out, given.kinds, *map(int, given.part.split("/")))
    else:
        table(given.files, given.confirmed)


if __name__ == "__main__":
    main()
