"""Results as they finish, in a plain loop and in an async one."""

import asyncio
import threading
from typing import Any

import pytest

from penstock import BlockingCallInLoop, ConfigError, ResultTimeout, State, as_completed
from penstock.outcome import Outcome, Report
from tests.unit.fake_engine import FakeEngine, fake_app


def done(id: str) -> Report:
    return Report(id, State.SUCCESS, Outcome(State.SUCCESS, b"1", 1.0))


def five() -> tuple[FakeEngine, list[Any]]:
    app, engine = fake_app()
    made = [app.send_task("x") for _ in range(4)] + [app.AsyncResult("nope"), app.AsyncResult("id-1")]
    for result in made[:4]:
        engine.backend.reports[result.id] = Report(result.id, State.PENDING)
    engine.backend.finish(done("id-2"))
    return engine, made


def finish(engine: FakeEngine) -> None:
    engine.backend.watched.wait(30)
    for id in ("id-4", "id-1", "id-3"):
        engine.backend.finish(done(id))


ORDER = ["id-2", "nope", "id-4", "id-1", "id-1", "id-3"]


def test_in_a_plain_loop() -> None:
    engine, made = five()
    thread = threading.Thread(target=finish, args=(engine,))
    thread.start()
    assert [result.id for result in as_completed(made, timeout=60)] == ORDER
    thread.join()
    assert engine.backend.closed == 1


def test_in_an_async_loop() -> None:
    engine, made = five()

    async def main() -> list[str]:
        finishing = asyncio.create_task(asyncio.to_thread(finish, engine))
        ids = [result.id async for result in as_completed(made, timeout=60)]
        await finishing
        return ids

    assert asyncio.run(main()) == ORDER
    assert engine.backend.closed == 1


def test_a_timeout_says_how_many_are_missing() -> None:
    engine, made = five()
    seen = []
    with pytest.raises(ResultTimeout, match=r"4 of the results were not there after 0.01 s"):
        for result in as_completed(made, timeout=0.01):
            seen.append(result.id)
    assert seen == ["id-2", "nope"]

    async def main() -> None:
        async for _ in as_completed(made, timeout=0.01):
            pass

    with pytest.raises(ResultTimeout, match="4 of the results"):
        asyncio.run(main())
    assert engine.backend.closed == 2


def test_a_plain_loop_inside_a_running_loop_is_refused() -> None:
    _, made = five()

    async def main() -> None:
        with pytest.raises(BlockingCallInLoop, match="use async for"):
            list(as_completed(made))

    asyncio.run(main())


def test_none_and_many_apps() -> None:
    assert list(as_completed([])) == []
    with pytest.raises(ConfigError, match="of one app"):
        as_completed([fake_app()[0].AsyncResult("x"), fake_app()[0].AsyncResult("x")])
