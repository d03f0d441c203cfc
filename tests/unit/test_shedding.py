"""What must leave a full queue, and what never does."""

import uuid

import pytest

from penstock.codec.failures import rebuild
from penstock.errors import TaskShed
from penstock.message import OWN_HEADERS, VERSION, Message, Options, Place, beginning_id, node_id
from penstock.outcome import State
from penstock.shedding import DROP_OLDEST, SHED_LOWEST, Excess, excess, is_spared, lowest, outcome, reason

GRAPH = uuid.uuid4().hex


def message(**fields: object) -> Message:
    return Message(VERSION, "shop.add", b"[]", **fields)  # type: ignore[arg-type]  # fields of a message


@pytest.mark.parametrize(
    ("brought", "depth", "bound", "leaves"),
    [
        ((1, 10), (4, 40), (5, 100), Excess(0, 0)),
        ((1, 10), (5, 50), (5, 100), Excess(1, 0)),
        ((3, 30), (4, 40), (5, 100), Excess(2, 0)),
        ((5, 50), (5, 50), (5, 100), Excess(5, 0)),
        ((6, 60), (0, 0), (5, 100), None),
        ((1, 30), (2, 80), (5, 100), Excess(0, 10)),
        ((1, 101), (0, 0), (5, 100), None),
        ((1, 30), (5, 80), (5, 100), Excess(1, 10)),
        # The bound was lowered: no more goes than comes.
        ((1, 10), (50, 500), (5, 100), Excess(1, 10)),
        ((2, 20), (50, 90), (5, 100), Excess(2, 10)),
    ],
)
def test_what_must_leave(
    brought: tuple[int, int], depth: tuple[int, int], bound: tuple[int, int], leaves: Excess | None
) -> None:
    assert excess(*brought, *depth, *bound) == leaves


@pytest.mark.parametrize(
    "fields",
    [
        {"retries": 1},
        {"attempts": 1},
        {"headers": {f"{OWN_HEADERS}snoozes": "1"}},
        {"options": Options(place=Place(GRAPH, 3))},
        {"id": node_id(GRAPH, 3)},
        {"id": beginning_id(GRAPH)},
    ],
)
def test_what_was_begun_or_is_part_of_a_canvas_is_spared(fields: dict[str, object]) -> None:
    assert is_spared(message(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"id": "order-1"},
        {"id": "order.begin"},
        {"id": f"{GRAPH}.other"},
        {"id": GRAPH},
        {"headers": {"from": "me"}},
        {"options": Options(10.0)},
        {"eta": 5.0},
    ],
)
def test_anything_else_may_go(fields: dict[str, object]) -> None:
    assert not is_spared(message(**fields))


def test_the_reason_says_which_queue_was_full_and_what_came() -> None:
    assert reason(SHED_LOWEST, "mail", "tasks", 1000, 5) == (
        "shed: queue 'mail' was full (limit 1,000 tasks) when a task of priority 5 came"
    )
    assert reason(DROP_OLDEST, "mail", "bytes", 1000, 5) == (
        "shed: queue 'mail' was full (limit 1,000 bytes), and no task of it was ready for longer, when another came"
    )


def test_who_waits_sees_an_error_of_its_own() -> None:
    ended = outcome(message(), "shed: full", 5.0)
    assert ended is not None
    assert (ended.state, ended.done) == (State.FAILURE, 5.0)
    error = rebuild(ended.value)
    assert isinstance(error, TaskShed)
    assert str(error) == "shed: full"
    assert outcome(message(options=Options(ignore_result=True)), "shed: full", 5.0) is None


def test_a_batch_is_worth_what_its_lowest_message_is() -> None:
    assert lowest([message(priority=9), message(priority=2), message()]) == 2
