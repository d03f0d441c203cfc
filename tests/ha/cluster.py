"""What the tests need of a cluster: who leads, how its leader fails, and how it comes back as a follower."""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import StrEnum

from tests.ha.wires import Wires
from tests.servers import Server

HEALING = 90.0
"""Seconds for a node to be back in the cluster."""


class Fault(StrEnum):
    KILL = "SIGKILL"
    FREEZE = "SIGSTOP"
    PARTITION = "partition"


class Cluster(ABC):
    """Three machines with their servers. A subclass starts them, and says who leads."""

    kind: str
    url: str
    """What the app is given."""
    results: str | None = None

    def __init__(self, wires: Wires) -> None:
        self.wires = wires
        self.nodes: list[Sequence[Server]] = []
        """The processes of each machine."""

    @abstractmethod
    def start(self) -> None:
        """All of them, until they are one cluster."""

    @abstractmethod
    def leader(self, queue: str) -> int:
        """The number of the machine that leads now (for this queue, where each has its own leader)."""

    @abstractmethod
    def rejoin(self, number: int, fault: Fault) -> None:
        """The machine is reachable again; make it a follower, and return when all members are in sync."""

    def strike(self, number: int, fault: Fault) -> None:
        match fault:
            case Fault.KILL:
                for server in self.nodes[number]:
                    server.stop(signal.SIGKILL)
            case Fault.FREEZE:
                for server in self.nodes[number]:
                    server.freeze()
            case Fault.PARTITION:
                self.wires.pull(number)

    def heal(self, number: int, fault: Fault) -> None:
        """Undo a fault, and wait until the machine follows the new leader."""
        match fault:
            case Fault.KILL:
                pass
            case Fault.FREEZE:
                for server in self.nodes[number]:
                    if server.process is not None:
                        server.thaw()
            case Fault.PARTITION:
                self.wires.plug(number)
        self.rejoin(number, fault)

    def close(self) -> None:
        for servers in self.nodes:
            for server in servers:
                server.stop(signal.SIGKILL)


def until(happened: Callable[[], bool], what: str, seconds: float = HEALING, pause: float = 0.2) -> None:
    """Look until it is so; `AssertionError` when that takes too long."""
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
