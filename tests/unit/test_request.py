"""What `self.request` shows."""

import pytest

from penstock.broker import Key
from penstock.message import Message, Options
from penstock.request import Request, direct


def test_a_request_shows_its_message() -> None:
    message = Message(
        1, "t", b"", queue="q", priority=7, partition="p", namespace="n", eta=1.0, expires=2.0, retries=3, attempts=1
    )
    message.headers, message.options = {"a": "b"}, Options(root_id="r", parent_id="p")
    request = Request(message, 7, lambda key: f"id-{key}", "w@h", (1,), {"x": 2})
    assert (request.id, request.task, request.queue, request.priority) == ("id-7", "t", "q", 7)
    assert (request.partition, request.namespace, request.eta, request.expires) == ("p", "n", 1.0, 2.0)
    assert (request.retries, request.attempts, request.headers) == (3, 1, {"a": "b"})
    assert (request.root_id, request.parent_id, request.hostname) == ("r", "p", "w@h")
    assert request.delivery_info == {"queue": "q", "priority": 7, "redelivered": True}
    assert (request.args, request.kwargs, request.called_directly, request.is_eager) == ((1,), {"x": 2}, False, False)


def test_the_first_task_is_its_own_root() -> None:
    request = Request(Message(1, "t", b""), 7, lambda key: f"id-{key}")
    assert (request.root_id, request.parent_id, request.headers) == ("id-7", None, {})


def test_the_public_id_is_made_when_it_is_asked_for() -> None:
    def ask(key: Key) -> str:
        raise AssertionError("nobody asked")

    request = Request(Message(1, "t", b""), 7, ask)
    with pytest.raises(AssertionError):
        request.id  # noqa: B018


def test_requests_do_not_share_their_defaults() -> None:
    one, two = (Request(Message(1, "t", b""), 7, str) for _ in range(2))
    one.kwargs["x"] = 1
    assert two.kwargs == {}


def test_a_direct_call_says_so() -> None:
    assert direct("t").called_directly
