"""The table of docs/guides/canvas.md: how what follows ends, when a part of a canvas gives no value."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest
from msgspec.structs import replace

from penstock import (
    ConfigError,
    MessageTooLarge,
    ResultUnavailable,
    State,
    TaskRevoked,
    WorkerLost,
    chain,
    chord,
    group,
)
from penstock.broker import LEASE_LOST, Demand, Features
from penstock.canvas import Canvas
from penstock.clock import ManualClock
from penstock.coordinator import Revoked
from penstock.delivery import ACK, Settlement
from penstock.message import graph_key, start_key
from penstock.outcome import Outcome
from penstock.worker.graphs import Graphs
from penstock.worker.parts import Parts
from penstock.worker.settings import WorkerOptions
from penstock.worker.worker import Worker
from tests.unit.canvas.workshop import Workshop


def states(*results: Any) -> list[State]:
    return [result.state for result in results]


def line(result: Any) -> list[Any]:
    """A chain's results, the first first."""
    found = [result]
    while found[0].parent is not None:
        found.insert(0, found[0].parent)
    return found


def is_over(shop: Workshop, result: Any) -> bool:
    """Its graph is gone, and nothing waits."""
    stored = shop.app.engine.run(shop.app.engine.coordinator.get(graph_key(result._place.graph)))
    return stored is None and not shop.app.engine.run(shop.app.broker.depth("default"))


def test_a_failed_link_ends_all_after_it_with_its_error(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.fail.s(), shop.add.s(1), shop.add.s(1)).delay()
    shop.run()
    assert states(*line(result)) == [State.SUCCESS, State.FAILURE, State.FAILURE, State.FAILURE]
    with pytest.raises(ValueError, match="no 1") as failed:
        result.get(timeout=5)
    assert f"task fail[{line(result)[1].id}] failed before this one could start" in failed.value.__notes__[0]
    assert shop.count("add") == 0
    assert is_over(shop, result)


def test_a_failed_member_fails_the_body_when_all_have_ended(shop: Workshop) -> None:
    result = chord([shop.give.s(1), shop.fail.s(2), shop.fail.s(3), shop.give.s(4)], shop.total.s()).delay()
    shop.run()
    with pytest.raises(ValueError, match="no 2"):
        result.get(timeout=5)
    assert states(*result.parent) == [State.SUCCESS, State.FAILURE, State.FAILURE, State.SUCCESS]
    assert (shop.count("total"), is_over(shop, result)) == (0, True)


def test_the_chains_beside_a_failed_one_go_on(shop: Workshop) -> None:
    good = chain(shop.give.s(1), shop.add.s(1), shop.add.s(1))
    result = chord([chain(shop.fail.s(), shop.give.s()), good], shop.total.s()).delay()
    shop.run()
    assert states(result, *result.parent) == [State.FAILURE, State.FAILURE, State.SUCCESS]
    assert shop.count("add") == 2
    assert is_over(shop, result)


def test_a_failed_inner_chord_fails_the_outer_one(shop: Workshop) -> None:
    inner = chord([shop.fail.s(7), shop.give.s(1)], shop.total.s())
    result = chain(chord([inner, shop.give.s(1)], shop.total.s()), shop.add.s(1)).delay()
    shop.run()
    with pytest.raises(ValueError, match="no 7"):
        result.get(timeout=5)
    assert is_over(shop, result)


def test_a_failed_member_of_a_group_in_the_middle(shop: Workshop) -> None:
    result = chain(group(shop.fail.s(1), shop.give.s(1)), group(shop.give.s(), shop.total.s()), shop.give.s()).delay()
    shop.run()
    assert result.state is State.FAILURE
    assert is_over(shop, result)


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("shape", ["chain", "group", "chord"])
def test_canvas_errors_do_not_vanish_when_nested(shop: Workshop, shape: str, depth: int) -> None:
    canvas: Canvas[Any] = chain(shop.fail.s("luck"), shop.give.s())
    for _ in range(depth):
        match shape:
            case "chain":
                canvas = chain(canvas, shop.give.s())
            case "group":
                canvas = group(shop.give.s(1), canvas)
            case _:
                canvas = chord([canvas, shop.give.s(1)], shop.give.s())
    result = chain(canvas.on_error(shop.tell.s()), shop.give.s()).delay()
    shop.run()
    with pytest.raises(ValueError, match="no luck"):
        result.get(timeout=5)
    assert [told["message"] for told in shop.errors] == ["no luck"]
    assert is_over(shop, result)


def test_an_ignored_link_revokes_what_follows(shop: Workshop) -> None:
    result = chain(shop.ignore.s(), shop.add.s(1)).on_error(shop.tell.s()).delay()
    both = chord([shop.ignore.s(), shop.give.s(1)], shop.total.s()).delay()
    shop.run()
    assert states(result, both) == [State.REVOKED, State.REVOKED]
    with pytest.raises(TaskRevoked):
        result.get(timeout=5)
    assert shop.errors == []
    assert is_over(shop, result)
    assert is_over(shop, both)


