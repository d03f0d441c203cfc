"""Which serializer and compression a call gets: its own, else its task's, else the app's."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import AsyncResult, Penstock, SignatureError, State
from penstock.message import Message
from penstock.outcome import Outcome, Report
from tests import keys

TEXT = "all work and no play " * 100


def make_app(**settings: Any) -> Penstock:
    return Penstock("unit", broker="memory://", accept_content=["json", "msgpack", "yaml"], **settings)


def content_type(app: Penstock, options: dict[str, Any], task: dict[str, Any] | None = None) -> str:
    """That of a call with `options` of a task with those of `task`; by its name only where that is `None`."""
    if task is None:
        return app.client.prepare_unknown("unknown", (TEXT,), {}, options).content_type
    declared = app.task(name="t", **task)(lambda text: text)
    return app.client.prepare(declared, (TEXT,), {}, options).content_type


@pytest.mark.parametrize(
    ("app", "task", "call", "expected"),
    [
        ({}, {}, {}, "json"),
        ({"task_compression": "gzip"}, {}, {}, "json+gzip"),
        ({"task_compression": "gzip"}, {"compression": "zlib"}, {}, "json+zlib"),
        ({"task_compression": "gzip"}, {"compression": "zlib"}, {"compression": "zstd"}, "json+zstd"),
        ({"task_compression": "gzip"}, {"compression": "none"}, {}, "json"),
        ({"task_compression": "gzip"}, {}, {"compression": "none"}, "json"),
        ({"task_compression": "none"}, {}, {}, "json"),
        ({"task_compression": "gzip", "compression_min_bytes": 10_000}, {}, {}, "json"),
        ({"task_serializer": "msgpack"}, {}, {}, "msgpack"),
        ({"task_serializer": "msgpack"}, {"serializer": "yaml"}, {"compression": "lzma"}, "yaml+lzma"),
        ({}, {"serializer": "yaml"}, {"serializer": "msgpack", "countdown": 5}, "msgpack"),
        ({"task_serializer": "msgpack", "task_compression": "bzip2"}, None, {}, "msgpack+bzip2"),
        ({"task_compression": "bzip2"}, None, {"compression": "none", "serializer": "yaml"}, "yaml"),
    ],
    ids=str,
)  # fmt: skip
def test_the_nearest_word_counts(
    app: dict[str, Any], task: dict[str, Any] | None, call: dict[str, Any], expected: str
) -> None:
    assert content_type(make_app(**app), call, task) == expected


def test_results_have_a_serializer_of_their_own_or_their_tasks() -> None:
    theirs = make_app().task(name="t", serializer="msgpack")(lambda: [1])
    assert theirs.encode_result([1]) == b"\x91\x01"
    own = make_app(result_serializer="json").task(name="t", serializer="msgpack")(lambda: [1])
    assert own.encode_result([1]) == b"[1]"
    assert own.app.client.prepare(own, (), {}).content_type == "msgpack"


def test_a_retry_with_new_arguments_is_packed_as_the_task_says() -> None:
    task = make_app().task(name="t", serializer="yaml", compression="zlib")(lambda text: text)
    body, packed_as = task.body((TEXT,), {})
    assert packed_as == "yaml+zlib"
    assert task.arguments(body, packed_as) == ((TEXT,), {})


@pytest.mark.parametrize("value", [b'"text"', b"\x93"])
def test_a_stored_result_is_believed_only_as_its_app_believes(value: bytes) -> None:
    app = make_app(security_key=keys.pem(keys.private()))
    result = AsyncResult[str]("id-1", app=app)
    result._seen = Report("id-1", State.SUCCESS, Outcome(State.SUCCESS, value, 0.0, content_type="json"))
    with pytest.raises(SignatureError, match="the result of task id-1 is not signed"):
        result.get()
    with pytest.raises(SignatureError):
        _ = result.result


def test_who_has_no_keys_reads_what_is_signed_as_it_is() -> None:
    signing = make_app(security_key=keys.pem(keys.private()))
    value, packed_as = signing.pipeline.result_out("id-1", b'"text"', "json", None)
    result = AsyncResult[str]("id-1", app=make_app())
    result._seen = Report("id-1", State.SUCCESS, Outcome(State.SUCCESS, value, 0.0, content_type=packed_as))
    assert result.get() == "text"


def test_a_message_is_signed_with_the_id_it_is_published_under() -> None:
    app = make_app(security_key=keys.pem(keys.private()))
    seen: list[Message] = []
    app.publishing = (lambda messages: seen.extend(messages) or messages,)
    task = app.task(name="t")(lambda text: text)
    results = [task.delay("a"), *task.delay_many([("b",), ("c",)])]
    with app.batch():
        task.apply_async(("d",), task_id="chosen")
    assert [message.id for message in seen] == [*(result.id for result in results), "chosen"]
    for message in seen:
        assert message.signed is not None
        assert message.signed.id == message.id
    app.close()
