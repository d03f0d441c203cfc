"""RabbitMQ: how many tasks a minute are published, confirmed and drained, all at once on this machine."""

from __future__ import annotations

import time
from typing import NamedTuple

from bench.engines.client import open_client
from bench.engines.contender import Contender
from bench.engines.sites import Site
from bench.engines.trial import Marks, cpu, environment, foreign, open_workers
from bench.machine import Meter
from bench.place import Place

LAG = 2.0
"""Seconds from the start of publishing until the clock starts."""


class Flood(NamedTuple):
    """Tasks a minute: those published or those drained, whichever are less. Microseconds of CPU for each, in all."""

    rate: float
    cpu: float
    foreign: float


def run(place: Place, contender: Contender, site: Site) -> Flood:
    seconds = place.size(8, 2)
    with place.private() as folder, Marks() as marks, Meter() as meter:
        served = cpu(site.pid)
        env = environment(contender, site, marks)
        with (
            open_client(contender.launch.client, env, folder / "client.log") as client,
            open_workers(contender, env, folder / "workers.log") as workers,
        ):
            client.ask("fill", count=1_000)
            marks.reach(1_000, workers)
            client.tell("flood", seconds=seconds)
            time.sleep(min(LAG, seconds / 4))
            before, began = marks.count(), time.monotonic()
            published: float = client.answer("flood") / seconds
            drained = (marks.count() - before) / (time.monotonic() - began)
            # The next contender finds no backlog of this one.
            ran = 1_000 + int(published * seconds)
            marks.reach(ran, workers)
        served = cpu(site.pid) - served
    return Flood(min(published, drained) * 60, (meter.own + served) / ran * 1e6, foreign(meter, served))