def test_a_rejected_link_is_a_failed_one(shop: Workshop) -> None:
    result = chain(shop.reject.s(), shop.add.s(1)).delay()
    shop.run()
    assert states(*line(result)) == [State.FAILURE, State.FAILURE]
    assert is_over(shop, result)


def test_an_expired_link_revokes_what_follows(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.add.s(1).set(expires=1e-9), shop.add.s(1)).delay()
    shop.run()
    assert states(*line(result)) == [State.SUCCESS, State.REVOKED, State.REVOKED]
    assert is_over(shop, result)


def test_arguments_that_do_not_fit_fail_what_follows(shop: Workshop) -> None:
    result = chain(shop.give.s("text"), shop.add.s(1), shop.add.s(1)).delay()
    shop.run()
    assert states(*line(result)) == [State.SUCCESS, State.FAILURE, State.FAILURE]
    assert is_over(shop, result)


def test_failure_goes_before_revocation(shop: Workshop) -> None:
    result = chord([shop.ignore.s(), shop.fail.s(1), shop.give.s(1)], shop.give.s()).delay()
    shop.run()
    assert result.state is State.FAILURE


def test_values_that_look_like_failures_are_values(shop: Workshop) -> None:
    strange = ['!"', '[!"x"', ',!"', "!", '"!"', "\\", {"!": '!"'}]
    result = chord([shop.give.s(value) for value in strange], shop.give.s()).delay()
    shop.run()
    assert result.get(timeout=5) == strange


# -- error calls


def test_error_calls_are_told_once_for_a_chain(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.fail.s(), shop.add.s(1), shop.add.s(1)).on_error(shop.tell.s()).delay()
    shop.run()
    assert result.state is State.FAILURE
    [told] = shop.errors
    failed = line(result)[1]
    assert (told["id"], told["task"], told["error"], told["message"]) == (failed.id, "fail", "ValueError", "no 1")


def test_error_calls_of_a_link_that_did_not_start_are_told(shop: Workshop) -> None:
    later = shop.add.s(1).on_error(shop.tell.s())
    result = chain(shop.fail.s(1), later, shop.add.s(1)).delay()
    shop.run()
    [told] = shop.errors
    assert (told["id"], told["task"], told["error"]) == (line(result)[1].id, "add", "ValueError")


def test_error_calls_of_a_chord_are_told_once(shop: Workshop) -> None:
    chord([shop.fail.s(1), shop.fail.s(2)], shop.total.s()).on_error(shop.tell.s()).delay()
    shop.run()
    assert [told["message"] for told in shop.errors] in (["no 1"], ["no 2"])


def test_error_calls_of_one_task(shop: Workshop) -> None:
    call = shop.fail.s(1)
    call.link_error(shop.tell.s())
    call.link_error(shop.add.si(1, 2))
    result = call.delay()
    good = shop.give.s(1)
    good.link_error(shop.tell.s())
    good.delay()
    shop.run()
    assert result.state is State.FAILURE
    assert len(shop.errors) == 1
    assert shop.count("add") == 1


# -- revoking


def test_a_revoked_waiting_link_ends_what_follows(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.add.s(1)).delay()
    assert result.parent.revoke() is Revoked.REMOVED
    shop.run()
    assert states(result, result.parent) == [State.REVOKED, State.REVOKED]
    assert shop.made == []
    assert is_over(shop, result)


def test_a_revoked_member_ends_the_body(shop: Workshop) -> None:
    result = chord([shop.give.s(1), shop.give.s(2), shop.give.s(3)], shop.total.s()).delay()
    assert result.parent[1].revoke() is Revoked.REMOVED
    assert result.parent[1].revoke() is Revoked.ENDED
    shop.run()
    assert states(result, *result.parent) == [State.REVOKED, State.SUCCESS, State.REVOKED, State.SUCCESS]
    assert is_over(shop, result)


def test_a_link_that_is_revoked_before_it_is_published(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.add.s(1), shop.add.s(1), shop.add.s(1)).delay()
    assert line(result)[2].revoke() is Revoked.REMEMBERED
    shop.run()
    assert states(*line(result)) == [State.SUCCESS, State.SUCCESS, State.REVOKED, State.REVOKED]
    assert shop.count("add") == 1


def test_a_group_is_revoked(shop: Workshop) -> None:
    result = group(shop.give.s(1), chain(shop.give.s(2), shop.add.s(1))).delay()
    assert result.revoke() == [Revoked.REMOVED, Revoked.REMEMBERED]
    shop.run()
    assert states(*result) == [State.REVOKED, State.REVOKED]
    assert shop.made == [("give", 2)]


def test_a_dead_letter_that_is_retried_does_not_start_what_has_ended(shop: Workshop, caplog: Any) -> None:
    result = chain(shop.fail.s(1), shop.add.s(1)).delay()
    shop.run()
    [letter] = shop.app.engine.run(shop.app.engine.inspect.dead_letters())
    shop.app.engine.run(shop.app.engine.inspect.retry_dead([letter.id]))
    with caplog.at_level(logging.WARNING):
        shop.run()
    assert shop.count("add") == 0
    assert result.state is State.FAILURE


