"""What can go wrong on the way to a broker, as ours: the only place that knows."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

from penstock.errors import BrokerUnavailable, ConfigError, PenstockError


class Broken(Exception):
    """The connection ended. `sent`: what was asked may have been done."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


def translate(error: BaseException, public: str) -> BaseException:
    """Our error for what connecting raised; `error` itself when it is ours already, or a bug."""
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigError(
            f"{public}: the broker's certificate is not trusted ({error.verify_message}): name its authority with "
            "?ca=/path/to/ca.pem, and the host as the certificate does"
        )
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING", "RECORD_LAYER_FAILURE"):
            return ConfigError(
                f"{public}: what listens there does not speak TLS: write penstock:// instead of penstocks://"
            )
        return ConfigError(f"{public}: TLS failed ({error.reason or error}): check the certificates of both ends")
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return BrokerUnavailable(f"{public}: nothing answers there")
    if isinstance(error, socket.gaierror):
        return BrokerUnavailable(f"{public}: the host's name is not known ({error.strerror})")
    if isinstance(error, OSError):
        if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
            return BrokerUnavailable(f"{public}: nothing listens there: is the broker running?")
        if error.errno == errno.EACCES:
            return ConfigError(f"{public}: this user may not use the socket")
        return BrokerUnavailable(f"{public}: {error.strerror or error}")
    if isinstance(error, Broken):
        return BrokerUnavailable(f"{public}: {error}")
    return error
