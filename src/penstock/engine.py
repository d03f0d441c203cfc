"""The contract of an engine: all that one server offers, behind one URL, for blocking and for awaiting callers."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from penstock.backend import Backend
from penstock.broker import Broker, Inspectable
from penstock.coordinator import Coordinator
from penstock.enlist import Transactional

T = TypeVar("T")


class Engine(Protocol):
    """An open engine. Thread-safe. After a fork it opens itself anew in the child.

    The coroutines of `broker`, `backend`, `coordinator` and `inspect` are run by `run` or `arun`, chosen before their
    first step. The embedded engines' never suspend, so that `run` costs a function call; network engines run them on
    their loop thread. No engine runs another's: see `penstock.apart.elsewhere`.
    """

    @property
    def url(self) -> str:
        """Where it is, without password."""
        ...

    @property
    def broker(self) -> Broker: ...

    @property
    def backend(self) -> Backend: ...

    @property
    def coordinator(self) -> Coordinator: ...

    @property
    def inspect(self) -> Inspectable: ...

    @property
    def transactional(self) -> Transactional | None:
        """How to publish inside a caller's own transaction; `None`: its tasks are not in a database of callers."""
        ...

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Run `call` to its end and return what it returns; blocks this thread. Raises what it raises."""
        ...

    async def arun(self, call: Coroutine[Any, Any, T]) -> T:
        """The same without blocking the running loop, which may be any, the engine's own included. Concurrent calls may
        share a transaction (group commit)."""
        ...

    async def apublish(self, call: Coroutine[Any, Any, T]) -> T:
        """`arun` for a call that does nothing but publish. The embedded engine may do that on the running loop, where
        it is alone, its lock is free, and its disk is fast: it takes some tenths of a millisecond then."""
        ...

    def writer_pid(self) -> int | None:
        """The local process that holds the engine's write lock now, if it has one and knows."""
        ...

    def close(self) -> None:
        """Release files, threads and connections. May be called twice."""
        ...
