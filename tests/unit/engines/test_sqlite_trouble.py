"""What must not happen when things go wrong around a commit, at opening, and at closing."""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import apsw
import pytest

from penstock.broker import Accepted, Demand, Duplicate, Full
from penstock.clock import ManualClock
from penstock.delivery import ACK, Settlement
from penstock.engines.sqlite import open_engine
from penstock.engines.sqlite.board import PLACES
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.engines.sqlite.gate import Gate
from penstock.engines.sqlite.group import Group
from penstock.errors import BrokerUnavailable, DecodeError, OutcomeUnknown, StoreError
from penstock.message import Message, Unique
from penstock.outcome import Outcome, Report, State
from penstock.queue import Queue

WANT = Demand(("default",), 100, "0" * 32)
PLAIN = Message(1, "t", b"[]")


def open_at(path: Path) -> SqliteEngine:
    opened = open_engine(f"sqlite:///{path}/queue.db", clock=ManualClock())
    assert isinstance(opened, SqliteEngine)
    return opened


@pytest.fixture
def engine(tmp_path: Path) -> SqliteEngine:
    return open_at(tmp_path)


def descriptors(folder: Path) -> list[str]:
    """The files in `folder` that this process has open."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if os.path.islink(link)]
    return [target for target in targets if target.startswith(str(folder))]


def publish(engine: SqliteEngine, *messages: Message) -> None:
    for answer in engine.run(engine.broker.publish(messages or [PLAIN], 5)):
        assert isinstance(answer, Accepted)


def test_what_is_committed_does_not_fail_because_nobody_can_be_woken(tmp_path: Path, engine: SqliteEngine) -> None:
    engine.store.db.board.wait_for_work(-1 & (2**64 - 1))
    engine.store.db.gate._map[PLACES - 1] = 1  # somebody waits for the lock, too
    shutil.rmtree(tmp_path / "queue.db-run")
    publish(engine)
    [delivery] = engine.run(engine.broker.step([], WANT)).deliveries
    engine.store.db.board.wait_for_results(True)
    done = Outcome(State.SUCCESS, b"1", 0.0)
    engine.run(engine.broker.step([Settlement(delivery.receipt, ACK, done)], None))
    engine.run(engine.coordinator.reap())
    assert engine.run(engine.backend.fetch([delivery.key]))[0].state is State.SUCCESS


def test_what_is_claimed_is_delivered_though_its_key_cannot_be_freed_now(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(engine, Message(1, "t", b"[]", guards=(Unique("key", "start"),)))
    write = engine.store.db.write
    calls: list[object] = []

    def second_fails(*args: object, **kwargs: object) -> object:
        calls.append(args)
        if len(calls) == 2:
            raise BrokerUnavailable("the lock was not free")
        return write(*args, **kwargs)  # type: ignore[arg-type]  # whatever it was called with

    monkeypatch.setattr(engine.store.db, "write", second_fails)
    assert len(engine.run(engine.broker.step([], WANT)).deliveries) == 1
    assert len(calls) == 2


def test_a_waiter_that_gives_up_at_the_last_moment_does_not_break_the_release(tmp_path: Path) -> None:
    held = Gate(str(tmp_path / "lock"), 0)
    held.acquire(1.0)
    assert held._choose() == -1  # its flag was up a moment ago
    held.release()
    held.close()


@pytest.mark.parametrize("trouble", ["newer", "foreign"])
def test_failing_to_open_keeps_nothing_open(tmp_path: Path, trouble: str) -> None:
    path = tmp_path / "queue.db"
    open_at(tmp_path).close()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99" if trouble == "newer" else "PRAGMA application_id = 7")
    connection.close()
    for _ in range(3):
        with pytest.raises(StoreError):
            open_at(tmp_path)
    assert descriptors(tmp_path) == []


def test_closing_keeps_nothing_open(tmp_path: Path) -> None:
    opened = open_at(tmp_path)
    publish(opened)
    opened.backend.subscribe([1], lambda _: None).close()
    opened.close()
    assert descriptors(tmp_path) == []


def test_a_closed_engine_says_so(engine: SqliteEngine) -> None:
    engine.close()
    with pytest.raises(BrokerUnavailable, match="closed"):
        publish(engine)
    with pytest.raises(BrokerUnavailable, match="closed"):
        engine.run(engine.broker.depth("default"))


def test_closing_waits_for_what_is_submitted_and_no_longer() -> None:
    async def call() -> str:
        return "done"

    async def submit_and_close() -> str:
        group = Group(lambda batches, timeout: [])
        future = group.submit(call())
        await asyncio.sleep(0)
        await asyncio.to_thread(group.close)
        return str(await asyncio.wait_for(future, 5))

    started = time.monotonic()
    assert asyncio.run(submit_and_close()) == "done"
    assert time.monotonic() - started < 5


def test_awaiting_a_closed_engine_fails_instead_of_waiting_for_ever(engine: SqliteEngine) -> None:
    async def publish_then_close() -> None:
        await engine.arun(engine.broker.publish([PLAIN], 5))
        engine.close()
        with pytest.raises(BrokerUnavailable, match="closed"):
            await asyncio.wait_for(engine.arun(engine.broker.publish([PLAIN], 5)), 5)

    asyncio.run(publish_then_close())


def test_a_damaged_result_is_told_to_who_asks_and_does_not_hold_up_others(engine: SqliteEngine) -> None:
    publish(engine, PLAIN, PLAIN)
    first, second = engine.run(engine.broker.step([], WANT)).deliveries
    told: list[Sequence[Report]] = []
    heard = threading.Event()

    def leave(_: Sequence[Report]) -> None:
        raise RuntimeError("its event loop is closed")

    def hear(reports: Sequence[Report]) -> None:
        told.append(reports)
        heard.set()

    keys = [first.key, second.key]
    watches = [engine.backend.subscribe(keys, leave), engine.backend.subscribe(keys, hear)]
    done = Outcome(State.SUCCESS, b"1", 0.0)
    db = engine.store.db
    engine.store.change(lambda _: engine.store.results.add({first.receipt[1]: ("t", done)}, ""))
    engine.store.change(lambda _: db.execute("UPDATE result SET v = '[{'"))
    with pytest.raises(DecodeError, match="damaged"):
        engine.run(engine.backend.fetch([first.key]))
    engine.run(engine.broker.step([Settlement(second.receipt, ACK, done)], None))
    assert heard.wait(5)
    assert [report.state for report in told[0]] == [State.SUCCESS]
    for watch in watches:
        watch.close()


@pytest.mark.parametrize("replaced", [True, False])
def test_a_file_that_was_deleted_or_replaced_takes_no_more_work(
    tmp_path: Path, engine: SqliteEngine, replaced: bool
) -> None:
    publish(engine)
    for path in tmp_path.glob("queue.db*"):
        if path.is_file():
            path.unlink()
    if replaced:
        open_at(tmp_path).close()
    with pytest.raises((StoreError, OutcomeUnknown)):
        publish(engine)
    with pytest.raises(StoreError, match="restart this process"):
        publish(engine)


def test_an_idle_worker_notices_that_its_file_is_gone(tmp_path: Path, engine: SqliteEngine) -> None:
    engine.run(engine.coordinator.reap())
    (tmp_path / "queue.db").unlink()
    with pytest.raises(StoreError, match="deleted or replaced"):
        engine.run(engine.coordinator.reap())
    with pytest.raises(StoreError, match="deleted or replaced"):
        publish(engine)


def test_nobody_else_can_read_the_files(tmp_path: Path, engine: SqliteEngine) -> None:
    publish(engine)
    modes = {path.name: path.stat().st_mode & 0o077 for path in (*tmp_path.iterdir(), *tmp_path.glob("*/*"))}
    assert set(modes.values()) == {0}, modes


def test_two_tasks_wake_two_threads_of_one_process(engine: SqliteEngine) -> None:
    took: list[float] = []

    def wait() -> None:
        began = time.monotonic()
        want = Demand(("default",), 1, "0" * 32, wait=20.0)
        assert len(engine.run(engine.broker.step([], want)).deliveries) == 1
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    while engine.store._waiting < 2:
        time.sleep(0.001)
    publish(engine, PLAIN, PLAIN)
    for thread in threads:
        thread.join()
    assert max(took) < 10


def test_after_a_sync_that_failed_none_succeeds(engine: SqliteEngine) -> None:
    """The kernel may have dropped what it could not write, and tells of it once."""
    db = engine.store.db
    works, fails = db._sync, [OSError("no disk")]

    def sync(descriptor: int) -> None:
        if fails:
            raise fails.pop()
        works(descriptor)

    db._sync = sync
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="no disk"):
            db.sync()
    assert not fails


def test_a_refusal_waits_for_no_disk(engine: SqliteEngine) -> None:
    """Nothing was changed; and under overload most calls are refused, beside workers that have to sync."""
    db, syncs = engine.store.db, []
    works = db._sync

    def sync(descriptor: int) -> None:
        syncs.append(descriptor)
        works(descriptor)

    engine.run(engine.inspect.declare([Queue("default", 1)]))
    db._sync = sync
    first = Message(1, "t", b"[]", id="a" * 32)
    publish(engine, first)
    assert len(syncs) == 1
    for batch in ([PLAIN], [PLAIN, PLAIN], [PLAIN, Message(1, "t", b"[]", priority=3)]):
        assert all(isinstance(one, Full) for one in engine.run(engine.broker.publish(batch, 5)))
    assert len(syncs) == 1
    [again] = engine.run(engine.broker.publish([first], 5))
    assert isinstance(again, Duplicate)
    assert len(syncs) == 2, "what it is told to be a copy of must be safe"
