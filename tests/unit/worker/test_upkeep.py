"""Upkeep against an engine that refuses."""

from __future__ import annotations

import pytest

from penstock.engines.memory import open_engine
from penstock.errors import ConfigError
from penstock.worker.upkeep import Upkeep


def test_a_tick_with_nothing_to_do_does_not_say_that_it_works_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine("memory://")
    upkeep = Upkeep(engine, None, 30.0, list)

    async def refused() -> int:
        raise ConfigError("wrong password")

    with monkeypatch.context() as patch:
        patch.setattr(engine.coordinator, "reap", refused)
        upkeep.tick(100.0)
        upkeep.tick(100.5)
        upkeep.tick(101.0)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "wrong password" in caplog.text
    assert "Traceback" not in caplog.text
    upkeep.tick(102.0)
    assert "works again" in caplog.text
