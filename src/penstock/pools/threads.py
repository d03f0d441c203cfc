"""One child process with `-c N` threads, each a slot: for tasks that wait more than they compute.

Coroutine tasks occupy a thread, and run on that thread's own event loop. A soft time limit reaches a thread at its next
bytecode, not inside a blocking call. A thread cannot be ended from outside, so hard limits are refused.
"""

from __future__ import annotations

import threading

from penstock.pool import Crew, Traits


class Threads:
    traits = Traits("threads", supervised=True, processes=False, hard_limit=False, soft_limit=True)

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def run(self) -> None:
        threads = [
            threading.Thread(target=self._crew.serve, args=(number,), name=f"penstock-slot-{number}")
            for number in range(self._crew.slots)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
