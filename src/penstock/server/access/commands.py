"""Administration: commands by name, with checked arguments and answers that JSON can say.

Each is a value; its fields are the arguments. The same ones serve the owner of the data folder and clients of a running
broker.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import Struct

from penstock.errors import ConfigError
from penstock.server.access.accounts import Account, Token
from penstock.server.access.book import Book
from penstock.server.access.identity import MAX_SHOWN, Identity, log
from penstock.server.access.passwords import Passwords, new_password
from penstock.server.access.rights import ADMINISTRATOR, DEFAULT_NAMESPACE, Permission
from penstock.server.access.tokens import DEFAULT_LIFE
from penstock.spelling import hint


def run(book: Book, command: str, arguments: Mapping[str, object], by: Identity | None) -> object:
    """The answer of `command` ("users add", say), with nothing in it but what JSON has. `by`: who asks; `None` is the
    owner of the files. Blocks, for 0.2 s where there is a password: never call it on an event loop.

    Raises `ConfigError` for what is unknown or may not be, `AccessRefused` when `by` may not ask for it.
    """
    kind = COMMANDS.get(command)
    if kind is None:
        raise ConfigError(f"unknown command {command[:MAX_SHOWN]!r}{hint(command[:MAX_SHOWN], COMMANDS)}")
    try:
        asked = msgspec.convert(dict(arguments), kind)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{command}: {error}") from error
    book.refresh()
    if by is not None:
        _check_asker(book, asked, command, by)
    answer = asked.answer(book, by)
    log.info("%r by %s", asked, by or "the owner of the files")
    return answer


class Command(Struct, frozen=True, forbid_unknown_fields=True):
    def is_own(self, book: Book, by: Identity) -> bool:
        """Whether it is the own business of `by`, for which nobody needs to be an administrator."""
        return False

    def answer(self, book: Book, by: Identity | None) -> object:
        raise NotImplementedError

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "password")
        return f"{type(self).__name__}({', '.join(shown)})"


class AddUser(Command, frozen=True):
    """Without `password` and `generate`: a user who signs in by token or certificate only."""

    name: str
    password: str | None = None
    generate: bool = False
    tags: tuple[str, ...] = ()

    def answer(self, book: Book, by: Identity | None) -> object:
        password = _chosen(self.password, self.generate)
        book.add_user(self.name, Passwords().hash(password) if password is not None else None, self.tags)
        return {"user": self.name, "generated": password if self.generate else None}


class ListUsers(Command, frozen=True):
    def answer(self, book: Book, by: Identity | None) -> object:
        return [_user(account) for _, account in sorted(book.snapshot.users.items())]


class SetPassword(Command, frozen=True):
    name: str
    password: str | None = None
    generate: bool = False

    def is_own(self, book: Book, by: Identity) -> bool:
        return self.name == by.user and _knows_its_password(by)

    def answer(self, book: Book, by: Identity | None) -> object:
        password = _chosen(self.password, self.generate)
        book.set_password(self.name, Passwords().hash(password) if password is not None else None)
        return {"user": self.name, "generated": password if self.generate else None}


class TagUser(Command, frozen=True):
    """These tags and no others; without any: none."""

    name: str
    tags: tuple[str, ...] = ()

    def answer(self, book: Book, by: Identity | None) -> object:
        book.tag_user(self.name, self.tags)
        return {"user": self.name}


class Permit(Command, frozen=True):
    name: str
    configure: str
    write: str
    read: str
    namespace: str = DEFAULT_NAMESPACE

    def answer(self, book: Book, by: Identity | None) -> object:
        book.permit(self.name, Permission(self.namespace, self.configure, self.write, self.read))
        return {"user": self.name}


class Forbid(Command, frozen=True):
    name: str
    namespace: str = DEFAULT_NAMESPACE

    def answer(self, book: Book, by: Identity | None) -> object:
        book.forbid(self.name, self.namespace)
        return {"user": self.name}


class DeleteUser(Command, frozen=True):
    name: str

    def answer(self, book: Book, by: Identity | None) -> object:
        book.delete_user(self.name)
        return {"user": self.name}


class CreateToken(Command, frozen=True):
    """`user`: by default who asks; `life` in seconds."""

    user: str | None = None
    life: float = DEFAULT_LIFE

    def is_own(self, book: Book, by: Identity) -> bool:
        return self.user in (None, by.user) and _knows_its_password(by)

    def answer(self, book: Book, by: Identity | None) -> object:
        user = self.user if by is None or self.user is not None else by.user
        if user is None:
            raise ConfigError("say whose token it shall be: its user's name is missing")
        token, text = book.add_token(user, self.life)
        return _token(token) | {"token": text}


class ListTokens(Command, frozen=True):
    """Of one user, else all that the one who asks may see."""

    user: str | None = None

    def is_own(self, book: Book, by: Identity) -> bool:
        return self.user in (None, by.user)

    def answer(self, book: Book, by: Identity | None) -> object:
        user = self.user if by is None or by.administrator else by.user
        if user is not None:
            return [_token(token) for token in book.snapshot.tokens_of(user)]
        return [
            _token(token) for token in sorted(book.snapshot.tokens.values(), key=lambda one: (one.user, one.created))
        ]


class RevokeToken(Command, frozen=True):
    id: str

    def is_own(self, book: Book, by: Identity) -> bool:
        token = book.snapshot.tokens.get(self.id)
        return token is not None and token.user == by.user

    def answer(self, book: Book, by: Identity | None) -> object:
        book.revoke_token(self.id)
        return {"id": self.id}


class AddNamespace(Command, frozen=True):
    name: str

    def answer(self, book: Book, by: Identity | None) -> object:
        book.add_namespace(self.name)
        return {"namespace": self.name}


class ListNamespaces(Command, frozen=True):
    def answer(self, book: Book, by: Identity | None) -> object:
        users = sorted(book.snapshot.users.values(), key=lambda one: one.name)
        return [
            {"namespace": name, "users": [user.name for user in users if user.rights.reach(name)]}
            for name in sorted(book.snapshot.namespaces)
        ]


class DeleteNamespace(Command, frozen=True):
    name: str

    def answer(self, book: Book, by: Identity | None) -> object:
        book.delete_namespace(self.name)
        return {"namespace": self.name}


COMMANDS: Mapping[str, type[Command]] = MappingProxyType(
    {
        "users add": AddUser,
        "users list": ListUsers,
        "users password": SetPassword,
        "users tag": TagUser,
        "users permit": Permit,
        "users forbid": Forbid,
        "users delete": DeleteUser,
        "tokens create": CreateToken,
        "tokens list": ListTokens,
        "tokens revoke": RevokeToken,
        "namespaces add": AddNamespace,
        "namespaces list": ListNamespaces,
        "namespaces delete": DeleteNamespace,
    }
)


def _check_asker(book: Book, asked: Command, command: str, by: Identity) -> None:
    if not by.still_valid(book.clock.time()):
        raise by.refused(f"user {by.user!r} is signed out", "sign in again")
    if not by.administrator and not asked.is_own(book, by):
        raise by.untagged(ADMINISTRATOR, command)


def _knows_its_password(by: Identity) -> bool:
    """A token that was stolen must not become a password, nor another token that lives longer. Raises
    `AccessRefused`."""
    if by.has_token:
        raise by.refused(f"user {by.user!r} has signed in with a token", "this needs its password")
    return True


def _chosen(password: str | None, generate: bool) -> str | None:
    if password is not None and generate:
        raise ConfigError("either give a password, or have one generated, not both")
    return new_password() if generate else password


def _user(account: Account) -> dict[str, Any]:
    return {
        "user": account.name,
        "tags": sorted(account.tags),
        "password": account.password is not None,
        "permissions": [msgspec.to_builtins(one) for one in account.rights.permissions],
    }


def _token(token: Token) -> dict[str, Any]:
    return {"id": token.id, "user": token.user, "created": token.created, "expires": token.expires}
