"""What processes and files take while they are under load, looked at once a second."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.idle import tree

EVERY = 1.0


class Vigil:
    """`with Vigil(roots, folder) as vigil: …`. Processes are `roots()` with their descendants; files are all in
    `folder` but those below a folder `notes`."""

    def __init__(self, roots: Callable[[], list[int]], folder: Path) -> None:
        self._roots, self._folder = roots, folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.memory: dict[int, list[tuple[float, float]]] = {}
        """(when, MB that are its own) of each process."""
        self.files: list[tuple[float, float]] = []
        """(when, MB)."""

    def __enter__(self) -> Vigil:
        self._killed = _killed_for_memory()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.killed = _killed_for_memory() - self._killed

    def _watch(self) -> None:
        while not self._stop.wait(EVERY):
            now = time.monotonic()
            for pid in {pid for root in self._roots() for pid in tree(root)}:
                with contextlib.suppress(OSError):  # it has ended
                    self.memory.setdefault(pid, []).append((now, _anonymous(pid)))
            self.files.append((now, _size(self._folder)))

    def memory_growth(self, since: float, until: float) -> tuple[float, float]:
        """Of the process that grew most: the median of the last third by that of the first. And MB of all together, at
        the end."""
        grown = [_growth(seen, since, until) for seen in self.memory.values()]
        last = [seen[-1][1] for seen in self.memory.values()]
        return max(grown, default=1.0), sum(last)

    def file_growth(self, since: float, until: float) -> tuple[float, float]:
        return _growth(self.files, since, until), self.files[-1][1] if self.files else 0.0


def _growth(seen: list[tuple[float, float]], since: float, until: float) -> float:
    third = (until - since) / 3
    first = [value for at, value in seen if since <= at < since + third]
    last = [value for at, value in seen if until - third <= at < until]
    return statistics.median(last) / max(1e-6, statistics.median(first)) if first and last else 1.0


def _anonymous(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1000


def _size(folder: Path) -> float:
    return sum(_sizes(folder)) / 1e6


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        if "notes" not in path.relative_to(folder).parts:
            with contextlib.suppress(OSError):
                yield path.stat().st_size


def _killed_for_memory() -> int:
    """On this machine since it was started."""
    lines = Path("/proc/vmstat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
