"""What was answered last, for clients that did not hear it: kept in memory by session, and written along with what was
answered, so that it is known after this process has died.

On disk it is a ring: neighbours in time are neighbours in the file, or each answer would cost a page of its own. What
counts after a crash is what had not been heard by then: the newest of it, which is read when the file is opened.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from penstock.engines.sqlite.database import Database

RING = 65_536
"""Answers on disk."""
MARKS = 64
"""Answers of one session."""
SESSIONS = 20_000
"""Sessions; those that were silent for longest go first."""

Answer = tuple[int, int, bytes]
"""Session, mark, and the answer in its client's form."""


class Heard:
    def __init__(self, db: Database) -> None:
        self._db = db
        self._by_session: OrderedDict[int, dict[int, bytes]] = OrderedDict()
        self._next = 0
        for slot, session, mark, answer in db.read(
            lambda: db.query("SELECT slot, session, mark, answer FROM heard ORDER BY at, slot").fetchall()
        ):
            self._next = slot + 1
            self._keep(session, mark, answer)

    def write(self, answers: Sequence[Answer], now: float) -> None:
        """Inside the transaction of what they tell."""
        first, self._next = self._next, (self._next + len(answers)) % RING
        rows = [((first + n) % RING, session, mark, now, answer) for n, (session, mark, answer) in enumerate(answers)]
        self._db.executemany("INSERT OR REPLACE INTO heard VALUES (?, ?, ?, ?, ?)", rows)

    def keep(self, answers: Sequence[Answer]) -> None:
        """When that is committed; or at once, for what need not survive this process."""
        for session, mark, answer in answers:
            self._keep(session, mark, answer)

    def _keep(self, session: int, mark: int, answer: bytes) -> None:
        marks = self._by_session.get(session)
        if marks is None:
            marks = self._by_session[session] = {}
            if len(self._by_session) > SESSIONS:
                self._by_session.popitem(last=False)
        else:
            self._by_session.move_to_end(session)
        marks[mark] = answer
        if len(marks) > MARKS:
            del marks[next(iter(marks))]

    def find(self, session: int, mark: int) -> bytes | None:
        """What was answered under this mark, if that is remembered."""
        marks = self._by_session.get(session)
        return None if marks is None else marks.get(mark)

    def forget(self, session: int) -> None:
        """It asks for nothing again."""
        self._by_session.pop(session, None)
