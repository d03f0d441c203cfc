"""What only a Redis server can do to us: restarts, lost answers, a full memory, replicas. Real servers."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from penstock.broker import Accepted, Duplicate, Unknown
from penstock.delivery import ACK, RELEASE, Dead, Settlement
from penstock.engines.redis import RedisEngine, open_engine
from penstock.errors import BrokerUnavailable, OutcomeUnknown, StoreFull
from penstock.message import Unique
from penstock.outcome import Outcome, Progress, Report, State
from tests.acceptance.redis_tools import (
    AT_ONCE,
    Cutter,
    Open,
    begun,
    command,
    demand,
    message,
    opened,
    opened_raw,
    publish,
    server,
    taken,
)
from tests.servers import Server, redis_server

__all__ = ["opened", "server"]


def test_everything_goes_on_by_itself_after_a_restart(server: Server, opened: Open) -> None:
    client, worker = opened(server.url), opened(server.url)
    publish(client, message(id="first"))
    [delivery] = taken(worker)
    told: Future[list[Report]] = Future()
    client.backend.subscribe(["first"], lambda reports: told.set_result(list(reports)))
    waiting = begun(worker, worker.broker.step([], demand(wait=60.0)))
    server.stop(signal.SIGKILL)
    outcome = Outcome(State.SUCCESS, b"1", time.time())
    settling = begun(worker, worker.broker.step([Settlement(delivery.receipt, ACK, outcome)], None))
    sent = begun(client, client.broker.publish([message(id="second")], 30.0))
    server.start()
    assert len(settling.result(15).settled) == 1
    assert told.result(15)[0].outcome == outcome, "a result that came while the client was cut off"
    assert isinstance(sent.result(15)[0], Accepted)
    assert [one.key for one in waiting.result(15).deliveries] == ["second"]


SOON = 3.0
"""Seconds: less than the time after which a step looks though nobody rang."""


def waiting_step(engine: RedisEngine, limit: int = 100) -> "Future[Any]":
    """A step that waits, and is on the server's list."""
    step = begun(engine, engine.broker.step([], demand(wait=30.0, limit=limit)))
    while not command(engine, "ZSCORE", "{penstock}:wait:/default", waiter_of(engine)):
        time.sleep(0.01)
    return step


def waiter_of(engine: RedisEngine) -> str:
    return next(reversed(engine.broker._waiters), "")


def test_a_publish_wakes_who_waits(server: Server, opened: Open) -> None:
    client, worker = opened(server.url), opened(server.url)
    step = waiting_step(worker)
    publish(client, message(id="now"))
    assert [one.key for one in step.result(SOON).deliveries] == ["now"]


def test_who_takes_not_all_wakes_the_next(server: Server, opened: Open) -> None:
    client = opened(server.url)
    steps = [waiting_step(opened(server.url), limit=1) for _ in range(3)]
    publish(client, *(message(id=f"{n}") for n in range(3)))
    assert sorted(step.result(SOON).deliveries[0].key for step in steps) == ["0", "1", "2"]


@pytest.mark.parametrize("leaves", [True, False], ids=["gone", "busy"])
def test_a_ring_that_nobody_hears_goes_on_to_another(server: Server, opened: Open, leaves: bool) -> None:
    client, first, second = opened(server.url), opened(server.url), opened(server.url)
    first.run(first.broker.step([], demand(wait=0.05)))  # it is still on the list, and waits no more
    step = waiting_step(second)
    if leaves:
        first.close()
    publish(client, message(id="now"))
    assert [one.key for one in step.result(SOON).deliveries] == ["now"]


def test_an_idle_worker_hardly_asks(server: Server, opened: Open) -> None:
    worker = opened(server.url)
    for _ in range(3):
        worker.run(worker.broker.step([], demand(wait=0.2)))
    facts = command(worker, "INFO", "commandstats").decode()
    assert "cmdstat_evalsha:calls=1," in facts


