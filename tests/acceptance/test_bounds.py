"""Several processes publish at once into a queue that is soon full: every engine keeps its bound, whatever becomes of
what is too much; and what was accepted is there, or a dead letter."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock.engine import Engine
from penstock.errors import Unsupported
from penstock.queue import QueueInfo
from penstock.shedding import SHEDDING
from tests.acceptance.processes import REPOSITORY
from tests.acceptance.rush import rushing

BOUND, PRODUCERS, EACH = 100, 3, 200
AT_ONCE = 64
"""Places that a producer takes at once of a bound that is soft, and so may take twice (engines/rabbitmq/rooms.py)."""
Rush = Callable[..., list[list[int]]]


@pytest.fixture(params=["sqlite", "penstock", "redis", "postgres", "rabbitmq"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/queue.db"
    if request.param == "penstock":
        return str(request.getfixturevalue("broker").url)
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def rush() -> Iterator[Rush]:
    """Let producers race, look while they do, and return what each printed in the end."""
    running: list[subprocess.Popen[str]] = []

    def race(look: Callable[[], object], *arguments: object) -> list[list[int]]:
        command = [sys.executable, "-m", "tests.acceptance.rush", *map(str, arguments)]
        for _ in range(PRODUCERS):
            pipe = subprocess.PIPE
            running.append(subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True))
        for one in running:
            assert one.stdout is not None and one.stdout.readline() == "ready\n"
        for one in running:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        while any(one.poll() is None for one in running):
            look()
        return [[int(number) for number in one.communicate()[0].split()] for one in running]

    yield race
    for one in running:
        one.kill()
        one.communicate()


def seen(engine: Engine, queue: str) -> QueueInfo | None:
    """`None`: nobody has used it yet."""
    return next((one for one in engine.run(engine.inspect.queues()) if one.name == queue), None)


@pytest.mark.parametrize("overflow", ["reject", *sorted(SHEDDING)])
def test_racing_producers_never_pass_the_bound(
    url: str, overflow: str, rush: Rush, measured: Callable[[str], None]
) -> None:
    queue = f"rush-{uuid.uuid4().hex[:8]}"
    app = rushing(url, queue, BOUND, overflow)
    try:
        engine = app.engine
    except Unsupported:
        assert overflow in SHEDDING and url.startswith("amqp:")
        return
    exact = engine.broker.features.bound == "exact"
    most = BOUND if exact else BOUND + (PRODUCERS - 1) * AT_ONCE
    highest = 0

    def look() -> None:
        nonlocal highest
        now = seen(engine, queue)
        highest = max(highest, (now and now.depth) or 0)

    told = rush(look, url, queue, BOUND, overflow, EACH)
    look()
    after = seen(engine, queue)
    app.close()
    assert after is not None
    accepted, full = (sum(numbers) for numbers in zip(*told, strict=True))
    if not exact:  # its depth is not told, but nobody took anything
        highest = accepted
    measured(f"{accepted} of {accepted + full} accepted, {after.shed} of them shed, a depth of {highest} at most")
    assert accepted + full == PRODUCERS * EACH
    assert BOUND <= highest <= most
    if exact:
        assert (after.depth, after.dead, after.shed) == (BOUND, accepted - BOUND, accepted - BOUND)
