"""Results as they finish."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from penstock.blocking import refuse_in_loop
from penstock.errors import ConfigError, ResultTimeout
from penstock.outcome import Report, State
from penstock.result import AsyncResult

if TYPE_CHECKING:
    from penstock.app import Penstock

R = TypeVar("R")


class as_completed(Generic[R]):
    """The given results, each once, as they finish: `for r in as_completed(results)`, or `async for`. One that is
    unknown, or whose task keeps no result, comes when that is known, and its `get()` says so.

    All must be of one app. Raises `ResultTimeout` when not all are there `timeout` seconds after the loop began.
    """

    def __init__(self, results: Iterable[AsyncResult[R]], timeout: float | None = None) -> None:
        self._results = list(results)
        self._timeout = timeout
        if len({id(result._app) for result in self._results}) > 1:
            raise ConfigError("as_completed takes results of one app")

    def __iter__(self) -> Iterator[AsyncResult[R]]:
        import queue
        import time

        refuse_in_loop("for … in as_completed(…)", "async for")
        if not self._results:
            return
        app = self._results[0]._app
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        watch = Watch(self._results, app.engine.run(app.engine.backend.fetch([r.key for r in self._results])))
        yield from watch.finished
        news: queue.SimpleQueue[Sequence[Report]] = queue.SimpleQueue()
        subscription = watch.subscribe(app, news.put)
        try:
            while watch.waiting:
                try:
                    reports = news.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    raise watch.timed_out(self._timeout) from None
                yield from watch.told(reports)
        finally:
            subscription()

    async def __aiter__(self) -> AsyncIterator[AsyncResult[R]]:
        import asyncio

        if not self._results:
            return
        app = self._results[0]._app
        loop = asyncio.get_running_loop()
        deadline = None if self._timeout is None else loop.time() + self._timeout
        watch = Watch(self._results, await app.engine.arun(app.engine.backend.fetch([r.key for r in self._results])))
        for result in watch.finished:
            yield result
        news: asyncio.Queue[Sequence[Report]] = asyncio.Queue()

        def notify(reports: Sequence[Report]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.put_nowait, reports)

        subscription = watch.subscribe(app, notify)
        try:
            while watch.waiting:
                try:
                    reports = await asyncio.wait_for(
                        news.get(), None if deadline is None else max(0.0, deadline - loop.time())
                    )
                except TimeoutError:
                    raise watch.timed_out(self._timeout) from None
                for result in watch.told(reports):
                    yield result
        finally:
            subscription()


class Watch(Generic[R]):
    """Which of some results are still to come."""

    def __init__(self, results: Sequence[AsyncResult[R]], reports: Sequence[Report]) -> None:
        self.finished: list[AsyncResult[R]] = []
        self.waiting: dict[str, list[AsyncResult[R]]] = {}
        for result, report in zip(results, reports, strict=True):
            if result._noted(report).state.terminal or report.state is State.UNKNOWN:
                self.finished.append(result)
            else:
                self.waiting.setdefault(result.id, []).append(result)

    def subscribe(self, app: Penstock, notify: Callable[[Sequence[Report]], None]) -> Callable[[], None]:
        """Returns what ends it."""
        if not self.waiting:
            return lambda: None
        return app.engine.backend.subscribe([results[0].key for results in self.waiting.values()], notify).close

    def told(self, reports: Sequence[Report]) -> list[AsyncResult[R]]:
        """The results that these reports end."""
        ended: list[AsyncResult[R]] = []
        for report in reports:
            for result in self.waiting.pop(report.id, ()):
                result._noted(report)
                ended.append(result)
        return ended

    def timed_out(self, timeout: float | None) -> ResultTimeout:
        left = sum(len(results) for results in self.waiting.values())
        return ResultTimeout(f"{left} of the results were not there after {timeout:g} s")
