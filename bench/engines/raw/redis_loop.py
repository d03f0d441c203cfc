"""Redis: a stream with a group, by hiredis on a plain socket. As a script: a worker."""

from __future__ import annotations

import os
import socket
from typing import Any

import hiredis

from bench.engines.peers.timing import seconds
from bench.engines.raw.work import BATCH, BULK, KEEP, address, body, new_id, run

QUEUE, GROUP = b"raw", b"workers"
pack = hiredis.pack_command


class Connection:
    """Commands go out together, answers come back in order."""

    def __init__(self) -> None:
        self._socket = socket.create_connection(address())
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def ask(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        self._socket.sendall(b"".join([pack(command) for command in commands]))
        answers: list[Any] = []
        while len(answers) < len(commands):
            answer = self._reader.gets()
            if answer is False:
                self._reader.feed(self._socket.recv(1 << 18))
            else:
                answers.append(answer)
        return answers


def open_queue() -> Connection:
    connection = Connection()
    connection.ask([(b"XGROUP", b"CREATE", QUEUE, GROUP, b"0", b"MKSTREAM")])
    return connection


def one_by_one(count: int) -> float:
    connection = open_queue()

    def calls() -> None:
        for number in range(count):
            connection.ask([(b"XADD", QUEUE, b"*", b"i", new_id(), b"b", body(number))])

    return seconds(calls)


def fill(count: int) -> float:
    connection = open_queue()

    def calls() -> None:
        for start in range(0, count, BULK):
            numbers = range(start, min(start + BULK, count))
            connection.ask([(b"XADD", QUEUE, b"*", b"i", new_id(), b"b", body(number)) for number in numbers])

    return seconds(calls)


def work() -> None:
    connection, name = open_queue(), str(os.getpid()).encode()
    take = (b"XREADGROUP", b"GROUP", GROUP, name, b"COUNT", BATCH, b"BLOCK", 1000, b"STREAMS", QUEUE, b">")
    done: list[tuple[Any, ...]] = []
    while True:
        answers = connection.ask([*done, take])[-1]
        done = []
        places: list[bytes] = []
        for place, (_, task, _, packed) in answers[0][1] if answers else ():
            done.append((b"SET", b"result:" + task, run(packed), b"EX", KEEP))
            places.append(place)
        if places:
            done.append((b"XACK", QUEUE, GROUP, *places))
            done.append((b"XDEL", QUEUE, *places))
            done = [(b"MULTI",), *done, (b"EXEC",)]


if __name__ == "__main__":
    work()
