"""Where settings come from, which of two wins, and until when they may be given."""

import sys
import types
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest

from penstock import ConfigError, Penstock, Queue


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported, and are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in set(sys.modules) - before if name.startswith("t_")]:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


FILE = """
lease = 5
task_queues = ["mail", {name = "images", max_length = 10}]
[task_routes]
"mail.*" = "mail"
"images.*" = {queue = "images", priority = 3}
[task_annotations."mail.*"]
max_retries = 9
"""


def app(**settings: Any) -> Penstock:
    return Penstock("shop", broker="memory://", **settings)


# -- which wins


def test_arguments_win_over_objects_and_these_over_defaults_whatever_came_first() -> None:
    shop = app(task_time_limit=1)
    shop.config_from_object({"task_time_limit": 2, "lease": 20, "max_attempts": 2})
    shop.add_defaults({"task_time_limit": 3, "lease": 30, "max_attempts": 30, "publish_timeout": 3})
    assert (shop.conf.task_time_limit, shop.conf.lease, shop.conf.publish_timeout) == (1, 20, 3)
    shop.config_from_object({"lease": 25})
    assert (shop.conf.lease, shop.conf.max_attempts) == (25, 2)
    shop.configure(lease=5, task_time_limit=None)
    assert (shop.conf.lease, shop.conf.task_time_limit) == (5, None)


def test_tasks_that_were_there_before_take_the_new_settings() -> None:
    shop = app()
    task = shop.task(name="a", time_limit=9)(lambda: None)
    other = shop.task(name="b")(lambda: None)
    shop.configure(task_time_limit=60, task_default_queue="q", task_serializer="msgpack", task_routes={"b": "routed"})
    assert (task.options.time_limit, other.options.time_limit) == (9, 60)
    assert (task.options.queue, other.options.queue) == ("q", "routed")
    assert shop.client.prepare(other, (), {}).content_type == "msgpack"


def test_a_change_that_is_refused_changes_nothing() -> None:
    shop = app(task_queues=["known"], task_create_missing_queues=False)
    task = shop.task(name="a", queue="known")(lambda: None)
    for wrong in ({"lease": -1}, {"task_queues": []}, {"task_annotations": {"a": {"queue": "gone"}}}):
        with pytest.raises(ConfigError if "lease" in wrong else LookupError):
            shop.configure(**wrong)  # type: ignore[arg-type]  # wrong on purpose
        assert (shop.conf.lease, shop.conf.queues[1].name, task.options.queue) == (30, "known", "known")
    shop.configure(lease=5)
    assert shop.conf.lease == 5


def test_settings_are_complete_when_the_engine_is_open() -> None:
    shop = app()
    shop.task(name="a")(lambda: None).delay()
    for change in (
        lambda: shop.configure(lease=5),
        lambda: shop.config_from_object({}),
        lambda: shop.add_defaults({}),
    ):
        with pytest.raises(ConfigError, match=r"'shop' is at work on memory://: settings are given before its first"):
            change()
    shop.close()
    shop.configure(lease=5)
    assert shop.conf.lease == 5


def test_the_url_of_an_app_at_work_is_shown_without_its_password() -> None:
    shop = Penstock("shop", broker="redis://user:secret@localhost")
    shop._engine = cast(Any, object())
    with pytest.raises(ConfigError, match=r"at work on redis://user:\*\*\*@localhost: "):
        shop.configure(lease=5)


def test_the_broker_may_come_from_a_module_as_well() -> None:
    shop = Penstock("shop")
    shop.config_from_object({"broker_url": "memory://", "result_backend": "sqlite:////tmp/results.db"})
    assert (shop.broker_url, shop.result_url) == ("memory://", "sqlite:////tmp/results.db")


def test_the_frozen_settings_say_how_they_are_changed() -> None:
    conf: Any = app().conf
    with pytest.raises(AttributeError, match=r"app.conf is frozen, and has no update\(\): call app.configure"):
        conf.update(lease=5)
    with pytest.raises(AttributeError, match="unknown setting 'leese'; did you mean 'lease'"):
        conf.leese  # noqa: B018
    with pytest.raises(AttributeError, match="Celery's 'worker_prefetch_multiplier' is no setting here: a worker res"):
        conf.worker_prefetch_multiplier  # noqa: B018


