"""Where awaited publishes of the embedded engine are done: alone on their caller's loop, else together on a thread."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from penstock.broker import Accepted, Answer
from penstock.engines.sqlite import group as grouping
from penstock.engines.sqlite import open_engine
from penstock.engines.sqlite.gate import Gate
from penstock.engines.sqlite.group import AT_ONCE, FEW, Group
from penstock.engines.sqlite.request import PublishRequest
from penstock.errors import BrokerUnavailable, QueueFull
from penstock.message import Message

PLAIN = Message(1, "t", b"[]")


class Store:
    """What a group publishes with: notes how many it was given, in what time, and whether on this thread."""

    def __init__(self) -> None:
        self.here = threading.get_ident()
        self.seen: list[tuple[int, bool]] = []
        self.errors: list[BaseException | None] = []
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.begun = threading.Event()

    def publish(self, batches: Sequence[Sequence[Message]], timeout: float) -> list[list[Answer]]:
        here = threading.get_ident() == self.here
        assert (timeout == AT_ONCE) == here, "a loop does not wait for the lock"
        self.seen.append((len(batches), here))
        if not here:
            self.begun.set()
            assert self.goes_on.wait(10)
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error
        return [[Accepted(len(self.seen))] * len(batch) for batch in batches]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def group(store: Store) -> Iterator[Group]:
    group = Group(store.publish)
    group._took = 0.0  # as after some that were fast
    yield group
    store.goes_on.set()
    group.close()


async def published(messages: int = 1) -> Sequence[Answer]:
    return await PublishRequest([PLAIN] * messages, 5.0)


def test_alone_it_is_done_on_the_loop(store: Store, group: Group) -> None:
    async def main() -> None:
        assert await group.submit_publish(published()) == [Accepted(1)]

    asyncio.run(main())
    assert store.seen == [(1, True)]


def test_those_of_one_turn_are_joined_on_the_thread(store: Store, group: Group) -> None:
    async def main() -> None:
        await asyncio.gather(*(group.submit_publish(published()) for _ in range(3)))
        for _ in range(2):  # the first of many who ask again is not alone
            await group.submit_publish(published())

    asyncio.run(main())
    assert store.seen == [(3, False), (1, False), (1, True)]


def test_many_messages_are_for_the_thread(store: Store, group: Group) -> None:
    async def main() -> None:
        assert len(await group.submit_publish(published(FEW + 1))) == FEW + 1

    asyncio.run(main())
    assert store.seen == [(1, False)]


def test_nothing_but_a_publish_is_done_on_the_loop(store: Store, group: Group) -> None:
    async def where() -> int:
        return threading.get_ident()

    async def main() -> None:
        assert await group.submit(where()) != store.here

    asyncio.run(main())


def test_what_comes_while_the_thread_is_busy_goes_to_it(store: Store, group: Group) -> None:
    store.goes_on.clear()

    async def main() -> None:
        first = group.submit(published())
        await asyncio.to_thread(store.begun.wait, 10)
        second = group.submit_publish(published())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not second.done()
        store.goes_on.set()
        await asyncio.gather(first, second)
        await group.submit_publish(published())

    asyncio.run(main())
    assert store.seen == [(1, False), (1, False), (1, True)]


def test_a_slow_disk_never_blocks_the_loop_twice(store: Store, group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 0.1, 1.0, 1.0001])
    monkeypatch.setattr(grouping.time, "perf_counter", lambda: next(now))

    async def main() -> None:
        for _ in range(2):
            await group.submit_publish(published())

    asyncio.run(main())
    assert store.seen == [(1, True), (1, False)]


def test_a_new_group_does_not_know_the_disk(store: Store) -> None:
    group = Group(store.publish)

    async def main() -> None:
        for _ in range(2):
            await group.submit_publish(published())

    asyncio.run(main())
    group.close()
    assert store.seen == [(1, False), (1, True)]


def test_a_lock_that_is_taken_is_waited_for_on_the_thread(store: Store, group: Group) -> None:
    store.errors = [BrokerUnavailable("held")]

    async def main() -> None:
        assert await group.submit_publish(published()) == [Accepted(2)], "the call went on, and was not begun anew"

    asyncio.run(main())
    assert store.seen == [(1, True), (1, False)]


def test_other_errors_are_the_callers(store: Store, group: Group) -> None:
    store.errors = [QueueFull("default", 1, 1, 1.0)]

    async def main() -> None:
        with pytest.raises(QueueFull):
            await group.submit_publish(published())

    asyncio.run(main())
    assert store.seen == [(1, True)]


def test_who_was_cancelled_publishes_nothing(store: Store, group: Group) -> None:
    async def main() -> None:
        group.submit_publish(published()).cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert store.seen == []


def test_a_closed_group_says_so(store: Store, group: Group) -> None:
    group.close()

    async def main() -> None:
        with pytest.raises(BrokerUnavailable, match="closed"):
            await group.submit_publish(published())

    asyncio.run(main())
    assert store.seen == []


def test_a_gate_that_is_not_waited_for(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    ours, theirs = Gate(path, 0), Gate(path, 1)
    theirs.acquire(1.0)
    slept: list[object] = []
    ours._poll = type("Poll", (), {"poll": lambda self, patience: slept.append(patience)})()
    with pytest.raises(BrokerUnavailable, match="was not free"):
        ours.acquire(AT_ONCE)
    theirs.release()
    ours.acquire(AT_ONCE)
    assert slept == []
    ours.close()
    theirs.close()


HOLDER = """
import sqlite3, sys
shell = sqlite3.connect(sys.argv[1], isolation_level=None)
shell.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_loop_does_not_wait_for_another_program(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'queue.db'}")
    database, pipe = engine.store.db, subprocess.PIPE
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "queue.db")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as shell:  # another process: such locks are a process's
        assert shell.stdout is not None
        assert shell.stdout.readline() == b"locked\n"
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="not penstock"):
            database.write(lambda: None, timeout=AT_ONCE)
        assert time.monotonic() - began < 2.0
        shell.communicate()
    database.write(lambda: None, timeout=AT_ONCE)
    engine.close()
