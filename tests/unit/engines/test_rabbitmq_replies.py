"""Results over RabbitMQ: they find who asked, once; what is lost is reported, and never awaited for ever."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

import pytest
from pika import spec

from penstock.engines.rabbitmq import open_engine
from penstock.engines.rabbitmq.engine import RabbitEngine
from penstock.engines.rabbitmq.replies import reply_queue
from penstock.errors import BrokerError, BrokerUnavailable
from penstock.outcome import Outcome, Report, State
from penstock.testing.conformance.told import Told

PATIENCE = 10.0


@pytest.fixture
def asker(rabbitmq_url: str) -> Iterator[RabbitEngine]:
    engine = open_engine(rabbitmq_url.replace("amqp", "rpc"))
    yield engine
    engine.close()


@pytest.fixture
def worker(rabbitmq_url: str) -> Iterator[RabbitEngine]:
    engine = open_engine(rabbitmq_url)
    yield engine
    engine.close()


class Losses:
    """Who is told that a result cannot come."""

    def __init__(self) -> None:
        self.errors: list[BrokerError] = []
        self.happened = threading.Event()

    def __call__(self, error: BrokerError) -> None:
        self.errors.append(error)
        self.happened.set()


def outcome(value: bytes) -> Outcome:
    return Outcome(State.SUCCESS, value, 1.0, retries=2)


async def delete_own(engine: RabbitEngine, queue: str) -> None:
    """The server lets only the connection that declared it delete it."""
    connection = await engine.core.replies._link.get(PATIENCE)
    channel = await connection.channel()
    with contextlib.suppress(BrokerUnavailable):  # it is given up before it answers
        await channel.call(spec.Queue.Delete(0, queue), spec.Queue.DeleteOk)


def minted(engine: RabbitEngine) -> str:
    id = engine.backend.mint()
    assert id is not None
    return id


def fetched(engine: RabbitEngine, *ids: str) -> Sequence[Report]:
    return engine.run(engine.backend.fetch(ids))


def test_ids_differ_and_lead_to_the_asker(asker: RabbitEngine, worker: RabbitEngine) -> None:
    assert len({minted(asker) for _ in range(100)} | {minted(worker)}) == 101


def test_a_result_finds_who_asked(asker: RabbitEngine, worker: RabbitEngine) -> None:
    one, two, told = minted(asker), minted(asker), Told()
    asker.backend.subscribe([one, two], told)
    sent = worker.run(worker.backend.store([(one, outcome(b"1")), (two, outcome(b"2"))]))
    assert sent == [True, True]
    found = {report.id: report.outcome and report.outcome.value for report in told.wait(2)}
    assert found == {one: b"1", two: b"2"}
    assert [report.state for report in fetched(asker, one, "stranger")] == [State.SUCCESS, State.UNKNOWN]


def test_ids_derived_from_a_tasks_lead_to_the_same_asker(asker: RabbitEngine, worker: RabbitEngine) -> None:
    child, told = f"{minted(asker)}-next", Told()
    asker.backend.subscribe([child], told)
    worker.run(worker.backend.store([(child, outcome(b"1"))]))
    told.wait()


def test_the_first_result_stays_and_late_subscribers_are_told(asker: RabbitEngine, worker: RabbitEngine) -> None:
    first, told, late = minted(asker), Told(), Told()
    asker.backend.subscribe([first], told)
    worker.run(worker.backend.store([(first, outcome(b"first"))]))
    worker.run(worker.backend.store([(first, outcome(b"second"))]))
    last = minted(asker)
    asker.backend.subscribe([last], told)
    worker.run(worker.backend.store([(last, outcome(b"last"))]))
    told.wait(2)
    asker.backend.subscribe([first], late)
    [report] = late.wait()
    assert report.outcome is not None
    assert report.outcome.value == b"first"
    asker.run(asker.backend.forget([first]))
    assert fetched(asker, first)[0].state is State.UNKNOWN


def test_an_id_that_names_nobody_is_told_apart(worker: RabbitEngine, caplog: pytest.LogCaptureFixture) -> None:
    assert worker.run(worker.backend.store([("my-own-id", outcome(b"1"))])) == [False]
    assert "my-own-id" in caplog.text


def test_a_result_for_a_process_that_is_gone_is_counted(worker: RabbitEngine) -> None:
    worker.run(worker.backend.store([("0123456789abcdef-1", outcome(b"1"))]))
    worker.run(worker.backend.store([("0123456789abcdef-2", outcome(b"1"))]))
    worker.run(worker.coordinator.workers())  # a way to the server and back
    assert worker.core.replies.undelivered == 2


def test_who_asks_for_anothers_result_is_told_that_it_cannot_come(asker: RabbitEngine, worker: RabbitEngine) -> None:
    lost = Losses()
    asker.backend.subscribe([minted(worker)], Told(), lost)
    assert lost.happened.wait(PATIENCE)
    assert "another" in str(lost.errors[0])


def test_a_lost_connection_is_reported_and_the_queue_comes_back(asker: RabbitEngine, worker: RabbitEngine) -> None:
    waiting, lost = minted(asker), Losses()
    asker.backend.subscribe([waiting], Told(), lost)
    asker.thread.soon(asker.core.replies.cut)
    assert lost.happened.wait(PATIENCE)
    assert "lost" in str(lost.errors[0])
    later, told = minted(asker), Told()
    asker.run(asker.core.replies.ensure(PATIENCE))
    asker.backend.subscribe([later], told)
    worker.run(worker.backend.store([(later, outcome(b"1"))]))
    told.wait()


def test_after_a_loss_later_tasks_have_another_queue_and_earlier_ones_are_known_to_be_lost(
    asker: RabbitEngine, worker: RabbitEngine
) -> None:
    waiting, unasked, lost, late = minted(asker), minted(asker), Losses(), Losses()
    asker.backend.subscribe([waiting], Told(), lost)
    queue = reply_queue(asker.core.replies.token)
    asker.run(delete_own(asker, queue))
    assert lost.happened.wait(PATIENCE)
    later, told = minted(asker), Told()
    if (coming := asker.backend.prepare(PATIENCE)) is not None:
        asker.run(coming)
    asker.backend.subscribe([later], told)
    asker.backend.subscribe([unasked], Told(), late)
    worker.run(worker.backend.store([(later, outcome(b"1"))]))
    told.wait()
    assert late.happened.wait(PATIENCE)
    assert "was lost after it was sent" in str(late.errors[0])


def test_who_asks_for_an_id_of_his_own_choice_is_told_that_no_result_can_come(asker: RabbitEngine) -> None:
    lost = Losses()
    asker.backend.subscribe(["my-own-id"], Told(), lost)
    assert lost.happened.wait(PATIENCE)
    assert "leave out task_id" in str(lost.errors[0])


def test_results_are_bounded(rabbitmq_url: str, worker: RabbitEngine) -> None:
    asker = open_engine(rabbitmq_url.replace("amqp", "rpc"), result_max_bytes=100)
    ids, told = [minted(asker) for _ in range(5)], Told()
    asker.backend.subscribe(ids, told)
    worker.run(worker.backend.store([(id, outcome(b"x" * 40)) for id in ids]))
    told.wait(5)
    states = [report.state for report in fetched(asker, *ids)]
    asker.close()
    assert states == [State.UNKNOWN] * 3 + [State.SUCCESS] * 2
