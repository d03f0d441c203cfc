"""A large operation, fed slowly, and resumed where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import BrokerUnavailable, ConfigError, Penstock, PublishError, Queue, Unsupported, apart
from penstock.spread import Spread, pace_of, plan
from tests.unit.fake_engine import FEATURES, fake_app


@pytest.fixture
def app() -> Iterator[Penstock]:
    app = Penstock("shop", broker="memory://", task_queues=[Queue("default", max_length=30)])
    yield app
    app.close()


class Feeder:
    """Drives a plan by a clock of its own; `paused` is called in each pause."""

    def __init__(self, paused: Callable[[], object] = lambda: None) -> None:
        self.now, self.paused = 1_000.0, paused

    def clock(self) -> float:
        return self.now

    def run(self, app: Penstock, call: Any, items: Any, **how: Any) -> Spread:
        steps = plan(app, call, items, how, self.clock)  # type: ignore[arg-type]  # as a caller might
        try:
            step = next(steps)
            while True:
                answer = None
                if isinstance(step, apart.Pause):
                    self.now += step.seconds
                    self.paused()
                else:
                    engine, coroutine = step
                    answer = engine.run(coroutine)
                step = steps.send(answer)
        except StopIteration as end:
            value: Spread = end.value
            return value


def waiting(app: Penstock) -> list[tuple[Any, str]]:
    """First argument and id of what waits."""
    found = app.engine.run(app.engine.inspect.peek("default", 1000))
    return [(app.tasks["t"].arguments(one.message.body)[0][0], one.id) for one in found if one.message is not None]


def test_it_takes_its_time_and_keeps_the_order(app: Penstock) -> None:
    task = app.task(name="t")(lambda x: x)
    feeder, depths = Feeder(), []
    feeder.paused = lambda: depths.append((feeder.now, app.engine.run(app.broker.depth("default"))))
    spread = feeder.run(app, task, range(20), over="20s", name="s")
    assert (spread.published, spread.before) == (20, 0)
    assert waiting(app) == [(n, f"s-{n}") for n in range(20)]
    assert spread.task_id(3) == "s-3"
    for moment, depth in depths:
        assert abs(depth - (moment - 1_000)) <= 1, "no more is there than is due"


def test_what_is_due_is_published_at_once_however_much(app: Penstock) -> None:
    task = app.task(name="t", queue="wide")(lambda x: x)
    sizes: list[int] = []

    def look() -> None:
        sizes.append(app.engine.run(app.broker.depth("wide")) or 0)

    Feeder(look).run(app, task, range(30_000), rate="80000/s", name="s")
    assert sizes[0] == 1, "no burst: who feeds may have been started again"
    assert sizes[1] >= 20_000, "what became due meanwhile, in batches as large as the broker takes"
    assert len(sizes) == 2


def test_an_engine_that_keeps_nothing_is_refused() -> None:
    app, _ = fake_app(replace(FEATURES, coordination=False))
    with pytest.raises(Unsupported, match="cannot store how far a spread came"):
        Feeder().run(app, app.task(name="t")(lambda x: x), (), rate=1, name="s")


def test_it_goes_on_where_it_was(app: Penstock) -> None:
    task = app.task(name="t")(lambda x: x)

    class Killed(Exception):
        pass

    def kill() -> None:
        if app.engine.run(app.broker.depth("default")) == 5:
            raise Killed

    with pytest.raises(Killed):
        Feeder(kill).run(app, task, range(12), rate="1/s", name="s")
    again = Feeder().run(app, task, range(12), rate="100/s", name="s")
    assert (again.published, again.before) == (7, 5)
    assert waiting(app) == [(n, f"s-{n}") for n in range(12)]
    assert Feeder().run(app, task, range(12), rate="100/s", name="s") == Spread("s", 0, 12)
    assert Feeder().run(app, task, range(3), rate="100/s", name="other").published == 3


def test_what_was_published_after_the_last_note_is_recognised(app: Penstock) -> None:
    task = app.task(name="t")(lambda x: x)
    task.apply_async((0,), task_id="s-0")
    assert Feeder().run(app, task, range(3), rate="100/s", name="s").published == 3
    assert [one for one, _ in waiting(app)] == [0, 1, 2]


def test_a_full_queue_is_waited_for(app: Penstock) -> None:
    task = app.task(name="t")(lambda x: x)
    taken: list[str] = []

    def drain() -> None:
        taken.extend(name for _, name in waiting(app))
        app.engine.run(app.engine.inspect.purge("default"))

    assert Feeder(drain).run(app, task, range(100), rate="1000/s", name="s").published == 100
    taken += [name for _, name in waiting(app)]
    assert taken == [f"s-{n}" for n in range(100)]


def test_two_at_once_are_told(app: Penstock) -> None:
    task, coordinator = app.task(name="t")(lambda x: x), app.engine.coordinator

    def meddle() -> None:
        app.engine.run(coordinator.put("spread//s", b'{"next":0}'))

    with pytest.raises(PublishError, match="another process feeds it"):
        Feeder(meddle).run(app, task, range(12), rate="1/s", name="s")


def test_items_are_arguments_before_those_of_the_call(app: Penstock) -> None:
    task = app.task(name="t")(lambda x, y="", z="": x)
    Feeder().run(app, task.s("z").set(priority=9), [(1, "a"), 2], rate="100/s", name="s")
    found = app.engine.run(app.engine.inspect.peek("default"))
    messages = [one.message for one in found if one.message is not None]
    assert [task.arguments(one.body)[0] for one in messages] == [(1, "a", "z"), (2, "z")]
    assert {one.priority for one in messages} == {9}


def test_a_task_that_only_workers_know(app: Penstock) -> None:
    assert Feeder().run(app, app.signature("far"), iter("abc"), rate="100/s", name="s").published == 3


def test_awaiting(app: Penstock) -> None:
    task = app.task(name="t")(lambda x: x)
    spread = asyncio.run(app.aspread(task, [1, 2], rate="100/s", name="s"))
    assert (spread, app.spread(task, [1, 2], rate="100/s", name="s")) == (Spread("s", 2, 0), Spread("s", 0, 2))


def test_an_outage_is_raised_and_the_next_run_goes_on(app: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    task = app.task(name="t")(lambda x: x)

    def out() -> None:
        raise BrokerUnavailable("gone")

    with pytest.raises(BrokerUnavailable):
        Feeder(out).run(app, task, range(3), rate=1, name="s")
    assert Feeder().run(app, task, range(3), rate=100, name="s").before == 1


@pytest.mark.parametrize(
    ("items", "how", "pace"),
    [
        (range(100), {"over": "10s"}, 10.0),
        (range(7200), {"over": "2h"}, 1.0),
        (range(60), {"over": "1m"}, 1.0),
        (range(86_400), {"over": "1d"}, 1.0),
        (range(10), {"over": 5}, 2.0),
        (range(10), {"over": timedelta(seconds=5)}, 2.0),
        (iter(()), {"over": 5, "total": 50}, 10.0),
        (iter(()), {"rate": "60/m"}, 1.0),
        ([], {"over": 5}, 0.2),
    ],
    ids=lambda one: str(one)[:30] if isinstance(one, float | dict) else type(one).__name__,
)
def test_paces(items: Any, how: dict[str, Any], pace: float) -> None:
    assert pace_of(items, how.get("over"), how.get("rate"), how.get("total")) == pytest.approx(pace)


@pytest.mark.parametrize(
    ("items", "how", "error"),
    [
        ((), {"name": "s"}, "give over"),
        ((), {"name": "s", "over": 5, "rate": 5}, "give over"),
        (iter(()), {"name": "s", "over": 5}, "does not say how many"),
        ((), {"name": "s", "over": "long"}, "over must be"),
        ((), {"name": "s", "over": 0}, "over must be"),
        ((), {"name": "s", "over": True}, "over must be"),
        ((), {"name": "s", "rate": 0}, "rate must be"),
        ((), {"rate": 1}, "spread's name"),
        ((), {"name": "s" * 151, "rate": 1}, "over 150 bytes"),
        ((), {"name": "s", "rate": 1, "overr": 1}, "did you mean"),
    ],
    ids=lambda one: str(one)[:40] if isinstance(one, str | dict) else type(one).__name__,
)
def test_bad_spreads(app: Penstock, items: Any, how: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Feeder().run(app, app.task(name="t")(lambda x: x), items, **how)


def test_what_cannot_be_spread(app: Penstock) -> None:
    task = app.task(name="t")(lambda x: x)
    with pytest.raises(ConfigError, match="leave out task_id"):
        Feeder().run(app, task.s().set(task_id="x"), (), rate=1, name="s")
    with pytest.raises(TypeError, match="a task or a signature"):
        Feeder().run(app, len, (), rate=1, name="s")
    with app.batch(), pytest.raises(ConfigError, match="cannot wait in a batch"):
        Feeder().run(app, task, (), rate=1, name="s")
    app.engine.run(app.engine.coordinator.put("spread//s", b"\xff"))
    with pytest.raises(ConfigError, match="cannot be read"):
        Feeder().run(app, task, (), rate=1, name="s")
    with app.redirected(task_always_eager=True), pytest.raises(ConfigError, match="task_always_eager"):
        Feeder().run(app, task, (), rate=1, name="s")
