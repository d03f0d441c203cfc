"""Power loss under the turns of a broker: whatever was answered is there, also as the answer to who asks again."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from penstock.broker import Accepted, Demand
from penstock.clock import ManualClock
from penstock.engines.sqlite import database
from penstock.engines.sqlite.engine import SqliteEngine
from penstock.engines.sqlite.joint import Finished, Joint, Work
from penstock.engines.sqlite.publishing import outgoing
from penstock.engines.sqlite.settings import Settings
from penstock.engines.sqlite.store import Neighbours
from penstock.message import Message
from penstock.outcome import Outcome, State
from penstock.outcome_runs import pack_plain
from penstock.server.crew import Crew
from penstock.server.space import Neighbourhood
from penstock.server.syncing import Syncer
from penstock.server.turns import Entry, Turns
from tests.acceptance.outage import results, work
from tests.acceptance.power import Disk, Image, restore

PAGES = 25
ROUNDS = 25
CALLERS = 8
SESSION = 7
Tell = Callable[[str], None]


class Moment(NamedTuple):
    """What was answered when the power went, and what a fresh machine would find."""

    image: Image
    published: frozenset[int]
    settled: frozenset[int]
    heard: dict[int, bytes]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    monkeypatch.setattr(database, "CHECKPOINT_PAGES", PAGES)
    disk = Disk("forgetful-broker")
    yield disk
    disk.unregister()


class Session:
    """Callers of the turns, some at a time, as clients of a broker are; notes what each was answered."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._loop = asyncio.get_running_loop()
        self.disk, self.clock, self._rng = disk, ManualClock(), random.Random(4)
        told = Neighbourhood()
        settings = Settings(str(folder / "queue.db"), self.clock, sync=disk.sync_descriptor, vfs=disk.name, sole=True)
        self._engine = SqliteEngine(settings, Neighbours(Crew(self._loop.time), told, told.sync))
        self._syncer = Syncer(self._loop)
        self._turns = told.turns = Turns(self._engine.store, self._syncer, slow=60.0, failed=pytest.fail)
        self._numbers, self._marks = itertools.count(), itertools.count(1)
        self.published: set[int] = set()
        self.settled: set[int] = set()
        self.heard: dict[int, bytes] = {}
        self.moments: list[Moment] = []
        disk.watch = self._watch
        self.images: Callable[[], Image] = disk.cut

    def _watch(self) -> None:
        """From the thread that syncs, too: what was answered by then is a lower bound."""
        answered = (frozenset(self.published), frozenset(self.settled), dict(self.heard))
        self.moments.append(Moment(self.images(), *answered))

    async def _submit(self, work: Work, waits: float = 0.0) -> Work:
        done: asyncio.Future[Work] = self._loop.create_future()
        self._turns.submit(Entry(work, done.set_result, waits=waits))
        return await done

    async def publish(self) -> None:
        numbers = [next(self._numbers) for _ in range(self._rng.choice((1, 1, 3, 40)))]
        mark = next(self._marks)
        batch = outgoing([Message(1, "t", b"%d" % number) for number in numbers])
        work = await self._submit(Work(publish=[batch], mark=(SESSION, mark), encode=remembered))
        assert work.error is None
        assert all(isinstance(one, Accepted) for one in work.answers[0])
        self.heard[mark] = remembered(work)
        self.published.update(numbers)

    async def work(self) -> None:
        want = Demand(("default",), self._rng.choice((1, 8, 64)), "w" * 32)
        claim = await self._submit(Work(demand=want), self._rng.choice((0.0, 0.005)))
        finished, numbers = [], []
        for token, _, rows, _ in claim.claims:
            held = [int(msgspec.msgpack.decode(body)[2]) for _, _, body in rows]
            numbers += held
            run = pack_plain(
                [Outcome(State.SUCCESS, b"%d" % number, self.clock.time()) for number in held],
                [("t", 0)] * len(held),
            )
            assert run is not None
            finished.append(Finished(token, run))
        if not finished:
            return
        mark = next(self._marks)
        work = await self._submit(Work(finished=finished, mark=(SESSION, mark), encode=remembered))
        assert work.error is None
        assert all(work.done)
        self.heard[mark] = remembered(work)
        self.settled.update(numbers)

    async def run(self, rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.gather(*(self.publish() if self._rng.random() < 0.6 else self.work() for _ in range(CALLERS)))
            self._watch()

    async def close(self) -> None:
        self.disk.watch = lambda: None
        self._turns.close()
        await self._loop.run_in_executor(None, self._syncer.close)
        self._engine.close()


def remembered(work: Work) -> bytes:
    return msgspec.msgpack.encode((work.answers, work.done))


def aftermath(moment: Moment, folder: Path) -> tuple[int, int, int]:
    """After the restart: tasks that are lost, settlements that are undone, answers that are given otherwise."""
    path = restore(moment.image, folder)
    clock = ManualClock()
    clock.advance(3600)
    engine = SqliteEngine(Settings(str(path), clock, durability="process"))
    joint = Joint(engine.store)
    newest = {mark & 63: mark for mark in sorted(moment.heard)}
    otherwise = 0
    for mark in newest.values():
        told = joint.heard(SESSION, mark)
        # A later one may have its place already: it was committed, and not answered yet.
        otherwise += told is not None and told != moment.heard[mark]
        otherwise += told is None and joint.heard(SESSION, mark + 64) is None
    before = results(path)
    engine.run(engine.coordinator.reap())
    again: set[int] = set()
    while numbers := work(engine, 256, clock):
        again.update(numbers)
    after = results(path)
    engine.close()
    shutil.rmtree(folder)
    return (
        len(moment.published - after),
        len(moment.settled - before) + len(moment.settled & again),
        otherwise,
    )


@pytest.mark.slow
@pytest.mark.parametrize("torn", [False, True], ids=["cut", "torn"])
def test_what_a_broker_has_answered_survives_the_loss_of_power(
    disk: Disk, tmp_path: Path, torn: bool, measured: Tell
) -> None:
    async def load() -> Session:
        session = Session(tmp_path, disk)
        if torn:
            rng = random.Random(6)
            session.images = lambda: disk.torn(rng)
        await session.run(ROUNDS)
        await session.close()
        return session

    session = asyncio.run(load())
    found = [aftermath(moment, tmp_path / "after") for moment in session.moments]
    assert [sum(bool(one[n]) for one in found) for n in range(3)] == [0, 0, 0], "lost, undone, answered otherwise"
    measured(
        f"{len(found)} cuts, {len(session.published):,} tasks, {len(session.heard)} answers: all as they were told"
    )


def test_without_its_sync_it_would_not(disk: Disk, tmp_path: Path) -> None:
    """And so the test above can fail."""

    async def load() -> Session:
        session = Session(tmp_path, disk)
        session._turns._durable = False
        await session.run(20)
        await session.close()
        return session

    session = asyncio.run(load())
    assert any(aftermath(moment, tmp_path / "after")[0] for moment in session.moments)