# -- modules, classes, names


def test_a_module_is_read_when_settings_are_needed_and_not_before(folder: Path) -> None:
    shop = app()
    shop.config_from_object("t_settings")
    shop.configure(lease=5)
    write(folder, "t_settings.py", "lease = 4\ntask_time_limit = 60\n")
    assert (shop.conf.lease, shop.conf.task_time_limit) == (5, 60)


def test_settings_may_need_the_app_that_reads_them(folder: Path) -> None:
    write(folder, "t_both.py", "from penstock import Penstock\napp = Penstock('a')\napp.config_from_object('t_conf')\n")
    write(folder, "t_conf.py", "from t_both import app as _app\ntask_default_queue = _app.name\n")
    assert import_module("t_both").app.conf.task_default_queue == "a"


def test_what_a_module_imports_and_defines_is_its_own(folder: Path) -> None:
    write(
        folder,
        "t_full.py",
        "from __future__ import annotations\nimport os\nfrom datetime import timedelta\nfrom time import time\n"
        "from typing import Any\nfrom penstock import Queue\n"
        "REDIS_HOST = 'here'\n_private = 1\ndef helper(): ...\nclass Kept: ...\nresult_expires = timedelta(hours=1)\n"
        "task_queues = [Queue('mail')]\ndef task_routes(name, args, kwargs, options, task=None): return 'mail'\n",
    )
    shop = app()
    shop.config_from_object("t_full")
    assert (shop.conf.result_expires, shop.conf.task_queues) == (3600, (Queue("mail"),))
    assert shop.task(name="a")(lambda: None).routed


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("task_time_limits = 5", "t_wrong: unknown setting 'task_time_limits'; did you mean 'task_time_limit'"),
        ("TASK_TIME_LIMIT = 5", "t_wrong: 'TASK_TIME_LIMIT' is called 'task_time_limit' now"),
        ("CELERY_TASK_SERIALIZER = 'json'", "'CELERY_TASK_SERIALIZER' is called 'task_serializer' now"),
        ("CELERYD_CONCURRENCY = 5", "'CELERYD_CONCURRENCY' is called 'worker_concurrency' now"),
        ("CELERY_TASK_RESULT_EXPIRES = 5", "'CELERY_TASK_RESULT_EXPIRES' is called 'result_expires' now"),
        ("CELERYD_PREFETCH_MULTIPLIER = 5", "Celery's 'CELERYD_PREFETCH_MULTIPLIER' is no setting here: a worker res"),
        ("BROKER_HOST = 'x'", "Celery's 'BROKER_HOST' is no setting here: it is part of broker_url"),
        ("worker_prefetch_multiplier = 5", "Celery's 'worker_prefetch_multiplier' is no setting here: a worker"),
        ("PENSTOCK_LEASE = 5", "'PENSTOCK_LEASE' is a setting of a namespace: read it with namespace='PENSTOCK'"),
        ("lease = -5", "lease must be a number of seconds above 0, not -5"),
        ("from os import environ", "unknown setting 'environ'; what is no setting begins with _ there"),
    ],
)
def test_mistakes_in_a_module_are_told_with_the_remedy(folder: Path, line: str, error: str) -> None:
    write(folder, "t_wrong.py", line)
    shop = app()
    shop.config_from_object("t_wrong")
    with pytest.raises(ConfigError, match=error):
        shop.conf  # noqa: B018
    with pytest.raises(ConfigError, match=error):
        shop.broker_url  # noqa: B018


