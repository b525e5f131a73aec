"""One thread at a time, for numbers that must not depend on the machine or on what runs beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for BLAS and torch inside the block, as many as before after it: sums are then made in the same order.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
