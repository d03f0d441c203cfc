"""Settling: what must be published first is confirmed before its delivery is acknowledged."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.broker import DONE, LEASE_LOST, Done, LeaseLost
from penstock.clock import Clock
from penstock.delivery import Ack, Dead, Receipt, Release, RetryAt, Settlement
from penstock.engines.rabbitmq import naming
from penstock.engines.rabbitmq.charges import Charges
from penstock.engines.rabbitmq.consumers import Consumers
from penstock.engines.rabbitmq.lane import Lane
from penstock.engines.rabbitmq.posting import ATTEMPTS, DIED, REASON, Post, properties
from penstock.engines.rabbitmq.publisher import Parcel, Publisher
from penstock.engines.rabbitmq.reading import Opened, opened
from penstock.errors import OutcomeUnknown, PenstockError
from penstock.message import VERSION, Message

TIMEOUT = 30.0
"""Seconds for the confirms of retries and dead letters."""


class Settler:
    def __init__(self, post: Post, charges: Charges, clock: Clock) -> None:
        self._post = post
        self._charges = charges
        self._now = clock.time

    async def settle(
        self, consumers: Consumers, settle: Sequence[Settlement], heard: bool
    ) -> Sequence[Done | LeaseLost]:
        """The answers. An ack is done when it is sent; with `heard` when the server has read it. AMQP confirms
        neither that it is stored: what is lost with a connection is delivered again, marked as redelivered.
        Raises `OutcomeUnknown`."""
        answers: list[Done | LeaseLost] = [LEASE_LOST] * len(settle)
        acks: dict[Lane, dict[int, int]] = {}
        releases: list[tuple[Lane, int]] = []
        moves: list[tuple[Lane, int, Settlement]] = []
        claimed: set[tuple[str, int]] = set()
        for number, item in enumerate(settle):
            token, tag = item.receipt[0], item.receipt[1]
            lane = consumers.by_token.get(token)
            if lane is None or tag not in lane.held or (token, tag) in claimed:
                continue
            claimed.add((token, tag))
            answers[number] = DONE
            verdict = item.verdict
            if isinstance(verdict, Release):
                releases.append((lane, tag))
            elif isinstance(verdict, Ack) or tag in lane.moved:
                acks.setdefault(lane, {})[tag] = number
            else:
                moves.append((lane, tag, item))
        try:
            for lane, tags in acks.items():
                lane.acknowledge(tags)
            for lane, tag in releases:
                lane.requeue(tag)
            if moves:
                await self._move(moves)
            if heard:
                for lane in {*acks, *(lane for lane, _ in releases), *(lane for lane, _, _ in moves)}:
                    await lane.settled()
        except PenstockError as error:
            raise OutcomeUnknown(f"{len(claimed)} settlements may not have reached the server: {error}") from error
        return answers

    async def _move(self, moves: Sequence[tuple[Lane, int, Settlement]]) -> None:
        """Retries and dead letters: confirmed first, then acknowledged. What was confirmed is not sent again should the
        step be repeated."""
        # Before anything is awaited: the lanes end with their connection, and what they held is forgotten.
        moves = [one for one in moves if one[1] in one[0].held]
        found = [opened(lane.held[tag], str(item.receipt[-1])) for lane, tag, item in moves]
        publisher = await self._post.link.get(TIMEOUT)
        parcels = [
            await self._parcel(publisher, lane, one, item) for (lane, _, item), one in zip(moves, found, strict=True)
        ]
        await self._post.must_send(publisher, parcels, TIMEOUT)
        for lane, tag, _ in moves:
            if tag in lane.held:
                lane.moved.add(tag)
        charged = [str(item.receipt[-1]) for _, _, item in moves if item.receipt[2]]
        if charged:
            self._charges.clear(charged)
        for lane, tag, _ in moves:
            if tag in lane.held:  # else its lease ended meanwhile, and it comes once more
                lane.acknowledge((tag,))

    async def wait_again(self, lane: Lane, tag: int, receipt: Receipt, eta: float) -> None:
        """Too early: its wait was longer than all wait queues together, or clocks differ."""
        await self._move([(lane, tag, Settlement(receipt, RetryAt(eta)))])

    async def _parcel(self, publisher: Publisher, lane: Lane, found: Opened, item: Settlement) -> Parcel:
        verdict = item.verdict
        if isinstance(verdict, Dead):
            return await self._dead(publisher, lane, found, verdict.reason)
        assert isinstance(verdict, RetryAt)
        # What was charged on this machine travels with the message from now on.
        attempts = int(item.receipt[2]) + verdict.charge
        queue, namespace = naming.split_name(lane.queue)
        eta = verdict.when if verdict.when > self._now() else None
        if verdict.message is None and found.message is None:
            bare = Message(VERSION, "?", b"", found.id, queue, lane.priority, namespace, eta=eta)
            return await self._post.parcel(publisher, bare, found.id, attempts, data=found.body)
        message = verdict.message or found.message
        assert message is not None
        # It goes back to where it came from, whatever it says.
        before = message.eta, message.queue, message.namespace, message.priority
        message.eta, message.queue, message.namespace, message.priority = eta, queue, namespace, lane.priority
        try:
            return await self._post.parcel(publisher, message, found.id, attempts)
        finally:
            message.eta, message.queue, message.namespace, message.priority = before

    async def _dead(self, publisher: Publisher, lane: Lane, found: Opened, reason: str) -> Parcel:
        dead = await publisher.topology.dead(lane.queue)
        headers = {REASON: reason, DIED: int(self._now() * 1000), ATTEMPTS: found.attempts}
        task = found.message.task if found.message is not None else "?"
        return Parcel("", dead, found.id, properties(found.id, task, "msgpack", headers), found.body)
