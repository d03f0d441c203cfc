"""Database connections around tasks: what Django does around requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections

from penstock.blocking import running_loop
from penstock.delivery import Delivery


class CloseConnections:
    """Running middleware: before and after each task, connections are closed that are unusable, or older than
    CONN_MAX_AGE. One that is in a transaction is left alone. What a worker's child has inherited by a fork is dropped
    without a word to the server, since the parent still uses it."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __call__(self, _delivery: Delivery, call: Callable[[], object]) -> object:
        if running_loop() is not None:
            return self._in_loop(call)
        self._close()
        try:
            value = call()
        finally:
            self._close()
        return _closing(value) if iscoroutine(value) else value

    def _in_loop(self, call: Callable[[], object]) -> object:
        """Django refuses queries of this thread; those of a coroutine are made in the thread of `sync_to_async`."""
        value = call()
        return _closing(value) if iscoroutine(value) else value

    def _close(self) -> None:
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            for one in connections.all(initialized_only=True):
                one.connection = None
        close_old_connections()


async def _closing(coroutine: Coroutine[Any, Any, Any]) -> Any:
    close = sync_to_async(close_old_connections)
    try:
        await close()
    except BaseException:
        coroutine.close()
        raise
    try:
        return await coroutine
    finally:
        await close()
