"""A connection to a broker that knows MessagePack and nothing of ours: frames as plain lists, one after the other."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.servers import Server
from tests.servers.broker_node import PASSWORD, USER

PATIENCE = 20.0
HELLO = [1, 1, 1, "raw", "/", USER, PASSWORD]


class RawClient:
    def __init__(self, broker: Server, hello: list[Any] | None = None) -> None:
        """Connected; with a `hello` signed in, too."""
        self._socket = socket.create_connection(("127.0.0.1", broker.port), PATIENCE)
        self._rest = b""
        if hello is not None:
            self.send(*hello)
            self.welcome = self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def send(self, *fields: Any) -> None:
        self.together(fields)

    def together(self, *frames: Any) -> None:
        """Several frames at once."""
        bodies = [msgspec.msgpack.encode(fields) for fields in frames]
        self.write(b"".join(len(body).to_bytes(4, "big") + body for body in bodies))

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)

    def read(self) -> list[Any]:
        """The next frame that is no ping. Raises `EOFError` at the end, `TimeoutError`."""
        length = int.from_bytes(self._take(4), "big")
        fields: list[Any] = msgspec.msgpack.decode(self._take(length))
        return self.read() if fields == [3] else fields

    def ask(self, *fields: Any) -> list[Any]:
        self.send(*fields)
        return self.read()

    def close(self) -> None:
        self._socket.close()

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            data = self._socket.recv(1 << 16)
            if not data:
                raise EOFError
            self._rest += data
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def message(task: str = "shop.add", body: bytes = b"[[],{}]", *more: Any) -> bytes:
    return msgspec.msgpack.encode([1, task, body, *more])
