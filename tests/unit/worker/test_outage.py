"""Outages: how they are told, how long is paused, and calls that are left behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from penstock.blocking import bounded
from penstock.engines.memory import open_engine
from penstock.engines.network.loop import LoopThread
from penstock.errors import BrokerUnavailable
from penstock.worker.outage import LONGEST_PAUSE, Outage


def test_pauses_grow_to_a_few_seconds_and_begin_anew() -> None:
    outage = Outage("it", now=lambda: 0.0, jitter=lambda: 1.0)
    pauses = [outage.go_on(OSError()) for _ in range(8)]
    assert pauses[:3] == [0.05, 0.1, 0.2]
    assert pauses[-1] == LONGEST_PAUSE
    outage.over()
    assert outage.go_on(OSError()) == 0.05


def test_half_of_a_pause_is_random() -> None:
    assert Outage("it", jitter=lambda: 0.0).go_on(OSError()) == 0.025


def test_how_long_it_lasts(caplog: pytest.LogCaptureFixture) -> None:
    times = iter([10.0, 14.0, 15.5])
    outage = Outage("it", now=lambda: next(times))
    assert outage.lasts() == 0.0
    outage.go_on(OSError("gone"))
    assert outage.lasts() == 4.0
    outage.over()
    assert "after 5.5 s" in caplog.text
    outage.over()


def test_a_call_that_takes_too_long_is_left_and_goes_on() -> None:
    thread, ended = LoopThread("test"), threading.Event()

    async def slow() -> None:
        await asyncio.sleep(0.05)
        ended.set()
        raise OSError("nobody is left to hear it")

    with pytest.raises(BrokerUnavailable, match=r"no answer within 0\.01 s"):
        thread.run(bounded(slow(), 0.01))
    assert ended.wait(10)
    thread.close()


def test_a_call_in_time_returns_or_raises_what_it_does() -> None:
    async def answer(value: int) -> int:
        if value < 0:
            raise ValueError(value)
        return value

    thread = LoopThread("test")
    assert thread.run(bounded(answer(3), 1.0)) == 3
    with pytest.raises(ValueError):
        thread.run(bounded(answer(-1), 1.0))
    thread.close()
    assert open_engine("memory://").run(bounded(answer(4), 1.0)) == 4
