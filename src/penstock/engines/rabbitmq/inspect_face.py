"""The engine as `Inspectable`: what AMQP lets people see of queues, and do to them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pika import spec

from penstock.broker import DeadLetter, Member, Peeked
from penstock.engines.rabbitmq import naming
from penstock.engines.rabbitmq.channel import Channel
from penstock.engines.rabbitmq.core import CONNECTING
from penstock.engines.rabbitmq.posting import DIED, REASON
from penstock.engines.rabbitmq.publisher import Publisher
from penstock.engines.rabbitmq.reading import Opened, opened
from penstock.engines.rabbitmq.wire import Content
from penstock.errors import Unsupported
from penstock.message import NORMAL, VERSION, Message
from penstock.queue import Queue, QueueInfo
from penstock.retry import afresh

if TYPE_CHECKING:
    from penstock.engines.rabbitmq.engine import RabbitEngine

RETURNING = 40
"""Times that a queue is asked whether it has back what was taken out to be looked at."""
LISTED, LONGEST_LISTED = 5.0, 60.0
"""Seconds for which a list of queues knows no new lanes, doubled with each look that finds none."""
MOST = 10_000
"""Dead letters that are looked through for those that are wanted."""
NO_PAUSE = (
    "the rabbitmq engine cannot pause a queue: its server hands out to whoever consumes. Stop the workers of this "
    "queue instead: penstock worker -Q names those that a worker serves"
)


class RabbitInspect:
    """Looking takes messages out for a moment, and puts them back: they come redelivered then."""

    def __init__(self, engine: RabbitEngine) -> None:
        self._engine = engine
        self._seen: dict[str, tuple[float, float, list[str]]] = {}
        """Of a queue: how long and until when (monotonic) it is taken for what was found."""

    async def declare(self, queues: Sequence[Queue], namespace: str = "") -> None:
        """Bounds are kept by the publishers that know them: RabbitMQ would not let them change."""
        core, publisher = self._engine.core, await self._publisher()
        for queue in queues:
            await publisher.topology.lane(core.post.name(queue.name, namespace), NORMAL)
            core.post.rooms.declare(queue, namespace)

    async def queues(self, namespace: str | None = "") -> Sequence[QueueInfo]:
        """Those that this process declared or used: AMQP lists none."""
        core, publisher = self._engine.core, await self._publisher()
        found = []
        for queue, place in core.post.rooms.known(namespace):
            name = core.post.name(queue, place)
            ready = dead = 0
            for lane in await self._present(publisher, name):
                waiting = await publisher.topology.ready_or_none(lane) or 0
                if lane == naming.dead_name(name):
                    dead = waiting
                else:
                    ready += waiting
            found.append(await self._info(queue, place, ready, dead))
        return found

    async def _present(self, publisher: Publisher, name: str) -> list[str]:
        """The lanes and the dead letters that are there. Each question after one that is not there is an error in the
        server's log, so that those who look every second do not ask each time."""
        pause, until, before = self._seen.get(name, (LISTED, 0.0, []))
        present = before
        if time.monotonic() > until:
            present = await self._lanes(publisher, name)
            if await publisher.topology.ready_or_none(naming.dead_name(name)) is not None:
                present.append(naming.dead_name(name))
            pause = min(2 * pause, LONGEST_LISTED) if present == before else LISTED
            self._seen[name] = (pause, time.monotonic() + pause, present)
        return present

    async def _info(self, queue: str, namespace: str, ready: int, dead: int) -> QueueInfo:
        rooms = self._engine.core.post.rooms
        return QueueInfo(
            name=queue,
            namespace=namespace,
            max_length=await rooms.limit(queue, namespace),
            max_bytes=rooms.room(queue, namespace).declared.max_bytes,
            depth=None,
            bytes=None,
            ready=ready,
            leased=None,
            delayed=None,
            dead=dead,
            oldest_age=None,
            enqueued=None,
            settled=None,
        )

    async def peek(self, queue: str, limit: int = 20, namespace: str = "") -> Sequence[Peeked]:
        """What is ready. What is delayed lies in wait queues that all queues share, and is not seen."""
        publisher = await self._publisher()
        name = self._engine.core.post.name(queue, namespace)
        found: list[Peeked] = []
        for lane in await self._lanes(publisher, name):
            channel, before = await publisher.connection.channel(), len(found)
            try:
                while len(found) < limit and (content := await _get(channel, lane)) is not None:
                    one = opened(content)
                    found.append(Peeked(one.id, "ready", one.message))
            finally:
                await channel.close()
            await _returned(publisher, lane, len(found) - before)
        return found

    async def purge(self, queue: str, namespace: str = "") -> int:
        """Drop what is ready. What is delayed comes when it is due."""
        publisher = await self._publisher()
        count = 0
        for lane in await self._lanes(publisher, self._engine.core.post.name(queue, namespace)):
            if await publisher.topology.ready_or_none(lane) is not None:
                count += await publisher.topology.purge(lane)
        return count

    async def pause(self, queue: str, namespace: str = "") -> bool:
        raise Unsupported(NO_PAUSE)

    async def resume(self, queue: str, namespace: str = "") -> bool:
        raise Unsupported(NO_PAUSE)

    async def dead_letters(
        self, queue: str | None = None, limit: int = 100, namespace: str = ""
    ) -> Sequence[DeadLetter]:
        """`None`: of all queues that this process declared or used."""
        core, publisher = self._engine.core, await self._publisher()
        names = [queue] if queue is not None else [one for one, _ in core.post.rooms.known(namespace)]
        found: list[DeadLetter] = []
        for one in names:
            dead = naming.dead_name(core.post.name(one, namespace))
            if await publisher.topology.ready_or_none(dead) is None:
                continue
            channel, before = await publisher.connection.channel(), len(found)
            try:
                while len(found) < limit and (content := await _get(channel, dead)) is not None:
                    found.append(_letter(one, opened(content)))
            finally:
                await channel.close()
            await _returned(publisher, dead, len(found) - before)
        return found

    async def retry_dead(self, ids: Sequence[str]) -> int:
        self._engine.core.replies.forget(ids)  # of those that were asked here, how they ended
        return await self._pick(set(ids), again=True)

    async def drop_dead(self, ids: Sequence[str]) -> int:
        return await self._pick(set(ids), again=False)

    async def members(self) -> Sequence[Member]:
        """The node that this process is connected to: AMQP tells of no others, nor which of them leads a queue."""
        connection = self._engine.core.post.link.connection
        address = connection.address if connection is not None else self._engine.url
        note = "AMQP does not tell the members of a queue: see rabbitmq-queues quorum_status"
        return [Member(address, "node", alive=connection is not None, note=note)]

    async def _pick(self, ids: set[str], again: bool) -> int:
        """Take these out of the dead letters, and put them back into their queues first where `again`."""
        core, publisher = self._engine.core, await self._publisher()
        count = 0
        for queue, namespace in core.post.rooms.known(None):
            name = core.post.name(queue, namespace)
            dead = naming.dead_name(name)
            ready = await publisher.topology.ready_or_none(dead)
            channel = await publisher.connection.channel() if ready else None
            if channel is None:
                continue
            kept = 0
            try:
                for _ in range(min(ready or 0, MOST)):
                    content = await _get(channel, dead)
                    if content is None or not ids:
                        break
                    found = opened(content)
                    kept += 1
                    if found.id in ids:
                        if again:
                            await self._bring_back(publisher, queue, namespace, found)
                        channel.ack(content.tag, multiple=False)
                        ids.discard(found.id)
                        count += 1
                        kept -= 1
            finally:
                await channel.close()
            await _returned(publisher, dead, kept)
        return count

    async def _bring_back(self, publisher: Publisher, queue: str, namespace: str, found: Opened) -> None:
        post = self._engine.core.post
        if found.message is None:
            bare = Message(VERSION, "?", b"", found.id, queue, NORMAL, namespace)
            parcel = await post.parcel(publisher, bare, found.id, data=found.body)
        else:
            message = found.message
            message = afresh(message)
            message.queue, message.namespace = queue, namespace
            parcel = await post.parcel(publisher, message, found.id)
        await post.must_send(publisher, [parcel], CONNECTING)

    async def _lanes(self, publisher: Publisher, name: str) -> list[str]:
        if await publisher.topology.ready_or_none(name) is None:
            return []  # asking must not declare it
        return [naming.lane_name(name, priority) for priority in await publisher.topology.lanes(name)]

    async def _publisher(self) -> Publisher:
        return await self._engine.core.post.publisher(time.monotonic() + CONNECTING)


async def _get(channel: Channel, queue: str) -> Content | None:
    """The next message, held by `channel` until that is closed."""
    answer = await channel.call(spec.Basic.Get(0, queue), Content, spec.Basic.GetEmpty)
    return answer if isinstance(answer, Content) else None


async def _returned(publisher: Publisher, queue: str, count: int) -> None:
    """Wait a little until what was looked at is back in its place: a channel is closed before that."""
    for _ in range(RETURNING):
        if (await publisher.topology.ready_or_none(queue) or 0) >= count:
            return
        await asyncio.sleep(0.005)


def _letter(queue: str, found: Opened) -> DeadLetter:
    died = found.headers.get(DIED)
    return DeadLetter(
        id=found.id,
        queue=queue,
        reason=str(found.headers.get(REASON, "")),
        died=died / 1000 if isinstance(died, int) else 0.0,
        message=found.message,
        raw=found.body if found.message is None else b"",
    )
