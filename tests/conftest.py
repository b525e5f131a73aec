"""Settings for every test: one thread a process, no window, and random numbers that do not depend on the test order."""

from __future__ import annotations

import gc
import os
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch

gc.disable()  # until all tests are collected


def pytest_collection_finish() -> None:
    """Modules and thousands of tests stay to the end: the garbage collector need not look at them over and over."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture
def short_offsets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps for the log-offsets of networks, which take longest in small fits: for tests of other things than values."""
    from flomi.training import bound

    monkeypatch.setattr(bound, "SETTINGS", replace(bound.SETTINGS, offset_steps=10))
