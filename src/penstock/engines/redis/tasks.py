"""The broker of the Redis engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from penstock.broker import (
    DONE,
    LEASE_LOST,
    Accepted,
    Answer,
    Cancelled,
    Conflict,
    Demand,
    Duplicate,
    Features,
    Fenced,
    Full,
    Held,
    Key,
    Lease,
    Lost,
    Step,
    Unknown,
)
from penstock.delivery import Delivery, Receipt, Settlement
from penstock.draining import FEW, Drains
from penstock.effects import KINDS
from penstock.engines.redis.asking import Publishing, Settling, demand_args, message_args
from penstock.engines.redis.names import Lanes, Mint, check_id, queue_key, queue_names, random_name
from penstock.engines.redis.wire import Part
from penstock.errors import BrokerUnavailable, ConfigError, DecodeError, OutcomeUnknown
from penstock.message import Fence, Message, Unique, unpack
from penstock.shedding import SHEDDING

if TYPE_CHECKING:
    from penstock.engines.redis.handle import RedisEngine

MAX_BATCH = 5_000
"""Messages of one publish: some 20 ms of a server that does one thing at a time."""
FALLBACK = 5.0
"""Seconds after which a waiting step looks, though nobody rang."""
REMEMBERED_TOKENS = 10_000
MAX_NOTED = 150
"""Characters of a task's name and id together that a receipt, and so a start note, has room for."""


def features_of(durability: str) -> Features:
    return Features(
        engine="redis",
        atomic_settle=True,
        max_batch=MAX_BATCH,
        effects=KINDS,
        guards=frozenset({"Unique", "Dedup", "Fence", "Limit"}),
        overflow=frozenset({"reject"}) | SHEDDING,
        streams=True,
        durability=durability,
    )


NOTHING: list[Part] = [0, 0]
"""No settlements, for the script."""
MAX_WAITS = 256


class Wait:
    """A worker that waits for some queues, on the server's list under `name`. `look_at`: when it must look at the
    latest, though nobody rang (loop time); 0: it is not on the list."""

    __slots__ = ("look_at", "name", "queues", "rung", "waiting")

    def __init__(self, name: str, queues: list[str]) -> None:
        self.name, self.queues = name, queues
        self.rung = asyncio.Event()
        self.look_at = 0.0
        self.waiting = False


