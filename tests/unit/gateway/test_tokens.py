"""Tokens in a file, scopes, and a gateway without tokens."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from penstock.clock import ManualClock
from penstock.errors import ConfigError
from penstock.gateway import Caller, Request, TokenFile
from penstock.gateway import tokens as tokens_module
from penstock.gateway.anybody import anybody
from penstock.gateway.problems import Refused
from penstock.gateway.scopes import read_scopes
from penstock.loopback import is_loopback

DAY = 86_400.0


def asked(**headers: str) -> Request:
    return Request("GET", "/v1/info", "", headers, "127.0.0.1")


def signed_in(file: TokenFile, text: str) -> Caller | None:
    try:
        return file(asked(authorization=f"Bearer {text}"))
    except Refused as refused:
        return None if (refused.status, refused.headers) == (401, {"www-authenticate": "Bearer"}) else pytest.fail()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def file(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> TokenFile:
    monkeypatch.setattr(tokens_module, "LOOK", 0.0)
    return TokenFile(tmp_path / "tokens.json", clock)


def test_a_token_lets_in_until_its_end(file: TokenFile, clock: ManualClock) -> None:
    _, text = file.add("ada", ["call:tasks.*", "read"], life=DAY)
    caller = signed_in(file, text)
    assert caller is not None
    assert (caller.name, caller.scopes.texts()) == ("ada", ["call:tasks.*", "read"])
    clock.advance(DAY)
    assert signed_in(file, text) is None


def test_who_has_an_expired_token_hears_so_and_nobody_else(
    file: TokenFile, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    _, text = file.add("ada", ["read"], life=DAY)
    clock.advance(DAY)
    file.add("bob", ["read"])
    for _ in range(3):
        with pytest.raises(Refused, match="this token expired at 2023-11-15 22:13 UTC"):
            file(asked(authorization=f"Bearer {text}"))
    assert caplog.text.count("the token of 'ada' expired") == 1
    with pytest.raises(Refused, match="valid token"):
        file(asked(authorization=f"Bearer {text[:-1]}{'A' if text[-1] != 'A' else 'B'}"))
    clock.advance(31 * DAY)
    file.add("bob", ["read"])
    assert {token.name for token in file.all()} == {"bob"}, "it is forgotten at last"


def test_a_file_says_whom_it_lets_in_and_who_must_be_looked_after(file: TokenFile, clock: ManualClock) -> None:
    assert file.summary() == f"nobody by the tokens in {file.path}: there are none; penstock gateway token add"
    file.add("ada", ["read"], life=2 * DAY)
    file.add("bob", ["read"], life=30 * DAY)
    ends = "2 tokens in {}, of which some expire soon: 'ada' until 2023-11-16 22:13 UTC"
    assert file.summary() == ends.format(file.path)
    clock.advance(2 * DAY)
    assert file.summary() == f"1 token in {file.path}"
    clock.advance(28 * DAY)
    assert "all have expired" in file.summary()


def test_what_is_kept_lets_nobody_in(file: TokenFile) -> None:
    token, text = file.add("ada", ["read"])
    assert text.split("_", 2)[2] not in file.path.read_text()  # a secret may have "_" itself
    assert signed_in(file, f"pst_{token.id}_{token.digest[:43]}") is None
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_removed_token_lets_nobody_in(file: TokenFile) -> None:
    first, text = file.add("ada", ["read"])
    _, other = file.add("bob", ["read"])
    assert signed_in(file, text) is not None
    file.remove(first.id)
    assert signed_in(file, text) is None
    assert signed_in(file, other) is not None
    with pytest.raises(ConfigError, match="no token of the id"):
        file.remove(first.id)


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer pst_", "Basic YTpi", "Bearer " + "x" * 100_000, "bearer pst_a_b"]
)
def test_nothing_else_lets_in(file: TokenFile, given: str) -> None:
    file.add("ada", ["read"])
    with pytest.raises(Refused, match="valid token"):
        file(asked(authorization=given))


def test_one_wrong_letter_is_too_many(file: TokenFile) -> None:
    _, text = file.add("ada", ["read"])
    assert signed_in(file, text[:-1] + ("A" if text[-1] != "A" else "B")) is None


def test_a_file_that_others_may_write_is_refused(file: TokenFile) -> None:
    file.add("ada", ["read"])
    file.path.chmod(0o620)
    with pytest.raises(ConfigError, match="chmod 600"):
        TokenFile(file.path)


def test_a_damaged_file_leaves_tokens_as_they_were(file: TokenFile, caplog: pytest.LogCaptureFixture) -> None:
    _, text = file.add("ada", ["read"])
    assert signed_in(file, text) is not None
    file.path.write_text("[{")
    assert signed_in(file, text) is not None
    assert "is no file of tokens" in caplog.text
    with pytest.raises(ConfigError, match="is no file of tokens"):
        TokenFile(file.path)


def test_a_token_needs_scopes_that_mean_something(file: TokenFile) -> None:
    for scopes, why in (
        ([], "without a scope"),
        (["write"], "unknown scope"),
        (["call"], "write call:NAME"),
        (["read:x"], "unknown"),
    ):
        with pytest.raises(ConfigError, match=why):
            file.add("ada", scopes)


def test_scopes_are_of_whole_names() -> None:
    scopes = read_scopes(["call:tasks.a*", "call:mail.send"])
    assert scopes.may_call("tasks.add") and scopes.may_call("mail.send")
    assert (
        not scopes.may_call("mail.send2") and not scopes.may_call("my.tasks.add") and not scopes.may_call("TASKS.ADD")
    )
    assert not scopes.may_call("tasks.a" + "x" * 300)
    assert not scopes.may("read")


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "127.9.9.9"])
def test_without_tokens_this_machine_may_do_everything(host: str) -> None:
    assert anybody(asked(host=host)).scopes.may_call("tasks.add")


@pytest.mark.parametrize("host", ["", "evil.example", "localhost.evil.example:80", "10.0.0.1", "[::2]:80", "["])
def test_without_tokens_other_names_are_refused(host: str) -> None:
    with pytest.raises(Refused, match="localhost only"):
        anybody(asked(host=host))


def test_without_tokens_other_machines_are_refused() -> None:
    with pytest.raises(Refused, match="this machine only"):
        anybody(Request("GET", "/", "", {"host": "localhost"}, "10.0.0.9"))
    assert not is_loopback("0.0.0.0")
