"""Publishing inside a caller's transaction: see `penstock.enlist`, and migrations/0005_transactions.sql."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from penstock.broker import Answer
from penstock.draining import Drains
from penstock.engines.postgres import statements
from penstock.engines.postgres.lanes import KNOWN
from penstock.engines.postgres.settings import Settings
from penstock.engines.postgres.statements import LimitRow, Outgoing, Route
from penstock.enlist import Rows, Statement
from penstock.errors import ConfigError
from penstock.message import Message
from penstock.public_ids import PublicIds
from penstock.queue import Queue

Learn = Callable[[Sequence[Message]], Awaitable[None]]
COLUMNS = "n, kind, id, name, depth, bound, unit, excess, settled, age"


class PostgresTransactional:
    """See `penstock.enlist.Transactional`. The server finds lanes and numbers by itself. Only new lanes are made
    before, since others who need them would wait for the caller's commit."""

    database = "postgresql"

    def __init__(self, settings: Settings, ids: PublicIds, learn: Learn) -> None:
        """`learn` makes the lanes of messages, and tells the server what they say of their limits: what a caller's
        transaction changes there, claims could not look at until its end."""
        self._settings = settings
        self._learn = learn
        self._known: set[tuple[Route, LimitRow | None]] = set()
        self._limited_until = 0.0
        self._ids = ids
        self._drains = Drains(time.monotonic)
        self._declared = {queue.name: queue for queue in settings.queues}
        call = f"SELECT {COLUMNS} FROM {settings.schema}.enlist("
        self._parts = (call, "::text, ", "::text, ", "::bytea)")

    def preparation(self, messages: Sequence[Message]) -> Coroutine[Any, Any, None] | None:
        if time.monotonic() > self._limited_until:
            self._known = {one for one in self._known if not one[0].limit}
            self._limited_until = time.monotonic() + KNOWN
        limits = _limit_rows(messages)
        wanted = {(route, limits.get((route.namespace, route.limit))) for route in map(statements.route, messages)}
        return None if wanted <= self._known else self._make(messages, wanted)

    async def _make(self, messages: Sequence[Message], wanted: set[tuple[Route, LimitRow | None]]) -> None:
        await self._learn(messages)
        self._known |= wanted

    def enlist(self, messages: Sequence[Message]) -> Statement:
        limits = _limit_rows(messages)
        routes = list(dict.fromkeys(statements.route(message) for message in messages))
        lanes = {route: place for place, route in enumerate(routes)}
        # The numbers are made of the lane's place among the routes, and are not used: the server has the real ones.
        batch = statements.outgoing(messages, lanes, range(len(messages)), self._ids.number)
        envelope = {
            "routes": [self._bounded(route, limits.get((route.namespace, route.limit))) for route in routes],
            "lanes": [lanes[statements.route(message)] for message in messages],
            "sizes": [len(body) for body in batch.bodies],
            "ids": batch.ids,
            "names": batch.names,
            "dues": batch.dues,
            "guards": None if batch.guards is None else json.loads(batch.guards),
        }
        return Statement(self._parts, (self._ids.fingerprint, json.dumps(envelope), b"".join(batch.bodies)))

    def _bounded(self, route: Route, limit: LimitRow | None) -> list[object]:
        queue = self._declared.get(route.queue) or Queue(route.queue)
        return [*route[:4], queue.max_length, queue.max_bytes, limit]

    def answers(self, messages: Sequence[Message], rows: Rows) -> Sequence[Answer]:
        if rows[0][1] == "stranger":
            raise ConfigError(
                f"this connection is to another database than the broker {self._settings.public}: its schema "
                f"{self._settings.schema!r} belongs to other apps. Nothing was published"
            )
        numbers = [row[2] for row in rows if row[1] == "accepted"]
        ids = [None if message.id is None else self._ids.number(message.id) for message in messages]
        batch = Outgoing(messages, [], numbers, [], ids)
        return statements.read_answers(batch, [row for row in rows if row[1] != "accepted"], self._drains)

    def refused(self, sqlstate: str) -> str | None:
        settings = self._settings
        if sqlstate in ("3F000", "42883", "42P01"):
            return (
                f"this connection is to another database than the broker {settings.public}: there is no schema "
                f"{settings.schema!r} of this release. Its transaction is aborted"
            )
        if sqlstate == "42501":
            return (
                "this connection's user may not publish: as the owner of the schema run "
                f"GRANT USAGE ON SCHEMA {settings.schema} TO …. Its transaction is aborted"
            )
        return None


def _limit_rows(messages: Sequence[Message]) -> dict[tuple[str, str], LimitRow]:
    return {key: row for key, (_, row) in statements.limits(messages).items()}
