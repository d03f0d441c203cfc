"""Without an order of queues, a full one does not starve the rest."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock import Penstock, Queue
from penstock.worker import Worker, WorkerOptions


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    log = logging.getLogger("penstock")
    before = log.level
    yield
    log.setLevel(before)


@pytest.mark.parametrize(("queues", "first"), [((), "small"), (("full", "small"), "full")])
def test_in_turn_unless_an_order_is_asked_for(tmp_path: Path, queues: tuple[str, ...], first: str) -> None:
    app = Penstock(
        "turns",
        broker=f"sqlite:///{tmp_path}/queue.db?durability=process",
        task_queues=[Queue("full"), Queue("small")],
        task_default_queue="full",
    )
    ran: list[str] = []

    @app.task(name="note")
    def note(queue: str) -> None:
        ran.append(queue)

    for _ in range(300):
        note.apply_async(("full",), queue="full")
    for _ in range(3):
        note.apply_async(("small",), queue="small")
    options = WorkerOptions(pool="solo", burst=True, loglevel="WARNING", queues=queues)
    assert Worker(app, options).run() == 0
    assert len(ran) == 303
    assert ("small" in ran[:100]) == (first == "small")
