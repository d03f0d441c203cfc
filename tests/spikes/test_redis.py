"""The Redis spike keeps the contracts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import cast

import pytest

from penstock.engine import Engine
from penstock.testing.conformance import AREAS, Check, Kit, run_check
from tests.spikes.loop_thread import LoopThread
from tests.spikes.redis_spike import RedisEngine

CASES = [
    pytest.param(check, id=f"{area}-{check.__name__.removeprefix('check_')}")
    for area in ("publish", "step", "lease", "bound", "priority", "partition")
    for check in AREAS[area]
]


class RedisKit(Kit):
    def __init__(self, url: str, thread: LoopThread, *, blocking: bool) -> None:
        self._address = url, thread
        # What is no engine in full: only what these areas need.
        super().__init__(cast(Engine, RedisEngine(url, thread)), blocking=blocking, unit=0.1)

    def open_second(self) -> Engine:
        return cast(Engine, RedisEngine(*self._address))


@pytest.fixture(scope="module")
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.mark.parametrize("blocking", [pytest.param(True, id="blocking"), pytest.param(False, id="awaiting")])
@pytest.mark.parametrize("check", CASES)
def test_redis(check: Check, blocking: bool, redis_url: str, thread: LoopThread) -> None:
    run_check(check, functools.partial(RedisKit, redis_url, thread, blocking=blocking))
