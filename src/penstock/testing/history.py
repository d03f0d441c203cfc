"""An append-only history of what happened to tasks, written by many processes, any of which may be killed.

    history = History(path, actor="worker-3")
    history.note(Kind.STARTED, "task-17")
    for event in read_history(path): ...

One line an event, appended by one `write`, so that lines of several processes never mix. A line that its process could
not finish has no end mark, and is passed over: it is as if the process had died a moment before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

END = ";"


class Kind(StrEnum):
    """What can be told of a task. An outcome that is not told is unknown, never assumed."""

    ASKED = "asked"
    """Somebody is about to publish it."""
    ACCEPTED = "accepted"
    """The broker confirmed it."""
    REFUSED = "refused"
    """The broker said for certain that it was not published."""
    STARTED = "started"
    """Its function is about to run. The only trace that the task itself leaves."""
    COMMITTED = "committed"
    """A settlement of it was accepted; where results are kept apart from the queue: its result was stored."""
    LATE = "late"
    """A settlement of it was refused, because its lease was lost; or a second result, because the first one stays."""
    ACKNOWLEDGED = "acknowledged"
    """Where results are kept apart, the queue was told that it is done with. It may be told so again, of a delivery
    that came after the task had ended: that ends nothing twice."""


class Event(NamedTuple):
    """`at` is the system's monotonic time in nanoseconds, comparable between processes of one machine."""

    kind: Kind
    task: str
    actor: str
    at: int
    detail: str


class History:
    """The writing end. What it noted survives its process; to survive the power as well it needs `sync=os.fsync`."""

    def __init__(
        self, path: str | os.PathLike[str], actor: str, *, sync: Callable[[int], object] | None = None
    ) -> None:
        """`actor` names this process. Raises `ValueError` for a name, here or below, that would break a line."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._actor = _checked(actor)
        self._sync = sync

    def note(self, kind: Kind, task: str, detail: str = "") -> None:
        """Append one event; it is kept when this returns."""
        self.note_all(kind, (task,), detail)

    def note_all(self, kind: Kind, tasks: Iterable[str], detail: str = "") -> None:
        """Append the same event for each of `tasks`."""
        tail = f"\t{self._actor}\t{time.monotonic_ns()}\t{_checked(detail)}{END}"
        # A newline before as well: the line before may be torn.
        lines = "".join([f"\n{kind}\t{_checked(task)}{tail}\n" for task in tasks])
        if not lines:
            return
        data = lines.encode()
        written = os.write(self._file, data)
        if written != len(data):
            raise OSError(f"only {written} of {len(data)} bytes of the history were written")
        if self._sync is not None:
            self._sync(self._file)

    def close(self) -> None:
        os.close(self._file)


def read_history(path: str | os.PathLike[str]) -> Iterator[Event]:
    """All whole events in the order in which they were appended."""
    kinds = {kind.value: kind for kind in Kind}
    with open(path, encoding="utf-8", errors="replace") as file:
        # At once: a line that others go on writing while we read would come in two.
        for line in file.read().split("\n"):
            fields = line.split("\t")
            if len(fields) != 5 or not fields[4].endswith(END):
                continue
            kind, task, actor, at, detail = fields
            yield Event(kinds[kind], task, actor, int(at), detail[:-1])


def _checked(name: str) -> str:
    if "\t" in name or "\n" in name:
        raise ValueError(f"a tab or a line end in {name!r} would break the history's lines")
    return name
