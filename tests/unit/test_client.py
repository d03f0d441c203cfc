"""From a call to a published message, for blocking and awaiting callers alike."""

import asyncio
import contextvars
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import (
    AlreadyQueued,
    BrokerUnavailable,
    ConfigError,
    MessageTooLarge,
    OutcomeUnknown,
    Penstock,
    QueueFull,
    Unique,
    UnknownQueue,
    Unsupported,
)
from penstock import request as requests
from penstock.broker import Answer, Conflict, Duplicate, Full, Unknown
from penstock.clock import ManualClock
from penstock.message import Message, Options
from penstock.message import Unique as UniqueGuard
from penstock.request import Request
from tests.unit.fake_engine import FEATURES, FakeEngine, fake_app

NOW = 1_700_000_000.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


def add(x: int, y: int) -> int:
    return x + y


def app_with_add(**settings: Any) -> tuple[Penstock, FakeEngine, Any]:
    app, engine = fake_app(**settings)
    return app, engine, app.task(name="add")(add)


def test_delay_publishes_the_call_within_the_deadline(clock: ManualClock) -> None:
    _, engine, task = app_with_add(clock=clock, publish_timeout=2.5, namespace="ns")
    result = task.delay(4, y=5)
    (message,) = engine.broker.messages
    assert message == Message(1, "add", b"[[4,5],{}]", queue="default", priority=5, namespace="ns", sent=NOW)
    assert engine.broker.timeouts == [2.5]
    assert result.id == "id-1"


def test_sync_and_async_calls_publish_the_same(clock: ManualClock) -> None:
    _, engine, task = app_with_add(clock=clock)
    options: dict[str, Any] = {"countdown": 5, "queue": "q", "headers": {"a": "b"}, "time_limit": 3, "task_id": "mine"}

    async def calls() -> list[str]:
        one = await task.adelay(4, 5)
        two = await task.aapply_async((4,), {"y": 5}, **options)
        three = await task.app.asend_task("other", (1,), priority=9)
        many = await task.adelay_many([(i, i) for i in range(4)])
        return [r.id for r in (one, two, three, *many)]

    ids = asyncio.run(calls())
    asynchronous, engine.broker.batches = engine.broker.batches, []
    engine.broker.published = 0
    results = [
        task.delay(4, 5),
        task.apply_async((4,), {"y": 5}, **options),
        task.app.send_task("other", (1,), priority=9),
    ]
    results += task.delay_many([(i, i) for i in range(4)])
    assert engine.broker.batches == asynchronous
    assert [r.id for r in results] == ids


def test_a_bad_call_publishes_nothing() -> None:
    _, engine, task = app_with_add()
    for call in (
        lambda: task.delay(1),
        lambda: task.delay(1, "2"),
        lambda: task.apply_async((1, 2), eta=datetime.now()),
    ):
        with pytest.raises((TypeError, ConfigError)):
            call()
    assert engine.broker.messages == []


