"""Reading parts while a real worker runs the task: in each pool, blocking and awaited, from any offset, to any end."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import (
    DecodeError,
    PartsLost,
    Penstock,
    ResultTimeout,
    ResultUnavailable,
    SignatureError,
    SoftTimeLimitExceeded,
    State,
    TaskRevoked,
    TimeLimitExceeded,
    chain,
)
from penstock.contrib.rehearsal import rehearse
from penstock.outcome import MOST_PARTS
from tests import keys
from tests.unit.pools.test_pools import ANSWER, POOLS, working


@pytest.fixture
def app() -> Penstock:
    return Penstock("streams", broker="memory://")


def told(task: Any, offset: int = 0) -> list[Any]:
    return list(task.stream(offset, timeout=ANSWER))


@pytest.mark.parametrize("offset", ["3", None, 1.5])
def test_an_offset_is_a_whole_number(app: Penstock, offset: Any) -> None:
    with pytest.raises(TypeError, match=r"offset is the index of a part.*not"):
        app.AsyncResult("any").stream(offset)


@pytest.mark.parametrize("pool", POOLS)
def test_every_kind_of_task_publishes(app: Penstock, pool: str) -> None:
    @app.task(bind=True)
    def plain(self: Any, most: int) -> str:
        for number in range(most):
            self.publish_partial(number)
        return "plain"

    @app.task(bind=True)
    async def coroutine(self: Any, most: int) -> str:
        for number in range(most):
            await self.apublish_partial(number)
        return "coroutine"

    @app.task
    def generator(most: int) -> Iterator[int]:
        yield from range(most)

    @app.task
    async def agenerator(most: int) -> AsyncIterator[int]:
        for number in range(most):
            yield number

    with working(app, pool):
        for task, value in ((plain, "plain"), (coroutine, "coroutine"), (generator, None), (agenerator, 999)):
            result = task.delay(1_000)  # type: ignore[attr-defined]  # mypy: the join of four kinds of task
            assert told(result) == [*range(1_000)]
            assert result.get(timeout=ANSWER) == value
            assert (result.partial(), told(result, 998), told(result, -1)) == (999, [998, 999], [999])


@pytest.mark.parametrize("pool", POOLS)
def test_parts_are_seen_while_the_task_goes_on(app: Penstock, pool: str) -> None:
    seen = threading.Semaphore(0)

    @app.task
    def steps() -> Iterator[int]:
        for number in range(3):
            yield number
            assert seen.acquire(timeout=ANSWER)

    with working(app, pool):
        result = steps.delay()
        stream = result.stream(timeout=ANSWER)
        for number in range(3):
            assert (next(stream), result.partial(), stream.offset, stream.run) == (number, number, number + 1, 0)
            assert result.state is not State.SUCCESS
            seen.release()
        assert next(stream, "end") == "end"


def test_awaited(app: Penstock) -> None:
    @app.task
    async def count(most: int) -> AsyncIterator[int]:
        for number in range(most):
            yield number

    async def read() -> None:
        result = await count.adelay(600)
        stream = result.astream(timeout=ANSWER)
        assert [value async for value in stream] == [*range(600)]
        assert (stream.offset, stream.run, await result.apartial()) == (600, 0, 599)
        async with result.astream(590) as rest:
            assert await anext(rest) == 590

    with working(app, "asyncio"):
        asyncio.run(read())


def test_a_task_that_is_tried_again_goes_on_behind_its_first_run(app: Penstock) -> None:
    @app.task(bind=True, max_retries=1)
    def twice(self: Any) -> Iterator[str]:
        yield f"run {self.request.retries}"
        if not self.request.retries:
            raise self.retry(countdown=0)

    with working(app, "threads"):
        stream = twice.delay().stream(timeout=ANSWER)
        assert [(value, stream.run, stream.offset) for value in stream] == [("run 0", 0, 1), ("run 1", 1, 2)]


def test_a_task_in_the_place_of_another_goes_on_behind_it(app: Penstock) -> None:
    @app.task
    def other() -> Iterator[str]:
        yield "other"

    @app.task(bind=True, max_retries=2)
    def first(self: Any) -> Iterator[str]:
        yield "first"
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        raise self.replace(other.s())

    with rehearse(app) as tasks:
        result = first.delay()
        tasks.run_all()
        stream = result.stream()
        assert [(value, stream.run) for value in stream] == [("first", 0), ("first", 1), ("first", 2), ("other", 2)]


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one server", "two servers"])
@pytest.mark.parametrize("late", [True, False], ids=["late", "early"])
def test_it_does_not_matter_when_it_is_acknowledged_nor_where_results_are(
    tmp_path: Path, late: bool, elsewhere: bool
) -> None:
    settings: Any = {"result_backend": f"sqlite:///{tmp_path}/results.db"} if elsewhere else {}
    app = Penstock("streams", broker=f"sqlite:///{tmp_path}/queue.db", durability="process", **settings)
    begin = threading.Event()

    @app.task(bind=True, acks_late=late, max_retries=1)
    def twice(self: Any) -> Iterator[int]:
        assert begin.wait(ANSWER)
        yield 1
        if not self.request.retries:
            raise self.retry(countdown=0)
        yield 2

    with working(app, "solo"):
        results = [twice.delay(), twice.apply_async(task_id="chosen")]
        found: list[list[tuple[int, int | None]]] = [[], []]

        def read(number: int) -> None:
            stream = results[number].stream(timeout=ANSWER)
            found[number] += [(value, stream.run) for value in stream]

        readers = [threading.Thread(target=read, args=(number,)) for number in range(2)]
        for reader in readers:
            reader.start()
        begin.set()
        for reader in readers:
            reader.join(ANSWER)
    assert found == [[(1, 0), (1, 1), (2, 1)]] * 2
    app.close()


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_a_soft_limit_reaches_a_function_that_only_publishes(app: Penstock, pool: str) -> None:
    @app.task(bind=True, soft_time_limit=0.3)
    def endless(self: Any) -> str:
        try:
            while True:
                self.publish_partial("on")
        except SoftTimeLimitExceeded:
            self.publish_partial("over")
            return "in time"

    with working(app, pool):
        result = endless.delay()
        assert result.get(timeout=ANSWER) == "in time"
        assert result.partial() == "over"


def test_a_coroutine_ends_at_its_limit_and_keeps_what_it_published(app: Penstock) -> None:
    @app.task(time_limit=0.2)
    async def waits() -> AsyncIterator[str]:
        yield "before"
        await asyncio.sleep(3600)

    with working(app, "asyncio"):
        stream = waits.delay().stream(timeout=ANSWER)
        assert next(stream) == "before"
        with pytest.raises(TimeLimitExceeded):
            next(stream)


def test_a_canvas_in_the_place_of_a_task_ends_its_stream(app: Penstock) -> None:
    other = app.task(name="other")(_text)

    @app.task(bind=True)
    def first(self: Any) -> Iterator[str]:
        yield "first"
        raise self.replace(chain(other.si(), other.si()))

    with rehearse(app) as tasks:
        result = first.delay()
        tasks.run_one()
        assert list(result.stream(timeout=ANSWER)) == ["first"]
        tasks.run_all()
        assert list(result.stream(timeout=ANSWER)) == ["first"]


def test_a_failure_comes_at_the_end(app: Penstock) -> None:
    @app.task
    def fails() -> Iterator[int]:
        yield 1
        raise ValueError("no")

    with working(app, "threads"):
        stream = fails.delay().stream(timeout=ANSWER)
        assert next(stream) == 1
        with pytest.raises(ValueError, match="no"):
            next(stream)
        assert list(fails.delay().stream(timeout=ANSWER, propagate=False)) == [1]


def test_a_revoked_generator_is_closed_between_two_values(app: Penstock) -> None:
    closed = threading.Event()

    @app.task
    def endless() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
                time.sleep(0.001)
        finally:
            closed.set()

    with working(app, "threads"):
        result = endless.delay()
        stream = result.stream(timeout=ANSWER)
        assert next(stream) == 0
        result.revoke()
        with pytest.raises(TaskRevoked):
            for _ in stream:
                pass
        assert closed.wait(ANSWER)
        assert result.state is State.REVOKED


def test_an_async_generator_that_is_ended_in_the_middle_is_closed(app: Penstock) -> None:
    closed = threading.Event()

    @app.task
    async def waits() -> AsyncIterator[int]:
        try:
            yield 0
            await asyncio.sleep(3600)
        finally:
            closed.set()

    with working(app, "asyncio"):
        result = waits.delay()
        stream = result.stream(timeout=ANSWER)
        assert next(stream) == 0
        result.revoke(terminate=True)
        with pytest.raises(TaskRevoked):
            next(stream)
        assert closed.wait(ANSWER)


def test_a_slow_reader_holds_one_page(app: Penstock) -> None:
    with rehearse(app) as tasks:
        count = app.task(name="count")(_count)
        result = count.delay(1_000)
        tasks.run_all()
        stream = result.stream()
        held = [len(stream._page) for _ in stream]
        assert max(held) < 256


def test_what_fell_out_of_what_is_kept_is_told(app: Penstock) -> None:
    with rehearse(app) as tasks:
        count = app.task(name="count")(_count)
        result = count.delay(MOST_PARTS + 10)
        tasks.run_all()
        with pytest.raises(PartsLost, match=r"go on with stream\(10\), which skips 10") as lost:
            next(result.stream())
        assert (lost.value.offset, lost.value.first, lost.value.end) == (0, 10, MOST_PARTS + 10)
        assert next(result.stream(lost.value.first)) == 10
        with pytest.raises(PartsLost, match="the task began anew"):
            next(result.stream(MOST_PARTS + 11))


def test_a_stream_of_nothing(app: Penstock) -> None:
    with rehearse(app) as tasks:
        quiet = app.task(name="quiet")(lambda: 1)
        result = quiet.delay()
        assert result.partial("nothing yet") == "nothing yet"
        with pytest.raises(ResultTimeout, match=r"published nothing for 0\.01 s, after 0 parts"):
            next(result.stream(timeout=0.01))
        tasks.run_all()
        assert list(result.stream()) == []
        with pytest.raises(ResultUnavailable, match="is unknown here"):
            next(app.AsyncResult("stranger").stream())
        with pytest.raises(ResultUnavailable, match="ignore"):
            next(quiet.apply_async(ignore_result=True).stream())


def test_after_a_time_out_a_stream_can_be_read_on(app: Penstock) -> None:
    with rehearse(app) as tasks:
        result = app.task(name="count")(_count).delay(2)
        stream = result.stream(timeout=0.01)
        for _ in range(2):
            with pytest.raises(ResultTimeout):
                next(stream)
        tasks.run_all()
        assert list(stream) == [0, 1]


def test_nobody_looks_who_was_not_told(app: Penstock, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = list[int]()
    with rehearse(app):
        backend = app.backend
        result = app.task(name="count")(_count).delay(2)
        parts = backend.parts
        monkeypatch.setattr(
            backend, "parts", lambda key, offset, limit: looks.append(offset) or parts(key, offset, limit)
        )
        stream = result.stream(timeout=ANSWER)
        for number in range(3):
            told = threading.Timer(
                0.01, lambda n=number: app.engine.run(backend.append(result.key, 0, n, [(b"1", "json")]))
            )
            told.start()
            assert next(stream) == 1
            told.join()
    assert looks == [0, 0, 1, 2]  # the first before anything was there


def test_a_reader_that_leaves_waits_for_nothing_more(app: Penstock) -> None:
    with rehearse(app):
        result = app.task(name="t")(lambda: 1).delay()
        with result.stream(timeout=0.01) as stream, pytest.raises(ResultTimeout):
            next(stream)
        streams = app.engine._store.shelf.streams  # type: ignore[attr-defined]  # the memory engine's
        assert streams._listeners == {}


def test_what_keys_sign_is_verified_when_it_is_read() -> None:
    settings: Any = {"result_compression": "zlib", "compression_min_bytes": 10}
    app = Penstock("unit", broker="memory://", security_key=keys.pem(keys.private()), **settings)
    with rehearse(app) as tasks:
        count = app.task(name="text")(_text)
        result, other = count.delay(), count.delay()
        tasks.run_all()
        [part] = app.engine.run(app.backend.parts(result.key, 0, 10)).parts
        assert part.content_type == "json+zlib+signed"
        assert (list(result.stream()), result.partial()) == (["all work and no play " * 9], "all work and no play " * 9)
        store = app.engine._store.shelf.streams  # type: ignore[attr-defined]  # the memory engine's
        store._streams[other.id] = store._streams[result.id]
        with pytest.raises(SignatureError):
            next(other.stream())


def test_a_part_that_does_not_fit_its_annotation_is_told_and_passed(app: Penstock) -> None:
    with rehearse(app) as tasks:
        count = app.task(name="count")(_count)
        result = count.delay(0)
        app.engine.run(app.backend.append(result.key, 0, 1, [(b'"no"', "json"), (b"7", "json")]))
        tasks.run_all()
        stream = result.stream()
        with pytest.raises(DecodeError, match="a part does not fit the annotation"):
            next(stream)
        assert list(stream) == [7]


def _count(most: int) -> Iterator[int]:
    yield from range(most)


def _text() -> Iterator[str]:
    yield "all work and no play " * 9
