"""Streams outlive who writes them, who keeps them, and who reads them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import pytest

from penstock import AsyncResult
from tests.acceptance.faucet import faucet
from tests.acceptance.processes import Process, Stage
from tests.servers import Server, broker_server

ANSWER = 60.0
"""Seconds: only a hang takes so long."""
NEVER = -1


@pytest.fixture
def server(stage: Stage) -> Iterator[Server]:
    with broker_server(stage.folder, durability="process") as server:
        yield server


@pytest.fixture(params=["sqlite", "penstock"])
def url(stage: Stage, request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{stage.path}"
    found: str = request.getfixturevalue("server").url
    return found


def started(stage: Stage, url: str, stop: int, most: int, pause: float = 0.0) -> tuple[Process, AsyncResult[None]]:
    worker = stage.start("faucet", url, "work")
    return worker, faucet(url).delay(stop, most, pause)


def test_a_reader_goes_on_with_the_next_run_when_the_worker_is_killed(stage: Stage, url: str) -> None:
    _, result = started(stage, url, 50, 80)
    stream, seen = result.stream(timeout=ANSWER), list[tuple[int, int]]()
    writers = set()
    for writer, number in stream:
        writers.add(writer)
        assert stream.run is not None
        seen.append((stream.run, number))
        if len(seen) == 50:
            os.kill(writer, signal.SIGKILL)
    assert seen == [*((0, number) for number in range(50)), *((1, number) for number in range(80))]
    assert (len(writers), stream.offset) == (2, 130)
    result._app.close()


def test_a_reader_that_was_killed_is_followed_by_one_from_its_offset(stage: Stage, url: str) -> None:
    _, result = started(stage, url, NEVER, 400, 0.002)
    numbers, offset = list[int](), 0
    for read in (100, 150, 150):
        reader = stage.start("faucet", url, "read", result.id, offset)
        for _ in range(read):
            offset, number = map(int, reader.line().split())
            numbers.append(number)
        reader.kill()  # which may have read more than it told
    assert (numbers, offset) == ([*range(400)], 400)
    result._app.close()


def test_a_stream_goes_on_when_the_broker_comes_back(stage: Stage, server: Server) -> None:
    _, result = started(stage, server.url, NEVER, 600, 0.005)
    with contextlib.closing(result.stream(timeout=ANSWER)) as stream:
        numbers = [next(stream)[1] for _ in range(100)]
        server.stop(signal.SIGKILL)
        server.start()
        numbers += [number for _, number in stream if stream.run == 0]
    # Its worker may be taken for dead over it; what it published before it is followed by the whole of the next run.
    assert numbers == [*range(len(numbers))]
    assert len(numbers) > 100
    result._app.close()
