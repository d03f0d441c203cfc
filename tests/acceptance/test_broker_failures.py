"""`penstock broker` is killed, restarted and frozen, its workers are killed; nothing that was accepted is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from penstock import Penstock
from penstock.errors import OutcomeUnknown
from tests.acceptance.load import Load
from tests.acceptance.processes import wait_until
from tests.acceptance.sites import Field, kill_family
from tests.servers.process import children

Tell = Callable[[str], None]

BACK = 2.0
"""Seconds from the start of a broker until it accepts work."""
ROUNDS = 3

pytestmark = pytest.mark.parametrize("site", ["broker"], indirect=True)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_broker_is_back_at_once_and_forgets_nothing(field: Field, how: signal.Signals, measured: Tell) -> None:
    """The producers ask again with the ids that they have chosen; the workers finish what they hold."""
    mill, worker = field.mill(), field.worker()
    up, working = [], []
    with Load(mill) as load:
        field.wait_for_work()
        for _ in range(ROUNDS):
            process = field.site.server.process
            field.site.server.stop(how)
            assert process is not None
            assert process.returncode == (0 if how is signal.SIGTERM else -signal.SIGKILL)
            began = time.monotonic()
            field.site.server.start()
            up.append(time.monotonic() - began)
            seen = len(load.accepted_at)
            wait_until(lambda seen=seen: len(load.accepted_at) > seen, 10, "it accepts work")
            working.append(time.monotonic() - began)
            field.wait_for_work(10)
            time.sleep(0.3)
    ledger, remains = field.finish(mill, worker)
    assert remains.ended >= ledger.accepted
    if how is signal.SIGTERM:
        field.check_once(ledger)
    assert min(up) <= BACK, up
    measured(
        f"{ROUNDS} times {how.name}, {len(ledger.accepted):,} accepted, 0 lost, {ledger.repeated()} started again, "
        f"serving after {max(up):.2f} s, work accepted after {max(working):.2f} s; errors seen: {dict(load.errors)}"
    )


@pytest.mark.slow
def test_what_is_published_without_an_id_is_there_once_after_a_kill(field: Field, measured: Tell) -> None:
    """The client numbers its requests, and asks again under the same number."""
    mill = field.mill()
    engine, depth = mill.app.engine, 0
    for round_ in range(ROUNDS):
        results = [mill.touch.apply_async((round_ * 100 + n,)) for n in range(50)]
        field.site.server.stop(signal.SIGKILL)
        field.site.server.launch()
        results += [mill.touch.apply_async((round_ * 100 + 50 + n,)) for n in range(50)]
        depth += len({result.id for result in results})
        assert engine.run(engine.broker.depth(field.queue)) == depth
    assert depth == ROUNDS * 100


@pytest.mark.slow
def test_a_frozen_broker_is_noticed_and_a_repeat_makes_no_second_task(field: Field, measured: Tell) -> None:
    app = Penstock("frozen", broker=field.site.server.url, task_default_queue=field.queue, publish_timeout=2.0)

    @app.task(name="touch")
    def touch(number: int) -> int:
        return number

    touch.delay(0)
    field.site.server.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown) as unknown:
            touch.delay(1)
        took = time.monotonic() - began
    finally:
        field.site.server.thaw()
    [task_id] = unknown.value.ids
    first = touch.apply_async((1,), task_id=task_id)
    second = touch.apply_async((1,), task_id=task_id)
    assert first.id == second.id
    assert app.engine.run(app.engine.broker.depth(field.queue)) == 2
    app.close()
    assert took < 4
    measured(f"told after {took:.2f} s; one task, with the id {first.id}")


@pytest.mark.slow
def test_a_killed_workers_tasks_are_started_again_within_three_seconds(field: Field, measured: Tell) -> None:
    """Not after its lease, though nobody is there to bury it."""
    mill = field.mill()
    mill.publish(mill.nap, [1], 30.0)
    victim = field.worker("--concurrency", 1, "--lease", 60)
    wait_until(lambda: field.starts(1) == 1, 20, "it starts")
    time.sleep(0.5)  # so long that the broker was told
    heir = field.worker("--concurrency", 1, "--lease", 60)
    wait_until(lambda: children(heir.pid), 20, "another one is there")
    time.sleep(1.0)
    kill_family(victim)
    gap = wait_until(lambda: field.starts(1) == 2, 10, "it is started again")
    [shown] = mill.app.engine.run(mill.app.engine.inspect.peek(field.queue))
    kill_family(heir)
    assert gap < 4
    measured(f"started again {gap:.2f} s after the kill (lease 60 s); {shown.state}")


@pytest.mark.slow
def test_everybody_is_killed_at_once(field: Field, measured: Tell) -> None:
    mill = field.mill()
    for round_ in range(2):
        mill.publish(mill.touch, range(round_ * 3_000, (round_ + 1) * 3_000))
        worker = field.worker()
        field.wait_for_work()
        field.site.server.stop(signal.SIGKILL)
        kill_family(worker)
        field.site.server.start()
    ledger, remains = field.finish(mill, field.worker("--lease", 30), 90)
    assert len(remains.ended) == 6_000
    measured(f"2 times, {len(remains.ended):,} tasks, 0 lost, {ledger.repeated()} started again")


@pytest.mark.slow
def test_a_connection_that_is_cut_once_does_not_count_as_the_end_of_a_busy_worker(field: Field, measured: Tell) -> None:
    """It says nothing for a while, since all that it does is running a task; but it lives, and comes back by itself."""
    with field.proxy() as proxy:
        mill = field.mill()
        mill.publish(mill.nap, [1], 8.0)
        worker = field.worker("--concurrency", 1, "--lease", 30, proxy=proxy)
        wait_until(lambda: field.starts(1) == 1, 20, "it starts")
        heir = field.worker("--concurrency", 1, "--lease", 30)
        wait_until(lambda: children(heir.pid), 20, "another one is there")
        time.sleep(1.0)
        proxy.cut()
        ledger, _ = field.finish(mill, worker)
        kill_family(heir)
    field.check_once(ledger)
