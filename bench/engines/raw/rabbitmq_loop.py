"""RabbitMQ: a quorum queue and confirmed publishes, by pika's asynchronous connection. As a script: a worker.

A worker publishes the results of a batch in one message to the reply queue of whoever asked, and acknowledges the batch
when the server has confirmed it; more deliveries are under way meanwhile.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.select_connection import SelectConnection
from pika.spec import BasicProperties

from bench.engines.peers.timing import seconds
from bench.engines.raw.work import BATCH, body, encode, new_id, run

QUEUE, REPLIES = "raw", "raw-replies"
WINDOW = 1_000
"""Publishes that may be unconfirmed."""
PREFETCH = 5 * BATCH
LINGER = 0.01
"""Seconds that the worker waits for a batch to fill."""


class Wire:
    """A connection with one channel in confirm mode. `ready` is called when it is open, `confirmed` at each confirm."""

    def __init__(self, ready: Callable[[Wire], object], confirmed: Callable[[], object]) -> None:
        self._ready, self._confirmed = ready, confirmed
        self.sent = 0
        self.unconfirmed: deque[int] = deque()
        self._early: set[int] = set()
        self.channel: Any = None
        parameters = pika.URLParameters(os.environ["BENCH_URL"])
        self.connection: Any = SelectConnection(
            parameters, on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened)
        )

    def _opened(self, channel: Any) -> None:
        self.channel = channel
        channel.queue_declare(REPLIES, arguments={"x-expires": 600_000}, callback=lambda _: None)
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"}, callback=lambda _: None)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._ready(self))

    def _on_confirm(self, frame: Any) -> None:
        tag, waiting, early = frame.method.delivery_tag, self.unconfirmed, self._early
        if frame.method.multiple:
            while waiting and waiting[0] <= tag:
                waiting.popleft()
        else:
            early.add(tag)
        while waiting and waiting[0] in early:
            early.discard(waiting.popleft())
        self._confirmed()

    def publish(self, queue: str, packed: bytes, properties: BasicProperties) -> None:
        self.channel.basic_publish("", queue, packed, properties)
        self.sent += 1
        self.unconfirmed.append(self.sent)

    def run(self) -> None:
        self.connection.ioloop.start()

    def stop(self) -> None:
        self.connection.ioloop.stop()


def _publish(more: Callable[[int], bool], window: int) -> int:
    """Publish while `more(how many so far)`; returns how many when all are confirmed."""

    def top_up(*_: object) -> None:
        while len(wire.unconfirmed) < window and more(wire.sent):
            wire.publish(QUEUE, body(wire.sent), BasicProperties(delivery_mode=2, message_id=new_id().hex()))
        if not wire.unconfirmed:
            wire.stop()

    wire = Wire(top_up, top_up)
    wire.run()
    wire.connection.close()
    return wire.sent


def one_by_one(count: int) -> float:
    return seconds(lambda: _publish(lambda sent: sent < count, 1))


def fill(count: int) -> float:
    return seconds(lambda: _publish(lambda sent: sent < count, WINDOW))


def flood(seconds: float) -> int:
    """How many were published and confirmed in so long."""
    ended = time.monotonic() + seconds
    return _publish(lambda sent: time.monotonic() < ended, WINDOW)


class Worker:
    def __init__(self) -> None:
        self.wire = Wire(self._ready, self._confirmed)
        self.results: list[tuple[str, bytes]] = []
        self.last = 0
        """The delivery that ended last."""
        self.stored: deque[tuple[int, int]] = deque()
        """(publish of a batch, its last delivery), not yet confirmed."""

    def _ready(self, wire: Wire) -> None:
        wire.channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _: None)
        wire.channel.basic_consume(QUEUE, self._delivered)

    def _delivered(self, channel: object, method: Any, properties: Any, packed: bytes) -> None:
        if not self.results:
            self.wire.connection.ioloop.call_later(LINGER, self._settle)
        self.results.append((properties.message_id, run(packed)))
        self.last = method.delivery_tag
        if len(self.results) == BATCH:
            self._settle()

    def _settle(self) -> None:
        if self.results:
            self.wire.publish(REPLIES, encode(self.results), BasicProperties())
            self.results = []
            self.stored.append((self.wire.sent, self.last))

    def _confirmed(self) -> None:
        oldest = self.wire.unconfirmed[0] if self.wire.unconfirmed else self.wire.sent + 1
        while self.stored and self.stored[0][0] < oldest:
            self.wire.channel.basic_ack(self.stored.popleft()[1], multiple=True)


if __name__ == "__main__":
    Worker().wire.run()
