"""An app whose tasks are parts of canvases, and a worker for it: `python -m tests.acceptance.loom BROKER NOTES …`.

Each start of a task is a line of the file NOTES: its name, its id, and the pattern that it belongs to.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from penstock import GroupResult, Penstock, Queue, chain, chord, group
from penstock.canvas import Canvas
from penstock.message import graph_key

NAP = 0.001
"""Seconds that a task takes, so that a kill meets one at work."""


class Pattern(NamedTuple):
    """A canvas, what it must give (an error's text, if it must fail), and how many tasks are started for it."""

    canvas: Canvas[Any]
    value: Any
    starts: int


class Loom:
    def __init__(self, broker: str, notes: Path, *, results: str | None = None, queue: str = "loom") -> None:
        self._notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.app = app = Penstock(
            "loom",
            broker=broker,
            result_backend=results,
            task_default_queue=queue,
            task_queues=[Queue(queue)],
            **({"durability": "process"} if broker.startswith("sqlite") else {}),  # type: ignore[arg-type]  # one key
        )
        # Only poison is charged for kills here, and nothing is poison.
        task = app.task
        self.add = task(name="add", bind=True, max_attempts=1000)(self._add)
        self.total = task(name="total", bind=True, max_attempts=1000)(self._total)
        self.fail = task(name="fail", bind=True, max_attempts=1000)(self._fail)
        self.become = task(name="become", bind=True, max_attempts=1000)(self._become)
        self.invite = task(name="invite", bind=True, max_attempts=1000)(self._invite)

    def _note(self, task: Any) -> None:
        line = f"{task.name} {task.request.id} {task.request.headers.get('pattern', '-')}\n"
        os.write(self._notes, line.encode())
        time.sleep(NAP)

    def _add(self, task: Any, x: int, y: int) -> int:
        self._note(task)
        return x + y

    def _total(self, task: Any, numbers: list[int]) -> int:
        self._note(task)
        return sum(numbers)

    def _fail(self, task: Any, number: int) -> int:
        self._note(task)
        raise ValueError(f"no {number}")

    def _become(self, task: Any, x: int) -> None:
        self._note(task)
        if "Join" in self.app.broker.features.effects:
            raise task.replace(chord([self.add.s(x, 1), self.add.s(x, 2)], self.total.s()))
        raise task.replace(chain(self.add.s(x, 1), self.add.s(x), self.add.s(1)))

    def _invite(self, task: Any, x: int) -> int:
        self._note(task)
        task.add_to_chord(self.add.s(x, 100))
        return x

    # -- patterns

    def chain(self) -> Pattern:
        return Pattern(chain(self.add.s(0, 1), *(self.add.s(1) for _ in range(5))), 6, 6)

    def chord(self) -> Pattern:
        return Pattern(chord([self.add.s(n, 1) for n in range(5)], self.total.s()), 15, 6)

    def nested(self) -> Pattern:
        inner = chord([self.add.s(1, 1), chain(self.add.s(1, 1), self.add.s(1))], self.total.s())
        canvas = chain(self.add.s(0, 1), group(self.add.s(1), self.add.s(2)), self.total.s())
        return Pattern(chord([inner, canvas, self.add.s(0, 10)], self.total.s()), 20, 10)

    def groups(self) -> Pattern:
        return Pattern(group(chain(self.add.s(n, 1), self.add.s(1)) for n in range(3)), [2, 3, 4], 6)

    def failing(self) -> Pattern:
        canvas = chain(self.add.s(0, 1), self.fail.s(), self.add.s(1), self.add.s(1))
        return Pattern(canvas, "no 1", 2)

    def failing_chord(self) -> Pattern:
        return Pattern(chord([self.add.s(1, 1), self.fail.s(7), self.add.s(1, 1)], self.total.s()), "no 7", 3)

    def becoming(self) -> Pattern:
        value = 6 if "Join" in self.app.broker.features.effects else 5
        return Pattern(chain(self.add.s(0, 1), self.become.s(), self.add.s(1)), value, 6)

    def inviting(self) -> Pattern:
        return Pattern(chord([self.invite.s(1), self.add.s(0, 5)], self.total.s()), 107, 4)

    def any(self, rng: random.Random, *, gathers: bool) -> Pattern:
        shapes = [self.chain, self.failing, self.becoming]
        if gathers:
            shapes += [self.chord, self.nested, self.groups, self.failing_chord, self.inviting]
        return rng.choice(shapes)()

    def is_stored(self, graph: str) -> bool:
        holder = self.app.engine if self.app.engine.broker.features.coordination else self.app.results
        return holder.run(holder.coordinator.get(graph_key(graph))) is not None


def value_of(result: Any, timeout: float) -> Any:
    """What it came to, an error as its text."""
    value = result.get(timeout=timeout, propagate=False)
    return str(value) if isinstance(value, BaseException) else value


def graphs_of(result: Any) -> set[str]:
    leaves = result.leaves() if isinstance(result, GroupResult) else [result]
    return {leaf._place.graph for leaf in leaves}


def starts(notes: Path) -> tuple[dict[str, set[str]], Counter[str]]:
    """The ids of the tasks that started, by pattern; and how often each id did."""
    by_pattern: dict[str, set[str]] = defaultdict(set)
    often: Counter[str] = Counter()
    for line in notes.read_text().splitlines():
        _, task_id, pattern = line.split()
        by_pattern[pattern].add(task_id)
        often[task_id] += 1
    return by_pattern, often


def main(argv: list[str]) -> int:
    from penstock.worker import Worker, WorkerOptions

    parser = argparse.ArgumentParser()
    parser.add_argument("--results")
    parser.add_argument("--queue", default="loom")
    parser.add_argument("broker")
    parser.add_argument("notes", type=Path)
    given = parser.parse_args(argv)
    loom = Loom(given.broker, given.notes, results=given.results, queue=given.queue)
    return Worker(loom.app, WorkerOptions(concurrency=2, pool="prefork", lease=5.0, loglevel="CRITICAL")).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
