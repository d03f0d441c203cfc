"""Limits on a real Redis: its script decides as `penstock.limiting` does, who waits is woken in time, nothing leaks."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any
from uuid import uuid4

import pytest

from penstock.broker import Accepted, Demand, Step
from penstock.coordinator import Revoked, WorkerInfo
from penstock.delivery import ACK, RELEASE, Dead, Delivery, RetryAt, Settlement, Verdict
from penstock.engines.redis import open_engine
from penstock.engines.redis.handle import RedisEngine
from penstock.limiting import LAG, Limiter, admit, renewed
from penstock.message import VERSION, Limit, Message
from penstock.outcome import State
from penstock.queue import QueueInfo

HARNESS = """
local function number(text) return tonumber(text) end
local rate, burst, concurrency, full = number(ARGV[2]), number(ARGV[3]), number(ARGV[4]), number(ARGV[5])
local limiter, at = { rate = rate, burst = burst, concurrency = concurrency, full = full }, number(ARGV[1])
if ARGV[6] == 'renewed' then
  return string.format('%.17g', limiting().renewed(limiter, number(ARGV[7]), burst, concurrency, at).full)
end
local costs = {}
for i = 8, #ARGV do costs[i - 7] = number(ARGV[i]) end
local going, again = limiting().admit(limiter, costs, number(ARGV[7]), at)
return { going, string.format('%.17g', limiter.full), again and string.format('%.17g', again) or '' }
"""
SLOW = 0.001
"""Units a second: nothing more comes during a test."""


@pytest.fixture
def engine(redis_url: str) -> Iterator[RedisEngine]:
    engine = open_engine(f"{redis_url}?prefix=limits{uuid4().hex}")
    yield engine
    engine.close()


def command(engine: RedisEngine, *parts: Any) -> Any:
    """`parts` of a command, with the name of a key behind the prefix as the second."""
    return engine.run(engine.link.command(parts[0], f"{engine.settings.prefix}:{parts[1]}", *parts[2:]))


def publish(engine: RedisEngine, *batch: Message) -> list[str]:
    answers = engine.run(engine.broker.publish(batch, 10.0))
    assert all(isinstance(answer, Accepted) for answer in answers), answers
    return [str(answer.key) for answer in answers if isinstance(answer, Accepted)]


def work(limit: Limit | None = None, queue: str = "q", body: bytes = b"[]", **fields: Any) -> Message:
    return Message(VERSION, "work", body, queue=queue, guards=(limit,) if limit else (), **fields)


def step(
    engine: RedisEngine, *settle: Settlement, queues: tuple[str, ...] = ("q",), limit: int = 100, wait: float = 0.0
) -> Step:
    return engine.run(engine.broker.step(settle, Demand(queues, limit, "w", 30.0, wait)))


def take(engine: RedisEngine, *queues: str, limit: int = 100) -> Sequence[Delivery]:
    return step(engine, queues=queues or ("q",), limit=limit).deliveries


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    return [one.message.body for one in deliveries if one.message]


def there(engine: RedisEngine, queue: str = "q") -> QueueInfo:
    (info,) = [one for one in engine.run(engine.inspect.queues()) if one.name == queue]
    return info


def keys(engine: RedisEngine, kind: str) -> list[str]:
    prefix = f"{engine.settings.prefix}:"
    found = engine.run(engine.link.command("KEYS", f"{prefix}{kind}:*"))
    return sorted(key.decode().removeprefix(prefix) for key in found)


# The same decisions.


def test_the_script_decides_as_the_module_does(engine: RedisEngine) -> None:
    source = (files("penstock.engines.redis") / "lua" / "limiting.lua").read_text("utf-8") + HARNESS
    chance = random.Random(5)
    for _ in range(400):
        now = 1_700_000_000 + round(chance.uniform(0, 1e6), 6)
        rate = chance.choice([None, 0.001, 1.0, 33.3, 1000.0, chance.uniform(0.01, 1e5)])
        limiter = Limiter(
            rate,
            chance.choice([1.0, 0.5, 10.0, chance.uniform(0.1, 100)]),
            chance.choice([None, None, 1, 5, 50]),
            chance.choice([0.0, now, now - 0.02, now + chance.uniform(-1, 100)]) if rate else 0.0,
        )
        leased = chance.choice([0, 0, 1, 4, 5, 60])
        costs = [
            chance.choice([1.0, 1.0, 0.1, 0.0, 7.0, chance.uniform(0.01, 50)]) for _ in range(chance.randrange(12))
        ]
        given = [now, limiter.rate, limiter.burst, limiter.concurrency, limiter.full]
        args = ["" if one is None else repr(one) for one in given]
        wanted = admit(limiter, costs, leased, now)
        found = engine.run(engine.link.command("EVAL", source, 0, *args, "admit", leased, *map(repr, costs)))
        again = None if found[2] == b"" else float(found[2])
        assert (found[0], float(found[1]), again) == (wanted.count, wanted.after.full, wanted.again), (limiter, costs)
        new = chance.choice([None, 2.0, rate, chance.uniform(0.01, 1e5)])
        full = engine.run(engine.link.command("EVAL", source, 0, *args, "renewed", "" if new is None else repr(new)))
        wanted_full = renewed(limiter, Limit("k", new, limiter.burst, limiter.concurrency), now).full
        assert float(full) == wanted_full, (limiter, new)


# Who waits.


def test_a_waiting_worker_is_woken_when_the_next_may_go_without_asking_meanwhile(engine: RedisEngine) -> None:
    limit = Limit("k", rate=2.0)
    publish(engine, work(limit), work(limit))
    assert len(take(engine)) == 1
    asked = calls(engine)
    started = time.monotonic()
    assert len(step(engine, wait=5.0).deliveries) == 1
    assert 0.3 < time.monotonic() - started < 2.0
    assert calls(engine) - asked <= 5


def calls(engine: RedisEngine) -> int:
    """Scripts that the server has run."""
    text = engine.run(engine.link.command("INFO", "commandstats")).decode()
    return sum(int(line.split("calls=")[1].split(",")[0]) for line in text.splitlines() if "cmdstat_eval" in line)


def test_who_knows_the_moment_tells_another_before_it_is_busy(engine: RedisEngine) -> None:
    """Two wait. The first one rung learns when the limited task may go, then takes another, and does not come back."""
    limit = Limit("k", rate=0.7)
    publish(engine, work(limit))
    assert len(take(engine)) == 1
    with ThreadPoolExecutor(2) as threads:
        first, second = (threads.submit(step, engine, wait=wait, limit=1) for wait in (3.0, 6.0))
        wait_until(lambda: command(engine, "ZCARD", "wait:/q") == 2)
        publish(engine, work(limit, body=b"limited"))
        wait_until(lambda: keys(engine, "shut") and command(engine, "ZCARD", "wait:/q") == 2)
        started = time.monotonic()
        publish(engine, work(body=b"free"))
        assert bodies(first.result().deliveries) == [b"free"]
        wait_until(lambda: who_wakes_up(engine) in command(engine, "ZRANGE", "wait:/q", 0, -1))
        assert bodies(second.result().deliveries) == [b"limited"]
    assert time.monotonic() - started < 3.0, "it came in its time, not when somebody happened to look"


def who_wakes_up(engine: RedisEngine) -> bytes:
    return (command(engine, "GET", "alarm:/q") or b"").partition(b" ")[2]


def test_one_of_those_who_wait_wakes_up_for_it_and_the_others_later(engine: RedisEngine) -> None:
    publish(engine, *(work(Limit("k", rate=SLOW)) for _ in range(2)))
    assert len(take(engine)) == 1

    def until(waiter: str) -> tuple[float, float]:
        """The earliest and the latest moment at which it may have been told to look again."""
        asked = [uuid4().hex, 0, 0, 0, 1, 1, 1 << 20, "30.0", "w", waiter, 0, 5.0, 1, "/q"]
        before = clock(engine)
        wait = float(engine.run(engine.link.again("step", asked))[2])
        assert who_wakes_up(engine) == b"one 1"
        return before + wait, clock(engine) + wait

    _, moment = command(engine, "ZRANGE", "shut:/q", 0, 0, "WITHSCORES")
    for waiter, later in (("one 1", 0.0), ("two 1", LAG * 0.4), ("two 2", LAG * 0.4), ("one 1", 0.0)):
        earliest, latest = until(waiter)
        assert earliest - 1e-4 <= float(moment) + later <= latest + 1e-4


def clock(engine: RedisEngine) -> float:
    seconds, micro = engine.run(engine.link.command("TIME"))
    return int(seconds) + int(micro) / 1e6


def test_neighbours_of_what_is_shut_wake_nobody_again_and_again(engine: RedisEngine) -> None:
    limit = Limit("k", rate=SLOW)
    publish(engine, *(work(limit) for _ in range(2)))
    assert len(take(engine)) == 1
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(step, engine, wait=1.0, limit=1)
        wait_until(lambda: command(engine, "ZCARD", "wait:/q") == 1)
        waiter, asked = who_wakes_up(engine), calls(engine)
        for _ in range(4):
            command(engine, "ZREM", "wait:/q", waiter)  # so that it is not rung for what comes, but could be afterwards
            publish(engine, work())
            command(engine, "ZADD", "wait:/q", time.time() + 60, waiter)
            assert len(take(engine, limit=1)) == 1
        time.sleep(0.1)
        assert calls(engine) - asked <= 8 + 1, "who wakes up for what is shut need not be told that it is"
        assert not waits.result().deliveries


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_end_wakes_who_waits_for_room(engine: RedisEngine) -> None:
    limit = Limit("k", concurrency=1)
    publish(engine, work(limit), work(limit, queue="other"))
    (first,) = take(engine)
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(step, engine, queues=("other",), wait=4.0)
        wait_until(lambda: command(engine, "ZCARD", "wait:/other") == 1)
        assert not waits.done()
        started = time.monotonic()
        engine.run(engine.broker.step([Settlement(first.receipt, ACK)], None))
        assert len(waits.result().deliveries) == 1
    assert time.monotonic() - started < 2.0


def test_newer_numbers_let_go_at_once(engine: RedisEngine) -> None:
    publish(engine, *(work(Limit("k", rate=SLOW, concurrency=1)) for _ in range(3)))
    assert len(take(engine)) == 1
    with ThreadPoolExecutor(1) as threads:
        waits = threads.submit(step, engine, wait=4.0, limit=2)
        wait_until(lambda: command(engine, "ZCARD", "wait:/q") == 1)
        publish(engine, work(Limit("k", rate=1000.0, burst=100.0, concurrency=10)))
        assert len(waits.result().deliveries) == 2
    assert len(take(engine)) == 1


# What people see and do.


def test_what_is_shut_is_seen_and_can_be_dropped(engine: RedisEngine) -> None:
    limit = Limit("a key/with: anything;\n", rate=SLOW)
    ids = publish(engine, *(work(limit, partition=part, priority=3) for part in ("", "x", "y")), work(queue="q"))
    assert len(take(engine)) == 2, "the first of the key, and the one beside it"
    info = there(engine)
    assert (info.ready, info.leased, info.depth) == (2, 2, 4)
    assert info.oldest_age is not None
    ready = [one for one in engine.run(engine.inspect.peek("q")) if one.state == "ready"]
    assert {one.id for one in ready} == set(ids[1:3])
    assert all(one.message for one in ready)
    assert engine.run(engine.coordinator.revoke([ids[1]])) == [Revoked.REMOVED]
    assert engine.run(engine.inspect.purge("q")) == 1
    assert [report.state for report in engine.run(engine.backend.fetch(ids[1:3]))] == [State.REVOKED] * 2
    assert there(engine).ready == 0
    for kind in ("lp", "shut", "lw", "lanes"):
        assert keys(engine, kind) == []


def test_partitions_of_a_key_take_turns(engine: RedisEngine) -> None:
    limit = Limit("k", concurrency=1)
    publish(engine, *(work(limit, body=b"a%d" % n, partition="a") for n in range(20)))
    publish(engine, work(limit, body=b"b0", partition="b"))
    taken: list[bytes] = []
    settle: list[Settlement] = []
    for _ in range(3):
        deliveries = step(engine, *settle).deliveries
        taken += bodies(deliveries)
        settle = [Settlement(one.receipt, ACK) for one in deliveries]
    assert b"b0" in taken
    assert taken[0] == b"a0"


def test_a_paused_queue_keeps_its_limited_tasks(engine: RedisEngine) -> None:
    limit = Limit("k", rate=10.0)
    publish(engine, *(work(limit) for _ in range(3)))
    assert len(take(engine)) == 1
    engine.run(engine.inspect.pause("q"))
    time.sleep(0.1)
    asked = calls(engine)
    assert not step(engine, wait=0.3).deliveries
    assert calls(engine) - asked <= 4, "nobody asks again and again for what is paused"
    engine.run(engine.inspect.resume("q"))
    assert len(take(engine)) == 1


def test_a_dead_letter_comes_back_with_its_limit(engine: RedisEngine) -> None:
    limit = Limit("k", rate=SLOW, burst=10.0, cost=8.0)
    (task_id,) = publish(engine, work(limit))
    (first,) = take(engine)
    engine.run(engine.broker.step([Settlement(first.receipt, Dead("no use"))], None))
    assert engine.run(engine.inspect.retry_dead([task_id])) == 1
    assert not take(engine)
    assert there(engine).ready == 1
    publish(engine, work(Limit("k")))
    assert len(take(engine)) == 2


def test_a_forgotten_limiter_is_told_by_what_waits(engine: RedisEngine) -> None:
    publish(engine, *(work(Limit("k", rate=SLOW, burst=2.0), body=b"%d" % n) for n in range(4)))
    command(engine, "DEL", "l:/k")
    assert bodies(take(engine)) == [b"0", b"1"]
    assert 0 < command(engine, "TTL", "l:/k") < 10_000
    assert not take(engine)


def test_a_repeated_step_pays_once(engine: RedisEngine) -> None:
    publish(engine, *(work(Limit("k", rate=SLOW, burst=3.0)) for _ in range(4)))
    asked = ["nonce", 0, 0, 0, 1, 1, 1 << 20, "30.0", "w", "waiter", 0, 0, 1, "/q"]
    first, again = (engine.run(engine.link.again("step", asked)) for _ in range(2))
    assert [one[:4] for one in first[1]] == [one[:4] for one in again[1]]
    assert float(first[1][0][4]) < float(again[1][0][4]), "what expires meanwhile is discarded"
    assert len(take(engine)) == 2


# Nothing leaks.


def test_whatever_happens_the_books_are_right(engine: RedisEngine) -> None:
    chance = random.Random(11)
    limits = [Limit("a", concurrency=2), Limit("b", rate=1e5, concurrency=5), Limit("c", rate=50.0, burst=3.0), None]
    held: list[Delivery] = []
    engine.run(engine.coordinator.join(WorkerInfo("w", "w", "h", 1, 1, (), "solo", 0.0)))
    for turn in range(120):
        queue = chance.choice(["q", "p"])
        match chance.randrange(9):
            case 0 | 1 | 2:
                batch = []
                for _ in range(chance.randrange(1, 6)):
                    eta = time.time() + 0.05 if chance.random() < 0.2 else None
                    priority, partition = chance.choice([3, 5]), chance.choice(["", "x"])
                    batch.append(work(chance.choice(limits), queue, eta=eta, priority=priority, partition=partition))
                publish(engine, *batch)
            case 3 | 4:
                held += take(engine, queue, limit=chance.randrange(1, 8))
            case 5 | 6 if held:
                chance.shuffle(held)
                settled, held = held[:3], held[3:]
                verdicts: tuple[Verdict, ...] = (ACK, ACK, RELEASE, RetryAt(time.time()), Dead("x"))
                items = [Settlement(one.receipt, chance.choice(verdicts)) for one in settled]
                held += step(engine, *items, limit=chance.randrange(3)).deliveries
            case 7:
                known = [one.id for one in engine.run(engine.inspect.peek(queue, 5))]
                engine.run(engine.coordinator.revoke(known[:1]))
            case 8 if turn % 3 == 0:
                engine.run(engine.coordinator.bury("w"))
                held = []
        right(engine)
    engine.run(engine.coordinator.bury("w"))
    engine.run(engine.inspect.retry_dead([one.id for one in engine.run(engine.inspect.dead_letters())]))
    drain(engine)
    for kind in ("ll", "lw", "shut", "lp", "lanes", "r", "h"):
        assert keys(engine, kind) == [], kind
    assert all(command(engine, "TTL", key) > 0 for key in keys(engine, "l"))


def drain(engine: RedisEngine) -> None:
    settle: list[Settlement] = []
    wait_until(lambda: not any(info.depth for info in engine.run(engine.inspect.queues())) or drained(engine, settle))


def drained(engine: RedisEngine, settle: list[Settlement]) -> bool:
    deliveries = step(engine, *settle, queues=("q", "p"), wait=0.1).deliveries
    settle[:] = [Settlement(one.receipt, ACK) for one in deliveries]
    return False


def right(engine: RedisEngine) -> None:
    """What is leased of a key is what claims hold of it, and each lane that has something is open or shut."""
    leased: dict[str, set[bytes]] = {}
    tokens = command(engine, "HGETALL", "t")
    for token, info in zip(tokens[::2], tokens[1::2], strict=True):
        namespace, _, _, _, *key = info.decode().partition(" ")[2].split("/")
        if key:
            found = command(engine, "HKEYS", f"h:{token.decode()}")
            leased.setdefault(f"{namespace}/{key[0]}", set()).update(found)
    books = {name.removeprefix("ll:"): set(command(engine, "SMEMBERS", name)) for name in keys(engine, "ll")}
    assert books == {name: ids for name, ids in leased.items() if ids}
    has_something = {name.removeprefix("r:") for name in keys(engine, "r")}
    is_shut, is_open = entries(engine, "shut"), entries(engine, "lanes")
    assert not is_shut & is_open
    waiting = {one.decode() for name in keys(engine, "lw") for one in command(engine, "ZRANGE", name, 0, -1)}
    assert waiting == is_shut
    assert {lane for entry in is_shut | is_open for lane in lanes_of(engine, entry)} == has_something
    for queue in {lane.split("/")[1] for lane in has_something}:
        ready = sum(command(engine, "ZCARD", f"r:{lane}") for lane in has_something if lane.split("/")[1] == queue)
        assert int(command(engine, "HGET", f"q:/{queue}", "ready")) == ready


def entries(engine: RedisEngine, kind: str) -> set[str]:
    return {
        f"{name.removeprefix(f'{kind}:')}/{entry.decode()}"
        for name in keys(engine, kind)
        for entry in command(engine, "ZRANGE", name, 0, -1)
    }


def lanes_of(engine: RedisEngine, entry: str) -> list[str]:
    if "//" not in entry.removeprefix("/"):
        return [entry]
    queue, _, key = entry.rpartition("//")
    return [f"{queue}/{one.decode()}/{key}" for one in command(engine, "ZRANGE", f"lp:{entry}", 0, -1)]
