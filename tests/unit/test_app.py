"""The app: settings, names, engines, and calls by name."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from penstock import ConfigError, EncodeError, Penstock, Signature, Task, UnknownQueue, Unsupported
from tests.unit.fake_engine import fake_app


def test_making_an_app_opens_nothing(tmp_path: Path) -> None:
    app = Penstock("t", broker=f"sqlite:///{tmp_path}/deep/q.db")
    app.task(name="x")(print)
    assert list(tmp_path.iterdir()) == []


def test_the_engine_is_opened_once_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    from penstock.engines import memory

    opened: list[str] = []
    real = memory.open_engine

    def counting(url: str, *, clock: Any, queues: Any) -> Any:
        opened.append(url)
        return real(url, clock=clock, queues=queues)

    monkeypatch.setattr(memory, "open_engine", counting)
    app = Penstock("t", broker="memory://")
    start = threading.Barrier(8)
    engines: list[Any] = []

    def use() -> None:
        start.wait()
        engines.append(app.engine)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len({id(engine) for engine in engines}) == 1
    app.close()
    assert app.engine is not engines[0]
    app.close()
    app.close()


def test_a_child_forked_while_another_thread_opens_the_engine_can_open_its_own() -> None:
    app = Penstock("t", broker="memory://")
    with app._opening:
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            os._exit(0 if app.engine.url == "memory://" else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_an_unknown_scheme_names_the_known_ones() -> None:
    app = Penstock("t", broker="redsi://host")
    with pytest.raises(ConfigError, match="no engine serves redsi:// URLs; did you mean 'redis'"):
        app.engine  # noqa: B018


def test_a_missing_driver_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hiredis", None)
    for name in [name for name in sys.modules if name.startswith("penstock.engines.redis")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install 'penstock\[redis\]'"):
        Penstock("t", broker="redis://host").engine  # noqa: B018


def test_an_engine_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    opened: list[str] = []

    def open_engine(url: str, *, clock: object, queues: object) -> Any:
        opened.append(url)
        return fake_app()[1]

    entry = importlib.metadata.EntryPoint("nats", "plugin:open_engine", "penstock.engines")
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: open_engine)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    assert Penstock("t", broker="nats://h").engine.url == "fake://"
    assert opened == ["nats://h"]


def test_durability_is_refused_where_there_is_no_choice() -> None:
    with pytest.raises(Unsupported, match="durability='process': engines of memory:// do not honour it"):
        Penstock("t", broker="memory://", durability="process").engine  # noqa: B018


def test_unknown_settings_are_errors_with_a_hint() -> None:
    with pytest.raises(ConfigError, match="unknown setting 'task_default_que'; did you mean 'task_default_queue'"):
        Penstock("t", task_default_que="x")  # type: ignore[call-arg]


def test_broker_is_given_once() -> None:
    with pytest.raises(ConfigError, match="broker and broker_url are the same setting"):
        Penstock("t", broker="memory://", broker_url="sqlite:///x.db")


# -- names


def test_a_task_is_named_by_module_and_function() -> None:
    app = Penstock("t")

    @app.task
    def work() -> None:
        """Works."""

    assert work.name == f"{__name__}.work"
    assert app.tasks[work.name] is work
    assert work.__doc__ == "Works."


def test_two_tasks_of_one_name_are_refused_with_both_places() -> None:
    app = Penstock("t")
    app.task(name="x")(lambda: 1)
    with pytest.raises(ConfigError, match=r"two tasks are named 'x': .*test_app.py:\d+ and .*test_app.py:\d+"):
        app.task(name="x")(lambda: 2)


def test_the_same_definition_may_run_again() -> None:
    app = Penstock("t")
    for _ in range(2):

        @app.task
        def work() -> None: ...

    assert list(app.tasks) == [f"{__name__}.work"]


def test_a_function_without_a_name_needs_one() -> None:
    with pytest.raises(ConfigError, match="has no name of its own; give it one"):
        Penstock("t").task(lambda: None)


SCRIPT = """
from penstock import Penstock
app = Penstock("other")
@app.task
def add(x: int, y: int) -> int:
    return x + y
