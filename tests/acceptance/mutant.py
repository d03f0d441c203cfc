"""An actor with one promise broken on purpose: `python -m tests.acceptance.mutant MUTATION ARGUMENTS-OF-THE-ACTOR`.

The patches are made here, in the mutant's own process, and nowhere else: the product knows nothing of them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from penstock.delivery import Settlement
from penstock.engines.sqlite.database import Database
from penstock.engines.sqlite.planning import Plan
from penstock.engines.sqlite.readying import Readier
from penstock.engines.sqlite.registry import Registry, StartNotes
from penstock.engines.sqlite.settling import Settler
from tests.acceptance import actor
from tests.acceptance.outage import Load, examine
from tests.acceptance.power import Disk


def none() -> None:
    """The control: nothing is broken."""


def no_fence() -> None:
    """A settlement is carried out whether its lease is there or not."""

    def believe(self: Settler, batch: Sequence[Settlement], prepared: Plan) -> Plan:
        return prepared

    Settler._check_leases = believe  # type: ignore[method-assign]


def ack_before_sync() -> None:
    """A commit is confirmed while it is in the page cache only."""
    Database.sync = lambda self: None  # type: ignore[method-assign]


def start_not_recorded() -> None:
    """A start leaves no mark."""
    StartNotes.note = lambda self, slot, receipt: None  # type: ignore[method-assign]


def all_charged() -> None:
    """Whatever a dead worker held counts as started."""

    class Everything(set[tuple[int, int]]):
        def __contains__(self, pair: object) -> bool:
            return True

    Registry.started = lambda self, worker: Everything()  # type: ignore[method-assign]


def returned_work_dropped() -> None:
    """What a dead worker held is forgotten."""

    def drop(self: Readier, rows: list[int]) -> int:
        for row in rows:
            self._db.execute("DELETE FROM task WHERE id = ?", (row,))
        return 0

    Readier.put_back = drop  # type: ignore[method-assign]


def start_before_ack() -> None:
    """Work that must start at most once is started without being acknowledged."""
    actor.Worker._claim = lambda self, delivery, task: True  # type: ignore[method-assign]


MUTATIONS: Mapping[str, Callable[[], None]] = MappingProxyType(
    {
        mutate.__name__: mutate
        for mutate in (
            none,
            no_fence,
            ack_before_sync,
            start_not_recorded,
            all_charged,
            returned_work_dropped,
            start_before_ack,
        )
    }
)


def cut_power(folder: Path) -> None:
    """Print how many cuts lost tasks, and how many undid settlements."""
    load = Load(folder, Disk("forgetful"), "power")
    load.run(20)
    load.close()
    print(*examine(load.moments, folder))


if __name__ == "__main__":
    MUTATIONS[sys.argv[1]]()
    if sys.argv[2] == "power":
        cut_power(Path(sys.argv[3]))
    else:
        actor.main(sys.argv[2:])
