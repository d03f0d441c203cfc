"""Latency through the broker, and what idle connections cost."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator

from bench.broker.site import environment, site
from bench.idle import cpu_seconds, proportional_memory
from bench.measure import Goal, Measure, Reading, Result, percentile
from bench.place import Place, call, workers
from penstock.protocol.frames import Frames, frame
from penstock.protocol.replies import Welcome, decode_welcome
from penstock.protocol.requests import Hello, Ping, Pong
from tests.servers.broker_node import PASSWORD, USER

GOALS = {
    "process": (Goal(0.5, 1, "less"), Goal(2, 6, "less")),
    "power": (Goal(1.2, 2, "less"), Goal(4, 10, "less")),
}
CONNECTIONS = 1_000


def _once(place: Place, durability: str, count: int) -> list[float]:
    with site(place, durability) as server:
        env = environment(server, durability)
        with workers(env):
            return [seen for _, seen in call("bench.latency", "samples", env, count=count)]


def _latency(place: Place) -> Iterator[Result]:
    for durability, (half, most) in GOALS.items():
        count = place.size(1_000, 50)
        runs = place.repeat(3, lambda durability=durability, count=count: _once(place, durability, count))  # type: ignore[misc]  # mypy: lambda default
        for share, goal in ((0.5, half), (0.99, most)):
            readings = tuple(Reading(percentile(taken, share), foreign) for taken, foreign in runs)
            point = f"p{share * 100:.0f}"
            what = f"idle → result seen, {point}"
            yield Result(f"broker/latency/{durability}/{point}", what, "ms", readings, goal, durability)


def _idle(place: Place) -> Iterator[Result]:
    seconds = place.size(30, 3)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with site(place, "power") as server, contextlib.ExitStack() as connections:
        assert server.process is not None
        pids = [server.process.pid]
        _signed_in(server.port)  # what the first costs, all share
        before = proportional_memory(pids)
        clients = [connections.enter_context(_signed_in(server.port)) for _ in range(CONNECTIONS)]
        time.sleep(2)
        size = (proportional_memory(pids) - before) * 1000 / CONNECTIONS
        cpu, began = cpu_seconds(pids), time.monotonic()
        while time.monotonic() - began < seconds:
            for client in clients:
                _answer(client)
            time.sleep(1)
        share = (cpu_seconds(pids) - cpu) / (time.monotonic() - began) * 100
    what = f"{CONNECTIONS:,} idle connections"
    yield Result("broker/idle/cpu", f"{what}: CPU", "%", (Reading(share),), Goal(1, 3, "less"), "power")
    yield Result("broker/idle/memory", f"{what}: each", "KB", (Reading(size),), Goal(40, 100, "less"), "power")


def _signed_in(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(frame(Hello(1, 1, "bench", "/", USER, PASSWORD)))
    frames, bodies = Frames(), []
    while not bodies:
        bodies = frames.feed(client.recv(65536))
    assert isinstance(decode_welcome(bodies[0]), Welcome)
    client.setblocking(False)
    return client


def _answer(client: socket.socket) -> None:
    """A heartbeat, if one was asked for."""
    with contextlib.suppress(BlockingIOError):
        if client.recv(4096) == frame(Ping()):
            client.send(frame(Pong()))


MEASURES = (
    Measure("latency", "one call for an idle worker, through the broker", _latency),
    Measure("idle", "connections that do nothing", _idle),
)
