"""From messages to answers: where each goes, what the server made of it, and what that means to the caller."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeVar

from penstock.broker import Accepted, Answer, Full, Unknown
from penstock.clock import Clock
from penstock.engines.network.patience import pauses
from penstock.engines.rabbitmq import naming, wire
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.link import Link
from penstock.engines.rabbitmq.news import lane_parcel
from penstock.engines.rabbitmq.progress import Patience
from penstock.engines.rabbitmq.publisher import Fate, Parcel, Publisher, alarmed
from penstock.engines.rabbitmq.rooms import Rooms, landed
from penstock.engines.rabbitmq.settings import HARD_LENGTH, Settings
from penstock.errors import BrokerUnavailable, ConfigError, OutcomeUnknown, PenstockError, StoreFull, UnknownQueue
from penstock.message import NORMAL, Message, pack

T = TypeVar("T")
ATTEMPTS, REASON, DIED = "x-penstock-attempts", "x-penstock-reason", "x-penstock-died"
RETRY_AFTER = 1.0
ANNOUNCING = 5.0
EARLY = 0.001
"""Seconds: what is due sooner goes without delay."""
LONGEST_ID = 255


class Post:
    def __init__(self, settings: Settings, clock: Clock, mint: Callable[[], str]) -> None:
        self._settings = settings
        self._now = clock.time
        self._mint = mint
        self._link: Link[Publisher] = Link(settings, self._prepare)
        self._names: dict[tuple[str, str], str] = {}
        self.rooms = Rooms(settings.queues, settings.bounds)
        self._patience = Patience()
        self._pauses: Iterator[float] | None = None
        """Before what was refused is sent again: they grow until something is accepted."""

    @property
    def link(self) -> Link[Publisher]:
        return self._link

    async def _prepare(self, connection: Connection) -> Publisher:
        publisher = Publisher(self._settings, connection, self._patience)
        await publisher.open()

        async def announce(lane: str) -> None:
            with contextlib.suppress(ConfigError):  # the task is published all the same
                await publisher.send([lane_parcel(lane)], time.monotonic() + ANNOUNCING)

        publisher.topology.announce = announce
        return publisher

    def name(self, queue: str, namespace: str) -> str:
        """The server's name of a queue."""
        found = self._names.get((queue, namespace))
        if found is None:
            found = self._names[queue, namespace] = naming.queue_name(queue, namespace)
        return found

    async def publisher(self, until: float) -> Publisher:
        return await self._link.get(max(0.0, until - time.monotonic()))

    async def publish(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        """New work, within the bounds."""
        return await self._try(lambda publisher, until: self._publish(publisher, batch, until), timeout)

    async def _try(self, act: Callable[[Publisher, float], Awaitable[T]], timeout: float) -> T:
        """What `act` returns; again on a new connection while there is time, where nothing was sent on one that
        broke."""
        until = time.monotonic() + timeout
        while True:
            publisher = await self.publisher(until)
            try:
                return await act(publisher, until)
            except BrokerUnavailable:
                if publisher.connection.error is None or time.monotonic() >= until:
                    raise

    async def _publish(self, publisher: Publisher, batch: Sequence[Message], until: float) -> Sequence[Answer]:
        answers: list[Answer | None] = [None] * len(batch)
        admitted = range(len(batch))
        full, taken = await self.rooms.admit(publisher.topology, batch, self.name)
        if full:
            for number, refusal in full.items():
                answers[number] = refusal
            admitted = [number for number in admitted if number not in full]  # type: ignore[assignment]  # any sequence
        try:
            sent = await self._send(publisher, [batch[number] for number in admitted], until)
        finally:
            landed(taken)
        for number, answer in zip(admitted, sent, strict=True):
            answers[number] = answer
        return answers  # type: ignore[return-value]  # all are there now

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        """What is admitted whatever the bounds."""
        answers = await self._try(lambda publisher, until: self._send(publisher, batch, until), timeout)
        for answer in answers:
            if type(answer) is Full:
                raise StoreFull(f"{self._settings.login.url}: queue {answer.queue!r} is at the server's hard limit")
        return answers

    async def _send(self, publisher: Publisher, batch: Sequence[Message], until: float) -> list[Answer]:
        if not batch:
            return []
        parcels = [await self.parcel(publisher, message) for message in batch]
        fates = await publisher.send(parcels, until)
        if Fate.RETURNED in fates:
            await self._send_again(publisher, batch, parcels, fates, until)
        depths: dict[str, int] = {}
        if Fate.REFUSED in fates:
            depths = await self._send_refused(publisher, parcels, fates, until)
        else:
            self._pauses = None
        why = self._why_unknown(publisher, fates)
        answers: list[Answer] = []
        for message, parcel, fate in zip(batch, parcels, fates, strict=True):
            if fate is Fate.CONFIRMED:
                answers.append(Accepted(parcel.id))
            elif fate is Fate.REFUSED and depths.get(parcel.routing_key, 0) >= HARD_LENGTH:
                answers.append(Full(message.queue, depths[parcel.routing_key], HARD_LENGTH, "tasks", RETRY_AFTER))
            else:
                answers.append(Unknown(parcel.id, why))
        return answers

    async def _send_refused(
        self, publisher: Publisher, parcels: Sequence[Parcel], fates: list[Fate], until: float
    ) -> dict[str, int]:
        """A queue that is electing its leader refuses, too, and may have stored what it refused: it is sent once more.
        A channel that refuses again may never hear of the new leader (3.10), so it is given up, and what it refused is
        unknown. Returns how many messages are in the queues that refuse; what is full is not sent again."""
        refused = [number for number, fate in enumerate(fates) if fate is Fate.REFUSED]
        depths: dict[str, int] = {}
        try:
            for key in {parcels[number].routing_key for number in refused}:
                depths[key] = await publisher.topology.ready_or_none(key) or 0
            refused = [number for number in refused if depths[parcels[number].routing_key] < HARD_LENGTH]
            self._pauses = self._pauses or pauses()
            pause = next(self._pauses)
            if not refused or time.monotonic() + pause >= until:
                return depths
            await asyncio.sleep(pause)
            again = await publisher.send([parcels[number] for number in refused], until)
        except PenstockError:
            return depths  # it stays unknown
        for number, fate in zip(refused, again, strict=True):
            fates[number] = fate
        if Fate.REFUSED in again:
            connection = publisher.connection
            text = f"{connection.address} refuses what its queue has room for"
            connection.abort(BrokerUnavailable(f"{self._settings.login.url}: {text}"))
        return depths

    def _why_unknown(self, publisher: Publisher, fates: Sequence[Fate]) -> str:
        url, alarm = self._settings.login.url, publisher.connection.alarm
        if alarm is not None:
            return alarmed(url, alarm)
        if Fate.REFUSED in fates:
            return (
                f"{url}: RabbitMQ refuses them: the queue has no majority of its nodes, or is at a limit of its own; "
                "see 'rabbitmq-queues quorum_status', or raise the limit"
            )
        return ""

    async def _send_again(
        self, publisher: Publisher, batch: Sequence[Message], parcels: list[Parcel], fates: list[Fate], until: float
    ) -> None:
        """Somebody deleted the queue after we had declared it: once more. Raises `UnknownQueue`."""
        returned = [number for number, fate in enumerate(fates) if fate is Fate.RETURNED]
        for number in returned:
            publisher.topology.forget(naming.lane_name(self.name(batch[number].queue, batch[number].namespace), NORMAL))
            publisher.topology.forget(parcels[number].routing_key)
            parcels[number] = await self.parcel(publisher, batch[number], parcels[number].id)
        try:
            again = await publisher.send([parcels[number] for number in returned], until)
        except BrokerUnavailable:
            return  # the others were sent, so it is too late to say that nothing was done
        for number, fate in zip(returned, again, strict=True):
            fates[number] = fate
            if fate is Fate.RETURNED:
                place = parcels[number]
                raise UnknownQueue(
                    f"{self._settings.login.url}: no queue takes {place.routing_key!r} from exchange "
                    f"{place.exchange!r}: declare the queue, or bind it"
                )

    async def parcel(
        self,
        publisher: Publisher,
        message: Message,
        id: str | None = None,
        attempts: int = 0,
        data: bytes | None = None,
    ) -> Parcel:
        """A message on its way to its lane, or to where it waits. `data` is sent as it is, for what cannot be read."""
        id = id or message.id or self._mint()
        if data is None:
            data = packed(message, id)
        name = self.name(message.queue, message.namespace)
        priority = message.priority
        lane = await publisher.topology.lane(name, priority)
        exchange, key = "", lane
        if priority == NORMAL and self._settings.exchange:
            exchange, key = self._settings.exchange, name
        if message.eta is not None and (left := message.eta - self._now()) > EARLY:
            level, key = naming.delay_path(left, lane)
            exchange = await publisher.topology.delay(level, lane)
        headers = {ATTEMPTS: attempts} if attempts else None
        return Parcel(exchange, key, id, properties(id, message.task, message.content_type, headers), data)

    async def must_send(self, publisher: Publisher, parcels: Sequence[Parcel], timeout: float) -> None:
        """Returns when all are confirmed; raises otherwise."""
        if not parcels:
            return
        until = time.monotonic() + timeout
        fates = await publisher.send(parcels, until)
        if Fate.REFUSED in fates:
            await self._send_refused(publisher, parcels, fates, until)
        if Fate.UNKNOWN in fates:
            raise OutcomeUnknown(f"{self._settings.login.url}: {fates.count(Fate.UNKNOWN)} messages are not confirmed")
        if Fate.RETURNED in fates:
            for parcel in parcels:
                publisher.topology.forget(parcel.routing_key)
            raise BrokerUnavailable(f"{self._settings.login.url}: a queue was deleted meanwhile")
        if Fate.REFUSED in fates:
            raise StoreFull(f"{self._settings.login.url}: a queue is at the server's hard limit, or has no majority")


def packed(message: Message, id: str) -> bytes:
    """The message with this id, and without the sender's opinion of attempts. The message itself stays as it was."""
    before, attempts = message.id, message.attempts
    message.id, message.attempts = id, 0
    try:
        return pack(message)
    finally:
        message.id, message.attempts = before, attempts


def properties(id: str, task: str, content_type: str, headers: dict[str, Any] | None) -> bytes:
    """Raises `ConfigError` for an id that AMQP has no room for."""
    try:
        return wire.properties(id, task.encode()[:LONGEST_ID].decode(errors="ignore"), content_type, headers)
    except ValueError as error:
        raise ConfigError(f"task {task!r}: its id {id[:40]!r}… is over {LONGEST_ID} bytes") from error
