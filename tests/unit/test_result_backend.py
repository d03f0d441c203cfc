"""Results on another server than tasks, as callers see them."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import AsyncResult, ConfigError, Penstock, ResultTimeout, ResultUnavailable, State, as_completed
from penstock.coordinator import Revoked
from penstock.dispatch import Dispatch
from penstock.errors import BrokerUnavailable, Unsupported
from penstock.outcome import Outcome, Progress, Report
from penstock.result_url import result_url
from tests.unit.fake_engine import FEATURES, FakeBackend, FakeEngine

HERE = Path("/srv/shop")
FORGETFUL = replace(FEATURES, knows_ids=False, coordination=False, results=False)


def test_where_results_are() -> None:
    assert result_url(None, "redis://one", HERE) is None
    assert result_url("redis://one", "redis://one", HERE) is None
    assert result_url("redis://one/1", "redis://one", HERE) == "redis://one/1"
    assert result_url("rpc://", "amqp://me:secret@one,two:5671/shop", HERE) == "rpc://me:secret@one,two:5671/shop"
    assert result_url("rpc://", "amqps://one/", HERE) == "rpcs://one/"
    assert result_url("rpc://three/", "redis://one", HERE) == "rpc://three/"
    assert result_url("amqp://three/", "amqp://one/", HERE) == "rpc://three/"
    assert result_url("sqlite:////r.db", "sqlite:////r.db", HERE) is None


def test_a_reply_queue_needs_a_rabbitmq() -> None:
    with pytest.raises(
        ConfigError, match="the broker is redis://, which keeps results itself: leave result_backend out"
    ):
        result_url("rpc://", "redis://:secret@one", HERE)


class MintingBackend(FakeBackend):
    minted = 0

    def prepare(self, timeout: float) -> None:
        return None

    def mint(self) -> str | None:
        self.minted += 1
        return f"minted-{self.minted}"

    async def store(self, outcomes: Any) -> list[bool]:
        fresh = [id not in self.reports for id, _ in outcomes]
        for (id, outcome), first in zip(outcomes, fresh, strict=True):
            if first:
                self.reports[id] = Report(id, outcome.state, outcome)
        return fresh


def two(features: Any = FEATURES) -> tuple[Penstock, FakeEngine, FakeEngine]:
    app = Penstock("tests", broker="fake://", result_backend="other://")
    tasks, results = FakeEngine(features), FakeEngine()
    results.backend = MintingBackend(results.broker.public_id)
    app._engine, app._broker, app._results = tasks, Dispatch(tasks.broker), results  # type: ignore[assignment,arg-type]
    return app, tasks, results


def done(id: str) -> Report:
    return Report(id, State.SUCCESS, Outcome(State.SUCCESS, b"7", 1.0))


def test_the_backend_chooses_ids_for_single_calls_many_and_batches() -> None:
    app, tasks, _ = two()
    task = app.task(name="t")(lambda: None)
    sent = app.send_task("x")
    many = task.delay_many([(), ()])
    with app.batch():
        later = app.send_task("y", task_id="mine")
    assert [r.id for r in (sent, *many, later)] == ["minted-1", "minted-2", "minted-3", "mine"]
    assert [message.id for message in tasks.broker.messages] == ["minted-1", "minted-2", "minted-3", "mine"]


def test_the_end_comes_from_the_results_and_what_is_before_from_the_broker() -> None:
    app, tasks, results = two()
    sent = app.send_task("x", task_id="a")
    states = [sent.state]
    tasks.backend.reports["a"] = Report("a", State.STARTED)
    assert [*states, sent.state] == [State.UNKNOWN, State.STARTED]
    results.backend.reports["a"] = done("a")
    assert sent.get() == 7


def test_what_the_broker_ended_itself_is_told_where_no_result_is() -> None:
    app, tasks, _ = two()
    tasks.backend.reports["a"] = Report("a", State.REVOKED)
    assert app.AsyncResult("a").state is State.REVOKED


def test_a_result_that_came_between_two_looks_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    app, tasks, results = two()
    ask = tasks.backend.fetch

    async def gone(keys: Any) -> Any:
        results.backend.reports["a"] = done("a")
        return await ask(keys)

    monkeypatch.setattr(tasks.backend, "fetch", gone)
    assert app.AsyncResult("a").state is State.SUCCESS


def test_an_unknown_id_is_waited_for_where_the_broker_does_not_know_ids() -> None:
    app, _, results = two(FORGETFUL)
    results.backend.reports["a"] = Report("a", State.UNKNOWN)
    sent: AsyncResult[Any] = app.AsyncResult("a")
    with pytest.raises(ResultTimeout, match="a is UNKNOWN after 0"):
        sent.get(timeout=0.01)
    with pytest.raises(ResultTimeout):
        asyncio.run(sent.aget(timeout=0.01))
    results.backend.watched.clear()

    def finish() -> None:
        results.backend.watched.wait(30)
        results.backend.finish(done("a"))

    thread = threading.Thread(target=finish)
    thread.start()
    assert [r.get() for r in as_completed([sent], timeout=30)] == [7]
    thread.join()


def test_an_unknown_id_is_refused_where_the_broker_knows() -> None:
    with pytest.raises(ResultUnavailable, match="is unknown here"):
        two()[0].AsyncResult("a").get(timeout=30)


def test_results_that_are_lost_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    app, _, results = two(FORGETFUL)
    gone = BrokerUnavailable("the reply queue went with its connection")
    monkeypatch.setattr(results.backend, "subscribe", lambda keys, notify, lost=None: (lost(gone), results.backend)[1])
    sent: AsyncResult[Any] = app.AsyncResult("a")
    with pytest.raises(ResultUnavailable, match="cannot come any more: the reply queue went") as raised:
        sent.get(timeout=30)
    assert raised.value.__cause__ is gone
    with pytest.raises(ResultUnavailable, match="cannot come any more: the reply queue went"):
        asyncio.run(sent.aget(timeout=30))
    with pytest.raises(ResultUnavailable, match="1 of the results cannot come any more"):
        list(as_completed([sent], timeout=30))


def test_without_a_place_for_results_waiting_is_refused_with_the_remedy() -> None:
    app = Penstock("tests", broker="fake://")
    engine = FakeEngine(FORGETFUL)
    app._engine, app._broker = engine, Dispatch(engine.broker)  # type: ignore[assignment,arg-type]
    sent = app.send_task("x")
    assert sent.state is State.UNKNOWN
    with pytest.raises(ResultUnavailable, match="fake:// keeps no results, and result_backend names no other place"):
        sent.get()
    assert next(iter(as_completed([sent]))) is sent


def test_forgetting_and_progress_go_where_they_are_looked_for() -> None:
    app, tasks, results = two()
    results.backend.reports["a"] = done("a")
    app.AsyncResult("a").forget()
    assert results.backend.reports == {}
    app.client.note("a", Progress(1.0))
    forgetful, _, kept = two(FORGETFUL)
    forgetful.client.note(5, Progress(2.0))
    assert tasks.backend.notes == [("a", Progress(1.0))]
    assert kept.backend.notes == [("id-5", Progress(2.0))]


def test_a_broker_that_remembers_nothing_revokes_through_the_results() -> None:
    app, _, results = two(FORGETFUL)
    states: dict[str, bytes] = {}

    class Remembering:
        async def put(self, key: str, value: bytes) -> int:
            states[key] = value
            return 1

    remembering: Any = Remembering()
    results.coordinator = remembering
    sent: AsyncResult[Any] = app.AsyncResult("a")
    assert sent.revoke() is Revoked.REMEMBERED
    assert sent.state is State.REVOKED
    assert list(states) == ["penstock.revoked"]
    assert app.AsyncResult("a").revoke() is Revoked.ENDED
    with pytest.raises(Unsupported, match="cannot end what runs"):
        sent.revoke(terminate=True)


def test_two_files(tmp_path: Path) -> None:
    app = Penstock("tests", broker=f"sqlite:///{tmp_path}/q.db", result_backend=f"sqlite:///{tmp_path}/r.db")
    sent = app.send_task("x")
    assert sent.state is State.PENDING
    app.results.run(app.backend.store([(sent.id, Outcome(State.SUCCESS, b"7", 1.0))]))
    assert sent.get() == 7
    app.close()