AWARE = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"countdown": 1.5}, {"eta": NOW + 1.5}),
        ({"countdown": 0}, {"eta": None}),
        ({"eta": AWARE}, {"eta": AWARE.timestamp()}),
        ({"eta": NOW - 100}, {"eta": NOW - 100}),
        ({"expires": 60}, {"expires": NOW + 60}),
        ({"expires": AWARE}, {"expires": AWARE.timestamp()}),
        ({"queue": "q", "priority": 9, "partition": "p"}, {"queue": "q", "priority": 9, "partition": "p"}),
        ({"task_id": "mine"}, {"id": "mine"}),
        ({"headers": {"a": "b"}}, {"headers": {"a": "b"}}),
        ({"time_limit": 3, "soft_time_limit": 2}, {"options": Options(3, 2)}),
        ({"ignore_result": True}, {"options": Options(ignore_result=True)}),
        ({"serializer": "msgpack"}, {"content_type": "msgpack", "body": b"\x92\x92\x04\x05\x80"}),
    ],
    ids=str,
)
def test_options_of_a_call(clock: ManualClock, options: dict[str, Any], expected: dict[str, Any]) -> None:
    _, engine, task = app_with_add(clock=clock)
    task.apply_async((4, 5), **options)
    (message,) = engine.broker.messages
    plain = Message(1, "add", b"[[4,5],{}]", sent=NOW)
    assert message == replace(plain, **expected)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"contdown": 1}, "unknown call option 'contdown'; did you mean 'countdown'"),
        ({"countdown": -1}, "countdown must be at least 0 seconds, not -1"),
        ({"countdown": float("nan")}, "countdown must be"),
        ({"countdown": 10**400}, "countdown must be"),
        ({"countdown": "5"}, "countdown must be"),
        ({"countdown": 1, "eta": NOW}, "countdown or eta, not both"),
        ({"eta": datetime(2030, 1, 1)}, "has no timezone: give it one"),
        ({"eta": "tomorrow"}, "eta must be an aware datetime"),
        ({"expires": 0}, "expires must be more than 0 seconds"),
        ({"expires": datetime(2030, 1, 1)}, "has no timezone"),
        ({"priority": 10}, "priority must be"),
        ({"priority": "high"}, "priority must be"),
        ({"queue": ""}, "queue's name must be a non-empty string"),
        ({"queue": 5}, "queue's name must be a non-empty string"),
        ({"partition": "a\n"}, "partition name"),
        ({"task_id": "x" * 300}, "over 200 bytes"),
        ({"headers": {"a": 1}}, "headers map strings to strings; 'a' is int"),
        ({"time_limit": -1}, "time_limit must be more than 0"),
        ({"serializer": "yaml"}, "'yaml' is not in accept_content: this app's own workers"),
        ({"unique": ""}, "unique key must be"),
    ],
    ids=str,
)
def test_bad_options_of_a_call(options: dict[str, Any], error: str) -> None:
    _, engine, task = app_with_add()
    with pytest.raises(ConfigError, match=error):
        task.apply_async((4, 5), **options)
    assert engine.broker.messages == []


def test_a_task_s_own_expiry_counts_from_the_call(clock: ManualClock) -> None:
    app, engine = fake_app(clock=clock)
    app.task(name="x", expires=10)(add).delay(1, 2)
    assert engine.broker.messages[0].expires == NOW + 10


def test_a_queue_that_is_not_declared() -> None:
    _, engine, task = app_with_add(task_create_missing_queues=False)
    with pytest.raises(UnknownQueue, match="queue 'defalt' is not declared; did you mean 'default'"):
        task.apply_async((1, 2), queue="defalt")
    assert engine.broker.messages == []


@pytest.mark.parametrize(("feature", "options"), [("delay", {"countdown": 1}), ("partition", {"partition": "p"})])
def test_what_the_engine_lacks_is_refused(feature: str, options: dict[str, Any]) -> None:
    app, engine = fake_app(replace(FEATURES, **{feature: False}))
    task = app.task(name="add")(add)
    with pytest.raises(Unsupported, match="the fake engine"):
        task.apply_async((1, 2), **options)
    assert engine.broker.messages == []


def test_a_message_that_is_too_large() -> None:
    app, engine = fake_app()
    with pytest.raises(MessageTooLarge, match="task 'echo': the arguments take 2,008 bytes"):
        app.send_task("echo", ("x" * 1999,))
    assert engine.broker.messages == []


def test_a_call_inside_a_task_knows_its_parents() -> None:
    _, engine, task = app_with_add()
    parent = Request(Message(1, "p", b"", options=Options(root_id="root")), 7, engine.broker.public_id)

    def inside() -> None:
        requests.current.set(parent)
        task.delay(1, 2)

    contextvars.copy_context().run(inside)
    task.delay(1, 2)
    inner, outer = engine.broker.messages
    assert inner.options == Options(root_id="root", parent_id="id-7")
    assert outer.options is None


def test_publishing_middleware_sees_and_replaces_messages() -> None:
    seen: list[str] = []

    def tag(messages: Any) -> list[Message]:
        seen.extend(message.task for message in messages)
        return [replace(message, headers={"tag": "1"}) for message in messages]

    app, engine = fake_app(publishing=[tag])
    app.send_task("x")
    assert seen == ["x"]
    assert engine.broker.messages[0].headers == {"tag": "1"}


def test_middleware_may_not_drop_a_message() -> None:
    app, engine = fake_app(publishing=[lambda messages: []])
    with pytest.raises(ConfigError, match="returned 0 messages for 1"):
        app.send_task("x")
    assert engine.broker.messages == []


