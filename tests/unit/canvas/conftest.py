from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.canvas.workshop import Workshop


@pytest.fixture(params=["memory", "sqlite"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workshop]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'queue.db'}"
    shop = Workshop(url, durability=None if request.param == "memory" else "process")
    yield shop
    shop.app.close()
