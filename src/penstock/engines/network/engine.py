"""The frame of a network engine: its loop thread, its connection, and what becomes of both in a forked child."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

from penstock.engines.network.loop import LoopThread
from penstock.enlist import Transactional
from penstock.errors import BrokerUnavailable

T = TypeVar("T")
DISCONNECTING = 2.0


class NetworkEngine(ABC):
    """Implements the parts of `penstock.engine.Engine` that do not depend on the server.

    A subclass sets its own fields, then calls `open()`. `connect` is awaited on the loop thread: at opening, and anew
    in a forked child at its first call. It must leave `features` known, and raise errors of ours that name `url`.
    """

    transactional: Transactional | None = None

    def __init__(self, url: str) -> None:
        """`url` without the password."""
        self.url = url
        self.thread = LoopThread("penstock-network")
        self._opening = threading.Lock()
        self._forked = self._closed = False
        self._inherited: list[LoopThread] = []
        """The parent's loops, never closed here: they share kernel objects with those of the parent."""
        child = weakref.WeakMethod(self._after_fork_in_child)
        os.register_at_fork(after_in_child=lambda: (method := child()) is not None and method())
        # A process that just ends says good-bye, too: the server frees what it held at once, and asyncio has no tasks
        # to complain about.
        closing = weakref.WeakMethod(self.close)
        atexit.register(lambda: (method := closing()) is not None and method())

    @abstractmethod
    async def connect(self) -> None:
        """Connect, and check what the server is and promises."""

    @abstractmethod
    async def disconnect(self) -> None:
        """Close all connections. The server may be gone."""

    @abstractmethod
    def abandon(self) -> None:
        """In a forked child: forget connections, tasks and locks of the parent without touching them."""

    def open(self) -> None:
        """The first connection. Raises what `connect` raises, with nothing left behind."""
        try:
            self.thread.run(self.connect())
        except BaseException:
            self.close()
            raise

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        if self._forked:
            self._reopen(call)
        return self.thread.run(call)

    async def arun(self, call: Coroutine[Any, Any, T]) -> T:
        if self._forked:
            self._reopen(call)
        return await self.thread.arun(call)

    apublish = arun

    def writer_pid(self) -> int | None:
        return None

    def _after_fork_in_child(self) -> None:
        self._forked = not self._closed
        self._opening = threading.Lock()  # another thread of the parent may have held it

    def _reopen(self, call: Coroutine[Any, Any, Any]) -> None:
        with self._opening:
            if not self._forked:
                return
            self._inherited.append(self.thread)
            self.abandon()
            self.thread = LoopThread("penstock-network")
            try:
                self.thread.run(self.connect())
            except BaseException:
                call.close()
                self.thread.close()
                raise
            self._forked = False

    def close(self) -> None:
        """Close connections and the thread. May be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._forked:
            return  # nothing of this process is open
        with contextlib.suppress(BrokerUnavailable):  # it is gone, or closing already
            self.thread.run(_within(self.disconnect(), DISCONNECTING))
        self.thread.close()


async def _within(call: Coroutine[Any, Any, None], seconds: float) -> None:
    with contextlib.suppress(Exception):  # it is closed either way; what failed is the good-bye
        await asyncio.wait_for(call, seconds)
