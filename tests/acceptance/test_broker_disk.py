"""The broker's disk is full: new work is refused as such, what is there is worked off, and all is well with space."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from penstock import Penstock
from penstock.broker import Demand
from penstock.coordinator import WorkerInfo
from penstock.delivery import ACK, Settlement
from penstock.engines.server import ServerEngine, open_engine
from penstock.errors import BrokerError, ConfigError, StoreError, StoreFull
from penstock.message import Message
from penstock.outcome import Outcome, State
from tests.acceptance.processes import wait_until
from tests.servers import Server
from tests.servers.broker_node import broker as not_started
from tests.servers.process import running

Tell = Callable[[str], None]

SMALL, LARGE = "24m", "96m"
BODY = b"x" * 2_000
IN_IT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && cp -a "$2.seed/." "$2/" && shift 2 && exec "$@"'


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Server]:
    """A broker whose data is on a disk of its own."""
    server = not_started(tmp_path)
    data = tmp_path / "data"
    shutil.copytree(data, tmp_path / "data.seed")
    root = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    server.argv = ["unshare", *root, "--mount", "sh", "-c", IN_IT, "sh", SMALL, str(data), *server.argv]
    yield from running(server)


def enlarge(server: Server, data: Path) -> None:
    assert server.process is not None
    user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
    inside = ["nsenter", "--target", str(server.process.pid), *user, "--mount"]
    subprocess.run([*inside, "mount", "-o", f"remount,size={LARGE}", str(data)], check=True)


def publish(engine: ServerEngine, count: int = 100) -> None:
    engine.run(engine.broker.publish([Message(1, "t", BODY)] * count, 5.0))


def work(engine: ServerEngine, worker: str) -> int:
    step = engine.run(engine.broker.step([], Demand(("default",), 200, worker)))
    ends = [
        Settlement(one.receipt, ACK, Outcome(State.SUCCESS, b'"' + b"r" * 50 + b'"', time.time()))
        for one in step.deliveries
    ]
    engine.run(engine.broker.step(ends, None))
    return len(ends)


def test_a_full_disk_refuses_new_work_and_lets_the_rest_end(small_disk: Server, tmp_path: Path, measured: Tell) -> None:
    engine = open_engine(small_disk.url)
    worker = secrets.token_hex(16)
    now = time.time()
    engine.run(engine.coordinator.join(WorkerInfo(worker, "w", "h", 1, 1, ("default",), "p", now, now)))
    accepted = 0
    with pytest.raises(StoreFull):
        while True:
            publish(engine)
            accepted += 100
    for size in (10, 1):  # to the last page
        with contextlib.suppress(StoreFull):
            while True:
                publish(engine, size)
                accepted += size
    ended, refused = work(engine, worker), 0
    while done := work(engine, worker):
        ended += done
        if ended < accepted // 2:
            more = accepts(engine)
            accepted, refused = accepted + more, refused + (not more)
    assert ended == accepted
    enlarge(small_disk, tmp_path / "data")
    wait_until(lambda: accepts(engine), 10, "it accepts again", 0.1)
    assert work(engine, worker) == 1
    engine.close()
    measured(f"{accepted:,} accepted until it was full, all ended on the full disk; {refused} refused meanwhile")


def accepts(engine: ServerEngine) -> bool:
    try:
        publish(engine, 1)
    except StoreFull:
        return False
    return True


def test_data_has_one_owner(broker: Server, tmp_path: Path) -> None:
    """Said clearly to an app that opens the file, to a second broker, and to a broker whose file an app has open."""
    data = broker.log.parent / "data"
    app = Penstock("embedded", broker=f"sqlite:///{data / 'queue.db'}")
    with pytest.raises(
        (StoreError, ConfigError, BrokerError), match=r"belongs to a running broker \(process \d+\).*penstock://"
    ):
        app.engine.run(app.engine.broker.depth("default"))
    second = not_started(broker.log.parent)
    second.log = tmp_path / "second.log"
    assert exit_code(second) not in (0, None)
    told = second.log.read_text()
    assert "in use by another broker (process" in told
    assert "Traceback" not in told
    (tmp_path / "own").mkdir()
    third = not_started(tmp_path / "own")
    own = Penstock("owner", broker=f"sqlite:///{tmp_path / 'own' / 'data' / 'queue.db'}")
    own.engine.run(own.engine.broker.depth("default"))
    assert exit_code(third) not in (0, None)
    assert "or opened by an app with broker='sqlite:///" in third.log.read_text()
    own.close()


def test_a_port_that_is_taken_is_said(broker: Server, tmp_path: Path) -> None:
    other = not_started(tmp_path, port=broker.port)
    assert exit_code(other) not in (0, None)
    told = other.log.read_text()
    assert f"tcp://127.0.0.1:{broker.port} is taken by another program" in told
    assert "Traceback" not in told


def exit_code(server: Server) -> int | None:
    server.launch()
    assert server.process is not None
    return server.process.wait(30)