@pytest.mark.parametrize(
    ("name", "lease"), [("t_pkg.conf", 1), ("t_pkg.conf:Live", 2), ("t_pkg.conf.Live", 2), ("t_pkg.conf:Live.Inner", 3)]
)
def test_a_name_may_be_of_a_module_or_of_what_is_in_it(folder: Path, name: str, lease: float) -> None:
    write(folder, "t_pkg/__init__.py", "")
    write(folder, "t_pkg/conf.py", "lease = 1\nclass Live:\n    lease = 2\n    class Inner:\n        lease = 3\n")
    shop = app()
    shop.config_from_object(name)
    assert shop.conf.lease == lease


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("t_nowhere", "there is no module 't_nowhere'"),
        ("t_nowhere.conf", "there is no module 't_nowhere'"),
        ("json:Lvie", "'json' has no 'Lvie'"),
        ("", "not a module's name"),
    ],
)
def test_a_name_of_nothing_is_refused(name: str, error: str) -> None:
    shop = app()
    shop.config_from_object(name)
    with pytest.raises(ConfigError, match=error):
        shop.conf  # noqa: B018


def test_an_error_inside_a_module_stays_what_it_is(folder: Path) -> None:
    write(folder, "t_broken.py", "import surely_not_there\n")
    shop = app()
    shop.config_from_object("t_broken")
    with pytest.raises(ModuleNotFoundError, match="surely_not_there"):
        shop.conf  # noqa: B018


def test_an_object_is_checked_at_once() -> None:
    with pytest.raises(ConfigError, match="Live: unknown setting 'laese'"):
        app().config_from_object(type("Live", (), {"laese": 5}))
    with pytest.raises(ConfigError, match="dict: names of settings are strings, not 5"):
        app().config_from_object({5: 5})
    with pytest.raises(ConfigError, match="unknown setting 'x'"):
        app().add_defaults({"x": 1})
    with pytest.raises(ConfigError, match="unknown setting 'x'"):
        app().configure(x=1)  # type: ignore[call-arg]  # wrong on purpose


def test_defaults_may_be_told_by_a_function_when_they_are_needed() -> None:
    shop = app()
    told: list[int] = []

    def defaults() -> dict[str, Any]:
        told.append(1)
        return {"lease": 7}

    shop.add_defaults(defaults)
    assert not told
    assert (shop.conf.lease, shop.conf.lease, told) == (7, 7, [1])


def test_an_environment_variable_names_the_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "t_env_conf.py", "lease = 6\n")
    monkeypatch.setenv("SHOP_SETTINGS", "t_env_conf")
    shop = app()
    shop.config_from_envvar("SHOP_SETTINGS")
    assert shop.conf.lease == 6
    with pytest.raises(ConfigError, match="environment variable NO_SETTINGS is not set"):
        shop.config_from_envvar("NO_SETTINGS")


# -- namespaces


def test_a_namespace_is_all_that_is_looked_at() -> None:
    settings = types.SimpleNamespace(PENSTOCK_LEASE=5, PENSTOCK_TASK_ROUTES={"a": "b"}, CELERY_X=1, lease=9, DEBUG=True)
    shop = app()
    shop.config_from_object(settings, namespace="PENSTOCK")
    assert shop.conf.lease == 5
    with pytest.raises(ConfigError, match="'CELERY_X'"):
        shop.config_from_object(settings, namespace="CELERY")
    assert shop.conf.lease == 5


def test_django_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = pytest.importorskip("django.conf")
    settings = conf.LazySettings()  # one of its own: other tests have Django's
    monkeypatch.setattr(conf, "settings", settings)
    settings.configure(PENSTOCK_TASK_TIME_LIMIT=60, PENSTOCK_TASK_QUEUES=["mail"], PENSTOCK_BROKER_URL="memory://")
    shop = Penstock("shop")
    shop.config_from_object("django.conf:settings", namespace="PENSTOCK")
    assert (shop.conf.task_time_limit, shop.conf.queues[1].name, shop.broker_url) == (60, "mail", "memory://")


# -- files


def test_a_file_below_the_root_of_the_project(folder: Path) -> None:
    write(folder, "pyproject.toml", "")
    write(folder, "conf/live.toml", FILE)
    write(folder, "t_root/__init__.py", "from penstock import Penstock\napp = Penstock('a')\n")
    shop: Penstock = import_module("t_root").app
    shop.config_from_object("conf/live.toml")
    assert shop.conf.task_queues == (Queue("mail"), Queue("images", max_length=10))
    task = shop.task(name="images.make")(lambda: None)
    assert (task.options.queue, task.options.priority) == ("images", 3)
    assert shop.task(name="mail.send")(lambda: None).options.max_retries == 9


