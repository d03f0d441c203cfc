"""A RabbitMQ engine, just large enough to try the contracts on a real server.

A claim is a channel: what it fetched is leased as long as that lives; then the server takes it back.
"""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError
from msgspec.structs import replace
from pamqp.common import FieldValue

from penstock import broker as contract
from penstock.backend import Backend
from penstock.broker import DONE, LEASE_LOST, Accepted, Answer, Demand, Full, Held, Key, Lease, Lost, Step
from penstock.coordinator import WorkerInfo
from penstock.delivery import Dead, Delivery, Receipt, Release, RetryAt, Settlement
from penstock.errors import BrokerUnavailable, DecodeError, OutcomeUnknown, StoreFull, Unsupported
from penstock.message import Message, pack, unpack
from penstock.queue import MAX_BYTES, MAX_LENGTH, Queue
from tests.spikes.loop_thread import LoopThread

TIMEOUT, RETRY_AFTER = 10.0, 1.0
MAX_BATCH = 256  # in flight together
LACKS = ("whole_batches", "knows_ids", "delay", "priority", "starts", "keeps_place", "partition", "revoke_queued")
CHARGED, PERSISTENT = "penstock-attempts", aio_pika.DeliveryMode.PERSISTENT
QUORUM: dict[str, FieldValue] = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-max-length-bytes": MAX_BYTES,
}
BROKEN = (AMQPError, ChannelInvalidStateError, ConnectionError, TimeoutError)


class Claim:
    """A channel and what is leased on it, by delivery tag."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel, self.token = channel, uuid.uuid4().hex
        self.held: dict[int, AbstractIncomingMessage] = {}

    def take(self, incoming: AbstractIncomingMessage) -> Delivery:
        tag = incoming.delivery_tag or 0
        self.held[tag] = incoming
        key = incoming.message_id or ""
        receipt, attempts = (self.token, tag, key), charged(incoming)
        try:
            message = unpack(incoming.body)
        except DecodeError as error:
            return Delivery(receipt, key, None, str(error), incoming.body, attempts)
        message.attempts = attempts
        return Delivery(receipt, key, message, attempts=attempts)


def charged(incoming: AbstractIncomingMessage) -> int:
    return int(str(incoming.headers.get(CHARGED, 0)))


class Link:
    """The connection, made anew when it broke; the one place that knows the driver's errors."""

    def __init__(self, url: str, hard_limit: int) -> None:
        self._url, self.hard_limit = url, hard_limit
        self._connection: AbstractConnection | None = None
        self._publishing: AbstractChannel | None = None
        self._declared: set[str] = set()
        self._connecting = asyncio.Lock()

    async def connection(self) -> AbstractConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed:
                try:
                    self._connection = await aio_pika.connect(self._url, timeout=TIMEOUT)
                except BROKEN as error:
                    raise BrokerUnavailable(str(error)) from error
            return self._connection

    async def publishing(self) -> AbstractChannel:
        connection = await self.connection()
        if self._publishing is None or self._publishing.is_closed:
            self._publishing = await connection.channel(publisher_confirms=True, on_return_raises=True)
        return self._publishing

    async def declare(self, queue: str) -> None:
        if queue not in self._declared:
            arguments = QUORUM | {"x-max-length": self.hard_limit}
            await (await self.publishing()).declare_queue(queue, durable=True, arguments=arguments, timeout=TIMEOUT)
            self._declared.add(queue)

    async def ready(self, queue: str) -> int:
        await self.declare(queue)
        found = await (await self.publishing()).declare_queue(queue, passive=True, timeout=TIMEOUT)
        return found.declaration_result.message_count or 0

    async def send(self, queue: str, message: Message | bytes, key: str, attempts: int, timeout: float) -> None:
        """Returns when the message is confirmed. Raises `DeliveryError` when it is refused."""
        await self.declare(queue)
        channel = await self.publishing()
        data = message if isinstance(message, bytes) else pack(message)
        it = aio_pika.Message(data, message_id=key, headers={CHARGED: attempts}, delivery_mode=PERSISTENT)
        await channel.default_exchange.publish(it, queue, mandatory=True, timeout=timeout)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


