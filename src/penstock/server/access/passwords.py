"""Passwords: argon2id, always the same work whether or not there is such a user."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from penstock.errors import ConfigError
from penstock.server.access.tokens import parse

if TYPE_CHECKING:
    from argon2 import Parameters

MIN_PASSWORD, MAX_PASSWORD = 8, 1_024
"""Characters, and bytes: a longer one would be work for the broker, and nothing else."""


def check_password(password: str) -> str:
    """The password. Raises `ConfigError`, which never shows it."""
    if len(password) < MIN_PASSWORD:
        raise ConfigError(f"a password has at least {MIN_PASSWORD} characters; penstock can make one: --generate")
    if len(encoded(password)) > MAX_PASSWORD:
        raise ConfigError(f"a password has at most {MAX_PASSWORD:,} bytes")
    if parse(password):
        raise ConfigError("that is a token, not a password: a token is used as it is, in place of the password")
    return password


def encoded(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def new_password() -> str:
    """128 random bits, without anything that a URL or a shell would change."""
    return secrets.token_urlsafe(16)


class Passwords:
    """Hashes and verifies; each takes about 0.1 s and 64 MiB, so never on an event loop. Thread-safe."""

    def __init__(self, parameters: Parameters | None = None) -> None:
        """`parameters`: argon2's; by default those of RFC 9106 for little memory. Raises `ConfigError` where argon2 is
        not installed."""
        try:
            from argon2 import PasswordHasher
            from argon2.profiles import RFC_9106_LOW_MEMORY
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"passwords need argon2, which is not installed ({error.name}): pip install 'penstock[broker]'"
            ) from error
        self._hasher = PasswordHasher.from_parameters(parameters or RFC_9106_LOW_MEMORY)
        self._nobody = self._hasher.hash(secrets.token_bytes(16))

    def hash(self, password: str) -> str:
        """What is kept of a password. Raises `ConfigError` for one that is too short or too long."""
        return self._hasher.hash(encoded(check_password(password)))

    def verify(self, kept: str | None, password: str) -> bool:
        """Whether `kept` is of `password`. Without `kept` the same work is done, for nothing."""
        from argon2.exceptions import InvalidHashError, VerificationError

        try:
            self._hasher.verify(kept or self._nobody, encoded(password))
        except (InvalidHashError, VerificationError):
            return False
        return kept is not None

    def renewed(self, kept: str, password: str) -> str | None:
        """Another hash of a verified password where parameters have grown since; else `None`."""
        return self._hasher.hash(encoded(password)) if self._hasher.check_needs_rehash(kept) else None
