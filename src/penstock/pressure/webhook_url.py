"""Which URLs alarms may be sent to. Apart from what sends: apps check settings, and need no HTTP."""

from __future__ import annotations

from urllib.parse import urlsplit

from penstock.errors import ConfigError
from penstock.loopback import is_loopback


def check_webhook(url: object) -> None:
    """Raise `ConfigError` unless it is https, or on this machine, or none."""
    if url is None:
        return
    if not isinstance(url, str):
        raise ConfigError(f"pressure_webhook must be a URL or None, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"pressure_webhook is no URL: {error}") from None
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError("pressure_webhook must be a URL of printable ASCII without spaces")
    if parts.username is not None or parts.password is not None:
        raise ConfigError("pressure_webhook must not hold a user and password: put a secret into its path or query")
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and is_loopback(host):
        return
    raise ConfigError(
        f"pressure_webhook must be https://…, or http:// on this machine, not {parts.scheme}://{host}: what it tells "
        "could be read on its way"
    )
