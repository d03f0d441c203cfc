"""One child process with an event loop (uvloop where it is installed) and `-c N` slots for coroutine tasks.

A slot is one long-lived asyncio task that runs job after job: a task per job would cost more than a short job does.
When a job leaves something in its context, the slot goes on in a fresh one, so that nothing leaks into the next job.
Cancelling a job cancels its slot's task, which records the end and goes on. Plain functions run in a thread pool; a
thread cannot be ended from outside, so time limits of plain functions are refused.

The engine is called by a thread of its own, the puller: it commits what is finished and reserves for free slots, in one
step, while the loop goes on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import Any

from penstock.delivery import Delivery
from penstock.pool import Crew, Slot, Traits

TURN = 0.005
"""Seconds after which a slot lets the loop look at its other work, when its jobs never wait for anything."""
AHEAD = 512
"""Jobs that may wait in this process beyond the free slots, while they take next to no time."""
SHORT = 0.001
"""Seconds of one job on average below which it pays to reserve ahead."""
STRIDE = 16
"""Of so many short jobs of a slot, the time of one is noted."""
THREADS = 32
"""Most threads for plain functions."""
PULLER_PAUSE = 1.0
"""Seconds after which the puller looks again by itself."""

log = logging.getLogger("penstock.worker")


class EventLoop:
    traits = Traits("asyncio", supervised=True, processes=False, hard_limit=False, soft_limit=False, shared_batch=True)

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event
        self._idle: list[asyncio.Future[None]] = []
        self._waking = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._context = copy_context()
        self._threads: ThreadPoolExecutor | None = None
        self._average = 0.0
        self._news = threading.Event()
        self._resting = False
        """The puller waits, and wants to be woken by the next job that ends."""

    def run(self) -> None:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            # Not `runner.run`: it would take SIGINT from the worker.
            runner.get_loop().run_until_complete(self._main())
        if self._threads is not None:
            self._threads.shutdown()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        for number in range(self._crew.slots):
            self._start_slot(number)
        puller = threading.Thread(target=self._pull, name="penstock-puller", daemon=True)
        puller.start()
        await self._over.wait()
        # What runs now ends; what has not started is handed back by the crew.
        while self._tasks:
            while self._idle:
                self._idle.pop().set_result(None)
            await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        puller.join()

    # -- the puller's thread

    def _pull(self) -> None:
        crew, waiting, finished = self._crew, self._crew.waiting, self._crew.finished
        idle = False
        try:
            while not crew.stopped():
                room = self._room()
                if room <= 0 and not finished:
                    self._rest()
                    continue
                self._resting = wait = idle and not finished
                # A job that ended before it could know that we wait has left its settlement.
                if wait and finished:
                    wait = False
                found = crew.pull(max(0, room), wait)
                self._resting = False
                idle = not found
                if waiting:
                    self._loop.call_soon_threadsafe(self._arrived)
        finally:
            self._loop.call_soon_threadsafe(self._over.set)

    def _room(self) -> int:
        ahead = AHEAD if self._average < SHORT else 0
        return len(self._idle) + ahead - len(self._crew.waiting)

    def _rest(self) -> None:
        self._news.clear()
        self._resting = True
        if not self._crew.finished and self._room() <= 0:
            self._news.wait(PULLER_PAUSE)
        self._resting = False

    def _ring(self) -> None:
        """There is something to settle, or room, while the puller rests."""
        self._resting = False
        self._news.set()
        self._crew.interrupt()

    # -- the loop's thread

    def _arrived(self) -> None:
        self._crew.busy()
        self._wake()

    def _wake(self) -> None:
        # One at a time: it wakes the next when it finds more, and a job that never waits needs no other slot.
        if self._idle and not self._waking:
            self._waking = True
            self._idle.pop().set_result(None)

    def _start_slot(self, number: int) -> None:
        task = self._tasks[number] = self._loop.create_task(self._serve(number), context=self._context.copy())
        task.add_done_callback(lambda ended: self._slot_ended(number, ended))

    def _slot_ended(self, number: int, ended: asyncio.Task[None]) -> None:
        del self._tasks[number]
        if not ended.cancelled() and ended.exception() is not None:
            log.error("slot %d failed and is started anew", number, exc_info=ended.exception())
        if not self._crew.stopped():
            self._start_slot(number)

    async def _serve(self, number: int) -> None:
        """Run job after job, until stopped or until a job has changed the context."""
        crew, slot, task = self._crew, self._crew.slot(number), self._tasks[number]
        next_delivery, finish, prepare = crew.waiting.popleft, crew.finished.append, crew.prepare
        slot.interrupt = lambda delivery: self._loop.call_soon_threadsafe(self._cancel, task, slot, delivery)
        count, noted, unchanged = 0, 1, True
        turn = now = monotonic()
        while unchanged and not crew.stopped():
            try:
                delivery = next_delivery()
            except IndexError:
                crew.ran(number, count)
                count, noted = 0, noted - count
                await self._wait_for_more()
                turn = now = monotonic()
                continue
            if self._idle and crew.waiting:
                self._wake()
            count += 1
            settlement = prepare(slot, delivery, now)
            early = settlement is None and crew.early(slot)
            if early and not await self._in_thread(partial(crew.claim, slot, delivery)):
                slot.delivery = None
                continue
            if settlement is None:
                before = copy_context()
                try:
                    coroutine, call = crew.start(slot)
                    value = await (call() if coroutine else self._in_thread(call))
                    if slot.sink is not None:
                        await slot.sink.afinish()
                except BaseException as error:
                    if slot.sink is not None:
                        await slot.sink.aabandon()
                    ended = monotonic()
                    settlement = crew.fail(slot, _reason(slot, delivery, error), ended)
                else:
                    ended = monotonic()
                    settlement = crew.succeed(slot, value, ended)
                while task.cancelling():
                    task.uncancel()
                unchanged = copy_context() == before
                if count >= noted:
                    stride = STRIDE if self._average < SHORT else 1
                    noted = count + stride
                    crew.took(slot, ended - now, stride)
                self._average += (ended - now - self._average) * 0.1
                now = ended
            if early:
                await self._in_thread(partial(crew.conclude, slot, settlement))
            else:
                finish(settlement)
            if self._resting:
                self._ring()
            if now - turn > TURN:
                await asyncio.sleep(0)
                turn = now = monotonic()
        crew.ran(number, count)

    async def _wait_for_more(self) -> None:
        more = self._loop.create_future()
        self._idle.append(more)
        if self._resting:
            self._ring()
        await more
        self._waking = False

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(min(THREADS, self._crew.slots), "penstock-function")
        value, error = await self._loop.run_in_executor(self._threads, partial(_caught, call))
        if error is not None:
            raise error
        return value

    def _cancel(self, task: asyncio.Task[None], slot: Slot, delivery: Delivery) -> None:
        # On the loop's thread: the slot is either inside that very job, or in another.
        if slot.delivery is delivery:
            task.cancel()


def _caught(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What `call` returned, or raised: some errors (`StopIteration`) cannot be set on a future, which then never
    ends."""
    try:
        return call(), None
    except BaseException as error:
        return None, error


def _reason(slot: Slot, delivery: Delivery, error: BaseException) -> BaseException:
    """A cancellation by a time limit is reported as that."""
    overdue = slot.overdue
    if isinstance(error, asyncio.CancelledError) and overdue is not None and overdue[0] is delivery:
        return overdue[1]
    return error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
