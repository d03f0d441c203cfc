"""Signatures and what is composed of them, by Celery's names."""

from __future__ import annotations

from typing import Any

from penstock import Penstock, chain, chord, chunks, group
from tests.celery.conftest import Work


class Tasks:
    def __init__(self, app: Penstock) -> None:
        self.told: list[Any] = []
        self.add = app.task(name="add")(lambda x, y: x + y)
        self.total = app.task(name="total")(sum)
        self.tell = app.task(name="tell")(self.told.append)

        @app.task(name="fail")
        def fail(*args: Any) -> None:
            raise ValueError("no")

        self.fail = fail


def test_signatures(app: Penstock, work: Work) -> None:
    add = Tasks(app).add
    call = add.s(2, y=3)
    assert (call.task, call.args, call.kwargs, call.options, call.immutable) == ("add", (2,), {"y": 3}, {}, False)
    assert call.app is app and add.si(1).immutable and add.signature((1, 2), priority=3).options == {"priority": 3}
    assert app.signature("add", args=(1, 2), immutable=True).immutable
    again = call.clone().set(priority=7)
    assert again.options == {"priority": 7} and call.options == {}
    results = [call.delay(), add.s(3).delay(2), add.s(3).apply_async((2,)), (add.s(1, 1) | add.s(3)).delay()]
    work()
    assert [result.get(timeout=5) for result in results] == [5] * 4


def test_chain_group_chord_chunks_map_and_starmap(app: Penstock, work: Work) -> None:
    tasks = Tasks(app)
    add, total = tasks.add, tasks.total
    results = [
        chain(add.s(1, 1), add.s(2), add.si(5, 5)).delay(),
        chain([add.s(1, 1), add.s(8)])(),
        group(add.s(n, n) for n in range(3))(),
        chord([add.s(n, n) for n in range(3)])(total.s()),
        chord([add.s(n, n) for n in range(3)], total.s()).apply_async(),
        (group(add.s(1, 1), add.s(2, 2)) | total.s()).delay(),
        chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s()).delay(),
        add.chunks(zip(range(3), range(3), strict=True), 2)(),
        add.chunks([(1, 1)], 1).group().delay(),
        total.map([(1, 2), (3, 4)]).delay(),
        add.starmap([(1, 2), (3, 4)]).delay(),
    ]
    assert isinstance(add.chunks([(1, 1)], 1), chunks)
    work()
    got = [result.get(timeout=5) for result in results]
    assert got == [10, 10, [0, 2, 4], 6, 6, 6, 7, [[0, 2], [4]], [[2]], [3, 7], [3, 7]]


def test_links_and_stamps(app: Penstock, work: Work) -> None:
    tasks, stamps = Tasks(app), []

    @app.task(bind=True, name="look")
    def look(self: Any) -> int:
        stamps.append(self.request.headers.get("order"))
        return 1

    add = tasks.add
    call = add.s(1, 2)
    assert call.link(tasks.tell.s()) == tasks.tell.s()
    call.delay()
    failing = tasks.fail.s().on_error(tasks.tell.s())
    failing.delay()
    linked = tasks.fail.s()
    linked.link_error(tasks.tell.s())
    linked.delay()
    group(look.s(), look.s()).stamp(order="77").delay()
    work()
    assert stamps == ["77", "77"] and tasks.told[0] == 3
    assert [told["task"] for told in tasks.told[1:]] == ["fail", "fail"]


def test_replace(app: Penstock, work: Work) -> None:
    add = Tasks(app).add

    @app.task(bind=True, name="later")
    def later(self: Any, x: int) -> int:
        raise self.replace(add.s(x, 10))

    result = chain(later.s(1), add.s(100)).delay()
    work()
    assert result.get(timeout=5) == 111
