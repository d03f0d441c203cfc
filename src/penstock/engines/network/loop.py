"""One event loop on one thread: where a network engine's coroutines run, for blocking and for awaiting callers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from penstock.errors import BlockingCallInLoop, BrokerUnavailable

T = TypeVar("T")
Call = Coroutine[Any, Any, Any]
Tell = Callable[[Any, BaseException | None], None]
"""Is given what a call returned, or what it raised; on the loop, once."""
CLOSING = 5.0
"""Seconds that what still runs has to end when the loop is closed."""


class Waiter:
    """A blocking caller: a lock that is released when the answer is there."""

    __slots__ = ("error", "lock", "value")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.value: Any = None
        self.error: BaseException | None = None

    def tell(self, value: Any, error: BaseException | None) -> None:
        self.value, self.error = value, error
        self.lock.release()


class LoopThread:
    """Callers hand in coroutines; what several hand in at once costs one wake-up."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._calls: deque[tuple[Call, Context, Tell]] = deque()
        self._awake = False
        self._closed = False
        self._ended = False
        """Nothing that is handed in is started any more."""
        self._tasks: dict[asyncio.Task[None], tuple[Call, Tell]] = {}
        """What runs; the loop itself holds tasks weakly."""
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        # What came while it was closing: its callers wait.
        self._start_calls()
        self.loop.run_until_complete(self._cancel_others())
        self._ended = True
        self._refuse_calls()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """What `call` returns; blocks this thread. Raises `BlockingCallInLoop` on the loop's own thread."""
        if threading.current_thread() is self._thread:
            call.close()
            raise BlockingCallInLoop("a blocking call from the network thread would wait for itself")
        waiter = Waiter()
        self._hand_in(call, waiter.tell)
        waiter.lock.acquire()
        if waiter.error is not None:
            raise waiter.error
        value: T = waiter.value
        return value

    async def arun(self, call: Coroutine[Any, Any, T]) -> T:
        """What `call` returns, on any loop. A caller that is cancelled leaves, and the call goes on to its end: what
        was sent cannot be unsent, and half an exchange would spoil the connection for others."""
        if threading.current_thread() is self._thread:
            return await call
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def tell(value: T, error: BaseException | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_resolve, future, value, error)

        self._hand_in(call, tell)
        return await future

    def spawn(self, call: Coroutine[Any, Any, object]) -> None:
        """Start `call`, from any thread; its errors are its own business."""
        self._hand_in(call, _forget)

    def soon(self, act: Callable[[], object]) -> None:
        """Call `act` on the loop, from any thread or signal handler."""
        self.loop.call_soon_threadsafe(act)

    def _hand_in(self, call: Call, tell: Tell) -> None:
        if self._closed:
            call.close()
            raise BrokerUnavailable("the engine is closed")
        self._calls.append((call, copy_context(), tell))
        if not self._awake:
            self._awake = True
            with contextlib.suppress(RuntimeError):  # the loop is closed by now: see below
                self.loop.call_soon_threadsafe(self._start_calls)
        if self._ended:  # it ended since we looked; who comes first of the two refuses the call
            self._refuse_calls()

    def _refuse_calls(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                call, _, tell = self._calls.popleft()
                call.close()
                tell(None, _closed_meanwhile())

    def _start_calls(self) -> None:
        self._awake = False  # before looking: who comes later rings again
        while self._calls:
            call, context, tell = self._calls.popleft()
            task = self.loop.create_task(self._carry_out(call, tell), context=context)
            self._tasks[task] = call, tell

    async def _carry_out(self, call: Call, tell: Tell) -> None:
        """Tells at the call's own end: a task's done callbacks come a turn of the loop later."""
        value: Any = None
        error: BaseException | None = None
        try:
            value = await call
        except asyncio.CancelledError:
            error = _closed_meanwhile()
        except BaseException as raised:
            error = raised
        task = asyncio.current_task()
        assert task is not None
        del self._tasks[task]
        try:
            tell(value, error)
            if error is not None and not isinstance(error, Exception):
                raise error
        finally:
            del error  # its traceback leads back here

    def close(self) -> None:
        """End what runs, and the thread. May be called twice."""
        if self._closed:
            return
        self.run(self._cancel_others())
        self._closed = True
        self.soon(self.loop.stop)
        self._thread.join(CLOSING)
        if not self._thread.is_alive():
            self.loop.close()

    async def _cancel_others(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=CLOSING)
        for task in [task for task in self._tasks if task.done()]:  # cancelled before it began
            call, tell = self._tasks.pop(task)
            call.close()
            tell(None, _closed_meanwhile())


def _resolve(future: asyncio.Future[T], value: T, error: BaseException | None) -> None:
    if future.done():
        return  # its caller was cancelled meanwhile
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def _forget(value: object, error: BaseException | None) -> None:
    """Nobody asked."""


def _closed_meanwhile() -> BrokerUnavailable:
    return BrokerUnavailable("the engine was closed meanwhile; it is not known what was done")
