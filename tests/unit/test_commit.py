"""Two servers: in which order the ordered committer does things, and what it leaves undone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, cast

import pytest
from msgspec.structs import replace

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
from penstock.delivery import ACK, RELEASE, Delivery, Receipt, RetryAt, Settlement
from penstock.effects import Publish, Put, ReleaseKey
from penstock.engine import Engine
from penstock.engines.memory import open_engine
from penstock.errors import BrokerUnavailable, OutcomeUnknown, Unsupported
from penstock.message import VERSION, Message
from penstock.outcome import Outcome, Report, State

SUCCESS = Outcome(State.SUCCESS, b"1", 5.0)
NEXT = Publish(Message(VERSION, "next", b"[]", id="1-next"))


class Two:
    """A broker and a results engine, which write down what they are asked, in one list."""

    def __init__(
        self,
        leases: Sequence[Lease] = (),
        effects: frozenset[str] = frozenset(),
        answer: Any = None,
        ended: Sequence[str] = (),
        knows_ids: bool = True,
    ) -> None:
        self.features = Features(
            "fake", atomic_settle=False, max_batch=2, effects=effects, guards=frozenset(), knows_ids=knows_ids
        )
        self.backend = self.broker = self.coordinator = self
        self.ended = set(ended)
        self.deliveries: list[Delivery] = []
        self.down = False
        self.said: list[Any] = []
        self._leases = list(leases)
        self._answer = answer

    async def extend(self, receipts: Sequence[Receipt], lease: float) -> Sequence[Lease]:
        self.said.append(("extend", list(receipts)))
        return [self._leases.pop(0) if self._leases else Held(None) for _ in receipts]

    async def store(self, outcomes: Sequence[tuple[str, Outcome]]) -> Sequence[bool]:
        self.said.append(("store", [(key, outcome.state) for key, outcome in outcomes]))
        return [key not in self.ended for key, _ in outcomes]

    async def fetch(self, ids: Sequence[str]) -> Sequence[Report]:
        if self.down:
            raise BrokerUnavailable("the results are down")
        self.said.append(("fetch", list(ids)))
        return [Report(id, State.SUCCESS if id in self.ended else State.UNKNOWN) for id in ids]

    async def put(self, key: str, value: bytes | None, if_version: int | None = None) -> int:
        self.said.append(("put", key, value))
        return 1

    async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
        self.said.append(("follow_up", [message.id for message in batch]))
        return [self._answer or Accepted(message.id or "") for message in batch]

    async def step(self, settle: Sequence[Settlement], want: Demand | None) -> Step:
        self.said.append(("step", list(settle)))
        deliveries, self.deliveries = self.deliveries if want else [], []
        return Step([DONE] * len(settle), deliveries)

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

    apublish = arun

    def committer(self) -> OrderedCommitter:
        return OrderedCommitter(cast(Broker, self), cast(Engine, self), ManualClock())

    def step_of(self, *settle: Settlement) -> Coroutine[Any, Any, Step]:
        return self.committer().step(settle, None)

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


def test_state_that_the_broker_does_not_keep_is_put_beside_the_results() -> None:
    two, results = Two(effects=frozenset({"ReleaseKey"})), open_engine("memory://")
    two.features = replace(two.features, coordination=False)
    results.run(results.coordinator.put("graph", b"g"))
    committer = OrderedCommitter(cast(Broker, two), results, ManualClock())
    put = item(1, ACK, None, Put("graph", None), Put("other", b"o"), ReleaseKey("k"))
    with pytest.raises(StopIteration):
        committer.step([put], None).send(None)
    assert two.said == [("extend", [("lease", 1)]), ("step", [bare(1, ACK, ReleaseKey("k"))])]
    assert results.run(results.coordinator.get("graph")) is None
    assert results.run(results.coordinator.get("other"))[0] == b"o"


def test_a_graph_is_there_before_its_tasks_and_goes_after_the_last() -> None:
    results = open_engine("memory://")

    class Looking(Two):
        async def follow_up(self, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
            there = [await results.coordinator.get(key) is not None for key in ("new", "old")]
            self.said.append(("there", there))
            return await super().follow_up(batch, timeout)

    two = Looking(knows_ids=False)
    two.features = replace(two.features, coordination=False)
    results.run(results.coordinator.put("old", b"g"))
    committer = OrderedCommitter(cast(Broker, two), results, ManualClock())
    ends = item(1, ACK, None, Put("old", None), Put("new", b"n", 0), NEXT)
    with pytest.raises(StopIteration):
        committer.step([ends], None).send(None)
    assert ("there", [True, True]) in two.said
    assert results.run(results.coordinator.get("old")) is None


def test_on_a_loop_the_other_engine_is_awaited() -> None:
    two = Two()
    asyncio.run(two.step_of(item(1)))
    assert "arun" in two.said and "run" not in two.said


def test_a_repeat_publishes_only_what_has_not_ended_since() -> None:
    two = Two(ended=["id-1", "a"])
    nexts = [Publish(Message(VERSION, "next", b"[]", id=id)) for id in ("a", "b")]
    two.commit(item(1, ACK, SUCCESS, *nexts), item(2, ACK, SUCCESS, NEXT))
    assert [said for said in two.said if said[0] in ("fetch", "follow_up")] == [
        ("fetch", ["a", "b"]),
        ("follow_up", ["b", "1-next"]),
    ]


WANT = Demand(("q",), 5, "worker")


def taken(committer: OrderedCommitter) -> list[object]:
    with pytest.raises(StopIteration) as stop:
        committer.step([], WANT).send(None)
    return [delivery.key for delivery in stop.value.value.deliveries]


def arriving(two: Two, *keys: int) -> None:
    two.deliveries = [Delivery(("lease", key), key, None, redelivered=key < 10) for key in keys]


def test_what_is_delivered_again_and_has_ended_is_acknowledged_instead() -> None:
    two = Two(ended=["id-1", "id-11"], knows_ids=False)
    arriving(two, 1, 2, 11)
    assert taken(two.committer()) == [2, 11]
    assert two.said == [("step", []), "run", ("fetch", ["id-1", "id-2"]), ("step", [bare(1)])]


def test_nobody_is_asked_where_ids_are_known() -> None:
    two = Two(ended=["id-1"])
    arriving(two, 1)
    assert taken(two.committer()) == [1]
    assert two.said == [("step", [])]


def test_what_cannot_be_decided_now_is_handed_out_when_it_can() -> None:
    two = Two(ended=["id-1"], knows_ids=False)
    committer = two.committer()
    arriving(two, 1, 2, 11)
    two.down = True
    assert taken(committer) == [11]
    with pytest.raises(BrokerUnavailable):  # before anything is done: the step may be repeated
        committer.step([], WANT).send(None)
    two.down = False
    two.said.clear()
    assert taken(committer) == [2]
    assert two.said[-2:] == [("step", [bare(1)]), ("step", [])]


def test_where_no_results_are_kept_none_are_stored_or_asked_for() -> None:
    two = Two(knows_ids=False)
    arriving(two, 1)
    committer = OrderedCommitter(cast(Broker, two), None, ManualClock())
    with pytest.raises(StopIteration):
        committer.step([item(5)], WANT).send(None)
    assert two.said == [("extend", [("lease", 5)]), ("step", [bare(5)])]


def test_a_result_has_the_id_that_its_delivery_told() -> None:
    two = Two()
    committer = two.committer()
    two.deliveries = [Delivery(("lease", 1), "chosen", None)]
    assert taken(committer) == ["chosen"]
    for _ in range(2):  # then it is forgotten, and the receipt has to do
        with pytest.raises(StopIteration):
            committer.step([item(1)], None).send(None)
    assert [said for said in two.said if said[0] == "store"] == [
        ("store", [("id-chosen", State.SUCCESS)]),
        ("store", [("id-1", State.SUCCESS)]),
    ]


def test_what_follows_comes_before_the_end_where_ids_are_not_known() -> None:
    """Else a worker that died in between would leave an end, for which the task is not run again, and no follow-up."""
    two = Two(knows_ids=False, ended=["a"])
    committer = two.committer()
    arriving(two, 1, 11)
    taken(committer)
    two.said.clear()
    nexts = [Publish(Message(VERSION, "next", b"[]", id=id)) for id in ("a", "b")]
    with pytest.raises(StopIteration):
        committer.step([item(1, ACK, SUCCESS, *nexts), item(11, ACK, SUCCESS, NEXT)], None).send(None)
    assert [said for said in two.said if said != "run"] == [
        ("extend", [("lease", 1), ("lease", 11)]),
        ("fetch", ["a", "b"]),
        ("follow_up", ["b", "1-next"]),
        ("store", [("id-1", State.SUCCESS), ("id-11", State.SUCCESS)]),
        ("step", [bare(1), bare(11)]),
    ]


def test_a_graph_goes_before_the_end_where_ids_are_not_known() -> None:
    """Else it stayed for ever when a worker died in between: what has ended is not settled again."""
    broker, results = Two(knows_ids=False), Two()
    broker.features = replace(broker.features, coordination=False)
    broker.said = results.said
    committer = OrderedCommitter(cast(Broker, broker), cast(Engine, results), ManualClock())
    with pytest.raises(StopIteration):
        committer.step([item(1, ACK, SUCCESS, NEXT, Put("graph", None))], None).send(None)
    assert [said for said in results.said if said != "run"] == [
        ("extend", [("lease", 1)]),
        ("follow_up", ["1-next"]),
        ("put", "graph", None),
        ("store", [("id-1", State.SUCCESS)]),
        ("step", [bare(1)]),
    ]


def test_of_two_copies_of_one_task_that_end_together_the_first_end_is_stored() -> None:
    """A publish that is repeated makes two of them, where ids are not known."""
    two = Two(knows_ids=False)
    committer = two.committer()
    two.deliveries = [Delivery(("lease", 1), "chosen", None), Delivery(("lease", 2), "chosen", None)]
    assert taken(committer) == ["chosen", "chosen"]
    two.said.clear()
    other = Outcome(State.FAILURE, b"2", 5.0)
    with pytest.raises(StopIteration) as done:
        committer.step([item(1), item(2, ACK, other)], None).send(None)
    assert [said for said in two.said if said[0] == "store"] == [("store", [("id-chosen", State.SUCCESS)])]
    assert list(done.value.value.settled) == [DONE, DONE]
