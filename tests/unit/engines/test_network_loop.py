"""The loop thread of network engines, as it ends."""

import asyncio
import threading

from penstock.engines.network.loop import LoopThread
from penstock.errors import BrokerUnavailable


def test_who_calls_while_it_closes_is_told() -> None:
    thread, started = LoopThread("test"), threading.Event()
    errors: list[BaseException] = []

    async def for_ever() -> None:
        started.set()
        await asyncio.sleep(3600)

    def call() -> None:
        try:
            thread.run(for_ever())
        except BrokerUnavailable as error:
            errors.append(error)

    late = threading.Thread(target=call, daemon=True)

    async def ends_slowly() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            late.start()
            await asyncio.to_thread(started.wait, 5)

    thread.spawn(ends_slowly())
    thread.run(asyncio.sleep(0))
    thread.close()
    late.join(5)
    assert not late.is_alive()
    assert "not known what was done" in str(errors[0])


def test_a_call_that_comes_when_it_has_ended_is_refused() -> None:
    thread = LoopThread("test")
    thread.close()
    thread._closed = False  # as a caller saw it who looked just before
    ended: list[BaseException] = []

    def call() -> None:
        try:
            thread.run(asyncio.sleep(0))
        except BrokerUnavailable as error:
            ended.append(error)

    late = threading.Thread(target=call, daemon=True)
    late.start()
    late.join(5)
    assert ended


def test_a_call_that_is_cancelled_before_it_began_is_told() -> None:
    thread = LoopThread("test")
    told: list[BaseException | None] = []

    async def closing() -> None:
        thread._hand_in(asyncio.sleep(0), lambda _, error: told.append(error))
        thread._start_calls()
        await thread._cancel_others()

    thread.run(closing())
    thread.close()
    assert [type(error) for error in told] == [BrokerUnavailable]
