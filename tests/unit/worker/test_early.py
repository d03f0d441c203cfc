"""How a start with `acks_late=False` gets on record: once, under its lease, and whatever the engine answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from penstock import Penstock, State, WorkerLost
from penstock.broker import Demand, Lost
from penstock.codec import rebuild
from penstock.commit import FusedCommitter
from penstock.delivery import ACK, RELEASE, Dead, Delivery, RetryAt, Settlement
from penstock.effects import Put
from penstock.engines import memory
from penstock.errors import BrokerUnavailable, ConfigError, OutcomeUnknown
from penstock.message import VERSION, Message, start_key
from penstock.outcome import Outcome
from penstock.queue import Queue
from penstock.worker.acknowledged import Acknowledged
from penstock.worker.early import Noted, early_of
from penstock.worker.plan import Plans
from penstock.worker.run import Runner
from penstock.worker.slot import Batch, Slot


class Bench:
    """An app with a task "once", and workers that have taken a call of it."""

    def __init__(self, broker: str) -> None:
        self.app = Penstock("early", broker=broker)
        self.engine = self.app.engine
        self.task: Any = self.app.task(name="once", acks_late=False, max_attempts=2)(lambda: "done")
        self.runner = Runner(Plans(self.app), self.engine.broker, "bench", self.app.clock)
        self.giving_up = True

    def take(self, worker: str = "one") -> Delivery:
        [delivery] = self.engine.run(self.engine.broker.step([], Demand(("default",), 1, worker))).deliveries
        return delivery

    def lose(self, worker: str) -> None:
        self.engine.run(self.engine.coordinator.bury(worker))

    def slot(self, delivery: Delivery) -> Slot:
        slot = Slot(0, Batch())
        assert self.runner.prepare(slot, delivery, self.app.clock.monotonic()) is None
        return slot

    def noted(self, worker: str = "one") -> Noted:
        return Noted(self.engine, self.runner, self.app.clock, worker, 30.0, lambda: self.giving_up)

    def note(self, id: str) -> bytes | None:
        found = self.engine.run(self.engine.coordinator.get(start_key(id)))
        return None if found is None else found[0]

    def settle(self, slot: Slot) -> list[Settlement]:
        settled = slot.batch.take()
        self.engine.run(self.engine.broker.step(settled, None))
        return settled


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    sqlite = f"sqlite:///{tmp_path}/queue.db?durability=process"
    bench = Bench(sqlite if request.param == "sqlite" else "memory://")
    yield bench
    bench.app.close()


def test_a_start_is_noted_until_its_end_is_settled(bench: Bench) -> None:
    result = bench.task.delay()
    slot = bench.slot(bench.take())
    early = bench.noted()
    assert early.claim(slot, cast(Delivery, slot.delivery))
    assert (bench.note(result.id) is not None, slot.batch.finished) == (True, [])
    early.conclude(slot, bench.runner.succeed(slot, "done", bench.app.clock.monotonic()))
    assert bench.note(result.id) is not None, "what is not settled has not ended"
    bench.settle(slot)
    assert (bench.note(result.id), result.get(timeout=5)) == (None, "done")


def test_what_was_started_is_not_started_again(bench: Bench) -> None:
    result = bench.task.delay()
    slot = bench.slot(first := bench.take("dead"))
    assert bench.noted("dead").claim(slot, first)
    bench.lose("dead")
    other = bench.slot(second := bench.take())
    assert not bench.noted().claim(other, second)
    [lost] = bench.settle(other)
    assert isinstance(lost.verdict, Dead)
    assert (result.state, bench.note(result.id)) == (State.FAILURE, None)
    assert result.report().outcome is not None
    with pytest.raises(WorkerLost, match="acks_late=False"):
        result.get()
    bench.noted().conclude(slot, bench.runner.succeed(slot, "late", bench.app.clock.monotonic()))
    bench.settle(slot)
    assert bench.app.AsyncResult(result.id).state is State.FAILURE, "the lease was lost, and with it the end"
    assert bench.engine.run(bench.engine.inspect.retry_dead([result.id])) == 1
    assert bench.noted().claim(bench.slot(third := bench.take()), third), "somebody asked for it"


def test_while_it_runs_it_has_its_place_in_its_limit(bench: Bench) -> None:
    lone: Any = bench.app.task(name="lone", acks_late=False, concurrency_limit=1)(lambda: "done")
    lone.delay_many([()] * 2)
    slot = bench.slot(delivery := bench.take())
    assert bench.noted().claim(slot, delivery)
    more = Demand(("default",), 1, "one")
    assert bench.engine.run(bench.engine.broker.step([], more)).deliveries == []
    bench.noted().conclude(slot, bench.runner.succeed(slot, "done", bench.app.clock.monotonic()))
    bench.settle(slot)
    bench.take()


def test_a_retry_starts_again(bench: Bench) -> None:
    result = bench.task.delay()
    slot = bench.slot(delivery := bench.take())
    assert bench.noted().claim(slot, delivery)
    bench.noted().conclude(slot, Settlement(delivery.receipt, RetryAt(0.0, delivery.message)))
    bench.settle(slot)
    assert bench.note(result.id) is None
    assert bench.noted().claim(bench.slot(again := bench.take()), again)


def test_who_lost_it_before_does_not_start_and_leaves_no_note(bench: Bench) -> None:
    result = bench.task.delay()
    asleep = bench.slot(first := bench.take("asleep"))
    bench.lose("asleep")
    other = bench.slot(second := bench.take())
    assert not bench.noted("asleep").claim(asleep, first)
    assert bench.note(result.id) is None
    bench.settle(asleep)
    assert bench.noted().claim(other, second)
    mine = bench.note(result.id)
    assert not bench.noted("asleep").claim(asleep, first)
    assert bench.note(result.id) == mine, "it is not his to take away"


def test_who_lost_it_takes_away_no_note_but_his_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    result = bench.task.delay()
    slot = bench.slot(delivery := bench.take())
    put = bench.engine.coordinator.put

    async def extend(*_: object) -> list[Lost]:
        """His note was found and taken for a run's, and somebody asked for another."""
        await put(start_key(result.id), b"another's")
        return [Lost()]

    early = bench.noted()
    monkeypatch.setattr(bench.engine.broker, "extend", extend)
    assert not early.claim(slot, delivery)
    assert bench.note(result.id) == b"another's"


