"""Publishing: concurrent callers share a statement, and an unknown outcome is asked about with the same numbers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from penstock.broker import Answer, Full
from penstock.draining import Drains
from penstock.engines.network.patience import Deadline, pauses
from penstock.engines.postgres import statements
from penstock.engines.postgres.connecting import ATTEMPT, Connection, Links
from penstock.engines.postgres.faults import GONE, PASSING, is_broken, sqlstate, translate
from penstock.engines.postgres.lanes import Lanes, Numbers
from penstock.engines.postgres.statements import Bound, Outgoing
from penstock.errors import BrokerUnavailable, OutcomeUnknown, PenstockError
from penstock.message import Message
from penstock.public_ids import PublicIds

MAX_BATCH = 1_000
FOLD_AFTER = 200
"""Statements after which a publisher folds the counts."""
FOLDING = 5.0
PRESSED = 1.0
"""Seconds after a refusal for which others are likely."""


class Request:
    """One caller's batch."""

    __slots__ = ("answers", "bound", "deadline", "messages")

    def __init__(self, messages: Sequence[Message], bound: Bound, seconds: float) -> None:
        self.messages = messages
        self.bound = bound
        self.deadline = Deadline(seconds, time.monotonic)
        self.answers: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()


class Publisher:
    def __init__(self, links: Links, schema: str, lanes: Lanes, numbers: Numbers, ids: PublicIds) -> None:
        self._links = links
        self._schema = schema
        self._lanes = lanes
        self._numbers = numbers
        self._ids = ids
        self._pending: deque[Request] = deque()
        self._running: asyncio.Task[None] | None = None
        self._unfolded = 0
        self._pressed_until = 0.0
        self._drains = Drains(time.monotonic)

    async def publish(self, batch: Sequence[Message], timeout: float, bound: Bound) -> Sequence[Answer]:
        if not batch:
            return []
        request = Request(batch, bound, timeout)
        self._pending.append(request)
        if self._running is None:
            self._running = asyncio.get_running_loop().create_task(self._pump())
        return await request.answers

    async def _pump(self) -> None:
        """One statement at a time, so that what one process publishes stays in order."""
        try:
            while self._pending:
                group = self._next_group()
                try:
                    await self._send_group(group)
                except asyncio.CancelledError:
                    _fail(group, BrokerUnavailable("the engine was closed meanwhile; it is not known what was done"))
                    raise
                except Exception as error:
                    _fail(group, error)
                self._unfolded += 1
                if self._unfolded >= FOLD_AFTER:
                    await self._fold()
        finally:
            self._running = None

    async def _fold(self) -> None:
        """Workers do it about every second; but there may be none yet, and who publishes adds up what was appended."""
        self._unfolded = 0
        with contextlib.suppress(PenstockError):  # somebody else will
            await self._links.call(lambda c: c.execute(f"SELECT {self._schema}.fold()"), FOLDING, repeat=True)

    def _next_group(self) -> list[Request]:
        """Callers whose plain messages go to one lane share a statement."""
        first = self._pending.popleft()
        group = [first]
        route = _plain_route(first)
        total = len(first.messages)
        while route is not None and self._pending:
            other = self._pending[0]
            if other.bound != first.bound or total + len(other.messages) > MAX_BATCH or _plain_route(other) != route:
                break
            total += len(other.messages)
            group.append(self._pending.popleft())
        return group

    async def _send_group(self, group: list[Request]) -> None:
        """Each call fits or does not by itself; but all share a statement, its look at the bound, and its commit."""
        messages = group[0].messages if len(group) == 1 else [one for request in group for one in request.messages]
        calls = [len(request.messages) for request in group] if len(group) > 1 else None
        end = min(group, key=lambda request: request.deadline.end).deadline
        answers, again = await self._send(messages, calls, group[0].bound, end)
        start = 0
        for request in group:
            mine = answers[start : start + len(request.messages)]
            start += len(request.messages)
            if again and calls is not None and isinstance(mine[0], Full):
                await self._send_group([request])  # it was refused with all that had not arrived: it may fit
            else:
                _answer(request, mine)

    async def _send(
        self, messages: Sequence[Message], calls: list[int] | None, bound: Bound, deadline: Deadline
    ) -> tuple[list[Answer], bool]:
        """Send until it is known what became of it, or until the deadline. And whether it was sent again, when all that
        is not found there is refused together."""
        batch: Outgoing | None = None
        unknown = False
        waits = pauses()
        while True:
            connection = await self._take(deadline, batch if unknown else None)
            try:
                if batch is None:
                    batch = await self.prepare(connection, messages)
                    batch.calls = calls
                sent = statements.again(batch) if unknown else batch
                sql, parameters = statements.publish(sent, self._schema, self._pressed(bound))
                async with asyncio.timeout(max(min(deadline.left(), ATTEMPT), 0.001)):
                    rows = await connection.fetch(sql, *parameters)
            except BaseException as error:
                broken = is_broken(error) or not isinstance(error, Exception) or sqlstate(error) in ("25006", "57P03")
                self._links.give(connection, broken=broken)
                if not isinstance(error, Exception):
                    raise
                if broken:
                    self._links.drop_idle()
                ours = translate(error, self._links.settings.public)
                passing = sqlstate(error) in PASSING
                if sqlstate(error) == GONE:
                    self._lanes.forget_limited()
                    batch = None
                unknown = unknown or (batch is not None and (isinstance(ours, OutcomeUnknown) or passing))
                pause = 0.0 if passing else next(waits)
                if deadline.left() <= pause or not (passing or isinstance(ours, OutcomeUnknown | BrokerUnavailable)):
                    raise self._verdict(ours, batch if unknown else None) from error
                await asyncio.sleep(pause)
            else:
                self._links.give(connection)
                answers = statements.read_answers(batch, rows, self._drains)
                if rows and any(isinstance(answer, Full) for answer in answers):
                    self._pressed_until = time.monotonic() + PRESSED
                return answers, unknown

    def _pressed(self, bound: Bound) -> Bound:
        return "pressed" if bound == "exact" and time.monotonic() < self._pressed_until else bound

    async def _take(self, deadline: Deadline, unknown: Outgoing | None) -> Connection:
        try:
            return await self._links.take(deadline)
        except BrokerUnavailable as error:
            raise self._verdict(error, unknown) from error

    def _verdict(self, error: BaseException, unknown: Outgoing | None) -> BaseException:
        """What the caller is told: something that was sent before may have been done."""
        if unknown is not None:
            ids = [
                message.id or self._ids.make(number)
                for message, number in zip(unknown.messages, unknown.numbers, strict=True)
            ]
            return OutcomeUnknown(str(error), ids)
        return BrokerUnavailable(str(error)) if isinstance(error, OutcomeUnknown) else error

    async def learn(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Make the lanes of messages that are published by others, and tell what they say of their limits."""
        await self._lanes.learn(connection, set(map(statements.route, messages)), statements.limits(messages))
        changes = statements.changes(messages)
        if changes is not None:
            await connection.execute(f"SELECT {self._schema}.set_limits($1::jsonb, '{{}}')", changes)

    async def prepare(self, connection: Connection, messages: Sequence[Message]) -> Outgoing:
        """Give the messages their lanes and numbers."""
        routes = {statements.route(message) for message in messages}
        sequence = await self._numbers.take(connection, len(messages))
        while not self._lanes.known(routes):
            await self._lanes.learn(connection, routes, statements.limits(messages))
        return statements.outgoing(messages, self._lanes.by_route, sequence, self._ids.number)

    async def publish_in(self, connection: Connection, messages: Sequence[Message]) -> None:
        """Publish follow-ups in the running transaction of `connection`."""
        batch = await self.prepare(connection, messages)
        sql, parameters = statements.publish(batch, self._schema, "none")
        await connection.fetch(sql, *parameters)


def _plain_route(request: Request) -> Any:
    """The lane of all messages, if nothing is to be looked up for any."""
    route = statements.route(request.messages[0])
    for message in request.messages:
        if message.id is not None or message.eta is not None or statements.route(message) != route:
            return None
        if message.guards and not statements.only_limited(message):
            return None
    return route


def _answer(request: Request, answers: list[Answer]) -> None:
    if not request.answers.done():
        request.answers.set_result(answers)


def _fail(group: Sequence[Request], error: BaseException) -> None:
    for request in group:
        if not request.answers.done():
            request.answers.set_exception(error)