class RedisBroker:
    def __init__(self, engine: RedisEngine) -> None:
        self._engine = engine
        self.features = features_of("power")
        self._lanes = Lanes()
        self.renew_names()
        self._orphans: list[str] = []
        """Steps of which it is not known what they reserved."""
        self._queue_of: OrderedDict[str, str] = OrderedDict()
        """The queues of tokens that this process got."""
        self._interrupts = 0
        self._waits: dict[Hashable, Wait] = {}
        """The last wait of each worker of this process for the same queues."""
        self._waiters: dict[str, Wait] = {}
        self.record_start = engine.starts.note
        self._drains = Drains(time.monotonic)

    def renew_names(self) -> None:
        """At the start, and in a forked child: nothing is ever named twice."""
        self.mint = Mint()
        self._nonce = random_name()
        self._numbers = itertools.count()

    # Publishing.

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        if not batch:
            return []
        asked = Publishing(batch, self._lanes, self.mint)
        try:
            reply = await self._engine.link.once("publish", asked.args, timeout)
        except OutcomeUnknown:
            return [Unknown(task_id) for task_id in asked.ids]
        if not reply:
            answers: list[Answer] = [Accepted(task_id) for task_id in asked.ids]
        else:
            answers = self._answers(batch, asked, reply)
        return await self._replicated(answers)

    def _answers(self, batch: Sequence[Message], asked: Publishing, reply: list[Any]) -> list[Answer]:
        full = self._full(reply[1], batch) if reply[1] else None
        if full is not None and reply[0] == [b"q"]:
            return [full] * len(batch)
        answers: list[Any] = [None] * len(batch)
        order = asked.order or range(len(batch))
        for place, code in zip(order, reply[0], strict=True):
            answers[place] = _answer(code, batch[place], asked.ids[place], full)
        return answers

    def _full(self, found: list[bytes], batch: Sequence[Message]) -> Full:
        key, depth, limit, unit, settled, _ = found
        namespace, queue = queue_names(key)
        wanted = sum(1 for one in batch if one.queue == queue and one.namespace == namespace)
        in_tasks = unit == b"tasks"
        excess = int(depth) + wanted - int(limit) if in_tasks else wanted
        after = self._drains.retry_after(key, int(settled), excess, int(depth) if in_tasks else 2 * FEW)
        return Full(queue, int(depth), int(limit), unit.decode(), after)

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        args: list[Part] = [len(batch)]
        ids = []
        for message in batch:
            task_id = message.id or self.mint()
            check_id(task_id)
            ids.append(task_id)
            args += message_args(message, task_id, self._lanes)
        try:
            reply = await self._engine.link.once("follow_up", args, timeout)
        except OutcomeUnknown:
            return [Unknown(task_id) for task_id in ids]
        answers = [
            _answer(one, message, ids[i], None) for i, (one, message) in enumerate(zip(reply, batch, strict=True))
        ]
        return await self._replicated(answers)

    async def _replicated(self, answers: list[Answer]) -> list[Answer]:
        """Nothing is accepted, or was there, before enough replicas have it."""
        wanted = self._engine.settings.wait
        if not wanted:
            return answers
        try:
            enough = await self._engine.link.wait() >= wanted
        except OutcomeUnknown:
            enough = False
        if enough:
            return answers
        return [Unknown(str(one.key)) if isinstance(one, Accepted | Duplicate) else one for one in answers]

    # Settling and reserving.

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        settling = Settling(settle, self._queue_of, self._lanes)
        if want is None:
            reply = await self._step([*settling.args, 0])
            deliveries: list[Delivery] = []
        elif want.wait > 0:
            reply, deliveries = await self._wait(settling.args, want)
        else:
            reply = await self._step([*settling.args, *demand_args(want, "", False, 0)])
            deliveries = self._deliveries(reply[1])
        settled: list[Any] = [DONE] * len(settle)
        if b"0" in reply[0]:
            for place, mark in zip(settling.order, reply[0], strict=True):
                settled[place] = DONE if mark == 49 else LEASE_LOST
        if settle and self._engine.settings.wait:
            await self._replicate_step(deliveries)
        return Step(settled, deliveries)

    async def _replicate_step(self, deliveries: Sequence[Delivery]) -> None:
        """Raise `OutcomeUnknown` when too few replicas have it; the next step gives back what nobody gets now."""
        try:
            if await self._engine.link.wait() >= self._engine.settings.wait:
                return
        except BaseException:
            self._give_back_later(deliveries)
            raise
        self._give_back_later(deliveries)
        raise OutcomeUnknown(f"{self._engine.url}: it is not known whether enough replicas have this settlement")

    def _give_back_later(self, deliveries: Sequence[Delivery]) -> None:
        nonces = {delivery.receipt[0].rpartition(".")[0]: None for delivery in deliveries}
        self._orphans += nonces

    async def _step(self, args: list[Part]) -> Any:
        """One step, done once. What it reserved is given back with the next one, if its answer never comes."""
        nonce = f"{self._nonce}{next(self._numbers)}"
        orphans, self._orphans = self._orphans, []
        try:
            return await self._engine.link.again("step", [nonce, len(orphans), *orphans, *args])
        except BrokerUnavailable:  # it was not sent
            self._orphans += orphans
            raise
        except BaseException:
            self._orphans += [*orphans, nonce]
            raise

    async def _wait(self, settling: list[Part], want: Demand) -> tuple[Any, list[Delivery]]:
        """Look; then again when somebody rings, when something is due, and now and then."""
        now, number = asyncio.get_running_loop().time, self._interrupts
        end = now() + want.wait
        wait = self._wait_of(want)
        wait.waiting = True
        reply: Any = (b"", [], b"")
        try:
            # Who waits again for the same is still on the server's list: it need not look before somebody rings.
            if len(settling) > 2 or wait.rung.is_set() or now() >= wait.look_at:
                reply = await self._look(settling, want, wait, end)
            while not reply[1] and self._interrupts == number and now() < end:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(end, wait.look_at) - now()):
                        await wait.rung.wait()
                if self._interrupts == number and (wait.rung.is_set() or now() >= wait.look_at):
                    _, *found = await self._look(NOTHING, want, wait, end)
                    reply = (reply[0], *found)
        finally:
            wait.waiting = False
        return reply, self._deliveries(reply[1])

    async def _look(self, settling: list[Part], want: Demand, wait: Wait, end: float) -> Any:
        wait.rung.clear()
        now = asyncio.get_running_loop().time
        was_waiting, wait.look_at = wait.look_at > 0, now() + FALLBACK
        # It stays on the list for as long as it may wait without another look.
        demand = demand_args(want, wait.name, was_waiting, max(0.0, end - now()) + FALLBACK)
        reply = await self._step([*settling, *demand])
        if reply[1]:
            wait.look_at = 0.0  # the server took it off the list, or it never was there
        elif reply[2]:
            wait.look_at = min(wait.look_at, now() + max(0.001, float(reply[2])))
        return reply

    def _wait_of(self, want: Demand) -> Wait:
        """Two steps that wait at once for the same are two waiters."""
        key = (want.worker, want.queues, want.namespace)
        wait = self._waits.get(key)
        if wait is None or wait.waiting:
            queues = [queue_key(want.namespace, queue) for queue in want.queues]
            wait = Wait(f"{self._engine.client} {next(self._numbers)}", queues)
            self._waits[key] = self._waiters[wait.name] = wait
            for forgotten in [one for one in self._waiters.values() if not one.waiting][:-MAX_WAITS]:
                del self._waiters[forgotten.name]
        return wait

    def ring(self, waiter: str) -> None:
        """The server woke this waiter, and has taken it off its list. Who is not waiting lets the server wake another,
        and looks when it waits again."""
        wait = self._waiters.get(waiter)
        if wait is None:
            return
        wait.rung.set()
        if not wait.waiting:
            self._engine.behind("unwait", [waiter, len(wait.queues), *wait.queues])

    def ring_all(self) -> None:
        for wait in list(self._waiters.values()):
            wait.rung.set()

    def interrupt(self) -> None:
        self._interrupts += 1
        if self._waiters and self._engine.is_open():
            self._engine.thread.soon(self.ring_all)

    def forked(self) -> None:
        self._waits.clear()
        self._waiters.clear()
        self._queue_of.clear()
        self._orphans.clear()
        self.renew_names()

    def _deliveries(self, claimed: list[Any]) -> list[Delivery]:
        deliveries: list[Delivery] = []
        for token_bytes, held, values, attempts, *let_go in claimed:
            first = len(deliveries)
            token = token_bytes.decode()
            lane, _, _ = values[0].partition(b" ")
            start = len(lane) + 1
            differ = b";" in lane  # what limited messages cost stands before them, too
            self._remember(token, queue_names(lane)[1])
            for number, value in enumerate(values):
                count = attempts[number] if attempts else 0
                size = len(value)
                if differ:
                    start = value.index(b" ") + 1
                try:
                    message = unpack(value[start:])
                except DecodeError as error:
                    task_id = held[2 * number].decode()
                    receipt: Receipt = (token, size, "", task_id)
                    deliveries.append(Delivery(receipt, task_id, None, str(error), value[start:], count))
                    continue
                task_id = message.id or ""
                message.attempts = count
                task = message.task if len(message.task) + len(task_id) < MAX_NOTED else ""
                deliveries.append(Delivery((token, size, task, task_id), task_id, message, None, b"", count))
            if let_go:
                for delivery in deliveries[first:]:
                    delivery.let_go = float(let_go[0])
        return deliveries

    def _remember(self, token: str, queue: str) -> None:
        self._queue_of[token] = queue
        if len(self._queue_of) > REMEMBERED_TOKENS:
            self._queue_of.popitem(last=False)

    # The rest.

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        if not receipts:
            return []
        args: list[Part] = [lease, len(receipts)]
        for receipt in receipts:
            args += (receipt[0], receipt[-1])
        return [_lease(answer) for answer in await self._engine.link.again("extend", args)]

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        return int(await self._engine.link.again("inspect", ["depth", queue_key(namespace, queue)]))

    def public_id(self, key: Key) -> str:
        return str(key)


def _lease(answer: bytes) -> Lease:
    if not answer:
        return Lost()
    if answer[:1] == b"c":
        return Cancelled(answer == b"c1")
    return Held(float(answer))


def _answer(code: bytes, message: Message, task_id: str, full: Full | None) -> Answer:
    kind, rest = code[:1], code[1:].decode()
    if kind == b"a":
        return Accepted(task_id)
    if kind == b"q" and full is not None:
        return full
    if kind == b"d":
        return Duplicate(rest)
    number, _, holder = rest.partition(" ")
    guard = message.guards[int(number) - 1]
    if isinstance(guard, Fence):
        return Fenced(guard.name)
    if isinstance(guard, Unique):
        return Conflict(guard.key, holder or None)
    raise ConfigError(f"task {message.task!r}: the server gave an answer that is none: {code!r}")
