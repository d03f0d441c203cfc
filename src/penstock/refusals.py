"""Who is refused by full queues is told to the shared state by who is refused: the process that publishes, unless its
broker counts by itself.

A publish that is let in pays nothing for it. A thread tells, so that neither does the caller who is refused; it lives
while there is something to tell.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

from penstock import apart
from penstock.broker import Answer, Full
from penstock.errors import AccessRefused, PenstockError
from penstock.message import Message
from penstock.pressure.refused import EVERY, Counts, tell

if TYPE_CHECKING:
    from penstock.app import Penstock

REST, LONG_REST = 30.0, 600.0
"""Seconds until it is tried again where it could not be told, and where it may not be."""
PATIENCE = 2.0
"""Seconds that the end of the process waits for what is left to be told."""
MOST_OF_NAME = 60

log = logging.getLogger("penstock.client")

_behalf: ContextVar[str] = ContextVar("penstock.behalf", default="")
behalf = _behalf.get
"""The client of ours that calls now."""


@contextmanager
def on_behalf_of(client: str) -> Iterator[None]:
    """What is published in the block is called by this client of ours, and refused to it."""
    token = _behalf.set(client)
    try:
        yield
    finally:
        _behalf.reset(token)


class RefusalNotes:
    """Of one app, in one process."""

    def __init__(self, app: Penstock) -> None:
        self._app = app
        self._begin()

    def _begin(self) -> None:
        """Also in a forked child, which has none of the parent's threads."""
        self._process = os.getpid()
        self._counts = Counts()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._rests_until = float("-inf")
        self._holder = f"{self._app.name[:MOST_OF_NAME]}[{self._process}]@{socket.gethostname()[:MOST_OF_NAME]}"

    def note(self, messages: Sequence[Message], answers: Sequence[Answer], client: str) -> None:
        """Count those that a full queue has refused, to `client` if it is not this process itself. Never blocks, never
        raises."""
        app = self._app
        if app.broker.features.counts_refusals:
            return
        if self._process != os.getpid():
            self._begin()
        some = False
        who = f"{client} by {self._holder}" if client else self._holder
        for message, answer in zip(messages, answers, strict=True):
            if type(answer) is Full:
                self._counts.add(who, answer.queue, message.task)
                some = True
        if some and app.clock.monotonic() >= self._rests_until:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(
                        target=self._run, args=(self._over,), name="penstock-refusals", daemon=True
                    )
                    with suppress(RuntimeError):  # this process ends, and has no more threads
                        thread.start()
                        self._thread = thread

    def close(self) -> None:
        """Tell what is left, if that does not take long."""
        with self._lock:
            thread, over, self._over = self._thread, self._over, threading.Event()
        if thread is not None:
            over.set()
            thread.join(PATIENCE)
            self._give_up(thread)

    def _run(self, over: threading.Event) -> None:
        me = threading.current_thread()
        while self._tell():
            over.wait(EVERY)
            with self._lock:
                if self._thread is not me:
                    return  # given up meanwhile: engines that are closed must not be opened again
                if not self._counts:
                    self._thread = None
                    return
        self._give_up(me)

    def _give_up(self, thread: threading.Thread) -> None:
        with self._lock:
            if self._thread is thread:
                self._thread = None

    def _tell(self) -> bool:
        """Whether it could be told."""
        app, counts = self._app, self._counts.take()
        now, told = app.clock.monotonic(), False
        try:
            keeper = apart.coordinating(app.engine, app.results if app.result_url is not None else app.engine)
            if keeper is None:
                self._rests_until = float("inf")  # nobody keeps shared state: what was counted is nobody's
                return False
            state, namespace = keeper.coordinator, app.conf.namespace
            told = keeper.run(tell(state, namespace, self._holder, counts, EVERY, app.clock.time()))
        except AccessRefused as error:
            self._rests_until = now + LONG_REST
            log.warning("who is refused by full queues cannot be told: %s", error)
        except PenstockError:
            self._rests_until = now + REST  # whoever publishes is told what is wrong
        except Exception:
            self._rests_until = now + LONG_REST
            log.exception("who is refused by full queues cannot be told")
        if not told:
            self._counts.give_back(counts)
        return told
