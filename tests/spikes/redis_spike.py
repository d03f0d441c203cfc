"""A Redis engine, just large enough to try the contracts on a real server. All decisions are in `redis_spike.lua`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from redis import exceptions as redis_errors
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from penstock import broker as contract
from penstock.backend import Notify
from penstock.broker import DONE, LEASE_LOST, Accepted, Answer, Demand, Duplicate, Full, Held, Key, Lease, Lost, Step
from penstock.coordinator import WorkerInfo
from penstock.delivery import Dead, Delivery, Receipt, RetryAt, Settlement
from penstock.effects import Publish
from penstock.errors import BrokerUnavailable, DecodeError, OutcomeUnknown, StoreFull, Unsupported
from penstock.message import Message, pack, unpack
from penstock.outcome import Outcome, Report, State
from penstock.queue import MAX_BYTES, MAX_LENGTH, Queue
from tests.spikes.loop_thread import LoopThread

LUA = Path(__file__).with_suffix(".lua").read_text()
PREFIX = "{penstock}"
BROKEN = (redis_errors.ConnectionError, redis_errors.TimeoutError)
RETRY_AFTER, KEEP = 1.0, 3600  # seconds; KEEP for a result, and for the memory of an id
DURABILITY = {"always": "power", "everysec": "process", "no": "process"}
to_bytes = msgspec.msgpack.encode
to_outcome = msgspec.msgpack.Decoder(Outcome).decode


def blob(data: bytes) -> msgspec.Raw:
    """Bytes as a MessagePack string, because the decoder inside Redis knows no binary type."""
    return msgspec.Raw(b"\xdb" + len(data).to_bytes(4, "big") + data)


class Server:
    """A connection pool and the script; the one place that knows the driver's errors."""

    def __init__(self, url: str) -> None:
        # No retries by the driver: it cannot know which script may run twice.
        self.redis = Redis.from_url(url, retry=Retry(NoBackoff(), 0), socket_connect_timeout=5)
        self._bounded = self.redis.register_script("#!lua\n" + LUA)
        self._always = self.redis.register_script("#!lua flags=allow-oom\n" + LUA)

    async def call(self, verb: str, **request: Any) -> Any:
        script = self._bounded if verb == "publish" else self._always
        with mapped():
            return await script(keys=[PREFIX], args=[verb, to_bytes(request | {"keep": KEEP})])

    async def durability(self) -> str:
        with mapped():
            config = await self.redis.config_get("appendonly", "appendfsync", "maxmemory-policy")
        if config["maxmemory-policy"] != "noeviction":
            raise Unsupported("Redis would evict tasks when memory is full: set maxmemory-policy to noeviction")
        return DURABILITY[str(config["appendfsync"])] if config["appendonly"] == "yes" else "memory"


@contextlib.contextmanager
def mapped() -> Iterator[None]:
    try:
        yield
    except redis_errors.OutOfMemoryError as error:
        raise StoreFull(str(error)) from error
    except (redis_errors.BusyLoadingError, redis_errors.ReadOnlyError) as error:
        raise BrokerUnavailable(str(error)) from error
    except BROKEN as error:
        # The driver names a refused connection and one that broke after sending alike, but for the cause.
        refused = isinstance(error.__cause__, ConnectionRefusedError)
        raise (BrokerUnavailable if refused else OutcomeUnknown)(str(error)) from error


class Bells:
    """One pub/sub connection for all who wait. It rings also when a subscription is confirmed, be it anew after a lost
    connection, so that nobody misses what happened before: each looks again at every ring."""

    def __init__(self, redis: Redis) -> None:
        self._pubsub = redis.pubsub()
        self._ears: dict[str, set[Callable[[], object]]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def listen(self, channels: Sequence[str], ear: Callable[[], object]) -> None:
        new = [channel for channel in channels if channel not in self._ears]
        for channel in channels:
            self._ears.setdefault(channel, set()).add(ear)
        if new:
            with mapped():
                await self._pubsub.subscribe(*new)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())

    def leave(self, channels: Sequence[str], ear: Callable[[], object]) -> None:
        for channel in channels:
            self._ears.get(channel, set()).discard(ear)

    def ring_all(self) -> None:
        for ear in [ear for ears in self._ears.values() for ear in ears]:
            ear()

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]  # the driver's own gap

    async def _read(self) -> None:
        while True:
            try:
                message = await self._pubsub.get_message(timeout=None)
            except BROKEN:
                await asyncio.sleep(0.2)
                continue
            if message is not None:
                for ear in tuple(self._ears.get(message["channel"].decode(), ())):
                    ear()


