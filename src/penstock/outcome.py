"""What became of a run: the states of a task, and the outcome that is stored for the caller."""

from __future__ import annotations

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
    `done` is Unix time, `runtime` is in seconds. `retries` is how many errors came before.
    """

    state: State
    value: bytes
    done: float
    runtime: float = 0.0
    retries: int = 0
    content_type: str = "json"


class Progress(Struct, frozen=True):
    """How far a running task has come, in its own units."""

    done: float
    total: float | None = None
    note: str = ""


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
