"""Each kind of alarm is raised and cleared by real workers: in the log, by a hook, by the webhook, and as a metric."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from penstock import QueueFull
from tests.acceptance.processes import Stage, state, wait_until
from tests.acceptance.ringing import ringing_app
from tests.acceptance.test_signals import scrape
from tests.servers.process import free_port

KINDS = {"full", "age", "run_time", "slow_worker", "stuck_worker"}
LONG = 20.0


class Webhook:
    """Takes alarms."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        events = self.events

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                events.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """What it takes is what counts."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    @property
    def lines(self) -> list[str]:
        return [f"{one['state']} {one['kind']} {one['subject']}" for one in self.events]

    def subjects(self, state: str, kind: str) -> set[str]:
        return {one["subject"] for one in self.events if (one["state"], one["kind"]) == (state, kind)}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_every_alarm_rings_and_is_over_and_names_who_it_is(stage: Stage, webhook: Webhook) -> None:
    app, port = ringing_app(stage.folder), free_port()
    work, hang, stop = (app.tasks[name] for name in ("work", "hang", "stop"))
    # Of one name, as workers are that nobody names.
    stage.start("ringing", stage.folder, webhook.url, port, 0.002)
    slow = stage.start("ringing", stage.folder, webhook.url, free_port(), 0.04)
    hang.delay()
    stop.delay()

    def active(kind: str) -> float:
        return scrape(port).get("penstock_alarms_active", namespace="", queue="default", kind=kind) or 0.0

    def fed(kind: str) -> set[str]:
        """The queue is kept full meanwhile."""
        for _ in range(10):
            try:
                work.delay_many([()] * 5)
            except QueueFull:
                break
        return webhook.subjects("raised", kind)

    for kind in sorted(KINDS - {"age"}):
        wait_until(lambda kind=kind: fed(kind), LONG, f"{kind} rings", 0.01)
    wait_until(lambda: len(fed("stuck_worker")) == 2, LONG, "who hangs and who is stopped are two", 0.01)
    assert active("slow_worker") == 1
    assert active("stuck_worker") == 2
    [name] = webhook.subjects("raised", "slow_worker")
    assert name.endswith(f" pid {slow.pid}"), "which of those with the same name"
    [stopped] = [one for one in webhook.subjects("raised", "stuck_worker") if state(pid_of(one)) == "T"]

    os.kill(pid_of(stopped), signal.SIGCONT)
    (stage.folder / "free").touch()
    for kind in sorted(KINDS):
        raised = webhook.subjects("raised", kind)
        wait_until(lambda kind=kind, raised=raised: webhook.subjects("cleared", kind) >= raised, LONG, f"{kind} ends")
    assert not any(active(kind) for kind in KINDS)
    hooks = stage.folder / "hooks"
    wait_until(lambda: sorted(hooks.read_text().splitlines()) == sorted(webhook.lines), LONG, "hooks hear the same")
    log = (stage.folder / "log").read_text()
    assert all(one["text"] in log for one in webhook.events)
    app.close()


def pid_of(subject: str) -> int:
    return int(subject.rpartition(" ")[2])
