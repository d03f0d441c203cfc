"""Any sequence of operations on full queues that shed: both engines in Python shed the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import Phase, settings

from penstock.engines.sqlite.ids import lane_of
from penstock.message import Message, Options, Place, unpack
from penstock.queue import Queue
from penstock.shedding import is_spared
from tests.conformance.test_model import Model


class Shedding(Model):
    declared = (Queue("a", 6, overflow="drop-oldest"), Queue("b", 6, overflow="shed-lowest-priority"))

    def message(self, body: bytes, **fields: Any) -> Message:
        """Those with much to say are parts of a canvas, which nobody sheds."""
        options = Options(place=Place("0" * 32, 1)) if len(body) > 2 else None
        return Message(1, "t", body, options=options, **fields)

    def sent(self) -> float:
        """No two at once: which of two goes that came at once is nobody's promise."""
        self.clock.advance(0.001)
        return self.clock.time()

    def retry_dead(self, ids: Sequence[Sequence[str]]) -> None:
        """What is retried before a claim passed its place may be shed again, by the embedded engine alone."""
        db, lookup = self.embedded.store.db, self.embedded.store.lookup
        for pair in zip(*ids, strict=True):
            row = db.read(lambda name=pair[1]: lookup.row(name))  # type: ignore[misc]  # mypy: lambda default
            if row is None:
                continue  # it is forgotten
            passed = db.query("SELECT ?1 < head OR ?1 >= tail FROM lane WHERE id = ?2", (row, lane_of(row))).fetchone()
            if passed[0]:
                self.same(lambda engine, side, both=pair: engine.inspect.retry_dead([both[side]]))  # type: ignore[misc]

    def check_rows(self) -> None:
        """What is remembered of lanes is true of what is in them."""
        super().check_rows()
        db = self.embedded.store.db
        lanes = db.query("SELECT id, head, tail, holes, spared_lo, spared_hi, eligible FROM lane WHERE id > 0")
        for lane, head, tail, holes, low, high, eligible in lanes.fetchall():
            rows = dict(db.query("SELECT id, body FROM task WHERE id >= ? AND id < ?", (head, tail)).fetchall())
            assert 0 <= holes <= tail - head - len(rows), lane
            assert all(is_spared(unpack(body)) for row, body in rows.items() if low <= row < high), lane
            assert eligible or not rows, lane


TestShedding = Shedding.TestCase
TestShedding.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
