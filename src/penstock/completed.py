"""Results as they finish."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from penstock import apart, replaced
from penstock.backend import Subscription
from penstock.blocking import refuse_in_loop
from penstock.errors import BrokerError, ConfigError, ResultTimeout, ResultUnavailable
from penstock.outcome import Report, State
from penstock.result import AsyncResult

if TYPE_CHECKING:
    from penstock.app import Penstock

R = TypeVar("R")
LONG = 3600.0
"""Seconds of one wait where there is no time-out."""
News = Sequence[Report] | BrokerError
"""Reports of what has ended, or why no more can come."""


class as_completed(Generic[R]):
    """The given results, each once, as they finish: `for r in as_completed(results)`, or `async for`. One that is
    unknown, or whose task keeps no result, comes when that is known, and its `get()` says so.

    All must be of one app. Raises `ResultTimeout` when not all are there `timeout` seconds after the loop began, and
    `ResultUnavailable` when the rest can no more come.
    """

    def __init__(self, results: Iterable[AsyncResult[R]], timeout: float | None = None) -> None:
        self._results = list(results)
        self._timeout = timeout
        if len({id(result._app) for result in self._results}) > 1:
            raise ConfigError("as_completed takes results of one app")

    def __iter__(self) -> Iterator[AsyncResult[R]]:
        import queue
        import threading
        import time

        refuse_in_loop("for … in as_completed(…)", "async for")
        ended, results = self._known()
        yield from ended
        if not results:
            return
        app = results[0]._app
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        watch = Watch(app, results, apart.drive(_reports(app, results)))
        yield from watch.finished
        news: queue.SimpleQueue[News] = queue.SimpleQueue()
        rung = threading.Event()

        def notify(reports: News) -> None:
            news.put(reports)
            rung.set()

        subscription = watch.subscribe(notify)
        try:
            while watch.waiting:
                rung.clear()  # before looking: who comes later rings again
                while not news.empty():
                    yield from watch.told(news.get())
                if watch.moved and subscription is not None:
                    subscription.close()
                    subscription = watch.subscribe(notify)
                left = LONG if deadline is None else deadline - time.monotonic()
                if (
                    watch.waiting
                    and subscription is not None
                    and not subscription.wait(rung, max(0.0, left))
                    and left <= 0
                ):
                    raise watch.timed_out(self._timeout)
        finally:
            if subscription is not None:
                subscription.close()

    async def __aiter__(self) -> AsyncIterator[AsyncResult[R]]:
        import asyncio

        ended, results = self._known()
        for result in ended:
            yield result
        if not results:
            return
        app = results[0]._app
        loop = asyncio.get_running_loop()
        deadline = None if self._timeout is None else loop.time() + self._timeout
        watch = Watch(app, results, await apart.adrive(_reports(app, results)))
        for result in watch.finished:
            yield result
        news: asyncio.Queue[News] = asyncio.Queue()

        def notify(reports: News) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(news.put_nowait, reports)

        subscription = watch.subscribe(notify)
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
                if watch.moved and subscription is not None:
                    subscription.close()
                    subscription = watch.subscribe(notify)
        finally:
            if subscription is not None:
                subscription.close()

    def _known(self) -> tuple[list[AsyncResult[R]], list[AsyncResult[R]]]:
        """Those whose end was seen, as that of an eager call is at once, and the others."""
        ended = [result for result in self._results if result._seen is not None]
        return ended, [result for result in self._results if result._seen is None]


def _reports(app: Penstock, results: Sequence[AsyncResult[Any]]) -> apart.Plan[Sequence[Report]]:
    return replaced.reports(app, results)


class Watch(Generic[R]):
    """Which of some results are still to come."""

    def __init__(self, app: Penstock, results: Sequence[AsyncResult[R]], reports: Sequence[Report]) -> None:
        self._app = app
        unknown_ends = not app.keeps_results or apart.knows_waiting(app.engine, app.results)
        self.finished: list[AsyncResult[R]] = []
        self.waiting: dict[str, list[AsyncResult[R]]] = {}
        self.moved = False
        """Some are now those of other tasks: who is subscribed has to `subscribe` anew."""
        for result, report in zip(results, reports, strict=True):
            if result._noted(report).state.terminal or (report.state is State.UNKNOWN and unknown_ends):
                self.finished.append(result)
            else:
                self._wait_for(result)

    def _wait_for(self, result: AsyncResult[R]) -> None:
        self.waiting.setdefault(self._app.broker.public_id(result.at), []).append(result)

    def subscribe(self, notify: Callable[[News], None]) -> Subscription | None:
        """`None`: there is nothing to wait for."""
        self.moved = False
        if not self.waiting:
            return None
        app, keys = self._app, [results[0].at for results in self.waiting.values()]
        return app.backend.subscribe(apart.stored_keys(app.engine, app.results, keys), notify, notify)

    def told(self, reports: News) -> list[AsyncResult[R]]:
        """The results that these reports end. Raises `ResultUnavailable` when no more can come."""
        if isinstance(reports, BrokerError):
            left = sum(len(results) for results in self.waiting.values())
            raise ResultUnavailable(f"{left} of the results cannot come any more: {reports}") from reports
        ended: list[AsyncResult[R]] = []
        for report in reports:
            for result in self.waiting.pop(report.id, ()):
                if replaced.follow(result, report):
                    self._wait_for(result)
                    self.moved = True
                else:
                    result._noted(report)
                    ended.append(result)
        return ended

    def timed_out(self, timeout: float | None) -> ResultTimeout:
        left = sum(len(results) for results in self.waiting.values())
        return ResultTimeout(f"{left} of the results were not there after {timeout:g} s")
