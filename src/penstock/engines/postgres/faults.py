"""PostgreSQL's, the driver's and the network's errors, as ours: the only place that knows."""

from __future__ import annotations

import asyncio
import ssl

import asyncpg
from asyncpg import exceptions as pg

from penstock.errors import (
    AccessRefused,
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    OutcomeUnknown,
    PenstockError,
    StoreError,
    StoreFull,
)

# By SQLSTATE, then by its class (the first two characters): our error, and what to do.
STATES: dict[str, tuple[type[PenstockError], str]] = {
    "28P01": (AccessRefused, "{url}: user or password is wrong ({error})"),
    "28000": (AccessRefused, "{url}: the server lets this user not in ({error}): check its pg_hba.conf, and sslmode"),
    "3D000": (AccessRefused, "{url}: there is no such database: create it (createdb), or name another in the URL"),
    "42501": (StoreError, "{url}: missing rights ({error})"),
    "08P01": (
        ConfigError,
        "{url}: {error}: if this is a pooler (PgBouncer), connect to PostgreSQL itself: workers need LISTEN",
    ),
    "57P03": (BrokerUnavailable, "{url}: the server is starting up or shutting down ({error})"),
    "25006": (BrokerUnavailable, "{url}: this server is read-only, a standby or a former primary; nothing was done"),
    "53300": (
        BrokerUnavailable,
        "{url}: too many connections ({error}): raise max_connections, or run fewer processes",
    ),
    "53400": (BrokerUnavailable, "{url}: a limit of the server is reached ({error})"),
    "57014": (BrokerUnavailable, "{url}: the statement took too long and was cancelled; nothing was done"),
    "55P03": (BrokerUnavailable, "{url}: a lock was not had in time; nothing was done ({error})"),
    "40001": (BrokerUnavailable, "{url}: others changed the same at the same time; nothing was done"),
    "40P01": (BrokerUnavailable, "{url}: a deadlock; nothing was done"),
    "53100": (StoreFull, "{url}: no space left on the server's disk ({error}): free some; nothing was done"),
    "53200": (BrokerError, "{url}: the server is out of memory ({error}); nothing was done"),
    "57P01": (OutcomeUnknown, "{url}: the server was told to end the connection ({error})"),
    "57P02": (OutcomeUnknown, "{url}: the server crashed ({error})"),
    "57P05": (OutcomeUnknown, "{url}: the server ended an idle connection ({error})"),
    "PS003": (BrokerUnavailable, "{url}: {error}; nothing was done"),
    "40003": (OutcomeUnknown, "{url}: {error}"),
    "08007": (OutcomeUnknown, "{url}: {error}"),
}
CLASSES: dict[str, tuple[type[PenstockError], str]] = {
    "08": (OutcomeUnknown, "{url}: the connection broke ({error})"),
    "22": (StoreError, "{url}: the server does not accept a value ({error})"),
    "28": (AccessRefused, "{url}: the server lets this user not in ({error})"),
    "40": (BrokerUnavailable, "{url}: the transaction was rolled back, nothing was done ({error})"),
    "53": (BrokerUnavailable, "{url}: the server lacks resources ({error})"),
    "57": (BrokerUnavailable, "{url}: the server stopped the statement ({error})"),
    "58": (StoreError, "{url}: the server's disk failed ({error}): look into its log"),
    "XX": (StoreError, "{url}: the server found damage ({error}): look into its log, and restore a backup"),
}
OTHER = (StoreError, "{url}: {kind}: {error}")
PASSING = frozenset({"40001", "40P01", "23505"})
"""Nothing was done, and doing it again at once is likely to help."""
GONE = "PS003"
"""A lane that was known is not there any more."""
MOVED = frozenset({"25006", "57P03"})
"""This server does not take writes: another may."""


def translate(error: BaseException, url: str) -> BaseException:
    """Our error for `error`; `error` itself when it is ours already, or a bug. `url` is without the password."""
    if isinstance(error, PenstockError) or not isinstance(error, Exception):
        return error
    if isinstance(error, pg.PostgresError):
        state = error.sqlstate or ""
        ours, text = STATES.get(state) or CLASSES.get(state[:2], OTHER)
        return ours(text.format(url=url, error=error, kind=type(error).__name__))
    if isinstance(error, pg.UnsupportedClientFeatureError | pg.UnsupportedServerFeatureError):
        return ConfigError(f"{url}: {error}")
    if isinstance(error, ssl.SSLError | pg.ClientConfigurationError):
        return ConfigError(f"{url}: {error}: check sslmode and the certificates")
    if is_broken(error):
        return OutcomeUnknown(f"{url}: the connection broke ({cause(error)})")
    if isinstance(error, pg.InterfaceError | pg.InternalClientError):
        return BrokerError(f"{url}: {type(error).__name__}: {error}")
    return error


def cause(error: BaseException) -> str:
    """Why a connection did not do, for people."""
    return "no answer in time" if isinstance(error, TimeoutError) else f"{type(error).__name__} {error}".strip()


def is_broken(error: BaseException) -> bool:
    """The connection is of no more use, and whatever was sent may or may not have been done."""
    if isinstance(error, pg.PostgresError):
        return (error.sqlstate or "")[:2] == "08" or error.sqlstate in ("57P01", "57P02", "57P05", "40003")
    if isinstance(error, pg.InterfaceError):
        return "connection" in str(error)  # "connection is closed", "… in the middle of operation"
    return isinstance(
        error, OSError | EOFError | TimeoutError | asyncio.IncompleteReadError | asyncpg.TargetServerAttributeNotMatched
    )


def sqlstate(error: BaseException) -> str:
    return (error.sqlstate or "") if isinstance(error, pg.PostgresError) else ""
