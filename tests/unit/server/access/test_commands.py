"""Administration: what each command does, and who may ask for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.errors import AccessRefused, ConfigError
from penstock.server.access import commands
from penstock.server.access.accounts import Token
from penstock.server.access.commands import COMMANDS
from penstock.server.access.identity import ByPassword, ByToken, Identity
from penstock.server.access.rights import ADMINISTRATOR
from penstock.server.access.tokens import DAY
from tests.unit.server.access.kit import HERE, PASSWORD, Counted, Door


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setattr(commands, "Passwords", Counted)
    return Door(tmp_path)


def run(door: Door, command: str, by: Identity | None = None, **arguments: object) -> Any:
    answer = commands.run(door.book, command, arguments, by)
    assert json.loads(json.dumps(answer)) == answer
    return answer


def signed_in(door: Door, user: str) -> Identity:
    return Identity(door.book, user, ByPassword(door.book.snapshot.users[user].generation), HERE, "/")


def token_of(door: Door, user: str) -> tuple[Token, Identity]:
    token, _ = door.book.add_token(user, DAY)
    return token, Identity(door.book, user, ByToken(token.id), HERE, "/", token.expires)


def test_a_user_s_life(door: Door) -> None:
    assert run(door, "users add", name="bob", password=PASSWORD) == {"user": "bob", "generated": None}
    run(door, "users tag", name="bob", tags=["monitoring"])
    run(door, "users permit", name="bob", configure="", write="mail", read=".*")
    assert run(door, "users list")[1] == {
        "user": "bob",
        "tags": ["monitoring"],
        "password": True,
        "permissions": [{"namespace": "/", "configure": "", "write": "mail", "read": ".*"}],
    }
    kept = door.book.snapshot.users["bob"].password
    assert Counted().verify(kept, PASSWORD)
    run(door, "users forbid", name="bob")
    assert run(door, "users list")[1]["permissions"] == []
    run(door, "users delete", name="bob")
    assert [user["user"] for user in run(door, "users list")] == ["ada"]


def test_a_generated_password_is_told_once_and_works(door: Door) -> None:
    for command in ("users add", "users password"):
        answer = run(door, command, name="bob", generate=True)
        assert Counted().verify(door.book.snapshot.users["bob"].password, answer["generated"])
        assert answer["generated"] not in json.dumps(run(door, "users list"))
    run(door, "users password", name="bob")
    assert run(door, "users list")[1]["password"] is False


def test_a_token_s_life(door: Door) -> None:
    created = run(door, "tokens create", user="ada", life=DAY)
    assert created["token"].startswith(f"pst_{created['id']}_") and created["expires"] - created["created"] == DAY
    listed = run(door, "tokens list")
    assert listed == [{name: created[name] for name in ("id", "user", "created", "expires")}]
    assert run(door, "tokens list", user="bob") == []
    run(door, "tokens revoke", id=created["id"])
    assert run(door, "tokens list") == []
    with pytest.raises(ConfigError, match="whose token"):
        run(door, "tokens create")


def test_a_namespace_s_life(door: Door) -> None:
    run(door, "namespaces add", name="shop")
    assert run(door, "namespaces list") == [{"namespace": "/", "users": ["ada"]}, {"namespace": "shop", "users": []}]
    run(door, "namespaces delete", name="shop")
    assert len(run(door, "namespaces list")) == 1


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        ("users ad", {}, "did you mean 'users add'"),
        ("__class__", {}, "unknown command"),
        ("x" * 1_000_000, {}, "unknown command"),
        ("users add", {}, "missing required field `name`"),
        ("users add", {"name": 7}, "Expected `str`, got `int`"),
        ("users add", {"name": "bob", "admin": True}, "unknown field `admin`"),
        ("users add", {"name": "bob", "password": "short"}, "at least 8"),
        ("users add", {"name": "bob", "password": PASSWORD, "generate": True}, "not both"),
        ("users tag", {"name": "ada", "tags": ["root"]}, "unknown tag"),
        ("users permit", {"name": "ada", "configure": "(a+)+", "write": "", "read": ""}, "too many ways"),
        ("tokens create", {"user": "ada", "life": 1e300}, "a token lives"),
        ("tokens create", {"user": "ada", "life": "30d"}, "Expected `float`"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_arguments_are_told(door: Door, command: str, arguments: dict[str, object], told: str) -> None:
    before = door.book.snapshot
    with pytest.raises(ConfigError, match=told) as caught:
        commands.run(door.book, command, arguments, None)
    assert door.book.snapshot == before
    assert len(str(caught.value)) < 1_000 and PASSWORD not in str(caught.value)


ARGUMENTS: dict[str, dict[str, object]] = {
    "users add": {"name": "eve", "password": PASSWORD, "tags": ["administrator"]},
    "users list": {},
    "users password": {"name": "bob", "password": PASSWORD},
    "users tag": {"name": "ada", "tags": ["administrator"]},
    "users permit": {"name": "ada", "configure": ".*", "write": ".*", "read": ".*"},
    "users forbid": {"name": "bob"},
    "users delete": {"name": "bob"},
    "tokens create": {"user": "bob"},
    "tokens list": {"user": "bob"},
    "tokens revoke": {"id": "000000000000"},
    "namespaces add": {"name": "shop"},
    "namespaces list": {},
    "namespaces delete": {"name": "shop"},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_but_an_administrator_reaches_what_is_another_s(
    door: Door, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    door.book.add_user("bob", None, ["monitoring"])
    before = door.book.snapshot
    with pytest.raises(AccessRefused, match="needs the tag administrator") as caught:
        commands.run(door.book, command, ARGUMENTS[command], signed_in(door, "ada"))
    with pytest.raises(AccessRefused) as of_nobody:
        arguments = {name: "nobody" if value == "bob" else value for name, value in ARGUMENTS[command].items()}
        commands.run(door.book, command, arguments, signed_in(door, "ada"))
    assert str(caught.value) == str(of_nobody.value)  # whether there is a bob is not told
    assert door.book.snapshot == before and command in caplog.text and HERE in caplog.text


@pytest.mark.parametrize("command", COMMANDS)
def test_an_administrator_may_do_it(door: Door, command: str) -> None:
    door.book.tag_user("ada", [ADMINISTRATOR])
    door.book.add_user("bob", None)
    if command == "users forbid":
        run(door, "users permit", name="bob", configure="", write="", read="")
    if command == "namespaces delete":
        door.book.add_namespace("shop")
    arguments = dict(ARGUMENTS[command])
    if command == "tokens revoke":
        arguments["id"] = door.book.add_token("bob", DAY)[0].id
    run(door, command, signed_in(door, "ada"), **arguments)


def test_everybody_looks_after_the_own_password_and_tokens(door: Door) -> None:
    door.book.add_user("bob", None)
    other = door.book.add_token("bob", DAY)[0]
    ada = signed_in(door, "ada")
    created = run(door, "tokens create", ada)
    assert created["user"] == "ada"
    assert [token["user"] for token in run(door, "tokens list", ada)] == ["ada"]
    with pytest.raises(AccessRefused):
        run(door, "tokens revoke", ada, id=other.id)
    run(door, "tokens revoke", ada, id=created["id"])
    run(door, "users password", ada, name="ada", password="another horse")
    assert not ada.still_valid(0.0)
    with pytest.raises(AccessRefused):
        run(door, "tokens create", ada)  # the former password counts no more
    assert set(door.book.snapshot.tokens) == {other.id}


def test_a_stolen_token_becomes_no_password_and_no_other_token(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    token, thief = token_of(door, "ada")
    for command, arguments in (("users password", {"name": "ada", "password": "another horse"}), ("tokens create", {})):
        with pytest.raises(AccessRefused, match="signed in with a token"):
            run(door, command, thief, **arguments)
    assert caplog.text.count("signed in with a token") == 2
    assert [one["id"] for one in run(door, "tokens list", thief)] == [token.id]
    run(door, "tokens revoke", thief, id=token.id)
    with pytest.raises(AccessRefused, match="is signed out"):
        run(door, "tokens list", thief)


def test_who_has_expired_meanwhile_asks_for_nothing(door: Door) -> None:
    door.book.tag_user("ada", [ADMINISTRATOR])
    _, ada = token_of(door, "ada")
    run(door, "users list", ada)
    door.clock.advance(DAY)
    with pytest.raises(AccessRefused, match="is signed out"):
        run(door, "users list", ada)


def test_what_was_changed_is_logged_without_secrets(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "penstock.broker.access")
    door.book.tag_user("ada", [ADMINISTRATOR])
    run(door, "users add", signed_in(door, "ada"), name="bob", password="another horse")
    text = run(door, "tokens create", None, user="bob")["token"]
    assert "AddUser(name='bob'" in caplog.text and f"by <Identity 'ada' from {HERE}>" in caplog.text
    assert "the owner of the files" in caplog.text
    assert "another horse" not in caplog.text and text not in caplog.text
