"""Two servers: in which order the ordered committer does things, and what it leaves undone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, cast

import pytest

from penstock.broker import (
    DONE,
    LEASE_LOST,
    Accepted,
    Answer,
    Broker,
    Cancelled,
    Demand,
    Features,
    Full,
    Held,
    Lease,
    Lost,
    Step,
)
from penstock.clock import ManualClock
from penstock.commit import OrderedCommitter
from penstock.delivery import ACK, RELEASE, Receipt, RetryAt, Settlement
from penstock.effects import Publish, Put, ReleaseKey
from penstock.engine import Engine
from penstock.errors import OutcomeUnknown, Unsupported
from penstock.message import VERSION, Message
from penstock.outcome import Outcome, State

SUCCESS = Outcome(State.SUCCESS, b"1", 5.0)
NEXT = Publish(Message(VERSION, "next", b"[]", id="1-next"))


class Two:
    """A broker and a results engine, which write down what they are asked, in one list."""

    def __init__(self, leases: Sequence[Lease] = (), effects: frozenset[str] = frozenset(), answer: Any = None) -> None:
        self.features = Features("fake", atomic_settle=False, max_batch=2, effects=effects, guards=frozenset())
        self.backend = self
        self.said: list[Any] = []
        self._leases = list(leases)
        self._answer = answer

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        self.said.append(("extend", list(receipts)))
        return [self._leases.pop(0) if self._leases else Held(None) for _ in receipts]

    async def store(self, outcomes: Sequence[tuple[str, Outcome]]) -> Sequence[bool]:
        self.said.append(("store", [(key, outcome.state) for key, outcome in outcomes]))
        return [True] * len(outcomes)

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        self.said.append(("follow_up", [message.id for message in batch]))
        return [self._answer or Accepted(message.id or "") for message in batch]

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        self.said.append(("step", list(settle)))
        return Step([DONE] * len(settle), [])

    def public_id(self, key: object) -> str:
        return f"id-{key}"

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        self.said.append("run")
        with pytest.raises(StopIteration) as stop:
            call.send(None)
        return stop.value.value

    async def arun(self, call: Coroutine[Any, Any, Any]) -> Any:
        self.said.append("arun")
        return await call

    def step_of(self, *settle: Settlement) -> Coroutine[Any, Any, Step]:
        clock = ManualClock()
        return OrderedCommitter(cast(Broker, self), cast(Engine, self), clock).step(settle, None)

    def commit(self, *settle: Settlement) -> Sequence[Any]:
        """As an embedded engine would run it: on a thread without a loop."""
        try:
            self.step_of(*settle).send(None)
        except StopIteration as stop:
            return list(stop.value.settled)
        raise AssertionError("nothing here waits")


def item(number: int, verdict: Any = ACK, outcome: Outcome | None = SUCCESS, *effects: Any) -> Settlement:
    return Settlement(("lease", number), verdict, outcome, effects)


def bare(number: int, verdict: Any = ACK, *effects: Any) -> Settlement:
    return Settlement(("lease", number), verdict, None, effects)


def test_the_lease_first_then_the_result_then_what_follows_then_the_verdict() -> None:
    two = Two()
    assert two.commit(item(1, ACK, SUCCESS, NEXT)) == [DONE]
    assert two.said == [
        ("extend", [("lease", 1)]),
        "run",
        ("store", [("id-1", State.SUCCESS)]),
        ("follow_up", ["1-next"]),
        ("step", [bare(1)]),
    ]


def test_what_lost_its_lease_is_left_alone_and_answered_in_its_place() -> None:
    two = Two([Held(None), Lost(), Held(None)])
    assert two.commit(item(1), item(2, ACK, SUCCESS, NEXT), item(3)) == [DONE, LEASE_LOST, DONE]
    assert two.said[2:] == [("store", [("id-1", State.SUCCESS), ("id-3", State.SUCCESS)]), ("step", [bare(1), bare(3)])]


def test_nobody_is_asked_about_what_the_broker_does_by_itself() -> None:
    two = Two(effects=frozenset({"ReleaseKey"}))
    plain = bare(1, ACK, ReleaseKey("k"))
    assert two.commit(plain) == [DONE]
    assert two.said == [("step", [plain])]


def test_a_revoked_task_that_is_given_back_has_ended() -> None:
    again = RetryAt(9.0)
    two = Two([Cancelled(False), Held(None), Cancelled(True)])
    two.commit(bare(1, RELEASE), bare(2, RELEASE), bare(3, again))
    assert ("store", [("id-1", State.REVOKED), ("id-3", State.REVOKED)]) in two.said
    assert two.said[-1] == ("step", [bare(1, RELEASE), bare(2, RELEASE), bare(3, again)])


def test_many_follow_ups_go_in_batches_that_the_broker_takes() -> None:
    two = Two()
    two.commit(item(1, ACK, None, *[Publish(Message(VERSION, "next", b"[]", id=str(n))) for n in range(3)]))
    assert two.said[1:3] == [("follow_up", ["0", "1"]), ("follow_up", ["2"])]


def test_what_follows_and_is_not_accepted_is_not_settled() -> None:
    two = Two(answer=Full("q", 1, 1, "tasks", 1.0))
    with pytest.raises(OutcomeUnknown, match="1 of 1 follow-ups"):
        two.commit(item(1, ACK, SUCCESS, NEXT))
    assert two.said[-1] == ("follow_up", ["1-next"])


def test_an_effect_that_the_broker_lacks_is_refused_before_anything_is_done() -> None:
    two = Two()
    with pytest.raises(Unsupported, match="no Put effect"):
        two.commit(item(1), item(2, ACK, SUCCESS, Put("k", b"v")))
    assert two.said == []


def test_on_a_loop_the_other_engine_is_awaited() -> None:
    two = Two()
    asyncio.run(two.step_of(item(1)))
    assert "arun" in two.said and "run" not in two.said
