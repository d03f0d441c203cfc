"""Publishing is a value: what is sent, and how answers are read, without a server."""

import json

import pytest

from penstock.broker import Accepted, Conflict, Duplicate, Fenced, Full
from penstock.clock import ManualClock
from penstock.draining import Drains
from penstock.engines.postgres import statements
from penstock.engines.postgres.naming import SHIFT
from penstock.engines.postgres.statements import Route
from penstock.message import Dedup, Fence, Limit, Message, Unique, pack
from penstock.public_ids import PublicIds

IDS = PublicIds(b"s" * 32)
LANES = {Route("", "default", 5, ""): 3, Route("", "mail", 9, "a"): 4}


def message(**fields: object) -> Message:
    return Message(1, "app.task", b"[]", **fields)  # type: ignore[arg-type]  # any of its fields


def made(*batch: Message) -> statements.Outgoing:
    return statements.outgoing(batch, LANES, range(100, 100 + len(batch)), IDS.number)


def test_plain_messages_of_one_lane_carry_nothing_to_look_up() -> None:
    batch = made(message(), message())
    assert batch.plain
    assert batch.lanes == [3]
    assert batch.numbers == [3 << SHIFT | 100, 3 << SHIFT | 101]
    assert batch.bodies == [pack(message())] * 2


def test_each_message_has_the_lane_of_its_names() -> None:
    batch = made(message(), message(queue="mail", priority=9, partition="a"))
    assert batch.lanes == [3, 4]
    assert not batch.plain


def test_ids_made_here_are_numbers_and_others_are_names() -> None:
    batch = made(message(id=IDS.make(77)), message(id="mine"), message())
    assert batch.ids == [77, None, None]
    assert batch.names == [None, "mine", None]


def test_a_repeat_looks_for_every_message_by_the_number_it_had() -> None:
    batch = made(message(), message(id="mine"), message(id=IDS.make(77)))
    repeated = statements.again(batch)
    assert repeated.ids == [batch.numbers[0], None, 77]
    assert repeated.numbers == batch.numbers


def test_guards_and_times_are_parameters() -> None:
    guards = (Unique("k", until="start", ttl=3.0), Dedup("d", 5.0), Fence("leader", 8))
    batch = made(message(), message(guards=guards, eta=12.5, namespace=""))
    assert batch.guards is not None
    assert json.loads(batch.guards) == {
        "2": [["unique", "", "k", 3.0, "start", "skip"], ["dedup", "", "d", 5.0], ["fence", "", "leader", 8]]
    }
    assert batch.dues == [None, 12.5]


def test_a_limit_is_a_lane_and_of_several_messages_the_newest_counts() -> None:
    limited = [
        Limit("k", rate=2.0, cost=0.5),
        Limit("k", rate=3.0, burst=4.0, concurrency=5),
        Limit("a", concurrency=1),
    ]
    lanes = {Route("", "default", 5, "", key): lane for lane, key in enumerate(("k", "a"), 3)}
    batch = statements.outgoing([message(guards=(one,)) for one in limited], lanes, range(3), IDS.number)
    assert batch.lanes == [3, 3, 4]
    assert json.loads(batch.guards or "") == {"1": [["limit", "", "k", 0.5, None]]}
    assert json.loads(batch.limits or "") == [
        [3, "", "a", None, 1.0, 1, 1.0, False],
        [2, "", "k", 3.0, 4.0, 5, 0.5, True],
    ]


def test_a_limited_message_that_costs_one_is_as_plain_as_others() -> None:
    batch = statements.outgoing(
        [message(guards=(Limit("k", 1.0),))], {Route("", "default", 5, "", "k"): 3}, [1], IDS.number
    )
    assert batch.guards is None
    assert batch.plain


