"""`penstock users`, `tokens` and `namespaces`, on a data folder and through a broker."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, cast

import pytest

from penstock import opening
from penstock.cli.main import run
from penstock.engines import memory
from penstock.engines.memory import MemoryEngine
from penstock.server.access import commands
from penstock.server.access.book import Book
from penstock.server.access.identity import ByToken, Identity
from penstock.server.access.passwords import Passwords
from penstock.server.access.rights import Right
from tests.unit.server.access.kit import PASSWORD, Counted

Type = Callable[..., str]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(commands, "Passwords", Counted)
    monkeypatch.delenv("PENSTOCK_APP", raising=False)
    monkeypatch.delenv("PENSTOCK_BROKER_URL", raising=False)
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def penstock(data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Type:
    """Types a command that works on the data folder; returns what it printed, errors after the rest."""

    def type_command(*words: str, typed: str = "", code: int = 0, folder: str | None = str(data)) -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert run([*words, *(["--data", folder] if folder else [])]) == code, capsys.readouterr()
        captured = capsys.readouterr()
        assert "\x1b" not in captured.out + captured.err
        return captured.out + captured.err

    return type_command


def book_of(data: Path) -> Book:
    book = Book(data)
    book.close()
    return book


def test_the_first_administrator_as_the_manual_has_it(penstock: Type, data: Path) -> None:
    penstock("users", "add", "admin", "--password-stdin", typed=f"{PASSWORD}\n")
    assert "administrator" in penstock("users", "tag", "admin", "administrator")
    said = penstock("users", "permit", "admin", "--namespace", "/", ".*", ".*", "")
    assert said == "'admin' may, in '/': configure '.*', write '.*', read ''\n"
    admin = book_of(data).snapshot.users["admin"]
    assert admin.owns and Counted().verify(admin.password, PASSWORD)
    assert admin.rights.may(Right.WRITE, "/", "mail") and not admin.rights.may(Right.READ, "/", "mail")


def test_users_are_listed_with_all_they_may(penstock: Type) -> None:
    assert penstock("users", "list") == "no users\n"
    penstock("users", "add", "ada", "--no-password")
    penstock("users", "permit", "ada", "", "mail|sms", ".*", "--namespace", "*")
    penstock("users", "permit", "ada", "a", "b", "c")
    lines = penstock("users", "list").splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["ada", "–", "no", "*", "mail|sms", ".*"],
        ["/", "a", "b", "c"],
    ]
    [listed] = json.loads(penstock("users", "list", "--json"))
    assert listed["permissions"][0] == {"namespace": "*", "configure": "", "write": "mail|sms", "read": ".*"}
    penstock("users", "forbid", "ada", "--namespace", "*")
    assert len(json.loads(penstock("users", "list", "--json"))[0]["permissions"]) == 1


def test_a_generated_password_is_alone_on_standard_output(
    penstock: Type, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["users", "add", "ada", "--generate", "--data", str(data)]) == 0
    word = capsys.readouterr().out.removesuffix("\n")
    assert Counted().verify(book_of(data).snapshot.users["ada"].password, word)
    assert word not in penstock("users", "list", "--json")
    penstock("users", "password", "ada", "--no-password")
    assert book_of(data).snapshot.users["ada"].password is None


def test_who_is_deleted_is_asked_about_first(penstock: Type, data: Path) -> None:
    penstock("users", "add", "ada", "--no-password")
    penstock("users", "delete", "ada", typed="n\n", code=130)
    assert "ada" in book_of(data).snapshot.users
    penstock("users", "delete", "ada", "--yes")
    assert not book_of(data).snapshot.users


def test_a_token_is_shown_once_and_revoked_by_its_id(
    penstock: Type, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    penstock("users", "add", "ada", "--no-password")
    assert run(["tokens", "create", "ada", "--expires", "12h", "--data", str(data)]) == 0
    text = capsys.readouterr().out.removesuffix("\n")
    [token] = book_of(data).snapshot.tokens.values()
    assert text.startswith(f"pst_{token.id}_") and round(token.expires - token.created) == 43_200
    listed = penstock("tokens", "list", "ada") + penstock("tokens", "list", "--json")
    assert token.id in listed and text not in listed and "in 12 h" in listed
    penstock("tokens", "revoke", token.id)
    assert penstock("tokens", "list") == "no tokens\n"


def test_namespaces_are_added_listed_and_deleted(penstock: Type) -> None:
    penstock("users", "add", "ada", "--no-password")
    penstock("namespaces", "add", "shop")
    penstock("users", "permit", "ada", ".*", ".*", ".*", "--namespace", "shop")
    assert [line.split() for line in penstock("namespaces", "list").splitlines()[1:]] == [["/", "–"], ["shop", "ada"]]
    penstock("namespaces", "delete", "shop", typed="y\n")
    assert json.loads(penstock("namespaces", "list", "--json")) == [{"namespace": "/", "users": []}]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("users", "add", "ada"), "no terminal to type a password in"),
        (("users", "add", "ada", "--generate", "--no-password"), "give one of"),
        (("users", "add", "bootstrap", "--no-password"), "choose another name"),
        (("users", "add", "a\x1b[31m", "--no-password"), "control characters"),
        (("users", "tag", "ada", "root"), "unknown tag 'root'"),
        (("users", "permit", "eve", ".*", ".*", ".*"), "no user 'eve'"),
        (("users", "permit", "eve", "(", "", ""), "no regular expression"),
        (("users", "password", "eve", "--generate"), "no user 'eve'"),
        (("tokens", "create"), "whose token"),
        (("tokens", "create", "eve", "--expires", "never"), "is not a time"),
        (("tokens", "revoke", "eve"), "no token 'eve'"),
        (("namespaces", "add", "*"), "choose another name"),
        (("namespaces", "delete", "/", "--yes"), "always there"),
        (("-b", "memory://", "users", "list"), "either --data, or a broker"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_told(penstock: Type, words: tuple[str, ...], told: str) -> None:
    penstock("users", "add", "ada1", "--no-password")
    assert told in penstock(*words, code=2)


def test_a_bad_password_is_not_shown(penstock: Type) -> None:
    assert "short7" not in penstock("users", "add", "ada", "--password-stdin", typed="short7\n", code=2)
    penstock("users", "add", "ada", "--password-stdin", typed="x" * 10_000, code=2)
    penstock("users", "add", "ada", "--password-stdin", typed="", code=2)


def test_a_folder_that_is_not_there_is_not_made(penstock: Type, tmp_path: Path) -> None:
    folder = tmp_path / "typo"
    assert "create it" in penstock("users", "list", folder=str(folder), code=1)
    assert not folder.exists()


def test_without_a_broker_or_a_folder_it_says_what_to_name(
    penstock: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--data DIR" in penstock("users", "list", folder=None, code=2)
    told = penstock("-b", "memory://", "users", "list", folder=None, code=2)
    assert "memory:// has no users and rights of its own" in told


class Broker(MemoryEngine):
    """An engine whose broker keeps users; who asks has signed in as `ada`, with a token."""

    book: Book

    async def administer(self, command: str, arguments: Mapping[str, object]) -> object:
        [token] = self.book.snapshot.tokens_of("ada")
        by = Identity(self.book, "ada", ByToken(token.id), "192.0.2.1", "/", token.expires)
        return json.loads(json.dumps(commands.run(self.book, command, json.loads(json.dumps(arguments)), by)))


@pytest.fixture
def broker(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Book]:
    book = Book(data)
    book.add_user("ada", None)
    book.add_token("ada", 3_600.0)

    def open_engine(url: str, **named: Any) -> Broker:
        engine: Any = memory.open_engine("memory://", **named)
        engine.__class__, engine.book = Broker, book
        return cast(Broker, engine)

    module: Any = ModuleType("administered")
    module.open_engine = open_engine
    monkeypatch.setitem(sys.modules, "administered", module)
    monkeypatch.setattr(opening, "ENGINES", MappingProxyType({"administered": "administered"}))
    yield book
    book.close()


def test_a_running_broker_is_asked_by_its_url(penstock: Type, broker: Book) -> None:
    url = ("-b", "administered://host")
    told = penstock(*url, "users", "add", "bob", "--generate", folder=None, code=2)
    assert "needs the tag administrator" in told
    broker.tag_user("ada", ["administrator"])
    penstock(*url, "users", "add", "bob", "--password-stdin", typed=f"{PASSWORD}\n", folder=None)
    penstock(*url, "users", "tag", "bob", "monitoring", folder=None)
    penstock(*url, "users", "permit", "bob", "", "a", "b", folder=None)
    assert "bob" in penstock(*url, "users", "list", folder=None)
    bob = broker.snapshot.users["bob"]
    assert bob.tags == {"monitoring"} and Counted().verify(bob.password, PASSWORD)
    assert len(json.loads(penstock(*url, "tokens", "list", "--json", folder=None))) == 1


def test_a_password_is_typed_twice_and_not_echoed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "penstock.cli", "users", "add", "ada", "--data", str(tmp_path)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = b""
    try:
        for prompt in (b"Password", b"Repeat"):
            while prompt not in shown:
                assert select.select([ours], [], [], 30)[0]
                shown += os.read(ours, 1_000)
            os.write(ours, f"{PASSWORD}\n".encode())
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert PASSWORD.encode() not in shown
    book = book_of(tmp_path)
    assert Passwords().verify(book.snapshot.users["ada"].password, PASSWORD)
