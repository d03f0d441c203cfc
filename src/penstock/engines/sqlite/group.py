"""Group commit for awaiting callers: one thread, one transaction and one sync for all publishes that are waiting."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Sequence
from typing import Any

from penstock.broker import Answer
from penstock.engines.sqlite.request import Call, Publish, PublishRequest, drive_on
from penstock.errors import BrokerUnavailable

ENOUGH = 256
"""Calls from which on those served together are not made to wait for more."""

Waiting = tuple[Call, asyncio.Future[Any]]


class Group:
    """Serves awaiting callers of all loops on one thread, started at the first call."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._calls: queue.SimpleQueue[list[Waiting] | None] = queue.SimpleQueue()
        self._gathering: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, call: Call) -> asyncio.Future[Any]:
        """Have `call` run. What one turn of a loop submits is handed over at once: waking the thread is what costs."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        gathered = self._gathering.get(loop)
        if gathered is None:
            self._gathering[loop] = [(call, future)]
            loop.call_soon(self._hand_over, loop)
            if self._thread is None:
                self._start()
        else:
            gathered.append((call, future))
        return future

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        calls = self._gathering.pop(loop)
        with self._lock:  # nothing is put behind the end
            if not self._closed:
                self._calls.put(calls)
                return
        for call, future in calls:
            call.close()
            if not future.done():
                future.set_exception(BrokerUnavailable("the engine was closed meanwhile; nothing was done"))

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="penstock-group", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            calls = self._next_calls()
            if not calls:
                return
            self._serve(calls)

    def _next_calls(self) -> list[Waiting]:
        """All that wait now, at least one; none when closed."""
        calls: list[Waiting] = []
        while True:
            gathered = self._calls.get()
            if gathered is None:
                self._calls.put(None)  # for the next round, which ends the thread
                return calls
            calls += gathered
            if len(calls) >= ENOUGH or self._calls.empty():
                return calls

    def _serve(self, calls: list[Waiting]) -> None:
        """Start every call; those that want to publish do so together."""
        done: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]] = {}
        publishing: list[tuple[Call, asyncio.Future[Any], PublishRequest]] = []
        for call, future in calls:
            if future.cancelled():
                call.close()
                continue
            try:
                publishing.append((call, future, call.send(None)))
            except StopIteration as stop:
                done.setdefault(future.get_loop(), []).append((future, stop.value, None))
            except BaseException as error:
                done.setdefault(future.get_loop(), []).append((future, None, error))
        if publishing:
            self._publish_together(publishing, done)
        for loop, results in done.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, results)

    def _publish_together(
        self,
        publishing: list[tuple[Call, asyncio.Future[Any], PublishRequest]],
        done: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]],
    ) -> None:
        failure: BaseException | None = None
        answers: Sequence[Sequence[Answer]] = ()
        try:
            answers = self._publish(
                [request.batch for _, _, request in publishing], max(request.timeout for _, _, request in publishing)
            )
        except BaseException as error:
            failure = error
        for number, (call, future, _) in enumerate(publishing):
            results = done.setdefault(future.get_loop(), [])
            try:
                request = call.throw(failure) if failure is not None else call.send(answers[number])
                results.append((future, drive_on(call, request, self._publish), None))
            except StopIteration as stop:
                results.append((future, stop.value, None))
            except BaseException as error:
                results.append((future, None, error))

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._calls.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=10.0)


def _resolve(results: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    for future, value, error in results:
        if future.done():
            continue  # its caller was cancelled meanwhile
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)