print(add.name)
"""


def test_a_script_names_its_tasks_as_the_worker_will_import_them(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    for path in (tmp_path / "jobs.py", package / "jobs.py"):
        path.write_text(SCRIPT)

    def name(*argv: str, stdin: str | None = None) -> str:
        run = subprocess.run(
            [sys.executable, *argv], cwd=tmp_path, input=stdin, capture_output=True, text=True, check=True
        )
        return run.stdout.strip()

    assert name("jobs.py") == "jobs.add"
    assert name("shop/jobs.py") == "shop.jobs.add"
    assert name("-m", "shop.jobs") == "shop.jobs.add"
    assert name("-", stdin=SCRIPT) == "other.add"


# -- options


def test_unknown_options_are_errors_with_a_hint() -> None:
    with pytest.raises(
        ConfigError, match=r"task 'builtins.print': unknown task option 'max_retry'; did you mean 'max_retries'"
    ):
        Penstock("t").task(max_retry=3)(print)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_retries": -1}, "max_retries"),
        ({"max_attempts": 0}, "max_attempts must be a whole number of at least 1, not 0"),
        ({"priority": 10}, "priority must be a whole number between 0 and 9"),
        ({"time_limit": 0}, "time_limit must be more than 0 seconds"),
        ({"time_limit": 5, "soft_time_limit": 5}, "soft_time_limit .* must be less than time_limit"),
        ({"autoretry_for": OSError}, "autoretry_for must be a tuple of exception classes"),
        ({"throws": ("OSError",)}, "throws must be a tuple"),
        ({"queue": "a\nb"}, "control characters"),
        ({"expires": -1}, "expires must be at least 0 seconds"),
        ({"serializer": "pickle"}, "'pickle' is not in accept_content: whoever can write to the queue could run code"),
        ({"base": int}, "base must be a subclass of penstock.Task"),
        ({"name": " "}, "spaces around it"),
    ],
    ids=str,
)
def test_bad_options_are_errors_when_the_task_is_declared(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Penstock("t").task(**{"name": "x", **options})(print)


def test_an_option_that_is_not_given_is_the_app_s_setting() -> None:
    app = Penstock("t", task_default_queue="q", task_time_limit=5, max_attempts=7, task_ignore_result=True)
    task = app.task(name="x", time_limit=2, queue=None)(print)
    options = task.options
    assert (options.queue, options.time_limit, options.max_attempts, options.ignore_result) == ("q", 2, 7, True)


def test_a_base_sets_options_which_the_decorator_overrides() -> None:
    class Base(Task[..., Any]):
        max_retries = 7
        autoretry_for = (OSError,)

    class Sub(Base):
        retry_backoff = True

    app = Penstock("t")
    one, two = app.task(name="one", base=Sub)(print), app.task(name="two", base=Sub, max_retries=None)(print)
    assert isinstance(one, Sub)
    assert (one.options.max_retries, one.options.autoretry_for, one.options.retry_backoff) == (7, (OSError,), True)
    assert (one.policy.max_retries, one.policy.backoff, one.max_retries) == (7, True, 7)
    assert (two.policy.max_retries, two.max_retries) == (None, None)


def test_a_queue_that_is_not_declared() -> None:
    app = Penstock("t", task_create_missing_queues=False, task_queues=["mail"])
    with pytest.raises(UnknownQueue, match="queue 'mial' is not declared; did you mean 'mail'"):
        app.task(name="x", queue="mial")(print)
    app.task(name="x", queue="mail")(print)


# -- calls by name


def test_send_task_needs_to_know_the_name_only() -> None:
    app, engine = fake_app()
    result = app.send_task("far.away", [1], {"x": 2}, countdown=5)
    (message,) = engine.broker.messages
    assert (message.task, message.body, message.content_type) == ("far.away", b'[[1],{"x":2}]', "json")
    assert result.id == "id-1"


def test_send_task_applies_what_is_known() -> None:
    app, engine = fake_app()
    app.task(name="add", queue="sums")(_add)
    app.send_task("add", (1,), {"y": 2})
    (message,) = engine.broker.messages
    assert (message.queue, message.body) == ("sums", b"[[1,2],{}]")
    with pytest.raises(EncodeError, match="argument 'y'"):
        app.send_task("add", (1, "2"))


def test_a_signature_is_sent() -> None:
    app, engine = fake_app()
    app.send(Signature("far.away", (1,), options={"queue": "other"}))
    (message,) = engine.broker.messages
    assert (message.task, message.queue) == ("far.away", "other")


def _add(x: int, y: int) -> int:
    return x + y
