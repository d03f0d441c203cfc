"""An app whose tasks run when the test says so, as a worker would run them."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from penstock import BlockingCallInLoop, Broadcast, Penstock, Reject, State, Unique, crontab
from penstock.contrib import rehearsal
from penstock.contrib.clock import TravelClock
from penstock.contrib.rehearsal import Ran, Rehearsal, rehearse
from tests import keys


@pytest.fixture
def app() -> Penstock:
    """Nobody can reach its broker."""
    return Penstock("shop", broker="redis://nowhere.invalid:1/0", result_backend="redis://nowhere.invalid:1/1")


@pytest.fixture
def tasks(app: Penstock) -> Iterator[Rehearsal]:
    with rehearse(app) as tasks:
        yield tasks


def ends(ran: list[Ran]) -> list[tuple[str, State]]:
    return [(one.task, one.state) for one in ran]


def test_tasks_run_on_this_thread_in_the_order_of_a_worker(app: Penstock, tasks: Rehearsal) -> None:
    threads: list[Any] = []

    @app.task(name="a")
    def first(x: int) -> int:
        threads.append(threading.current_thread())
        second.delay(x + 1)
        return x

    @app.task(name="b")
    async def second(x: int) -> int:
        threads.append(threading.current_thread())
        return x

    late, soon = first.apply_async((1,), priority=1), first.apply_async((2,), priority=9)
    assert not soon.ready()
    ran = tasks.run_all()
    assert [(one.task, one.args) for one in ran] == [("a", (2,)), ("b", (3,)), ("a", (1,)), ("b", (2,))]
    assert (late.get(), soon.get()) == (1, 2)
    assert set(threads) == {threading.current_thread()}
    assert tasks.run_all() == []


def test_what_is_due_later_waits_for_the_clock(app: Penstock, tasks: Rehearsal) -> None:
    task = app.task(name="t")(lambda: 5)
    result = task.apply_async(countdown=3600)
    assert tasks.run_all() == []
    tasks.clock.advance(3599)
    assert tasks.run_all() == []
    tasks.clock.advance(1)
    assert ends(tasks.run_all()) == [("t", State.SUCCESS)]
    assert result.get() == 5


def test_retries_wait_as_long_as_they_say(app: Penstock, tasks: Rehearsal) -> None:
    @app.task(name="t", bind=True, autoretry_for=(OSError,), max_retries=2, default_retry_delay=60)
    def task(self: Any) -> int:
        raise OSError(f"try {self.request.retries}")

    result = task.delay()
    began = tasks.clock.time()
    assert ends(tasks.run_all()) == [("t", State.RETRY)]
    assert result.state is State.RETRY
    tasks.clock.advance(59)
    assert tasks.run_all() == []
    ran = tasks.run_to_end()
    assert ends(ran) == [("t", State.RETRY), ("t", State.FAILURE)]
    assert ran[-1].reason == "OSError: try 2"
    assert tasks.clock.time() - began == pytest.approx(120)
    with pytest.raises(OSError, match="try 2"):
        result.get()
    (letter,) = app.engine.run(app.engine.inspect.dead_letters())
    assert letter.reason == "OSError: try 2"


def test_run_to_end_stops_where_it_is_told(app: Penstock, tasks: Rehearsal) -> None:
    task = app.task(name="t")(lambda: 5)
    task.apply_async(countdown=100)
    task.apply_async(countdown=101)
    assert len(tasks.run_to_end(within=100)) == 1
    tasks.assert_enqueued(task, count=1, countdown=1)


def test_results_expire_and_calls_do(app: Penstock, tasks: Rehearsal) -> None:
    task = app.task(name="t")(lambda: 5)
    result = task.apply_async(expires=10)
    tasks.clock.advance(11)
    assert ends(tasks.run_all()) == [("t", State.REVOKED)]
    assert result.state is State.REVOKED


def test_early_tasks_are_dead_letters_when_they_fail(app: Penstock, tasks: Rehearsal) -> None:
    @app.task(name="t", acks_late=False)
    def task(x: int) -> int:
        return 12 // x

    good, bad = task.delay(3), task.delay(0)
    assert ends(tasks.run_all()) == [("t", State.SUCCESS), ("t", State.FAILURE)]
    assert (good.get(), bad.failed()) == (4, True)
    [letter] = app.engine.run(app.engine.inspect.dead_letters())
    assert letter.id == bad.id


def test_early_tasks_are_retried(app: Penstock, tasks: Rehearsal) -> None:
    @app.task(name="t", bind=True, acks_late=False, autoretry_for=(OSError,), default_retry_delay=5)
    def task(self: Any) -> int:
        if not self.request.retries:
            raise OSError
        return 5

    result = task.delay()
    assert ends(tasks.run_to_end()) == [("t", State.RETRY), ("t", State.SUCCESS)]
    assert result.get() == 5


def test_rejected_and_unregistered_tasks(app: Penstock, tasks: Rehearsal) -> None:
    @app.task(name="t")
    def task() -> None:
        raise Reject("no good")

    task.delay()
    app.send_task("nobody", (1,), {"x": 2})
    (other,) = tasks.enqueued("nobody")
    assert (other.args, other.kwargs, other.arguments) == ((1,), {"x": 2}, {"#0": 1, "x": 2})
    assert ends(tasks.run_all()) == [("t", State.FAILURE), ("nobody", State.RETRY)]


def test_what_is_compressed_and_signed() -> None:
    settings: Any = {"compression_min_bytes": 10, "task_compression": "zlib", "result_compression": "zlib"}
    app = Penstock("unit", broker="memory://", security_key=keys.pem(keys.private()), **settings)
    task = app.task(name="t")(lambda text: text.upper())
    with rehearse(app) as tasks:
        result = task.delay("all work and no play " * 10)
        app.send_task("nobody", ("all work and no play " * 10,))
        tasks.assert_enqueued(task, ("all work and no play " * 10,))
        assert tasks.enqueued("nobody")[0].args == ("all work and no play " * 10,)
        tasks.run_all()
        assert result.get() == "ALL WORK AND NO PLAY " * 10


def test_a_unique_key_is_free_when_its_task_has_ended(app: Penstock, tasks: Rehearsal) -> None:
    task = app.task(name="t", unique=Unique(on_conflict="skip"))(lambda: 5)
    assert task.delay().id == task.delay().id
    assert len(tasks.run_all()) == 1
    task.delay()
    assert len(tasks.run_all()) == 1


def test_queues_that_nobody_declared_and_broadcasts_are_served() -> None:
    app = Penstock("shop", broker="memory://", task_queues=[Broadcast("all")])
    task = app.task(name="t")(lambda x: x)
    with rehearse(app) as tasks:
        task.apply_async((2,), queue="all")
        assert [one.args for one in tasks.run_all()] == [(2,)]
        task.apply_async((1,), queue="elsewhere")
        assert [one.args for one in tasks.run_all()] == [(1,)]


def test_time_limits_are_no_obstacle(app: Penstock, tasks: Rehearsal) -> None:
    task = app.task(name="t", time_limit=2, soft_time_limit=1)(lambda: tasks.clock.advance(3600))
    task.delay()
    task.apply_async(time_limit=2)
    assert ends(tasks.run_all()) == [("t", State.SUCCESS)] * 2


def test_an_endless_chain_is_ended(app: Penstock, tasks: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "MOST", 20)
    again = app.task(name="again", ignore_result=True)(lambda: again.delay())
    again.delay()
    with pytest.raises(RuntimeError, match="20 runs, and more is ready, such as 'again'"):
        tasks.run_all()
    forever = app.task(name="forever", autoretry_for=(OSError,), max_retries=None, default_retry_delay=1)(_down)
    with rehearse(app) as others:
        forever.delay()
        with pytest.raises(RuntimeError, match="is a task retried for ever"):
            others.run_to_end()


def _down() -> None:
    raise OSError


def test_schedules_publish_when_their_time_comes() -> None:
    schedule: Any = {"hourly": {"task": "t", "schedule": crontab(minute=0)}, "often": {"task": "u", "schedule": 600.0}}
    app, at = Penstock("shop", broker="memory://", beat_schedule=schedule), list[str]()
    app.task(name="t")(lambda: at.append(f"{datetime.fromtimestamp(app.clock.time(), UTC):%H:%M}"))
    app.task(name="u")(lambda: None)
    clock = TravelClock(datetime(2030, 1, 1, 10, 30, tzinfo=UTC).timestamp())
    with rehearse(app, clock) as tasks:
        ran = tasks.run_schedules(3 * 3600)
        assert at == ["11:00", "12:00", "13:00"]
        assert [one.task for one in ran].count("u") == 18
        assert clock.time() == datetime(2030, 1, 1, 13, 30, tzinfo=UTC).timestamp()
        assert tasks.run_schedules(60) == []
        assert [one.task for one in asyncio.run(tasks.arun_schedules(1800))].count("t") == 1


def test_inside_a_running_loop(app: Penstock, tasks: Rehearsal) -> None:
    @app.task(name="t")
    async def task() -> int:
        await asyncio.sleep(0)
        return 5

    async def main() -> None:
        result = await task.adelay()
        later = await task.aapply_async(countdown=10)
        with pytest.raises(BlockingCallInLoop, match="arun_all"):
            tasks.run_all()
        assert len(await tasks.arun_all()) == 1
        assert await result.aget() == 5
        assert len(await tasks.arun_to_end()) == 1
        assert await later.aget() == 5

    asyncio.run(main())


def test_enqueued_calls_are_as_their_function_will_see_them(app: Penstock, tasks: Rehearsal) -> None:
    @app.task(name="t", queue="mail")
    def task(at: datetime, names: set[str], note: str = "none") -> None: ...

    moment = datetime(2030, 1, 1, tzinfo=UTC)
    task.apply_async(
        (moment,), {"names": {"a"}}, eta=moment, expires=moment, priority=7, headers={"h": "1"}, task_id="i"
    )
    (call,) = tasks.enqueued(task)
    assert call.args == (moment, {"a"})
    assert call.arguments == {"at": moment, "names": {"a"}, "note": "none"}
    assert (call.queue, call.priority, call.state, call.task_id, call.headers) == (
        "mail",
        7,
        "delayed",
        "i",
        {"h": "1"},
    )
    assert call.eta == call.expires == moment.timestamp()
    assert call.countdown == pytest.approx(moment.timestamp() - tasks.clock.time())
    found = tasks.assert_enqueued(task, (moment, {"a"}, "none"), eta=moment, priority=7, headers={"h": "1"})
    assert found == [call]
    assert tasks.assert_enqueued(task, kwargs={"at": moment, "names": {"a"}}, task_id="i") == [call]
    assert tasks.enqueued("other") == []


def test_a_failed_assertion_shows_what_is_there_instead(app: Penstock, tasks: Rehearsal) -> None:
    mail = app.task(name="mail", queue="mail")(lambda to, n=1: None)
    note = app.task(name="note")(lambda: None)
    with pytest.raises(AssertionError) as nothing:
        tasks.assert_enqueued(mail, ("a@b",))
    assert str(nothing.value).splitlines()[-1] == "  nothing waits"
    mail.delay("c@d", 2)
    note.delay()
    with pytest.raises(AssertionError) as failed:
        tasks.assert_enqueued(mail, ("a@b",), queue="post", countdown=5)
    assert str(failed.value).splitlines() == [
        "no call waits of this kind",
        "  wanted mail(to='a@b', n=1)  queue='post'  countdown=5",
        "  waits  mail(to='c@d', n=2)  queue='mail'",
        "           to: wanted 'a@b', is 'c@d'",
        "           n: wanted 1, is 2",
        "           queue: wanted 'post', is 'mail'",
        "           countdown: wanted 5, is None",
        "  other  note()  queue='default'",
    ]
    with pytest.raises(AssertionError, match=r"1 call waits of this kind\n  wanted 2 times mail\(…\)"):
        tasks.assert_enqueued(mail, count=2)
    with pytest.raises(AssertionError, match=r"2 calls wait\n  .*note\(\)"):
        tasks.assert_nothing_enqueued()
    assert tasks.assert_enqueued(mail, count=0, args=("other",)) == []


def test_wrong_expectations_are_refused(app: Penstock, tasks: Rehearsal) -> None:
    mail = app.task(name="mail")(lambda to: None)
    with pytest.raises(TypeError, match="missing a required argument: 'to'"):
        tasks.assert_enqueued(mail, ())
    with pytest.raises(TypeError, match="nothing enqueued has 'queu'; did you mean 'queue'"):
        tasks.assert_enqueued(mail, queu="x")  # type: ignore[call-arg]  # that is the point
