"""Runs checks against an engine: all of them, or some areas, each on a kit of its own."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstock.testing.conformance.kit import Kit

Check = Callable[[Kit], Coroutine[Any, Any, None]]
KitFactory = Callable[[], Kit]


@dataclass(frozen=True)
class Failure:
    """A check that an engine did not pass, and why (`Violation`, or any other error)."""

    area: str
    check: str
    error: BaseException

    def __str__(self) -> str:
        return f"{self.area}: {self.check}\n{''.join(traceback.format_exception(self.error))}"


@dataclass
class Report:
    """What a run of the suite found."""

    passed: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.passed > 0 and not self.failures

    def __str__(self) -> str:
        return "\n".join([*map(str, self.failures), f"{self.passed} checks passed, {len(self.failures)} failed"])


def run_check(check: Check, make_kit: KitFactory) -> None:
    """Run one check on a kit of its own, in the kit's mode. Raises `Violation` when the promise is broken."""
    kit = make_kit()
    try:
        if kit.blocking:
            _drive(check(kit))
        else:
            asyncio.run(check(kit))
    finally:
        kit.close()


def run_areas(areas: Mapping[str, Sequence[Check]], make_kit: KitFactory) -> Report:
    report = Report()
    for area, checks in areas.items():
        for check in checks:
            try:
                run_check(check, make_kit)
            except Exception as error:
                report.failures.append(Failure(area, check.__name__, error))
            else:
                report.passed += 1
    return report


def _drive(check: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never suspends, because its kit blocks: there is no event loop anywhere."""
    try:
        check.send(None)
    except StopIteration:
        return
    check.close()
    raise RuntimeError("a check suspended in blocking mode: it awaits something else than its kit")
