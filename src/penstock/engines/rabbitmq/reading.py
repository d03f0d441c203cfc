"""From what came to what a worker sees."""

from __future__ import annotations

from msgspec import Struct

from penstock.engines.rabbitmq import wire
from penstock.engines.rabbitmq.wire import Content
from penstock.errors import DecodeError
from penstock.message import Message, unpack


class Opened(Struct, gc=False):
    """A message as it lay in its queue. `attempts` are those that its header counts."""

    id: str
    message: Message | None
    damage: str | None
    body: bytes
    attempts: int
    headers: dict[str, object]


def opened(content: Content, id: str | None = None) -> Opened:
    """Read a message; what cannot be read is damage, not an error. `id` is for messages that have none."""
    found, headers = wire.read_id(content.properties)
    found = found or id or ""
    attempts = count(headers.get("x-penstock-attempts"))
    try:
        message = unpack(content.body)
    except DecodeError as error:
        return Opened(found, None, str(error), content.body, attempts, dict(headers))
    message.id, message.attempts = found, attempts
    return Opened(found, message, None, content.body, attempts, dict(headers))


def count(value: object) -> int:
    """A header's number; anybody may have written it."""
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0
