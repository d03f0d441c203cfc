"""What a message gets that is made of its call's arguments: guards, a delay, a partition."""

from __future__ import annotations

from penstock.keys import Given, KeyLike
from penstock.limit import TaskLimit
from penstock.message import Message
from penstock.queue import check_name
from penstock.unique import Unique


def keyed(
    message: Message,
    given: Given,
    unique: Unique | None,
    limit: TaskLimit | None,
    partition: KeyLike | None,
    cost: float | None,
) -> None:
    """Give it to the message. What the call says itself is stronger. Raises `ConfigError`."""
    if unique is not None:
        message.guards = (unique.guard(given),)
        if unique.delay is not None and message.eta is None:
            message.eta = message.sent + unique.delay
    if limit is not None and (guard := limit.guard(given, cost)) is not None:
        message.guards = (*message.guards, guard)
    if partition is not None and not message.partition:
        message.partition = given.key("partition", partition) or ""
        check_name("partition", message.partition, empty=True)
