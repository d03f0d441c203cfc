"""What docs/protocol.md says of a broker, asked of a real one in plain MessagePack."""

from __future__ import annotations

import itertools
import random
import time
import uuid
from typing import Any

import msgspec
import pytest

from penstock.engines.sqlite.hearing import MARKS
from penstock.public_ids import PublicIds
from penstock.server.crew import GRACE
from tests.servers import Server
from tests.unit.server.raw_client import HELLO, RawClient, message


@pytest.fixture
def queue() -> str:
    """A queue that no other test has."""
    return f"q-{uuid.uuid4().hex}"


@pytest.fixture
def session() -> int:
    return random.getrandbits(62) | 1


def publish(client: RawClient, mark: int, again: bool, *bodies: bytes) -> list[Any]:
    return client.ask(10, 1, mark, again, 5.5, [list(bodies)])


def want(queue: str, limit: int = 1, wait: float = 0.0) -> dict[str, Any]:
    return {"queues": [queue], "limit": limit, "worker": f"w-{queue}", "wait": wait}


def depth(client: RawClient, queue: str) -> int:
    kind, _, found = client.ask(20, 99, "depth", [queue, ""])
    assert kind == 120
    return int(found)


# Letting in.


def test_the_welcome(broker: Server) -> None:
    with RawClient(broker, HELLO) as client:
        kind, version, server, features, secret, heartbeat, max_frame, moment, user = client.welcome
    assert (kind, version, heartbeat, max_frame) == (101, 1, 10.0, 16 << 20)
    assert (features["engine"], "block" in features["overflow"], features["durability"]) == ("penstock", True, "power")
    assert isinstance(server, str) and len(secret) >= 16 and moment > 1.7e9
    assert user == HELLO[5]


@pytest.mark.parametrize(
    ("hello", "code", "text"),
    [
        ([1, 2, 9, "raw"], "config", "upgrade the broker"),
        ([1, 0, 0, "raw"], "config", "upgrade the client"),
        ([*HELLO[:6], "wrong"], "access-refused", "access refused for user"),
        ([*HELLO[:4], "nowhere", *HELLO[5:]], "access-refused", "access refused for user"),
        ([2], "malformed", "a frame that cannot be read"),
        ([10, 1, 0, False, 5.5, []], "malformed", "a frame that cannot be read"),
    ],
)
def test_who_is_not_let_in_is_told_why(broker: Server, hello: list[Any], code: str, text: str) -> None:
    with RawClient(broker) as client:
        client.send(*hello)
        kind, told, reason = client.read()
        assert (kind, told) == (102, code)
        assert text in reason
        with pytest.raises(EOFError):
            client.read()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x16\x03\x01\x00\xc8", "this is TLS"),
        (b"GET / HTTP/1.1\r\n", "this is HTTP"),
        (b"\x00\x00\x00\x00", "a frame of 0 bytes"),
        (b"\x00\x00\x10\x01", "a frame of 4,097 bytes; at most 4,096 are taken"),
    ],
)
def test_what_is_no_frame_is_cut_off(broker: Server, data: bytes, text: str) -> None:
    with RawClient(broker) as client:
        client.write(data)
        kind, code, told = client.read()
        assert (kind, code) == (102, "malformed")
        assert text in told


def test_requests_may_follow_the_hello_at_once(broker: Server, queue: str) -> None:
    with RawClient(broker) as client:
        client.send(*HELLO)
        client.send(20, 1, "depth", [queue, ""])
        assert client.read()[0] == 101
        assert client.read() == [120, 1, 0]


# Asking.


def test_a_verb_that_there_is_not(broker: Server) -> None:
    with RawClient(broker, HELLO) as client:
        kind, number, code, text = client.ask(20, 7, "dance", [])
    assert (kind, number, code) == (121, 7, "config")
    assert "no verb 'dance'" in text


def test_arguments_that_do_not_fit_fail_that_call_only(broker: Server, queue: str) -> None:
    with RawClient(broker, HELLO) as client:
        for arguments in ([], [queue], [queue, "", "more"], [1, 2], "text", None):
            assert client.ask(20, 7, "depth", arguments)[:3] == [121, 7, "malformed"], arguments
        assert depth(client, queue) == 0


def test_a_frame_of_an_unknown_kind_ends_the_connection(broker: Server) -> None:
    with RawClient(broker, HELLO) as client:
        assert client.ask(77, 1)[:2] == [102, "malformed"]


