"""A delivery to a worker and its one settlement."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

from penstock.effects import Effect
from penstock.message import Message
from penstock.outcome import Outcome

Receipt = tuple[Any, ...]
"""What the engine needs to recognise a delivery and its lease. Opaque to everybody else; hashable."""


LONGEST_REASON = 4_000
"""Characters of why a task is dead."""


class Delivery(Struct, gc=False):
    """A message, leased to this worker. `message.attempts` is the engine's count; `Broker.public_id(key)` names the
    task.

    A message that could not be read comes as `message=None` with `damage` (why), `raw` (the bytes) and `attempts`: the
    worker decides what becomes of it.
    """

    receipt: Receipt
    key: str | int
    message: Message | None
    damage: str | None = None
    raw: bytes = b""
    attempts: int = 0
    redelivered: bool = False
    """It may have been delivered before, and ended: told by engines that do not know ids (see `Features.knows_ids`)."""
    graph: Any = None
    """The graph that the message is a part of (see `Place`), looked up by the worker; `None` where there is none, or it
    is gone."""
    let_go: float | None = None
    """When its limit let it go (Unix time, by the engine's clock); `None`: it has no limit. What had expired by then
    was let go for nothing, to be discarded."""


class Ack(Struct, frozen=True, tag="ack"):
    """Done: the message goes."""


class RetryAt(Struct, frozen=True, tag="retry_at"):
    """Not now: the same task, under the same id, becomes ready at `when` (Unix time). `message` replaces what is stored
    (it carries the new `retries`); `None` keeps it, for a message that could not be read; `charge` counts an
    attempt."""

    when: float
    message: Message | None = None
    charge: bool = False


class Release(Struct, frozen=True, tag="release"):
    """Not started: ready again at once, nothing counted."""


class Dead(Struct, frozen=True, tag="dead"):
    """Hopeless: it moves to the dead letters with its message, for somebody to look at.

    Errors may say anything, at any length. No text of theirs may keep an engine from storing this."""

    reason: str

    def __post_init__(self) -> None:
        text = self.reason[:LONGEST_REASON].replace("\0", "\\x00")
        force_setattr(self, "reason", text.encode("utf-8", "backslashreplace").decode())


Verdict = Ack | RetryAt | Release | Dead

ACK = Ack()
RELEASE = Release()


class Settlement(Struct, gc=False):
    """The end of one delivery. Verdict, outcome and effects hold together: all are committed, or none."""

    receipt: Receipt
    verdict: Verdict
    outcome: Outcome | None = None
    effects: tuple[Effect, ...] = ()
