"""What the server is set up to keep, as the engine sees it when it opens."""

from __future__ import annotations

from pathlib import Path

from penstock.engines.postgres import open_engine
from penstock.engines.postgres.migrating import steps
from penstock.queue import Queue
from tests.absent import not_tested
from tests.servers import NotInstalled, postgres_server


def test_a_standby_that_is_not_there_does_not_hold_up_the_start(tmp_path: Path) -> None:
    try:
        absent = "synchronous_standby_names=ANY 1 (absent)"
        with postgres_server(tmp_path, "-c", absent, "-c", "synchronous_commit=on") as server:
            for _ in range(2):  # the schema is made, and found
                open_engine(server.url, queues=[Queue("mail")]).close()
    except NotInstalled as missing:
        not_tested(missing)


def test_every_step_of_the_schema_has_a_number_of_its_own() -> None:
    """Of two with one number, whoever has that version already would never get the other."""
    numbers = [number for number, _ in steps()]
    assert numbers == list(range(1, len(numbers) + 1))