def test_a_publish_is_numbered(broker: Server, queue: str) -> None:
    with RawClient(broker, HELLO) as client:
        one = message("shop.add", b"[[],{}]", None, queue)
        kind, number, (span, chosen) = client.ask(10, 5, 0, False, 5.5, [[one, one], [message("t", b"", queue, queue)]])
        assert (kind, number) == (110, 5)
        assert (span[0], span[2]) == ("span", 2)
        assert chosen == ["each", [{"type": "accepted", "key": queue}]]
        assert publish(client, 0, False, message("t", b"", queue, queue))[2] == [
            ["each", [{"type": "duplicate", "key": queue}]]
        ]
        ids = PublicIds(client.welcome[4])
        kind, number, (report,) = client.ask(20, 6, "fetch", [[span[1]]])
        assert (kind, report["id"], report["state"]) == (120, ids.make(span[1]), "PENDING")


def test_a_client_may_have_public_ids(broker: Server, queue: str) -> None:
    with RawClient(broker, [*HELLO, 0, True]) as client:
        guards = [["unique", queue]]
        unique = message("shop.add", b"[[],{}]", None, queue, 5, "", "", None, None, 0, 0, "json", guards)
        ((_, (accepted,)),) = publish(client, 0, False, unique)[2]
        ((_, (conflict,)),) = publish(client, 0, False, unique)[2]
        assert len(accepted["key"]) == 32
        assert conflict == {"type": "conflict", "unique": queue, "key": accepted["key"]}


# Asked again.


def test_what_was_asked_before_is_answered_as_before(broker: Server, queue: str, session: int) -> None:
    one = message("shop.add", b"[[],{}]", None, queue)
    with RawClient(broker, [*HELLO, session]) as client:
        first = publish(client, 3, False, one)
    with RawClient(broker, [*HELLO, session]) as client:
        assert publish(client, 3, True, one) == first
        assert depth(client, queue) == 1
        # What is not remembered is done.
        assert publish(client, 4, True, one) != first
        assert depth(client, queue) == 2
        # Under the id that stands for it: place 0 of batch 0 of mark 3.
        kind, _, (answer,) = publish(client, 5, False, message("shop.add", b"", f"@{session}.3.0.0", queue))
        assert (kind, answer) == (110, ["each", [{"type": "duplicate", "key": first[2][0][1]}]])
        assert depth(client, queue) == 2


def test_a_session_remembers_64_answers(broker: Server, queue: str, session: int) -> None:
    one = message("shop.add", b"[[],{}]", None, queue)
    with RawClient(broker, [*HELLO, session]) as client:
        first = publish(client, 1, False, one)
        for mark in range(2, MARKS + 1):
            publish(client, mark, False, one)
        assert publish(client, 1, True, one) == first
        publish(client, MARKS + 1, False, one)
        assert publish(client, 1, True, one) != first


def test_who_says_goodbye_is_forgotten(broker: Server, queue: str, session: int) -> None:
    one = message("shop.add", b"[[],{}]", None, queue)
    with RawClient(broker, [*HELLO, session]) as client:
        first = publish(client, 1, False, one)
        client.send(2)
        with pytest.raises(EOFError):
            client.read()
    with RawClient(broker, [*HELLO, session]) as client:
        assert publish(client, 1, True, one) != first


def test_a_session_has_one_connection(broker: Server, session: int) -> None:
    with (
        RawClient(broker, [*HELLO, session]) as former,
        RawClient(broker, [*HELLO, session]),
        pytest.raises((EOFError, ConnectionResetError)),
    ):
        former.read()


def test_a_step_that_is_asked_again_gives_the_same_lease(broker: Server, queue: str, session: int) -> None:
    with RawClient(broker, [*HELLO, session]) as client:
        publish(client, 1, False, message("shop.add", b"[[],{}]", None, queue))
        first = client.ask(12, 2, 2, False, [], [], want(queue))
        ((token, ((row, attempts, _),), let_go),) = first[4]
        assert (attempts, let_go) == (0, None)
    with RawClient(broker, [*HELLO, session]) as client:
        assert client.ask(12, 2, 2, True, [], [], want(queue)) == first
        outcome = {"state": "SUCCESS", "value": b"5", "done": 1.5}
        ended = [[token, row, {"type": "ack"}, outcome]]
        assert client.ask(12, 3, 3, False, [], ended) == [112, 3, [], [True], []]
        assert client.ask(12, 3, 3, True, [], ended) == [112, 3, [], [True], []]
        assert client.ask(12, 4, 4, False, [], ended) == [112, 4, [], [False], []]
        assert depth(client, queue) == 0


# Steps and results.


def test_a_step_waits_for_work_and_can_be_interrupted(broker: Server, queue: str) -> None:
    with RawClient(broker, HELLO) as worker, RawClient(broker, HELLO) as producer:
        worker.send(12, 1, 0, False, [], [], want(queue, wait=20.5))
        assert depth(worker, queue) == 0  # it does not hold up what comes after it
        publish(producer, 0, False, message("shop.add", b"[[],{}]", None, queue))
        stepped = worker.read()
        assert (stepped[:2], len(stepped[4])) == ([112, 1], 1)
        worker.send(12, 2, 0, False, [], [], want(queue, wait=20.5))
        worker.send(13, 2)
        assert worker.read() == [112, 2, [], [], []]


