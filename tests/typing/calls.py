"""What type checkers must accept, and refuse in the lines marked so. Never run.

`make check` fails when a marked line is accepted, since its `ignore` is unused then; test_calls.py sees each error.
"""

from collections.abc import AsyncIterator, Coroutine, Generator, Iterator
from typing import Any, assert_type

from penstock import (
    AsyncResult,
    EagerResult,
    GroupResult,
    Penstock,
    Signature,
    Task,
    Unique,
    as_completed,
    chain,
    chord,
    crontab,
    debounce,
    group,
    schedule,
)
from penstock.spread import Spread
from penstock.stream import AsyncStream, Stream

app = Penstock("tasks", broker="memory://", task_default_queue="q", task_default_rate_limit="5/s")
Penstock("tasks", task_default_que="q")  # type: ignore[call-arg]  # refused


@app.task
def add(x: int, y: int = 1) -> int:
    return x + y


@app.task
async def fetch(url: str) -> bytes:
    return url.encode()


@app.task(bind=True, autoretry_for=(OSError,), retry_backoff=True, max_retries=5)
async def bound(self: Task[..., Any], url: str) -> int:
    raise self.retry(countdown=self.request.retries)


@app.task(bind=True)
def self_unannotated(self, x: int) -> str:  # type: ignore[no-untyped-def]  # as many will write it
    return str(x)


@app.task(queue="q", unique=Unique("{x}", ttl=5))
def configured(x: int) -> list[int]:
    return [x]


@app.task(
    rate_limit="10/s",
    rate_burst=5,
    concurrency_limit=2,
    limit_key="{x}",
    cost=lambda x: x,
    partition="{x}",
    max_snoozes=5,
)
def limited(x: int) -> None: ...


@app.task(bind=True, unique=debounce(30, "{x}"))
def debounced(self: Task[..., Any], x: int) -> None:
    raise self.snooze(7)


@app.task
def lines(path: str) -> Generator[str, None, int]:
    yield path
    return 1


@app.task(queue="q")
def words(text: str) -> Iterator[str]:
    yield from text.split()


@app.task(bind=True)
async def tokens(self: Task[..., Any], prompt: str) -> AsyncIterator[bytes]:
    await self.apublish_partial("a part of another kind")
    yield prompt.encode()


@app.task(max_retry=5)  # type: ignore[call-overload,untyped-decorator]  # refused
def misconfigured(x: int) -> None: ...