def test_a_publish_without_a_server_raises_at_its_deadline(server: Server, opened: Open) -> None:
    engine = opened(server.url)
    server.stop(signal.SIGKILL)
    with contextlib.suppress(BrokerUnavailable):  # what is sent before the end is seen is unknown
        assert isinstance(publish(engine, message(), timeout=0.2)[0], Unknown)
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=f":{server.port}"):
        publish(engine, message(), timeout=0.5)
    assert 0.3 < time.monotonic() - began < 3.0


def test_a_frozen_server_leaves_a_publish_unknown(server: Server, opened: Open) -> None:
    engine = opened(server.url)
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        [answer] = publish(engine, message(id="mine"), timeout=0.5)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert answer == Unknown("mine")
    [answer] = publish(engine, message(id="mine"))
    assert isinstance(answer, Accepted | Duplicate)
    assert len(taken(engine)) == 1


def test_what_a_lost_answer_had_claimed_is_delivered(server: Server, opened: Open) -> None:
    with Cutter(server.port) as cutter:
        engine = opened(f"redis://127.0.0.1:{cutter.port}/0")
        publish(engine, *(message(id=f"{n}") for n in range(5)))
        [first, *_] = taken(engine)
        publish(engine, *(message(id=f"more-{n}") for n in range(5)))
        cutter.cut_next_answer()
        outcome = Outcome(State.SUCCESS, b"1", time.time())
        step = engine.run(engine.broker.step([Settlement(first.receipt, ACK, outcome)], demand()))
        assert cutter.cuts == 1
        assert [type(one).__name__ for one in step.settled] == ["Done"], "settled once, and known to be"
        assert sorted(one.key for one in step.deliveries) == [f"more-{n}" for n in range(5)]


def test_what_nobody_got_is_given_back_with_the_next_step(server: Server, opened: Open) -> None:
    """Its worker renews all its leases: without that, it would be leased for ever."""
    worker, other = opened(server.url), opened(server.url)
    publish(worker, *(message(id=f"{n}") for n in range(3)))
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        worker.run(_bounded(worker.broker.step([], demand()), 0.3))
    server.process.send_signal(signal.SIGCONT)
    assert taken(other) == [], "the step was done when the server came to"
    assert [one.key for one in taken(worker)] == ["0", "1", "2"]


async def _bounded(call: Coroutine[Any, Any, Any], seconds: float) -> Any:
    return await asyncio.wait_for(call, seconds)


def test_results_go_by_age_and_by_bytes(server: Server, opened: Open) -> None:
    few = opened(server.url, result_max_bytes=5_000)
    ids = [f"{n}" for n in range(40)]
    for task_id in ids:
        few.run(few.backend.store([(task_id, Outcome(State.SUCCESS, b"x" * 200, time.time()))]))
    states = [report.state for report in few.run(few.backend.fetch(ids))]
    assert states[0] is State.UNKNOWN, "the oldest is gone"
    assert states[-1] is State.SUCCESS, "the newest is there"
    assert 5 < states.count(State.SUCCESS) < 25
    young = opened(server.url, result_expires=0.2)
    time.sleep(0.25)
    young.run(young.coordinator.reap())
    assert {report.state for report in few.run(few.backend.fetch(ids))} == {State.UNKNOWN}
    assert command(few, "GET", "{penstock}:ob") == b"0"


def test_a_retried_dead_letter_keeps_its_second_result_for_its_time(server: Server, opened: Open) -> None:
    engine = opened(server.url, result_expires=0.6)
    publish(engine, message(id="mine"))
    [first] = taken(engine)
    engine.run(engine.broker.step([Settlement(first.receipt, Dead("no use"))], None))
    time.sleep(0.4)
    assert engine.run(engine.inspect.retry_dead(["mine"])) == 1
    [second] = taken(engine)
    outcome = Outcome(State.SUCCESS, b"1", time.time())
    engine.run(engine.broker.step([Settlement(second.receipt, ACK, outcome)], None))
    time.sleep(0.3)
    engine.run(engine.coordinator.reap())
    assert engine.run(engine.backend.fetch(["mine"]))[0].state is State.SUCCESS
    time.sleep(0.4)
    engine.run(engine.coordinator.reap())
    assert engine.run(engine.backend.fetch(["mine"]))[0].state is State.UNKNOWN


