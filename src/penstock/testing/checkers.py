"""Checkers of a history: each promise is one pure function, linear in the events, that tells what broke it.

    ledger = Ledger(read_history(path))
    remains = Remains(ended={...}, dead={...}, waiting={...})     # what the store shows once all is quiet
    for finding in (no_loss(ledger, remains), single_commit(ledger)):
        assert finding.ok, str(finding)

An unanswered publish is unknown: the task may be there or not, both are right. Nothing else is forgiven.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Set

from msgspec import Struct

from penstock.testing.history import Event, Kind

SHOWN = 10
"""Tasks that a finding names in its text."""


class Ledger:
    """A history, counted."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.asked: set[str] = set()
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        self.starts: Counter[str] = Counter()
        self.commits: Counter[str] = Counter()
        self.late: Counter[str] = Counter()
        self.acks: Counter[str] = Counter()
        for event in events:
            match event.kind:
                case Kind.STARTED:
                    self.starts[event.task] += 1
                case Kind.COMMITTED:
                    self.commits[event.task] += 1
                case Kind.LATE:
                    self.late[event.task] += 1
                case Kind.ACKNOWLEDGED:
                    self.acks[event.task] += 1
                case Kind.ASKED:
                    self.asked.add(event.task)
                case Kind.ACCEPTED:
                    self.accepted.add(event.task)
                case Kind.REFUSED:
                    self.refused.add(event.task)

    @property
    def unknown(self) -> set[str]:
        """Asked for, and never answered."""
        return self.asked - self.accepted - self.refused

    def repeated(self) -> int:
        """Starts beyond each task's first: what at-least-once costs."""
        return sum(self.starts.values()) - len(self.starts)

    def acknowledged_again(self) -> int:
        """Acknowledgements beyond each task's first: deliveries of what had ended, which had no effect."""
        return sum(self.acks.values()) - len(self.acks)


class Remains(Struct, frozen=True):
    """What the store shows once all is quiet: tasks ended with a result, in the dead letters, or still waiting."""

    ended: Set[str] = frozenset()
    dead: Set[str] = frozenset()
    waiting: Set[str] = frozenset()

    @property
    def all(self) -> Set[str]:
        return self.ended | self.dead | self.waiting


class Finding(Struct, frozen=True):
    """What a checker found. `tasks` are those that break the promise, `checked` is how many it looked at."""

    promise: str
    checked: int
    tasks: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.tasks

    def __str__(self) -> str:
        if self.ok:
            return f"{self.promise}: kept for {self.checked:,} tasks"
        named = ", ".join(self.tasks[:SHOWN]) + (" …" if len(self.tasks) > SHOWN else "")
        return f"{self.promise}: BROKEN for {len(self.tasks):,} of {self.checked:,} tasks: {named}"


def no_loss(ledger: Ledger, remains: Remains) -> Finding:
    """Every accepted task is somewhere."""
    return _finding("no accepted task is lost", ledger.accepted, ledger.accepted - remains.all)


def nothing_invented(ledger: Ledger, remains: Remains) -> Finding:
    """Nothing ran or is there that was never asked for, or was refused for certain and not accepted later."""
    seen = remains.all | ledger.starts.keys()
    possible = ledger.asked - (ledger.refused - ledger.accepted)
    return _finding("nothing is there that was not published", seen, seen - possible)


def single_commit(ledger: Ledger) -> Finding:
    """No task had two settlements accepted, or two results."""
    return _over("one accepted commit for each task", ledger.commits, 1)


def at_most_once(ledger: Ledger) -> Finding:
    """No task started twice. For tasks with `acks_late=False`."""
    return _over("at most one start for each task", ledger.starts, 1)


def all_started(ledger: Ledger, remains: Remains) -> Finding:
    """Whatever has a result has run."""
    return _finding("every result comes from a run", remains.ended, remains.ended - ledger.starts.keys())


def innocents_spared(ledger: Ledger, remains: Remains, poison: Collection[str]) -> Finding:
    """Nothing but poison is in the dead letters."""
    innocent = ledger.asked.difference(poison)
    return _finding("no innocent is charged for a poison", innocent, innocent & remains.dead)


def poison_contained(ledger: Ledger, remains: Remains, poison: Collection[str], max_attempts: int) -> Finding:
    """Each poison is in the dead letters, after exactly `max_attempts` starts."""
    loose = {task for task in poison if task not in remains.dead or ledger.starts[task] != max_attempts}
    return _finding(f"a poison is dead after {max_attempts} starts", poison, loose)


def _over(promise: str, counts: Counter[str], limit: int) -> Finding:
    return _finding(promise, counts, {task for task, count in counts.items() if count > limit})


def _finding(promise: str, checked: Collection[str], broken: Iterable[str]) -> Finding:
    return Finding(promise, len(checked), tuple(sorted(broken)))
