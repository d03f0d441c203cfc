"""Who may not, cannot: what clients are refused, what they are told of it, and what the log says."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock import Penstock, Queue, QueueFull
from penstock.broker import Accepted, Conflict, Demand, LeaseLost, Unknown
from penstock.clock import ManualClock
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, Delivery, Settlement
from penstock.effects import Put
from penstock.engines.server import ServerEngine, greeting
from penstock.errors import AccessRefused, BrokerError, BrokerUnavailable, ConfigError
from penstock.message import Guard, Limit, Message, Unique, pack
from penstock.outcome import Outcome, Progress, State
from penstock.pressure.overview import overview
from penstock.protocol import calls
from penstock.protocol.replies import Failed, Published, Refused, Told, Value, Welcome
from penstock.protocol.requests import CallRequest, FollowUpRequest, Hello, PublishRequest, WatchRequest
from penstock.server import broker as broker_module
from penstock.server import verbs
from penstock.server.access.book import Book
from penstock.server.access.rights import Permission
from tests.unit.server.house import ADA, PASSWORD, Client, House

W, R = "w" * 32, "r" * 32


@pytest.fixture
def peopled(house: House) -> House:
    """`wes` may publish to what is named job…, `rea` read it, `bob` do all in what is named other…."""
    house.permit("wes", Permission("/", "job.*", "job.*", ""))
    house.permit("rea", Permission("/", "", "", "job.*"))
    house.permit("bob", Permission("/", "other.*", "other.*", "other.*"))
    house.do(house.broker.book.refresh)
    return house


@pytest.fixture
def as_user(peopled: House) -> Iterator[Callable[[str], ServerEngine]]:
    engines: dict[str, ServerEngine] = {}

    def engine(user: str) -> ServerEngine:
        if user not in engines:
            engines[user] = peopled.engine(user)
        return engines[user]

    yield engine
    for one in engines.values():
        one.close()


def publish(engine: ServerEngine, queue: str = "job", task_id: str | None = None) -> int:
    [answer] = engine.run(engine.broker.publish([Message(1, "t", b"1", queue=queue, id=task_id)], 5.0))
    assert isinstance(answer, Accepted)
    return answer.key if isinstance(answer.key, int) else 0


def take(engine: ServerEngine, worker: str, queue: str = "job") -> Delivery:
    [delivery] = engine.run(engine.broker.step([], Demand((queue,), 1, worker))).deliveries
    return delivery


def join(engine: ServerEngine, worker: str, queue: str = "job") -> None:
    engine.run(engine.coordinator.join(WorkerInfo(worker, "n", "h", 1, 1, (queue,), "p", time.time())))


def end(delivery: Delivery) -> Settlement:
    return Settlement(delivery.receipt, ACK, Outcome(State.SUCCESS, b"1", time.time()))


def test_a_missing_right_is_named_and_nothing_of_what_there_is(
    as_user: Callable[[str], ServerEngine], caplog: pytest.LogCaptureFixture
) -> None:
    publish(as_user("wes"), "job")
    texts = []
    for queue in ("job", "job-that-there-is-not"):
        with pytest.raises(AccessRefused) as refused:
            publish(as_user("bob"), queue)
        texts.append(str(refused.value).replace(queue, "*"))
    assert texts[0] == texts[1]
    assert "no write right on queue" in texts[0]
    assert "penstock users permit" in texts[0]
    assert "other" not in texts[0]
    logged = [one.getMessage() for one in caplog.records if one.name.startswith("penstock.broker")]
    assert any("'bob'" in one and "other.*" in one for one in logged), "the log says what it has"


def test_who_may_only_publish_consumes_and_settles_nothing(as_user: Callable[[str], ServerEngine]) -> None:
    wes, rea = as_user("wes"), as_user("rea")
    key = publish(wes)
    delivery = take(rea, R)
    note = wes.backend.note(key, Progress(1.0))
    forged = wes.backend.store([(key, Outcome(State.SUCCESS, b"1", time.time()))])
    for call in (
        wes.broker.step([], Demand(("job",), 1, W)),
        wes.broker.step([end(delivery)], None),
        wes.broker.extend([delivery.receipt], 60.0),
        wes.broker.follow_up([Message(1, "t", b"1", queue="job", id="follows")], 5.0),
        wes.inspect.purge("job"),
        wes.inspect.peek("job"),
        wes.inspect.dead_letters("job"),
        note,
        forged,
    ):
        with pytest.raises(AccessRefused, match="no read right"):
            wes.run(call)
    [done] = rea.run(rea.broker.step([end(delivery)], None)).settled
    assert not isinstance(done, LeaseLost)
    assert wes.run(wes.backend.fetch([key]))[0].state is State.SUCCESS, "whose task it was sees its result"


def test_whom_the_broker_refused_is_shown_to_who_may_see_it(peopled: House) -> None:
    peopled.permit("ops", Permission("/", "", "", "job.*|pressure:.*|refused:.*"))
    peopled.permit("old", Permission("/", "", "", "job.*|pressure:.*"))
    peopled.do(peopled.broker.book.refresh)
    settings: Any = {"task_default_queue": "job", "task_queues": [Queue("job", 1)]}
    with contextlib.ExitStack() as stack:
        apps = {
            user: Penstock("shop", broker=peopled.url(user), **settings) for user in (ADA, "wes", "rea", "ops", "old")
        }
        for user, app in apps.items():
            stack.callback(app.close)
            app.task(name="t", queue="job")(lambda: None)
            if user in (ADA, "wes"):
                app.tasks["t"].apply_async((), task_id="only")
                for _ in range(3):
                    with pytest.raises(QueueFull):
                        app.tasks["t"].delay_many([()] * 2)
        for name in ("refused::0", "refused:other:3"):
            for user in ("wes", "rea"):
                engine = apps[user].engine
                with pytest.raises(AccessRefused, match="no read right"):
                    engine.run(engine.coordinator.get(name))
                with pytest.raises(AccessRefused, match="no write right"):
                    engine.run(engine.coordinator.put(name, b"forged"))
        peopled.do(peopled.broker.spaces["/"].tell_refused)
        views = {
            user: app.engine.run(overview(app.engine, app.engine.coordinator, app.clock, ""))
            for user, app in apps.items()
            if user in ("ops", "old")
        }
        assert [one.queues[0].info.refused for one in views.values()] == [12, 12]
        assert {(one.who, one.count) for _, one in views["ops"].refusals} == {
            ("ada@127.0.0.1", 6),
            ("wes@127.0.0.1", 6),
        }
        assert (views["old"].refusals, views["old"].unread) == ([], [""]), "its rights are of before there was this"


def test_what_a_broker_counted_outlives_it(tmp_path: Path) -> None:
    def opened(house: House) -> Penstock:
        app = Penstock("shop", broker=house.url(), task_queues=[Queue("job", 1)])
        app.task(name="t", queue="job")(lambda: None)
        return app

    with House(tmp_path / "data") as house, contextlib.closing(opened(house)) as app:
        for _ in range(4):
            with contextlib.suppress(QueueFull):
                app.tasks["t"].delay()
    with House(tmp_path / "data") as house, contextlib.closing(opened(house)) as app:
        found = app.engine.run(app.engine.inspect.queues(""))
        assert {one.name: one.refused for one in found}["job"] == 3


def test_who_may_only_read_publishes_nothing(as_user: Callable[[str], ServerEngine]) -> None:
    publish(as_user("wes"))
    rea = as_user("rea")
    with pytest.raises(AccessRefused, match="no write right"):
        publish(rea)
    with pytest.raises(AccessRefused, match="no write right"):
        rea.run(rea.broker.follow_up([Message(1, "t", b"1", queue="job", id="follows")], 5.0))
    with pytest.raises(AccessRefused, match="no configure right"):
        rea.run(rea.broker.step([], Demand(("job-new",), 1, R)))
    with pytest.raises(AccessRefused, match="no write right"):
        rea.run(rea.coordinator.put("job", b"1"))


def test_who_may_run_a_task_may_note_that_it_starts_and_nobody_else(as_user: Callable[[str], ServerEngine]) -> None:
    wes, rea, bob = as_user("wes"), as_user("rea"), as_user("bob")
    publish(wes, task_id="once")
    delivery = take(rea, R)
    put, get = rea.coordinator.put, rea.coordinator.get
    assert rea.run(put("started/once", b"1", 0)) is not None
    assert (rea.run(put("started/once", b"2", 0)), rea.run(get("started/once")) is not None) == (None, True)
    for stranger in (bob, wes):
        for call in (
            stranger.coordinator.get("started/once"),
            stranger.coordinator.put("started/once", None),
            stranger.coordinator.put("started/later", b"1"),
        ):
            with pytest.raises(AccessRefused, match=r"right on state 'started/(once|later)'"):
                stranger.run(call)
    last = Settlement(delivery.receipt, ACK, None, (Put("started/once", None),))
    rea.run(rea.broker.step([last], None))
    assert rea.run(get("started/once")) is None
    rea.run(rea.broker.step([last], None))  # it is gone, and so is its queue: that is no refusal


def test_a_connection_has_a_bounded_number_of_workers(
    as_user: Callable[[str], ServerEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "MAX_WORKERS", 2)
    rea = as_user("rea")
    join(rea, "a" * 32)
    join(rea, "b" * 32)
    join(rea, "a" * 32)
    with pytest.raises(ConfigError, match="2 workers have joined on this connection"):
        join(rea, "c" * 32)
    assert {one.id for one in rea.run(rea.coordinator.workers())} == {"a" * 32, "b" * 32}
    rea.run(rea.coordinator.leave("b" * 32))
    join(rea, "c" * 32)


def test_a_limit_and_who_holds_a_key_are_others_business(as_user: Callable[[str], ServerEngine]) -> None:
    """Their names and queues may not be written by who asks, and both would change what becomes of others' tasks."""
    wes, bob = as_user("wes"), as_user("bob")

    def ask(engine: ServerEngine, queue: str, guard: Guard) -> object:
        message = Message(1, "t", b"1", queue=queue, guards=(guard,))
        return engine.run(engine.broker.publish([message], 5.0))[0]

    assert isinstance(ask(wes, "job", Limit("job-limit", rate=1.0)), Accepted)
    with pytest.raises(AccessRefused, match="no write right on limit 'job-limit'"):
        ask(bob, "other", Limit("job-limit", rate=0.001))
    assert isinstance(ask(bob, "other", Limit("other-limit", rate=0.001)), Accepted)
    held = ask(wes, "job", Unique("key"))
    assert isinstance(held, Accepted)
    for how in ("replace", "cancel"):
        with pytest.raises(AccessRefused, match="no write right on the holder of key 'key'") as refused:
            ask(bob, "other", Unique("key", on_conflict=how))  # type: ignore[arg-type]  # a loop over literals
        assert "job" not in str(refused.value)
    assert isinstance(ask(bob, "other", Unique("key")), Conflict)
    assert wes.run(wes.backend.fetch([held.key]))[0].state is State.PENDING
    assert isinstance(ask(wes, "job-2", Unique("key", on_conflict="cancel")), Accepted)
    assert wes.run(wes.backend.fetch([held.key]))[0].state is State.REVOKED