def test_a_whole_lease_ends_in_one_word(broker: Server, queue: str) -> None:
    with RawClient(broker, HELLO) as client:
        one = message("shop.add", b"[[],{}]", None, queue)
        (span,) = publish(client, 0, False, one, one)[2]
        rows = [span[1], span[1] + 1]
        client.send(21, rows)
        ((token, leased, _),) = client.ask(12, 2, 0, False, [], [], want(queue, 10))[4]
        assert [row for row, _, _ in leased] == rows
        run = msgspec.json.encode([["SUCCESS", 1.5, 0.25, 0, "shop.add", 5, None]] * 2)
        client.send(12, 3, 0, False, [[token, run]], [])
        (_, reports), stepped = sorted((client.read(), client.read()), reverse=True)  # in either order
        assert stepped == [112, 3, [True], [], []]
        assert {one["id"] for one in reports} == {PublicIds(client.welcome[4]).make(row) for row in rows}
        assert {(one["state"], one["outcome"]["value"]) for one in reports} == {("SUCCESS", b"5")}


def test_a_worker_that_joins_anew_is_not_taken_for_lost(broker: Server, queue: str, session: int) -> None:
    """Though its former connection is closed only then, and by the broker."""
    me = {"id": f"w-{queue}", "name": "raw", "host": "here", "pid": 1, "slots": 1, "queues": [queue], "pool": "raw"}
    hello = [*HELLO, session]
    with RawClient(broker, hello) as former:
        former.ask(20, 1, "join", [me | {"started": 1.5}])
        publish(former, 0, False, message("shop.add", b"[[],{}]", None, queue))
        ((token, ((row, _, _),), _),) = former.ask(12, 2, 0, False, [], [], want(queue))[4]
        with RawClient(broker) as client:
            client.together(hello, [20, 1, "join", [me | {"started": 1.5}]])
            assert [client.read()[0], client.read()] == [101, [120, 1, None]]
            with pytest.raises((EOFError, ConnectionResetError)):
                former.read()
            time.sleep(GRACE + 1.5)  # the broker looks each second
            kind, _, (lease,) = client.ask(20, 2, "extend", [[[token, row]], 30.5])
            assert (kind, lease["type"]) == (120, "held")
        with RawClient(broker, HELLO) as other:
            assert len(other.ask(12, 3, 0, False, [], [], want(queue, wait=20.5))[4]) == 1


def test_a_result_that_is_there_is_told_at_once(broker: Server, queue: str) -> None:
    with RawClient(broker, HELLO) as client:
        client.ask(20, 1, "store", [[[queue, {"state": "SUCCESS", "value": b"1", "done": 1.5}]]])
        client.send(21, [queue])
        kind, (report,) = client.read()
        assert (kind, report["id"], report["state"]) == (130, queue, "SUCCESS")


# A full queue.


def test_a_full_queue_says_so(broker: Server, queue: str) -> None:
    with RawClient(broker, HELLO) as client:
        client.ask(20, 1, "declare", [[{"name": queue, "max_length": 1}], ""])
        one = message("shop.add", b"[[],{}]", None, queue)
        publish(client, 0, False, one)
        ((_, (full,)),) = publish(client, 0, False, one)[2]
        retry_after = full.pop("retry_after")
        assert full == {"type": "full", "queue": queue, "depth": 1, "limit": 1, "unit": "tasks"}
        assert retry_after > 0


def test_a_publisher_is_blocked_until_there_is_room(broker: Server, queue: str) -> None:
    with RawClient(broker, HELLO) as worker, RawClient(broker, HELLO) as client:
        worker.ask(20, 1, "declare", [[{"name": queue, "max_length": 1, "overflow": "block"}], ""])
        one = message("shop.add", b"[[],{}]", None, queue)
        publish(client, 0, False, one)
        assert publish(client, 0, False, one) == [131, queue]
        ((token, ((row, _, _),), _),) = worker.ask(12, 2, 0, False, [], [], want(queue))[4]
        worker.ask(12, 3, 0, False, [], [[token, row, {"type": "ack"}]])
        answers = sorted([client.read(), client.read()], key=lambda fields: fields[0])
        assert [fields[0] for fields in answers] == [110, 132]


# Anything.


def test_noise_ends_the_connection_and_nothing_else(broker: Server, queue: str) -> None:
    rng = random.Random(5)
    for size in itertools.islice(itertools.cycle((1, 3, 17, 400)), 40):
        with RawClient(broker, HELLO) as client:
            body = rng.randbytes(size)
            client.write(size.to_bytes(4, "big") + body)
            assert client.read()[:2] == [102, "malformed"], body
    with RawClient(broker, HELLO) as client:
        assert depth(client, queue) == 0
