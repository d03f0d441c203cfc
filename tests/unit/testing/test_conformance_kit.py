"""The suite's own tools: it asks for no pytest, and its kits run checks with and without an event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from penstock.clock import ManualClock
from penstock.engines.memory import open_engine
from penstock.testing.conformance import AREAS, Kit, Violation, run, run_check


def kit(*, blocking: bool) -> Kit:
    clock = ManualClock()
    return Kit(open_engine(clock=clock), blocking=blocking, clock=clock)


def test_pytest_is_not_imported() -> None:
    code = "import sys, penstock.testing.conformance; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_check_is_listed_once_and_named_for_its_promise() -> None:
    for area, checks in AREAS.items():
        module = sys.modules[f"penstock.testing.conformance.area_{area}"]
        written = {name for name in vars(module) if name.startswith("check_")}
        listed = [check.__name__ for check in checks]
        assert sorted(written) == sorted(listed), area


def test_blocking_checks_see_no_event_loop() -> None:
    async def check(kit: Kit) -> None:
        await kit.fill(await kit.queue(), 1)
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()

    run_check(check, lambda: kit(blocking=True))


def test_awaiting_checks_run_in_a_loop() -> None:
    async def check(kit: Kit) -> None:
        await kit.fill(await kit.queue(), 1)
        assert asyncio.get_running_loop().is_running()

    run_check(check, lambda: kit(blocking=False))


def test_a_blocking_check_must_not_await_anything_else() -> None:
    async def check(kit: Kit) -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="blocking mode"):
        run_check(check, lambda: kit(blocking=True))


@pytest.mark.parametrize("blocking", [True, False])
def test_an_accepted_thing_that_should_be_refused_is_a_violation(blocking: bool) -> None:
    async def check(kit: Kit) -> None:
        await kit.refused(kit.broker.depth("default"), "a depth")

    with pytest.raises(Violation, match="a depth is not among the features"):
        run_check(check, lambda: kit(blocking=blocking))


def test_an_engine_alone_is_enough_for_a_kit() -> None:
    report = run(lambda: kit(blocking=True))
    assert report.ok, str(report)