class RedisBroker:
    def __init__(self, server: Server, bells: Bells, thread: LoopThread, durability: str) -> None:
        self._server, self._bells, self._thread, self._interrupts = server, bells, thread, 0
        effects, guards = frozenset({"Publish"}), frozenset[str]()
        self.features = contract.Features(
            "redis",
            atomic_settle=True,
            max_batch=1_000,
            effects=effects,
            guards=guards,
            starts=False,
            partition=False,
            revoke_queued=False,
            durability=durability,
        )

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        items = [_item(message) for message in batch]
        ids = [item["id"] for item in items]
        try:
            async with asyncio.timeout(timeout):
                answers, full = await self._server.call("publish", batch=items, limits=[MAX_LENGTH, MAX_BYTES])
        except (OutcomeUnknown, TimeoutError):
            return [contract.Unknown(id) for id in ids]
        kinds: dict[bytes, Callable[[str], Answer]] = {b"accepted": Accepted, b"duplicate": Duplicate}
        if full:
            kinds[b"full"] = lambda id: Full(full[0].decode(), full[1], full[2], full[3].decode(), RETRY_AFTER)
        return [kinds[answer](id) for answer, id in zip(answers, ids, strict=True)]

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        items = [_item(message) for message in batch]
        try:
            async with asyncio.timeout(timeout):
                added = await self._server.call("follow_up", batch=items)
        except (OutcomeUnknown, TimeoutError):
            return [contract.Unknown(item["id"]) for item in items]
        return [Accepted(item["id"]) if new else Duplicate(item["id"]) for item, new in zip(items, added, strict=True)]

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        step, due = await self._step(settle, want)
        if want is None or step.deliveries or not want.wait:
            return step
        channels, rung = [f"{PREFIX}:ring:{queue}" for queue in want.queues], asyncio.Event()
        interrupts, loop = self._interrupts, asyncio.get_running_loop()
        deadline = loop.time() + want.wait
        await self._bells.listen(channels, rung.set)
        try:
            while not step.deliveries and loop.time() < deadline and self._interrupts == interrupts:
                rung.clear()
                found, due = await self._step([], want)
                step.deliveries = found.deliveries
                if not step.deliveries:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(rung.wait(), min(deadline - loop.time(), due))
        finally:
            self._bells.leave(channels, rung.set)
        return step

    async def _step(self, settle: Sequence[Settlement], want: Demand | None) -> tuple[Step, float]:
        items = [_settlement(item) for item in settle]
        settled, token, taken, due = await self._server.call("step", settle=items, want=want)
        answers = [DONE if done else LEASE_LOST for done in settled]
        return Step(answers, [_delivery(token.decode(), *task) for task in taken]), float(due or "inf")

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        held = await self._server.call("extend", receipts=receipts, lease=lease)
        return [Held(time.time() + lease) if yes else Lost() for yes in held]

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        with mapped():
            return int(await self._server.redis.hget(f"{PREFIX}:queue:{queue}", "depth") or 0)

    def public_id(self, key: Key) -> str:
        return str(key)

    def record_start(self, slot: int, receipt: Receipt | None) -> None:
        """Nothing is recorded, so nothing is charged: see FINDINGS."""

    def interrupt(self) -> None:
        self._interrupts += 1
        self._thread.soon(self._bells.ring_all)

    async def join(self, worker: WorkerInfo) -> None:
        """Leases have their own deadlines: nothing to do."""

    async def reap(self) -> int:
        return int(await self._server.call("reap"))

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        with mapped():
            for queue in queues:
                bounds = ["max_length", str(queue.max_length), "max_bytes", str(queue.max_bytes)]
                await self._server.redis.hset(f"{PREFIX}:queue:{queue.name}", items=bounds)