@contextmanager
def mapped() -> Iterator[None]:
    try:
        yield
    except DeliveryError as error:
        raise StoreFull("RabbitMQ refused a message that had to be admitted") from error
    except BROKEN as error:
        raise OutcomeUnknown(str(error)) from error


class RabbitBroker:
    def __init__(self, link: Link, thread: LoopThread) -> None:
        self._link, self._thread = link, thread
        self._claims: dict[str, Claim] = {}
        self._waits: set[asyncio.Queue[AbstractIncomingMessage | None]] = set()
        everything = contract.Features("rabbitmq", False, MAX_BATCH, frozenset(), frozenset(), bound="soft")
        self.features = replace(everything, **dict.fromkeys(LACKS, False))
        self._bounds: dict[str, int] = {}

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        """Refused beyond what was declared here, by what the server says is ready: it counts what it confirmed."""
        answers: dict[int, Answer] = {}
        for queue in {message.queue for message in batch}:
            with mapped():
                ready = await self._link.ready(queue)
            limit = self._bounds.get(queue, self._link.hard_limit)
            mine = [number for number, message in enumerate(batch) if message.queue == queue]
            answers |= {n: Full(queue, ready, limit, "tasks", RETRY_AFTER) for n in mine[max(0, limit - ready) :]}
        admitted = [message for number, message in enumerate(batch) if number not in answers]
        sent = iter(await self.follow_up(admitted, timeout))
        return [answers.get(number) or next(sent) for number in range(len(batch))]

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        with mapped():
            for queue in {message.queue for message in batch}:
                await self._link.declare(queue)
        # In flight together; the channel keeps their order.
        return await asyncio.gather(*(self._publish(message, timeout) for message in batch))

    async def _publish(self, message: Message, timeout: float) -> Answer:
        id = message.id or uuid.uuid4().hex
        try:
            await self._link.send(message.queue, replace(message, id=id), id, 0, timeout)
        except DeliveryError:
            # A nack has no reason: it may also mean that the queue has no majority.
            return Full(message.queue, self._link.hard_limit, self._link.hard_limit, "tasks", RETRY_AFTER)
        except BROKEN:
            return contract.Unknown(id)
        return Accepted(id)

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        with mapped():
            settled = [await self._settle(item) for item in settle]
            await self._confirm({item.receipt[0] for item in settle})
            if want is None:
                return Step(settled, [])
            for queue in want.queues:
                await self._link.declare(queue)
            deliveries = await self._fetch(want)
            if not deliveries and want.wait:
                deliveries = await self._wait(want)
            return Step(settled, deliveries)

    async def _settle(self, item: Settlement) -> contract.Done | contract.LeaseLost:
        claim, tag = self._claim(item.receipt), item.receipt[1]
        if claim is None:
            return LEASE_LOST
        incoming, verdict = claim.held[tag], item.verdict
        queue, key = incoming.routing_key or "", incoming.message_id or ""
        if isinstance(verdict, RetryAt):
            if verdict.when > time.time():
                raise Unsupported("the RabbitMQ spike has no delay")
            body = replace(verdict.message, id=key) if verdict.message else incoming.body
            await self._link.send(queue, body, key, charged(incoming) + verdict.charge, TIMEOUT)
        elif isinstance(verdict, Dead):
            await self._link.send(f"{queue}.dead", incoming.body, key, charged(incoming), TIMEOUT)
        # A release counts for the server's delivery limit, not for us; and it comes back behind all others.
        await (incoming.nack(requeue=True) if isinstance(verdict, Release) else incoming.ack())
        del claim.held[tag]
        return DONE

    async def _confirm(self, tokens: set[str]) -> None:
        """AMQP confirms no acks. What a channel answers after them shows at least that it lived to see them."""
        for claim in [self._claims[token] for token in tokens if token in self._claims]:
            if claim.held:
                await claim.channel.set_qos(prefetch_count=1)
            else:
                await self._drop(claim)

    def _claim(self, receipt: Receipt) -> Claim | None:
        claim = self._claims.get(receipt[0])
        if claim is not None and claim.channel.is_closed:
            del self._claims[claim.token]
            return None
        return claim if claim is not None and receipt[1] in claim.held else None

    async def _open(self) -> Claim:
        claim = Claim(await (await self._link.connection()).channel(publisher_confirms=False))
        return self._claims.setdefault(claim.token, claim)

    async def _drop(self, claim: Claim) -> None:
        await self._claims.pop(claim.token).channel.close()

    async def _fetch(self, want: Demand) -> list[Delivery]:
        """What is there now, message by message: only so are limits exact, and is "nothing" an answer."""
        claim, deliveries, size = await self._open(), list[Delivery](), 0
        for name in want.queues:
            queue = await claim.channel.get_queue(name, ensure=False)
            while len(deliveries) < want.limit:
                incoming = await queue.get(fail=False, timeout=TIMEOUT)
                if incoming is None:
                    break
                size += len(incoming.body)
                if deliveries and size > want.max_bytes:
                    await incoming.nack(requeue=True)
                    return deliveries
                deliveries.append(claim.take(incoming))
        if not deliveries:
            await self._drop(claim)
        return deliveries

    async def _wait(self, want: Demand) -> list[Delivery]:
        """By push: a consumer per queue with a prefetch of 1, until a first message comes."""
        claim, arrived = await self._open(), asyncio.Queue[AbstractIncomingMessage | None]()
        self._waits.add(arrived)
        consumers = []
        try:
            await claim.channel.set_qos(prefetch_count=1)
            for name in want.queues:
                queue = await claim.channel.get_queue(name, ensure=False)
                consumers.append((queue, await queue.consume(arrived.put)))
            first = await asyncio.wait_for(arrived.get(), want.wait)
        except TimeoutError:
            first = None
        finally:
            self._waits.discard(arrived)
        if first is None:
            # With the channel goes what was on its way, back into the queue.
            await self._drop(claim)
            return []
        for queue, consumer in consumers:
            await queue.cancel(consumer)
        while not arrived.empty():
            if (other := arrived.get_nowait()) is not None:
                await other.nack(requeue=True)
        return [claim.take(first)]

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        """Held while the channel lives, and at most for the server's `consumer_timeout`, which nobody can extend."""
        return [Held(None) if self._claim(receipt) else Lost() for receipt in receipts]

    async def depth(self, queue: str, namespace: str = "") -> int | None:
        """AMQP tells what is ready, not what is leased."""
        return None

    def public_id(self, key: Key) -> str:
        return str(key)

    def record_start(self, slot: int, receipt: Receipt | None) -> None:
        """Nothing is recorded, so nothing is charged: see FINDINGS."""

    def interrupt(self) -> None:
        for arrived in tuple(self._waits):
            self._thread.soon(functools.partial(arrived.put_nowait, None))

    async def join(self, worker: WorkerInfo) -> None:
        """The connection is the registration."""

    async def reap(self) -> int:
        """The server takes leases back by itself, when a channel closes."""
        return 0

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        """`max_length` binds the publishers of this process: an argument of the server's own could not be changed."""
        for queue in queues:
            if queue.max_bytes != MAX_BYTES:
                raise Unsupported(f"queue {queue.name!r}: the RabbitMQ spike has one bound of bytes for all queues")
            self._bounds[queue.name] = queue.max_length
            with mapped():
                await self._link.declare(queue.name)


class RabbitEngine:
    """Results are kept elsewhere. Beyond `hard_limit` ready messages in a queue the server refuses more."""

    def __init__(self, url: str, thread: LoopThread, hard_limit: int = MAX_LENGTH) -> None:
        self.url, self.run, self.arun = url, thread.run, thread.arun
        self._link = Link(url, hard_limit)
        self.broker = self.coordinator = self.inspect = RabbitBroker(self._link, thread)

    @property
    def backend(self) -> Backend:
        raise Unsupported("RabbitMQ keeps no results: set result_backend")

    def close(self) -> None:
        self.run(self._link.close())