def test_ended_work_leaves_nothing_but_its_results(server: Server, opened: Open) -> None:
    engine = opened(server.url)
    publish(
        engine,
        message(id="plain"),
        message(id="unique", guards=(Unique("key"),)),
        message(id="part", partition="p", priority=9),
        message(id="soon", eta=time.time() + 0.05),
        message(id="dead"),
        message(id="revoked"),
    )
    told: Future[list[Report]] = Future()
    engine.backend.subscribe(["plain"], lambda reports: told.set_result(list(reports)))
    assert [found.value for found in engine.run(engine.coordinator.revoke(["revoked"]))] == ["removed"]
    time.sleep(0.1)
    deliveries = taken(engine)
    assert len(deliveries) == 5
    for one in deliveries:
        engine.run(engine.backend.note(one.key, Progress(1.0)))
    outcome = Outcome(State.SUCCESS, b"1", time.time())
    ends = [Settlement(one.receipt, Dead("x") if one.key == "dead" else ACK, outcome) for one in deliveries]
    engine.run(engine.broker.step(ends, None))
    assert told.result(SOON)[0].id == "plain"
    engine.run(engine.inspect.drop_dead(["dead"]))
    engine.run(engine.coordinator.leave("worker"))
    left = {key.decode().removeprefix("{penstock}:") for key in command(engine, "KEYS", "*")}
    kept = {"o", "od", "ob", "q:/default", "qs", "seq", "turn"}
    assert {key for key in left if not key.startswith("last:")} == kept
    [queue] = engine.run(engine.inspect.queues())
    assert (queue.depth, queue.bytes, queue.dead, queue.enqueued, queue.settled) == (0, 0, 0, 6, 6)


def test_a_cut_in_the_middle_of_a_publish_makes_one_task(server: Server, opened: Open) -> None:
    with Cutter(server.port) as cutter:
        engine = opened(f"redis://127.0.0.1:{cutter.port}/0")
        for number in range(3):
            cutter.cut_next_answer()
            [answer] = publish(engine, message(id=f"{number}"))
            assert answer == Unknown(f"{number}")
            assert publish(engine, message(id=f"{number}")) == [Duplicate(f"{number}")]
        assert [one.key for one in taken(engine)] == ["0", "1", "2"]


def test_a_full_memory_refuses_new_work_only(server: Server, opened: Open) -> None:
    engine = opened(server.url)
    publish(engine, *(message(id=f"{n}") for n in range(3)))
    command(engine, "CONFIG", "SET", "maxmemory", "1mb")
    with pytest.raises(StoreFull, match="maxmemory"):
        publish(engine, message(b"x" * 1000))
    one, two, three = taken(engine)
    outcome = Outcome(State.SUCCESS, b"1", time.time())
    step = engine.run(
        engine.broker.step([Settlement(item.receipt, ACK, outcome) for item in (one, two, three)], demand())
    )
    assert [type(item).__name__ for item in step.settled] == ["Done"] * 3
    [answer] = engine.run(engine.broker.follow_up([message(id="next")], 5.0))
    assert answer == Accepted("next")
    command(engine, "CONFIG", "SET", "maxmemory", "0")
    assert isinstance(publish(engine, message())[0], Accepted)


def test_flushed_scripts_are_sent_again(server: Server, opened: Open) -> None:
    engine = opened(server.url)
    command(engine, "SCRIPT", "FLUSH")
    assert isinstance(publish(engine, message())[0], Accepted)
    command(engine, "SCRIPT", "FLUSH")
    assert len(taken(engine)) == 1


