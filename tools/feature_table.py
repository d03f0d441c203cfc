"""Make the table of engines and promises in docs/engines/index.md from each engine's `Features`.

.venv/bin/python -m tools.feature_table
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from penstock.broker import Features
from penstock.effects import KINDS
from penstock.engines.memory.broker_face import FEATURES as MEMORY
from penstock.engines.postgres.delivering import features as postgres_features
from penstock.engines.rabbitmq.broker_face import features as rabbitmq_features
from penstock.engines.rabbitmq.settings import read_settings
from penstock.engines.redis.tasks import features_of as redis_features
from penstock.engines.sqlite.engine import features as sqlite_features
from penstock.queue import OVERFLOWS, Bound
from penstock.server.broker import features_of as broker_features

PAGE = Path(__file__).parent.parent / "docs" / "engines" / "index.md"
BEGIN, END = "<!-- made by tools/feature_table.py -->\n", "<!-- end of what is made -->\n"


async def _nowhere(queue: str, namespace: str) -> Bound | None:
    """Results are on a server that keeps small shared state."""
    return None


ENGINES: Mapping[str, Features] = MappingProxyType(
    {
        "memory": MEMORY,
        "sqlite": sqlite_features("power"),
        "penstock": broker_features("power"),
        "redis": redis_features("power"),
        "postgresql": postgres_features("power"),
        "rabbitmq": rabbitmq_features(read_settings("amqp://localhost", bounds=_nowhere)),
    }
)
"""Each as it is on a server that is set up to keep the most."""


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _names(known: frozenset[str]) -> Callable[[Any], str]:
    def cell(value: frozenset[str]) -> str:
        return "all" if value >= known else ", ".join(sorted(value)) or "**none**"

    return cell


def _size(value: int) -> str:
    return f"{value / (1 << 20):.4g} MiB"


ROWS: Mapping[str, tuple[str, Callable[[Any], str]]] = MappingProxyType(
    {
        "durability": ("an accepted task survives: power, process or memory", _plain),
        "atomic_settle": ("the end of a task, its result and what follows are one transaction", _plain),
        "overflow": (
            "what a full queue can do with a publish: `reject`, `block`, `shed-lowest-priority`, `drop-oldest`",
            _names(frozenset(OVERFLOWS)),
        ),
        "bound": ("how sharp the bound of a queue is", _plain),
        "follows": (
            "`max_latency` and `max_age` of queues, where the bound is soft: kept where results are",
            lambda value: "yes" if value else "–",
        ),
        "whole_batches": ("a batch that does not fit is refused whole", _plain),
        "knows_ids": ("a repeated id is recognised, so that an unknown publish can be repeated", _plain),
        "guards": (
            "guards of a publish: `Unique`, `Dedup`, `Fence`, `Limit`",
            _names(frozenset({"Unique", "Dedup", "Fence", "Limit"})),
        ),
        "effects": ("what commits with the end of a task: `Publish`, `Join`, `ReleaseKey`, `Put`", _names(KINDS)),
        "delay": ("`countdown`, `eta` and delayed retries wait at the broker", _plain),
        "priority": ("`priority` 0 to 9", _plain),
        "partition": ("`partition`: keys take turns within a queue", _plain),
        "starts": ("starts are noted: a task that kills its worker is charged an attempt", _plain),
        "keeps_place": ("what comes back is delivered before what came later", _plain),
        "leases": ("a lease ends by time, or with the worker's connection", _plain),
        "revoke_queued": ("a waiting task can be taken out by `revoke()`", _plain),
        "sees_delayed": ("delayed tasks are seen by `peek`, dropped by `purge`", _plain),
        "counts_refusals": ("counts whom its full queues refuse; else who publishes does", _plain),
        "pause": ("a queue can be paused, and stays so", _plain),
        "coordination": ("remembers revocations, elects leaders, keeps small shared state", _plain),
        "results": ("keeps results itself", _plain),
        "streams": ("keeps what tasks publish while they run, with the results", _plain),
        "max_batch": ("messages in one publish", _plain),
        "max_message": ("size of one message", _size),
    }
)
"""Field of `Features` → its promise in words, and how a value is shown. `engine` is the column's head."""


def table() -> str:
    heads = ["promise", *(f"`{name}`" for name in ENGINES)]
    lines = [heads, ["---"] * len(heads)]
    for field, (meaning, show) in ROWS.items():
        lines.append([f"{meaning} (`{field}`)", *(show(getattr(one, field)) for one in ENGINES.values())])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines).replace("| --- ", "|---").replace("|--- |", "|---|")


def with_table(text: str) -> str:
    """The page's text with the table as it should be."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: there is no place for the table, between {BEGIN.strip()} and {END.strip()}")
    return f"{before}{begin}\n{table()}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
