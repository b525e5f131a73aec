"""Draw the picture at the top of the README: a noisy ring, which correlation misses and mutual information does not.

Run `python benchmarks/readme_figure.py`; it writes docs/figures/readme.svg and docs/figures/readme.png.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
from scipy.integrate import simpson
from scipy.special import i0e

import flomi

FIGURES = Path(__file__).resolve().parent.parent / "docs" / "figures"
NOISE = 0.15
ROWS = 5_000


def ring(n: int, seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Points on the unit circle plus Gaussian noise in both coordinates."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, n)
    noise = NOISE * rng.standard_normal((2, n))
    return np.cos(angle) + noise[0], np.sin(angle) + noise[1]


def truth() -> float:
    """I(x; y) of the ring in nats, by quadrature: p(x, y) depends on the radius alone, by a Bessel function."""
    grid = np.linspace(-1 - 8 * NOISE, 1 + 8 * NOISE, 2_001)
    radius = np.hypot(grid[:, None], grid[None, :])
    variance = NOISE**2
    density = np.exp(-((radius - 1) ** 2) / (2 * variance)) * i0e(radius / variance) / (2 * np.pi * variance)
    marginal = simpson(density, x=grid)
    log_ratio = np.log(np.maximum(density, 1e-300)) - np.log(np.multiply.outer(marginal, marginal))
    return float(simpson(simpson(density * log_ratio, x=grid), x=grid))


def main() -> None:
    x, y = ring(ROWS, seed=0)
    result = flomi.estimate(x, y, seed=0)
    correlation = abs(np.corrcoef(x, y)[0, 1])
    figure = result.plot()
    figure.axes[2].set(xlabel="x", ylabel="y")
    figure.suptitle(
        f"I(x; y) = {result.mi:.2f} ± {result.stderr:.2f} nats (truth {truth():.2f}), "
        f"at least {result.lower_bound:.2f} with 95 % confidence; |correlation| {correlation:.2f}",
        x=0.01,
        ha="left",
        fontsize=12,
    )
    FIGURES.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "flomi"}):
        for suffix in ("svg", "png"):
            metadata = {"Date": None} if suffix == "svg" else {"Software": None}
            figure.savefig(FIGURES / f"readme.{suffix}", dpi=200, metadata=metadata)
    print(result)


if __name__ == "__main__":
    main()
