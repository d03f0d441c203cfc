"""All contenders of one server, round by round: neighbours in time share the machine's mood."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from bench.engines import flood, table
from bench.engines.contender import Contender
from bench.engines.contenders import CONTENDERS
from bench.engines.environments import Missing
from bench.engines.sites import SERVERS, Sites
from bench.engines.trial import Trial, run
from bench.machine import wait_for_quiet
from bench.measure import Goal, Reading, Result
from bench.place import LOUDEST, Place

T = TypeVar("T")
PER_MINUTE = Goal(1_000_000, 500_000)
FAULTS = (RuntimeError, OSError, subprocess.SubprocessError)


class Contest:
    """One server's. What fails is told in `failures`, and the others go on."""

    def __init__(self, place: Place, server: str, *, rounds: int, chosen: list[str] | None) -> None:
        self.place, self.server, self.chosen = place, server, chosen
        self.rounds = 1 if place.quick else rounds
        self.failures: list[str] = []
        self._retries = 0 if place.quick else rounds

    def results(self) -> Iterator[Result]:
        contenders = list(self._available())
        with SERVERS[self.server](self.place) as sites:
            trials: dict[str, list[Trial]] = {contender.name: [] for contender in contenders}
            for number in range(self.rounds):
                for contender in list(contenders):
                    if trial := self._guarded(contender, partial(self._trial, contender, sites, number)):
                        trials[contender.name].append(trial)
                    else:
                        contenders.remove(contender)
            yield from table.results(self.server, [(one, trials[one.name]) for one in contenders])
            if self.server == "rabbitmq":
                yield from self._floods([one for one in contenders if one.kind in ("ours", "raw")], sites)

    def _available(self) -> Iterator[Contender]:
        for make in CONTENDERS[self.server]:
            try:
                contender = make()
            except Missing as error:
                self.failures.append(f"{self.server}: {error}")
                continue
            if not self.chosen or contender.name in self.chosen:
                yield contender

    def _trial(self, contender: Contender, sites: Sites, number: int) -> Trial:
        """One that others' work spoilt is tried once more, one a round on average: a run must end."""
        tries: list[Trial] = []
        while not tries or (len(tries) == 1 and tries[0].foreign > LOUDEST and self._retries):
            self._retries -= len(tries)
            wait_for_quiet(0 if self.place.quick else 2)
            with sites() as site:
                tries.append(run(self.place, contender, site, idle=number == self.rounds - 1))
        best = min(tries, key=lambda trial: trial.foreign)
        print(f"  round {number + 1}, {contender.name}: {best.drain:,.0f}/s, foreign {best.foreign:.0%}", flush=True)
        return best

    def _floods(self, contenders: list[Contender], sites: Sites) -> Iterator[Result]:
        for contender in contenders:
            runs: list[flood.Flood] = []
            for _ in range(self.rounds):
                with sites() as site:
                    one = self._guarded(contender, partial(flood.run, self.place, contender, site))
                if one is None:
                    break
                runs.append(one)
            if runs:
                cost = statistics.median(one.cpu for one in runs)
                note = (
                    f"{cost:.0f} µs of CPU for a task in all; 2 M a minute would take {cost / 30:.1f} cores like these"
                )
                readings = tuple(Reading(one.rate, one.foreign) for one in runs)
                what = f"RabbitMQ, published and drained: {contender.what}"
                goal = PER_MINUTE if contender.kind == "ours" else None
                yield Result(f"rabbitmq/flood/{contender.name}", what, "tasks/min", readings, goal, "power", note)

    def _guarded(self, contender: Contender, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except FAULTS as error:
            self.failures.append(f"{self.server}, {contender.name}: {error}")
            print(f"  {self.failures[-1]}", flush=True)
            return None
