"""A gateway signs in for others: it is told who they are, and says where they come from, if it is believed."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.protocol.replies import Welcome
from penstock.protocol.requests import Hello
from penstock.server.access.book import Book
from penstock.server.settings import BrokerSettings
from tests.unit.server.house import ADA, PASSWORD, Client, House


def address(house: House, told: str) -> str:
    """Where the broker takes a client to be that says it is at `told`."""
    with house.client(address=told):
        (session,) = house.do(lambda: list(house.broker.sessions.values()))
        return session.identity.address


def test_an_address_is_believed_from_a_gateway_only(tmp_path: Path) -> None:
    with House(tmp_path / "one") as house:
        assert address(house, "192.0.2.7") == "127.0.0.1"
    with House(tmp_path / "two", gateways=("127.0.0.1",)) as house:
        assert address(house, "192.0.2.7") == "192.0.2.7"
    with House(tmp_path / "three", gateways=("127.0.0.1",)) as house:
        assert address(house, "") == "127.0.0.1"


def test_the_engine_says_for_whom(tmp_path: Path) -> None:
    with House(tmp_path / "data", gateways=("127.0.0.1",)) as house:
        engine = house.engine(options="?client=192.0.2.7")
        try:
            assert engine.user == ADA
            sessions = house.do(lambda: [one.identity.address for one in house.broker.sessions.values()])
            assert sessions == ["192.0.2.7"]
        finally:
            engine.close()


def test_who_comes_with_a_token_is_told_who_it_is(tmp_path: Path) -> None:
    with House(tmp_path / "data") as house:
        book = Book(house.folder)
        _, text = book.add_token(ADA, 3600.0)
        book.close()
        with Client(house.port, Hello(1, 1, "bare", secret=text)) as client:
            assert isinstance(client.welcome, Welcome) and client.welcome.user == ADA
        with Client(house.port, Hello(1, 1, "bare", secret=PASSWORD)) as client:
            assert not isinstance(client.welcome, Welcome)


@pytest.mark.parametrize("gateway", ["", "proxy.example", "10.0.0.0/8", "*"])
def test_a_gateway_is_an_address(tmp_path: Path, gateway: str) -> None:
    with pytest.raises(ConfigError, match="--gateway"):
        BrokerSettings(data=tmp_path, gateways=(gateway,)).check()
    BrokerSettings(data=tmp_path, gateways=("::1", "local")).check()
