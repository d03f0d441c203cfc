"""Waiting for the end of a task, by push: a thread or a coroutine sleeps until it is told, and hardly looks itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock import apart, replaced
from penstock.backend import Lost, Notify, Subscription
from penstock.errors import BrokerError, ResultTimeout
from penstock.outcome import Report

if TYPE_CHECKING:
    import asyncio

    from penstock.result import AsyncResult

RECHECK = 30.0
"""Seconds after which who waits looks whether the task is still known: one that is forgotten never ends."""
FIRST_CHECK = 1.0
"""The same for a task that this process had just published, so that nobody looked whether it is known."""


class Waiting:
    """One wait for the end of the task of `result`, of `timeout` seconds at most. Raises `ResultTimeout`, and
    `ResultUnavailable` when there will be no end."""

    def __init__(self, result: AsyncResult[Any], timeout: float | None) -> None:
        self._result = result
        self._timeout = timeout

    def wait(self, report: Report | None) -> Report:
        """How it ended. `report`: the last look, if there was one. Blocks."""
        # The machine's clock, not the app's: a thread waits in real time.
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        report = self._wait_there(report, deadline)
        while replaced.follow(self._result, report):
            report = self._wait_there(None, deadline)
        return report

    def _wait_there(self, report: Report | None, deadline: float | None) -> Report:
        told, reports = threading.Event(), list[Report]()
        failed: list[BrokerError] = []

        def notify(news: Sequence[Report]) -> None:
            reports.extend(news)
            told.set()

        def lost(error: BrokerError) -> None:
            failed.append(error)
            told.set()

        check = self._first_check(report)
        subscription = self._subscribe(notify, lost)
        try:
            while True:
                left = check if deadline is None else min(check, deadline - time.monotonic())
                if left > 0 and subscription.wait(told, left):
                    if reports:
                        return reports[0]
                    raise self._result._lost(failed[0]) from failed[0]
                report = self._result.report()
                if report.state.terminal:
                    return report
                self._result._check_known(report)
                check = RECHECK
                if deadline is not None and time.monotonic() >= deadline:
                    raise self._timed_out(report)
        finally:
            subscription.close()

    async def await_(self, report: Report | None) -> Report:
        """`wait` without blocking the running loop."""
        import asyncio  # who awaits has loaded it

        loop = asyncio.get_running_loop()
        deadline = None if self._timeout is None else loop.time() + self._timeout
        report = await self._await_there(loop, report, deadline)
        while replaced.follow(self._result, report):
            report = await self._await_there(loop, None, deadline)
        return report

    async def _await_there(
        self, loop: asyncio.AbstractEventLoop, report: Report | None, deadline: float | None
    ) -> Report:
        import asyncio

        check = self._first_check(report)
        told: asyncio.Future[Report] = loop.create_future()

        def tell(news: Report | BrokerError) -> None:
            if told.done():
                return
            if isinstance(news, Report):
                told.set_result(news)
            else:
                told.set_exception(news)

        def say(news: Report | BrokerError) -> None:
            # A loop that was closed meanwhile has nobody left who waits.
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell, news)

        subscription = self._subscribe(lambda news: say(news[0]), say)
        try:
            while True:
                left = check if deadline is None else max(0.0, min(check, deadline - loop.time()))
                await asyncio.wait([told], timeout=left)
                if told.done() and isinstance(error := told.exception(), BrokerError):
                    raise self._result._lost(error) from error
                report = told.result() if told.done() else await self._result.areport()
                if report.state.terminal:
                    return report
                self._result._check_known(report)
                check = RECHECK
                if deadline is not None and loop.time() >= deadline:
                    raise self._timed_out(report)
        finally:
            subscription.close()

    def _subscribe(self, notify: Notify, lost: Lost) -> Subscription:
        app = self._result._app
        return app.backend.subscribe(apart.stored_keys(app.engine, app.results, [self._result.at]), notify, lost)

    def _first_check(self, report: Report | None) -> float:
        """Seconds until the next look; raises when there will be no result."""
        if report is None:
            return FIRST_CHECK
        self._result._check_known(report)
        return RECHECK

    def _timed_out(self, report: Report) -> ResultTimeout:
        return ResultTimeout(f"task {self._result.id} is {report.state} after {self._timeout:g} s")