# -- what the broker answers


def test_full_is_an_error() -> None:
    _, engine, task = app_with_add()
    engine.broker.answer = lambda message: Full("default", 5, 5, "tasks", 1.5)
    with pytest.raises(QueueFull) as caught:
        task.delay(1, 2)
    assert (caught.value.queue, caught.value.retry_after, caught.value.accepted) == ("default", 1.5, 0)


def test_a_duplicate_is_the_task_that_was_there() -> None:
    _, engine, task = app_with_add()
    engine.broker.answer = lambda message: Duplicate("mine")
    assert task.apply_async((1, 2), task_id="mine").id == "mine"


def test_a_conflict_is_the_holder_or_an_error() -> None:
    _, engine, task = app_with_add()
    engine.broker.answer = lambda message: Conflict(message.guards[0].key, 9)  # type: ignore[union-attr]
    assert task.apply_async((1, 2), unique="k").id == "id-9"
    with pytest.raises(AlreadyQueued) as caught:
        task.apply_async((1, 2), unique=Unique("k", on_conflict="raise"))
    assert (caught.value.key, caught.value.task_id) == ("k", "id-9")
    engine.broker.answer = lambda message: Conflict("k", None)
    with pytest.raises(AlreadyQueued):
        task.apply_async((1, 2), unique="k")


def test_unique_of_the_task_and_of_the_call() -> None:
    app, engine = fake_app()
    task = app.task(name="add", unique="add:{x}:{y}")(add)
    task.delay(1, 2)
    task.apply_async((1, 2), unique=Unique("other", until="start", ttl=5))
    task.apply_async((1, 2), unique=False)
    app.send_task("far", (1,), unique="k")
    assert [message.guards for message in engine.broker.messages] == [
        (UniqueGuard("add:1:2"),),
        (UniqueGuard("other", "start", 5),),
        (),
        (UniqueGuard("k"),),
    ]


def test_an_unknown_outcome_is_asked_again_with_the_same_id() -> None:
    app, engine = fake_app()
    told: list[str | None] = []

    def answer(message: Message) -> Answer:
        told.append(message.id)
        return Unknown("minted") if len(told) < 3 else Duplicate("minted")

    engine.broker.answer = answer
    assert app.send_task("x").id == "minted"
    assert told == [None, "minted", "minted"]


def test_an_outcome_that_stays_unknown_is_an_error_with_the_ids(clock: ManualClock) -> None:
    app, engine = fake_app(clock=clock)

    def answer(message: Message) -> Answer:
        clock.advance(2)
        return Unknown("minted")

    engine.broker.answer = answer
    with pytest.raises(OutcomeUnknown) as caught:
        app.send_task("x")
    assert caught.value.ids == ("minted",)
    assert engine.broker.timeouts == [5.0, 3.0, 1.0]


def test_what_is_unknown_stays_so_when_asking_again_fails() -> None:
    app, engine = fake_app()
    told: list[str | None] = []

    def answer(message: Message) -> Answer:
        told.append(message.id)
        if len(told) > 1:
            raise BrokerUnavailable("amqp://one: no host has answered yet")
        return Unknown("minted")

    engine.broker.answer = answer
    with pytest.raises(OutcomeUnknown, match="may or may not be published: amqp://one: no host") as caught:
        app.send_task("x")
    assert caught.value.ids == ("minted",)


@pytest.mark.parametrize(("knows_ids", "error"), [(True, QueueFull), (False, OutcomeUnknown)])
def test_full_when_asked_again(clock: ManualClock, knows_ids: bool, error: type[Exception]) -> None:
    """Who does not know ids has refused the repeat, and says nothing of the first try."""
    app, engine = fake_app(replace(FEATURES, knows_ids=knows_ids), clock=clock)
    told: list[str | None] = []

    def answer(message: Message) -> Answer:
        clock.advance(2)
        told.append(message.id)
        return Full("default", 1, 1, "tasks", 1.0) if len(told) > 1 else Unknown("minted")

    engine.broker.answer = answer
    with pytest.raises(error, match="full"):
        app.send_task("x")


def test_a_timedelta_as_result_expiry() -> None:
    assert fake_app(result_expires=timedelta(hours=1))[0].conf.result_expires == 3600