def test_wait_accepts_only_what_replicas_have(server: Server, tmp_path: Path, opened: Open) -> None:
    engine = opened(f"{server.url}?wait=1&wait_timeout=0.3")
    assert publish(engine, message(id="alone")) == [Unknown("alone")]
    [delivery] = taken(engine)
    with pytest.raises(OutcomeUnknown, match="replicas"):
        engine.run(engine.broker.step([Settlement(delivery.receipt, ACK)], None))
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="replicas"):
            engine.run(engine.coordinator.put("key", b"value", 0))
    folder = tmp_path / "replica"
    folder.mkdir()
    with redis_server(folder, "--replicaof", "127.0.0.1", str(server.port), *AT_ONCE):
        patient = opened(f"{server.url}?wait=1&wait_timeout=10")
        assert publish(patient, message(id="both")) == [Accepted("both")]
        assert patient.run(patient.coordinator.put("key", b"value", 0)) is None, "it is there"
        leader, replica = engine.run(engine.inspect.members())
        assert (leader.role, leader.address) == ("leader", f"127.0.0.1:{server.port}")
        assert (replica.role, replica.alive) == ("replica", True)
        assert replica.lag is not None
        assert replica.lag_bytes is not None


def test_the_leader_is_found_among_several_hosts(server: Server, tmp_path: Path, opened: Open) -> None:
    folder = tmp_path / "replica"
    folder.mkdir()
    with redis_server(folder, "--replicaof", "127.0.0.1", str(server.port), *AT_ONCE) as replica:
        direct = opened(f"{server.url}?wait=1&wait_timeout=10")
        assert publish(direct, message(id="kept")) == [Accepted("kept")]
        with pytest.raises(BrokerUnavailable, match="is a replica"):
            open_engine(replica.url)
        engine = opened(f"redis://127.0.0.1:{replica.port},127.0.0.1:{server.port}/0")
        assert engine.link.place == ("127.0.0.1", server.port)
        waiting = begun(engine, engine.broker.publish([message(id="late")], 30.0))
        waiting.result(10)
        server.stop(signal.SIGKILL)
        sent = begun(engine, engine.broker.publish([message(id="new")], 30.0))
        promoting = opened_raw(replica.port)
        promoting.sendall(b"REPLICAOF NO ONE\r\n")
        assert promoting.recv(100).startswith(b"+OK")
        promoting.close()
        [answer] = sent.result(20)
        if isinstance(answer, Unknown):
            publish(engine, message(id="new"))
        assert engine.link.place == ("127.0.0.1", replica.port)
        assert {"kept", "new"} <= {one.key for one in taken(engine)}


def test_a_replica_is_read_where_that_is_asked_for(server: Server, tmp_path: Path, opened: Open) -> None:
    folder = tmp_path / "replica"
    folder.mkdir()
    with redis_server(folder, "--replicaof", "127.0.0.1", str(server.port), *AT_ONCE) as replica:
        worker = opened(f"{server.url}?wait=1&wait_timeout=10")
        publish(worker, message(id="done"), message(id="dead"), message(id="waiting"))
        done, dead, waiting = taken(worker)
        outcome = Outcome(State.SUCCESS, b"1", time.time())
        ends = [Settlement(done.receipt, ACK, outcome), Settlement(dead.receipt, Dead("no use"))]
        worker.run(worker.broker.step([*ends, Settlement(waiting.receipt, RELEASE)], None))
        reader = opened(f"{server.url}?read=replica")

        def look() -> list[Any]:
            reports = reader.run(reader.backend.fetch(["done", "dead", "waiting", "stranger"]))
            [queue] = reader.run(reader.inspect.queues())
            peeked = reader.run(reader.inspect.peek("default"))
            letters = reader.run(reader.inspect.dead_letters("default"))
            ids = [[one.id for one in peeked], [one.id for one in letters]]
            return [[one.state for one in reports], queue.ready, *ids]

        states = [State.SUCCESS, State.FAILURE, State.PENDING, State.UNKNOWN]
        wanted = [states, 1, ["waiting"], ["dead"]]
        assert look() == wanted
        with opened_raw(replica.port) as raw:
            raw.sendall(b"INFO commandstats\r\n")
            assert b"cmdstat_evalsha:calls=4," in raw.recv(10_000)
        replica.stop(signal.SIGKILL)
        assert look() == wanted, "the leader knows, too"
