"""Who is told of metrics, and what becomes of strange requests: over real sockets of this machine."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock import ConfigError
from penstock.metrics import serving
from penstock.metrics.place import Place, read_token
from penstock.metrics.serving import CONNECTIONS, MetricsThread
from penstock.metrics.text import Family, Sample

TOKEN = "0123456789abcdef"
GET = b"GET /metrics HTTP/1.1\r\nHost: localhost:1\r\n"


async def collect() -> list[Family]:
    return [Family("penstock_x", "gauge", "h", [Sample({}, 1)])]


@contextmanager
def served(**settings: object) -> Iterator[MetricsThread]:
    made = MetricsThread(Place(0, **settings), collect)  # type: ignore[arg-type]  # tests give what fits
    made.start()
    yield made
    made.close()


def asked(server: MetricsThread, request: bytes) -> bytes:
    with socket.create_connection(server.server.socket.getsockname()[:2], 10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def status(server: MetricsThread, request: bytes) -> int:
    return int(asked(server, request).split()[1])


@pytest.fixture
def server() -> Iterator[MetricsThread]:
    with served() as made:
        yield made


def test_a_get_is_answered(server: MetricsThread) -> None:
    head, _, body = asked(server, GET + b"\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8")
    assert body == b"# HELP penstock_x h\n# TYPE penstock_x gauge\npenstock_x 1\n"
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_head_has_no_body(server: MetricsThread) -> None:
    assert asked(server, GET.replace(b"GET", b"HEAD") + b"\r\n").endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 421),
        (b"GET /metrics HTTP/2.0\r\nHost: localhost\r\n\r\n", 505),
        (b"\x16\x03\x01\xff\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (b"GET /metrics?name=x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
    ],
)
def test_strange_requests(server: MetricsThread, request_: bytes, code: int) -> None:
    assert status(server, request_) == code


def test_with_a_token_only_who_has_it() -> None:
    with served(token=TOKEN) as server:
        assert status(server, GET + b"\r\n") == 401
        assert status(server, GET + b"Authorization: Bearer wrong-wrong-wrong\r\n\r\n") == 401
        assert status(server, GET + f"Authorization: Basic {TOKEN}\r\n\r\n".encode()) == 401
        assert status(server, GET + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()) == 200


def test_who_says_nothing_is_cut_off_and_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "TIMEOUT", 0.3)
    with served() as server:
        place = server.server.socket.getsockname()[:2]
        mute = [socket.create_connection(place, 10) for _ in range(CONNECTIONS)]
        for one in mute:
            one.sendall(b"GET /metrics")
        for one in mute:
            with one:
                assert not received(one)
        assert status(server, GET + b"\r\n") == 200


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(100)
    except ConnectionResetError:
        return b""


def test_what_cannot_be_collected_is_told_and_no_more() -> None:
    async def broken() -> list[Family]:
        raise LookupError("secret")

    server = MetricsThread(Place(0), broken)
    server.start()
    answer = asked(server, GET + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"secret" not in answer
    server.close()


def test_the_port_is_free_again() -> None:
    with served() as server:
        port = server.server.socket.getsockname()[1]
    assert "penstock-metrics" not in {thread.name for thread in threading.enumerate()}
    again = MetricsThread(Place(port), collect)
    with pytest.raises(ConfigError, match="take another --metrics-port"):
        MetricsThread(Place(port), collect)
    again.close()


def test_off_this_machine_nobody_is_served_by_chance() -> None:
    with pytest.raises(ConfigError, match="--metrics-anonymous"):
        Place(9000, "0.0.0.0")
    assert Place(9000, "0.0.0.0", TOKEN)
    assert Place(9000, "0.0.0.0", anonymous=True)
    with pytest.raises(ConfigError, match="must be a port"):
        Place(65536)


def test_a_token_is_read_from_a_file_that_others_cannot_write(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    file.chmod(0o622)
    with pytest.raises(ConfigError, match="others may write"):
        read_token(file)
    file.chmod(0o600)
    for text in ("short", "0123456789 abcdef", "é" * 20, f"{TOKEN}\n{TOKEN}"):
        file.write_text(text)
        with pytest.raises(ConfigError, match="token"):
            read_token(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "nothing")
