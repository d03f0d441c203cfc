"""Who is measured: how its client and its workers are started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

Kind = Literal["raw", "celery", "peer", "ours"]
"""`celery` keeps results; Celery without them is a `peer` like the others."""


class Launch(Struct, frozen=True):
    """Commands, with the environment they need besides `BENCH_URL` and `BENCH_MARKS`."""

    client: tuple[str, ...]
    workers: tuple[tuple[str, ...], ...]
    env: Mapping[str, str] = field(default_factory=dict)


class Contender(Struct, frozen=True):
    """`tasks` are drained, which should take two to four seconds; `singles` are enqueued one by one before. `how` it
    works: processes, results, and what it does not do."""

    name: str
    what: str
    how: str
    kind: Kind
    launch: Launch
    tasks: int
    singles: int
    bulk: bool = True
    """Whether filling the queue is what its users would do for many confirmed calls."""
    latency: bool = False
    """Whether a caller can wait for a result."""
