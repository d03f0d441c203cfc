"""How old the oldest ready task of a queue is, where the engine cannot tell: by what its workers ran last, and by when
the queue was last seen empty. Pure.

A queue is served in its order, so what is at its head now came no earlier than what was there when a task ended, and
not before the queue was last seen empty. The truth is younger than that by the time between two calls, about. While
nothing is known of either, it is as old as it is known to be there.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from penstock.queue import QueueInfo


class Ages:
    """Of one process that looks at queues about once a second."""

    def __init__(self) -> None:
        self._empty: dict[str, float] = {}
        self._there: dict[str, float] = {}
        """By queue, when it was last seen empty, and since when it has not been: monotonic."""

    def note(self, found: Iterable[QueueInfo], now: float) -> None:
        """At each look, also where nobody asks how old; `now` is monotonic."""
        for info in found:
            if info.ready:
                self._there.setdefault(info.name, now)
            elif info.ready == 0:
                self._empty[info.name] = now
                self._there.pop(info.name, None)

    def aged(self, info: QueueInfo, head: float | None, wall: float, now: float) -> QueueInfo:
        """The queue that was just noted, with its age. `head`: see `Samples.heads`; `wall` is Unix time."""
        since = self._there.get(info.name)
        if info.oldest_age is not None or since is None:
            return info
        known = [wall - head] if head is not None else []
        if info.name in self._empty:
            known.append(now - self._empty[info.name])
        return replace(info, oldest_age=max(0.0, min(known, default=now - since)))
