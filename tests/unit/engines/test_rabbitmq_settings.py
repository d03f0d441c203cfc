"""URLs of RabbitMQ, and what they say."""

import pytest

from penstock.engines.rabbitmq.settings import read_settings
from penstock.errors import ConfigError


def test_a_plain_url() -> None:
    settings = read_settings("amqp://me:s%2Fcret@one,two:5673/shop?heartbeat=30&members=3")
    assert settings.address.hosts == (("one", 5672), ("two", 5673))
    login = settings.login
    assert (login.user, login.password, login.virtual_host, login.heartbeat) == ("me", "s/cret", "shop", 30)
    assert (settings.members, settings.passive, settings.replies, login.tls) == (3, False, False, None)
    assert "s/cret" not in login.url
    assert "s%2Fcret" not in login.url


def test_defaults() -> None:
    settings = read_settings("pyamqp://localhost")
    assert (settings.login.user, settings.login.password, settings.login.virtual_host) == ("guest", "guest", "/")


def test_tls_and_replies_by_scheme() -> None:
    assert read_settings("amqps://localhost/").address.hosts == (("localhost", 5671),)
    assert read_settings("amqps://localhost/").login.tls is not None
    assert read_settings("rpc://localhost/").replies


@pytest.mark.parametrize(
    "url",
    [
        "amqp://u:pazz@h/?declare=maybe",
        "amqp://u:pazz@h/?exchange_type=headers",
        "amqp://u:pazz@h/?heartbeat=often",
        "amqp://u:pazz@h/?hartbeat=5",
        "amqp://u:pazz@h:99999/",
        "amqp://u:pazz@h/?durability=perhaps",
        "amqps://u:pazz@h/?ca=/nowhere/ca.pem",
    ],
)
def test_what_cannot_be_used_is_refused_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_settings(url)
    assert "pazz" not in str(refused.value)
