"""Whatever a client sends: no error of ours in the log, no hang, no growth, and the store's counts are right."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest

from penstock.broker import Demand, Done
from penstock.delivery import ACK, Settlement
from penstock.errors import AccessRefused
from penstock.protocol.frames import FrameError, Frames, frame
from penstock.protocol.replies import Published, Span, Stepped, decode_reply, decode_welcome
from penstock.protocol.requests import Hello
from penstock.server import blocking
from penstock.server import peer as peer_module
from penstock.server.access.identity import ByPassword, Identity
from penstock.server.access.signing_in import Credentials
from penstock.server.broker import Broker
from penstock.server.peer import Peer
from penstock.server.settings import BrokerSettings
from tests.acceptance.audit import check_counts
from tests.unit.server.fuzzing import WORKERS, Fuzzer
from tests.unit.server.house import ADA, House

FEW, MANY = 20_000, 1_000_000
A_PEER = 200
"""Frames of one client, at most."""
TOGETHER = 8
"""Frames that come in one piece."""
GROWTH = 40 << 20
LONGEST = 2.0
"""Seconds for which one piece of frames may keep the broker."""


class Pipe:
    """The transport of a client that reads everything."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = False
        self.reading = True
        self.peer: Peer | None = None

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            assert self.peer is not None
            asyncio.get_running_loop().call_soon(self.peer.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else None


def connect(broker: Broker) -> tuple[Peer, Pipe]:
    peer, pipe = Peer(broker), Pipe()
    pipe.peer = peer
    peer.connection_made(pipe)  # type: ignore[arg-type]  # what it uses of one
    return peer, pipe


async def settle(broker: Broker, pipe: Pipe) -> None:
    """Until all that was begun is over."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        await asyncio.sleep(0)
        if pipe.reading and all(space.turns.idle for space in broker.spaces.values()) and not broker._tasks:
            return
    turns = {name: (space.turns._entries, space.turns._syncing) for name, space in broker.spaces.items()}
    assert pipe.peer is not None
    raise AssertionError(f"it hangs: {pipe.peer._reasons}, {pipe.peer.unanswered} unanswered, {turns}")


def learn(fuzzer: Fuzzer, pipe: Pipe) -> None:
    """Use the rows and leases that the broker tells of."""
    try:
        bodies = Frames().feed(bytes(pipe.sent))
    except FrameError:
        bodies = []
    for body in bodies[1:]:
        reply = decode_reply(body)
        if isinstance(reply, Published):
            fuzzer.rows += [span.first for span in reply.batches if isinstance(span, Span)]
        elif isinstance(reply, Stepped):
            fuzzer.tokens += [claim.token for claim in reply.claims]
            fuzzer.rows += [row for claim in reply.claims for row, _, _ in claim.rows]
    pipe.sent.clear()
    del fuzzer.rows[:-50], fuzzer.tokens[:-50]


async def attack(broker: Broker, frames: int, seed: int, grown: Callable[[int], None]) -> int:
    """Signed-in clients that send `frames` frames, altogether; how many clients that took."""
    fuzzer, sent, peers = Fuzzer(seed), 0, 0
    while sent < frames:
        peer, pipe = connect(broker)
        peer.data_received(frame(Hello(1, 1, "fuzz", user=ADA, secret="x", session=77 if peers % 3 else 0)))
        await settle(broker, pipe)
        peers += 1
        assert peer.session is not None, decode_welcome(bytes(pipe.sent[4:]))
        for _ in range(A_PEER // TOGETHER):
            if pipe.closed:
                break
            began = time.monotonic()
            peer.data_received(b"".join(fuzzer.frame() for _ in range(TOGETHER)))
            await settle(broker, pipe)
            assert time.monotonic() - began < LONGEST
            sent += TOGETHER
            learn(fuzzer, pipe)
        pipe.close()
        await settle(broker, pipe)
        grown(sent)
    return peers


def drain(broker: Broker) -> None:
    """Take and end all that is left: what was revoked or purged is counted until a claim has passed it."""
    engine, db = broker.spaces["/"].engine, broker.spaces["/"].store.db
    for (worker,) in db.read(lambda: db.query("SELECT DISTINCT worker FROM lease").fetchall()):
        engine.run(engine.coordinator.leave(worker))
    for info in engine.run(engine.inspect.queues(None)):
        want = Demand((info.name,), 1_000, WORKERS[0], namespace=info.namespace)
        while True:
            deliveries = engine.run(engine.broker.step([], want)).deliveries
            settled = engine.run(engine.broker.step([Settlement(one.receipt, ACK) for one in deliveries], None)).settled
            assert all(type(one) is Done for one in settled)
            if not deliveries:
                break
        left = engine.run(engine.inspect.queues(info.namespace))
        [now] = [one for one in left if one.name == info.name]
        assert (now.ready, now.leased, now.depth) == (0, 0, now.delayed), info


async def knock(broker: Broker, frames: int, seed: int) -> None:
    """Clients that send something else than a hello."""
    fuzzer = Fuzzer(seed)
    for _ in range(frames):
        peer, pipe = connect(broker)
        peer.data_received(fuzzer.hello())
        await settle(broker, pipe)
        assert peer.session is None
        pipe.close()
        await asyncio.sleep(0)


@contextmanager
def nothing_of_ours_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.ERROR)
    yield
    assert not [f"{one.name}: {one.getMessage()} {one.exc_text or ''}"[-3000:] for one in caplog.records]


def fuzz(folder: Path, work: Callable[[Broker], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: logging.getLogger("loop").error(str(context))
        )
        broker = Broker(BrokerSettings(data=folder, durability="process", slow=3600.0), lambda: None)

        async def sign_in(credentials: Credentials, address: str, namespace: str) -> Identity:
            if credentials.secret != "x" or namespace != "/":
                raise AccessRefused("no")
            return Identity(
                broker.book, ADA, ByPassword(broker.book.snapshot.users[ADA].generation), address, namespace
            )

        broker.gatekeeper.sign_in = sign_in  # type: ignore[method-assign]  # passwords are slow on purpose
        try:
            await work(broker)
        finally:
            await broker.close()

    House(folder)  # its users
    asyncio.run(run())


def check_store(folder: Path) -> None:
    connection = apsw.Connection(str(folder / "queue.db"))
    try:
        check_counts(connection)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


def memory() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Growth:
    """Of this process, from when it is warm."""

    def __init__(self, warm: int) -> None:
        self._warm, self._base = warm, 0
        self.most = 0

    def __call__(self, sent: int) -> None:
        if sent < self._warm:
            return
        if not self._base:
            self._base = memory()
        elif sent // 20_000 != (sent - A_PEER) // 20_000:
            self.most = max(self.most, memory() - self._base)


@pytest.mark.parametrize("frames", [FEW, pytest.param(MANY, marks=[pytest.mark.extended, pytest.mark.timeout(7200)])])
def test_signed_in_clients_send_anything(
    frames: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "TURN", 5.0)
    monkeypatch.setattr(blocking, "MAX_WAIT", 0.05)
    growth = Growth(frames // 4)
    seed = int(os.environ.get("PENSTOCK_FUZZ_SEED", "1"))
    clients = 0

    async def work(broker: Broker) -> None:
        nonlocal clients
        clients = await attack(broker, frames, seed, growth)
        drain(broker)

    with nothing_of_ours_in_the_log(caplog):
        fuzz(tmp_path / "data", work)
    check_store(tmp_path / "data")
    assert growth.most < GROWTH
    print(f"{frames:,} frames of {clients:,} clients; grown by {growth.most / 2**20:.1f} MiB")


@pytest.mark.parametrize(
    "frames", [5_000, pytest.param(200_000, marks=[pytest.mark.extended, pytest.mark.timeout(7200)])]
)
def test_strangers_send_anything(frames: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with nothing_of_ours_in_the_log(caplog):
        fuzz(tmp_path / "data", lambda broker: knock(broker, frames, 2))
    check_store(tmp_path / "data")
