"""The access database: what it keeps, from whom, and what other processes see."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from penstock.clock import ManualClock
from penstock.errors import BrokerUnavailable, ConfigError, StoreError
from penstock.server.access import book as book_module
from penstock.server.access.accounts import Snapshot
from penstock.server.access.book import Book
from penstock.server.access.rights import Permission, Right
from penstock.server.access.tokens import DAY

ALL = Permission("/", ".*", ".*", ".*")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def open_book(tmp_path: Path, clock: ManualClock) -> Iterator[Callable[[], Book]]:
    books: list[Book] = []

    def open_another() -> Book:
        books.append(Book(tmp_path, clock))
        return books[-1]

    yield open_another
    for one in books:
        one.close()


@pytest.fixture
def book(open_book: Callable[[], Book]) -> Book:
    return open_book()


def test_a_new_one_knows_nobody_and_the_default_namespace(book: Book) -> None:
    assert not book.snapshot.users and not book.snapshot.tokens
    assert book.snapshot.namespaces == {"/"}


def test_its_files_are_the_owners_only(book: Book) -> None:
    book.add_user("ada", None)
    files = list(Path(book.path).parent.glob("access.db*"))
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_file_that_others_may_read_is_shut(tmp_path: Path) -> None:
    Book(tmp_path).close()
    path = tmp_path / "access.db"
    path.chmod(0o644)
    Book(tmp_path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_changed_is_there_when_it_is_opened_again(book: Book, open_book: Callable[[], Book]) -> None:
    book.add_namespace("shop")
    book.add_user("ada", "hash", ["monitoring"])
    book.permit("ada", Permission("shop", "a", "b", "c"))
    token, text = book.add_token("ada", DAY)
    book.close()
    again = open_book().snapshot
    ada = again.users["ada"]
    assert (ada.password, ada.tags, ada.rights.permissions) == (
        "hash",
        {"monitoring"},
        (Permission("shop", "a", "b", "c"),),
    )
    assert again.tokens == {token.id: token} and again.namespaces == {"/", "shop"}
    assert text.startswith(f"pst_{token.id}_")


def test_a_token_s_secret_is_nowhere_in_the_files(book: Book) -> None:
    book.add_user("ada", None)
    _, text = book.add_token("ada", DAY)
    secret = text.split("_", 2)[2].encode()
    for file in Path(book.path).parent.iterdir():
        assert secret not in file.read_bytes()


def test_a_hash_that_was_replaced_is_nowhere_in_the_file(book: Book) -> None:
    book.add_user("ada", "the-former-hash")
    book.set_password("ada", "the-present-hash")
    book.close()
    content = Path(book.path).read_bytes()
    assert b"the-present-hash" in content and b"the-former-hash" not in content


def test_a_hash_is_in_no_repr(book: Book) -> None:
    book.add_user("ada", "the-hash")
    assert "the-hash" not in repr(book.snapshot)


def test_another_process_is_seen_after_a_refresh(book: Book, open_book: Callable[[], Book]) -> None:
    other = open_book()
    book.add_user("ada", None)
    assert not other.snapshot.users
    assert other.refresh() and "ada" in other.snapshot.users
    assert not other.refresh()
    assert not book.refresh()  # it knows what it did itself


def test_a_refresh_does_not_wait_for_a_change_in_another_thread(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    real = book_module.snapshot_of

    def slow(*arguments: Any) -> Snapshot:
        begun.set()
        assert go.wait(10)
        return real(*arguments)

    monkeypatch.setattr(book_module, "snapshot_of", slow)
    thread = threading.Thread(target=book.add_user, args=("ada", None))
    thread.start()
    assert begun.wait(10)
    assert not book.refresh() and not book.snapshot.users
    go.set()
    thread.join()
    assert "ada" in book.snapshot.users


def test_a_change_is_made_to_what_the_file_says_now(book: Book, open_book: Callable[[], Book]) -> None:
    other = open_book()
    book.add_user("ada", None)
    with pytest.raises(ConfigError, match="already"):
        other.add_user("ada", None)
    other.permit("ada", ALL)
    book.refresh()
    assert book.snapshot.users["ada"].rights.may(Right.READ, "/", "q")


def test_who_has_not_changed_keeps_what_was_decided(book: Book) -> None:
    book.add_user("ada", None)
    before = book.snapshot.users["ada"]
    book.add_user("bob", None)
    assert book.snapshot.users["ada"] is before
    book.permit("ada", ALL)
    assert book.snapshot.users["ada"] is not before


def test_a_new_password_is_a_new_generation_and_a_renewed_hash_is_not(book: Book) -> None:
    book.add_user("ada", "one")
    first = book.snapshot.users["ada"].generation
    book.renew_hash("ada", "one", "two")
    assert (book.snapshot.users["ada"].password, book.snapshot.users["ada"].generation) == ("two", first)
    book.renew_hash("ada", "one", "late")
    assert book.snapshot.users["ada"].password == "two"
    book.set_password("ada", "three")
    assert book.snapshot.users["ada"].generation != first
    book.delete_user("ada")
    book.add_user("ada", "three")
    assert book.snapshot.users["ada"].generation != first


def test_what_hangs_on_a_user_goes_with_it(book: Book) -> None:
    book.add_user("ada", None)
    book.permit("ada", ALL)
    book.add_token("ada", DAY)
    book.delete_user("ada")
    assert not book.snapshot.tokens
    book.add_user("ada", None)
    assert not book.snapshot.users["ada"].rights.permissions


def test_a_permission_takes_the_place_of_the_one_before(book: Book) -> None:
    book.add_user("ada", None)
    book.permit("ada", ALL)
    book.permit("ada", Permission("/", "", "", ""))
    assert book.snapshot.users["ada"].rights.permissions == (Permission("/", "", "", ""),)
    book.permit("ada", Permission("*", ".*", "", ""))
    book.forbid("ada", "/")
    assert book.snapshot.users["ada"].rights.permissions == (Permission("*", ".*", "", ""),)


def test_permissions_go_with_their_namespace(book: Book) -> None:
    book.add_namespace("shop")
    book.add_user("ada", None)
    book.permit("ada", Permission("shop", ".*", ".*", ".*"))
    book.delete_namespace("shop")
    assert not book.snapshot.users["ada"].rights.permissions and book.snapshot.namespaces == {"/"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda book: book.add_user("", None), "non-empty"),
        (lambda book: book.add_user("a\nb", None), "control characters"),
        (lambda book: book.add_user("a" * 300, None), "over 200 bytes"),
        (lambda book: book.add_user("\ud800", None), "ud800"),
        (lambda book: book.add_user("bootstrap", None), "one-time"),
        (lambda book: book.add_user("bob", None, ["root"]), "unknown tag"),
        (lambda book: book.delete_user("adaa"), "did you mean 'ada'"),
        (lambda book: book.set_password("nobody", None), "no user 'nobody'"),
        (lambda book: book.tag_user("'; DROP TABLE user; --", []), "no user"),
        (lambda book: book.permit("ada", Permission("shop", "", "", "")), "no namespace 'shop'"),
        (lambda book: book.permit("ada", Permission("/", "(", "", "")), "no regular expression"),
        (lambda book: book.forbid("ada", "/"), "no permission in namespace '/'"),
        (lambda book: book.add_token("nobody", DAY), "no user 'nobody'; known: ada"),
        (lambda book: book.add_token("ada", 0.0), "a token lives"),
        (lambda book: book.revoke_token("x"), "no token"),
        (lambda book: book.add_namespace("*"), "all namespaces"),
        (lambda book: book.add_namespace("/"), "already"),
        (lambda book: book.add_namespace("a\0b"), "namespace name 'a"),
        (lambda book: book.delete_namespace("/"), "always there"),
    ],
)
def test_what_may_not_be_is_refused_and_nothing_changes(
    book: Book, change: Callable[[Book], object], told: str
) -> None:
    book.add_user("ada", None)
    before = book.snapshot
    with pytest.raises(ConfigError, match=told):
        change(book)
    assert book.snapshot == before


@pytest.mark.parametrize("name", ["Robert'); DROP TABLE user;--", "ä€𝄞", "a/b@c:d%", "*", "..", "$argon2id$"])
def test_a_strange_name_is_only_a_name(book: Book, name: str) -> None:
    book.add_user(name, None)
    book.permit(name, ALL)
    assert book.snapshot.users[name].rights.may(Right.READ, "/", name)
    book.delete_user(name)
    assert not book.snapshot.users


def test_everything_is_bounded(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("MAX_USERS", "MAX_TOKENS", "MAX_NAMESPACES"):
        monkeypatch.setattr(book_module, limit, 2)
    book.add_user("ada", None)
    book.add_user("bob", None)
    book.add_namespace("shop")
    book.add_token("ada", DAY)
    book.add_token("ada", DAY)
    for change in (
        lambda: book.add_user("eve", None),
        lambda: book.add_namespace("b"),
        lambda: book.add_token("ada", DAY),
    ):
        with pytest.raises(ConfigError, match="may be 2: delete some"):
            change()
    book.add_token("bob", DAY)


def test_tokens_that_expired_make_room(book: Book, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MAX_TOKENS", 1)
    book.add_user("ada", None)
    old, _ = book.add_token("ada", DAY)
    clock.advance(DAY)
    new, _ = book.add_token("ada", DAY)
    assert set(book.snapshot.tokens) == {new.id} != {old.id}


def test_the_one_time_credential_goes_when_there_is_an_administrator_with_a_password(book: Book) -> None:
    first = book.bootstrap()
    assert first is not None and first.user == "bootstrap" and len(first.secret) > 40
    second = book.bootstrap()
    assert second is not None and second.secret != first.secret
    book.add_user("robot", None, ["administrator"])
    book.add_user("ada", "hash")
    assert book.snapshot.one_time is not None
    book.tag_user("ada", ["administrator"])
    assert book.snapshot.one_time is None and book.bootstrap() is None
    book.tag_user("ada", [])
    assert book.bootstrap() is not None


def test_a_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "access.db"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    with pytest.raises(StoreError, match="another program"):
        Book(tmp_path)
    other = apsw.Connection(str(path))
    assert [row[0] for row in other.execute("SELECT name FROM sqlite_schema")] == ["theirs"]
    other.close()


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "access.db").write_bytes(content)
    with pytest.raises(StoreError):
        Book(tmp_path)


def test_a_newer_schema_is_refused(book: Book) -> None:
    connection = apsw.Connection(book.path)
    connection.pragma("user_version", 99)
    connection.close()
    with pytest.raises(StoreError, match="upgrade"):
        Book(Path(book.path).parent)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere of access\.db does not exist: create it"):
        Book(tmp_path / "nowhere")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "access.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"access\.db"):
        Book(tmp_path)
    assert not (tmp_path / "elsewhere").read_bytes()


def test_a_change_that_fails_leaves_nothing_behind(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.server.access.database.BUSY", 1)
    other = Book(Path(book.path).parent)
    blocker = apsw.Connection(book.path)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(BrokerUnavailable, match="locked"):
        other.add_user("ada", None)
    blocker.execute("ROLLBACK")
    blocker.close()
    other.add_user("ada", None)
    other.close()
    assert book.refresh() and set(book.snapshot.users) == {"ada"}
