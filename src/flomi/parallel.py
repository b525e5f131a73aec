"""Threads: one for numbers that must not depend on the machine, and several for pieces of work that run side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
_PATIENCE = 0.1  # seconds: a longer wait may not see a Ctrl-C

_mine = threading.local()  # .stop: the event that ends this thread's work
_lock = threading.Lock()
_inside = 0  # blocks of `one_thread`, of all threads
_restore = ExitStack()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for BLAS and torch inside the block: sums are then made in the same order, whatever the machine.

    Blocks may overlap in several threads: the first sets the limit, and the last one gives back what was before.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    global _inside
    with _lock:
        if _inside == 0:
            from threadpoolctl import threadpool_limits

            _restore.callback(torch.set_num_threads, torch.get_num_threads())
            _restore.enter_context(threadpool_limits(1))
        torch.set_num_threads(1)  # some backends count by thread
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _restore.close()


def side_by_side(jobs: Sequence[Callable[[], T]], threads: int) -> tuple[list[T], bool]:
    """What the jobs return, in their order, so many at a time, each on one thread; and whether a Ctrl-C came.

    Ctrl-C reaches the main thread alone: those that run are then stopped where they call `check_stop`, may return what they
    have, and those that wait are left out. A job's error stops the others likewise, and is raised.

    >>> side_by_side([lambda: 1, lambda: 2], threads=2)
    ([1, 2], False)
    """
    stop = threading.Event()

    def run(job: Callable[[], T]) -> T:
        _mine.stop = stop
        check_stop()
        try:
            return job()
        except Exception:
            stop.set()  # before this thread takes another job
            raise

    futures: list[Future[T]] = []
    interrupted = False
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        try:
            try:
                futures += (pool.submit(run, job) for job in jobs)
                while wait(futures, _PATIENCE, FIRST_EXCEPTION).not_done and not stop.is_set():
                    pass
            except KeyboardInterrupt:
                interrupted = True
                stop.set()
            wait(futures)
        finally:
            stop.set()  # a second Ctrl-C: nothing goes on behind the caller's back
            pool.shutdown()
    errors = [e for f in futures if (e := f.exception()) is not None]
    for error in errors:
        if not isinstance(error, KeyboardInterrupt):
            raise error
    return [f.result() for f in futures if f.exception() is None], interrupted or bool(errors)


def check_stop() -> None:
    """KeyboardInterrupt where a Ctrl-C, or another job's error, has ended the work of `side_by_side`."""
    stop = getattr(_mine, "stop", None)
    if stop is not None and stop.is_set():
        raise KeyboardInterrupt
