import traceback

import pytest

from penstock import Penstock
from penstock.config import read_config
from penstock.engines.network.address import parse_address
from penstock.errors import ConfigError
from penstock.spelling import hint, without_password


def test_a_close_name_is_offered() -> None:
    assert hint("quue", ["queue", "priority"]) == "; did you mean 'queue'?"


def test_few_names_are_listed_and_many_are_not() -> None:
    assert hint("zzz", ["b", "a"]) == "; known: a, b"
    assert hint("zzz", [f"n{i}" for i in range(20)]) == ""
    assert hint("zzz", []) == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://bob:secret@one:6379,two/0", "redis://bob:***@one:6379,two/0"),
        ("redis://:sec/ret@one/0", "redis://:***@one/0"),
        ("redis://bob:sec?ret@one/0?db=1", "redis://bob:***@one/0"),
        ("bob:secret@one/0", "bob:***@one/0"),
        ("redis:/bob:secret@one", "redis:***@one"),
        ("sentinel://one/main?sentinel_password=secret&db=1", "sentinel://one/main?sentinel_password=***&db=1"),
        ("redis://one:6379/0", "redis://one:6379/0"),
    ],
)
def test_a_url_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    ["redis://bob:sec/ret@one/0", "redis://bob:sec?ret@one/0", "redis://bob:12?34=5ret@one/0", "redis:/bob:sec@one"],
)
def test_a_password_that_is_not_encoded_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(url, port=1, options=("db",))
    text = "".join(traceback.format_exception(caught.value))
    assert "sec" not in text
    assert "ret" not in text


@pytest.mark.parametrize("url", ["bob:secret@one/0", "redis:/bob:secret@one"])
def test_settings_that_are_no_urls(url: str) -> None:
    for settings in ({"broker_url": url}, {"result_backend": url}):
        with pytest.raises(ConfigError) as caught:
            read_config(settings)
        assert "secret" not in str(caught.value)


def test_no_representation_has_a_password() -> None:
    url = "redis://bob:secret@one/0"
    app = Penstock("app", broker=url, result_backend=f"{url}?db=2")
    assert app.conf.broker_url == url
    assert "secret" not in repr(app.conf) + repr(app) + repr(parse_address(url, port=1))
    assert "publish_timeout=" in repr(app.conf)


def test_an_at_sign_where_it_may_be() -> None:
    assert parse_address("redis://one:6379/0?word=a@b", port=1, options=("word",)).options == {"word": "a@b"}
    assert parse_address("amqp://bob:x@one/v@host", port=1).path == "v@host"
