"""What a settlement changes besides the task itself: values, decided purely by the runtime, applied by the engine.

They exist because some decisions need the transaction's own state: is this the chord's last member? is the key free?
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from msgspec import Struct

from penstock.errors import Unsupported
from penstock.message import Message


class Publish(Struct, frozen=True, tag="publish"):
    """Publish a follow-up. It is always admitted, even into a full queue. It has an id derived from its parent's, so
    that a repeat is recognised."""

    message: Message


MOST_GATHERED = 7 << 20
"""Bytes of the values of a join, with one for each: what every engine can deliver as one message."""


class Join(Struct, frozen=True, tag="join"):
    """Member `index` of the join `id` is done with `value`. When `size` members are, publish `then`, whose body is
    the codec's array of the values in order; an empty body, if they take more than `MOST_GATHERED`."""

    id: str
    index: int
    value: bytes
    size: int
    then: Message


class ReleaseKey(Struct, frozen=True, tag="release_key"):
    """Free the unique key, if this task still holds it."""

    key: str


class Put(Struct, frozen=True, tag="put"):
    """Set `key` in the small shared state (or with `None` delete it), if its version is still `if_version` (0: not
    there; `None`: whatever it is)."""

    key: str
    value: bytes | None
    if_version: int | None = None


Effect = Publish | Join | ReleaseKey | Put
KINDS = frozenset({"Publish", "Join", "ReleaseKey", "Put"})
"""The names of all, as `Features.effects` has them."""


def array(values: Sequence[bytes], content_type: str) -> bytes:
    """The codec's array of encoded values; nothing for one larger than `MOST_GATHERED`. Raises `Unsupported` for an
    encoding that cannot be strung together."""
    if sum(map(len, values)) + len(values) > MOST_GATHERED:
        return b""
    if content_type == "json":
        return b"[" + b",".join(values) + b"]"
    if content_type == "msgpack":
        return b"\xdd" + struct.pack(">I", len(values)) + b"".join(values)
    raise Unsupported(f"a join cannot gather values of content type {content_type!r}; it can with json or msgpack")