def test_what_was_revoked_meanwhile_does_not_start(bench: Bench) -> None:
    result = bench.task.delay()
    slot = bench.slot(delivery := bench.take())
    result.revoke()
    assert not bench.noted().claim(slot, delivery)
    bench.settle(slot)
    assert (result.state, bench.note(result.id)) == (State.REVOKED, None)


Call = Callable[[], Coroutine[Any, Any, Any]]


class Flaky:
    """An engine's verb that does what it is to do, and fails to say so for the first `failures` times."""

    def __init__(self, bare: Callable[..., Coroutine[Any, Any, Any]], failures: int, error: Exception) -> None:
        self._bare, self.left, self._error = bare, failures, error

    async def __call__(self, *args: Any) -> Any:
        answer = await self._bare(*args)
        if self.left:
            self.left -= 1
            raise self._error
        return answer


@pytest.mark.parametrize("verb", ["put", "extend"])
def test_an_answer_that_did_not_come_is_asked_for_again(
    bench: Bench, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.task.delay()
    slot, bench.giving_up = bench.slot(delivery := bench.take()), False
    holder = bench.engine.coordinator if verb == "put" else bench.engine.broker
    flaky = Flaky(getattr(holder, verb), 2, OutcomeUnknown("cut"))
    early = bench.noted()
    monkeypatch.setattr(holder, verb, flaky)
    assert early.claim(slot, delivery)
    assert flaky.left == 0


def test_an_outage_is_no_time_of_the_tasks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a time limit run out in it."""
    seen: list[float] = []
    bench.task.delay()
    slot = bench.slot(delivery := bench.take())
    prepared, put = slot.started, bench.engine.coordinator.put

    async def slow(*args: Any) -> Any:
        seen.append(slot.started)
        return await put(*args)

    monkeypatch.setattr(bench.engine.coordinator, "put", slow)
    early = bench.noted()
    assert early.claim(slot, delivery)
    assert (seen, slot.started) == ([math.inf], prepared)
    slot.started = prepared - 60.0
    assert early.claim(slot, delivery), "his own note is no reason"
    assert slot.started >= prepared


def test_who_stops_in_an_outage_hands_it_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.task.delay()
    slot = bench.slot(delivery := bench.take())
    early = bench.noted()
    monkeypatch.setattr(bench.engine.coordinator, "put", Flaky(_nothing, 99, BrokerUnavailable("away")))
    assert not early.claim(slot, delivery)
    assert slot.batch.finished == [Settlement(delivery.receipt, RELEASE)]


def test_a_start_that_cannot_be_noted_is_an_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.task.delay()
    slot = bench.slot(delivery := bench.take())
    early = bench.noted()
    monkeypatch.setattr(bench.engine.coordinator, "put", Flaky(_nothing, 99, ConfigError("too long")))
    assert not early.claim(slot, delivery)
    [end] = slot.batch.finished
    assert end.outcome is not None
    assert "too long" in str(rebuild(end.outcome.value, ()))


async def _nothing(*_: object) -> None:
    """Nothing was done."""


def test_every_end_without_a_run_takes_the_note_of_an_earlier_one_with_it(bench: Bench) -> None:
    runner, now = bench.runner, bench.app.clock.monotonic()
    ids = [bench.task.delay().id, bench.task.delay().id, bench.task.delay().id]
    [poison, expired, misfit] = [bench.take() for _ in ids]
    assert poison.message is not None
    assert misfit.message is not None
    assert expired.message is not None
    poison.message.attempts, expired.message.expires, misfit.message.body = 2, 1.0, b"[1, 2]"
    ends = [cast(Settlement, runner.prepare(Slot(0, Batch()), one, now)) for one in (poison, expired, misfit)]
    bench.task.delay()
    running = bench.slot(delivery := bench.take())
    ends += [runner.give_up(running, delivery, OSError(), now), runner.revoke(running, delivery, now)]
    notes = [start_key(id) for id in (*ids, running.request.id, running.request.id)]
    assert [end.effects for end in ends] == [(Put(note, None),) for note in notes]


def test_a_broker_without_state_is_told_that_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """As RabbitMQ is."""
    bench = Bench("memory://")
    broker = SimpleNamespace(features=SimpleNamespace(notes_starts=False), step=bench.engine.broker.step)
    app = cast(Penstock, SimpleNamespace(engine=SimpleNamespace(broker=broker, run=bench.engine.run), keeps_results=0))
    early = early_of(app, FusedCommitter(bench.engine.broker), bench.runner, "one", 30.0, lambda: True)
    bench.task.delay()
    assert early.claim(slot := bench.slot(delivery := bench.take()), delivery)
    assert isinstance(early, Acknowledged)
    assert bench.engine.run(bench.engine.broker.depth("default")) == 0
    assert not early.claim(slot, delivery), "its lease is gone"


def test_what_was_acknowledged_is_retried_and_stored_apart() -> None:
    """Also into a full queue."""
    engine = memory.open_engine()
    early = Acknowledged(engine, engine, FusedCommitter(engine.broker))
    message = Message(VERSION, "once", b"[]")
    engine.run(engine.inspect.declare([Queue("default", max_length=1)]))
    engine.run(engine.broker.publish([message], 5.0))
    request, plan = SimpleNamespace(id="again", key="again"), SimpleNamespace(name="once")
    slot = cast(Slot, SimpleNamespace(request=request, plan=plan))
    early.conclude(slot, Settlement((1, 1), RetryAt(0.0, message)))
    assert engine.run(engine.broker.depth("default")) == 2
    early.conclude(slot, Settlement((1, 1), ACK, Outcome(State.SUCCESS, b"1", 0.0)))
    [report] = engine.run(engine.backend.fetch(["again"]))
    assert (report.state, report.task) == (State.SUCCESS, "once")
    engine.close()
