"""What a check is given: an engine, workers, a way to let time pass, and calls that block or are awaited."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from penstock.broker import Accepted, Answer, Key
from penstock.clock import ManualClock
from penstock.dispatch import Dispatch
from penstock.engine import Engine
from penstock.errors import ConfigError
from penstock.message import VERSION, Message
from penstock.outcome import Report, State
from penstock.queue import MAX_BYTES, MAX_LENGTH, Queue
from penstock.testing.conformance.expect import HANG, Violation, instance, within
from penstock.testing.conformance.worker import Worker

T = TypeVar("T")

PUBLISH_TIMEOUT = 10.0


class Kit:
    """One check's access to one engine. Subclass it where a server needs other means (see the methods' docstrings).

    `blocking`: calls go through `engine.run` on this thread, with no event loop anywhere; else through `engine.arun`.
    `clock`: the engine's own `ManualClock`; without one, real time passes. `unit`: the seconds that count as a while:
    short leases and delays are made of it. `patience`: how long a step waits for messages that must come (0 where a
    published message is there at once). `results`: the engine that stores results, where that is another one.
    `notes_starts`: a task with `acks_late=False` has a note; else it is acknowledged before it starts.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        blocking: bool = False,
        clock: ManualClock | None = None,
        unit: float = 10.0,
        patience: float = 0.0,
        results: Engine | None = None,
    ) -> None:
        self.engine, self.results = engine, results or engine
        self.blocking, self.clock, self.unit, self.patience = blocking, clock, unit, patience
        self.features = engine.broker.features
        self.fused = self.features.atomic_settle and self.results is engine
        self.notes_starts = self.features.notes_starts
        self.broker = Dispatch(engine.broker)
        self.backend = self.results.backend
        self.coordinator = engine.coordinator
        self.inspect = engine.inspect
        self.public_id = self.broker.public_id
        self._opened: list[Engine] = []
        self._workers = 0

    # What a subclass may replace.

    def open_second(self) -> Engine | None:
        """Another handle on the same server, as another process would have it; `None` where there can be none."""
        return None

    async def pass_time(self, seconds: float) -> None:
        """Let `seconds` go by for the engine."""
        if self.clock is not None:
            self.clock.advance(seconds)
        elif self.blocking:
            time.sleep(seconds)  # noqa: ASYNC251  (in this mode there is no loop)
        else:
            await asyncio.sleep(seconds)

    async def expire(self, worker: Worker) -> None:
        """Make the leases that `worker` took for `unit` seconds run out. An engine whose leases hang on a connection
        breaks the worker's connection here."""
        await self.pass_time(self.unit * 1.5)
        await self.call(self.coordinator.reap())

    async def kill(self, worker: Worker) -> None:
        """What the server sees of the end of `worker`'s process, before somebody buries it. Nothing, but for an engine
        whose leases hang on a connection: break it here."""

    async def corrupt(self, key: Key) -> bool:
        """Damage the stored bytes of this waiting message beyond reading; `False` where the kit cannot."""
        return False

    def close(self) -> None:
        """Close what was opened. Called once, after the check."""
        for engine in (*self._opened, self.engine, self.results):
            engine.close()

    # What checks use.

    async def call(self, call: Coroutine[Any, Any, T], engine: Engine | None = None) -> T:
        """What the coroutine of `engine` (or of the first one) returns."""
        engine = engine or self.engine
        return engine.run(call) if self.blocking else await engine.arun(call)

    async def backend_call(self, call: Coroutine[Any, Any, T]) -> T:
        return await self.call(call, self.results)

    def start(self, call: Coroutine[Any, Any, T], engine: Engine | None = None) -> Running[T]:
        """Begin a call that waits; the check goes on meanwhile."""
        return Running(call, engine or self.engine, self.blocking)

    async def threaded(self, wait: Callable[[], T]) -> T:
        """What `wait` returns, which blocks."""
        return wait() if self.blocking else await asyncio.to_thread(wait)

    async def repeat(self, act: Callable[[], object], until: Callable[[], bool]) -> None:
        """Call `act` every few milliseconds while what was started goes on; a `Violation` after `HANG` seconds."""
        deadline = time.monotonic() + HANG
        while not until():
            if time.monotonic() > deadline:
                raise Violation(f"{getattr(act, '__name__', act)} had no effect within {HANG} s")
            act()
            await self.threaded(functools.partial(time.sleep, 0.005))

    def second(self) -> Engine:
        """Another handle on the same server, or the same handle where there can be only one. Closed with the kit."""
        engine = self.open_second()
        if engine is None:
            return self.engine
        self._opened.append(engine)
        return engine

    async def worker(self, name: str = "worker", *, joined: bool = True) -> Worker:
        """A worker with its own handle, signed on unless `joined=False`."""
        self._workers += 1
        worker = Worker(self, self.second(), name, slot=self._workers)
        if joined:
            await worker.join()
        return worker

    def now(self) -> float:
        """Unix time, as the engine has it."""
        return self.clock.time() if self.clock is not None else time.time()

    def name(self, prefix: str) -> str:
        """A name that nobody used before, on a server that others may share."""
        return f"{prefix}-{uuid.uuid4().hex[:12]}"

    async def queue(self, max_length: int = MAX_LENGTH, max_bytes: int = MAX_BYTES) -> str:
        """A new queue, declared with these bounds."""
        name = self.name("queue")
        await self.call(self.inspect.declare([Queue(name, max_length, max_bytes)]))
        return name

    def message(self, queue: str, body: bytes = b"[]", **fields: Any) -> Message:
        return Message(version=VERSION, task="conformance.task", body=body, queue=queue, **fields)

    async def publish(self, *messages: Message) -> Sequence[Answer]:
        """The answers to all messages, in as few batches as the engine allows. One batch, then, is whole only where
        `features.whole_batches` says so and it is not larger than `max_batch`."""
        size = self.features.max_batch
        answers: list[Answer] = []
        for start in range(0, max(1, len(messages)), size):
            call = self.broker.publish(messages[start : start + size], PUBLISH_TIMEOUT)
            answers += self.engine.run(call) if self.blocking else await self.engine.apublish(call)
        return answers

    async def accept(self, *messages: Message) -> list[str]:
        """Publish messages that must be accepted; returns their public ids."""
        answers = await self.publish(*messages)
        return [self.public_id(instance(answer, Accepted, "answer to a publish").key) for answer in answers]

    async def fill(self, queue: str, count: int) -> list[str]:
        """Publish `count` messages whose bodies are their numbers; returns their public ids."""
        return await self.accept(*(self.message(queue, b"%d" % number) for number in range(count)))

    async def depth(self, queue: str) -> int | None:
        return await self.call(self.broker.depth(queue))

    async def fetch(self, *keys: Key) -> Sequence[Report]:
        return await self.backend_call(self.backend.fetch(keys))

    async def ended_revoked(self, *keys: Key) -> None:
        """The state of each, which its broker ended with nobody there to store that, must be REVOKED. Where results
        live elsewhere it may be unknown, and must be nothing else."""
        allowed = (State.REVOKED,) if self.results is self.engine else (State.REVOKED, State.UNKNOWN)
        for report in await self.fetch(*keys):
            within(report.state, allowed, "state of a task that was revoked or purged")

    async def refused(self, call: Coroutine[Any, Any, object], what: str, engine: Engine | None = None) -> None:
        """`engine` (or the first one) does not declare `what` in its features, so it must refuse it with a
        `ConfigError`."""
        try:
            await self.call(call, engine)
        except ConfigError:
            return
        name = (engine or self.engine).broker.features.engine
        raise Violation(f"{what} is not among the features of {name}, but was not refused")


class Running(Generic[T]):
    """A call that was begun: in a thread in blocking mode, in a task of the loop otherwise."""

    def __init__(self, call: Coroutine[Any, Any, T], engine: Engine, blocking: bool) -> None:
        self._future: Future[T] = Future()
        self._task: asyncio.Task[T] | None = None
        if blocking:
            threading.Thread(target=self._run, args=(call, engine), daemon=True).start()
        else:
            self._task = asyncio.get_running_loop().create_task(engine.arun(call))

    def _run(self, call: Coroutine[Any, Any, T], engine: Engine) -> None:
        try:
            self._future.set_result(engine.run(call))
        except BaseException as error:
            self._future.set_exception(error)

    def ended(self) -> bool:
        return self._future.done() if self._task is None else self._task.done()

    async def end(self) -> T:
        """What the call returned; a `Violation` when it takes longer than `HANG` seconds."""
        try:
            if self._task is None:
                return self._future.result(HANG)
            return await asyncio.wait_for(self._task, HANG)
        except TimeoutError:
            raise Violation(f"a call did not return within {HANG} s") from None
