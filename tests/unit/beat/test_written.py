"""The timetable of an app's code."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import ConfigError, Penstock, Signature, crontab, schedule


def test_entries_are_read_as_celery_writes_them() -> None:
    app = Penstock(
        "app",
        broker="memory://",
        timezone="Europe/Berlin",
        beat_schedule={
            "add": {"task": "tasks.add", "schedule": 30.0, "args": (16, 16)},
            "report": {
                "task": "tasks.report",
                "schedule": crontab(hour=7, minute=30, day_of_week=1),
                "kwargs": {"to": "boss"},
                "options": {"queue": "mail"},
            },
        },
    )
    assert app.conf.beat_schedule["add"].schedule == schedule(30.0)
    assert app.periodic["report"].schedule == crontab(30, 7, 1, tz="Europe/Berlin")
    assert app.periodic["report"].options == {"queue": "mail"}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"schedule": 5}, "schedule 'x' has no 'task'"),
        ({"task": "t"}, "schedule 'x' has no 'schedule'"),
        ({"task": "t", "schedule": 5, "shedule": 1}, "unknown key 'shedule'; did you mean 'schedule'"),
        ({"task": "t", "schedule": "0 0 30 2 *"}, "schedule 'x': .* can never run"),
        ({"task": "t", "schedule": 5, "jitter": "much"}, "jitter must be"),
        ({"task": "t", "schedule": 5, "catch_up": "some"}, "catch_up must be"),
        ({"task": "t", "schedule": 5, "options": {"eta": 5.0}}, "option 'eta' would be the same"),
        ({"task": "t", "schedule": 5, "options": {"task_id": "a"}}, "option 'task_id' would be the same"),
        ({"task": "", "schedule": 5}, "task's name"),
        ([], "must be a dict"),
    ],
)
def test_what_is_wrong_is_said_when_the_app_is_made(entry: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Penstock("app", broker="memory://", beat_schedule={"x": entry})


@pytest.mark.parametrize("settings", [{"timezone": "Mars/Olympus"}, {"beat_lease": 0.1}, {"beat_schedule": [1]}])
def test_settings_that_are_wrong(settings: Any) -> None:
    with pytest.raises(ConfigError):
        Penstock("app", broker="memory://", **settings)


def test_periodic_tasks_are_added_by_name() -> None:
    app = Penstock("app", broker="memory://")
    task = app.task(name="tick")(lambda x, y=0: None)
    assert app.add_periodic_task(10.0, task.s(1)) == "tick(1)"
    assert app.add_periodic_task("0 4 * * *", task, (1,), {"y": 2}, queue="mail") == "tick(1, y=2)"
    assert app.add_periodic_task(5, Signature("far.away", (), {}, {"priority": 3}), name="far", expires=9) == "far"
    assert app.periodic["far"].options == {"priority": 3, "expires": 9}
    assert app.periodic["tick(1, y=2)"].schedule == crontab(0, 4, tz="UTC")


def test_settings_may_come_later() -> None:
    app = Penstock("app", broker="memory://")
    app.add_periodic_task("0 4 * * *", Signature("tick"), name="x")
    app.configure(timezone="Asia/Tokyo", beat_schedule={"y": {"task": "tick", "schedule": "30 4 * * *"}})
    assert app.periodic["x"].schedule == crontab(0, 4, tz="Asia/Tokyo")
    assert app.periodic["y"].schedule == crontab(30, 4, tz="Asia/Tokyo")
    app.configure(beat_schedule={"x": {"task": "other", "schedule": 5}})
    with pytest.raises(ConfigError, match="two schedules are named 'x'"):
        app.periodic  # noqa: B018


def test_modules_of_settings_are_not_read_for_a_schedule() -> None:
    app = Penstock("app", broker="memory://")
    app.config_from_object("no_such_module_yet")
    app.add_periodic_task("0 4 * * *", Signature("tick"), name="x")
    with pytest.raises(ConfigError, match="no_such_module_yet"):
        app.periodic  # noqa: B018


def test_what_was_refused_is_not_there() -> None:
    app = Penstock("app", broker="memory://", beat_schedule={"x": {"task": "tick", "schedule": 10}})
    with pytest.raises(ConfigError):
        app.add_periodic_task(20.0, Signature("tick"), name="x")
    assert app.periodic["x"].schedule == schedule(10.0)


def test_the_same_twice_is_once_and_another_of_its_name_is_refused() -> None:
    app = Penstock("app", broker="memory://", beat_schedule={"x": {"task": "tick", "schedule": 10}})
    app.add_periodic_task(10.0, Signature("tick"), name="x")
    with pytest.raises(
        ConfigError, match="two schedules are named 'x': tick by 'every 10 s', and tick by 'every 20 s'"
    ):
        app.add_periodic_task(20.0, Signature("tick"), name="x")