def test_what_another_users_worker_holds_is_its_own(peopled: House, as_user: Callable[[str], ServerEngine]) -> None:
    peopled.permit("eve", Permission("/", "", "", "job.*"))
    peopled.do(peopled.broker.book.refresh)
    publish(as_user("wes"))
    rea, eve = as_user("rea"), as_user("eve")
    join(rea, R)
    delivery = take(rea, R)
    for call in (
        eve.broker.step([end(delivery)], None),
        eve.broker.extend([delivery.receipt], 60.0),
        eve.broker.step([], Demand(("job",), 1, R)),
        eve.coordinator.leave(R),
        eve.coordinator.renew([R], 60.0),
    ):
        with pytest.raises(AccessRefused, match="another user"):
            eve.run(call)
    assert not isinstance(rea.run(rea.broker.step([end(delivery)], None)).settled[0], LeaseLost)


def test_results_of_what_one_may_not_see_are_as_if_there_were_none(
    peopled: House, as_user: Callable[[str], ServerEngine]
) -> None:
    wes, rea, bob = as_user("wes"), as_user("rea"), as_user("bob")
    keys = [publish(wes), 0]
    publish(wes, task_id="chosen")
    names = [wes.broker.public_id(keys[0]), "chosen", f"{keys[0]:016x}" + "0" * 16]
    for _ in range(2):
        rea.run(rea.broker.step([end(take(rea, R))], None))
    states = [one.state for one in bob.run(bob.backend.fetch([keys[0], keys[0] + 1, *names]))]
    assert states == [State.UNKNOWN] * 5
    assert [one.state for one in wes.run(wes.backend.fetch([*names]))] == [State.SUCCESS, State.SUCCESS, State.UNKNOWN]
    with pytest.raises(ConfigError, match="not known here"):
        bob.run(bob.coordinator.revoke([keys[0]]))
    bob.run(bob.backend.forget([keys[0]]))
    assert wes.run(wes.backend.fetch([keys[0]]))[0].state is State.SUCCESS
    with peopled.client("bob") as client:
        client.send(WatchRequest([keys[0], *names]), CallRequest(1, "depth", calls.raw(("other", ""))))
        assert isinstance(client.read(), Value)
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.read_until(Told)


