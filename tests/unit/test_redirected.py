"""An app that works elsewhere for a while, and then as before."""

from pathlib import Path

import pytest

from penstock import ConfigError, Penstock
from penstock.clock import ManualClock
from tests import keys


def sum_app(tmp_path: Path) -> Penstock:
    return Penstock("tasks", broker=f"sqlite:///{tmp_path}/queue.db", task_default_queue="work")


def test_calls_go_elsewhere_and_come_back(tmp_path: Path) -> None:
    app, clock = sum_app(tmp_path), ManualClock(5.0)
    task = app.task(name="t")(lambda x: x)
    before = task.delay(1)
    engine = app.engine
    with app.redirected(clock, broker_url="memory://", task_default_queue="aside", task_time_limit=7.0):
        inside = task.delay(2)
        assert (app.engine.url, app.clock, app.conf.task_default_queue) == ("memory://", clock, "aside")
        assert (task.options.queue, task.options.time_limit) == ("aside", 7.0)
        assert inside.exists()
        assert not app.AsyncResult(before.id).exists()
    assert app.engine is engine
    assert (task.options.queue, task.options.time_limit) == ("work", None)
    assert app.AsyncResult(before.id).exists()
    assert not app.AsyncResult(inside.id).exists()
    app.close()


def test_nothing_is_opened_for_it(tmp_path: Path) -> None:
    app = sum_app(tmp_path)
    with app.redirected(broker_url="memory://"):
        app.task(name="t")(lambda: 5).delay()
    assert list(tmp_path.iterdir()) == []


def test_it_wins_over_code_and_over_modules_that_are_read_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_settings.py").write_text("task_default_priority = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app = sum_app(tmp_path)
    app.config_from_object("shop_settings")
    task = app.task(name="t")(lambda: 5)
    with app.redirected(broker_url="memory://", task_default_priority=9):
        app.configure(task_default_priority=1)
        assert app.conf.task_default_priority == 9
        assert task.options.priority == 9
    assert app.conf.task_default_priority == 2
    assert task.options.priority == 2


def test_tasks_made_meanwhile_stay_with_the_settings_of_the_app(tmp_path: Path) -> None:
    app = sum_app(tmp_path)
    with app.redirected(broker_url="memory://", task_default_queue="aside"):
        task = app.task(name="late")(lambda: 5)
    assert app.tasks["late"] is task
    assert task.options.queue == "work"


def test_an_error_inside_and_a_wrong_setting_leave_all_as_it_was(tmp_path: Path) -> None:
    app = sum_app(tmp_path)
    url, engine = app.broker_url, app.engine
    with pytest.raises(KeyError), app.redirected(broker_url="memory://"):
        raise KeyError
    with pytest.raises(ConfigError, match=r"app\.redirected: unknown setting 'brokerurl'"), app.redirected(brokerurl=1):  # type: ignore[call-arg]  # that is the point
        pass
    with pytest.raises(ConfigError, match="lease must be"), app.redirected(lease=-1):
        pass
    assert (app.broker_url, app.engine) == (url, engine)
    app.close()


def test_one_inside_another(tmp_path: Path) -> None:
    app = sum_app(tmp_path)
    with app.redirected(broker_url="memory://", task_default_queue="outer"):
        outer = app.engine
        with app.redirected(task_default_queue="inner"):
            assert app.conf.task_default_queue == "inner"
            assert app.engine is not outer
        assert (app.conf.task_default_queue, app.engine) == ("outer", outer)


def test_signatures_go_by_the_clock_of_the_block_and_then_by_that_of_the_app(tmp_path: Path) -> None:
    app = Penstock("tasks", broker="memory://", security_key=keys.pem(keys.private()))
    app.task(name="t")(lambda: 5)
    with app.redirected(ManualClock(5.0), broker_url="memory://"):
        assert app.pipeline.trust is not None
        assert app.pipeline.trust._now() == 5.0
    assert app.pipeline.trust is not None
    assert app.pipeline.trust._now() > 1e9
