"""Tasks that are published inside a caller's own transaction exist if and only if it commits: with every kind of
connection, on a real PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from penstock import AlreadyQueued, Penstock, QueueFull, State, Unique
from tests.transactions.callers import Caller
from tests.transactions.shop import Test, depth, orders


def test_it_exists_from_the_commit_on(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        async with caller.transaction():
            await caller.insert()
            result = await caller.publish(app.tasks["ship"], 7)
            assert len(result.id) == 32
            assert await caller.state(result) is State.UNKNOWN
        assert await caller.state(result) is State.PENDING

    caller(test)
    assert (orders(url), depth(app)) == (1, 1)


def test_it_goes_with_what_is_rolled_back(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        result = None
        with pytest.raises(KeyError):
            async with caller.transaction():
                await caller.insert()
                result = await caller.publish(app.tasks["ship"], 7)
                raise KeyError
        assert result is not None
        assert await caller.state(result) is State.UNKNOWN

    caller(test)
    assert (orders(url), depth(app)) == (0, 0)


def test_it_goes_with_its_savepoint(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        lost = None
        async with caller.transaction():
            kept = await caller.publish(app.tasks["ship"], 1)
            with pytest.raises(KeyError):
                async with caller.savepoint():
                    lost = await caller.publish(app.tasks["ship"], 2)
                    raise KeyError
            async with caller.savepoint():
                released = await caller.publish(app.tasks["ship"], 3)
        assert lost is not None
        states = [await caller.state(result) for result in (kept, lost, released)]
        assert states == [State.PENDING, State.UNKNOWN, State.PENDING]

    caller(test)
    assert depth(app) == 2


def test_a_full_queue_leaves_the_transaction_alone(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        async with caller.transaction():
            for n in range(3):
                await caller.publish(app.tasks["ship"], n, queue="tiny")
            with pytest.raises(QueueFull) as full:
                await caller.publish(app.tasks["ship"], 3, queue="tiny")
            await caller.insert()
        assert (full.value.depth, full.value.limit, full.value.unit) == (3, 3, "tasks")

    caller(test)
    assert (orders(url), depth(app, "tiny")) == (1, 3)


def test_conflicts_and_repeats_are_told(app: Penstock, url: str, caller: Callable[[Test], None]) -> None:
    async def test(caller: Caller) -> None:
        task = app.tasks["ship"]
        async with caller.transaction():
            mine = await caller.publish(task, 1, task_id="mine")
            again = await caller.publish(task, 1, task_id="mine")
            first = await caller.publish(task, 1, unique="ship:{order}")
            same = await caller.publish(task, 1, unique="ship:{order}")
            with pytest.raises(AlreadyQueued):
                await caller.publish(task, 1, unique=Unique("ship:{order}", on_conflict="raise"))
            later = await caller.publish(task, 1, countdown=60, priority=9, partition="a")
            await caller.insert()
        assert mine.id == again.id == "mine"
        assert first.id == same.id
        assert await caller.state(later) is State.PENDING

    caller(test)
    assert (orders(url), depth(app)) == (1, 3)


def test_workers_run_it_after_the_commit_only(
    app: Penstock, url: str, caller: Callable[[Test], None], worker: None
) -> None:
    async def test(caller: Caller) -> None:
        ship = app.tasks["ship"]
        async with caller.transaction():
            result = await caller.publish(ship, 21)
            # Another that comes later is run meanwhile.
            other = await ship.adelay(1) if caller.awaited else ship.delay(1)
            assert await caller.get(other) == 2
            assert await caller.state(result) is State.UNKNOWN
        committed = time.monotonic()
        assert await caller.get(result) == 42
        assert time.monotonic() - committed < 2

    caller(test)


# -- what does not depend on the library


def test_a_canvas_begins_with_the_commit(app: Penstock, worker: None, url: str, caller: Callable[[Test], None]) -> None:
    ship = app.tasks["ship"]

    async def test(caller: Caller) -> None:
        lost = None
        with pytest.raises(KeyError):
            async with caller.transaction():
                lost = await caller.publish(ship, 1, link=ship.s())
                raise KeyError
        async with caller.transaction():
            kept = await caller.publish(ship, 7, link=ship.s())
            assert await caller.state(kept) is State.UNKNOWN
        assert (await caller.get(kept), await caller.get(kept.children[0])) == (14, 28)
        assert lost is not None and await caller.state(lost) is State.UNKNOWN

    caller(test)
