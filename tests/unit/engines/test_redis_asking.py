"""Messages, settlements and demands as arguments of scripts."""

import math
from typing import Any

import pytest

from penstock.broker import Demand
from penstock.delivery import ACK, RELEASE, Dead, RetryAt, Settlement, Verdict
from penstock.effects import Join, Publish
from penstock.engines.redis.asking import Publishing, Settling, around_body, demand_args, fresh_value
from penstock.engines.redis.names import Lanes, Mint
from penstock.engines.redis.pages import letters, pack_outcome, pack_part, read, read_part, report_of
from penstock.errors import ConfigError, EncodeError, StoreError, Unsupported
from penstock.message import VERSION, Limit, Message, Unique, pack, unpack
from penstock.outcome import Outcome, Part, State


def message(**fields: Any) -> Message:
    return Message(version=VERSION, task="a.task", body=b"[1]", **fields)


def asked(*batch: Message) -> Publishing:
    return Publishing(batch, Lanes(), Mint())


def test_plain_messages_go_in_groups_of_a_lane() -> None:
    one = asked(message(id="a"), message(id="b", priority=9), message(id="c"))
    assert one.ids == ["a", "b", "c"]
    assert one.args[2] == 2, "two lanes"
    assert one.order == [0, 2, 1]
    assert one.args[3:5] == [b"/default/5/", 2]


def test_a_message_keeps_no_id_that_it_was_given() -> None:
    mine = message()
    one = asked(mine, mine)
    assert mine.id is None
    assert len(set(one.ids)) == 2
    value = one.args[6]
    assert isinstance(value, bytes)
    assert unpack(value.partition(b" ")[2]).id == one.ids[0]


@pytest.mark.parametrize(
    "fields", [{"eta": 5.0}, {"guards": (Unique("k"),)}, {"guards": (Limit("k"),)}, {"attempts": 1}]
)
def test_anything_else_goes_one_by_one(fields: dict[str, Any]) -> None:
    one = asked(message(id="a"), message(id="b", **fields))
    assert one.args[2:4] == [0, 2]


def test_a_limited_message_has_a_lane_of_its_key_with_its_terms_behind() -> None:
    limit = Limit("a key; with / anything", rate=2.5, burst=10.0, cost=0.1)
    one = asked(message(id="a", partition="p", guards=(limit,)))
    lane = b"/default/5/p/a%20key%3B%20with%20%2F%20anything"
    assert one.args[4:6] == ["a", lane]
    value = one.args[6]
    assert isinstance(value, bytes)
    assert value.startswith(lane + b";0.1;2.5;10.0; ")
    assert one.args[9:] == [1, "L"]
    found, back, _ = read(value)
    assert found.startswith(lane)
    assert back is not None
    assert back.guards == (limit,)


def test_what_takes_the_place_of_a_limited_message_has_its_terms() -> None:
    limited = message(id="a", guards=(Unique("u"), Limit("k", concurrency=3)))
    assert fresh_value(limited) == b";1.0;;1.0;3 " + pack(limited)
    limited.expires = 1_800_000_000.5
    assert fresh_value(limited) == b";1.0;;1.0;3;1800000000.5 " + pack(limited)
    assert fresh_value(message(id="a")) == b" " + pack(message(id="a"))


def test_a_unique_key_says_what_becomes_of_its_holder() -> None:
    assert asked(message(id="a", guards=(Unique("k", "ttl", 5.0, "replace"),))).args[9:] == [
        1,
        "U",
        "k",
        "ttl",
        "5.0",
        "replace",
    ]


def test_parts_come_back() -> None:
    record = pack_part(3, bytes(range(256)), "json+zstd")
    assert read_part("id", 7, record) == Part(7, 3, bytes(range(256)), "json+zstd")
    with pytest.raises(StoreError, match="part 7 of 'id' is damaged"):
        read_part("id", 7, record[:-1])


def test_a_repeated_id_goes_one_by_one() -> None:
    assert asked(message(id="a"), message(id="a")).args[2:4] == [0, 2]


def test_times_must_be_finite() -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(ConfigError):
            asked(message(eta=bad))
        with pytest.raises(ConfigError):
            demand_args(Demand(("q",), 1, "w", lease=bad), "", False, 0)
        with pytest.raises(ConfigError):
            Settling([Settlement(("t", 1, "", "a"), RetryAt(bad))], {}, Lanes())


def test_text_that_is_none() -> None:
    with pytest.raises(EncodeError):
        asked(message(partition="\ud800"))


def test_settlements_answer_in_their_order() -> None:
    receipts = [("t1", 5, "a", "one"), ("t1", 5, "a", "two"), ("t2", 5, "a", "three"), ("t1", 7, "a", "four")]
    verdicts: list[Verdict] = [ACK, RELEASE, ACK, ACK]
    settling = Settling([Settlement(*pair) for pair in zip(receipts, verdicts, strict=True)], {}, Lanes())
    assert settling.order == [0, 3, 2, 1]
    assert settling.args[0:4] == [2, "t1", 2, 12]


def test_two_ends_of_one_delivery_are_settled_in_turn() -> None:
    receipt = ("t", 5, "a", "one")
    settling = Settling([Settlement(receipt, RELEASE), Settlement(receipt, ACK)], {}, Lanes())
    assert settling.args[0] == 0
    assert settling.order == [0, 1]


def test_a_retry_keeps_its_id() -> None:
    item = Settlement(("t", 5, "a", "mine"), RetryAt(1.0, message(id="other")))
    values = [one for one in Settling([item], {}, Lanes()).args if isinstance(one, bytes) and one[:2] == b" \xdc"]
    assert [unpack(one[1:]).id for one in values] == ["mine"]


def test_a_follow_up_needs_an_id() -> None:
    with pytest.raises(ConfigError):
        Settling([Settlement(("t", 5, "a", "one"), Dead("x"), None, (Publish(message()),))], {}, Lanes())


@pytest.mark.parametrize("task", ["t", "x" * 40, "é" * 100])
@pytest.mark.parametrize("body", [b"[]", b"x" * 70_000])
def test_a_body_put_between_makes_the_message(task: str, body: bytes) -> None:
    then = message(id="then", partition="p")
    then.task = task
    head, tail = around_body(then)
    whole = unpack(head + b"\xc6" + len(body).to_bytes(4, "big") + body + tail)
    then.body = body
    assert pack(whole) == pack(then)


def test_a_join_of_something_else() -> None:
    then = message(id="then", content_type="pickle")
    with pytest.raises(Unsupported):
        Settling([Settlement(("t", 5, "a", "one"), ACK, None, (Join("j", 0, b"1", 1, then),))], {}, Lanes())


def test_outcomes_come_back() -> None:
    outcome = Outcome(State.FAILURE, bytes(range(256)), 12.5, 0.5, 3, "msgpack")
    report = report_of("id", pack_outcome(outcome, "a.task", "q"))
    assert (report.outcome, report.task, report.queue, report.retries) == (outcome, "a.task", "q", 3)
    revoked = report_of("id", b"V12.500000 ns/a%20queue/5/")
    assert (revoked.state, revoked.queue) == (State.REVOKED, "a queue")
    assert revoked.outcome is not None
    assert revoked.outcome.done == 12.5
    with pytest.raises(StoreError):
        report_of("id", b"\xc1")


def test_letters() -> None:
    def part(data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + data

    assert list(letters(part(b"id") + part(b"") + part("é".encode()) + part(b"x" * 300))) == [
        ("id", b""),
        ("é", b"x" * 300),
    ]
