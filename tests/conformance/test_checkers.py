"""The checkers are worth something: each promise, broken on purpose in the memory engine, is seen by its area."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from penstock.broker import DONE, Answer, Demand, Done, Full, Held, LeaseLost, Lost, Step
from penstock.delivery import Delivery, Receipt, RetryAt, Settlement
from penstock.effects import Effect, Join, Publish
from penstock.engines.memory import accepting, inspect_face, settling
from penstock.engines.memory.backend_face import MemoryBackend
from penstock.engines.memory.broker_face import MemoryBroker
from penstock.engines.memory.coordinator_face import MemoryCoordinator
from penstock.engines.memory.pausing import Waiters
from penstock.engines.memory.records import Gathering, Lane, Line, Task
from penstock.engines.memory.shelf import Shelf
from penstock.engines.memory.store import Store
from penstock.message import Message
from penstock.outcome import Outcome, Report, State
from penstock.testing.conformance import Kit, Violation, kit, run, told
from tests.conformance import mutants_of_limits, mutants_of_shedding
from tests.conformance.kits import MemoryKit

# Each is what the function of the same place would be if somebody had got it wrong.


def no_fence(store: Store, receipt: Receipt) -> Task | None:
    return store.leased.get(receipt[1])


right_settle = settling.settle


def settles_twice(store: Store, settlement: Settlement) -> Done | LeaseLost:
    right_settle(store, settlement)
    return DONE


def effects_of_the_lost(store: Store, settlement: Settlement) -> Done | LeaseLost:
    answer = right_settle(store, settlement)
    if answer is not DONE:
        for effect in settlement.effects:
            settling.apply_effect(store, Task("", "", "", "", 0, "", b"", 0.0, 0), effect)
    return answer


def outcome_of_the_lost(store: Store, settlement: Settlement) -> Done | LeaseLost:
    answer = right_settle(store, settlement)
    if answer is not DONE and settlement.outcome is not None:
        store.shelf.store(settlement.receipt[1], settlement.outcome, None, None)
    return answer


right_publish = accepting.publish


def one_by_one(store: Store, batch: Sequence[Message]) -> list[Answer]:
    return [answer for message in batch for answer in right_publish(store, [message])]


def bounded_follow_up(store: Store, message: Message) -> Answer:
    return right_publish(store, [message])[0]


async def publishes_what_follows(self: MemoryBroker, batch: Sequence[Message], timeout: float) -> Sequence[Answer]:
    return await self.publish(batch, timeout)


right_effect = settling.apply_effect


def loses_follow_ups(store: Store, task: Task, effect: Effect) -> None:
    if not isinstance(effect, Publish):
        right_effect(store, task, effect)


def counts_repeats(store: Store, effect: Join) -> None:
    gathering = store.gatherings.setdefault(effect.id, Gathering())
    gathering.values[len(gathering.values)] = effect.value
    if len(gathering.values) == effect.size:
        body = settling.array(list(gathering.values.values()), "json")
        accepting.follow_up(store, replace(effect.then, body=body))


def joins_unordered(store: Store, effect: Join) -> None:
    gathering = store.gatherings.setdefault(effect.id, Gathering())
    if gathering.closed is None:
        gathering.values.setdefault(effect.index, effect.value)
        if len(gathering.values) == effect.size:
            body = settling.array(list(gathering.values.values()), "json")
            accepting.follow_up(store, replace(effect.then, body=body))
            gathering.closed = 1.0


def puts_any_version(store: Store, key: str, value: bytes | None, if_version: int | None) -> int | None:
    return right_put(store, key, value, None)


right_put = settling.put
right_place = Store.place


def never_delays(self: Store, task: Task, due: float | None) -> None:
    right_place(self, task, None)


def never_promotes(self: Store) -> int:
    return 0


def lowest_first(self: Line, may_go: Callable[[str], bool]) -> str | None:
    return next((task for lane in self.lanes if (task := lane.first(may_go)) is not None), None)


right_take = Lane.take


def keeps_its_turn(self: Lane, task: Task) -> None:
    turns = self._turns.copy()
    right_take(self, task)
    kept = [one for one in turns if one in self._turns]
    self._turns.clear()
    self._turns.extend(kept)


right_store = Shelf.store


def overwrites(self: Shelf, task_id: str, outcome: Outcome, task: str | None, queue: str | None) -> bool:
    self.forget(task_id)
    return right_store(self, task_id, outcome, task, queue)


def never_tells(self: Shelf, report: Report) -> None:
    self._listeners.pop(report.id, None)


def always_pending(self: MemoryBackend, task_id: str) -> Report:
    return self._store.shelf.report(task_id) or Report(task_id, State.PENDING)


right_give_back = Store.give_back


def charges_releases(self: Store, task: Task, *, charge: bool) -> None:
    right_give_back(self, task, charge=True)


def gives_back_to_the_end(self: Store, task: Task, *, charge: bool) -> None:
    task.order = next(self.numbers)
    right_give_back(self, task, charge=charge)


async def leaves_as_if_dead(self: MemoryCoordinator, worker: str) -> None:
    await self.bury(worker)


def extends_to_the_letter(self: MemoryBroker, receipt: Receipt, until: float) -> Held | Lost:
    task = settling.held(self._store, receipt)
    if task is None:
        return Lost()
    task.until = until
    return Held(until)


def gives_back_revoked(self: Store, task: Task, *, charge: bool) -> None:
    task.revoked = False
    right_give_back(self, task, charge=charge)


right_claim = settling.claim


def ignores_limit(store: Store, want: Demand) -> list[Delivery]:
    return right_claim(store, replace(want, limit=1000))


def ignores_bytes(store: Store, want: Demand) -> list[Delivery]:
    return right_claim(store, replace(want, max_bytes=1 << 40))


def drops_damage(store: Store, want: Demand) -> list[Delivery]:
    return [delivery for delivery in right_claim(store, want) if delivery.message is not None]


right_retry = settling.retry_at


def keeps_the_old_message(store: Store, task: Task, retry: RetryAt) -> None:
    right_retry(store, task, RetryAt(retry.when, None, retry.charge))


def retries_under_a_new_id(store: Store, task: Task, retry: RetryAt) -> None:
    store.lift(task)
    store.end(task, None)
    message = retry.message or settling.read(task.data)[0]
    assert message is not None
    accepting.publish(store, [replace(message, id=None, eta=retry.when)])


async def depth_of_ready(self: MemoryBroker, queue: str, namespace: str = "") -> int:
    line = self._store.lines.get((namespace, queue))
    return (
        0 if line is None else sum(1 for task in self._store.tasks.values() if task.queue == queue and not task.token)
    )


def always_held(self: MemoryBroker, receipt: Receipt, until: float) -> Held:
    return Held(until)


async def same_token(self: MemoryCoordinator, name: str, holder: str, ttl: float) -> int:
    return 1


def never_full(store: Store, line: Line, count: int, size: int) -> Full | None:
    return None


def nothing_known(self: Store, task_id: str) -> bool:
    return False


def forgets_the_ended(self: Store, task_id: str) -> bool:
    return task_id in self.tasks


def no_keys(self: accepting.Keys, message: Message, task_id: str) -> list[accepting.Displaced]:
    self.fresh.add(task_id)
    return []


def never_frees(self: Store, task: Task, *moments: str) -> None:
    pass


def frees_for_anybody(self: Store, task: Task, key: str) -> None:
    self.uniques.pop((task.namespace, key), None)


right_revive = inspect_face.MemoryInspect._revive


def keeps_counts(self: inspect_face.MemoryInspect, dead: Task) -> None:
    right_revive(self, dead)
    self._store.tasks[dead.id].data = dead.data


async def purges_nothing(self: inspect_face.MemoryInspect, queue: str, namespace: str = "") -> int:
    return 0


def never_rings(self: Waiters) -> None:
    self.rings += 1


def never_interrupts(self: MemoryBroker) -> None:
    pass


async def never_settles(self: MemoryBroker, settle: Sequence[Settlement], want: Demand | None) -> Step:
    return Step([DONE for _ in settle], [])


def yes(*_: object) -> bool:
    return True


def no(*_: object) -> bool:
    return False


MUTANTS: list[tuple[str, object, str, Callable[..., Any]]] = [
    ("publish", Store, "known", nothing_known),
    ("publish", Store, "known", forgets_the_ended),
    ("step", settling, "settle", settles_twice),
    ("step", settling, "claim", ignores_limit),
    ("step", settling, "claim", ignores_bytes),
    ("step", settling, "retry_at", keeps_the_old_message),
    ("step", settling, "retry_at", retries_under_a_new_id),
    ("step", Store, "give_back", charges_releases),
    ("step", Waiters, "ring", never_rings),
    ("step", MemoryBroker, "interrupt", never_interrupts),
    ("step", MemoryBroker, "step", never_settles),
    ("lease", settling, "held", no_fence),
    ("lease", settling, "settle", outcome_of_the_lost),
    ("lease", settling, "settle", effects_of_the_lost),
    ("lease", Store, "tidy", never_promotes),
    ("lease", Store, "started", yes),
    ("lease", MemoryBroker, "_extend", always_held),
    ("lease", MemoryBroker, "_extend", extends_to_the_letter),
    ("lease", Store, "give_back", gives_back_to_the_end),
    ("bound", accepting, "find_full", never_full),
    ("bound", accepting, "publish", one_by_one),
    ("bound", settling, "follow_up", bounded_follow_up),
    ("bound", MemoryBroker, "follow_up", publishes_what_follows),
    ("bound", MemoryBroker, "depth", depth_of_ready),
    ("delay", Store, "place", never_delays),
    ("delay", Store, "tidy", never_promotes),
    ("priority", Line, "first", lowest_first),
    ("partition", Lane, "take", keeps_its_turn),
    ("guards", accepting.Keys, "hold", no_keys),
    ("guards", Store, "_free_uniques", never_frees),
    ("guards", Store, "free_unique", frees_for_anybody),
    ("guards", accepting, "is_current", yes),
    *mutants_of_limits.MUTANTS,
    *mutants_of_shedding.MUTANTS,
    ("effects", settling, "apply_effect", loses_follow_ups),
    ("effects", settling, "settle", effects_of_the_lost),
    ("effects", settling, "join", counts_repeats),
    ("effects", settling, "join", joins_unordered),
    ("effects", settling, "put", puts_any_version),
    ("result", Shelf, "store", overwrites),
    ("result", Shelf, "_tell", never_tells),
    ("result", MemoryBackend, "_report", always_pending),
    ("revoke", Store, "give_back", gives_back_revoked),
    ("coordination", MemoryCoordinator, "leave", leaves_as_if_dead),
    ("coordination", Store, "started", yes),
    ("coordination", Store, "started", no),
    ("coordination", MemoryCoordinator, "acquire", same_token),
    ("coordination", settling, "put", puts_any_version),
    ("inspect", settling, "claim", drops_damage),
    ("inspect", inspect_face.MemoryInspect, "_revive", keeps_counts),
    ("inspect", inspect_face.MemoryInspect, "purge", purges_nothing),
]
"""(the area that must see it, where, what, broken how)."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "HANG", 0.3)
    monkeypatch.setattr(told, "HANG", 0.3)


