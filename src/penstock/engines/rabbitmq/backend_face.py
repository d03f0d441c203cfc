"""The engine as a result `Backend`: `rpc://`, and `amqp://` in its place."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from penstock.backend import Lost, Notify, Subscription
from penstock.broker import Key
from penstock.engines.rabbitmq.core import CONNECTING
from penstock.engines.rabbitmq.replies import ids_of
from penstock.errors import Unsupported
from penstock.outcome import Outcome, Parts, Progress, Report

if TYPE_CHECKING:
    from penstock.engines.rabbitmq.engine import RabbitEngine

NO_PARTS = (
    "RabbitMQ keeps no parts of running tasks: set result_backend to where they shall be kept, for example "
    "redis://localhost:6379/1"
)


class RabbitBackend:
    def __init__(self, engine: RabbitEngine) -> None:
        self._engine = engine

    async def store(self, outcomes: Sequence[tuple[Key, Outcome]]) -> Sequence[bool]:
        """Sent to who asked, who keeps the first. `False` for an id that names nobody: its result is dropped, and the
        first such is logged."""
        core = self._engine.core
        publisher = await core.post.link.get(CONNECTING)
        return await core.replies.send(publisher, [(str(key), outcome) for key, outcome in outcomes])

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Report]:
        """What came to this process; UNKNOWN is all that is known of others' tasks, and of those under way."""
        return self._engine.core.replies.reports(ids_of(keys))

    def subscribe(self, keys: Sequence[Key], notify: Notify, lost: Lost | None = None) -> Subscription:
        return self._engine.here().replies.subscribe(ids_of(keys), notify, lost)

    def mint(self) -> str | None:
        """An id that leads to this process's reply queue, which is declared before the task is published."""
        replies = self._engine.here().replies
        replies.wanted = True
        return replies.next_id()

    def prepare(self, timeout: float) -> Coroutine[Any, Any, None] | None:
        """What is to be awaited on this engine's loop before tasks are published, so that no result is there before
        its queue; `None`: nothing. It raises `BrokerUnavailable` after `timeout` seconds."""
        replies = self._engine.here().replies
        return None if replies.ready else replies.ensure(timeout)

    async def forget(self, keys: Sequence[Key]) -> None:
        self._engine.core.replies.forget(ids_of(keys))

    async def note(self, key: Key, progress: Progress) -> None:
        """Progress is not told over RabbitMQ: it may be lost by contract, and here it always is."""

    async def append(self, key: Key, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        raise Unsupported(NO_PARTS)

    async def parts(self, key: Key, offset: int, limit: int) -> Parts:
        raise Unsupported(NO_PARTS)

    def subscribe_parts(self, key: Key, notify: Callable[[], None], lost: Lost | None = None) -> Subscription:
        raise Unsupported(NO_PARTS)
