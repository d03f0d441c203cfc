"""What this process holds of each lease, and the shortest form of its end. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from penstock.broker import DONE, LEASE_LOST, Done, LeaseLost
from penstock.delivery import ACK, Delivery, RetryAt, Settlement
from penstock.effects import Join, Publish, Put
from penstock.errors import DecodeError
from penstock.message import unpack
from penstock.outcome_runs import pack_plain
from penstock.protocol.replies import ClaimReply, Stepped
from penstock.protocol.requests import Ended, FinishedLease

MAX_TOKENS = 100_000
"""Leases that are remembered; of others each task is settled for itself."""
OVERHEAD = 512
"""Bytes of the end of a task besides what it carries, at most usually."""


class Ends(Struct):
    """Settlements as they go to the broker. `places`: for each settlement, its number among the finished leases, or
    below -1 among the ended tasks."""

    finished: list[FinishedLease]
    ended: list[Ended]
    places: list[int]


def size_of(ends: Ends) -> int:
    """Bytes that these take in a frame, about."""
    size = sum(len(one.run) for one in ends.finished)
    for one in ends.ended:
        size += OVERHEAD if one.outcome is None else OVERHEAD + len(one.outcome.value)
        message = one.verdict.message if type(one.verdict) is RetryAt else None
        size += 0 if message is None else len(message.body)
        for effect in one.effects:
            match effect:
                case Publish(message=follows):
                    size += OVERHEAD + len(follows.body)
                case Join(value=value, then=follows):
                    size += OVERHEAD + len(value) + len(follows.body)
                case Put(value=value):
                    size += OVERHEAD + len(value or b"")
    return size


class Holding:
    """By token: the rows that are not settled, with the names of their tasks. Threads settle different leases."""

    def __init__(self) -> None:
        self._leases: dict[int, dict[int, str]] = {}

    def take(self, claims: Sequence[ClaimReply]) -> list[Delivery]:
        """The deliveries of new leases."""
        deliveries: list[Delivery] = []
        append = deliveries.append
        for claim in claims:
            token = claim.token
            first = len(deliveries)
            tasks: dict[int, str] = {}
            for row, attempts, body in claim.rows:
                try:
                    message = unpack(body)
                except DecodeError as error:
                    append(Delivery((token, row), row, None, str(error), body, attempts))
                    tasks[row] = ""
                    continue
                if attempts:
                    message.attempts = attempts
                append(Delivery((token, row), message.id or row, message))
                tasks[row] = message.task
            if claim.let_go is not None:
                for delivery in deliveries[first:]:
                    delivery.let_go = claim.let_go
            self._leases[token] = tasks
        while len(self._leases) > MAX_TOKENS:
            self._leases.pop(next(iter(self._leases)), None)
        return deliveries

    def ends(self, settle: Sequence[Settlement]) -> Ends:
        """How these settlements are told in the fewest words."""
        ends = Ends([], [], [])
        start = 0
        for end in range(1, len(settle) + 1):
            token = settle[start].receipt[0]
            if end < len(settle) and settle[end].receipt[0] == token:
                continue
            group = settle[start:end]
            run = self._whole(token, group)
            if run is not None:
                ends.places += [len(ends.finished)] * len(group)
                ends.finished.append(FinishedLease(token, run))
            else:
                names = self._leases.get(token, {})
                for item in group:
                    ends.places.append(-1 - len(ends.ended))
                    row = item.receipt[1]
                    name = names.get(row, "")
                    ends.ended.append(Ended(token, row, item.verdict, item.outcome, item.effects, name))
            start = end
        return ends

    def _whole(self, token: int, group: Sequence[Settlement]) -> bytes | None:
        """The packed outcomes, when that is all of a lease, ended well, in order; else `None`."""
        tasks = self._leases.get(token)
        if tasks is None or len(tasks) != len(group):
            return None
        rows = [
            item.receipt[1] for item in group if item.verdict is ACK and item.outcome is not None and not item.effects
        ]
        if rows != list(tasks) or rows[-1] - rows[0] + 1 != len(rows):
            return None
        outcomes = [item.outcome for item in group if item.outcome is not None]
        return pack_plain(outcomes, [(name, 0) for name in tasks.values()])

    def settled(self, ends: Ends, reply: Stepped) -> list[Done | LeaseLost]:
        """The answers, in order; what has ended is held no more."""
        answers: list[Done | LeaseLost] = []
        for place in ends.places:
            done = reply.finished[place] if place >= 0 else reply.ended[-1 - place]
            answers.append(DONE if done else LEASE_LOST)
        for one in ends.finished:
            self._leases.pop(one.token, None)
        for ended in ends.ended:
            tasks = self._leases.get(ended.token)
            if tasks is not None:
                tasks.pop(ended.row, None)
                if not tasks:
                    self._leases.pop(ended.token, None)
        return answers

    def forget(self) -> None:
        self._leases.clear()
