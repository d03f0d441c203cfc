"""Publishing parts: sent together, bounded, stored before the run ends, and never lost in silence."""

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock import BrokerUnavailable, MessageTooLarge, Penstock, StoreError, Task, Unsupported, partials
from penstock.contrib.rehearsal import rehearse
from penstock.message import Message
from penstock.outcome import MOST_PART_BYTES
from penstock.request import Request
from tests.unit.fake_engine import fake_app

ANSWER = 20.0
"""Seconds: only a hang takes so long."""


class Backend:
    """Takes appends; `gate` holds them up, `errors` are raised first."""

    def __init__(self) -> None:
        self.appends: list[tuple[int, int, list[bytes]]] = []
        self.marks: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Semaphore(0)
        self.errors: list[Exception] = []
        self.takes = True

    async def append(self, key: Any, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        self.arrived.release()
        self.gate.wait(ANSWER)
        self.marks.append(mark)
        if self.errors:
            raise self.errors.pop(0)
        self.appends.append((key, run, [value for value, _ in values]))
        return self.takes

    @property
    def values(self) -> list[bytes]:
        return [value for _, _, values in self.appends for value in values]


@pytest.fixture
def app() -> Iterator[Penstock]:
    app = Penstock("tasks")
    with rehearse(app):
        yield app


@pytest.fixture
def backend(app: Penstock, monkeypatch: pytest.MonkeyPatch) -> Backend:
    backend = Backend()
    monkeypatch.setattr(app.results.backend, "append", backend.append)
    return backend


@pytest.fixture
def outgoing(app: Penstock, backend: Backend) -> partials.Outgoing:
    task: Task[..., Any] = app.task(name="t")(lambda: None)
    return app.client.outbox.open(task, Request(Message(1, "t", b"", retries=2, attempts=1), "key", str))


def test_alone_a_part_waits_for_nobody(outgoing: partials.Outgoing, backend: Backend) -> None:
    outgoing.put(b"1", "json")
    assert backend.arrived.acquire(timeout=ANSWER)
    outgoing.finish()
    assert backend.appends == [("key", 3, [b"1"])]


def test_what_comes_while_one_is_sent_goes_together(outgoing: partials.Outgoing, backend: Backend) -> None:
    backend.gate.clear()
    outgoing.put(b"0", "json")
    assert backend.arrived.acquire(timeout=ANSWER)
    for number in range(1, 10):
        outgoing.put(b"%d" % number, "json")
    backend.gate.set()
    outgoing.finish()
    assert [len(values) for _, _, values in backend.appends] == [1, 9]
    assert backend.values == [b"%d" % number for number in range(10)]


def test_the_end_waits_for_what_is_under_way(outgoing: partials.Outgoing, backend: Backend) -> None:
    backend.gate.clear()
    outgoing.put(b"0", "json")
    ended = threading.Event()
    waiting = threading.Thread(target=lambda: (outgoing.finish(), ended.set()))
    waiting.start()
    assert not ended.wait(0.05)
    backend.gate.set()
    assert ended.wait(ANSWER)
    waiting.join()
    assert backend.values == [b"0"]


def test_who_publishes_too_much_waits_for_room(
    outgoing: partials.Outgoing, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "AHEAD_PARTS", 3)
    backend.gate.clear()
    outgoing.put(b"0", "json")
    assert backend.arrived.acquire(timeout=ANSWER)
    for number in range(1, 4):
        outgoing.put(b"%d" % number, "json")
    fourth = threading.Thread(target=outgoing.put, args=(b"4", "json"))
    fourth.start()
    fourth.join(0.05)
    assert fourth.is_alive()
    backend.gate.set()
    fourth.join(ANSWER)
    outgoing.finish()
    assert backend.values == [b"%d" % number for number in range(5)]


def test_a_coroutine_waits_without_blocking_its_loop(
    outgoing: partials.Outgoing, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "AHEAD_PARTS", 1)
    backend.gate.clear()

    async def publish() -> None:
        await outgoing.aput(b"0", "json")
        await asyncio.to_thread(backend.arrived.acquire, timeout=ANSWER)
        await outgoing.aput(b"1", "json")
        with pytest.raises(BrokerUnavailable, match=r"would block the loop: await self.apublish_partial"):
            outgoing.put(b"2", "json")
        third = asyncio.create_task(outgoing.aput(b"2", "json"))
        await asyncio.sleep(0.02)
        assert not third.done()
        backend.gate.set()
        await third
        await outgoing.afinish()

    asyncio.run(publish())
    assert backend.values == [b"0", b"1", b"2"]


def test_a_backend_that_stalls_holds_nobody_for_ever(
    outgoing: partials.Outgoing, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "STALLED", 0.05)
    backend.gate.clear()
    outgoing.put(b"0", "json")
    with pytest.raises(BrokerUnavailable, match="could not be stored for"):
        outgoing.finish()
    with pytest.raises(BrokerUnavailable, match="could not be stored for"):
        asyncio.run(outgoing.afinish())
    outgoing.abandon()  # is logged
    backend.gate.set()


def test_what_could_not_be_reached_is_tried_again_under_the_same_mark(
    outgoing: partials.Outgoing, backend: Backend
) -> None:
    backend.errors = [BrokerUnavailable("away"), BrokerUnavailable("still")]
    outgoing.put(b"0", "json")
    outgoing.finish()
    assert (backend.values, len(backend.marks), len(set(backend.marks))) == ([b"0"], 3, 1)


def test_what_cannot_be_stored_fails_the_next_part_and_the_end(outgoing: partials.Outgoing, backend: Backend) -> None:
    backend.errors = [StoreError("broken")]
    outgoing.put(b"0", "json")
    with pytest.raises(StoreError, match="broken"):
        outgoing.finish()
    with pytest.raises(StoreError, match="broken"):
        outgoing.put(b"1", "json")
    outgoing.abandon()
    assert backend.values == []


def test_parts_that_nobody_takes_any_more_are_dropped(outgoing: partials.Outgoing, backend: Backend) -> None:
    backend.takes = False
    for number in range(3):
        outgoing.put(b"%d" % number, "json")
        outgoing.finish()
    assert backend.values == [b"0"]


def test_a_part_that_is_too_large_is_refused_at_once(outgoing: partials.Outgoing) -> None:
    with pytest.raises(MessageTooLarge, match="store the data elsewhere"):
        outgoing.put(b"x" * (MOST_PART_BYTES + 1), "json")


def test_the_thread_ends_when_there_is_nothing_to_send(
    app: Penstock, outgoing: partials.Outgoing, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partials, "IDLE", 0.01)
    for _ in range(2):
        outgoing.put(b"0", "json")
        outgoing.finish()
        thread = app.client.outbox._thread
        if thread is not None:
            thread.join(ANSWER)
        assert app.client.outbox._thread is None
    assert backend.values == [b"0", b"0"]


def test_a_forked_child_sends_by_itself(tmp_path: Path) -> None:
    app = Penstock("tasks", broker=f"sqlite:///{tmp_path}/queue.db", durability="process")
    task: Task[..., Any] = app.task(name="t")(lambda: None)

    def publish(value: bytes, run: int) -> None:
        outgoing = app.client.outbox.open(task, Request(Message(1, "t", b"", retries=run), "mine", str))
        outgoing.put(value, "json")
        outgoing.finish()

    publish(b"0", 0)  # the thread is there, and will not be in the child
    child = os.fork()
    if not child:
        try:
            publish(b"1", 1)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert [part.value for part in app.engine.run(app.backend.parts("mine", 0, 10)).parts] == [b"0", b"1"]


def test_results_that_nobody_wants_have_no_parts(app: Penstock) -> None:
    @app.task(name="quiet", bind=True, ignore_result=True)
    def quiet(self: Any) -> None:
        self.publish_partial(1)

    with rehearse(app) as tasks:
        result = quiet.delay()
        tasks.run_all()
        assert app.engine.run(app.backend.parts(result.key, 0, 1)).end == 0


def test_where_no_parts_are_kept_that_is_said() -> None:
    app, engine = fake_app()
    task = app.task(name="t", bind=True)(lambda self: self.publish_partial(1))
    with pytest.raises(Unsupported, match="fake keeps no parts of running tasks: set result_backend"):
        app.client.outbox.open(task, Request(Message(1, "t", b""), "key", str))
    assert engine.broker.batches == []
