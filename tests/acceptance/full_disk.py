"""A worker and a producer on a disk that fills up; run in a mount namespace of its own. Prints what it saw as JSON.

`python -m tests.acceptance.full_disk MOUNTPOINT HISTORY`, under `unshare --mount`. The history is on another disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from penstock.broker import Demand, Done
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, Delivery, Settlement
from penstock.engine import Engine
from penstock.errors import PenstockError
from penstock.outcome import Outcome, State
from penstock.testing.history import History, Kind
from tests.acceptance.actor import QUEUE, open_store, publish

SMALL, LARGE = "16m", "40m"
WORKER = "d" * 32
BATCH = 200


def mount(point: Path, size: str, *options: str) -> None:
    subprocess.run(["mount", *options, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point)], check=True)


def attempt(work: Callable[[], object]) -> str:
    """The name of the error that `work` raises, or "ok"."""
    try:
        work()
    except PenstockError as error:
        return type(error).__name__
    return "ok"


class Scene:
    def __init__(self, folder: Path, history: Path) -> None:
        self.path = folder / "queue.db"
        self.history = History(history, "full-disk")
        self.engine: Engine = open_store(str(self.path))
        self.next = 0

    def publish(self) -> None:
        tasks = [str(number) for number in range(self.next, self.next + BATCH)]
        self.next += BATCH
        publish(self.engine, self.history, tasks)

    def fill(self) -> str:
        """Publish until it is refused; by which error."""
        while True:
            answer = attempt(self.publish)
            if answer != "ok":
                return answer

    def join(self, worker: str) -> None:
        now = time.time()
        info = WorkerInfo(worker, "full", "here", os.getpid(), 1, (QUEUE,), "actor", now, now)
        self.engine.run(self.engine.coordinator.join(info))

    def reserve(self) -> list[Delivery]:
        return list(self.engine.run(self.engine.broker.step((), Demand((QUEUE,), 256, WORKER))).deliveries)

    def settle(self, deliveries: list[Delivery]) -> int:
        """Run and settle these; how many settlements were accepted."""
        names = [delivery.message.body.decode() for delivery in deliveries if delivery.message]
        self.history.note_all(Kind.STARTED, names)
        settled = [
            Settlement(delivery.receipt, ACK, Outcome(State.SUCCESS, name.encode(), time.time()))
            for delivery, name in zip(deliveries, names, strict=True)
        ]
        answers = self.engine.run(self.engine.broker.step(settled, None)).settled
        done = [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, Done)]
        self.history.note_all(Kind.COMMITTED, done)
        return len(done)

    def read(self) -> None:
        self.engine.run(self.engine.broker.depth(QUEUE))
        self.engine.run(self.engine.inspect.peek(QUEUE))

    def drain(self) -> int:
        total = 0
        while deliveries := self.reserve():
            total += self.settle(deliveries)
        return total


def main(point: Path, history: Path) -> dict[str, object]:
    mount(point, SMALL)
    scene = Scene(point, history)
    scene.join(WORKER)
    scene.publish()
    held = scene.reserve()
    seen: dict[str, object] = {"publish": scene.fill()}
    # The last pages as well.
    with open(point / "ballast", "wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(512))
    seen["free"] = os.statvfs(point).f_bavail
    seen["publish again"] = attempt(scene.publish)
    seen["read"] = attempt(scene.read)
    seen["another process"] = other_process(scene.path)
    seen["join"] = attempt(lambda: scene.join("e" * 32))
    seen["settle"] = attempt(lambda: scene.settle(held))
    seen["drain"] = attempt(scene.drain)
    seen["left"] = scene.engine.run(scene.engine.broker.depth(QUEUE))
    seen["publish after draining"] = attempt(scene.publish)
    mount(point, LARGE, "-o", "remount")
    if seen["settle"] != "ok":
        seen["settle with space"] = attempt(lambda: scene.settle(held))
    scene.engine.run(scene.engine.coordinator.reap())  # every worker does, each second
    seen["publish with space"] = attempt(scene.publish)
    scene.drain()
    scene.engine.close()
    (history.parent / "queue.db").write_bytes(scene.path.read_bytes())
    return seen


def other_process(path: Path) -> str:
    """Open the store anew, and look."""
    code = "import sys; from tests.acceptance.full_disk import attempt, open_store\n"
    code += "print(attempt(lambda: open_store(sys.argv[1]).run))"
    ran = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=30)
    return ran.stdout.strip() or f"exit code {ran.returncode}: {ran.stderr[-500:]}"


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
