"""Is this machine set up well: versions, cores, devices, and an estimate whose answer is known."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import time
from dataclasses import dataclass
from typing import Any

from flomi._version import __version__
from flomi.support.settings import setting

_CORE = ("torch", "numpy", "scipy", "scikit-learn", "pandas", "narwhals", "safetensors", "typer", "tqdm")
_EXTRAS = {"matplotlib": "plot", "jinja2": "report", "pyarrow": "data", "polars": "data"}


@dataclass(frozen=True)
class KnownAnswerSettings:
    """The estimate whose answer is known: two Gaussians."""

    correlation: float = setting(0.8, "an MI of 0.51 nats, neither small nor large")
    rows: int = setting(2000, "an answer in seconds")
    tolerance: float = setting(0.08, "nats, about four standard errors")


SETTINGS = KnownAnswerSettings()


def examine() -> dict[str, Any]:
    """Everything that `flomi doctor` shows, as a JSON-able dictionary; "ok" says whether the known answer was found."""
    check, (threads, devices) = _known_answer(), _threads_and_devices()
    return {
        "flomi": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "threads": threads,
        "devices": devices,
        "packages": {name: _version(name) for name in (*_CORE, *_EXTRAS)},
        "check": check,
        "ok": check["ok"],
    }


def as_text(facts: dict[str, Any]) -> str:
    """The facts of `examine` for people."""
    rows = [
        ("flomi", facts["flomi"]),
        ("Python", f"{facts['python']} on {facts['platform']}"),
        ("cores", f"{facts['cores']}, of which torch uses {facts['threads']}"),
        ("devices", ", ".join(facts["devices"])),
    ]
    for name, version in facts["packages"].items():
        missing = "NOT INSTALLED: pip install flomi"
        if name in _EXTRAS:
            missing = f"not installed (only needed for some things: pip install 'flomi[{_EXTRAS[name]}]')"
        rows.append((name, version or missing))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    check = facts["check"]
    data = f"two Gaussians with correlation {SETTINGS.correlation}, {SETTINGS.rows:,} rows"
    lines += ["", f"known answer: {data}, effort fast"]
    if check["error"]:
        lines.append(f"  FAILED: {check['error']}")
    else:
        lines.append(
            f"  estimate {check['estimate']:.3f} ± {check['stderr']:.3f}, truth {check['truth']:.3f} nats, "
            f"{check['seconds']:.1f} s: {'ok' if check['ok'] else 'FAILED, too far from the truth'}"
        )
    return "\n".join(lines)


def _known_answer() -> dict[str, Any]:
    rho = SETTINGS.correlation
    truth = -0.5 * math.log(1 - rho**2)
    start = time.perf_counter()
    try:
        import numpy as np

        from flomi.estimator import estimate

        x, noise = np.random.default_rng(0).standard_normal((2, SETTINGS.rows))
        result = estimate(x, rho * x + math.sqrt(1 - rho**2) * noise, effort="fast", seed=0)
    except Exception as error:  # whatever is broken is the finding
        found: dict[str, Any] = {"estimate": None, "stderr": None, "ok": False}
        found["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    else:
        close = abs(result.mi - truth) < SETTINGS.tolerance
        found = {"estimate": result.mi, "stderr": result.stderr, "ok": close, "error": None}
    return {"truth": truth, "tolerance": SETTINGS.tolerance, "seconds": time.perf_counter() - start, **found}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _threads_and_devices() -> tuple[int | None, list[str]]:
    try:
        import torch
    except ImportError:
        return None, ["torch is missing"]
    found = ["cpu"]
    found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return torch.get_num_threads(), found
