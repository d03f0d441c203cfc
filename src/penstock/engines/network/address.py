"""URLs with several hosts: `scheme://user:password@one:5672,two:5672/path?option=value`."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl, quote, unquote

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.spelling import hint, without_password

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(?::(?P<port>\d+))?\Z")


class Address(Struct, frozen=True):
    """A parsed URL. `hosts` has at least one (name, port) pair; `path` is without its leading slash, unquoted."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    user: str | None
    password: str | None
    path: str
    options: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Address({self.public!r})"

    @property
    def public(self) -> str:
        """The URL as people may see it: without the password."""
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{self.scheme}://{user}{hosts}/{quote(self.path, safe='/')}"


def parse_address(url: str, *, port: int, options: Collection[str] = ()) -> Address:
    """Raises `ConfigError`, which never shows a password, for a URL that is none, or has an unknown option."""
    scheme, mark, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, at, places = authority.rpartition("@")
    user, _, password = login.partition(":")
    shown = f"{scheme}://{user + '@' if at else ''}{places}/{path}"
    if not mark:
        raise ConfigError(f"{without_password(url)!r} is not a URL")
    given = dict(parse_qsl(query, keep_blank_values=True))
    _check_login(url, authority, path, query, given)
    for name in given:
        if name not in options:
            known = ", ".join(sorted(options)) or "none"
            raise ConfigError(f"{shown}: unknown option {name!r}{hint(name, options)}; known: {known}")
    hosts = tuple(_host(place, port, shown) for place in places.split(","))
    return Address(scheme, hosts, unquote(user) or None, unquote(password) if password else None, unquote(path), given)


def _check_login(url: str, authority: str, path: str, query: str, given: Collection[str]) -> None:
    """Refuse what is most likely the rest of a password, before anything shows it."""
    if "@" in authority:
        return
    cut_in_two = "@" in query and not _HOST.match(authority.rpartition(",")[2])
    if "@" in path or cut_in_two or any("@" in name for name in given):
        raise ConfigError(
            f"{without_password(url)}: its user or password has a '/' or a '?', which ends them: write %2F for /, %3F "
            "for ? and %40 for @"
        )


def _host(place: str, port: int, shown: str) -> tuple[str, int]:
    found = _HOST.match(place)
    number = int(found["port"] or port) if found else 0
    if found is None or not 0 < number < 65536:
        raise ConfigError(f"{shown}: {place!r} is not a host and port")
    return found["host"].strip("[]") or "localhost", number
