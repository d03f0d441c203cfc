"""SIGKILL in the middle of chains, groups and chords: every graph completes exactly once, or fails as documented."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.loom import Loom, graphs_of, starts, value_of
from tests.acceptance.processes import Process, Stage, wait_until
from tests.acceptance.sites import Site, kill_family
from tests.servers.process import children

Tell = Callable[[str], None]

AHEAD = 25
"""Canvases that are under way at once."""
TIMEOUT = 60.0


class Weaving:
    """Canvases under way, and workers that are killed."""

    def __init__(self, stage: Stage, broker: str, results: str | None = None, queue: str = "loom") -> None:
        self._stage = stage
        self._arguments = (*(("--results", results) if results else ()), "--queue", queue, broker)
        self.notes = Path(stage.folder / "notes")
        self.loom = Loom(broker, self.notes, results=results, queue=queue)
        self.gathers = "Join" in self.loom.app.engine.broker.features.effects
        self.rng = random.Random(7)
        self.published: list[tuple[object, object, int]] = []
        self.worker = self._start()

    def _start(self) -> Process:
        return self._stage.start("loom", *self._arguments, self.notes)

    def publish(self, count: int) -> None:
        for _ in range(count):
            pattern = self.loom.any(self.rng, gathers=self.gathers)
            canvas = pattern.canvas.stamp(pattern=str(len(self.published)))
            if self.rng.random() < 0.3:
                with self.loom.app.batch():  # one message, which begins it
                    result = canvas.delay()
            else:
                result = canvas.delay()
            self.published.append((result, pattern.value, pattern.starts))

    def kill(self) -> None:
        """One process of the worker, or all of it, at a random moment of its work."""
        size = self.notes.stat().st_size
        wait_until(lambda: self.notes.stat().st_size > size, TIMEOUT, "anything happens", 0.001)
        time.sleep(self.rng.random() * 0.03)
        family = children(self.worker.pid)
        if family and self.rng.random() < 0.7:
            os.kill(self.rng.choice(family), signal.SIGKILL)
        else:
            kill_family(self.worker)
            self.worker = self._start()

    def finish(self, knows_ids: bool = True) -> int:
        """Every canvas came to what it had to, by the tasks that it is made of; returns how many starts were
        repeats."""
        for number, (result, value, _) in enumerate(self.published):
            assert value_of(result, TIMEOUT) == value, number
        graphs = set().union(*(graphs_of(result) for result, _, _ in self.published))
        wait_until(lambda: not any(map(self.loom.is_stored, graphs)), TIMEOUT, "all graphs are gone", 0.05)
        by_pattern, often = starts(self.notes)
        for number, (_, _, count) in enumerate(self.published):
            assert len(by_pattern[str(number)]) == count, number  # each node is one task, whoever published it
        if knows_ids:  # else a repeat may wait, and is recognised by its result
            app = self.loom.app
            assert app.engine.run(app.broker.depth(app.conf.task_default_queue)) == 0
        self.worker.terminate()
        self.loom.app.close()
        return sum(often.values()) - len(often)


def weave(weaving: Weaving, kills: int, measured: Tell, *, knows_ids: bool = True) -> None:
    for _ in range(kills):
        weaving.publish(AHEAD)
        weaving.kill()
    again = weaving.finish(knows_ids)
    measured(f"{kills} kills, {len(weaving.published)} canvases, each completed once; {again} tasks started again")


@pytest.mark.slow
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=(pytest.mark.extended, pytest.mark.timeout(900)))])
def test_chords_fire_once_whatever_dies(kills: int, stage: Stage, measured: Tell) -> None:
    weave(Weaving(stage, f"sqlite:///{stage.path}"), kills, measured)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=(pytest.mark.extended, pytest.mark.timeout(900)))])
def test_on_a_server(kills: int, site: Site, stage: Stage, measured: Tell) -> None:
    weaving = Weaving(stage, site.server.url, site.results, f"loom-{kills}")
    weave(weaving, kills, measured, knows_ids=site.knows_ids)
