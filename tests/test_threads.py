"""Work side by side: order, errors, Ctrl-C, and numbers that do not depend on how many threads there are."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from problems import Gaussian

from flomi import estimate
from flomi.parallel import check_stop, one_thread, side_by_side


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """A Ctrl-C raises, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def until_stopped(found: list[str], hundredths: int = 1000) -> str:
    try:
        for _ in range(hundredths):
            time.sleep(0.01)
            check_stop()
    except KeyboardInterrupt:
        found.append("stopped")
        return "partial"
    return "whole"


def interrupting() -> str:
    time.sleep(0.2)  # until all jobs are submitted
    _thread.interrupt_main()
    return "whole"


def test_results_come_in_the_order_of_the_jobs() -> None:
    def late(k: int) -> int:
        time.sleep(0.02 * (3 - k))
        return k * torch.get_num_threads()

    assert side_by_side([partial(late, k) for k in range(4)], threads=4) == ([0, 1, 2, 3], False)


def test_ctrl_c_ends_those_that_run_and_drops_those_that_wait() -> None:
    found: list[str] = []
    jobs = [partial(until_stopped, found), interrupting, *[partial(until_stopped, found)] * 9]
    results, interrupted = side_by_side(jobs, threads=2)
    assert interrupted and results in (["partial", "whole"], ["partial", "whole", "partial"])
    assert found == ["stopped"] * (len(results) - 1)
    check_stop()  # nothing is left of it


def test_an_error_stops_the_others_and_is_raised() -> None:
    found: list[str] = []
    running = threading.Event()

    def first() -> str:
        running.set()
        return until_stopped(found)

    def fails() -> str:
        running.wait(10)
        raise ValueError("no")

    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="no"):
        side_by_side([first, fails, lambda: found.append("another")], threads=2)
    assert found == ["stopped"] and torch.get_num_threads() == before


def test_the_end_of_one_call_does_not_stop_another() -> None:
    other: list[object] = []
    beside = threading.Thread(
        target=lambda: other.append(side_by_side([partial(until_stopped, [], 40)] * 2, threads=2))
    )
    beside.start()
    while beside.is_alive():
        assert side_by_side([lambda: 1] * 2, threads=2) == ([1, 1], False)
    assert other == [(["whole"] * 2, False)]


def test_blocks_of_one_thread_may_overlap(two_threads: None) -> None:
    inside, leave = threading.Event(), threading.Event()

    def long() -> None:
        with one_thread():
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=long)
    other.start()
    inside.wait(10)
    with one_thread():
        leave.set()
        other.join()
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_estimates_are_made_where_the_caller_wants_no_gradient(mode: Callable[[], Any]) -> None:
    x, y = Gaussian(0.7, 2).sample(200)
    with mode():
        r = estimate(x, y, effort="fast", n_folds=2)
    assert r.mi == estimate(x, y, effort="fast", n_folds=2).mi


def test_folds_side_by_side_give_the_same_bits(two_threads: None) -> None:
    x, y = Gaussian(0.7, 2).sample(300)
    two = estimate(x, y, effort="fast", n_folds=2)
    torch.set_num_threads(1)
    one = estimate(x, y, effort="fast", n_folds=2)
    assert (two.mi, two.lower_bound, two.bound, two.verdict) == (
        one.mi,
        one.lower_bound,
        one.bound,
        one.verdict,
    )


def test_ctrl_c_keeps_the_folds_that_are_there(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from flomi.training.ensemble import _Stack

    update, calls = _Stack.update, 0

    def counted(self: _Stack, rate: float) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 40:
            _thread.interrupt_main()
        return update(self, rate)

    monkeypatch.setattr(_Stack, "update", counted)
    x, y = Gaussian(0.7, 2).sample(400)
    r = estimate(x, y, effort="fast")
    assert any("interrupted" in sentence for sentence in r.warnings) and r.verdict != "ok"
