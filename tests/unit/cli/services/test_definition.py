from __future__ import annotations

from pathlib import Path

import pytest

from penstock.cli.services.definition import (
    OPTIONS,
    check_path,
    check_user,
    kind_of,
    options_of,
    options_value,
    unit_of,
    variables,
)
from penstock.errors import ConfigError


@pytest.mark.parametrize("name", ["broker", "worker", "worker-mail", "worker-2", "broker-a_b", "worker-" + "x" * 40])
def test_names_of_services(name: str) -> None:
    assert kind_of(name) == name.partition("-")[0]
    assert unit_of(name) == f"penstock-{name}"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "beat",
        "workers",
        "worker-",
        "worker--",
        "worker-/etc",
        "../worker",
        "worker-a b",
        "worker-é",
        "Worker",
        "worker-a.service",
        "worker-a\n",
        "worker@x",
        "worker-%i",
        "worker-" + "x" * 41,
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="a service is broker or worker"):
        kind_of(name)


def test_options_pass_through_the_environment_file() -> None:
    words = ["-Q", "mail,default", "-n", "mail@%h", "--max-tasks-per-child=100"]
    assert options_of({OPTIONS: options_value(words)}) == words
    assert options_of({}) == []


@pytest.mark.parametrize("word", ["two words", "$HOME", "a'b", 'a"b', "a\\b", "a;b", "a\nb", "", "é"])
def test_options_that_two_readers_would_read_differently_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="cannot be passed on safely"):
        options_value([word])


def test_quotes_that_do_not_close_are_said() -> None:
    with pytest.raises(ConfigError, match="PENSTOCK_OPTIONS in the environment file"):
        options_of({OPTIONS: "'open"})


def test_variables_come_from_the_option_or_the_environment() -> None:
    assert variables(["A=b=c", "SECRET", "E="], {"SECRET": "s"}) == {"A": "b=c", "SECRET": "s", "E": ""}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("MISSING", "--env MISSING: it is not set here"),
        ("1A=x", "'1A' is not a variable's name"),
        ("A B=x", "'A B' is not a variable's name"),
        ("=x", "'' is not a variable's name"),
    ],
)
def test_variables_that_are_none_are_refused(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        variables([given], {})


@pytest.mark.parametrize("value", ["hush\nLD_PRELOAD=x", "hush\0", "hush\x1b[2J", "hush" * 10_000])
def test_values_that_do_not_fit_a_line_are_refused_unseen(value: str) -> None:
    with pytest.raises(ConfigError, match="the value of SECRET must be one printable line") as caught:
        variables([f"SECRET={value}"], {})
    assert "hush" not in str(caught.value)


def test_users_and_paths() -> None:
    assert check_user("www-data") == "www-data"
    for name in ("", "0", "-u", "a b", "root\nExecStart=x", "x" * 32):
        with pytest.raises(ConfigError, match="is not the name of a user"):
            check_user(name)
    assert check_path("--folder", Path("/srv/my app")) == Path("/srv/my app")
    for path in ("relative", "/srv/a\nExecStartPre=x"):
        with pytest.raises(ConfigError, match=r"--folder .* must be an absolute path"):
            check_path("--folder", Path(path))
