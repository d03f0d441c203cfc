"""What became of a run: the states of a task, and the outcome that is stored for the caller."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct


class State(StrEnum):
    """The states that a caller sees (see docs/states.md). UNKNOWN: this id was never seen here, or is forgotten."""

    UNKNOWN = "UNKNOWN"
    PENDING = "PENDING"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    REVOKED = "REVOKED"

    @property
    def terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED})


class Outcome(Struct, gc=False):
    """A terminal state with its value.

    `value` is the codec's output: the return value for SUCCESS, the error (see `codec.failure`) otherwise; valid JSON
    where `content_type` is "json". Else that may be followed by "+" and a compression, and by "+signed".
    `done` is Unix time, `runtime` is in seconds. `retries` is how many errors came before. `task` is the task's name,
    for an engine that keeps results of tasks that it never saw.
    """

    state: State
    value: bytes
    done: float
    runtime: float = 0.0
    retries: int = 0
    content_type: str = "json"
    task: str = ""


class Progress(Struct, frozen=True):
    """How far a running task has come, in its own units."""

    done: float
    total: float | None = None
    note: str = ""


class Part(Struct, frozen=True, gc=False):
    """A value that a task published while it ran. `index` counts from 0 over all of the task's runs; `run` is the
    number of the run (retries and lost attempts before it)."""

    index: int
    run: int
    value: bytes
    content_type: str = "json"


class Parts(Struct, frozen=True):
    """What is kept of a task's parts, from the index that was asked for. `first` is the oldest index that is kept,
    `end` the next one that will be given; both are 0 where there are none. `ended`: an outcome is stored here, it is
    a dead letter, or nothing is known of it here: no task, and no parts."""

    first: int
    end: int
    parts: Sequence[Part]
    ended: bool


MOST_PARTS = 10_000
MOST_PART_BYTES = 4 << 20
"""What is kept of the parts of one task, in number and in bytes of their values: never more, and at least the newest
half of it."""


class Report(Struct, frozen=True):
    """All that is known of one task id. `outcome` is there in terminal states, unless results were ignored."""

    id: str
    state: State
    outcome: Outcome | None = None
    task: str | None = None
    queue: str | None = None
    retries: int = 0
    worker: str | None = None
    progress: Progress | None = None
