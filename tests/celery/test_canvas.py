"""Signatures and what is composed of them, by Celery's names."""

from __future__ import annotations

from typing import Any

from penstock import Penstock, StampingVisitor, chain, chord, chunks, group, maybe_signature
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
    assert call.partial((1,), {}).args == (1, 2)
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
    add.apply_async((4, 5), link=tasks.tell.s(), link_error=[tasks.tell.s()])
    linked = tasks.fail.s()
    linked.link_error(tasks.tell.s())
    linked.delay()
    group(look.s(), look.s()).stamp(order="77").delay()
    work()
    assert stamps == ["77", "77"]
    assert [told if isinstance(told, int) else told["task"] for told in tasks.told] == [3, "fail", 9, "fail"]


def test_spellings(app: Penstock, work: Work) -> None:
    add = Tasks(app).add
    call = add.subtask((2,), priority=3)
    copy = call.clone((1,), priority=9)
    assert (copy.args, copy.options, call.options) == ((1, 2), {"priority": 9}, {"priority": 3})
    assert (call.name, call.type) == ("add", add) and call.replace(args=(7, 8)).args == (7, 8)
    call.set_immutable(True)
    assert call.immutable and not call.set(immutable=False).immutable
    assert add.s(2, 3).apply().get() == add.s(2)(3) == 5
    skewed = group(add.s(1, n) for n in range(3)).skew(1, 10, 2)
    assert [part.options["countdown"] for part in skewed.tasks] == [1, 3, 5]


def test_a_visitor(app: Penstock, work: Work) -> None:
    seen: list[Any] = []
    visited: list[str] = []

    @app.task(bind=True, name="look")
    def look(self: Any, value: int = 0) -> int:
        seen.append(self.request.headers)
        return value

    class Trace(StampingVisitor):
        def on_signature(self, sig: Any, **headers: str) -> dict[str, str]:
            return {"trace": f"of {sig.task}"}

        def on_chain_start(self, sig: Any) -> None:
            visited.append("chain")

        def on_chain_end(self, sig: Any) -> None:
            visited.append("end of chain")

        def on_group_start(self, sig: Any) -> None:
            visited.append("group")

        def on_group_end(self, sig: Any) -> None:
            visited.append("end of group")

        def on_chord_header_start(self, sig: Any) -> None:
            visited.append("header")

        def on_chord_header_end(self, sig: Any) -> None:
            visited.append("end of header")

        def on_chord_body(self, sig: Any) -> None:
            visited.append("body")

        def on_callback(self, sig: Any) -> None:
            visited.append("callback")

        def on_errback(self, sig: Any) -> None:
            visited.append("errback")

    canvas = chain(look.s(1), look.s())
    canvas.link(look.s())
    canvas.on_error(look.s())
    canvas.stamp(Trace())
    assert visited == ["chain", "end of chain", "callback", "errback"]
    canvas.delay()
    chord(group(look.s(1)), look.s()).stamp(Trace())
    assert visited[4:] == ["header", "group", "end of group", "end of header", "body"]
    work()
    assert seen == [{"trace": "of look"}] * 3  # those of stamp_links, too


def test_signatures_as_arguments(app: Penstock, work: Work) -> None:
    add = Tasks(app).add

    @app.task(name="call_back")
    def call_back(data: dict[str, Any]) -> str:
        return maybe_signature(data, app=app).delay(5).id

    assert dict(add.s(1))["subtask_type"] == "Signature"
    asked = [call_back.delay(add.s(1)), call_back.delay(dict(chain(add.s(1), add.s(2))))]
    work()
    assert [app.AsyncResult(one.get(timeout=5)).get(timeout=5) for one in asked] == [6, 8]


def test_add_to_chord(app: Penstock, work: Work) -> None:
    tasks = Tasks(app)

    @app.task(bind=True, name="walk")
    def walk(self: Any, depth: int) -> int:
        if depth:
            self.add_to_chord(walk.s(depth - 1))
        return depth

    result = chord([walk.s(2), tasks.add.s(10, 10)], tasks.total.s()).delay()
    work()
    assert result.get(timeout=5) == 23


def test_replace(app: Penstock, work: Work) -> None:
    tasks = Tasks(app)
    add = tasks.add

    @app.task(bind=True, name="later")
    def later(self: Any, x: int) -> int:
        raise self.replace(add.s(x, 10))

    @app.task(bind=True, name="each")
    def each(self: Any, x: int) -> int:
        raise self.replace(group(add.s(n, 10) for n in range(x)) | tasks.total.s())

    results = [chain(later.s(1), add.s(100)).delay(), chain(each.s(2), add.s(100)).delay()]
    work()
    assert [result.get(timeout=5) for result in results] == [111, 121]
