"""Which host is asked first, and that a frozen one costs next to nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from penstock.engines.rabbitmq import dialing
from penstock.engines.rabbitmq.connection import Connection
from penstock.engines.rabbitmq.link import Link
from penstock.engines.rabbitmq.settings import read_settings
from penstock.errors import BrokerUnavailable, ConfigError, PenstockError

SETTINGS = read_settings("amqp://a:1,b:2,c:3/")


class Host:
    """Instead of a connection."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.login = SETTINGS.login
        self.error: PenstockError | None = None

    def abort(self, error: PenstockError) -> None:
        self.error = error


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that were dialled. Those in `FROZEN` never answer, those in `GONE` refuse."""
    monkeypatch.setattr(dialing, "STAGGER", 0.02)
    asked: list[str] = []

    async def open(login: object, host: str, port: int, timeout: float) -> Any:
        asked.append(host)
        if host in FROZEN:
            await asyncio.sleep(timeout)
        if host in FROZEN | GONE:
            raise BrokerUnavailable(f"{host} is gone")
        if host == "wrong":
            raise ConfigError("wrong password")
        return Host(f"{host}:{port}")

    monkeypatch.setattr(Connection, "open", open)
    FROZEN.clear()
    GONE.clear()
    return asked


FROZEN: set[str] = set()
GONE: set[str] = set()


async def same(connection: Connection) -> Connection:
    return connection


def test_the_host_that_was_lost_is_dialled_last(dialled: list[str]) -> None:
    async def lose_and_come_back() -> None:
        link = Link(SETTINGS, same)
        first = await link.first()
        for _ in range(20):
            lost = first.address
            first.error = BrokerUnavailable("lost")
            first = await link.get(5)
            assert first.address != lost

    asyncio.run(lose_and_come_back())
    assert len(dialled) == 21


def test_a_frozen_host_holds_nobody_up(dialled: list[str]) -> None:
    FROZEN.update("ab")
    started = time.monotonic()
    found = asyncio.run(dialing.open_first(SETTINGS.login, [("a", 1), ("b", 2), ("c", 3)], 10))
    assert found.address == "c:3"
    assert time.monotonic() - started < 5
    assert dialled == ["a", "b", "c"]


def test_a_host_that_refuses_is_followed_at_once(dialled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialing, "STAGGER", 60)
    GONE.update("ab")
    assert asyncio.run(dialing.open_first(SETTINGS.login, [("a", 1), ("b", 2), ("c", 3)], 10)).address == "c:3"


def test_when_nobody_answers_the_last_reason_is_told(dialled: list[str]) -> None:
    GONE.update("ab")
    with pytest.raises(BrokerUnavailable, match="is gone"):
        asyncio.run(dialing.open_first(SETTINGS.login, [("a", 1), ("b", 2)], 10))


def test_what_trying_cannot_help_is_told_at_once(dialled: list[str]) -> None:
    with pytest.raises(ConfigError, match="wrong password"):
        asyncio.run(dialing.open_first(SETTINGS.login, [("wrong", 1), ("b", 2)], 10))
    assert dialled == ["wrong"]


def test_a_host_that_cannot_be_prepared_is_followed_by_the_next(dialled: list[str]) -> None:
    tried: list[Connection] = []

    async def second(connection: Connection) -> Connection:
        tried.append(connection)
        if len(tried) == 1:
            raise BrokerUnavailable("it pauses")
        return connection

    found = asyncio.run(Link(SETTINGS, second).first())
    assert [one is found for one in tried] == [False, True]
    assert tried[0].error is not None
    assert tried[0].address != tried[1].address
