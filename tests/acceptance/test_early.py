"""Tasks with `acks_late=False` on real servers: their callers wait for them, and they run once, whatever dies."""

from __future__ import annotations

import os
import signal

from penstock import State, WorkerLost, chain
from penstock.broker import Accepted, Duplicate
from tests.acceptance.processes import wait_until
from tests.acceptance.sites import Field
from tests.servers.process import children

PATIENCE = 20.0


def test_it_is_known_while_it_runs_and_lost_with_its_worker(field: Field) -> None:
    mill = field.mill()
    worker = field.worker("--concurrency", 1)
    [first] = mill.publish(mill.once, [1], 0.5)
    wait_until(lambda: field.starts(1), PATIENCE, "it starts")
    result = mill.app.AsyncResult(mill.id_of(1), mill.once)
    if field.site.knows_ids:
        [again] = mill.publish(mill.once, [1], 0.5)
        assert (type(first), type(again)) == (Accepted, Duplicate)
        assert result.state is State.STARTED
    assert (result.get(PATIENCE), result.state) == (1, State.SUCCESS)

    mill.publish(mill.once, [2], 60.0)
    wait_until(lambda: field.starts(2), PATIENCE, "it starts")
    os.kill(children(worker.pid)[0], signal.SIGKILL)
    mill.publish(mill.touch, [3])
    lost = mill.app.AsyncResult(mill.id_of(2), mill.once)
    if field.site.knows_ids:
        error = lost.get(PATIENCE, propagate=False)
        assert isinstance(error, WorkerLost)
        assert "acks_late=False" in str(error)
        assert mill.app.engine.run(mill.app.engine.coordinator.get(f"started/{lost.id}")) is None
    assert mill.app.AsyncResult(mill.id_of(3), mill.touch).get(PATIENCE) == 3
    if field.site.knows_ids:  # what follows it ends likewise
        following = chain(mill.once.s(4, 60.0), mill.touch.s()).delay()
        wait_until(lambda: field.starts(4), PATIENCE, "it starts")
        os.kill(children(worker.pid)[0], signal.SIGKILL)
        assert isinstance(following.get(PATIENCE, propagate=False), WorkerLost)
    worker.terminate()
    assert worker.wait(30) == 0
    field.check_once(field.ledger())
