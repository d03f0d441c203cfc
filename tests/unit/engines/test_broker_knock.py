"""Knocking where no broker is."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from penstock.engines.server.knock import knock
from penstock.errors import BrokerUnavailable
from penstock.protocol.frames import frame
from penstock.protocol.replies import Refused


@contextlib.contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """A server that gives one client this answer; `None`: it says nothing until the client leaves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(10)
                connection.recv(1000)
                if answer is None:
                    connection.recv(1000)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"penstock://127.0.0.1:{listener.getsockname()[1]}/?timeout=0.5"
        thread.join(10)


def test_a_broker_that_turns_us_away_is_there() -> None:
    with answering(frame(Refused("config", "upgrade the client"))) as url:
        knock(url)


@pytest.mark.parametrize(
    "answer",
    [None, b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x00\x02\x91\x01", b"\xff\xff\xff\xff", b"\x00\x00"],
    ids=["silent", "closed", "http", "other frame", "long frame", "half a frame"],
)
def test_others_are_no_broker(answer: bytes | None) -> None:
    with answering(answer) as url, pytest.raises(BrokerUnavailable, match="does not answer as a broker does"):
        knock(url)


def test_nobody_is_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(BrokerUnavailable, match="Connection refused"):
        knock(f"penstock://127.0.0.1:{port}/")
