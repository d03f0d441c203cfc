"""Waiting for parts: the broker pushes, by the way of the engine's loop, that there is more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from penstock.broker import Key
from penstock.engines.network.listening import Listener
from penstock.engines.server.wire import LoopWire
from penstock.errors import Unsupported
from penstock.protocol.requests import ListenRequest, UnlistenRequest

if TYPE_CHECKING:
    from penstock.engines.server.engine import ServerEngine

CHUNK = 5_000
"""Keys of one frame."""


class PartListening:
    """Used on the loop's thread, but for `subscribe` and `leave`."""

    def __init__(self, engine: ServerEngine) -> None:
        self._engine = engine
        self._listeners: dict[Key, list[Listener]] = {}

    def subscribe(self, key: Key, notify: Callable[[], None]) -> Listener:
        self._engine.reopen()
        if not self._engine.broker.features.streams:
            raise Unsupported(f"{self._engine.url}: this broker keeps no parts of running tasks: upgrade it")
        listener: Listener = Listener(notify, lambda: self.leave(key, listener))
        self._engine.thread.soon(lambda: self._enter(key, listener))
        return listener

    def _enter(self, key: Key, listener: Listener) -> None:
        if listener.closed:
            return
        waiting = self._listeners.setdefault(key, [])
        waiting.append(listener)
        if len(waiting) == 1:
            self._engine.keeper.tell(ListenRequest([key]))
        else:
            listener.tell()  # the broker, which tells the first one, is not asked

    def added(self, keys: Sequence[Key]) -> None:
        """What the broker pushed."""
        for key in keys:
            for listener in list(self._listeners.get(key, ())):
                listener.tell()

    def listen_again(self, wire: LoopWire) -> None:
        """On a new connection. What was pushed meanwhile, nobody heard: the broker tells all of them now."""
        keys = list(self._listeners)
        for start in range(0, len(keys), CHUNK):
            wire.tell(ListenRequest(keys[start : start + CHUNK]))

    def leave(self, key: Key, listener: Listener) -> None:
        if self._engine.is_open():
            self._engine.thread.soon(lambda: self._leave(key, listener))

    def _leave(self, key: Key, listener: Listener) -> None:
        waiting = self._listeners.get(key, [])
        if listener in waiting:
            waiting.remove(listener)
            if not waiting:
                del self._listeners[key]
                self._engine.keeper.tell(UnlistenRequest([key]))

    def forked(self) -> None:
        self._listeners.clear()
