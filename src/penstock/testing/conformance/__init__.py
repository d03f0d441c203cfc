"""The conformance suite: proves the promises of `docs/design.md` on a real server, for every engine.

    from penstock.testing.conformance import Kit, run

    report = run(lambda: Kit(open_engine("redis://…"), unit=0.3, patience=2.0))
    assert report.ok, str(report)

A check is a plain coroutine function that takes a `Kit` and raises `Violation`. With a test runner, parametrize over
`AREAS` and call `run_check(check, make_kit)` for each. What an engine does not declare in its `Features` is not
skipped: the checks then make sure that it is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from penstock.testing.conformance import (
    area_bound,
    area_coordination,
    area_delay,
    area_effects,
    area_guards,
    area_inspect,
    area_lease,
    area_limit,
    area_limited,
    area_once,
    area_overflow,
    area_partition,
    area_pause,
    area_priority,
    area_publish,
    area_result,
    area_revoke,
    area_step,
    area_stream,
)
from penstock.testing.conformance.expect import Violation
from penstock.testing.conformance.kit import Kit
from penstock.testing.conformance.runner import Check, Failure, KitFactory, Report, run_areas, run_check

AREAS: Mapping[str, Sequence[Check]] = {
    "publish": area_publish.CHECKS,
    "step": area_step.CHECKS,
    "lease": area_lease.CHECKS,
    "bound": area_bound.CHECKS,
    "overflow": area_overflow.CHECKS,
    "delay": area_delay.CHECKS,
    "priority": area_priority.CHECKS,
    "partition": area_partition.CHECKS,
    "guards": area_guards.CHECKS,
    "limit": area_limit.CHECKS,
    "limited": area_limited.CHECKS,
    "effects": area_effects.CHECKS,
    "result": area_result.CHECKS,
    "stream": area_stream.CHECKS,
    "once": area_once.CHECKS,
    "revoke": area_revoke.CHECKS,
    "coordination": area_coordination.CHECKS,
    "inspect": area_inspect.CHECKS,
    "pause": area_pause.CHECKS,
}


def run(make_kit: KitFactory, areas: Collection[str] | None = None) -> Report:
    """Run the checks of these areas (`None`: all), each on a new kit. Raises `KeyError` for an unknown area."""
    chosen = AREAS if areas is None else {area: AREAS[area] for area in areas}
    return run_areas(chosen, make_kit)


__all__ = ["AREAS", "Check", "Failure", "Kit", "KitFactory", "Report", "Violation", "run", "run_areas", "run_check"]
