"""`Idempotency-Key`: a call that is repeated is the same call, and one that only has its key is refused.

The broker recognises a repeat by a `Dedup` guard, also when the task has ended, and says which task was first. Its id
says what it was called with: it ends with a digest of that. So there is nothing to keep beside the task.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from msgspec import Struct

from penstock.broker import Features
from penstock.gateway.problems import Refused
from penstock.message import Dedup, Message

MAX_KEY = 255
_RANDOM, _CONTENT = 32, 16
"""Hex digits of an id: what nobody can guess, and what it was called with."""


class Repeat(Struct, frozen=True):
    """What a request was about; `content` is a digest, keyed with what only its client knows."""

    content: str

    def check(self, task_id: str) -> None:
        """Raise `Refused` when the first call was another one."""
        if len(task_id) == _RANDOM + _CONTENT and not task_id.endswith(self.content):
            raise Refused(
                422,
                "key-reused",
                "this Idempotency-Key was used for another request: take a new one for each",
            )


def mark(
    messages: Sequence[Message], key: str | None, client: str, features: Features, ttl: float, first: int = 0
) -> list[Repeat]:
    """Have repeats of these messages recognised for `ttl` seconds, where there is a key. They are counted from `first`,
    so that one call is another thing than a batch of one. Raises `Refused`."""
    if key is None:
        return []
    if not 0 < len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
        raise Refused(400, "bad-key", f"an Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters")
    if "Dedup" not in features.guards:
        raise Refused(501, "unsupported", f"the {features.engine} engine cannot recognise repeats: leave it out")
    return [_mark(message, key, client, place, ttl) for place, message in enumerate(messages, first)]


def _mark(message: Message, key: str, client: str, place: int, ttl: float) -> Repeat:
    # Digests, since keys are of any length, and are nobody else's business.
    scope = hashlib.blake2b(repr((message.namespace, client, key, place)).encode(), digest_size=24)
    content = repr((message.task, message.body, message.content_type)).encode()
    digest = hashlib.blake2b(content, key=scope.digest(), digest_size=_CONTENT // 2).hexdigest()
    message.id = os.urandom(_RANDOM // 2).hex() + digest
    message.guards = (*message.guards, Dedup(f"gateway:{scope.hexdigest()}", ttl))
    return Repeat(digest)
