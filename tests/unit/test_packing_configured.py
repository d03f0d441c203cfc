"""Serializers, compressions and keys from settings, annotations and routes, given before the tasks or after."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import Broadcast, ConfigError, DecodeError, Exchange, Penstock, Queue
from penstock.coordinator import WorkerInfo
from penstock.message import Message
from penstock.task import Task
from penstock.worker import WorkerOptions
from penstock.worker.packing import PackingRunner, runner_of
from penstock.worker.plan import Plans
from tests import keys

TEXT = "all work and no play " * 100


def make_app(**settings: Any) -> Penstock:
    return Penstock("unit", **{"broker": "memory://", "accept_content": ["json", "msgpack", "yaml"], **settings})


def packed(task: Task[..., Any], **options: Any) -> str:
    """The content type of a call. Settings may change again afterwards."""
    content_type = task.app.client.prepare(task, (TEXT,), {}, options).content_type
    task.app.close()
    return content_type


def outgoing(app: Penstock, call: Callable[[], object]) -> list[Message]:
    """What the engine gets, after the signatures."""
    seen: list[Message] = []
    publish = app.engine.broker.publish

    async def look(messages: Any, timeout: float) -> Any:
        seen.extend(messages)
        return await publish(messages, timeout)

    app.engine.broker.publish = look  # type: ignore[method-assign]  # the engine is this test's own
    call()
    return seen


# -- settings that come after the tasks


def test_tasks_that_were_there_before_are_packed_as_is_said_now() -> None:
    app = make_app()
    plain, own = app.task(name="plain")(lambda text: text), app.task(name="own", serializer="yaml")(lambda text: text)
    assert (packed(plain), packed(own)) == ("json", "yaml")
    assert plain.calls_plainly
    app.configure(task_serializer="msgpack", task_compression="gzip", result_serializer="json")
    assert (packed(plain), packed(own)) == ("msgpack+gzip", "yaml+gzip")
    assert not plain.calls_plainly
    assert (plain.result_format.name, own.result_format.name) == ("json", "json")
    assert app.client.prepare_unknown("unknown", (TEXT,), {}, {}).content_type == "msgpack+gzip"
    app.close()
    app.configure(task_compression=None, compression_min_bytes=10_000, result_serializer=None)
    assert (packed(plain), packed(plain, compression="zlib")) == ("msgpack", "msgpack")
    assert plain.encode_result([1]) == b"\x91\x01"


def test_what_is_read_follows_the_settings_of_now() -> None:
    app = make_app()
    task = app.task(name="t")(lambda text: text)
    body, content_type = app.pipeline.compress(task.codec.encode((TEXT,), {}), "json", "zlib")
    value = app.pipeline.serializer("yaml").encode("text")
    assert task.arguments(body, content_type) == ((TEXT,), {})
    assert task.returned.decode(value, "yaml") == "text"
    app.configure(accept_content=["json"], inflate_max_bytes=100)
    with pytest.raises(DecodeError, match="inflate to more than 100"):
        task.arguments(body, content_type)
    with pytest.raises(DecodeError, match="content type 'yaml' is not read here"):
        task.returned.decode(value, "yaml")
    with pytest.raises(ConfigError, match="'yaml' is not in accept_content"):
        packed(task, serializer="yaml")


def test_keys_may_come_later_and_go_again() -> None:
    app = make_app()
    task = app.task(name="t")(lambda text: text)
    app.configure(security_key=keys.pem(keys.private()))
    trust = app.pipeline.trust
    assert trust is not None
    (message,) = outgoing(app, lambda: task.delay("a"))
    assert message.signed is not None and message.signed.key == trust.key_id and message.signed.id == message.id
    assert isinstance(runner(app), PackingRunner)
    app.close()
    app.configure(security_key=None)
    (message,) = outgoing(app, lambda: task.delay("a"))
    assert message.signed is None
    assert not isinstance(runner(app), PackingRunner)
    app.close()


def test_compressed_results_may_come_later() -> None:
    app = make_app()
    app.task(name="t")(lambda text: text)
    assert not isinstance(runner(app), PackingRunner)
    app.close()
    app.configure(result_compression="zlib")
    assert isinstance(runner(app), PackingRunner)
    app.close()


def runner(app: Penstock) -> object:
    return runner_of(app, Plans(app), app.engine.broker, "w@h", app.clock, None)  # type: ignore[arg-type]  # not asked


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"accept_content": ["msgpack", "json"]}, "serializer 'yaml' is not in accept_content"),
        ({"accept_content": ["json", "yaml", "pickle"]}, "accept_content with 'pickle' needs security_key"),
        ({"task_compression": "zst"}, "unknown compression 'zst'; did you mean 'zstd'"),
        ({"result_compression": "zst"}, "unknown compression 'zst'; did you mean 'zstd'"),
        ({"security_key": "nowhere.pem"}, r"security_key: .*nowhere.pem cannot be read"),
        ({"security_cert_store": ["a.pem"]}, "security_cert_store needs security_key"),
        ({"task_annotations": {"t": {"compression": "zst"}}}, "task_annotations: unknown compression 'zst'; did you"),
        ({"task_annotations": {"o*": {"serializer": "pickle"}}}, "task_annotations: serializer 'pickle' is not in acc"),
        ({"task_routes": {"other": {"serializer": "xml"}}}, "task_routes: unknown serializer 'xml'"),
        ({"task_routes": [{"*": {"compression": "zst"}}]}, "task_routes: unknown compression 'zst'"),
    ],
    ids=str,
)  # fmt: skip
def test_a_change_that_is_refused_changes_nothing(change: Any, error: str) -> None:
    app = make_app(task_compression="gzip")
    task = app.task(name="t", serializer="yaml")(lambda text: text)
    conf, pipeline, codec = app.conf, app.pipeline, task.codec
    with pytest.raises(ConfigError, match=error):
        app.configure(**change)
    assert (app.conf, app.pipeline, task.codec) == (conf, pipeline, codec)
    assert packed(task) == "yaml+gzip"


def test_a_task_that_asks_for_what_is_unknown_is_refused() -> None:
    for options, error in (
        ({"compression": "zst"}, "unknown compression 'zst'; did you mean 'zstd'"),
        ({"serializer": "xml"}, "unknown serializer 'xml'"),
        ({"serializer": "pickle"}, "'pickle' is not in accept_content"),
    ):
        app = make_app()
        with pytest.raises(ConfigError, match=error):
            app.task(name="t", **options)(lambda: None)  # type: ignore[call-overload]  # by name
        assert not app.tasks


def test_keys_in_a_settings_module_are_read_when_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    app = Penstock("unit", broker="memory://")
    app.config_from_object("t_packing_settings")
    key = tmp_path / "mine.pem"
    (tmp_path / "t_packing_settings.py").write_text(
        f"security_key = {str(key)!r}\naccept_content = ['json', 'pickle']\n"
        "task_annotations = {'pickled.*': {'serializer': 'pickle'}}\ntask_compression = 'zlib'\n"
    )
    with pytest.raises(ConfigError, match=r"mine\.pem cannot be read"):
        app.pipeline  # noqa: B018
    key.write_text(keys.pem(keys.private()))
    try:
        assert app.pipeline.trust is not None
        assert packed(app.task(name="pickled.one")(lambda text: text)) == "pickle+zlib"
    finally:
        sys.modules.pop("t_packing_settings", None)


# -- annotations and routes


@pytest.mark.parametrize(
    ("app", "task", "call", "expected"),
    [
        ({"task_annotations": {"*": {"serializer": "msgpack"}}}, {"serializer": "yaml"}, {}, "msgpack"),
        ({"task_annotations": {"t": {"compression": "gzip"}}}, {}, {}, "json+gzip"),
        ({"task_annotations": {"t": {"compression": "none"}}, "task_compression": "gzip"}, {}, {}, "json"),
        ({"task_annotations": {"t": {"compression": "gzip"}}}, {}, {"compression": "zlib"}, "json+zlib"),
        ({"task_annotations": {"other": {"compression": "gzip"}}}, {}, {}, "json"),
        ({"task_routes": {"t": {"serializer": "msgpack", "compression": "gzip"}}}, {}, {}, "msgpack+gzip"),
        ({"task_routes": {"t": {"serializer": "msgpack"}}}, {"serializer": "yaml"}, {}, "yaml"),
        ({"task_routes": {"t": {"compression": "gzip"}}}, {"compression": "zlib"}, {}, "json+zlib"),
        ({"task_routes": {"t": {"compression": "gzip"}}}, {}, {"compression": "none"}, "json"),
        ({"task_routes": {"t": {"compression": "none"}}, "task_compression": "gzip"}, {}, {}, "json"),
        (
            {"task_routes": {"t": {"compression": "gzip"}}, "task_annotations": {"t": {"compression": "lzma"}}},
            {}, {}, "json+lzma",
        ),
        ({"task_routes": lambda *a, **k: {"serializer": "yaml", "compression": "zlib"}}, {}, {}, "yaml+zlib"),
    ],
    ids=range(12),
)  # fmt: skip
def test_the_nearest_word_counts(
    app: dict[str, Any], task: dict[str, Any], call: dict[str, Any], expected: str
) -> None:
    made = make_app(**app)
    assert packed(made.task(name="t", **task)(lambda text: text), **call) == expected
    late = make_app()
    declared = late.task(name="t", **task)(lambda text: text)
    late.configure(**app)  # type: ignore[typeddict-item]  # by name
    assert packed(declared, **call) == expected


def test_calls_by_name_only_are_packed_as_their_route_says() -> None:
    app = make_app(task_routes={"far.*": {"queue": "far", "serializer": "msgpack", "compression": "zlib"}})
    message = app.client.prepare_unknown("far.away", (TEXT,), {}, {})
    assert (message.queue, message.content_type) == ("far", "msgpack+zlib")
    assert app.client.prepare_unknown("near", (TEXT,), {}, {}).content_type == "json"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"serializer": "pickle"}, "'pickle' is not in accept_content"),
        ({"compression": "zst"}, "unknown compression 'zst'; did you mean 'zstd'"),
    ],
    ids=str,
)
def test_a_function_that_chooses_what_is_not_there_is_refused_at_the_call(said: Any, error: str) -> None:
    app = make_app(task_routes=lambda *args, **kwargs: said)
    with pytest.raises(ConfigError, match=error):
        packed(app.task(name="t")(lambda text: text))


# -- calls to several queues


def test_each_copy_is_signed_for_its_queue() -> None:
    both = Exchange("both", "fanout")
    queues = [Queue("one", exchange=both), Queue("two", exchange=both), Broadcast("reload")]
    app = make_app(task_queues=queues, security_key=keys.pem(keys.private()), task_compression="zlib")
    task = app.task(name="t")(lambda text: text)
    for name, id in (("a@h", "a"), ("b@h", "b")):
        served = WorkerOptions(name=name).settle(app).queues
        app.engine.run(app.engine.coordinator.join(WorkerInfo(id * 32, name, "h", 1, 1, served, "solo", 0.0)))
    trust = app.pipeline.trust
    assert trust is not None
    for options, expected in (
        ({"exchange": "both"}, ["one", "two"]),
        ({"queue": "reload"}, ["reload.to.a@h", "reload.to.b@h"]),
    ):
        copies = outgoing(app, lambda options=options: task.apply_async((TEXT,), **options))  # type: ignore[misc]
        assert [copy.queue for copy in copies] == expected
        assert len({copy.id for copy in copies}) == 2
        for copy in copies:
            assert copy.id is not None
            body = trust.accepted(copy, copy.id)
            assert task.arguments(body, copy.content_type) == ((TEXT,), {})
    app.close()
