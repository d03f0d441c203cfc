"""Reading what a running task publishes: `for value in result.stream()`, from any index on, as it comes."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from penstock import apart
from penstock.backend import Subscription
from penstock.blocking import refuse_in_loop
from penstock.codec import Returned
from penstock.errors import BrokerError, PartsLost, ResultTimeout
from penstock.outcome import Part, Parts, Report, State
from penstock.partials import check_streams

if TYPE_CHECKING:
    from penstock.result import AsyncResult

Y = TypeVar("Y")

PAGE = 256
"""Parts that are read, and held, at once."""
RECHECK = 30.0
"""Seconds after which a waiting reader looks by itself, and whether the task is still known."""


class Reader(Generic[Y]):
    """What has been read, and what is next.

    `offset` is the index of the next value: store it, and go on later with `result.stream(offset)`. `run` is the
    number of the run that published the last value: a task that is tried again goes on behind what it published before.
    """

    def __init__(self, result: AsyncResult[Any], offset: int, timeout: float | None, propagate: bool) -> None:
        self.offset = offset
        self.run: int | None = None
        self._result = result
        self._timeout = timeout
        self._propagate = propagate
        self._page: deque[Part] = deque()
        self._again = False
        """There is something to look at, whether or not somebody tells."""
        self._over: Report | None = None
        self._subscription: Subscription | None = None
        self._failed: BrokerError | None = None
        if type(offset) is not int:
            raise TypeError(f"offset is the index of a part, a whole number as stream.offset is, not {offset!r}")

    def _look(self) -> apart.Plan[bool]:
        """Read the next page; `False`: there is nothing to read now, and the task has not ended."""
        result = self._result
        found = yield from parts_of(result, self.offset, PAGE)
        self._turn_to(found)
        # Of what is there already, nobody tells again: more than a page, or the end.
        self._again = len(found.parts) == PAGE or found.ended
        if self._page or not found.ended:
            return bool(self._page)
        report = result._seen or (yield from result._reports())[0]
        if not result._noted(report).state.terminal:
            result._check_known(report)
            self._again = False
            if result.at == result.key:
                return False
            self._over = report  # a canvas took its place, and what it published itself is read
            return True
        # It may have published more between the two looks.
        self._turn_to((yield from parts_of(result, self.offset, PAGE)))
        if not self._page:
            self._over = report
        return True

    def _turn_to(self, found: Parts) -> None:
        if self.offset < 0:
            self.offset = max(0, found.end + self.offset)
        elif not found.first <= self.offset <= found.end:
            raise PartsLost(self.offset, found.first, found.end)
        self._page.extend(found.parts)

    def _take(self) -> Y:
        part = self._page.popleft()
        self.offset, self.run = part.index + 1, part.run
        return cast(Y, value_of(self._result, part))

    def _close(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _check_end(self) -> None:
        self._close()
        if self._over is not None and self._over.state in (State.FAILURE, State.REVOKED) and self._propagate:
            raise self._result._error(self._over)

    def _subscribed(self, notify: Callable[[], None]) -> Subscription | None:
        """Wait for parts; `None` where all that will come is there."""
        result = self._result
        if self._subscription is None and result._held is None:
            app = result._app
            [key] = apart.stored_keys(app.engine, app.results, [result.key])

            def lost(error: BrokerError) -> None:
                self._failed = error
                notify()

            self._subscription = app.backend.subscribe_parts(key, notify, lost)
            notify()  # of what came before nobody tells
        return self._subscription

    def _check_lost(self) -> None:
        if self._failed is not None:
            raise self._result._lost(self._failed) from self._failed

    def _timed_out(self) -> ResultTimeout:
        return ResultTimeout(
            f"task {self._result.id} published nothing for {self._timeout:g} s, after {self.offset} parts"
        )


class Stream(Reader[Y]):
    """The values that a task publishes, in their order, until it has ended: `for value in result.stream()`.

    Who leaves before the end closes it, or uses it in a `with` block."""

    def __init__(self, result: AsyncResult[Any], offset: int, timeout: float | None, propagate: bool) -> None:
        super().__init__(result, offset, timeout, propagate)
        self._told = threading.Event()

    def __iter__(self) -> Iterator[Y]:
        return self

    def __next__(self) -> Y:
        """Raises what `get` raises when the task has failed, `PartsLost` when the next part is not kept any more, and
        `ResultTimeout` when none came for `timeout` seconds."""
        if not self._page and self._over is None:
            try:
                self._wait()
            except BaseException:
                self.close()
                raise
        if not self._page:
            self._check_end()
            raise StopIteration
        return self._take()

    def _wait(self) -> None:
        if self._result._held is None:
            refuse_in_loop("for … in r.stream()", "async for … in r.astream()")
        told = self._told
        # The machine's clock, not the app's: a thread waits in real time.
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        subscription = self._subscribed(told.set)
        left = RECHECK
        while True:
            # Nobody need look who was not told since his last look.
            if subscription is None or self._again or told.is_set() or left <= 0:
                told.clear()
                self._check_lost()
                if apart.drive(self._look()):
                    return
                if deadline is not None and time.monotonic() >= deadline:
                    raise self._timed_out()
            assert subscription is not None  # what is held has ended
            left = RECHECK if deadline is None else min(RECHECK, deadline - time.monotonic())
            if left > 0 and not subscription.wait(told, left):
                left = 0.0

    def __enter__(self) -> Stream[Y]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Wait for nothing more. May be called twice."""
        self._close()


