"""A beat: stands by until it may lead, and leads until another does."""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import socket
from collections.abc import Coroutine, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from penstock.beat.line import Line
from penstock.beat.place import check_engine, prefix_of
from penstock.beat.reconcile import check_clashes
from penstock.beat.stored import Timetables, record_of
from penstock.beat.term import PATIENCE, Deposed, Own, Term
from penstock.beat.written import line_of
from penstock.blocking import bounded
from penstock.errors import BrokerError, ConfigError, PenstockError
from penstock.worker.outage import Outage

if TYPE_CHECKING:
    from penstock.app import Penstock

T = TypeVar("T")
LONGEST_STAND = 1.0
"""Seconds between two tries to lead, at most."""

log = logging.getLogger("penstock.beat")


class Beat:
    """Publishes what is due in the timetable of `app`. Any number of them may run; one leads."""

    def __init__(self, app: Penstock) -> None:
        """Raises `Unsupported` for a broker on which a tick might be published twice, `ConfigError` for schedules that
        cannot be used."""
        check_engine(app.engine.broker.features)
        self._app = app
        lines = own_lines(app)
        self._own = Own(lines, {name: record_of(line) for name, line in lines.items()})
        self._tables = Timetables(app.engine.coordinator, prefix_of(app))
        self._changes = -1
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._term: Term | None = None
        self._outage = Outage("standing for leader")
        self._stopping = self._waiting = False
        self._bell: tuple[int, int] | None = None

    def run(self, commands: int | None = None) -> int:
        """Blocks until `stop`, or until there is something to read from the descriptor `commands`. Returns the exit
        code, 0. Raises `ConfigError` when a schedule was added at run time under the name of one of the app's."""
        self._check_clashes()
        bell = self._bell = os.pipe()
        os.set_blocking(bell[1], False)
        poll = select.poll()
        for descriptor in (bell[0], commands):
            if descriptor is not None:
                poll.register(descriptor, select.POLLIN)
        try:
            while not self._stopping:
                # Rounded up: too early by less than a millisecond is a turn for nothing.
                if poll.poll(int(self.turn() * 1000) + 1):
                    break
            self._end()
        finally:
            self._bell = None
            for descriptor in bell:
                os.close(descriptor)
        log.info("stopped")
        return 0

    def stop(self) -> None:
        """End `run`, from a signal handler or another thread."""
        self._stopping = True
        bell = self._bell
        if bell is not None:
            os.write(bell[1], b".")

    @property
    def leads(self) -> bool:
        """It believes so; what it publishes is checked by the broker."""
        return self._term is not None

    def turn(self) -> float:
        """Do what there is to do now. Returns the seconds until there is more."""
        try:
            if self._term is None:
                return self._stand()
            return self._term.turn()
        except Deposed as why:
            log.warning("no longer leading: %s", why)
            self._term = None
            return 0.0
        except BrokerError as error:
            self._term = None
            return self._outage.go_on(error)

    def _stand(self) -> float:
        app = self._app
        lease = app.conf.beat_lease
        token = self._call(app.engine.coordinator.acquire(prefix_of(app), self._holder, lease))
        if token is None:
            self._keep_up()
            self._outage.over()
            if not self._waiting:
                log.info("standing by: another beat leads")
                self._waiting = True
            return min(LONGEST_STAND, lease / 8)
        term = Term(app, self._own, self._tables, self._holder, token)
        term.begin()
        self._outage.over()
        self._term, self._waiting = term, False
        return 0.0

    def _keep_up(self) -> None:
        """Read the timetable while another leads, so that a take-over need not."""
        changes = self._call(self._tables.changes())
        if changes != self._changes:
            self._call(self._tables.read())
            self._changes = changes

    def _end(self) -> None:
        if self._term is None:
            return
        try:
            self._term.end()
        except (PenstockError, Deposed) as error:
            log.warning("another beat leads when the lease has run out: %s", error)

    def _check_clashes(self) -> None:
        try:
            stored = self._call(self._tables.read())
        except BrokerError as error:
            log.warning("what was added at run time could not be read, and is looked at later: %s", error)
            return
        check_clashes(self._own.lines, stored)

    def _call(self, call: Coroutine[Any, Any, T]) -> T:
        return self._app.engine.run(bounded(call, PATIENCE, self._app.engine.url))


def own_lines(app: Penstock) -> Mapping[str, Line]:
    """The lines of the app's code. Raises `ConfigError`."""
    lines = {}
    for name, written in app.periodic.items():
        try:
            lines[name] = line_of(app, name, written)
        except (PenstockError, TypeError) as error:  # a TypeError: its arguments do not fit the task
            raise ConfigError(f"schedule {name!r}: {error}") from error
    return lines


def catch_signals(beat: Beat) -> None:
    """TERM, INT and QUIT stop it."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        beat.stop()

    for caught in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(caught, stop)
