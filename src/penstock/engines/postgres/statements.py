"""Publishing as a value: messages in, one statement and its parameters out. No I/O, so that it can run in any
transaction: the engine's own, or the caller's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from penstock.broker import Accepted, Answer, Conflict, Duplicate, Fenced, Full
from penstock.draining import FEW, Drains
from penstock.engines.postgres.naming import SHIFT
from penstock.message import Dedup, Fence, Guard, Limit, Message, Unique, pack

Bound = Literal["exact", "pressed", "soft", "none"]
""""exact": near its bound producers take turns. "pressed": the same, where a refusal is likely, and looked for first.
"soft": no locks, for transactions that others may keep open for long. "none": follow-ups, which are always admitted."""

PUBLISH = (
    "SELECT n, kind, id, name, depth, bound, unit, excess, settled, age FROM {schema}.publish("
    "$1::integer[], $2::bigint[], $3::bytea[], $4::bigint[], $5::text[], $6::double precision[], $7::jsonb, $8::jsonb,"
    " $9::text, $10::integer[])"
)


class Route(NamedTuple):
    """A lane by its names; `limit` is the key of a limit, or ""."""

    namespace: str
    queue: str
    priority: int
    partition: str
    limit: str = ""


class LimitRow(NamedTuple):
    """What messages say of their limit. `varied`: one of them costs something else than 1, or expires and has a
    rate."""

    key: str
    rate: float | None
    burst: float
    concurrency: int | None
    lowest: float
    varied: bool


class Outgoing(Struct):
    """A batch ready to be sent. `lanes` has one entry when all messages go to the same. `calls`: where several
    calls share it, how many messages each has; it is accepted or refused by itself then."""

    messages: Sequence[Message]
    lanes: list[int]
    numbers: list[int]
    bodies: list[bytes]
    ids: list[int | None] | None = None
    names: list[str | None] | None = None
    dues: list[float | None] | None = None
    guards: str | None = None
    limits: str | None = None
    calls: list[int] | None = None

    @property
    def plain(self) -> bool:
        """Nothing is to be looked up for any message, and all go to one lane."""
        return (
            len(self.lanes) == 1
            and self.ids is None
            and self.names is None
            and self.dues is None
            and self.guards is None
        )


class Statement(NamedTuple):
    """SQL with $1… placeholders, and the values in their order."""

    sql: str
    parameters: tuple[Any, ...]


def route(message: Message) -> Route:
    key = limit_key(message) if message.guards else ""
    return Route(message.namespace, message.queue, message.priority, message.partition, key)


def limit_key(message: Message) -> str:
    return next((guard.key for guard in message.guards if isinstance(guard, Limit)), "")


def only_limited(message: Message) -> bool:
    """None of its guards is to be looked up for it alone."""
    return not any(_looked_up(message, guard) for guard in message.guards)


def _looked_up(message: Message, guard: Guard) -> bool:
    return not isinstance(guard, Limit) or _varies(message, guard)


def _varies(message: Message, limit: Limit) -> bool:
    return limit.cost != 1 or (message.expires is not None and limit.rate is not None)


def outgoing(
    batch: Sequence[Message],
    lanes: Mapping[Route, int],
    sequence: Sequence[int],
    minted: Callable[[str], int | None],
) -> Outgoing:
    """The batch with numbers made from `sequence`, one for each message. `minted` tells the number in an id that was
    made here."""
    chosen = [lanes[route(message)] for message in batch]
    numbers = [lane << SHIFT | number for lane, number in zip(chosen, sequence, strict=True)]
    if len(set(chosen)) == 1:
        chosen = chosen[:1]
    made = Outgoing(batch, chosen, numbers, [pack(message) for message in batch])
    if any(message.id is not None for message in batch):
        ids = [None if message.id is None else minted(message.id) for message in batch]
        names = [message.id if number is None else None for message, number in zip(batch, ids, strict=True)]
        made.ids = ids if any(number is not None for number in ids) else None
        made.names = names if any(name is not None for name in names) else None
    if any(message.eta is not None for message in batch):
        made.dues = [message.eta for message in batch]
    if any(message.guards for message in batch):
        made.guards = _guards(batch)
        made.limits = changes(batch)
    return made


def again(sent: Outgoing) -> Outgoing:
    """The same, to be sent once more because its outcome is not known: every message is looked for first."""
    ids = sent.ids or [None] * len(sent.numbers)
    names = sent.names or [None] * len(sent.numbers)
    found = [
        number if known is None and name is None else known
        for number, known, name in zip(sent.numbers, ids, names, strict=True)
    ]
    return replace(sent, ids=found)


def publish(batch: Outgoing, schema: str, bound: Bound) -> Statement:
    """The statement that publishes `batch`; its rows are read by `read_answers`."""
    return Statement(
        PUBLISH.format(schema=schema),
        (
            batch.lanes,
            batch.numbers,
            batch.bodies,
            batch.ids,
            batch.names,
            batch.dues,
            batch.guards,
            batch.limits,
            bound,
            batch.calls and [n for n, count in enumerate(batch.calls, 1) for _ in range(count)],
        ),
    )


def read_answers(batch: Outgoing, rows: Sequence[Sequence[Any]], drains: Drains) -> list[Answer]:
    """The answers in the order of the messages. Rows are there only for what was not accepted: by the number of the
    message, from 1 on; 0 is all of them, and -n the call n."""
    if rows and rows[0][0] == 0:
        return [_answer(batch.messages[0], rows[0], drains)] * len(batch.messages)
    ids = batch.ids or [None] * len(batch.numbers)
    answers: list[Answer] = [
        Accepted(message.id or (number if known is None else known))
        for message, number, known in zip(batch.messages, batch.numbers, ids, strict=True)
    ]
    for row in rows:
        if row[0] < 0:
            calls = batch.calls or []
            first, count = sum(calls[: -row[0] - 1]), calls[-row[0] - 1]
            answers[first : first + count] = [_answer(batch.messages[first], row, drains)] * count
            continue
        place = row[0] - 1
        answer = _answer(batch.messages[place], row, drains)
        message = batch.messages[place]
        if isinstance(answer, Duplicate) and message.id is not None and row[2] is not None and row[2] == ids[place]:
            answer = Duplicate(message.id)
        if isinstance(answer, Conflict) and row[2] in (batch.numbers[place], ids[place]):
            # It was sent before, and that had not ended when this was looked for: it holds its key itself.
            answer = Duplicate(answer.key if answer.key is not None else row[2])
        answers[place] = answer
    return answers


def _answer(message: Message, row: Sequence[Any], drains: Drains) -> Answer:
    _, kind, holder, name = row[:4]
    if kind == "full":
        return _full(message.namespace, name or message.queue, row, drains)
    if kind == "duplicate":
        return Duplicate(name or (holder if holder is not None else message.id or ""))
    key, _, chosen = name.partition("\n")
    return Fenced(key) if kind == "fenced" else Conflict(key, chosen or holder)


def _full(namespace: str, queue: str, row: Sequence[Any], drains: Drains) -> Full:
    depth, bound, unit, excess, settled = row[4:9]
    after = drains.retry_after((namespace, queue), settled, excess, depth if unit == "tasks" else 2 * FEW)
    return Full(queue, depth, bound, unit, after)


def _guards(batch: Sequence[Message]) -> str | None:
    """What is to be looked up, by the number of the message, as migrations/0012_expired.sql has it."""
    found = {
        n: [_guard(message, guard) for guard in message.guards if _looked_up(message, guard)]
        for n, message in enumerate(batch, 1)
        if message.guards and not only_limited(message)
    }
    return json.dumps(found) if found else None


def _guard(message: Message, guard: Guard) -> list[object]:
    namespace = message.namespace
    match guard:
        case Unique(key=key, until=until, ttl=ttl, on_conflict=on_conflict):
            return ["unique", namespace, key, ttl, until, on_conflict]
        case Dedup(key=key, ttl=ttl):
            return ["dedup", namespace, key, ttl]
        case Fence(name=name, token=token):
            return ["fence", namespace, name, token]
        case Limit(key=key, cost=cost):
            return ["limit", namespace, key, cost, message.expires]


def limits(batch: Sequence[Message]) -> dict[tuple[str, str], tuple[int, LimitRow]]:
    """By namespace and key, what the newest message says, and its number."""
    found: dict[tuple[str, str], tuple[int, LimitRow]] = {}
    for n, message in enumerate(batch, 1):
        for limit in message.guards:
            if isinstance(limit, Limit):
                before = found.get((message.namespace, limit.key))
                found[message.namespace, limit.key] = (
                    n,
                    _row_of(message, limit, before[1] if before is not None else None),
                )
    return found


def _row_of(message: Message, limit: Limit, before: LimitRow | None) -> LimitRow:
    lowest, varied = (before.lowest, before.varied) if before is not None else (limit.cost, False)
    return LimitRow(
        limit.key,
        limit.rate,
        limit.burst,
        limit.concurrency,
        min(lowest, limit.cost),
        varied or _varies(message, limit),
    )


def changes(batch: Sequence[Message]) -> str | None:
    """The limits in one order for everybody, so that nobody waits in a circle."""
    found = limits(batch)
    return json.dumps([[n, namespace, *row] for (namespace, _), (n, row) in sorted(found.items())]) if found else None
