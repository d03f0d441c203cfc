"""A private server of each engine, with what a test on it needs."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock.testing.checkers import (
    Ledger,
    Remains,
    all_started,
    at_most_once,
    no_loss,
    nothing_invented,
    single_commit,
)
from penstock.testing.history import read_history
from tests.absent import not_tested
from tests.acceptance.mill import LENGTH, Mill
from tests.acceptance.processes import Process, Stage, wait_until
from tests.proxy import Proxy
from tests.servers import NotInstalled, Server, broker_server, postgres_server, rabbitmq_server, redis_server
from tests.servers.process import children

KINDS = ("redis", "postgres", "rabbitmq", "broker")


@dataclass
class Site:
    """A server and its URLs. RabbitMQ keeps no results; a Redis beside it does."""

    kind: str
    server: Server
    results: str | None = None

    @property
    def knows_ids(self) -> bool:
        """A repeated publish makes no second task."""
        return self.kind != "rabbitmq"


@contextmanager
def open_site(kind: str, folder: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        if kind == "redis":
            yield Site(kind, stack.enter_context(redis_server(folder)))
        elif kind == "postgres":
            yield Site(kind, stack.enter_context(postgres_server(folder)))
        elif kind == "broker":
            yield Site(kind, stack.enter_context(broker_server(folder)))
        else:
            (folder / "results").mkdir()
            results = stack.enter_context(redis_server(folder / "results"))
            yield Site(kind, stack.enter_context(rabbitmq_server(folder)), results.url)


class Field:
    """One test on a site: a queue of its own, an app, workers, and the checks at the end."""

    def __init__(self, site: Site, stage: Stage, queue: str) -> None:
        self.site = site
        self.stage = stage
        self.queue = queue
        self.length = LENGTH
        self._mills: list[Mill] = []

    def mill(self, proxy: Proxy | None = None, options: Mapping[str, object] | None = None) -> Mill:
        """The app in this process, through the proxy if there is one."""
        mill = Mill(
            self._url(proxy, options),
            self.stage.history,
            results=self.site.results,
            queue=self.queue,
            length=self.length,
        )
        self._mills.append(mill)
        return mill

    def worker(
        self, *arguments: object, proxy: Proxy | None = None, options: Mapping[str, object] | None = None
    ) -> Process:
        """A worker of the app, in processes of its own."""
        results = ("--results", self.site.results) if self.site.results else ()
        named = ("--queue", self.queue, "--length", self.length, "--log", self.stage.folder / "worker.log")
        url = self._url(proxy, options)
        return self.stage.start("mill", *arguments, *results, *named, url, self.stage.history)

    def _url(self, proxy: Proxy | None, options: Mapping[str, object] | None) -> str:
        url = self.site.server.url if proxy is None else proxy.through(self.site.server.url)
        return url + ("?" + "&".join(f"{name}={value}" for name, value in options.items()) if options else "")

    def proxy(self) -> Proxy:
        return Proxy("127.0.0.1", self.site.server.port)

    def ledger(self) -> Ledger:
        return Ledger(read_history(self.stage.history))

    def starts(self, number: int) -> int:
        return self.ledger().starts[str(number)]

    def wait_for_work(self, seconds: float = 20.0) -> float:
        """Until one more task starts; how long that took."""
        before = sum(self.ledger().starts.values())
        return wait_until(lambda: sum(self.ledger().starts.values()) > before, seconds, "work goes on", 0.02)

    def finish(self, mill: Mill, worker: Process, seconds: float = 60.0) -> tuple[Ledger, Remains]:
        """Wait until all that was accepted has ended, stop the worker warmly, and check what holds in any case."""
        left = sorted(self.ledger().accepted)

        def ended() -> bool:
            nonlocal left
            left = [name for name, state in mill.states(left).items() if not state.terminal]
            return not left

        try:
            wait_until(ended, seconds, "all that was accepted has ended", 0.05)
        except AssertionError as error:
            error.add_note(f"{len(left)} have not ended: {left[:10]}; {mill.states(left[:3])}")
            raise
        wait_until(lambda: children(worker.pid), 20, "it is far enough to stop in order")
        worker.terminate()
        assert worker.wait(30) == 0
        return self.check(mill)

    def check(self, mill: Mill) -> tuple[Ledger, Remains]:
        ledger = self.ledger()
        remains = mill.remains(ledger.asked)
        committed = single_commit(ledger)
        findings = [
            no_loss(ledger, remains),
            nothing_invented(ledger, remains),
            all_started(ledger, remains),
            committed,
        ]
        assert ledger.commits, "nobody saw a commit"
        for finding in findings:
            assert finding.ok, str(finding)
        return ledger, remains

    def check_once(self, ledger: Ledger) -> None:
        once = at_most_once(ledger)
        assert once.ok, str(once)

    def close(self) -> None:
        for mill in self._mills:
            mill.app.close()


def rabbitmqctl(server: Server, *arguments: str) -> str:
    """What the node answers. Debian's script on PATH would change to the system's user and cookie."""
    assert server.env is not None
    command = ["/usr/lib/rabbitmq/bin/rabbitmqctl", "-n", server.env["RABBITMQ_NODENAME"], *arguments]
    return subprocess.run(command, env=dict(server.env), capture_output=True, text=True, check=True).stdout


def kill_family(worker: Process) -> None:
    """SIGKILL for the supervisor and all its children, at once."""
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


@pytest.fixture(scope="session", params=KINDS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    try:
        with open_site(request.param, tmp_path_factory.mktemp(request.param)) as site:
            yield site
    except NotInstalled as missing:
        not_tested(missing)


@pytest.fixture
def field(site: Site, stage: Stage, request: pytest.FixtureRequest) -> Iterator[Field]:
    # A queue of its own: what a failed test left behind is not the next one's.
    field = Field(site, stage, f"mill-{abs(hash(request.node.nodeid)) % 10**8}")
    yield field
    field.close()
