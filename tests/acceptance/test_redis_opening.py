"""Redis servers that cannot be used are refused at once, with the remedy, and without the password. Real servers."""

import functools
import logging
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from penstock.broker import Accepted
from penstock.engines.redis import open_engine
from penstock.errors import BrokerUnavailable, ConfigError
from tests.acceptance.redis_tools import Open, command, message, opened, publish, server, taken
from tests.servers import Server, redis_server

__all__ = ["opened", "server"]


def refused(url: str, kind: type[Exception], *about: str, **settings: Any) -> None:
    with pytest.raises(kind) as caught:
        open_engine(url, **settings).close()
    for text in about:
        assert text in str(caught.value)
    assert "hidden" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_an_unreachable_host(server: Server) -> None:
    server.stop()
    began = time.monotonic()
    refused(server.url, BrokerUnavailable)
    assert time.monotonic() - began < 5


def test_a_server_of_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=functools.partial(_answer_http, listener), daemon=True).start()
        refused(f"redis://127.0.0.1:{listener.getsockname()[1]}/0", BrokerUnavailable, "not a Redis server")


def _answer_http(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_wrong_password_and_none(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        admin = open_engine(server.url)
        command(admin, "CONFIG", "SET", "requirepass", "right")
        admin.close()
        place = f"127.0.0.1:{server.port}"
        refused(f"redis://:hidden@{place}/0", ConfigError, "password is wrong")
        refused(f"redis://bob:hidden@{place}/0", ConfigError, "password is wrong")
        refused(f"redis://{place}/0", ConfigError, "wants a password")
        open_engine(f"redis://:right@{place}/0").close()


def test_a_database_that_is_not_there(server: Server) -> None:
    refused(f"redis://127.0.0.1:{server.port}/99", ConfigError, "no database 99")


def test_missing_rights(server: Server, opened: Open) -> None:
    admin = opened(server.url)
    for name, rights in (("eva", "+@all -eval -evalsha ~*"), ("keys", "+@all ~other:* &*")):
        command(admin, "ACL", "SETUSER", name, "on", ">hidden", *rights.split())
        refused(f"redis://{name}:hidden@127.0.0.1:{server.port}/0", ConfigError, "our keys", "ACL SETUSER")


def test_a_managed_server_that_hides_its_configuration(
    server: Server, opened: Open, caplog: pytest.LogCaptureFixture
) -> None:
    command(
        opened(server.url), "ACL", "SETUSER", "app", "on", ">pw", *["+@all", "-config", "~{penstock}*", "&{penstock}*"]
    )
    with caplog.at_level(logging.WARNING, "penstock.engine"):
        engine = opened(f"redis://app:pw@127.0.0.1:{server.port}/0")
    assert "CONFIG is forbidden" in caplog.text
    assert isinstance(publish(engine, message())[0], Accepted)
    assert len(taken(engine)) == 1


def test_a_server_that_deletes_tasks(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        refused(server.url, ConfigError, "allkeys-lru", "noeviction")


def test_a_cluster(tmp_path: Path) -> None:
    with redis_server(tmp_path, "--cluster-enabled", "yes") as server:
        refused(server.url, ConfigError, "cluster mode", "sentinel://")


def test_a_server_that_keeps_nothing(tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server(tmp_path, "--appendonly", "no") as server:
        refused(f"{server.url}?durability=strict", ConfigError, "appendonly yes", "are lost")
        refused(server.url, ConfigError, "appendonly yes", durability="strict")
        with caplog.at_level(logging.WARNING, "penstock.engine"):
            engine = opened(server.url)
        assert "appendonly yes" in caplog.text
        assert engine.broker.features.durability == "memory"


def test_the_level_of_durability_is_told(tmp_path: Path, opened: Open, caplog: pytest.LogCaptureFixture) -> None:
    with redis_server(tmp_path, "--appendfsync", "everysec") as server:
        with caplog.at_level(logging.WARNING, "penstock.engine"):
            assert opened(server.url, durability="process").broker.features.durability == "process"
        assert not caplog.records, "who asked for no more is not warned"
    (tmp_path / "always").mkdir()
    with redis_server(tmp_path / "always") as server:
        assert opened(server.url, durability="strict").broker.features.durability == "power"


def test_a_frozen_server_is_given_up_while_it_greets(server: Server) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    try:
        refused(f"{server.url}?timeout=0.3", BrokerUnavailable, "no answer in time")
    finally:
        server.process.send_signal(signal.SIGCONT)
