"""The proxy forwards, cuts where it is told, and swallows."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.proxy import Proxy


@pytest.fixture
def echo() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while data := connection.recv(4096):
                        connection.sendall(data)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_forwards_both_ways_with_its_delay(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy, connect(proxy) as client:
        proxy.delay = 0.01
        client.sendall(b"hello")
        assert client.recv(10) == b"hello"
        assert proxy.through("amqp://guest:g@localhost:1/x?y=1") == f"amqp://guest:g@127.0.0.1:{proxy.port}/x?y=1"


def test_cut_resets_and_takes_new_connections(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy:
        with connect(proxy) as client:
            client.sendall(b"a")
            client.recv(1)
            proxy.cut()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with connect(proxy) as client:
            client.sendall(b"b")
            assert client.recv(1) == b"b"


def test_cuts_after_so_many_bytes_to_the_server(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy, connect(proxy) as client:
        proxy.cut_after(to_server=3)
        client.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            while client.recv(10):
                pass
        assert proxy.passed["to_server"] == 3


def test_cuts_an_answer_off(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy, connect(proxy) as client:
        proxy.cut_after(to_client=0)
        client.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            client.recv(10)
        assert proxy.passed == {"to_server": 5, "to_client": 0}


def test_a_black_hole_takes_all_and_gives_nothing(echo: int) -> None:
    with Proxy("127.0.0.1", echo) as proxy, connect(proxy) as client:
        with proxy.blackhole():
            client.sendall(b"hello")
            client.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.recv(10)
        client.settimeout(5)
        assert client.recv(10) == b"hello"
