"""Each option of Celery's tasks and calls is one here, or has a remedy, and the error says it."""

import pytest

from penstock import ConfigError, Penstock
from penstock.celery_options import CALL, TASK
from penstock.options import CallSettings, TaskSettings
from tools import celery_tables

TASK_OPTIONS = [name for name in celery_tables.names_of("Task options") if name != "bind"]
CALL_OPTIONS = [name for name in celery_tables.names_of("Calling") if name.isidentifier()]
NOT_OPTIONS = {"delay", "apply_async", "apply", "send_task", "args", "kwargs", "delay_on_commit", "connection"} | {
    *("apply_async_on_commit", "task_publish_retry", "task_publish_retry_policy"),
    *("task_always_eager", "task_eager_propagates", "task_store_eager_result"),
}


def test_each_is_here_or_says_what_to_use_instead() -> None:
    assert set(TASK_OPTIONS) - {*TaskSettings.__annotations__} == set(TASK)
    assert set(CALL_OPTIONS) - {*CallSettings.__annotations__} - NOT_OPTIONS == set(CALL)


@pytest.mark.parametrize("name", TASK)
def test_a_task_is_told(name: str) -> None:
    app = Penstock("shop", broker="memory://")
    with pytest.raises(ConfigError, match=f"'builtins.print': Celery's task option '{name}' is none here: .{{9,}}"):
        app.task(**{name: 1})(print)  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match=f"Celery's task option '{name}' is none here"):
        app.configure(task_annotations={"t": {name: 1}})


@pytest.mark.parametrize("name", CALL)
def test_a_call_is_told(name: str) -> None:
    app = Penstock("shop", broker="memory://")
    with pytest.raises(ConfigError, match=f"Celery's call option '{name}' is none here: .{{9,}}"):
        app.send_task("t", **{name: 1})  # type: ignore[arg-type]
    app.close()
