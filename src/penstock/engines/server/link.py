"""Asking a broker: numbers, marks, and asking again for what was not answered. How it is carried is the way's."""

from __future__ import annotations

import itertools
import secrets
import time
from typing import Any, Protocol

from penstock.blocking import allowed
from penstock.engines.network.patience import Deadline
from penstock.engines.server.faults import Broken
from penstock.errors import BrokerUnavailable, OutcomeUnknown
from penstock.protocol import calls
from penstock.protocol.replies import Each, Published, Span, Stepped
from penstock.protocol.requests import CallRequest, FollowUpRequest, PublishRequest, StepRequest

PATIENCE = 30.0
"""Seconds that a call which may be repeated goes on trying."""
WINDOW = 48
"""Requests at once whose answers the broker shall remember: it keeps 64."""
HEAD_START = 0.5
"""Seconds before the end of a publish's time at which the broker is to say that its queue is full still."""


Batch = Span | Each
"""The answers to one batch."""


class Wire(Protocol):
    """A connection on which somebody has signed in."""

    async def exchange(self, number: int, request: object, seconds: float) -> Any:
        """The reply. Raises `Broken` when the connection ends before, `TimeoutError` after `seconds`, and what the
        broker refused it with."""
        ...


class Way(Protocol):
    """How requests are carried: by the engine's loop, or by the caller's own thread, where nothing suspends."""

    async def connected(self, deadline: Deadline) -> Wire:
        """The connection; a new one if need be. Raises `BrokerUnavailable` when the deadline passes without."""
        ...

    async def enter(self, deadline: Deadline) -> None:
        """Before a request whose answer the broker shall remember. Raises `BrokerUnavailable` when others have all
        places until the deadline."""
        ...

    def leave(self) -> None:
        """It has its answer, or will not."""
        ...

    def tell(self, request: object) -> None:
        """Send what nobody answers, if the broker is there."""
        ...


class Link:
    def __init__(self, public: str) -> None:
        self._public = public
        self._way: Way
        self.session = secrets.randbits(62) | 1
        self._marks = itertools.count(1)
        self._numbers = itertools.count(1)

    def go(self, way: Way) -> None:
        """From now on by this way, which may need to know the link itself."""
        self._way = way

    def number(self) -> int:
        return next(self._numbers)

    def tell(self, request: object) -> None:
        self._way.tell(request)

    async def call(self, verb: str, *arguments: object, patience: float = PATIENCE) -> Any:
        """What the verb answers; it may be asked twice."""
        request = CallRequest(self.number(), verb, calls.raw(arguments))
        answer = await self._again(request, Deadline(allowed(patience), time.monotonic))
        return calls.VERBS[verb].read_answer(answer.value)

    async def call_once(self, verb: str, *arguments: object, patience: float = PATIENCE) -> Any:
        """The same for what must not be done twice. Raises `OutcomeUnknown` when it may have been done."""
        request = CallRequest(self.number(), verb, calls.raw(arguments))
        deadline = Deadline(allowed(patience), time.monotonic)
        while True:
            wire = await self._way.connected(deadline)
            try:
                answer = await wire.exchange(request.number, request, deadline.left())
                return calls.VERBS[verb].read_answer(answer.value)
            except (TimeoutError, Broken) as error:
                if not isinstance(error, Broken) or error.sent:
                    raise self._unknown(error) from None

    async def publish_batch(self, bodies: list[bytes], timeout: float) -> Batch:
        """The answers to one batch. Raises as `publish` does."""
        published = await self.publish([bodies], timeout)
        return published.batches[0]

    async def publish(self, batches: list[list[bytes]], timeout: float) -> Published:
        """Raises `BrokerUnavailable` when nothing was done, `MaybePublished`."""
        deadline = Deadline(allowed(timeout), time.monotonic)
        await self._way.enter(deadline)
        try:
            mark = next(self._marks)
            return await self._published(PublishRequest(self.number(), mark, False, timeout, batches), deadline)
        finally:
            self._way.leave()

    async def follow_up(self, batch: list[bytes], timeout: float) -> Published:
        """As `publish`."""
        deadline = Deadline(allowed(timeout), time.monotonic)
        await self._way.enter(deadline)
        try:
            mark = next(self._marks)
            return await self._published(FollowUpRequest(self.number(), mark, False, batch), deadline)
        finally:
            self._way.leave()

    async def _published(self, request: PublishRequest | FollowUpRequest, deadline: Deadline) -> Published:
        try:
            answer: Published = await self._again(request, deadline)
            return answer
        except OutcomeUnknown as error:
            raise MaybePublished(self.session, request.mark, str(error)) from None

    async def step(self, request: StepRequest, patience: float) -> Stepped:
        """Raises `BrokerUnavailable` when nothing was done, `OutcomeUnknown` when it may have been."""
        deadline = Deadline(allowed(patience), time.monotonic)
        await self._way.enter(deadline)
        try:
            request.mark = next(self._marks)
            answer: Stepped = await self._again(request, deadline)
            return answer
        finally:
            self._way.leave()

    async def _again(self, request: Any, deadline: Deadline) -> Any:
        """Ask until there is an answer. The broker is told when it is asked again."""
        sent = ""
        while True:
            try:
                wire = await self._way.connected(deadline)
            except BrokerUnavailable as error:
                if sent:
                    raise self._unknown(sent) from error
                raise
            left = deadline.left()
            if type(request) is PublishRequest:
                request.timeout = max(0.0, left - min(HEAD_START, left / 5))
            try:
                return await wire.exchange(request.number, request, left)
            except TimeoutError:
                raise self._unknown("no answer in time") from None
            except Broken as error:
                if error.sent:
                    sent = str(error)
                    if hasattr(request, "again"):
                        request.again = True

    def _unknown(self, reason: object) -> OutcomeUnknown:
        return OutcomeUnknown(f"{self._public}: {reason or 'no answer in time'}; it may have been done")


def crowded(public: str) -> BrokerUnavailable:
    """The error of who had no turn in its time."""
    return BrokerUnavailable(f"{public}: {WINDOW} requests before this one are not answered yet")


class MaybePublished(Exception):
    """It was sent under this mark of this session, as the batch of that number, and not answered in time."""

    def __init__(self, session: int, mark: int, why: str, batch: int = 0) -> None:
        super().__init__(why)
        self.session, self.mark, self.batch = session, mark, batch
