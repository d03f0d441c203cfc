"""The driver's and the server's errors, as ours: the only place that knows."""

from __future__ import annotations

import ssl

import hiredis

from penstock.errors import (
    AccessRefused,
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    PenstockError,
    StoreError,
    StoreFull,
)


class Broken(Exception):
    """A connection ended. `sent`: what was asked may have been done all the same."""

    def __init__(self, reason: str, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class NotNow(Exception):
    """The server refused before it did anything, and another one, or a later moment, may not."""


PASSING = frozenset(
    {"READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS", "BUSY", "CLUSTERDOWN", "TRYAGAIN", "NOMASTERLINK", "INPROG"}
)
"""Codes of a server that did nothing, because it is not the leader, not yet, or not now."""

CODES: dict[str, tuple[type[PenstockError], str]] = {
    "OOM": (StoreFull, "its memory is full (maxmemory): nothing was done; let workers catch up, or raise maxmemory"),
    "MISCONF": (StoreFull, "it cannot write to its disk, and refuses writes: nothing was done; free space there"),
    "NOAUTH": (AccessRefused, "it wants a password: put it into the URL, redis://user:password@host"),
    "WRONGPASS": (AccessRefused, "the user name or the password is wrong"),
    "NOPERM": (AccessRefused, "its user lacks rights: allow all commands on the keys and channels of the prefix"),
    "DENIED": (AccessRefused, "protected mode: set a password on the server, or bind it to this address"),
    "MOVED": (ConfigError, "a Redis Cluster is not supported: use a server that is not in cluster mode, or Sentinel"),
    "ASK": (ConfigError, "a Redis Cluster is not supported: use a server that is not in cluster mode, or Sentinel"),
    "CROSSSLOT": (ConfigError, "a Redis Cluster is not supported: use a server that is not in cluster mode"),
    "WRONGTYPE": (StoreError, "other data has our keys: choose another database, or another ?prefix="),
    "NOSCRIPT": (BrokerError, "it does not keep our scripts"),
    "UNKILLABLE": (BrokerError, "a script of somebody else blocks it"),
    "NOPROTO": (StoreError, "it does not speak this protocol"),
    "EXECABORT": (StoreError, "it aborted"),
    "NOGOODSLAVE": (BrokerUnavailable, "Sentinel finds no replica that may become the leader"),
    "NOTBUSY": (StoreError, "no script runs"),
    "BUSYKEY": (StoreError, "other data has our keys: choose another database, or another ?prefix="),
    "BUSYGROUP": (StoreError, "other data has our keys: choose another database, or another ?prefix="),
    "ERR": (StoreError, "it refused a command of ours"),
}

DRIVER: dict[type[Exception], type[PenstockError]] = {
    hiredis.ReplyError: StoreError,  # by its code, see above
    hiredis.ProtocolError: BrokerError,
    hiredis.HiredisError: BrokerError,
}


def code_of(error: Exception) -> str:
    """The server's error code: the first word of its answer. `ERR` for one of the free text of older servers."""
    code = str(error).partition(" ")[0].lstrip("-")
    return code if code in CODES or code in PASSING else "ERR"


def translate(error: Exception, public: str) -> Exception:
    """Our error for `error` of the server at `public`; `error` itself when it is ours already, or a bug."""
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, hiredis.ReplyError):
        code = code_of(error)
        if code in PASSING:
            return BrokerUnavailable(f"{public}: {error}")
        if "invalid password" in str(error) or "without any password" in str(error):
            code = "WRONGPASS"
        ours, remedy = CODES[code]
        return ours(f"{public}: {remedy} ({error})")
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError(f"{public}: its certificate is not trusted: name its authority, ?ca=/path/ca.pem ({error})")
    if isinstance(error, Broken | NotNow | OSError):
        return BrokerUnavailable(f"{public}: {str(error) or 'no answer in time'}")
    for kind, ours in DRIVER.items():
        if isinstance(error, kind):
            return ours(f"{public}: this is no answer of a Redis server: {error}")
    return error
