"""The contract of a result backend: terminal results are write-once, waiting is by push, everything is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from penstock.broker import Key
from penstock.errors import BrokerError, MessageTooLarge
from penstock.outcome import MOST_PART_BYTES, MOST_PARTS, Outcome, Parts, Progress, Report

Notify = Callable[[Sequence[Report]], None]
"""Called from a thread of the engine with reports in terminal states; must return at once and not raise."""
Lost = Callable[[BrokerError], None]
"""Called from a thread of the engine, at most once, when reports that were waited for can no more come."""


class Subscription(Protocol):
    def wait(self, told: threading.Event, seconds: float) -> bool:
        """Block until `notify` (or `lost`) has set `told`; `False` after `seconds`. An engine may have this thread do
        what one of its own would do otherwise."""
        ...

    def close(self) -> None:
        """No more calls. May be called twice."""
        ...


class Backend(Protocol):
    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        """Store terminal outcomes outside of a settlement; `False` for a task that had one already (it is kept)."""
        ...

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        """What is known of each, in order. An id that was never seen, or is forgotten, is UNKNOWN."""
        ...

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: Lost | None = None) -> Subscription:
        """Tell `notify`, once per key, when it is in a terminal state; also for those that are already. An engine that
        loses its connection connects again and looks again; `lost` is told where that cannot help, because results
        were pushed to a place that went with the connection."""
        ...

    def mint(self) -> str | None:
        """An id for a new task, where results find their way by the id; `None`: any id will do. Pure; no I/O."""
        ...

    def prepare(self, timeout: float) -> Coroutine[Any, Any, None] | None:
        """What is to be run on this engine before tasks are published, so that their results find a place; `None`:
        nothing. It raises `BrokerUnavailable` after `timeout` seconds."""
        ...

    async def forget(self, keys: Sequence[Key]) -> None:
        """Drop results that are there."""
        ...

    async def note(self, key: Key, progress: Progress) -> None:
        """Remember how far a running task has come. Not durable; gone when the task ends."""
        ...

    async def append(self, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        """Add parts (value and content type) to what the task `key` has published, and wake who waits for them.
        Nothing is added, and the answer is `False`, when an outcome of it is stored, it is a dead letter, or a later
        run of it has added. A task that is not there may run elsewhere, or was acknowledged before it ran: its parts
        are kept, as `store` keeps its outcome, until nothing was added for as long as results are kept. `mark` names
        this call, from 0 to 2**63 - 1, drawn at random: a repeat of the task's last one adds nothing and answers
        `True`, so that an engine may try again. As durable as `note`; gone with the result. Raises `Unsupported`
        without `features.streams`, and `MessageTooLarge` for more than is kept (see `check_parts`)."""
        ...

    async def parts(self, key: Key, offset: int, limit: int) -> Parts:
        """Up to `limit` parts from index `offset` on; from the oldest that is kept where those are gone. A negative
        `offset` counts from the end: -1 is the newest."""
        ...

    def subscribe_parts(self, key: Key, notify: Callable[[], None], lost: Lost | None = None) -> Subscription:
        """Call `notify`, from a thread of the engine, whenever parts may have come, and when a result is stored: look
        again then. At least once after any `append` that follows the last look at them."""
        ...


def check_parts(values: Sequence[tuple[bytes, str]]) -> None:
    """Raise `MessageTooLarge` for parts that one `append` may not carry."""
    size = sum(len(value) for value, _ in values)
    if len(values) > MOST_PARTS or size > MOST_PART_BYTES:
        raise MessageTooLarge(
            f"{len(values):,} parts with {size:,} bytes at once; of one task {MOST_PARTS:,} parts and "
            f"{MOST_PART_BYTES:,} bytes are kept: publish less, or store the data elsewhere and publish its key"
        )