def test_one_that_expires_is_looked_up_where_it_would_pay() -> None:
    for limit, wanted in ((Limit("k", 2.0), {"1": [["limit", "", "k", 1.0, 12.5]]}), (Limit("k", concurrency=1), None)):
        lanes = {Route("", "default", 5, "", "k"): 3}
        batch = statements.outgoing([message(guards=(limit,), expires=12.5)], lanes, [1], IDS.number)
        assert (None if batch.guards is None else json.loads(batch.guards)) == wanted
        assert json.loads(batch.limits or "")[0][-1] is (wanted is not None)


def test_the_statement_has_no_values_in_its_text() -> None:
    statement = statements.publish(made(message(id="'; DROP TABLE task; --")), "tenant", "soft")
    assert "DROP" not in statement.sql
    assert "tenant.publish(" in statement.sql
    assert statement.parameters[-2:] == ("soft", None)


def test_what_has_no_row_was_accepted() -> None:
    batch = made(message(), message(id="mine"), message(id=IDS.make(77)))
    assert statements.read_answers(batch, [], drains()) == [
        Accepted(batch.numbers[0]),
        Accepted("mine"),
        Accepted(IDS.make(77)),
    ]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ((1, "duplicate", None, "mine"), Duplicate("mine")),
        ((1, "duplicate", 77, None), Duplicate(77)),
        ((1, "conflict", 77, "key"), Conflict("key", 77)),
        ((1, "conflict", 77, "key\nmine"), Conflict("key", "mine")),
        ((1, "fenced", None, "leader"), Fenced("leader")),
    ],
)
def test_refusals(row: tuple[object, ...], wanted: object) -> None:
    assert statements.read_answers(made(message()), [(*row, *[None] * 6)], drains()) == [wanted]


def test_a_repeat_that_meets_itself_is_a_duplicate_and_no_conflict() -> None:
    batch = made(message(), message(id="mine"))
    rows = [(n, "conflict", batch.numbers[n - 1], key, *[None] * 6) for n, key in ((1, "key"), (2, "key\nmine"))]
    assert statements.read_answers(batch, rows, drains()) == [Duplicate(batch.numbers[0]), Duplicate("mine")]


def test_a_row_for_all_refuses_all() -> None:
    batch = made(message(), message())
    row = (0, "full", None, None, 10, 10, "tasks", 2, 100, 50.0)
    assert statements.read_answers(batch, [row], drains()) == [Full("default", 10, 10, "tasks", 1.0)] * 2


def test_a_row_for_one_call_refuses_that_call() -> None:
    batch = made(*(message() for _ in range(6)))
    batch.calls = [1, 2, 3]
    assert statements.publish(batch, "tenant", "exact").parameters[-1] == [1, 2, 2, 3, 3, 3]
    rows = [(-n, "full", None, None, 10, 10, "tasks", n, 100, 50.0) for n in (1, 3)]
    answers = statements.read_answers(batch, rows, drains())
    assert [type(answer) for answer in answers] == [Full, Accepted, Accepted, Full, Full, Full]
    assert answers[1] == Accepted(batch.numbers[1])


def test_the_time_to_come_back_follows_the_rate_between_refusals() -> None:
    told, clock = [], ManualClock()
    known = Drains(clock.monotonic, lambda: 0.5)
    for settled in (1_000, 1_100, 1_200):
        clock.advance(1)
        row = (1, "full", None, "default", 500, 500, "tasks", 50, settled, 99.0)
        [answer] = statements.read_answers(made(message()), [row], known)
        assert isinstance(answer, Full)
        told.append(answer.retry_after)
    assert told == pytest.approx([1.0, 0.5, 0.5])


def drains() -> Drains:
    return Drains(lambda: 0.0, lambda: 0.5)


def test_public_ids_are_recognised_only_where_they_were_made() -> None:
    public = IDS.make(5 << SHIFT | 9)
    assert IDS.number(public) == 5 << SHIFT | 9
    assert PublicIds(b"t" * 32).number(public) is None
    for other in ("", "x" * 32, public[:-1] + ("0" if public[-1] != "0" else "1"), "f" * 32):
        assert IDS.number(other) is None
