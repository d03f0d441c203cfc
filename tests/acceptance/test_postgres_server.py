"""What happens to a PostgreSQL, and what its users get wrong: a killed server, cut connections, missing rights."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from penstock.broker import Accepted, Demand, Duplicate
from penstock.delivery import ACK, Settlement
from penstock.engine import Engine
from penstock.engines.postgres import open_engine
from penstock.errors import BrokerUnavailable, ConfigError, OutcomeUnknown, PenstockError, StoreError
from penstock.message import Message
from penstock.outcome import Outcome, Report, State
from tests.absent import not_tested
from tests.servers import NotInstalled, postgres_server
from tests.servers.postgres_node import PostgresServer

WAIT = 60.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    """One of its own, which a test may kill."""
    try:
        with postgres_server(tmp_path) as running:
            yield running
    except NotInstalled as missing:
        not_tested(missing)


@contextlib.contextmanager
def opened(url: str, **settings: object) -> Iterator[Engine]:
    engine = open_engine(url, **settings)  # type: ignore[arg-type]  # any of its settings
    try:
        yield engine
    finally:
        engine.close()


def message(number: int = 0, queue: str = "work") -> Message:
    return Message(1, "test.task", b"%d" % number, queue=queue)


def ids(engine: Engine, count: int) -> list[str]:
    answers = engine.run(engine.broker.publish([message(n) for n in range(count)], WAIT))
    return [engine.broker.public_id(answer.key) for answer in answers if isinstance(answer, Accepted)]


def take(engine: Engine, limit: int = 10, wait: float = 0.0) -> list[tuple[bytes, object]]:
    step = engine.run(engine.broker.step([], Demand(("work",), limit, "me", wait=wait)))
    return [(one.message.body, one.receipt) for one in step.deliveries if one.message is not None]


def sql(url: str, text: str) -> list[asyncpg.Record]:
    async def work() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(text)  # type: ignore[no-any-return]  # the driver has no types
        finally:
            await connection.close()

    return asyncio.run(work())


def test_a_killed_server_loses_nothing_and_waiters_go_on(server: PostgresServer) -> None:
    with opened(server.url) as producer, opened(server.url) as worker:
        accepted = ids(producer, 100)
        assert len(take(worker, 40)) == 40  # leased when the server dies
        told: list[Report] = []
        heard = threading.Event()
        last = producer.run(producer.broker.publish([message(999, "late")], WAIT))[0]
        assert isinstance(last, Accepted)

        def hear(reports: Sequence[Report]) -> None:
            told.extend(reports)
            heard.set()

        subscription = producer.backend.subscribe([last.key], hear)
        got: list[object] = []
        waiting = threading.Thread(target=lambda: got.extend(_one(worker, "after")), daemon=True)
        waiting.start()
        time.sleep(0.3)
        server.stop(signal.SIGKILL)
        server.start()
        began = time.monotonic()
        [answer] = producer.run(producer.broker.publish([message(1, "after")], WAIT))
        assert isinstance(answer, Accepted)
        waiting.join(10)
        assert len(got) == 1, "the step that waited was served after the restart"
        step = worker.run(worker.broker.step([], Demand(("late",), 1, "me", wait=5.0)))
        [delivery] = step.deliveries
        outcome = Outcome(State.SUCCESS, b"7", time.time())
        worker.run(worker.broker.step([Settlement(delivery.receipt, ACK, outcome)], None))
        assert heard.wait(15), "who waited for a result before the restart is told after it"
        subscription.close()
        assert told[0].outcome is not None
        assert told[0].outcome.value == b"7"
        assert time.monotonic() - began < 20
        rest = take(worker, 1000)
        assert worker.run(worker.coordinator.bury("me")) >= 60
        states = [report.state for report in producer.run(producer.backend.fetch(accepted))]
        assert states == [State.PENDING] * 100
        assert len(take(worker, 1000)) >= 100, f"leased or ready, all are there ({len(rest)} were ready)"


def _one(engine: Engine, queue: str) -> list[object]:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(PenstockError):
            step = engine.run(engine.broker.step([], Demand((queue,), 1, "waiter", wait=20.0)))
            if step.deliveries:
                return list(step.deliveries)
    return []


class Cutter:
    """A proxy that, once told, lets what clients say through and cuts the connection instead of the answer."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.armed = threading.Event()
        self.cuts = 0
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._start(self._pipe, client, server, False)
                self._start(self._pipe, server, client, True)

    def _pipe(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.armed.is_set():
                    self.armed.clear()
                    self.cuts += 1
                    break
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def cutter(postgres_url: str) -> Iterator[Cutter]:
    cutter = Cutter(int(postgres_url.rpartition(":")[2].partition("/")[0]))
    yield cutter
    cutter.close()


def through(cutter: Cutter, url: str, schema: str) -> str:
    head, _, tail = url.rpartition(":")
    return f"{head}:{cutter.port}/{tail.partition('/')[2]}?schema={schema}"


@pytest.mark.parametrize("queue", ["work", "other"])
def test_a_connection_cut_mid_publish_makes_one_task(cutter: Cutter, postgres_url: str, queue: str) -> None:
    with opened(through(cutter, postgres_url, "cut_publish")) as engine:
        batch = [message(number, queue) for number in range(3)]
        engine.run(engine.broker.publish([message(9, queue)], WAIT))
        before = engine.run(engine.broker.depth(queue)) or 0
        for _ in range(5):
            cutter.armed.set()
            answers = engine.run(engine.broker.publish(batch, WAIT))
            assert all(isinstance(answer, Accepted | Duplicate) for answer in answers)
            before += 3
            assert engine.run(engine.broker.depth(queue)) == before
        assert cutter.cuts >= 5


def test_an_unknown_outcome_names_ids_that_can_be_sent_again(cutter: Cutter, postgres_url: str) -> None:
    with opened(through(cutter, postgres_url, "cut_unknown")) as engine:
        engine.run(engine.broker.publish([message(1)], WAIT))  # lanes and numbers are known from now on
        cutter.armed.set()
        with pytest.raises(OutcomeUnknown) as caught:
            engine.run(engine.broker.publish([message(2)], 0.04))
        [known] = caught.value.ids
        again = Message(1, "test.task", b"2", id=known, queue="work")
        [answer] = engine.run(engine.broker.publish([again], WAIT))
        assert isinstance(answer, Accepted | Duplicate)
        assert engine.broker.public_id(answer.key) == known
        assert engine.run(engine.broker.depth("work")) == 2


def test_a_claim_whose_answer_was_cut_is_not_lost(cutter: Cutter, postgres_url: str) -> None:
    with opened(through(cutter, postgres_url, "cut_claim")) as engine:
        ids(engine, 20)
        assert len(take(engine, 2)) == 2
        cutter.armed.set()
        assert len(take(engine, 18)) == 18, "what the lost claim had leased came back, though its worker lives"


def test_a_settlement_whose_answer_was_cut_is_unknown_and_ends_once(cutter: Cutter, postgres_url: str) -> None:
    with opened(through(cutter, postgres_url, "cut_settle")) as engine:
        [public] = ids(engine, 1)
        [(_, receipt)] = take(engine)
        settlement = Settlement(receipt, ACK, Outcome(State.SUCCESS, b"1", time.time()))  # type: ignore[arg-type]
        cutter.armed.set()
        with pytest.raises(OutcomeUnknown):
            engine.run(engine.broker.step([settlement], None))
        engine.run(engine.broker.step([settlement], None))
        [report] = engine.run(engine.backend.fetch([public]))
        assert report.state is State.SUCCESS
        assert engine.run(engine.broker.depth("work")) == 0


def test_wrong_logins_are_told_without_the_password(postgres_url: str) -> None:
    for wrong, kind, words in (
        (postgres_url.replace(":secret@", ":wrongword@"), ConfigError, "password"),
        (postgres_url.rpartition("/")[0] + "/nowhere", ConfigError, "no such database"),
        ("postgresql://penstock:secret@127.0.0.1:1/penstock?timeout=1", BrokerUnavailable, "127.0.0.1:1"),
    ):
        with pytest.raises(kind, match=words) as caught:
            open_engine(wrong)
        assert "secret" not in str(caught.value)
        assert "wrongword" not in str(caught.value)


def test_missing_rights_are_told_with_the_command(server: PostgresServer) -> None:
    sql(server.admin_url, "CREATE ROLE guest LOGIN PASSWORD 'secret'")
    sql(server.admin_url, "REVOKE CREATE ON DATABASE penstock FROM public")
    guest = server.url.replace("penstock:secret", "guest:secret")
    with pytest.raises(StoreError, match="GRANT CREATE ON DATABASE penstock TO guest"):
        open_engine(guest)
    open_engine(server.url).close()
    with pytest.raises(StoreError, match="GRANT USAGE ON SCHEMA penstock TO guest"):
        open_engine(guest)
    for grant in (
        "GRANT USAGE ON SCHEMA penstock TO guest",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA penstock TO guest",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA penstock TO guest",
    ):
        sql(server.url, grant)
    with opened(guest) as engine:
        assert len(ids(engine, 3)) == 3
        assert len(take(engine)) == 3


def test_schemas_are_apart_and_made_once_by_many(postgres_url: str) -> None:
    engines: list[Engine] = []
    threads = [
        threading.Thread(target=lambda: engines.append(open_engine(f"{postgres_url}?schema=many"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened(f"{postgres_url}?schema=apart") as other:
        ids(engines[0], 2)
        assert [engine.run(engine.broker.depth("work")) for engine in (*engines, other)] == [2, 2, 2, 2, 0]
    for engine in engines:
        engine.close()


def test_a_server_that_syncs_nothing_is_warned_of_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    try:
        with postgres_server(tmp_path, "-c", "fsync=off") as careless:
            with caplog.at_level(logging.WARNING, "penstock.engine"):
                open_engine(careless.url).close()
            assert "fsync = on" in caplog.text
            with pytest.raises(ConfigError, match="strict"):
                open_engine(careless.url, durability="strict")
    except NotInstalled as missing:
        not_tested(missing)


def test_an_idle_step_asks_little(postgres_url: str) -> None:
    with opened(f"{postgres_url}?schema=idle") as engine:
        ids(engine, 1)
        take(engine)
        engine.run(engine.broker.step([], Demand(("work",), 1, "me", wait=1.0)))
        asked: list[str] = []
        core = engine.core  # type: ignore[attr-defined]  # counts what is sent
        call = core.links.call

        async def counted(work: object, seconds: float, *, repeat: bool) -> object:
            asked.append(str(work))
            return await call(work, seconds, repeat=repeat)

        core.links.call = counted
        for _ in range(3):
            engine.run(engine.broker.step([], Demand(("work",), 1, "me", wait=1.0)))
        assert len(asked) <= 2 * 3


def test_parts_are_told_by_the_server_and_not_found_by_looking(postgres_url: str) -> None:
    with opened(f"{postgres_url}?schema=telling") as engine, opened(f"{postgres_url}?schema=telling") as other:
        [task] = ids(engine, 1)
        bell = threading.Event()
        subscription = other.backend.subscribe_parts(task, bell.set)
        while bell.wait(1.0):  # the looks that follow a subscription
            bell.clear()
        assert engine.run(engine.backend.append(task, 0, 1, [(b"1", "json")]))
        assert bell.wait(3.0), "sooner than the next look of its own"
        subscription.close()


def test_a_frozen_server_is_left_for_another_try(server: PostgresServer) -> None:
    with opened(server.url) as engine:
        ids(engine, 1)
        server.freeze()
        threading.Timer(1.0, server.thaw).start()
        [answer] = engine.run(engine.broker.publish([message(1)], WAIT))
        assert isinstance(answer, Accepted | Duplicate)
        assert engine.run(engine.broker.depth("work")) == 2


def test_of_several_hosts_the_primary_is_found(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    head, _, tail = postgres_url.rpartition("@")
    caplog.set_level(logging.WARNING, "penstock.engine")
    with opened(f"{head}@127.0.0.1:1,{tail}?schema=several") as engine:
        assert len(ids(engine, 2)) == 2
        [leader] = engine.run(engine.inspect.members())
        assert (leader.role, leader.alive) == ("leader", True)
    assert "synchronous_standby_names" in caplog.text


def test_a_listing_may_ask_a_replica_and_falls_back(postgres_url: str) -> None:
    with opened(f"{postgres_url}?schema=reading&read=replica") as engine:
        [public] = ids(engine, 1)
        assert [one.id for one in engine.run(engine.inspect.peek("work"))] == [public]
        assert engine.run(engine.backend.fetch([public]))[0].state is State.PENDING
