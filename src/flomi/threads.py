"""Threads: one for numbers that must not depend on the machine, and several for pieces of work that run side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["check_stop", "one_thread", "side_by_side"]

T = TypeVar("T")
_PATIENCE = 0.1  # seconds: a longer wait may not see a Ctrl-C
_stop = threading.Event()


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


def side_by_side(jobs: Sequence[Callable[[], T]], threads: int) -> tuple[list[T], bool]:
    """What the jobs return, in their order, so many at a time, each on one thread; and whether a Ctrl-C came.

    Ctrl-C reaches the main thread alone: those that run are then stopped where they call `check_stop`, may return what they
    have, and those that wait are left out. A job's error stops the others likewise, and is raised.

    >>> side_by_side([lambda: 1, lambda: 2], threads=2)
    ([1, 2], False)
    """
    _stop.clear()
    futures: list[Future[T]] = []
    interrupted = False
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        try:
            try:
                futures += (pool.submit(job) for job in jobs)
                while wait(futures, _PATIENCE, FIRST_EXCEPTION).not_done and not _failed(futures):
                    pass
            except KeyboardInterrupt:
                interrupted = True
            if interrupted or _failed(futures):
                _stop.set()
                for future in futures:
                    future.cancel()
                wait(futures)
        finally:
            _stop.set()  # a second Ctrl-C: nothing goes on behind the caller's back
            pool.shutdown(cancel_futures=True)
            _stop.clear()
    finished = [f for f in futures if not f.cancelled()]
    errors = [e for f in finished if (e := f.exception()) is not None]
    for error in errors:
        if not isinstance(error, KeyboardInterrupt):
            raise error
    return [f.result() for f in finished if f.exception() is None], interrupted or bool(errors)


def _failed(futures: Sequence[Future[T]]) -> bool:
    return any(f.done() and f.exception() is not None for f in futures)


def check_stop() -> None:
    """KeyboardInterrupt where a Ctrl-C, or another job's error, has ended the work of `side_by_side`."""
    if _stop.is_set():
        raise KeyboardInterrupt