def test_an_id_that_the_broker_made_is_nobody_elses(peopled: House, as_user: Callable[[str], ServerEngine]) -> None:
    wes = as_user("wes")
    name = wes.broker.public_id(publish(wes))
    with pytest.raises(ConfigError, match="another task"):
        publish(wes, task_id=name)
    with peopled.client("wes") as client:
        client.send(PublishRequest(1, 0, False, 1.0, [[pack(Message(1, "t", b"1", queue="job", id="a\nb"))]]))
        assert client.read_until(Failed).code == "config"
        client.send(FollowUpRequest(2, 0, False, []))
        assert client.read_until(Failed).code == "access-refused"


def test_lists_show_only_what_one_may_see(as_user: Callable[[str], ServerEngine]) -> None:
    publish(as_user("wes"), "job")
    bob = as_user("bob")
    publish(bob, "other")
    assert [info.name for info in bob.run(bob.inspect.queues())] == ["other"]
    with pytest.raises(AccessRefused, match="monitoring"):
        bob.run(bob.administer("broker status", {}))
    with pytest.raises(AccessRefused, match="administrator"):
        bob.run(bob.administer("users list", {}))


@pytest.mark.parametrize(
    ("user", "more", "logged"),
    [
        (ADA, {"password": "wrong"}, "password is wrong"),
        ("nobody", {}, "no such user"),
        (ADA, {"namespace": "nowhere"}, "no such namespace"),
    ],
    ids=["password", "user", "namespace"],
)
def test_a_refused_sign_in_tells_nothing_and_the_log_all(
    house: House, user: str, more: dict[str, str], logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(AccessRefused) as refused:
        house.engine(user, **more)
    assert "the name, the secret or the rights are not what is needed" in str(refused.value)
    assert any(logged in one.getMessage() and "127.0.0.1" in one.getMessage() for one in caplog.records)
    assert "correct" not in caplog.text
    assert "horse" not in caplog.text


def test_an_expired_token_is_told_as_such(house: House) -> None:
    book = Book(house.folder, ManualClock(time.time() - 3600))
    _, text = book.add_token(ADA, 60.0)
    book.close()
    house.do(house.broker.book.refresh)
    with pytest.raises(AccessRefused, match=r"expired on .* UTC: create another one"):
        house.engine(ADA, password=text)


def test_a_right_that_is_taken_away_counts_at_once(peopled: House, as_user: Callable[[str], ServerEngine]) -> None:
    wes, ada = as_user("wes"), as_user(ADA)
    publish(wes)
    ada.run(ada.administer("users forbid", {"name": "wes", "namespace": "/"}))
    with pytest.raises(AccessRefused, match="no write right"):
        publish(wes)


def test_a_user_that_is_deleted_is_cut_off(
    peopled: House, as_user: Callable[[str], ServerEngine], caplog: pytest.LogCaptureFixture
) -> None:
    wes, ada = as_user("wes"), as_user(ADA)
    publish(wes)
    ada.run(ada.administer("users delete", {"name": "wes"}))
    with contextlib.suppress(AccessRefused, BrokerUnavailable):
        # It may be cut off in the very middle, where nobody knows.
        [answer] = wes.run(wes.broker.publish([Message(1, "t", b"1", queue="job")], 5.0))
        assert isinstance(answer, Unknown)
    until = time.monotonic() + 20
    while any(session.identity.user == "wes" for session in list(peopled.broker.sessions.values())):
        assert time.monotonic() < until
        time.sleep(0.02)


def hello(house: House, oldest: int, newest: int) -> Welcome | Refused:
    with Client(house.port, Hello(oldest, newest, "skewed", user=ADA, secret=PASSWORD)) as client:
        return client.welcome


def test_another_version_works_or_says_what_to_upgrade(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    later = hello(house, 1, 99)
    assert isinstance(later, Welcome)
    assert later.version == 1
    newer = hello(house, 2, 99)
    assert isinstance(newer, Refused)
    assert "upgrade the broker" in newer.text
    monkeypatch.setattr(broker_module, "OLDEST", 2)
    monkeypatch.setattr(broker_module, "NEWEST", 3)
    older = hello(house, 1, 1)
    assert isinstance(older, Refused)
    assert "upgrade the client" in older.text
    between = hello(house, 1, 2)
    assert isinstance(between, Welcome)
    assert between.version == 2
    with pytest.raises(ConfigError, match=r"speaks versions 1 to 1 .* 2 to 3: upgrade the client"):
        house.engine()


def test_a_client_of_a_later_version_says_what_to_upgrade(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting, "OLDEST", 7)
    monkeypatch.setattr(greeting, "NEWEST", 9)
    with pytest.raises(ConfigError, match="upgrade the broker"):
        house.engine()


def test_a_clock_that_is_far_off_is_told_at_both_ends(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.time()  # it stands still: however long the greeting takes
    monkeypatch.setattr(broker_module, "time", SimpleNamespace(time=lambda: now))
    monkeypatch.setattr(greeting, "time", SimpleNamespace(time=lambda: now + 100))
    caplog.set_level(logging.WARNING)
    house.engine().close()
    told = {one.name for one in caplog.records if "clock is +100 s off" in one.getMessage()}
    assert told == {"penstock.broker", "penstock.engine"}


def test_a_verb_of_a_later_version_is_refused_alone(house: House) -> None:
    with house.client() as client:
        client.send(CallRequest(1, "hover", calls.raw(())))
        assert "upgrade it" in client.read_until(Failed).text
        client.send(PublishRequest(2, 0, False, 1.0, [[pack(Message(1, "t", b"1"))]]))
        client.read_until(Published)


def test_a_namespace_is_a_world_of_its_own(house: House) -> None:
    house.permit(ADA, Permission("else", ".*", ".*", ".*"))
    house.do(house.broker.book.refresh)
    here, there = house.engine(), house.engine(namespace="else")
    try:
        key = publish(here)
        assert there.run(there.broker.depth("job")) == 0
        assert there.run(there.backend.fetch([here.broker.public_id(key)]))[0].state is State.UNKNOWN
        with pytest.raises(BrokerError):
            house.engine(namespace="../else")
    finally:
        here.close()
        there.close()
