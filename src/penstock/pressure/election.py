"""Who watches a queue: one process, elected by a lease of its own in the shared state."""

from __future__ import annotations

from penstock.coordinator import Shared
from penstock.queue import Queue

LEASE, EVERY = 5.0, 1.0
"""Of a queue whose bound is changed: seconds after which another leads where one says nothing any more, and between two
claims."""
CALM_LEASE, CALM_EVERY = 15.0, 5.0
"""Of the others: each claim is a write."""
SLACK = 0.2
"""Seconds by which a claim may come early: who calls is not exactly on time."""


def lead_name(namespace: str, queue: str) -> str:
    return f"{queue_name(namespace, queue)}:lead"


def queue_name(namespace: str, queue: str) -> str:
    """Where the shared state has what belongs to one queue."""
    return f"pressure:{namespace}:of:{queue}"


class Election:
    """Of one process, for many queues."""

    def __init__(self, coordinator: Shared, namespace: str, holder: str) -> None:
        self._coordinator = coordinator
        self._namespace = namespace
        self._holder = holder
        self._known: dict[str, tuple[bool, float]] = {}
        """Queue → leads it, and when it asked."""

    async def leads(self, queue: Queue, now: float) -> bool:
        """Asks now and then; in between it is as it was. `now` is monotonic."""
        lease, every = (LEASE, EVERY) if queue.governed else (CALM_LEASE, CALM_EVERY)
        leads, asked = self._known.get(queue.name, (False, float("-inf")))
        if now - asked < every - SLACK:
            return leads
        name = lead_name(self._namespace, queue.name)
        leads = await self._coordinator.acquire(name, self._holder, lease) is not None
        self._known[queue.name] = leads, now
        return leads

    def forget(self, queue: Queue) -> None:
        """There is nothing to lead for: the lease may go."""
        self._known.pop(queue.name, None)
