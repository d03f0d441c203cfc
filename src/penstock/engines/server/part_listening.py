"""Waiting for parts: the broker pushes, by the way of the engine's loop, that there is more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock.broker import Key
from penstock.engines.server.wire import LoopWire
from penstock.errors import Unsupported
from penstock.protocol.requests import ListenRequest, UnlistenRequest

if TYPE_CHECKING:
    from penstock.engines.server.engine import ServerEngine

CHUNK = 5_000
"""Keys of one frame."""


class PartListener:
    """One subscription to the parts of a task, and to its end."""

    def __init__(self, listening: PartListening, key: Key, notify: Callable[[], None]) -> None:
        self._listening = listening
        self.key = key
        self.notify = notify
        self.closed = False

    def wait(self, told: threading.Event, seconds: float) -> bool:
        return told.wait(seconds)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._listening.leave(self)


class PartListening:
    """Used on the loop's thread, but for `subscribe` and `leave`."""

    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine
        self._listeners: dict[Key, list[PartListener]] = {}

    def subscribe(self, key: Key, notify: Callable[[], None]) -> PartListener:
        self._engine.reopen()
        if not self._engine.broker.features.streams:
            raise Unsupported(f"{self._engine.url}: this broker keeps no parts of running tasks: upgrade it")
        listener = PartListener(self, key, notify)
        self._engine.thread.soon(lambda: self._enter(listener))
        return listener

    def _enter(self, listener: PartListener) -> None:
        if listener.closed:
            return
        waiting = self._listeners.setdefault(listener.key, [])
        waiting.append(listener)
        if len(waiting) == 1:
            self._engine.keeper.tell(ListenRequest([listener.key]))
        else:
            listener.notify()  # the broker, which tells the first one, is not asked

    def added(self, keys: Sequence[Key]) -> None:
        """What the broker pushed."""
        for key in keys:
            for listener in list(self._listeners.get(key, ())):
                if not listener.closed:
                    listener.notify()

    def listen_again(self, wire: LoopWire) -> None:
        """On a new connection. What was pushed meanwhile, nobody heard: the broker tells all of them now."""
        keys = list(self._listeners)
        for start in range(0, len(keys), CHUNK):
            wire.tell(ListenRequest(keys[start : start + CHUNK]))

    def leave(self, listener: PartListener) -> None:
        if self._engine.is_open():
            self._engine.thread.soon(lambda: self._leave(listener))

    def _leave(self, listener: PartListener) -> None:
        waiting = self._listeners.get(listener.key, [])
        if listener in waiting:
            waiting.remove(listener)
            if not waiting:
                del self._listeners[listener.key]
                self._engine.keeper.tell(UnlistenRequest([listener.key]))

    def forked(self) -> None:
        self._listeners.clear()
