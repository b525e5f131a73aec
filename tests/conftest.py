"""Settings for every test: one thread a process, no window, and random numbers that do not depend on the test order."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest
import torch


def pytest_collection_finish() -> None:
    """Modules and thousands of tests stay to the end: the garbage collector need not look at them over and over."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
