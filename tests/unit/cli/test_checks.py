"""What `penstock doctor` says of an engine that keeps less than others."""

from __future__ import annotations

from typing import cast

import pytest
from msgspec.structs import replace

from penstock import Penstock
from penstock.broker import Features
from penstock.cli.checks import Level, check_engine
from penstock.engines.memory import MemoryEngine
from penstock.engines.memory.broker_face import FEATURES, MemoryBroker


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
