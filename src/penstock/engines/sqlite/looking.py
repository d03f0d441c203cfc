"""Looking up tasks by id, in a snapshot: where the row is tells the state."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.broker import Key
from penstock.engines.sqlite import results
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.ids import lane_of
from penstock.engines.sqlite.registry import Registered
from penstock.errors import DecodeError
from penstock.message import Message, start_key, unpack
from penstock.outcome import Progress, Report, State
from penstock.public_ids import PublicIds


class Lookup:
    """Everything here runs inside `Database.read`."""

    def __init__(self, db: Database, ids: PublicIds, registry: Registered) -> None:
        self._db = db
        self._ids = ids
        self._registry = registry

    def row(self, key: Key) -> int | None:
        """The row id of a key: minted here, or chosen by somebody. `None`: never seen."""
        if isinstance(key, int):
            return key
        minted = self._ids.number(key)
        if minted is not None:
            return minted
        found = self._db.query("SELECT id FROM alias WHERE name = ?", (key,)).fetchone()
        return found[0] if found else None

    def public_id(self, row: int) -> str:
        """The chosen id of a row, else the one made from it."""
        chosen = self._db.query("SELECT name FROM alias WHERE id = ?", (row,)).fetchone()
        return chosen[0] if chosen else self._ids.make(row)

    def may_have_ended(self, row: int) -> bool:
        """`False` for a task that is surely still here: a cheap question, before the whole report."""
        return self._db.query("SELECT 1 FROM task WHERE id = ?", (row,)).fetchone() is None

    def has_ended(self, row: int) -> bool:
        """It has an outcome, or is a dead letter."""
        if results.find(self._db.query, row) is not None:
            return True
        return self._db.query("SELECT 1 FROM dead WHERE id = ?", (row,)).fetchone() is not None

    def reports(self, keys: Sequence[Key]) -> list[Report]:
        return [self.report(key) for key in keys]

    def report(self, key: Key) -> Report:
        row = self.row(key)
        if row is None:
            return self._unseen(str(key))
        public = key if isinstance(key, str) else self.public_id(row)
        ended = results.find(self._db.query, row)
        if ended is not None:
            task, worker, outcome = ended
            return Report(public, outcome.state, outcome, task, self._queue(row), outcome.retries, worker)
        waiting = self._db.query("SELECT due, body FROM task WHERE id = ?", (row,)).fetchone()
        if waiting is not None:
            return self._live(public, row, *waiting)
        dead = self._db.query("SELECT body FROM dead WHERE id = ?", (row,)).fetchone()
        if dead is not None:
            message = _read(dead[0])
            return Report(public, State.FAILURE, None, message.task if message else None, self._queue(row))
        return Report(public, State.UNKNOWN)

    def _unseen(self, name: str) -> Report:
        revoked = self._db.query("SELECT 1 FROM revoked_name WHERE name = ?", (name,)).fetchone()
        return Report(name, State.REVOKED if revoked else State.UNKNOWN)

    def _live(self, public: str, row: int, due: float | None, body: bytes) -> Report:
        message = _read(body)
        task, retries = (message.task, message.retries) if message else (None, 0)
        worker = None
        state = State.RETRY if retries else State.PENDING
        if due is None:
            lease = self._db.query(
                "SELECT token, worker FROM lease WHERE ? BETWEEN lo AND hi ORDER BY token DESC LIMIT 1", (row,)
            ).fetchone()
            if lease is not None and ((lease[0], row) in self._registry.started(lease[1]) or self._is_noted(public)):
                state, worker = State.STARTED, lease[1]
        return Report(public, state, None, task, self._queue(row), retries, worker, self._progress(row))

    def _is_noted(self, public: str) -> bool:
        """Its start is in the shared state (see `penstock.worker.early`)."""
        return self._db.query("SELECT 1 FROM state WHERE key = ?", (start_key(public),)).fetchone() is not None

    def _queue(self, row: int) -> str | None:
        found = self._db.query(
            "SELECT q.name FROM lane l JOIN queue q ON q.id = l.queue WHERE l.id = ?", (lane_of(row),)
        ).fetchone()
        return found[0] if found else None

    def _progress(self, row: int) -> Progress | None:
        found = self._db.query("SELECT done, total, note FROM progress WHERE id = ?", (row,)).fetchone()
        return Progress(*found) if found else None


def _read(body: bytes) -> Message | None:
    try:
        return unpack(body)
    except DecodeError:
        return None