def _item(message: Message) -> dict[str, Any]:
    if message.id is None:
        message = msgspec.structs.replace(message, id=uuid.uuid4().hex)
    fields = {field: getattr(message, field) for field in ("id", "queue", "priority", "eta")}
    return fields | {"data": blob(pack(message))}


def _settlement(item: Settlement) -> dict[str, Any]:
    (token, id), verdict = item.receipt, item.verdict
    settled = {"token": token, "id": id, "verdict": type(verdict).__name__}
    settled["follow_ups"] = [_item(effect.message) for effect in item.effects if isinstance(effect, Publish)]
    if len(settled["follow_ups"]) != len(item.effects):
        raise Unsupported("the Redis spike knows no effect but Publish")
    if item.outcome is not None:
        settled |= {"state": item.outcome.state, "outcome": blob(to_bytes(item.outcome))}
    if isinstance(verdict, RetryAt):
        settled |= {"when": verdict.when, "charge": verdict.charge}
        if verdict.message is not None:
            settled["data"] = blob(pack(msgspec.structs.replace(verdict.message, id=id)))
    elif isinstance(verdict, Dead):
        settled["reason"] = verdict.reason
    return settled


def _delivery(token: str, id: bytes, data: bytes, attempts: bytes) -> Delivery:
    key = id.decode()
    try:
        message = unpack(data)
    except DecodeError as error:
        return Delivery((token, key), key, None, str(error), data, int(attempts))
    message.attempts = int(attempts)
    return Delivery((token, key), key, message, attempts=int(attempts))


class RedisBackend:
    def __init__(self, server: Server, bells: Bells, thread: LoopThread) -> None:
        self._server, self._bells, self._thread = server, bells, thread

    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        items = [{"id": str(key), "state": it.state, "outcome": blob(to_bytes(it))} for key, it in outcomes]
        return [stored == 1 for stored in await self._server.call("store", outcomes=items)]

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        with mapped():
            async with self._server.redis.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.execute_command("HMGET", f"{PREFIX}:task:{key}", "outcome", "queue")
                found = await pipe.execute()
        return [_report(str(key), *fields) for key, fields in zip(keys, found, strict=True)]

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: object = None) -> RedisSubscription:
        subscription = RedisSubscription(self, notify, set(keys))
        for key in keys:
            ear = functools.partial(self._look, subscription, key)
            self._thread.spawn(self._bells.listen([f"{PREFIX}:done:{key}"], ear))
        return subscription

    def mint(self) -> str | None:
        return None

    def _look(self, subscription: RedisSubscription, key: Key) -> None:
        self._thread.spawn(subscription.look(key))


def _report(id: str, outcome: bytes | None, queue: bytes | None) -> Report:
    known = to_outcome(outcome) if outcome else None
    state = known.state if known else State.PENDING if queue else State.UNKNOWN
    return Report(id, state, known, queue=queue.decode() if queue else None)


@dataclass
class RedisSubscription:
    backend: RedisBackend
    notify: Notify
    open: set[Key]

    async def look(self, key: Key) -> None:
        [report] = await self.backend.fetch([key])
        if report.state.terminal and key in self.open:
            self.open.remove(key)
            self.notify([report])

    def close(self) -> None:
        self.open.clear()


class RedisEngine:
    def __init__(self, url: str, thread: LoopThread) -> None:
        self.url, self.run, self.arun = url, thread.run, thread.arun
        self._server = Server(url)
        self._bells = Bells(self._server.redis)
        broker = RedisBroker(self._server, self._bells, thread, thread.run(self._server.durability()))
        self.broker = self.coordinator = self.inspect = broker
        self.backend = RedisBackend(self._server, self._bells, thread)

    def close(self) -> None:
        self.run(self._bells.close())
        self.run(self._server.redis.aclose())
