"""Attempts that a task is charged with because its worker died: a file on this machine, beside the workers' notes.

RabbitMQ takes back what a dead worker held by itself, and a message there cannot be rewritten. So who is delivered a
message again looks here first. What was charged goes into the message's own header as soon as it is retried. Charges
are of this machine: a task that kills workers on several is counted on each for itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote

from penstock.engines.network.starts import Starts

KEPT = 7 * 86_400.0
"""Seconds for which a charge is remembered."""
CHARGED, CLEARED = "+", "-"
LARGEST = 1 << 20
"""Bytes of the file beyond which what is old is dropped."""


class Charges:
    def __init__(self, starts: Starts, path: str) -> None:
        self._starts = starts
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._counts: Counter[str] = Counter()

    def of(self, id: str) -> int:
        """Attempts of a task that was delivered before. Buries the dead of this machine first: the server may have
        noticed their end before their parents did."""
        for worker in self._starts.dead():
            self.bury(worker)
        self._read()
        return self._counts[id]

    def bury(self, worker: str) -> int:
        """Charge what the worker had started; returns how many. Once, however many call it at the same time."""
        with self._locked():
            ids = [str(receipt[-1]) for receipt in self._starts.started(worker)]
            self._append(ids)
            self._starts.remove(worker)
        return len(ids)

    def charge(self, ids: Iterable[str]) -> None:
        with self._locked():
            self._append(ids)

    def clear(self, ids: Iterable[str]) -> None:
        """What they were charged with is in their messages now."""
        with self._locked():
            self._append(ids, CLEARED)

    def _append(self, ids: Iterable[str], kind: str = CHARGED) -> None:
        now = int(time.time())
        lines = "".join(f"{now} {kind}{quote(id)}\n" for id in ids)
        if lines:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(lines)
                size = file.tell()
            if size > LARGEST:
                self._shrink(now)

    def _shrink(self, now: float) -> None:
        with open(self._path, encoding="utf-8") as file:
            kept = [line for line in file if _entry(line)[0] > now - KEPT]
        with open(f"{self._path}.new", "w", encoding="utf-8") as file:
            file.writelines(kept[-(len(kept) // 2 + 1) :])
        os.replace(f"{self._path}.new", self._path)

    def _read(self) -> None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            self._counts.clear()
            return
        seen = (found.st_size, found.st_mtime_ns)
        if seen == self._seen:
            return
        oldest = time.time() - KEPT
        counts: Counter[str] = Counter()
        with open(self._path, encoding="utf-8") as file:
            for line in file:
                when, kind, id = _entry(line)
                if kind == CLEARED:
                    counts.pop(id, None)
                elif when > oldest:
                    counts[id] += 1
        self._counts, self._seen = counts, seen

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with open(f"{self._path}.lock", "a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _entry(line: str) -> tuple[int, str, str]:
    """When, what and whose; a time of 0 for a line that was torn as its writer died, or its disk was full."""
    when, _, entry = line.rstrip("\n").partition(" ")
    whole = line.endswith("\n") and when.isdecimal() and entry[:1] in (CHARGED, CLEARED)
    return (int(when), entry[:1], unquote(entry[1:])) if whole else (0, CHARGED, "")