class AsyncStream(Reader[Y]):
    """`Stream` without blocking the running loop: `async for value in result.astream()`."""

    def __init__(self, result: AsyncResult[Any], offset: int, timeout: float | None, propagate: bool) -> None:
        import asyncio  # who awaits has loaded it

        super().__init__(result, offset, timeout, propagate)
        self._told = asyncio.Event()

    def __aiter__(self) -> AsyncIterator[Y]:
        return self

    async def __anext__(self) -> Y:
        if not self._page and self._over is None:
            try:
                await self._wait()
            except BaseException:
                await self.aclose()
                raise
        if not self._page:
            self._check_end()
            raise StopAsyncIteration
        return self._take()

    async def _wait(self) -> None:
        import asyncio

        loop, told = asyncio.get_running_loop(), self._told

        def ring() -> None:
            # A loop that was closed meanwhile has nobody left who waits.
            if not loop.is_closed():
                loop.call_soon_threadsafe(told.set)

        deadline = None if self._timeout is None else loop.time() + self._timeout
        subscription = self._subscribed(ring)
        left = RECHECK
        while True:
            if subscription is None or self._again or told.is_set() or left <= 0:
                told.clear()
                self._check_lost()
                if await apart.adrive(self._look()):
                    return
                if deadline is not None and loop.time() >= deadline:
                    raise self._timed_out()
            left = RECHECK if deadline is None else min(RECHECK, deadline - loop.time())
            try:
                async with asyncio.timeout(left):
                    await told.wait()
            except TimeoutError:
                left = 0.0

    async def __aenter__(self) -> AsyncStream[Y]:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._close()

    async def aclose(self) -> None:
        """Wait for nothing more. May be called twice."""
        self._close()


def parts_of(result: AsyncResult[Any], offset: int, limit: int) -> apart.Plan[Parts]:
    """`Backend.parts`, where results are kept; of a call that ran here, what it collected."""
    held = result._held
    if held is not None:
        start = min(max(0, offset if offset >= 0 else offset + len(held)), len(held))
        return Parts(0, len(held), held[start : start + limit], ended=True)
    app = result._app
    result._check_stored()
    check_streams(app)
    [key] = apart.stored_keys(app.engine, app.results, [result.key])
    found: Parts = yield app.results, app.backend.parts(key, offset, limit)
    return found


def newest(result: AsyncResult[Any], default: Any) -> apart.Plan[Any]:
    """The value of the newest part."""
    found = yield from parts_of(result, -1, 1)
    return value_of(result, found.parts[-1]) if found.parts else default


def value_of(result: AsyncResult[Any], part: Part) -> Any:
    """Raises `SignatureError` for a part that is not believed, and `DecodeError`."""
    app = result._app
    data, content_type = part.value, part.content_type
    if result._held is None:
        data, content_type = app.pipeline.part_in(result.id, part.run, data, content_type)
    task = result._task
    returned = task.parts if task is not None else Returned("task", reader=app.pipeline.reader, what="a part")
    return returned.decode(data, content_type)
