"""What is the memory engine's own: its URL, its process, its waits, its bounded results."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest

from penstock.broker import Accepted, Conflict, Demand, Full
from penstock.clock import ManualClock
from penstock.delivery import ACK, RELEASE, Settlement
from penstock.engines.memory import MemoryEngine, open_engine
from penstock.errors import ConfigError, Unsupported
from penstock.message import VERSION, Message, Unique
from penstock.outcome import Outcome, State
from penstock.queue import Queue


def message(body: bytes = b"[]", **fields: object) -> Message:
    return Message(VERSION, "task", body, **fields)  # type: ignore[arg-type]  # the test says which


def publish(engine: MemoryEngine, *messages: Message) -> list[str]:
    answers = engine.run(engine.broker.publish(messages, 1.0))
    assert all(isinstance(answer, Accepted) for answer in answers)
    return [str(answer.key) for answer in answers if isinstance(answer, Accepted)]


def demand(wait: float = 0.0) -> Demand:
    return Demand(("default",), 10, "worker", wait=wait)


@pytest.mark.parametrize("url", ["memory://shared", "memory:", "redis://", ""])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="memory://"):
        open_engine(url)


def test_given_queues_are_declared() -> None:
    engine = open_engine("memory://", queues=[Queue("small", max_length=1)])
    publish(engine, message(queue="small"))
    [answer] = engine.run(engine.broker.publish([message(queue="small")], 1.0))
    assert isinstance(answer, Full)


def test_a_forked_child_is_refused() -> None:
    engine = open_engine()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            engine.run(engine.broker.depth("default"))
        except Unsupported as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert b"sqlite://" in answer.read()


def test_a_foreign_coroutine_is_refused() -> None:
    engine = open_engine()
    with pytest.raises(TypeError, match="its own coroutines"):
        engine.run(asyncio.sleep(0))


def test_a_signal_handler_may_interrupt_the_thread_that_waits() -> None:
    engine = open_engine()
    former = signal.signal(signal.SIGALRM, lambda *_: engine.broker.interrupt())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)  # again and again, lest the first comes before the wait
        step = engine.run(engine.broker.step([], demand(wait=30)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert step.deliveries == []


def test_an_interrupt_ends_only_the_waits_of_its_own_handle() -> None:
    engine = open_engine()
    other = engine.another()
    done = threading.Event()
    deliveries: list[object] = []

    def wait() -> None:
        deliveries.extend(engine.run(engine.broker.step([], demand(wait=30))).deliveries)
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    other.broker.interrupt()
    assert not done.wait(0.05)
    publish(other, message())
    assert done.wait(5)
    thread.join()
    assert len(deliveries) == 1


def test_a_waiting_step_does_not_block_the_loop() -> None:
    engine = open_engine()

    async def main() -> int:
        steps = [asyncio.create_task(engine.arun(engine.broker.step([], demand(wait=30)))) for _ in range(50)]
        await asyncio.sleep(0)
        await engine.arun(engine.broker.publish([message()], 1.0))
        done, waiting = await asyncio.wait(steps, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return sum(len(task.result().deliveries) for task in done)

    assert asyncio.run(main()) == 1


def test_a_cancelled_wait_takes_nothing() -> None:
    engine = open_engine()

    async def main() -> None:
        task = asyncio.create_task(engine.arun(engine.broker.step([], demand(wait=30))))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    publish(engine, message())
    assert len(engine.run(engine.broker.step([], demand())).deliveries) == 1


def test_threads_share_the_work_without_loss_or_repeat() -> None:
    engine = open_engine()
    ids = publish(engine, *(message() for _ in range(400)))
    got: list[str] = []

    def work() -> None:
        settle: list[Settlement] = []
        while True:
            step = engine.run(engine.broker.step(settle, Demand(("default",), 3, "worker")))
            if not step.deliveries:
                return
            got.extend(str(delivery.key) for delivery in step.deliveries)
            settle = [Settlement(delivery.receipt, ACK) for delivery in step.deliveries]

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == sorted(ids)
    assert engine.run(engine.broker.depth("default")) == 0


def test_results_are_bounded_by_age() -> None:
    clock = ManualClock()
    engine = open_engine(clock=clock, result_expires=100)
    store(engine, clock, "old")
    clock.advance(60)
    store(engine, clock, "new")
    clock.advance(60)
    assert states(engine, "old", "new") == [State.UNKNOWN, State.SUCCESS]


def test_results_are_bounded_by_bytes() -> None:
    clock = ManualClock()
    engine = open_engine(clock=clock, result_max_bytes=1000)
    for name in ("one", "two", "three"):
        store(engine, clock, name, b"x" * 400)
    assert states(engine, "one", "two", "three") == [State.UNKNOWN, State.SUCCESS, State.SUCCESS]


def test_a_released_task_holds_its_key_again() -> None:
    engine = open_engine()
    unique = message(guards=(Unique("key", until="start"),))
    publish(engine, unique)
    [delivery] = engine.run(engine.broker.step([], demand())).deliveries
    engine.run(engine.broker.step([Settlement(delivery.receipt, RELEASE)], None))
    assert isinstance(engine.run(engine.broker.publish([unique], 1.0))[0], Conflict)


def test_retry_after_follows_the_rate() -> None:
    clock = ManualClock()
    engine = open_engine(clock=clock, queues=[Queue("default", max_length=10)])
    publish(engine, *(message() for _ in range(10)))
    assert retry_after(engine) == pytest.approx(1.0, rel=0.1)
    clock.advance(3600)
    retry_after(engine)
    clock.advance(10)
    deliveries = engine.run(engine.broker.step([], Demand(("default",), 5, "worker"))).deliveries
    engine.run(engine.broker.step([Settlement(one.receipt, ACK) for one in deliveries], None))
    publish(engine, *(message() for _ in range(5)))
    assert retry_after(engine) == pytest.approx(10.0, rel=0.1)  # five tasks in the last ten seconds: five more


def test_closing_twice_and_ending_waits() -> None:
    engine = open_engine()
    thread = threading.Thread(target=lambda: engine.run(engine.broker.step([], demand(wait=30))))
    thread.start()
    deadline = time.monotonic() + 5
    while thread.is_alive() and time.monotonic() < deadline:
        engine.close()  # again and again, lest the first comes before the wait
        time.sleep(0.005)
    assert not thread.is_alive()


def retry_after(engine: MemoryEngine) -> float:
    [answer] = engine.run(engine.broker.publish([message()], 1.0))
    assert isinstance(answer, Full)
    return answer.retry_after


def store(engine: MemoryEngine, clock: ManualClock, name: str, value: bytes = b"1") -> None:
    assert engine.run(engine.backend.store([(name, Outcome(State.SUCCESS, value, clock.time()))])) == [True]


def states(engine: MemoryEngine, *names: str) -> list[State]:
    return [report.state for report in engine.run(engine.backend.fetch(names))]