assert_type(add(1, y=2), int)
_: Coroutine[Any, Any, bytes] = assert_type(fetch("x"), Coroutine[Any, Any, bytes])
__: Coroutine[Any, Any, int] = assert_type(bound("x"), Coroutine[Any, Any, int])
assert_type(add.delay(1, y=2), AsyncResult[int])
assert_type(fetch.delay("x"), AsyncResult[bytes])
assert_type(bound.delay("x"), AsyncResult[int])
assert_type(configured.delay(1), AsyncResult[list[int]])
assert_type(add.delay(1).get(timeout=1), int)
assert_type(add.apply((1,)), EagerResult[int])
assert_type(add.apply_async((1,), countdown=5), AsyncResult[int])
assert_type(add.apply_async((1,), countdown=5, connection=object()), AsyncResult[int])
assert_type(add.apply_async_on_commit((1,), connection=object()), AsyncResult[int])
assert_type(add.delay_on_commit(1, y=2), AsyncResult[int])
assert_type(add.delay_many([(1, 2)]), list[AsyncResult[int]])
assert_type([result.get() for result in as_completed([add.delay(1)])], list[int])
___: Iterator[str] = assert_type(lines("x"), Iterator[str])
____: AsyncIterator[bytes] = assert_type(tokens("x"), AsyncIterator[bytes])
lines.delay(1)  # type: ignore[arg-type]  # refused
assert_type(lines.delay("x").get(), int)
assert_type(lines.delay("x").stream(), Stream[str])
assert_type(list(words.delay("x").stream(offset=3, timeout=1)), list[str])
assert_type(tokens.delay("x").get(), bytes | None)
assert_type(tokens.apply_async(("x",)).astream(), AsyncStream[bytes])
assert_type(tokens.delay("x").partial(), bytes | None)
assert_type(lines.AsyncResult("x").stream(), Stream[str])
assert_type(add.delay(1).stream(), Stream[Any])
assert_type(app.send_task("x"), AsyncResult[Any])
assert_type(app.spread(limited, range(3), name="a", over="2h"), Spread)
app.spread(limited.s(), [(1,)], name="b", rate=5, totl=1)  # type: ignore[call-arg]  # refused
limited.apply_async((1,), cost=2.5)
assert_type(add.s(1), Signature[int])
assert_type(fetch.si("x"), Signature[bytes])
add.si("x")  # type: ignore[arg-type]  # refused
assert_type(add.s(1, 2).delay(), AsyncResult[int])
assert_type(add.s(1, 2).set(countdown=5), Signature[int])
add.s(1, 2).set(countdwon=5)  # type: ignore[call-arg]  # refused
assert_type(app.send(add.s(1, 2)), AsyncResult[int])
assert_type(chain(add.s(1, 2), add.s(3)).delay(), AsyncResult[Any])
assert_type(group(add.s(1, 2), add.s(3, 4)).delay(), GroupResult)
assert_type(chord([add.s(1, 2)], configured.s()).delay(), AsyncResult[Any])
assert_type(add.starmap([(1, 2)]).delay().get(), list[int])
assert_type(add.chunks([(1, 2)], 2).delay(), GroupResult)
chain(add.s(1, 2), 3)  # type: ignore[arg-type]  # refused
assert_type(app.AsyncResult("x", task=add).get(), int)

app.add_periodic_task(crontab(minute=0, hour="*/3"), add.s(1), name="x", queue="q", jitter=5, catch_up="all")
app.add_periodic_task(schedule(30), add, (1,), {"y": 2})
app.timetable.add("x", "at 5:03 pm every Sunday", add.s(1))
assert_type(crontab(minute=[0, 30]).next_after(0), float | None)

app.add_periodic_task(None, add.s(1))  # type: ignore[arg-type]  # refused
app.add_periodic_task(30, add.s(1), catch_up="some")  # type: ignore[arg-type]  # refused
app.add_periodic_task(30, add.s(1), que="q")  # type: ignore[call-arg]  # refused
crontab(minute=1.5)  # type: ignore[arg-type]  # refused
add("1")  # type: ignore[arg-type]  # refused
add.delay("1")  # type: ignore[arg-type]  # refused
add.delay_on_commit("1")  # type: ignore[arg-type]  # refused
add.delay()  # type: ignore[call-arg]  # refused
add.delay(1, z=2)  # type: ignore[call-arg]  # refused
fetch.delay(1)  # type: ignore[arg-type]  # refused
bound.delay(bound, "x")  # type: ignore[call-arg,arg-type]  # refused
self_unannotated.delay("x")  # type: ignore[arg-type]  # refused
configured.delay("x")  # type: ignore[arg-type]  # refused
add.apply_async((1,), contdown=5)  # type: ignore[call-arg]  # refused
add.apply_async((1,), countdown="5")  # type: ignore[arg-type]  # refused


async def awaiting() -> None:
    assert_type(await add.adelay(1), AsyncResult[int])
    assert_type(await (await fetch.adelay("x")).aget(), bytes)
    assert_type(await add.aapply_async((1,)), AsyncResult[int])
    assert_type(await add.adelay_many([(1,)]), list[AsyncResult[int]])
    assert_type([await r.aget() async for r in as_completed([await add.adelay(1)])], list[int])
    await add.adelay("1")  # type: ignore[arg-type]  # refused
    add.adelay(1)  # type: ignore[unused-coroutine]  # refused
    async with app.batch() as batch:
        assert_type(len(batch), int)
