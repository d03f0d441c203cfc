"""What `penstock doctor` says of an engine that keeps less than others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from penstock import Penstock
from penstock.broker import Features
from penstock.cli.checks import check_alarms, check_engine, check_results, check_workers
from penstock.cli.findings import Level
from penstock.coordinator import WorkerInfo
from penstock.engines import memory
from penstock.engines.memory import MemoryEngine
from penstock.engines.memory.broker_face import FEATURES, MemoryBroker
from penstock.pressure.alarms import Alarm
from penstock.pressure.raised import store


class StartsUnseen(MemoryBroker):
    @property
    def features(self) -> Features:
        return replace(FEATURES, starts=False)


@pytest.mark.parametrize(("broker", "warned"), [(MemoryBroker, []), (StartsUnseen, [Level.WARNING])])
def test_poison_that_is_not_contained_is_told(broker: type[MemoryBroker], warned: list[Level]) -> None:
    app = Penstock("checked", broker="memory://")
    engine = cast(MemoryEngine, app.engine)
    engine.broker = broker(engine._store)
    assert [one.level for one in check_engine(app) if one.what == "poison"] == warned


def test_what_an_engine_warns_of_is_a_finding_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = memory.open_engine

    def warn(*arguments: Any, **named: Any) -> MemoryEngine:
        logging.getLogger("penstock.engine").warning("it writes nothing to disk")
        return real(*arguments, **named)

    monkeypatch.setattr(memory, "open_engine", warn)
    app = Penstock("checked", broker="memory://")
    found = [one.text for one in check_engine(app) if one.level is Level.WARNING]
    assert found[0] == "it writes nothing to disk"
    assert capsys.readouterr().err == ""


def test_results_that_are_apart_or_nowhere_are_told(tmp_path: Path) -> None:
    apart = Penstock("checked", broker="memory://", result_backend=f"sqlite:///{tmp_path}/r.db")
    assert next(one.text for one in check_results(apart)) == f"sqlite:///{tmp_path}/r.db"
    apart.close()
    assert list(check_results(Penstock("checked", broker="memory://"))) == []
    app = Penstock("checked", broker="memory://")
    engine = cast(MemoryEngine, app.engine)
    engine.broker = KeepsNothing(engine._store)
    assert [(one.level, one.text) for one in check_results(app)] == [(Level.NOTE, "nothing keeps none")]


class KeepsNothing(MemoryBroker):
    @property
    def features(self) -> Features:
        return replace(FEATURES, engine="nothing", results=False)


def test_the_queue_of_one_worker_is_no_queue_for_another() -> None:
    app = Penstock("checked", broker="memory://")
    for queue in ("plain", "mail@here.direct", "reload.to.mail@here"):
        app.send_task("x", queue=queue)
    app.engine.run(app.engine.coordinator.join(WorkerInfo("a" * 32, "other", "here", 1, 1, (), "solo", 0.0)))
    found = check_workers(app, app.engine.run(app.engine.inspect.queues()), "tasks")
    assert [one.remedy for one in found if "no worker serves" in one.text] == [
        "penstock -A tasks worker -Q plain",
        "penstock -A tasks worker -n mail@here, or penstock purge mail@here.direct",
        "penstock -A tasks worker -n mail@here, or penstock purge reload.to.mail@here",
    ]
    app.close()


def test_what_workers_warn_of_is_told_with_its_remedy_but_for_what_is_seen_here() -> None:
    app = Penstock("checked", broker="memory://")
    app.send_task("x", queue="mail")
    now = app.clock.time()
    alarms = [
        Alarm("stuck_worker", "mail", "w pid 7", 400.0, 300.0, now),
        Alarm("full", "mail", "", 0.9, 0.7, now),
    ]
    app.engine.run(store(app.engine.coordinator, "", ["mail"], alarms, now))
    [found] = check_alarms(app, app.engine.run(app.engine.inspect.queues()))
    assert (found.level, found.what) == (Level.WARNING, "alarm")
    assert "w pid 7" in found.text
    assert found.remedy is not None
    assert "kill -9" in found.remedy
    app.close()
