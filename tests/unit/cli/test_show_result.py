"""What `penstock result` says of who runs a task."""

from __future__ import annotations

from penstock import Penstock, State
from penstock.cli.show_result import describe, workers_of
from penstock.coordinator import WorkerInfo
from penstock.outcome import Report


def test_the_process_that_runs_it_is_named_as_an_operator_finds_it() -> None:
    app = Penstock("p", broker="memory://")
    app.engine.run(app.engine.coordinator.join(WorkerInfo("a" * 32, "w@here", "here", 4711, 1, (), "solo", 0.0)))

    def worker(number: str) -> str:
        report = Report("1", State.STARTED, task="t", worker=number * 32)
        return dict(describe(report, lambda: workers_of(app)))["worker"]

    assert worker("a") == "w@here, pid 4711 on here"
    assert worker("b") == "b" * 32, "it is gone, or tells nothing"
    app.close()