def test_a_result_that_was_forgotten_is_not_waited_for(shop: Workshop) -> None:
    result = chain(shop.give.s(1), shop.add.s(1)).delay()
    shop.run()
    result.forget()
    with pytest.raises(ResultUnavailable):
        result.get(timeout=5)


def test_more_values_than_a_message_takes_fail_the_body(shop: Workshop) -> None:
    large = "x" * 1_000_000
    result = chord([shop.give.s(large) for _ in range(8)], shop.give.s()).delay()
    relayed = chain(group(shop.give.s(large) for _ in range(8)), group(shop.give.s(), shop.give.s())).delay()
    shop.run()
    with pytest.raises(MessageTooLarge, match="gathered for it take more than"):
        result.get(timeout=5)
    assert states(*relayed) == [State.FAILURE] * 2


def test_a_value_larger_than_a_message_fails_its_task(shop: Workshop) -> None:
    result = chain(shop.grow.s(17), shop.give.s()).delay()
    shop.run()
    with pytest.raises(MessageTooLarge, match="the message of 'give' after it"):
        result.get(timeout=5)
    assert result.parent.failed()


def test_a_task_that_its_worker_acknowledges_early_is_not_started(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = shop.app.task(name="early")(lambda value: value)
    monkeypatch.setattr(Features, "notes_starts", False)
    result = chain(shop.give.s(1), early.s(), shop.give.s()).delay()
    early.options = replace(early.options, acks_late=False)  # as a worker with other code may have it
    shop.run()
    with pytest.raises(ConfigError, match="nothing could follow it in a canvas"):
        result.get(timeout=5)


def test_what_runs_at_most_once_is_part_of_a_canvas(shop: Workshop) -> None:
    once: Any = shop.app.task(name="once", acks_late=False)(lambda value: value)
    result = chain(shop.give.s(1), once.s(), shop.give.s()).delay()
    shop.run()
    assert (result.get(timeout=5), shop.made) == (1, [("give", 1), ("give", 1)])


def test_what_is_lost_with_its_worker_fails_what_follows(shop: Workshop) -> None:
    once: Any = shop.app.task(name="once", acks_late=False)(lambda value: value)
    result = chain(once.s(1), shop.give.s()).delay()
    engine = shop.app.engine
    engine.run(engine.broker.step([], Demand(("default",), 1, "dead")))
    engine.run(engine.coordinator.put(start_key(result.parent.id), b"dead", 0))  # it has started
    engine.run(engine.coordinator.bury("dead"))
    shop.run()
    assert states(result.parent, result) == [State.FAILURE, State.FAILURE]
    with pytest.raises(WorkerLost, match="acks_late=False"):
        result.get(timeout=5)
    assert shop.made == [] and engine.run(engine.coordinator.get(start_key(result.parent.id))) is None


def test_a_revoked_running_task_ends_what_follows() -> None:
    shop, started = Workshop("memory://"), threading.Event()

    @shop.app.task(name="hold", bind=True)
    def hold(self: Any, value: Any = None) -> None:
        started.set()
        for _ in range(2_000):
            if self.cancelled:
                return
            time.sleep(0.005)

    result = chain(hold.s(1), shop.give.s()).delay()
    worker = Worker(shop.app, WorkerOptions(pool="threads", concurrency=1, loglevel="CRITICAL"))
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        assert started.wait(5)
        assert result.parent.revoke() is Revoked.RUNNING
        with pytest.raises(TaskRevoked):
            result.get(timeout=5)
    finally:
        worker.stop()
        thread.join()
    assert result.parent.state is State.REVOKED


def test_a_lease_that_is_lost_in_the_middle_of_a_chord() -> None:
    clock = ManualClock()
    shop = Workshop("memory://", clock=clock)
    app = shop.app
    result = chord([shop.give.s(n) for n in range(3)], shop.total.s()).delay()
    # One member is with a worker that is late: its end comes when another has run that member again.
    engine, want = app.engine, Demand(("default",), 1, "late", lease=10.0)
    [late] = engine.run(app.broker.step([], want)).deliveries
    Graphs(app).attach([late])
    assert late.message is not None and late.message.options is not None and late.message.options.place is not None
    parts = Parts(app.broker.public_id, 1 << 20)
    effects = parts.after(late, late.message, late.message.options.place, b"1000", "json", clock.time())
    clock.advance(11.0)
    shop.run()
    outcome = Outcome(State.SUCCESS, b"1000", clock.time())
    [answer] = engine.run(app.broker.step([Settlement(late.receipt, ACK, outcome, effects)], None)).settled
    assert answer is LEASE_LOST
    shop.run()
    assert (result.get(timeout=5), shop.count("total"), sorted(result.parent.get(timeout=5))) == (3, 1, [0, 1, 2])
    assert is_over(shop, result)