@pytest.mark.parametrize(
    ("area", "where", "what", "how"), [pytest.param(*one, id=f"{one[0]}-{one[3].__name__}") for one in MUTANTS]
)
def test_a_broken_promise_is_seen(
    area: str, where: object, what: str, how: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, what, how)
    report = run(functools.partial(MemoryKit, blocking=True), [area])
    seen = [failure for failure in report.failures if isinstance(failure.error, Violation)]
    assert seen, f"nobody saw it; {report}"


class Featureless(MemoryKit):
    """An engine that claims to lack what it does not refuse: a default that lies."""

    def __init__(self) -> None:
        super().__init__(blocking=True)
        self.features = self.broker.features = replace(
            self.features, delay=False, bound="none", effects=frozenset({"Publish"})
        )


@pytest.mark.parametrize("area", ["delay", "bound", "effects"])
def test_what_is_neither_kept_nor_refused_is_seen(area: str) -> None:
    report = run(Featureless, [area])
    assert any("was not refused" in str(failure.error) for failure in report.failures)


def test_the_report_says_what_failed_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "find_full", never_full)
    report = run(functools.partial(MemoryKit, blocking=True), ["bound"])
    assert not report.ok
    assert "bound: check_full_adds_nothing" in str(report)
    assert "wanted Full" in str(report)


def test_a_run_without_checks_is_no_success() -> None:
    assert not run(functools.partial(MemoryKit, blocking=True), []).ok


def test_an_unknown_area_is_refused() -> None:
    with pytest.raises(KeyError, match="bounds"):
        run(functools.partial(MemoryKit, blocking=True), ["bounds"])


def test_every_kit_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[Kit] = []
    monkeypatch.setattr(Kit, "close", lambda kit: closed.append(kit))
    monkeypatch.setattr(accepting, "find_full", never_full)
    report = run(functools.partial(MemoryKit, blocking=True), ["bound"])
    assert len(closed) == report.passed + len(report.failures)
