"""One slot on the main thread: in processes of their own (prefork), or in the process that was started (solo).

Coroutine tasks occupy the slot too; they run on the slot's own event loop.
"""

from __future__ import annotations

from penstock.pool import Crew, Traits


class Prefork:
    """`-c N` child processes, each with one slot. Can end any task at any time, by ending its process."""

    traits = Traits("prefork", supervised=True, processes=True, hard_limit=True, soft_limit=True)

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def run(self) -> None:
        self._crew.serve(0)


class Solo:
    """One slot in this process, without children: for debugging, and where something else supervises."""

    traits = Traits("solo", supervised=False, processes=True, hard_limit=False, soft_limit=True)

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def run(self) -> None:
        self._crew.serve(0)
