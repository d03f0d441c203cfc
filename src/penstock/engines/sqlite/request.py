"""The one thing for which the embedded engine's coroutines suspend: publishing, so that many callers' can be joined."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any

from penstock.broker import Answer
from penstock.message import Message

Publish = Callable[[Sequence[Sequence[Message]], float], list[list[Answer]]]
Call = Coroutine[Any, Any, Any]


class PublishRequest:
    """What `SqliteBroker.publish` awaits: the one request that whoever drives the coroutine answers, alone or for
    many."""

    __slots__ = ("batch", "timeout")

    def __init__(self, batch: Sequence[Message], timeout: float) -> None:
        self.batch = batch
        self.timeout = timeout

    def __await__(self) -> Generator[PublishRequest, Sequence[Answer], Sequence[Answer]]:
        return (yield self)


def drive(call: Call, publish: Publish) -> Any:
    """Run a call to its end on this thread."""
    try:
        request = call.send(None)
    except StopIteration as stop:
        return stop.value
    return drive_on(call, request, publish)


def drive_on(call: Call, request: PublishRequest, publish: Publish) -> Any:
    """Answer a call's requests until its end."""
    try:
        while True:
            try:
                answers = publish((request.batch,), request.timeout)[0]
            except BaseException as error:
                request = call.throw(error)
            else:
                request = call.send(answers)
    except StopIteration as stop:
        return stop.value
