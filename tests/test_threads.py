"""Work side by side: order, errors, Ctrl-C, and numbers that do not depend on how many threads there are."""

from __future__ import annotations

import _thread
import time
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from problems import Gaussian

from flomi import estimate
from flomi.threads import check_stop, side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def until_stopped(found: list[str]) -> str:
    try:
        for _ in range(1000):
            time.sleep(0.01)
            check_stop()
    except KeyboardInterrupt:
        found.append("stopped")
    return "partial"


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
    assert interrupted and results == ["partial", "whole", "partial"][: len(results)] and len(results) > 1
    assert found == ["stopped"] * (len(results) - 1)
    check_stop()  # nothing is left of it


def test_an_error_stops_the_others_and_is_raised() -> None:
    found: list[str] = []

    def fails() -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        side_by_side([partial(until_stopped, found), fails], threads=2)
    assert found == ["stopped"]


def test_folds_side_by_side_give_the_same_bits(two_threads: None) -> None:
    x, y = Gaussian(0.7, 2).sample(400)
    two = estimate(x, y, effort="fast")
    torch.set_num_threads(1)
    one = estimate(x, y, effort="fast")
    assert (two.mi, two.lower_bound, two.bound, two.verdict) == (
        one.mi,
        one.lower_bound,
        one.bound,
        one.verdict,
    )


def test_ctrl_c_keeps_the_folds_that_are_there(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from flomi.ensemble import _Adam

    update, calls = _Adam.update, 0

    def counted(self: _Adam, loss: torch.Tensor, scale: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            _thread.interrupt_main()
        update(self, loss, scale)

    monkeypatch.setattr(_Adam, "update", counted)
    x, y = Gaussian(0.7, 2).sample(400)
    r = estimate(x, y, effort="fast")
    assert any("interrupted" in sentence for sentence in r.warnings) and r.verdict != "ok"
