"""Parts of tasks: the newest of each, with who waits for more. Used under the store's lock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from penstock.clock import Clock
from penstock.engines.memory.teller import Teller
from penstock.outcome import MOST_PART_BYTES, MOST_PARTS, Part, Parts


class Stream:
    """The parts of one task."""

    def __init__(self) -> None:
        self.parts: deque[Part] = deque()
        self.bytes = 0
        self.end = 0
        self.run = 0
        self.mark: int | None = None
        self.added = 0.0

    def add(self, run: int, values: Sequence[tuple[bytes, str]]) -> None:
        for value, content_type in values:
            self.parts.append(Part(self.end, run, value, content_type))
            self.bytes += len(value)
            self.end += 1
        while len(self.parts) > MOST_PARTS or self.bytes > MOST_PART_BYTES:
            self.bytes -= len(self.parts.popleft().value)

    @property
    def first(self) -> int:
        return self.end - len(self.parts)


class PartListener:
    """One subscription to the parts of a task."""

    def __init__(self, streams: Streams, key: str, notify: Callable[[], None]) -> None:
        self._streams = streams
        self.key = key
        self._notify = notify
        self._closed = False

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def tell(self) -> None:
        if not self._closed:
            self._notify()

    def close(self) -> None:
        self._closed = True
        self._streams.unsubscribe(self)


class Streams:
    def __init__(self, clock: Clock, ttl: float, teller: Teller) -> None:
        """`ttl`: seconds for which parts of a task are kept that has no result here, from the last one on."""
        self._clock, self._ttl, self._teller = clock, ttl, teller
        self._streams: dict[str, Stream] = {}
        self._listeners: dict[str, list[PartListener]] = {}

    def append(self, task_id: str, run: int, mark: int, values: Sequence[tuple[bytes, str]]) -> bool:
        """Add parts to a task that has not ended; `False` for a run before the latest."""
        stream = self._streams.get(task_id)
        if stream is None:
            stream = self._streams[task_id] = Stream()
        if run < stream.run:
            return False
        if mark != stream.mark:
            stream.add(run, values)
            stream.run, stream.mark, stream.added = run, mark, self._clock.time()
            self.tell(task_id)
        return True

    def parts(self, task_id: str, offset: int, limit: int) -> Parts | None:
        """`None` for a task that published none. Whether it has ended is for others to say."""
        stream = self._streams.get(task_id)
        if stream is None:
            return None
        start = max(0, (offset if offset >= 0 else offset + stream.end) - stream.first)
        found = [stream.parts[place] for place in range(start, min(start + limit, len(stream.parts)))]
        return Parts(stream.first, stream.end, found, ended=False)

    def size(self, task_id: str) -> int:
        """Bytes of the parts that are kept."""
        stream = self._streams.get(task_id)
        return 0 if stream is None else stream.bytes

    def drop(self, task_id: str) -> None:
        self._streams.pop(task_id, None)

    def expire(self, keeps: Callable[[str], bool]) -> None:
        """Drop parts of tasks that `keeps` does not know, to which nothing was added for long."""
        old = self._clock.time() - self._ttl
        for task_id in [one for one, stream in self._streams.items() if stream.added <= old and not keeps(one)]:
            del self._streams[task_id]

    def subscribe(self, task_id: str, notify: Callable[[], None]) -> PartListener:
        listener = PartListener(self, task_id, notify)
        self._teller.start()
        self._listeners.setdefault(task_id, []).append(listener)
        return listener

    def unsubscribe(self, listener: PartListener) -> None:
        waiting = self._listeners.get(listener.key, [])
        if listener in waiting:
            waiting.remove(listener)
            if not waiting:
                del self._listeners[listener.key]

    def tell(self, task_id: str) -> None:
        for listener in self._listeners.get(task_id, ()):
            self._teller.tell(listener.tell)