def test_files_and_their_mistakes(tmp_path: Path) -> None:
    def read(name: str, text: str | None) -> Any:
        if text is not None:
            (tmp_path / name).write_text(text)
        shop = app()
        shop.config_from_object(str(tmp_path / name))
        return shop.conf

    assert read("pyproject.toml", "[project]\nname='x'\n[tool.penstock]\nlease = 3\n").lease == 3
    assert read("pyproject.toml", "[project]\nname='x'\n").lease == 30
    for name, text, error in (
        ("missing.toml", None, "missing.toml cannot be read: No such file"),
        ("bad.toml", "lease = \n", "bad.toml is not TOML"),
        ("typo.toml", "laese = 1\n", "typo.toml: unknown setting 'laese'; did you mean 'lease'"),
        ("pyproject.toml", "[tool]\npenstock = 1\n", "tool.penstock must be a table"),
    ):
        with pytest.raises(ConfigError, match=error):
            read(name, text)


# -- annotations


def test_annotations_change_tasks_by_their_names() -> None:
    annotations = {"mail.*": {"max_retries": 9, "time_limit": 9}, "mail.send": {"time_limit": 5}, "*": {"priority": 1}}
    shop = app(task_annotations=annotations, task_routes={"*": {"priority": 7}})
    send = shop.task(name="mail.send", max_retries=1, time_limit=1)(lambda: None)
    other = shop.task(name="web.show", max_retries=1)(lambda: None)
    assert (send.options.max_retries, send.options.time_limit, send.options.priority) == (9, 5, 1)
    assert (other.options.max_retries, other.options.priority) == (1, 1)
    assert send.policy.max_retries == 9 and send.max_retries == 9


@pytest.mark.parametrize(
    ("annotations", "error"),
    [
        (5, "task_annotations is a dictionary by task name"),
        ([5], "task_annotations is a dictionary by task name"),
        ({"a": 5}, r"task_annotations\['a'\] must be a dictionary of task options, not 5"),
        (
            {"a": {"max_retry": 5}},
            r"task_annotations\['a'\]: unknown task option 'max_retry'; did you mean 'max_retrie",
        ),
        ({"*": {"priority": 99}}, r"task_annotations\['\*'\]: priority must be"),
    ],
    ids=str,
)
def test_bad_annotations_are_refused(annotations: Any, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        app(task_annotations=annotations)


# -- finding tasks


def test_tasks_are_found_when_they_are_needed(folder: Path) -> None:
    write(folder, "t_found/__init__.py", "")
    write(folder, "t_found/tasks.py", "")
    write(folder, "t_none/__init__.py", "")
    write(folder, "t_plain.py", "")
    shop = app(imports=["t_plain"])
    asked: list[int] = []

    def packages() -> list[str]:
        asked.append(1)
        return ["t_found", "t_none"]

    shop.autodiscover_tasks(packages)
    shop.autodiscover_tasks(["t_found"], related_name=None)
    assert not asked and "t_found" not in sys.modules
    assert shop.task_modules() == ("t_plain", "t_found.tasks", "t_found")
    shop.import_tasks()
    assert "t_found.tasks" in sys.modules and "t_plain" in sys.modules


def test_a_package_that_is_not_there_is_told(folder: Path) -> None:
    for packages, related in ((["t_gone"], "tasks"), (["t_gone.inner"], None), (["t_gone"], None)):
        shop = app()
        shop.autodiscover_tasks(packages, related)
        with pytest.raises(ConfigError, match="there is no module 't_gone"):
            shop.task_modules()


def test_an_error_in_a_found_module_is_its_own(folder: Path) -> None:
    write(folder, "t_err/__init__.py", "")
    write(folder, "t_err/tasks.py", "import surely_not_there\n")
    shop = app()
    shop.autodiscover_tasks(["t_err"])
    with pytest.raises(ModuleNotFoundError, match="surely_not_there"):
        shop.import_tasks()
