"""Group commit for awaiting callers: one thread, one transaction and one sync for all publishes that are waiting.

One that is alone has nobody to share with, and the change of threads and back takes as long as all that is done for it.
So it is done on its caller's loop, as long as the last ones took less than a millisecond.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from penstock.broker import Answer
from penstock.engines.sqlite.request import Call, Publish, PublishRequest, drive_on
from penstock.errors import BrokerUnavailable

ENOUGH = 256
"""Calls from which on those served together are not made to wait for more."""

FEW, FAST = 16, 0.001
"""Messages of a publish that may be done on a loop, and the seconds that the last ones took at most."""
AT_ONCE = 0.0
"""Seconds for which a loop waits for the write lock."""

Waiting = tuple[Call, asyncio.Future[Any]]
Begun = tuple[Call, asyncio.Future[Any], PublishRequest]
Done = dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any, BaseException | None]]]
Published = Sequence[Sequence[Answer]] | BaseException


class Group:
    """Serves awaiting callers of all loops on one thread, started at the first call."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._calls: queue.SimpleQueue[Sequence[Waiting | Begun] | None] = queue.SimpleQueue()
        self._gathering: dict[asyncio.AbstractEventLoop, list[Waiting]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._handed = 0
        """Calls that the thread has not ended."""
        self._took = FAST
        """Seconds of a lone publish, about."""
        self._lone = True
        """The last turn of a loop that published had one call."""

    def submit(self, call: Call) -> asyncio.Future[Any]:
        """Have `call` run. What one turn of a loop submits is handed over at once: waking the thread is what costs."""
        return self._submit(call, self._hand_over)

    def submit_publish(self, call: Call) -> asyncio.Future[Any]:
        """The same for a call of which nothing takes long but a publish."""
        return self._submit(call, self._publish_or_hand_over)

    def _submit(self, call: Call, then: Callable[[asyncio.AbstractEventLoop], None]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        gathered = self._gathering.get(loop)
        if gathered is None:
            self._gathering[loop] = [(call, future)]
            loop.call_soon(then, loop)
            if self._thread is None:
                self._start()
        else:
            gathered.append((call, future))
        return future

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        self._give(self._gathering.pop(loop))

    def _give(self, calls: Sequence[Waiting | Begun]) -> None:
        with self._lock:  # nothing is put behind the end
            if not self._closed:
                self._handed += len(calls)
                self._calls.put(calls)
                return
        for call, future, *_ in calls:
            call.close()
            if not future.done():
                future.set_exception(BrokerUnavailable("the engine was closed meanwhile; nothing was done"))

    def _publish_or_hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        calls = self._gathering.pop(loop)
        # Of many callers one is always the first to ask again: alone, it would have a sync of its own.
        before, self._lone = self._lone, len(calls) == 1
        alone = self._lone and before and not self._handed and not self._closed
        if alone and self._took < FAST:
            self._publish_here(calls)
        else:
            self._give(calls)

    def _publish_here(self, calls: list[Waiting]) -> None:
        done: Done = {}
        begun = self._begin(calls, done)
        if begun:
            published = self._try(begun, AT_ONCE) if len(begun[0][2].batch) <= FEW else None
            if published is None or isinstance(published, BrokerUnavailable):
                self._give(begun)  # nothing was done, and the thread can wait
                return
            self._go_on(begun, published, done)
        for results in done.values():
            _resolve(results)

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

    def _next_calls(self) -> list[Waiting | Begun]:
        """All that wait now, at least one; none when closed."""
        calls: list[Waiting | Begun] = []
        while True:
            gathered = self._calls.get()
            if gathered is None:
                self._calls.put(None)  # for the next round, which ends the thread
                return calls
            calls += gathered
            if len(calls) >= ENOUGH or self._calls.empty():
                return calls

    def _serve(self, calls: Sequence[Waiting | Begun]) -> None:
        """Start every call; those that want to publish do so together."""
        done: Done = {}
        begun = self._begin(calls, done)
        if begun:
            self._go_on(begun, self._try(begun, max(request.timeout for _, _, request in begun)), done)
        with self._lock:
            self._handed -= len(calls)
        for loop, results in done.items():
            with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, results)

    def _begin(self, calls: Sequence[Waiting | Begun], done: Done) -> list[Begun]:
        """Those that want to publish; the others are `done`."""
        begun: list[Begun] = []
        for call, future, *asked in calls:
            if future.cancelled():
                call.close()
                continue
            try:
                begun.append((call, future, asked[0] if asked else call.send(None)))
            except StopIteration as stop:
                done.setdefault(future.get_loop(), []).append((future, stop.value, None))
            except BaseException as error:
                done.setdefault(future.get_loop(), []).append((future, None, error))
        return begun

    def _try(self, begun: Sequence[Begun], timeout: float) -> Published:
        began = time.perf_counter()
        try:
            return self._publish([request.batch for _, _, request in begun], timeout)
        except BaseException as error:
            return error
        finally:
            if len(begun) == 1 and len(begun[0][2].batch) <= FEW:
                self._took += (time.perf_counter() - began - self._took) / 8

    def _go_on(self, begun: Sequence[Begun], published: Published, done: Done) -> None:
        for number, (call, future, _) in enumerate(begun):
            results = done.setdefault(future.get_loop(), [])
            try:
                request = (
                    call.throw(published) if isinstance(published, BaseException) else call.send(published[number])
                )
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
