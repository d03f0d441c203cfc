"""Tokens: secrets with an expiry, which a client gives in place of its user's password. Pure but for randomness."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from penstock.errors import ConfigError

DAY = 86_400.0
DEFAULT_LIFE = 30 * DAY
MAX_LIFE = 3_650 * DAY
"""A token that never ends is a password that nobody remembers."""
_UNITS = {"m": 60.0, "h": 3_600.0, "d": DAY, "w": 7 * DAY}
_TOKEN = re.compile(r"pst_([0-9a-f]{12})_([0-9A-Za-z_-]{43})")


def mint() -> tuple[str, str, bytes]:
    """A new token's id, its whole text, and what is kept of it."""
    token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    return token_id, f"pst_{token_id}_{secret}", digest_of(secret)


def parse(text: str) -> tuple[str, str] | None:
    """Id and secret; `None` for what is no token."""
    found = _TOKEN.fullmatch(text)
    return (found[1], found[2]) if found else None


def digest_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def same(secret: str, digest: bytes) -> bool:
    """Whether `digest` is of `secret`, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(digest_of(secret), digest)


def read_life(text: str) -> float:
    """Seconds of "30d", "12h", "90m" or "2w". Raises `ConfigError`."""
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if not found:
        raise ConfigError(f"{text[:40]!r} is not a time: write 90m, 12h, 30d or 2w")
    return check_life(int(found[1]) * _UNITS[found[2]])


def check_life(seconds: float) -> float:
    """The seconds. Raises `ConfigError` when a token may not live for so long."""
    if not 60.0 <= seconds <= MAX_LIFE:
        raise ConfigError(f"a token lives from one minute to {MAX_LIFE / DAY:,.0f} days, not {seconds / DAY:,.4g} days")
    return seconds
