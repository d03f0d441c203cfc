"""What a gateway has answered since it started, for Prometheus: also what never came to a queue."""

from __future__ import annotations

import threading
from collections.abc import Callable

from penstock.metrics.text import Family, Sample

KINDS = 200
"""Kinds of answers that are told apart; those of an application's own sign-in may be any. The others are one."""
OTHERS = "(others)"


class Answered:
    """Thread-safe."""

    def __init__(self, begun: Callable[[], int]) -> None:
        """`begun`: how many requests are."""
        self._begun = begun
        self._lock = threading.Lock()
        self._counts: dict[tuple[int, str], int] = {}

    def add(self, status: int, problem: str) -> None:
        """`problem` is the last part of its type, if it is one."""
        with self._lock:
            known = (status, problem) in self._counts or len(self._counts) < KINDS
            kind = (status, problem if known else OTHERS)
            self._counts[kind] = self._counts.get(kind, 0) + 1

    def families(self) -> list[Family]:
        with self._lock:
            counts = sorted(self._counts.items())
        return [
            Family(
                "penstock_gateway_answers_total",
                "counter",
                "Answers of this gateway, by status and, where it refused, by what kind of problem.",
                [Sample({"status": str(status), "problem": problem}, count) for (status, problem), count in counts],
            ),
            Family(
                "penstock_gateway_requests_open",
                "gauge",
                "Requests that are begun and not answered, waits and streams included.",
                [Sample({}, self._begun())],
            ),
        ]
