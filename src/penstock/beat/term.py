"""A term: the time for which one beat leads. It publishes what comes due, and writes down how far it has come.

Whatever it writes is fenced: a publish by the token of its lease, the position by its version. So a beat that was
frozen, and believes to lead when it wakes up, changes nothing, and learns that it is deposed.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import Struct

from penstock.beat.agenda import Agenda
from penstock.beat.backlog import Backlog
from penstock.beat.line import Line, Tick
from penstock.beat.place import prefix_of
from penstock.beat.reconcile import in_force, reconciled
from penstock.beat.stored import Position, Record, Timetables, by_shard
from penstock.beat.vouching import check_vouched
from penstock.blocking import bounded
from penstock.broker import Answer, Fenced, Full
from penstock.errors import BrokerError, PenstockError
from penstock.message import Fence
from penstock.worker.outage import Outage

if TYPE_CHECKING:
    from penstock.app import Penstock

LOOK = 1.0
"""Seconds between two looks for changes of the timetable, and at the clock, which may have been set."""
NOTE = 1.0
"""Seconds between two notes of the position while ticks are published. Those since the last are published again by who
takes over, and recognised."""
SIGN_OF_LIFE = 15.0
"""The same while nothing comes due."""
JUMP = 60.0
"""Seconds that the clock may be set back: then ticks wait until it shows the old time again. Beyond that it was wrong
before, or is now, and is believed."""
SKEW = 3600.0
"""The same between two machines: what this one's clock may be behind that of the one that led before."""
BATCH = 256
"""Ticks in one publish."""
SHOWN = 5
"""Schedules that are named in one line of the log."""
PATIENCE = 5.0
"""Seconds that a call of the coordinator may take."""

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("penstock.beat")


class Deposed(Exception):
    """Another beat leads."""


class Own(Struct, frozen=True):
    """What the app's code says, as lines and as they are stored: made once, so that a take-over need not."""

    lines: Mapping[str, Line]
    records: Mapping[str, Record]


