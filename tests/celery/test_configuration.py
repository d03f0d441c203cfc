"""An app and its settings, as Celery's users write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from penstock import ConfigError, Penstock, Queue, Task, UnknownQueue, crontab
from penstock.worker import WorkerOptions
from tests.celery.conftest import Work


class Settings:
    broker_url = "memory://"
    task_routes = {"mail.*": {"queue": "mail"}}  # noqa: RUF012  # as settings modules have it
    task_annotations = {"mail.send": {"max_retries": 9}}  # noqa: RUF012
    beat_schedule = {"hourly": {"task": "mail.send", "schedule": crontab(minute="0")}}  # noqa: RUF012
    timezone = "Europe/Berlin"


AS_IN_CELERY: dict[str, Any] = {
    "accept_content": ["json", "msgpack"],
    "imports": ("json",),
    "timezone": "Europe/Berlin",
    "beat_schedule": {"hourly": {"task": "t", "schedule": 3600.0, "args": (1,)}},
    "broker_url": "memory://",
    "result_backend": "memory://",
    "result_compression": "gzip",
    "result_expires": timedelta(hours=1),
    "result_serializer": "json",
    "security_certificate": None,
    "security_cert_store": (),
    "security_key": None,
    "security_key_password": None,
    "security_digest": "sha512",
    "task_acks_late": True,
    "task_always_eager": False,
    "task_annotations": {"t": {"max_retries": 9}},
    "task_compression": "zlib",
    "task_create_missing_queues": False,
    "task_inherit_parent_priority": True,
    "task_default_queue": "shop",
    "task_default_priority": 3,
    "task_default_rate_limit": "10/m",
    "task_eager_propagates": True,
    "task_ignore_result": True,
    "task_store_eager_result": True,
    "task_queues": [Queue("mail")],
    "task_routes": {"t": {"queue": "mail"}},
    "task_serializer": "msgpack",
    "task_soft_time_limit": 10,
    "task_time_limit": 20,
    "task_track_started": True,
    "worker_concurrency": 4,
    "worker_direct": True,
    "worker_max_memory_per_child": 200_000,
    "worker_max_tasks_per_child": 100,
    "worker_pool": "threads",
}


def test_each_setting_of_the_same_name_is_read() -> None:
    app = Penstock("shop")
    app.config_from_object(AS_IN_CELERY)
    task = app.task(name="t")(lambda: None)
    options = task.options
    assert (options.max_retries, options.queue, options.priority, options.ignore_result) == (9, "mail", 3, True)
    assert (options.soft_time_limit, options.time_limit, task.format.name, task.result_format.name) == (
        *(10, 20),
        *("msgpack", "json"),
    )
    assert options.rate_limit == "10/m"
    worker = WorkerOptions(name="w@here").settle(app)
    assert (worker.concurrency, worker.pool, worker.queues) == (4, "threads", ("w@here.direct", "shop", "mail"))
    assert (worker.max_tasks_per_child, worker.max_memory_per_child) == (100, 200_000)
    assert app.conf.result_expires == 3600 and app.conf.security_digest == "sha512"
    assert app.task_modules() == ("json",) and app.broker_url == "memory://" and list(app.periodic) == ["hourly"]
    with pytest.raises(UnknownQueue):
        task.apply_async(queue="nowhere")


def test_settings_come_from_objects_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Penstock("shop")
    app.add_defaults({"task_default_queue": "shop", "timezone": "UTC"})
    app.config_from_object(Settings)
    send = app.task(name="mail.send")(lambda: None)
    assert (app.conf.timezone, app.conf.task_default_queue) == ("Europe/Berlin", "shop")
    assert (send.options.queue, send.options.max_retries) == ("mail", 9)
    assert list(app.periodic) == ["hourly"]
    other = Penstock("other")
    other.config_from_object({"CELERY_TASK_TIME_LIMIT": 5, "DEBUG": True}, namespace="CELERY")
    assert other.conf.task_time_limit == 5
    monkeypatch.setenv("SHOP_SETTINGS", "tests.celery.test_configuration:Settings")
    third = Penstock("third")
    third.config_from_envvar("SHOP_SETTINGS")
    assert third.conf.timezone == "Europe/Berlin"


def test_old_and_unknown_names_say_what_to_write() -> None:
    app = Penstock("shop")
    for given, remedy in (
        ({"CELERY_TASK_RESULT_EXPIRES": 1}, "is called 'result_expires' now"),
        ({"worker_prefetch_multiplier": 1}, "is no setting here: a worker reserves"),
        ({"task_time_limits": 1}, "did you mean 'task_time_limit'"),
    ):
        with pytest.raises(ConfigError, match=remedy):
            app.config_from_object(given)


def test_names_of_an_app(app: Penstock, work: Work) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    assert app.tasks == {add.name: add} and isinstance(add, Task) and app.conf.timezone == "UTC"
    assert app.add_periodic_task(10.0, add.s(1, 1), name="often") == "often"
    result = app.signature(add.name, (1, 2)).delay()
    work()
    assert app.AsyncResult(result.id).get(timeout=5) == 3
    assert app.send_task(add.name, (1, 2)).state == "PENDING"
    app.autodiscover_tasks(["tests"])  # nothing is imported until a worker starts
    app.close()


def test_arguments_of_an_app() -> None:
    given: dict[str, Any] = {"broker": "memory://", "imports": ["tests"], "result_backend": "memory://"}
    app = Penstock("shop", **given)
    assert app.name == "shop" and app.conf.imports == ("tests",)
    app.close()
