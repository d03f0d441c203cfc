"""Where metrics are served, and to whom. Pure, but for reading the token."""

from __future__ import annotations

import hmac
from pathlib import Path

from msgspec import Struct

from penstock.errors import ConfigError
from penstock.loopback import is_loopback
from penstock.metrics.text import CONTENT_TYPE

MAX_HEAD = 8 << 10
"""Bytes of a request."""
LEAST_TOKEN = 16
MAX_TOKEN = 4 << 10


class Place(Struct, frozen=True):
    """`port` 0 takes any. `token` is what a scraper has to send as `Authorization: Bearer …`; `None` lets in everybody
    who comes by, which off this machine has to be said. Raises `ConfigError`."""

    port: int
    host: str = "127.0.0.1"
    token: str | None = None
    anonymous: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536:
            raise ConfigError(f"--metrics-port must be a port, 0 to 65535, not {self.port!r}")
        if not is_loopback(self.host) and self.token is None and not self.anonymous:
            raise ConfigError(
                f"metrics on {self.host} could be read by all who reach it: give --metrics-token-file, leave out "
                "--metrics-host, or say --metrics-anonymous"
            )


def read_token(path: Path) -> str:
    """The token that is in a file, as Prometheus's `credentials_file` has it. Raises `ConfigError`."""
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            token = file.read(MAX_TOKEN + 1).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"the token for metrics in {path} cannot be read: {error}") from error
    if mode & 0o022:
        raise ConfigError(f"others may write {path}, and so let themselves in: chmod 600 {path}")
    if not LEAST_TOKEN <= len(token) <= MAX_TOKEN or not token.isprintable() or " " in token:
        raise ConfigError(
            f"the token in {path} must be one line of {LEAST_TOKEN} or more printable characters: openssl rand -hex 32"
        )
    return token


class Refused(Exception):
    """A request that is not answered with metrics: a status line, and what to say."""

    def __init__(self, status: str, text: str, *headers: str) -> None:
        self.answer = answer(status, text.encode() + b"\n", "text/plain; charset=utf-8", *headers)
        super().__init__(status)


def check(head: bytes, place: Place) -> bool:
    """Whether the body of the answer is wanted (else it is a HEAD). Raises `Refused`."""
    try:
        first, *rest = head.decode("ascii").split("\r\n")
        method, target, version = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    except ValueError:
        raise Refused("400 Bad Request", "this is no HTTP request") from None
    if not version.startswith("HTTP/1."):
        raise Refused("505 HTTP Version Not Supported", "HTTP/1.1 is spoken here")
    if place.token is not None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), place.token.encode()):
            raise Refused("401 Unauthorized", "send the token as Authorization: Bearer …", "WWW-Authenticate: Bearer")
    elif not place.anonymous and not is_loopback(_name(headers.get("host", ""))):
        # A web page may have its own name lead here, and would read it by a browser of this machine.
        raise Refused("421 Misdirected Request", "without a token metrics are told to localhost only")
    if target.partition("?")[0] != "/metrics":
        raise Refused("404 Not Found", "there is only /metrics here")
    if method not in ("GET", "HEAD"):
        raise Refused("405 Method Not Allowed", "only GET and HEAD here", "Allow: GET, HEAD")
    return method == "GET"


def answer(status: str, body: bytes, content_type: str = CONTENT_TYPE, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "Cache-Control: no-store", "Connection: close", "", ""]).encode() + body


def _name(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
