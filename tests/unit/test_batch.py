"""Many calls in few publishes."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import AlreadyQueued, ConfigError, MessageTooLarge, QueueFull, ResultUnavailable, Unique, Unsupported
from penstock.broker import Accepted, Answer, Conflict, Full
from penstock.message import Message
from tests.unit.fake_engine import FEATURES, fake_app


def add(x: int, y: int) -> int:
    return x + y


def test_a_batch_is_published_once_at_its_end() -> None:
    app, engine = fake_app()
    task = app.task(name="add")(add)
    with app.batch() as batch:
        results = [task.delay(1, 2), app.send_task("other"), task.apply_async((3, 4), task_id="mine")]
        assert len(batch) == 3
        assert engine.broker.batches == []
        assert results[2].id == "mine"
        with pytest.raises(ResultUnavailable, match=r"in a batch that is not published.*give task_id="):
            results[0].id  # noqa: B018
        assert repr(results[0]) == "<AsyncResult not published yet>"
    assert [[message.task for message in b] for b in engine.broker.batches] == [["add", "other", "add"]]
    assert [result.id for result in results] == ["id-1", "id-2", "mine"]
    task.delay(1, 2)
    assert len(engine.broker.batches) == 2


def test_an_async_batch() -> None:
    app, engine = fake_app()
    task = app.task(name="add")(add)

    async def main() -> list[str]:
        async with app.batch():
            results = [await task.adelay(1, 2), task.delay(3, 4), *await task.adelay_many([(5, 6)])]
        return [result.id for result in results]

    assert asyncio.run(main()) == ["id-1", "id-2", "id-3"]
    assert len(engine.broker.batches) == 1


def test_an_exception_publishes_nothing() -> None:
    app, engine = fake_app()
    with pytest.raises(KeyError), app.batch():
        app.send_task("x")
        raise KeyError("x")
    assert engine.broker.batches == []
    app.send_task("y")
    assert len(engine.broker.batches) == 1


def test_an_empty_batch_publishes_nothing() -> None:
    app, engine = fake_app()
    with app.batch():
        pass
    assert engine.broker.batches == []


def test_a_broker_that_takes_none_at_once_is_given_one_at_most() -> None:
    app, engine = fake_app(replace(FEATURES, whole_batches=False))
    task = app.task(name="add")(add)
    with app.batch():
        task.delay(1, 1)
    with pytest.raises(Unsupported, match=r"all or none\. Nothing was published"), app.batch():
        task.delay(1, 1)
        task.delay(2, 2)
    assert [len(batch) for batch in engine.broker.batches] == [1]


def test_too_many_calls_are_refused_before_anything_is_sent() -> None:
    app, engine = fake_app()
    with (
        pytest.raises(
            MessageTooLarge, match=r"4 calls in one batch; the broker takes 3 at once\. Nothing was published"
        ),
        app.batch(),
    ):
        for _ in range(4):
            app.send_task("x")
    assert engine.broker.batches == []


def test_batches_of_two_apps_do_not_mix_and_nest() -> None:
    one, first = fake_app()
    two, second = fake_app()
    with one.batch():
        one.send_task("a")
        two.send_task("b")
        with two.batch():
            one.send_task("c")
            two.send_task("d")
        assert [[m.task for m in b] for b in second.broker.batches] == [["b"], ["d"]]
        assert first.broker.batches == []
    assert [[m.task for m in b] for b in first.broker.batches] == [["a", "c"]]


def test_a_task_that_outlives_the_block_publishes_by_itself() -> None:
    app, engine = fake_app()

    async def main() -> None:
        go = asyncio.Event()

        async def later() -> None:
            await go.wait()
            app.send_task("late")

        async with app.batch():
            app.send_task("early")
            task = asyncio.create_task(later())
        go.set()
        await task

    asyncio.run(main())
    assert [[m.task for m in b] for b in engine.broker.batches] == [["early"], ["late"]]


def test_a_batch_is_used_once() -> None:
    app, _ = fake_app()
    with app.batch() as batch:
        pass
    with pytest.raises(ConfigError, match="used once"), batch:
        pass


def test_a_full_queue_refuses_the_batch() -> None:
    app, engine = fake_app()
    engine.broker.answer = lambda message: Full("default", 5, 5, "tasks", 1.0)
    with pytest.raises(QueueFull), app.batch():
        app.send_task("a")


def test_a_conflict_in_a_batch_leaves_the_others_published() -> None:
    app, engine = fake_app()
    engine.broker.answer = lambda m: Conflict("k", 1) if m.guards else Accepted(m.task)
    with pytest.raises(AlreadyQueued), app.batch():
        first = app.send_task("a")
        app.send_task("b", unique=Unique("k", on_conflict="raise"))
        last = app.send_task("c")
    assert (first.id, last.id) == ("a", "c")


# -- delay_many


def test_many_calls_go_in_chunks_and_are_read_as_they_go() -> None:
    app, engine = fake_app()
    task = app.task(name="add")(add)
    read = 0

    def calls() -> Any:
        nonlocal read
        for i in range(5):
            read += 1
            assert read - len(engine.broker.messages) <= 3
            yield (i, i) if i % 2 else task.s(i, y=i)

    results = task.delay_many(calls())
    assert [len(b) for b in engine.broker.batches] == [3, 2]
    assert [m.body for m in engine.broker.messages] == [b"[[%d,%d],{}]" % (i, i) for i in range(5)]
    assert [r.id for r in results] == [f"id-{i}" for i in range(1, 6)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_queue_says_how_many_were_accepted(asynchronous: bool) -> None:
    app, engine = fake_app()
    task = app.task(name="add")(add)

    def answer(message: Message) -> Answer:
        return Accepted("x") if len(engine.broker.batches) == 1 else Full("default", 3, 3, "tasks", 1.0)

    engine.broker.answer = answer
    calls = [(i, i) for i in range(6)]
    with pytest.raises(QueueFull, match=r"\(3 tasks of this call were published\)") as caught:
        asyncio.run(task.adelay_many(calls)) if asynchronous else task.delay_many(calls)
    assert caught.value.accepted == 3


def test_a_bad_call_says_how_many_were_published() -> None:
    app, engine = fake_app()
    task = app.task(name="add")(add)
    with pytest.raises(TypeError, match="argument 'y'") as caught:
        task.delay_many([(1, 1), (2, 2), (3, 3), (4, "4")])
    assert caught.value.__notes__ == ["3 tasks of this call were published before"]
    assert len(engine.broker.messages) == 3


@pytest.mark.parametrize(
    ("call", "error"),
    [(5, "call 1 is int; give tuples of arguments"), ([1, 2], "call 1 is list"), ("ab", "call 1 is str")],
    ids=str,
)
def test_calls_are_tuples_or_signatures(call: Any, error: str) -> None:
    app, _ = fake_app()
    with pytest.raises(TypeError, match=error):
        app.task(name="add")(add).delay_many([call])


def test_signatures_of_other_tasks_are_refused() -> None:
    app, _ = fake_app()
    one, two = app.task(name="one")(add), app.task(name="two")(add)
    with pytest.raises(ConfigError, match="call 1 is of task 'two'; delay_many publishes 'one' only"):
        one.delay_many([two.s(1, 2)])