class Term:
    def __init__(self, app: Penstock, own: Own, tables: Timetables, holder: str, token: int) -> None:
        """The lease is held by `holder` with `token`. What `tables` have read already is not read again."""
        self._app, self._own, self._written, self._holder = app, own.lines, own.records, holder
        self._tables = tables
        self._engine = app.engine
        self._coordinator = self._engine.coordinator
        self._name = prefix_of(app)
        self._fence = Fence(self._name, token)
        self._records: dict[str, Record] = {}
        self._backlog = Backlog()
        self._agenda = Agenda((), 0.0, 0.0)
        self._era = self._version = 0
        """Of the position."""
        self._outage = Outage("publishing what is due")
        now = app.clock.monotonic()
        self._renewed = self._looked = self._noted = now
        self._drift = app.clock.time() - now
        self._changes = 0
        self._published = False
        """Ticks were published since the position was noted."""

    # -- its begin and end

    def begin(self) -> None:
        """Read where the one before had come to, and the timetable. Raises `Deposed`, `BrokerError`."""
        stored = self._call(self._tables.read())
        mine = [name for name, record in stored.items() if record.origin == "app"]
        now = self._app.clock.time()
        self._store_own({*self._own, *mine}, now)
        self._changes = self._call(self._tables.changes())
        self._records = self._call(self._tables.read())
        position, self._version = self._call(self._tables.position())
        done, self._era = self._resumed(position, now)
        self._start_from(done, now)
        log.info("leading with token %d; schedules: %d", self._fence.token, len(self._agenda))

    def end(self) -> None:
        """Write down how far it has come, and let another lead at once."""
        self._note(self._app.clock.time())
        self._call(self._coordinator.resign(self._name, self._holder))

    def _resumed(self, position: Position | None, now: float) -> tuple[float, int]:
        """Up to when all is dealt with, and the era. A clock that is far behind that of the one before is believed;
        then its time begins anew."""
        if position is None:
            return now, 0
        behind = position.moment - now
        if behind > SKEW:
            log.warning("the clock is %.0f s behind the last beat's: its time is taken for the right one", behind)
            return now, position.era + 1
        if behind > 1.0:
            log.warning("the clock is %.0f s behind the last beat's: ticks wait until it has caught up", behind)
        return position.moment, position.era

    def _start_from(self, done: float, now: float) -> None:
        self._agenda = Agenda((), done, now)
        self._note(now)  # first: who led before is deposed by it
        self._agenda = Agenda(self._keeping(self._lines(self._records.values())), done, now)

    # -- one turn

    def turn(self) -> float:
        """Do what is due. Returns the seconds until there is something to do. Raises `Deposed`."""
        try:
            now, monotonic = self._app.clock.time(), self._app.clock.monotonic()
            self._renew(monotonic)
            self._look(now, monotonic)
            self._watch_clock(now, monotonic)
            self._collect(now)
            self._publish(now)
            self._keep_position(now)
            self._outage.over()
        except BrokerError as error:
            return self._outage.go_on(error)
        return self._patience()

    def _renew(self, monotonic: float) -> None:
        if monotonic - self._renewed < self._app.conf.beat_lease / 3:
            return
        token = self._call(self._coordinator.acquire(self._name, self._holder, self._app.conf.beat_lease))
        if token != self._fence.token:
            raise Deposed("the lease ran out, and is another's now" if token is None else "the lease had run out")
        self._renewed = monotonic

    def _look(self, now: float, monotonic: float) -> None:
        """Take up what was changed in the timetable."""
        if monotonic - self._looked < LOOK:
            return
        self._looked = monotonic
        changes = self._call(self._tables.changes())
        if changes == self._changes:
            return
        records = self._call(self._tables.read())
        changed = [record for name, record in records.items() if self._records.get(name) != record]
        gone = [name for name in self._records if name not in records]
        strange = [name for name in (*gone, *(record.name for record in changed)) if self._is_strange(name, records)]
        if strange:
            log.warning("another beat has written what this app's code does not say; put right: %s", _named(strange))
            self._store_own(strange, now)
            return  # the next look takes it up
        self._backlog.forget([*gone, *(record.name for record in changed)])
        self._agenda.change(self._lines(changed), [*gone, *(record.name for record in changed)], now)
        self._records, self._changes = records, changes
        log.info("the timetable was changed; new or others: %d, removed: %d", len(changed), len(gone))

    def _watch_clock(self, now: float, monotonic: float) -> None:
        drift, self._drift = self._drift, now - monotonic
        jump = self._drift - drift
        if jump > JUMP:
            log.warning(
                "the clock went forward by %.0f s: what came due meanwhile is caught up as each schedule says", jump
            )
        elif jump < -JUMP:
            log.warning("the clock was set back by %.0f s: its new time is taken for the right one", -jump)
            self._era += 1
            self._start_from(now, now)

    def _collect(self, now: float) -> None:
        came = self._agenda.due(now)
        for name, error in came.failed:
            log.error("schedule %s failed, and is left out until a beat leads anew: %s", name, error)
        if came.skipped:
            log.warning("ticks were missed, and are skipped as catch_up says, of %s", _named(came.skipped))
        replaced = self._backlog.add(came.ticks)
        if replaced:
            log.info(
                "newer ticks take the place of those that wait, of %s", _named([one.line.name for one in replaced])
            )
        late = self._backlog.drop_late(now)
        if late:
            log.warning(
                "ticks could not be published in time, and are dropped, of %s", _named([t.line.name for t in late])
            )

    def _publish(self, now: float) -> None:
        for ticks in self._backlog.ready(self._app.clock.monotonic()):
            for begin in range(0, len(ticks), BATCH):
                if not self._publish_batch(ticks[begin : begin + BATCH], now):
                    break
                self._renew(self._app.clock.monotonic())

    def _publish_batch(self, ticks: Sequence[Tick], now: float) -> bool:
        """Whether the queue takes more."""
        messages = [tick.message(self._app.name, self._era, self._fence, now) for tick in ticks]
        try:
            answers = self._engine.run(self._app.client.publish(messages))
        except BrokerError:
            raise
        except Exception as error:  # a message that is too large, middleware that refuses: of one, not of all
            if len(ticks) == 1:
                log.error("schedule %s: a tick cannot be published, and is dropped: %s", ticks[0].line.name, error)
                self._backlog.done(ticks)
                return True
            return self._publish_halves(ticks, now)
        if len(ticks) > 1 and any(isinstance(answer, Full) for answer in answers):
            return self._publish_halves(ticks, now)  # there may be room for some
        return self._settle(ticks, answers)

    def _publish_halves(self, ticks: Sequence[Tick], now: float) -> bool:
        half = len(ticks) // 2
        return self._publish_batch(ticks[:half], now) and self._publish_batch(ticks[half:], now)

    def _settle(self, ticks: Sequence[Tick], answers: Sequence[Answer]) -> bool:
        queue = ticks[0].line.message.queue
        self._published = True
        full = next((answer for answer in answers if isinstance(answer, Full)), None)
        if full is None and self._backlog.accepted(queue):
            log.warning("queue %s takes tasks again", queue)
        self._backlog.done(
            tick for tick, answer in zip(ticks, answers, strict=True) if not isinstance(answer, Full | Fenced)
        )
        if any(isinstance(answer, Fenced) for answer in answers):
            raise Deposed("the broker says that another beat leads")
        if full is None:
            return True
        if self._backlog.refused(queue, full.retry_after, self._app.clock.monotonic()):
            log.warning("queue %s is full: ticks wait until it takes tasks again, as their schedules allow", queue)
        return False

    def _keep_position(self, now: float) -> None:
        since = self._app.clock.monotonic() - self._noted
        if since >= (NOTE if self._published else SIGN_OF_LIFE):
            self._note(now)

    def _note(self, now: float) -> None:
        """Write the position. What waits is not behind it. Raises `Deposed` when somebody else has written it."""
        waiting = self._backlog.oldest()
        done = self._agenda.done
        moment = done if waiting is None else min(done, waiting - 1e-6)
        position = Position(moment, self._era, self._holder, now)
        version = self._call(self._tables.move(position, self._version))
        if version is None:
            raise Deposed("another beat has gone on from where this one was")
        self._version, self._published, self._noted = version, False, self._app.clock.monotonic()

    def _patience(self) -> float:
        now, monotonic = self._app.clock.time(), self._app.clock.monotonic()
        waits = [
            self._renewed + self._app.conf.beat_lease / 3 - monotonic,
            self._looked + LOOK - monotonic,
            self._noted + (NOTE if self._published else SIGN_OF_LIFE) - monotonic,
        ]
        fires, again = self._agenda.wake(), self._backlog.wake(monotonic)
        if fires is not None:
            waits.append(fires - now)
        if again is not None:
            waits.append(again)
        return max(0.0, min(waits))

    def _store_own(self, names: Iterable[str], now: float) -> None:
        """Make what is stored what the app's code says."""
        for some in by_shard(names):
            self._renew(self._app.clock.monotonic())
            self._call(self._tables.change(some, lambda name, record: reconciled(self._written.get(name), record, now)))

    def _is_strange(self, name: str, records: Mapping[str, Record]) -> bool:
        """Not what a leader with this code has stored: a beat with another one may have been frozen as it began to
        lead."""
        return reconciled(self._written.get(name), records.get(name), 0.0) != records.get(name)

    # -- what they share

    def _call(self, call: Coroutine[Any, Any, R]) -> R:
        return self._engine.run(bounded(call, PATIENCE, self._engine.url))

    def _keeping(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with the lease renewed meanwhile: there may be 100,000."""
        for number, item in enumerate(items):
            if number % 200 == 0:
                self._renew(self._app.clock.monotonic())
            yield item

    def _lines(self, records: Iterable[Record]) -> Iterator[Line]:
        """Those that can be used here; of the others, why not."""
        for record in records:
            if record.origin == "added" and record.name in self._own:
                log.error("schedule %s of the app's code is left out: another was added under its name", record.name)
            try:
                if record.origin == "added" or record.name not in self._own:
                    check_vouched(record, self._app.pipeline.trust)
                line = in_force(record, self._own)
            except PenstockError as error:
                log.error("schedule %s cannot be read, and is left out: %s", record.name, error)
                continue
            if line is None:
                log.error("schedule %s is left out: this app's code does not know it", record.name)
                continue
            yield line


def _named(names: Sequence[str]) -> str:
    """A few of them: there may be 100,000."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN:,} others"
