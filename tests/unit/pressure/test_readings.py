"""What is read of queues and workers."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from penstock import ConfigError, Penstock, Queue
from penstock.pressure.readings import RECENT, Limits, Usual, calm, of_queue, of_tasks, of_workers, slowness
from penstock.pressure.reports import Report, Run, Standing
from penstock.pressure.samples import Samples, Times, Window
from penstock.queue import QueueInfo

LIMITS = Limits(0.7, 300.0, 3.0, 60.0)
INFO = QueueInfo("mail", "", 100, 1_000, 10, 900, 8, 2, 0, 0, 7.0, 10, 0)


def times(seconds: float, count: int = 100) -> Times:
    found = Times()
    found.add(seconds, count)
    return found


def samples(seconds: float, task: str = "t", count: int = 100) -> Samples:
    return Samples([("mail", task, times(seconds, count))], {})


def report(name: str, of: Samples, *standing: Standing) -> Report:
    return Report(0.0, 4, ("mail",), of, name, len(standing), list(standing))


def info(**changes: Any) -> QueueInfo:
    return replace(INFO, **changes)


def read(found: QueueInfo, limits: Limits = LIMITS) -> dict[str, float]:
    return {one.kind: one.value for one in of_queue("mail", limits, found)}


def test_the_fuller_bound_counts_and_what_is_not_known_is_not_read() -> None:
    assert read(INFO) == {"full": 0.9, "age": 7.0}
    assert read(info(bytes=None)) == {"full": 0.1, "age": 7.0}
    assert read(info(bytes=None, depth=None, ready=None, oldest_age=None)) == {}


def test_where_only_what_is_ready_is_told_it_is_what_fills_the_queue() -> None:
    found = info(bytes=None, depth=None, ready=30, leased=None, oldest_age=None)
    assert read(found) == {"full": 30 / found.max_length}
    assert not calm(found)
    assert calm(info(bytes=None, depth=None, ready=0, leased=None, delayed=None))


def test_a_paused_queue_may_be_as_old_as_it_likes() -> None:
    assert read(info(paused=True)) == {"full": 0.9}


def test_nothing_is_warned_of_that_is_not_asked_for() -> None:
    assert read(INFO, Limits(None, None, None, None)) == {}


def test_what_a_queue_says_goes_before_what_it_promises_and_that_before_the_settings() -> None:
    assert LIMITS.of(Queue("mail")) == LIMITS
    assert LIMITS.of(Queue("mail", warn_at=0.9, warn_age="10s")) == Limits(0.9, 10.0, 3.0, 60.0)
    assert LIMITS.of(Queue("mail", max_latency="2s", max_age=10)).age == 2.0
    assert LIMITS.of(Queue("mail", max_age=10)).age == 7.0
    assert LIMITS.of(Queue("mail", max_age=10, warn_age=60)).age == 60.0


def of_task(
    usual: Usual, of: Samples, expected: float | None = None, *live: Report, now: float = 1.0
) -> list[tuple[float, float]]:
    found = of_tasks("mail", LIMITS, live, of, usual, lambda task: expected, now)
    return [(round(one.value, 2), round(one.limit, 2)) for one in found]


def test_a_task_that_becomes_slow_is_out_of_its_own_range() -> None:
    usual = Usual()
    for now in range(60):
        usual.learn(samples(0.1, count=100 + now), 3.0, now)
    assert of_task(usual, samples(0.1), now=60) == [(0.1, 0.3)]
    [(value, limit)] = of_task(usual, samples(0.5), now=60)
    assert value > limit
    assert of_task(usual, samples(0.5), now=60 + RECENT) == [], "none has ended lately: it is no news"


def test_what_is_out_of_range_does_not_soon_become_usual() -> None:
    usual = Usual()
    usual.learn(samples(0.1), 3.0, 0.0)
    for now in range(1, 600):
        usual.learn(samples(1.0, count=100 + now), 3.0, now)
    limit = 3.0 * (usual.of("mail", "t") or 0.0)
    assert limit < 1.0
    for now in range(600, 6_000):
        usual.learn(samples(1.0, count=100 + now), 3.0, now)
    assert 3.0 * (usual.of("mail", "t") or 0.0) > 1.0, "what stays so is usual at last"


def test_what_is_declared_goes_before_what_is_usual() -> None:
    usual = Usual()
    usual.learn(samples(0.1), 3.0, 0.0)
    assert of_task(usual, samples(0.1), 0.05) == [(0.1, 0.05)]


def test_what_runs_now_counts_before_it_has_ended() -> None:
    usual = Usual()
    usual.learn(samples(0.1), 3.0, 0.0)
    running = report("a", Samples(), Standing("a pid 1", 1, 1, 40.0, [Run("mail", "t", 40.0)]))
    assert of_task(usual, samples(0.1), None, running) == [(40.0, 0.3)]
    assert of_task(Usual(), Samples(), None, running) == [], "nothing is known of it"
    assert of_task(Usual(), Samples(), 10.0, running) == [(40.0, 10.0)]


def test_a_few_samples_say_nothing_and_of_a_rare_task_some_looks_tell() -> None:
    usual = Usual()
    usual.learn(samples(0.1, count=1), 3.0, 0.0)
    for now in range(1, 19):
        usual.learn(samples(0.1 + now / 1_000, count=1), 3.0, now * 600.0)
        assert usual.of("mail", "t") is None
    usual.learn(samples(0.12, count=1), 3.0, 20_000.0)
    assert 0.1 < (usual.of("mail", "t") or 0.0) < 0.12


def test_a_worker_is_slow_beside_its_peers_in_the_same_tasks() -> None:
    live = [report("a", samples(0.1)), report("b", samples(0.1)), report("c", samples(0.5))]
    found = {one.subject: round(one.value, 2) for one in of_workers("mail", LIMITS, live, Usual())}
    assert found == {"a": 0.33, "b": 0.33, "c": 5.0}


def test_workers_of_one_name_are_told_apart() -> None:
    live = [replace(report("w@vm", samples(taken)), pid=pid) for pid, taken in ((1, 0.1), (2, 0.1), (3, 0.5))]
    found = {one.subject: round(one.value, 2) for one in of_workers("mail", LIMITS, live, Usual())}
    assert found == {"w@vm pid 1": 0.33, "w@vm pid 2": 0.33, "w@vm pid 3": 5.0}


def test_a_worker_that_is_slow_in_long_tasks_is_known_by_few() -> None:
    def long(seconds: float) -> Samples:
        window = Window()
        for _ in range(40):
            window.pass_on([("mail", "t", seconds, 1.0, 0.0, 0.0)], seconds)
        return window.samples

    live = [report("a", long(2.0)), report("b", long(2.0)), report("c", long(8.0))]
    found = {one.subject: round(one.value, 2) for one in of_workers("mail", LIMITS, live, Usual())}
    assert found["c"] == 4.0


def test_other_tasks_are_no_measure() -> None:
    live = [report("a", samples(0.1)), report("b", samples(5.0, "u"))]
    assert list(of_workers("mail", LIMITS, live, Usual())) == []
    assert slowness({"t": times(0.004)}, [{"t": times(0.0001)}]) == 1.0, "a few milliseconds are the machine's"


def test_who_is_busy_and_does_not_get_on_is_stuck() -> None:
    def stuck(run: Run, usual: Usual) -> list[tuple[str, float, float]]:
        live = [report("a", Samples(), Standing("a pid 1", 1, 1, 100.0, [run]))]
        return [(one.subject, one.value, round(one.limit, 3)) for one in of_workers("mail", LIMITS, live, usual)]

    assert stuck(Run("mail", "t", 100.0), Usual()) == [("a pid 1", 100.0, 60.0)]
    assert stuck(Run("mail", "t", 100.0, 90.0), Usual()) == [("a pid 1", 100.0, 150.0)]
    usual = Usual()
    usual.learn(samples(50.0), 3.0, 0.0)
    assert stuck(Run("mail", "t", 100.0), usual) == [("a pid 1", 100.0, 210.0)]
    assert stuck(Run("other", "t", 100.0), usual) == []


def test_a_stopped_process_is_stuck_and_no_task_is_blamed() -> None:
    live = [report("a", Samples(), Standing("a pid 1", 0, 0, 100.0, [Run("mail", "", 100.0)]))]
    found = [(one.subject, one.value, one.limit) for one in of_workers("mail", LIMITS, live, Usual())]
    assert found == [("a pid 1", 100.0, 60.0)]
    assert of_task(Usual(), Samples(), 1.0, *live) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("pressure_warn_at", 0),
        ("pressure_warn_at", 1.1),
        ("pressure_warn_at", True),
        ("pressure_warn_age", -1),
        ("pressure_warn_times", 1),
        ("pressure_warn_stuck", float("nan")),
    ],
)
def test_a_setting_that_is_no_limit_is_refused(setting: str, value: object) -> None:
    settings: dict[str, Any] = {setting: value}
    with pytest.raises(ConfigError, match=setting):
        Penstock("p", broker="memory://", **settings)


def test_a_queues_own_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="warn_at must be a part of the bound"):
        Queue("mail", warn_at=70)
    with pytest.raises(ConfigError, match="warn_age must be seconds"):
        Queue("mail", warn_age="soon")
