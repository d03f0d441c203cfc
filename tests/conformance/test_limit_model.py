"""Any sequence of operations on limited messages: engines hand out as many of each key as the time line says, no more
and no fewer, however the messages lie in queues, priorities and partitions.

All messages of a key cost the same here, so that their number says everything, and their order nothing.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from msgspec.structs import replace

from penstock.broker import DONE, Demand
from penstock.clock import ManualClock
from penstock.delivery import ACK, RELEASE, Dead, Delivery, RetryAt, Settlement, Verdict
from penstock.engine import Engine
from penstock.engines.memory.handle import MemoryEngine
from penstock.engines.memory.shelf import Shelf
from penstock.engines.memory.store import Store
from penstock.engines.sqlite import open_engine
from penstock.limiting import Limiter, admit, renewed
from penstock.message import Limit, Message

QUEUES, KEYS = ("a", "b"), ("", "x", "y", "z")
LIMITS = (Limit("x", concurrency=1), Limit("y", 2.0, 4.0, None, 2.5), Limit("z", 0.3, 1.0, 3, 7.0))
COSTS = {limit.key: limit.cost for limit in LIMITS}
LEASE = 20.0


class LimitModel(RuleBasedStateMachine):
    """What waits and what is leased, by key; `""` is no limit."""

    @initialize()
    def open(self) -> None:
        self.folder, self.clock = tempfile.TemporaryDirectory(), ManualClock()
        self.engine = self.made()
        self.limits = {limit.key: limit for limit in LIMITS}
        self.limiters = {key: Limiter() for key in COSTS}
        self.waiting: Counter[tuple[str, str]] = Counter()
        self.delayed: list[tuple[float, str, str]] = []
        self.held: list[tuple[str, str, float, Delivery]] = []
        for queue in QUEUES:  # whatever rules come, there is something to hand out
            for key in KEYS:
                self.put(queue, key, 4, 5, "", None)

    def made(self) -> Engine:
        return MemoryEngine(Store(self.clock, Shelf(self.clock)))

    @rule(
        queue=st.sampled_from(QUEUES),
        key=st.sampled_from(KEYS),
        count=st.integers(1, 6),
        priority=st.sampled_from([2, 5]),
        partition=st.sampled_from(["", "p", "q"]),
        delay=st.sampled_from([None, None, 5.0]),
        newer=st.sampled_from([None, None, None, None, Limit("", 2.0, 1.0), Limit("", None, 1.0, 2), Limit("")]),
    )
    def publish(
        self, queue: str, key: str, count: int, priority: int, partition: str, delay: float | None, newer: Limit | None
    ) -> None:
        if key and newer is not None:
            self.limits[key] = replace(newer, key=key, cost=COSTS[key])
        self.put(queue, key, count, priority, partition, delay)

    def put(self, queue: str, key: str, count: int, priority: int, partition: str, delay: float | None) -> None:
        now = self.clock.time()
        guards: tuple[Limit, ...] = ()
        if key:
            guards = (self.limits[key],)
            self.limiters[key] = renewed(self.limiters[key], guards[0], now)
        eta = None if delay is None else now + delay
        message = Message(
            1, key or "free", b"[]", queue=queue, priority=priority, partition=partition, eta=eta, guards=guards
        )
        self.engine.run(self.engine.broker.publish([replace(message) for _ in range(count)], 5))
        if eta is None:
            self.waiting[queue, key] += count
        else:
            self.delayed += [(eta, queue, key)] * count

    @rule(queues=st.sampled_from([("a",), ("b",), ("b", "a")]), limit=st.sampled_from([2, 1_000]))
    def claim(self, queues: tuple[str, ...], limit: int) -> None:
        now = self.clock.time()
        want = Demand(queues, limit, "w", lease=LEASE)
        taken: Counter[str] = Counter()
        while deliveries := self.engine.run(self.engine.broker.step([], want)).deliveries:
            for delivery in deliveries:
                assert delivery.message is not None
                queue, key = delivery.message.queue, delivery.message.task.removeprefix("free")
                self.waiting[queue, key] -= 1
                self.held.append((queue, key, now + LEASE, delivery))
                taken[key] += 1
            if limit < 1_000:
                break
        due = {key: self.may_go(queues, key, taken[key], now) for key in KEYS}
        for key, most in due.items():
            assert taken[key] <= most, f"{taken[key]} of {key!r} were handed out, {most} may go"
        if limit == 1_000:
            assert taken == Counter({key: most for key, most in due.items() if most}), (taken, due)
        elif sum(due.values()):
            assert taken, f"nothing was handed out, of {due}"
        for key, count in taken.items():
            if key:
                self.limiters[key] = admit(self.limiters[key], [COSTS[key]] * count, 0, now).after

    def may_go(self, queues: tuple[str, ...], key: str, taken: int, now: float) -> int:
        """How many of the key could be handed out before the claim that took `taken`."""
        there = sum(self.waiting[queue, key] for queue in queues) + taken
        if not key:
            return there
        leased = sum(one[1] == key for one in self.held) - taken
        return admit(self.limiters[key], [COSTS[key]] * there, leased, now).count

    @rule(data=st.data(), verdict=st.sampled_from([ACK, RELEASE, Dead("x"), "again", "later"]))
    @precondition(lambda self: self.held)
    def settle(self, data: st.DataObject, verdict: Any) -> None:
        now = self.clock.time()
        number = data.draw(st.integers(0, len(self.held) - 1))
        queue, key, _, delivery = self.held.pop(number)
        chosen: Verdict = verdict
        if verdict == "again":
            chosen = RetryAt(now, delivery.message)
        elif verdict == "later":
            chosen = RetryAt(now + 5.0, delivery.message)
            self.delayed.append((now + 5.0, queue, key))
        if verdict in (RELEASE, "again"):
            self.waiting[queue, key] += 1
        step = self.engine.run(self.engine.broker.step([Settlement(delivery.receipt, chosen)], None))
        assert list(step.settled) == [DONE]

    @rule(queue=st.sampled_from(QUEUES))
    def purge(self, queue: str) -> None:
        self.engine.run(self.engine.inspect.purge(queue))
        self.delayed = [one for one in self.delayed if one[1] != queue]
        for key in KEYS:
            self.waiting[queue, key] = 0

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 6.0, LEASE + 1]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.engine.run(self.engine.coordinator.reap())
        now = self.clock.time()
        for _, queue, key in [one for one in self.delayed if one[0] <= now]:
            self.waiting[queue, key] += 1
        self.delayed = [one for one in self.delayed if one[0] > now]
        for queue, key, _, _ in [one for one in self.held if one[2] <= now]:
            self.waiting[queue, key] += 1
        self.held = [one for one in self.held if one[2] > now]

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        depth = sum(self.waiting.values()) + len(self.delayed) + len(self.held)
        counted = sum(self.engine.run(self.engine.broker.depth(queue)) or 0 for queue in QUEUES)
        self.engine.close()
        self.folder.cleanup()
        assert counted == depth


class EmbeddedLimitModel(LimitModel):
    def made(self) -> Engine:
        return open_engine(f"sqlite:///{Path(self.folder.name)}/queue.db", clock=self.clock, durability="process")


QUICK = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
TestMemory, TestEmbedded = LimitModel.TestCase, EmbeddedLimitModel.TestCase
TestMemory.settings = TestEmbedded.settings = QUICK
