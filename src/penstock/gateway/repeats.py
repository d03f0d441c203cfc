"""`Idempotency-Key`: a request that is repeated is the same request, and one that only has its key is refused.

The broker recognises a repeat by a `Dedup` guard, also when the task has ended, and says which task was first. Its id
says what it was called with: it ends with a digest of that. So there is nothing to keep beside the task.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from msgspec import Struct

from penstock.broker import Features
from penstock.gateway.call_options import CallOptions
from penstock.gateway.problems import Refused
from penstock.message import Dedup, Message

MAX_KEY = 255
_RANDOM, _KEY, _CONTENT = 24, 8, 16
"""Hex digits of an id: what nobody can guess, the key that it was called under, and what it was called with."""


class Request(Struct, frozen=True):
    """Whose it is, and what its calls ask for besides their arguments: as they were sent, since a countdown means
    another moment each time."""

    key: str | None
    client: str
    options: Sequence[CallOptions]


class Repeat(Struct, frozen=True):
    """What a request was about: digests of its key, and of all of it, keyed with what only its client knows."""

    key: str
    content: str

    def is_same(self, task_id: str) -> bool:
        """Whether the task is of this request, or of one with another key, as the holder of a unique key may be."""
        return task_id[_RANDOM:-_CONTENT] != self.key or task_id.endswith(self.content)

    def check(self, task_ids: Sequence[str]) -> None:
        """Raise `Refused` when the first request of this key was another one."""
        if not all(map(self.is_same, task_ids)):
            raise Refused(
                422,
                "key-reused",
                "this Idempotency-Key was used for another request: take a new one for each",
            )


def mark(
    messages: Sequence[Message], request: Request, features: Features, ttl: float, first: int = 0
) -> Repeat | None:
    """Have repeats of these messages recognised for `ttl` seconds, where there is a key. They are counted from `first`,
    so that one call is another thing than a batch of one. Raises `Refused`."""
    key = request.key
    if key is None:
        return None
    if not 0 < len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        raise Refused(400, "bad-key", f"an Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters")
    if "Dedup" not in features.guards:
        raise Refused(501, "unsupported", f"the {features.engine} engine cannot recognise repeats: leave it out")
    # Digests, since keys are of any length, and are nobody else's business.
    scopes = [
        hashlib.blake2b(repr((message.namespace, request.client, key, place)).encode(), digest_size=24)
        for place, message in enumerate(messages, first)
    ]
    content = hashlib.blake2b(key=scopes[0].digest(), digest_size=_CONTENT // 2)
    for message, options in zip(messages, request.options, strict=True):
        content.update(repr((message.task, message.body, message.content_type, options)).encode())
    repeat = Repeat(scopes[0].hexdigest()[:_KEY], content.hexdigest())
    for message, scope in zip(messages, scopes, strict=True):
        message.id = os.urandom(_RANDOM // 2).hex() + repeat.key + repeat.content
        message.guards = (*message.guards, Dedup(f"gateway:{scope.hexdigest()}", ttl))
    return repeat
