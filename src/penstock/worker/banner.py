"""What a worker says of itself when it starts."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from penstock.pool import Traits
from penstock.worker.settings import Settled

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.broker import Features


def banner(app: Penstock, settings: Settled, traits: Traits) -> str:
    """Where it works, on what, and how. No URL has a password."""
    bounds = {queue.name: queue for queue in app.conf.queues}
    queues = []
    for name in settings.queues:
        queue = bounds.get(name)
        bound = f"at most {queue.max_length:,} tasks, {queue.max_bytes:,} bytes" if queue else "default bounds"
        queues.append(f"{name} ({bound})")
    results = "" if app.keeps_results else "none: the broker keeps none, and result_backend is not set"
    if app.result_url is not None:
        results = app.results.url
    trust = app.pipeline.trust
    lines = [
        ("app", app.name),
        ("worker", settings.name),
        ("broker", app.engine.url),
        *([("results", results)] if results else []),
        ("survives", survived(app.engine.broker.features)),
        *([("signs", f"as {trust.key_id}, and accepts {trust.others}")] if trust is not None else []),
        ("pool", f"{traits.name} × {settings.concurrency}"),
        ("queues", "\n             ".join(queues)),
        ("tasks", "\n             ".join(sorted(app.tasks)) or "none: is the module that defines them imported?"),
    ]
    return laid_out(lines)


def laid_out(lines: Sequence[tuple[str, str]]) -> str:
    """Labels and what they say, below who says it."""
    head = f"penstock {_version()}, Python {platform.python_version()}"
    return "\n".join([head, *(f"  {label:<10} {text}" for label, text in lines)])


def survived(features: Features) -> str:
    return {"power": "loss of power", "process": "death of any process"}.get(features.durability, "nothing")


def _version() -> str:
    try:
        return version("penstock")
    except PackageNotFoundError:
        return "(not installed)"
