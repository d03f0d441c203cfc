"""Any sequence of operations on the memory engine and on the embedded one: the same tasks, states and counts.

Only what both promise is compared. Order is not: a claim takes all that is ready. Leases that ran out are taken back by
the memory engine at once and by the embedded one when it reaps, so time and reaping go together here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from penstock.broker import Accepted, Demand
from penstock.clock import ManualClock
from penstock.delivery import ACK, RELEASE, Dead, Delivery, Receipt, RetryAt, Settlement
from penstock.engine import Engine
from penstock.engines.memory.handle import MemoryEngine
from penstock.engines.memory.shelf import Shelf
from penstock.engines.memory.store import Store
from penstock.engines.sqlite import open_engine
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.message import Message
from penstock.outcome import Outcome, State
from penstock.queue import Queue

QUEUES = ("a", "b")
LEASE, SOON, LONG = 20.0, 5.0, 30.0
VERDICTS = ("result", "ack", "dead", "release", "again", "later", "charge")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


@dataclass
class Held:
    """One delivery of a task, in both engines."""

    number: int
    receipts: tuple[Receipt, Receipt]
    message: Message


class Model(RuleBasedStateMachine):
    declared = (Queue("a", 12, 2_000), Queue("b"))

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = ManualClock()
        embedded = open_engine(f"sqlite:///{Path(self.folder.name)}/queue.db", clock=self.clock, durability="process")
        assert isinstance(embedded, SqliteEngine)
        self.embedded = embedded
        self.engines: tuple[Engine, Engine] = (MemoryEngine(Store(self.clock, Shelf(self.clock))), embedded)
        for engine in self.engines:
            engine.run(engine.inspect.declare(self.declared))
        self.ids: list[tuple[str, str]] = []
        self.numbers: tuple[dict[str, int], dict[str, int]] = ({}, {})
        self.held: list[Held] = []
        self.lost: list[Held] = []

    def both(self, call: Callable[[Engine, int], Coroutine[Any, Any, Any]]) -> list[Any]:
        return [engine.run(call(engine, side)) for side, engine in enumerate(self.engines)]

    def same(self, call: Callable[[Engine, int], Coroutine[Any, Any, Any]]) -> Any:
        one, other = self.both(call)
        assert one == other, f"memory says {one!r}, sqlite {other!r}"
        return one

    @rule(
        queue=st.sampled_from(QUEUES),
        count=st.integers(1, 5),
        size=st.sampled_from([2, 300]),
        delay=st.sampled_from([None, SOON, LONG]),
        chosen=st.booleans(),
        priority=st.sampled_from([3, 5]),
    )
    def publish(self, queue: str, count: int, size: int, delay: float | None, chosen: bool, priority: int) -> None:
        sent = self.sent()
        eta = None if delay is None else self.clock.time() + delay
        names = [f"chosen-{len(self.ids) + number}" if chosen else None for number in range(count)]
        batch = [
            self.message(b"x" * size, id=name, queue=queue, eta=eta, priority=priority, sent=sent) for name in names
        ]
        # Bytes differ a little (one engine packs ids that the other derives), so near the bound in bytes so may they.
        levels = self.both(lambda engine, _: engine.inspect.queues())
        used = max(info.bytes for infos in levels for info in infos if info.name == queue)
        if used + (450 if size > 2 else 120) * count > next(
            one.max_bytes for one in self.declared if one.name == queue
        ):
            return
        answers = self.both(lambda engine, _: engine.broker.publish(batch, 5))
        kinds = [[type(answer) for answer in side] for side in answers]
        assert kinds[0] == kinds[1]
        for one, other in zip(*answers, strict=True):
            if isinstance(one, Accepted):
                pair = (self.engines[0].broker.public_id(one.key), self.engines[1].broker.public_id(other.key))
                for side in (0, 1):
                    self.numbers[side][pair[side]] = len(self.ids)
                self.ids.append(pair)

    def message(self, body: bytes, **fields: Any) -> Message:
        return Message(1, "t", body, **fields)

    def sent(self) -> float:
        """When a batch was sent."""
        return 1.0

    @rule(data=st.data())
    @precondition(lambda self: self.ids)
    def publish_again(self, data: st.DataObject) -> None:
        """A repeated id is recognised while its task is known."""
        number = data.draw(st.integers(0, len(self.ids) - 1))
        states = [report.state for report in self.reports(number)]
        if State.UNKNOWN in states or states[0].terminal:
            return
        again = self.both(
            lambda engine, side: engine.broker.publish([Message(1, "t", b"[]", id=self.ids[number][side])], 5)
        )
        assert [type(side[0]).__name__ for side in again] == ["Duplicate", "Duplicate"]

    @rule(worker=st.sampled_from(["v", "w"]), queues=st.sampled_from([("a",), ("b",), ("b", "a")]))
    def claim(self, worker: str, queues: tuple[str, ...]) -> None:
        want = Demand(queues, 1_000, worker, lease=LEASE)
        steps = self.both(lambda engine, _: engine.broker.step([], want))
        taken: list[dict[int, Delivery]] = [{}, {}]
        for side, step in enumerate(steps):
            for delivery in step.deliveries:
                taken[side][self.number(side, delivery)] = delivery
            assert len(taken[side]) == len(step.deliveries), "a task was delivered twice at once"
        assert taken[0].keys() == taken[1].keys()
        for number, one in taken[0].items():
            other = taken[1][number]
            assert one.message is not None
            assert other.message is not None
            assert (one.message.attempts, one.message.retries) == (other.message.attempts, other.message.retries)
            assert number not in [held.number for held in self.held], "delivered while its lease is held"
            self.held.append(Held(number, (one.receipt, other.receipt), other.message))

    def number(self, side: int, delivery: Delivery) -> int:
        return self.numbers[side][self.engines[side].broker.public_id(delivery.key)]

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def settle(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.held), min_size=1, unique_by=lambda held: held.number))
        verdicts = data.draw(st.lists(st.sampled_from(VERDICTS), min_size=len(chosen), max_size=len(chosen)))
        stale = data.draw(st.booleans()) and self.lost
        batches: list[list[Settlement]] = [[], []]
        for held, verdict in zip(chosen, verdicts, strict=True):
            for side in (0, 1):
                batches[side].append(self.settlement(held, verdict, side))
        if stale:
            for side in (0, 1):
                batches[side].insert(0, Settlement(self.lost[-1].receipts[side], ACK))
        self.same_settled(batches)
        for held in chosen:
            self.held.remove(held)
            self.lost.append(held)

    def same_settled(self, batches: list[list[Settlement]]) -> None:
        steps = self.both(lambda engine, side: engine.broker.step(batches[side], None))
        assert [type(one) for one in steps[0].settled] == [type(one) for one in steps[1].settled]

    def settlement(self, held: Held, verdict: str, side: int) -> Settlement:
        receipt, now = held.receipts[side], self.clock.time()
        done = Outcome(State.SUCCESS, b"%d" % held.number, now)
        message = replace(held.message, retries=held.message.retries + 1, body=held.message.body + b"longer")
        if side == 0:
            message = replace(message, id=self.ids[held.number][0])
        match verdict:
            case "result":
                return Settlement(receipt, ACK, done)
            case "ack":
                return Settlement(receipt, ACK)
            case "dead":
                return Settlement(receipt, Dead("x"), Outcome(State.FAILURE, b"{}", now))
            case "release":
                return Settlement(receipt, RELEASE)
            case "again":
                return Settlement(receipt, RetryAt(now, message))
            case "later":
                return Settlement(receipt, RetryAt(now + LONG, message))
        return Settlement(receipt, RetryAt(now + SOON, charge=True))

    @rule(data=st.data(), terminate=st.booleans())
    @precondition(lambda self: self.ids)
    def revoke(self, data: st.DataObject, terminate: bool) -> None:
        number = data.draw(st.integers(0, len(self.ids) - 1))
        # What the memory engine has dropped without an outcome it does not know any more, and remembers to refuse.
        if State.UNKNOWN in [report.state for report in self.reports(number)]:
            return
        # One that runs, and is then put off, ends at once in one engine and when it is due in the other.
        if number in [held.number for held in self.held]:
            return
        self.same(lambda engine, side: engine.coordinator.revoke([self.ids[number][side]], terminate))

    @rule(queue=st.sampled_from(QUEUES))
    def purge(self, queue: str) -> None:
        self.same(lambda engine, _: engine.inspect.purge(queue))

    @rule(queue=st.sampled_from(QUEUES), paused=st.booleans())
    def pause(self, queue: str, paused: bool) -> None:
        if paused:
            self.same(lambda engine, _: engine.inspect.pause(queue))
        else:
            self.same(lambda engine, _: engine.inspect.resume(queue))

    @rule(data=st.data(), drop=st.booleans())
    @precondition(lambda self: self.ids)
    def dead_letter(self, data: st.DataObject, drop: bool) -> None:
        numbers = data.draw(st.lists(st.integers(0, len(self.ids) - 1), max_size=3, unique=True))
        ids = [[self.ids[number][side] for number in numbers] for side in (0, 1)]
        if drop:
            self.same(lambda engine, side: engine.inspect.drop_dead(ids[side]))
        else:
            self.retry_dead(ids)

    def retry_dead(self, ids: Sequence[Sequence[str]]) -> None:
        self.same(lambda engine, side: engine.inspect.retry_dead(ids[side]))

    @rule(data=st.data())
    @precondition(lambda self: self.ids)
    def forget(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.ids) - 1))
        self.both(lambda engine, side: engine.backend.forget([self.ids[number][side]]))

    @rule(seconds=st.sampled_from([1.0, SOON, LEASE + 1, LONG]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.both(lambda engine, _: engine.coordinator.reap())
        if seconds > LEASE:
            self.lost += self.held
            late = [[self.settlement(held, "ack", side) for held in self.held] for side in (0, 1)]
            self.held = []
            self.same_settled(late)
            assert self.embedded.store.leases.tokens() == []
        else:
            self.both(lambda engine, side: engine.broker.extend([held.receipts[side] for held in self.held], LEASE))

    @rule(worker=st.sampled_from(["v", "w"]))
    def nobody_is_left_out(self, worker: str) -> None:
        self.both(lambda engine, _: engine.coordinator.renew([worker], LEASE))

    def reports(self, number: int) -> list[Any]:
        return [side[0] for side in self.both(lambda engine, side: engine.backend.fetch([self.ids[number][side]]))]

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "engines"):
            return
        # A claim, even of nothing, makes ready what is due.
        self.both(lambda engine, _: engine.broker.step([], Demand(("nothing",), 1, "v")))
        counts = self.both(lambda engine, _: engine.inspect.queues())
        for one, other in zip(*(self.counted(side) for side in counts), strict=True):
            assert one == other, f"memory counts {one}, sqlite {other}"
        for info in counts[1]:
            assert min(info.ready, info.leased, info.delayed) >= 0
            assert info.ready + info.leased + info.delayed == info.depth
        states = self.both(
            lambda engine, side: engine.backend.fetch([pair[side] for pair in self.ids]) if self.ids else nothing()
        )
        for number, (one, other) in enumerate(zip(*states, strict=True)):
            # Put off without an error: one engine calls that a retry.
            waiting = {one.state, other.state} <= {State.PENDING, State.RETRY}
            assert waiting or one.state == other.state, f"task {number}: memory says {one.state}, sqlite {other.state}"
        self.check_rows()

    def counted(self, infos: Sequence[Any]) -> list[tuple[Any, ...]]:
        return [
            (info.name, info.depth, info.ready + info.leased, info.delayed, info.dead, info.paused, info.shed)
            for info in sorted(infos, key=lambda info: str(info.name))
            if info.name in QUEUES
        ]

    def check_rows(self) -> None:
        """The counters of the embedded engine say what is in its tables."""
        db = self.embedded.store.db
        for depth, size, delayed, queue in db.query(
            "SELECT depth, bytes, delayed, -id FROM lane WHERE id < 0"
        ).fetchall():
            rows = db.query(
                "SELECT count(*), coalesce(sum(length(body)), 0), count(due) FROM task JOIN lane l"
                " ON l.id = task.id >> 45 WHERE l.queue = ?",
                (queue,),
            ).fetchone()
            assert (depth, size, delayed) == rows

    def teardown(self) -> None:
        if not hasattr(self, "engines"):
            return
        try:
            self.drain()
        finally:
            for engine in self.engines:
                engine.close()
            self.folder.cleanup()

    def drain(self) -> None:
        """Whatever happened, everything can be run to its end, and leaves nothing behind."""
        for queue in QUEUES:
            self.pause(queue, False)
        self.pass_time(LONG * 2)
        self.claim("v", QUEUES)
        self.same_settled([[self.settlement(held, "result", side) for held in self.held] for side in (0, 1)])
        self.agree()
        db = self.embedded.store.db
        for table in ("task", "lease", "returned", "revoked", "progress"):
            assert db.query(f"SELECT count(*) FROM {table}").fetchone() == (0,), table
        assert db.query("SELECT sum(eligible), sum(back) FROM lane WHERE id > 0").fetchone() in {(0, 0), (None, None)}


async def nothing() -> list[Any]:
    return []


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
