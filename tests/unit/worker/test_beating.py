"""A beat in a thread of the worker, where there is no supervisor."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import ConfigError, Penstock
from penstock.beat.beat import Beat
from penstock.worker import WorkerOptions, beating
from penstock.worker.beating import beating as beat_beside


@pytest.fixture
def app() -> Iterator[Penstock]:
    app = Penstock("app", broker="memory://", beat_schedule={"s": {"task": "tick", "schedule": 0.1}})
    app.task(name="tick")(lambda: None)
    yield app
    app.close()


def test_it_ticks_until_the_worker_ends(app: Penstock) -> None:
    ticked, publish = threading.Event(), app.client.publish

    async def tell(messages: Any) -> Any:
        ticked.set()
        return await publish(messages)

    app.client.publish = tell  # type: ignore[method-assign]  # to see it
    with beat_beside(app):
        assert ticked.wait(10)
    assert not any(thread.name == "penstock-beat" for thread in threading.enumerate())


def test_it_is_started_again_when_it_fails(app: Penstock, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(beating, "AGAIN", 0.01)
    tried, turn = list[int](), Beat.turn
    goes_on = threading.Event()

    def fail_once(self: Beat) -> float:
        tried.append(1)
        if len(tried) == 1:
            raise ZeroDivisionError("a bug")
        goes_on.set()
        return turn(self)

    monkeypatch.setattr(Beat, "turn", fail_once)
    with beat_beside(app):
        assert goes_on.wait(10)
    assert "the beat failed, and is started again" in caplog.text


def test_a_burst_has_no_beat() -> None:
    with pytest.raises(ConfigError, match="-B or --burst, not both"):
        WorkerOptions(beat=True, burst=True)
