"""The server fails: killed under load, cut off in the middle of a publish, out of memory."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from penstock.broker import Accepted, Duplicate
from penstock.errors import BrokerError, StoreFull
from tests.acceptance.load import Load
from tests.acceptance.mill import Mill
from tests.acceptance.processes import wait_until
from tests.acceptance.sites import Field, rabbitmqctl

Tell = Callable[[str], None]

CONSUMING = 5.0
"""Seconds after the server's return within which work must go on."""
CUTS = 12


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.extended)])
def test_the_server_is_killed_under_load(field: Field, kills: int, measured: Tell) -> None:
    mill, worker = field.mill(), field.worker()
    backs = []
    with Load(mill) as load:
        field.wait_for_work()
        # A RabbitMQ that is killed right after the declaration of a quorum queue never serves it again.
        time.sleep(1.0)
        for _ in range(kills):
            field.site.server.stop(signal.SIGKILL)
            time.sleep(0.5)
            field.site.server.start()
            backs.append(field.wait_for_work(20))
            time.sleep(0.5)
    ledger, remains = field.finish(mill, worker)
    assert max(backs) <= CONSUMING, backs
    measured(
        f"{kills} kills, {len(ledger.accepted):,} accepted, 0 lost, {ledger.repeated()} started again; consuming again "
        f"{', '.join(f'{back:.2f}' for back in backs)} s after the server was up; errors seen: {dict(load.errors)}"
    )
    assert remains.ended >= ledger.accepted


@pytest.mark.slow
def test_connections_are_cut_in_the_middle_of_a_publish(field: Field, measured: Tell) -> None:
    """Some publishes get to the server and their answers don't get back: unknown, asked again by the same id."""
    rng, count = random.Random(1), 0
    with field.proxy() as proxy:
        mill = field.mill(proxy)
        mill.publish(mill.touch, [0])
        cuts = 0
        for round_ in range(CUTS):
            numbers = range(1 + round_ * 50, 1 + round_ * 50 + 50)
            if round_ % 2:
                proxy.cut_after(to_server=rng.randrange(4_000))
            else:
                proxy.cut_after(to_client=rng.randrange(40))
            before = proxy.connections
            answers = mill.publish(mill.touch, numbers)
            assert {type(answer) for answer in answers} <= {Accepted, Duplicate}
            count += len(numbers)
            cuts += proxy.connections > before
        worker = field.worker()
        ledger, remains = field.finish(mill, worker)
    assert cuts >= CUTS // 2, f"only {cuts} publishes were cut"
    assert len(remains.ended) == count + 1
    if field.site.knows_ids:
        field.check_once(ledger)
    measured(f"{cuts} publishes cut, {count} tasks, 0 lost, {ledger.repeated()} of them ran twice")


@pytest.mark.slow
def test_all_connections_are_cut_under_load(field: Field, measured: Tell) -> None:
    with field.proxy() as proxy:
        mill, worker = field.mill(proxy), field.worker(proxy=proxy)
        with Load(mill) as load:
            field.wait_for_work()
            for _ in range(8):
                time.sleep(0.2)
                proxy.cut()
                field.wait_for_work(CONSUMING)
        ledger, _ = field.finish(mill, worker)
    measured(
        f"8 cuts, {len(ledger.accepted):,} accepted, 0 lost, {ledger.repeated()} started again, {dict(load.errors)}"
    )


@pytest.mark.slow
def test_a_silent_network_is_noticed(field: Field, measured: Tell) -> None:
    """Connections that are open and dead: the publisher is told in time, and both go on afterwards."""
    with field.proxy() as proxy:
        mill, worker = field.mill(proxy), field.worker()
        mill.publish(mill.touch, [0])
        with proxy.blackhole():
            began = time.monotonic()
            with pytest.raises(BrokerError):
                mill.publish(mill.touch, [1])
            told = time.monotonic() - began
        assert told < 8, "the publisher waits longer than its time-out of 5 s"
        wait_until(lambda: _published(mill), 10, "publishing goes on", 0.2)
        ledger, remains = field.finish(mill, worker)
    assert remains.ended >= ledger.accepted
    measured(f"told after {told:.2f} s")


def _published(mill: Mill) -> bool:
    try:
        mill.publish(mill.touch, [1])
    except BrokerError:
        return False
    return True


@contextmanager
def out_of_memory(field: Field) -> Iterator[None]:
    if field.site.kind == "redis":
        import redis

        with redis.Redis.from_url(field.site.server.url) as client:
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 300_000)
            try:
                yield
            finally:
                client.config_set("maxmemory", 0)
    else:
        rabbitmqctl(field.site.server, "set_vm_memory_high_watermark", "0.00001")
        try:
            yield
        finally:
            rabbitmqctl(field.site.server, "set_vm_memory_high_watermark", "0.4")


@pytest.mark.slow
@pytest.mark.parametrize("site", ["redis", "rabbitmq"], indirect=True)  # PostgreSQL keeps tasks on disk
def test_the_server_is_out_of_memory(field: Field, measured: Tell) -> None:
    """New work is refused with an error of ours and within its time; what is there goes on; then all is well again."""
    mill = field.mill()
    mill.publish(mill.touch, range(100))
    refused: list[BrokerError] = []
    with out_of_memory(field):
        began = time.monotonic()
        number = 100
        while not refused and time.monotonic() - began < 30:
            try:
                mill.publish(mill.touch, range(number, number + 500))
            except BrokerError as error:
                refused.append(error)
            number += 500
        took = time.monotonic() - began
        assert refused, "it was never out of memory"
        if field.site.kind == "redis":
            assert isinstance(refused[0], StoreFull)
        worker = field.worker()
        wait_until(lambda: mill.states(["0"])["0"].terminal, 20, "what was accepted goes on", 0.05)
    wait_until(lambda: _published(mill), 10, "publishing goes on", 0.2)
    ledger, remains = field.finish(mill, worker)
    assert remains.ended >= ledger.accepted
    measured(
        f"refused with {type(refused[0]).__name__} after {took:.1f} s: {refused[0]}; {len(ledger.accepted)} accepted, "
        "0 lost"
    )
