"""The call that a task is running for: what `self.request` shows, and where it is kept while the function runs."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from msgspec import Struct

from penstock.broker import Key
from penstock.message import Message
from penstock.retry import snoozes


class Request(Struct, gc=False):
    """One run of a task. Made per run by the worker, so it holds what is at hand, and derives the rest when asked.

    `worker` is the worker's name; `delivery` what the engine handed out (`None` when eager). The worker sets
    `cancelled` when the task is revoked or lost while it runs; threads see it.
    """

    message: Message
    key: Key
    public_id: Callable[[Key], str]
    worker: str = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    delivery: Any = None
    cancelled: bool = False
    is_eager: bool = False
    called_directly: bool = False
    noted: float = float("-inf")
    """When progress was last noted, in monotonic seconds."""
    sink: Any = None
    """Where what it publishes goes, once it has published something (see `penstock.partials`)."""
    added: tuple[Any, ...] = ()
    """What `add_to_chord` has been given."""

    @property
    def id(self) -> str:
        """The public id of the task."""
        return self.public_id(self.key)

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.message.task

    @property
    def retries(self) -> int:
        """How many runs before this one raised an error and were retried."""
        return self.message.retries

    @property
    def snoozes(self) -> int:
        """How often it was put off by `Snooze` before this run."""
        return snoozes(self.message)

    @property
    def attempts(self) -> int:
        """How many deliveries before this one never came back."""
        return self.message.attempts

    @property
    def run(self) -> int:
        """The number of this run, by which its parts are known: it grows with each run that was retried or lost, also
        where another task took the place of the first."""
        message = self.message
        run = message.retries + message.attempts
        return run if message.headers is None else run + earlier_runs(message)

    @property
    def queue(self) -> str:
        return self.message.queue

    @property
    def priority(self) -> int:
        return self.message.priority

    @property
    def partition(self) -> str:
        return self.message.partition

    @property
    def namespace(self) -> str:
        return self.message.namespace

    @property
    def eta(self) -> float | None:
        """Unix time before which it was not to run."""
        return self.message.eta

    @property
    def expires(self) -> float | None:
        """Unix time after which it is not to start."""
        return self.message.expires

    @property
    def headers(self) -> dict[str, str]:
        return self.message.headers or {}

    @property
    def hostname(self) -> str:
        return self.worker

    @property
    def root_id(self) -> str:
        """The id of the first task of this tree of calls; its own id for the first."""
        options = self.message.options
        return (options.root_id if options is not None else None) or self.id

    @property
    def parent_id(self) -> str | None:
        """The id of the task that made this call."""
        options = self.message.options
        return options.parent_id if options is not None else None

    @property
    def delivery_info(self) -> dict[str, Any]:
        return {"queue": self.queue, "priority": self.priority, "redelivered": self.attempts > 0}


EARLIER = "penstock-earlier"
"""Header: runs of the tasks in whose place this one is."""


def earlier_runs(message: Message) -> int:
    said = (message.headers or {}).get(EARLIER, "")
    return int(said) if said.isdecimal() and len(said) < 10 else 0


current: ContextVar[Request | None] = ContextVar("penstock.request", default=None)
"""Set by whoever runs a task, for the time of the run."""


def direct(task: str) -> Request:
    """The request of a task that is called as a plain function."""
    return Request(Message(1, task, b""), "", str, called_directly=True)
