"""The one place that knows the server's reply codes and the driver's errors, and what they are to us."""

from __future__ import annotations

import re
import struct

from pika import exceptions as pika

from penstock.errors import (
    AccessRefused,
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    MessageTooLarge,
    OutcomeUnknown,
    PenstockError,
    StoreFull,
    UnknownQueue,
    Unsupported,
)

CODES: dict[int, type[PenstockError]] = {
    311: MessageTooLarge,
    312: UnknownQueue,
    313: BrokerError,
    320: BrokerUnavailable,
    402: AccessRefused,
    403: AccessRefused,
    404: UnknownQueue,
    405: BrokerError,
    406: ConfigError,
    501: BrokerUnavailable,
    502: BrokerUnavailable,
    503: BrokerUnavailable,
    504: BrokerUnavailable,
    505: BrokerUnavailable,
    506: StoreFull,
    530: AccessRefused,
    540: Unsupported,
    541: BrokerUnavailable,
}
"""AMQP's reply codes."""
DRIVER: dict[type[BaseException], type[PenstockError]] = {
    pika.AuthenticationError: AccessRefused,
    pika.ProbableAuthenticationError: AccessRefused,
    pika.ProbableAccessDeniedError: AccessRefused,
    pika.IncompatibleProtocolError: ConfigError,
    pika.ProtocolVersionMismatch: ConfigError,
    pika.ShortStringTooLong: ConfigError,
    pika.BodyTooLongError: MessageTooLarge,
    pika.MethodNotImplemented: Unsupported,
    pika.NoFreeChannels: BrokerError,
    pika.UnroutableError: UnknownQueue,
    pika.NackError: StoreFull,
    pika.ChannelError: BrokerError,
    pika.ReentrancyError: BrokerError,
    pika.AMQPChannelError: OutcomeUnknown,
    pika.AMQPConnectionError: BrokerUnavailable,
    pika.AMQPError: BrokerError,
    struct.error: BrokerUnavailable,  # what the codec raises for a damaged frame
    OSError: BrokerUnavailable,  # with refused and broken connections, TLS and time-outs
}
"""Looked up along an error's ancestors."""
_INEQUIVALENT = re.compile(r"inequivalent arg '(.+?)' for (\w+) '(.+?)' in vhost '.*?': (.*)", re.DOTALL)
_NO_WRITING = re.compile(r"access to exchange '(.*?)' in vhost")
CONSUMER_TIMEOUT = "delivery acknowledgement on channel"
_REMEDIES = {
    402: "create the virtual host, or correct the URL's path",
    403: "correct user and password, or grant the rights (rabbitmqctl set_permissions)",
    530: "create the virtual host (rabbitmqctl add_vhost), or give the user access to it",
}


class NoRight(ConfigError):
    """The user may not publish to `exchange`; nothing that was sent there is stored."""

    def __init__(self, text: str, exchange: str) -> None:
        super().__init__(text)
        self.exchange = exchange


def of_close(url: str, code: int, text: str) -> PenstockError:
    """What the server's `close` of a connection or a channel means, with its remedy."""
    mismatch = _INEQUIVALENT.search(text)
    if mismatch is not None:
        argument, kind, name, difference = mismatch.groups()
        return ConfigError(
            f"{url}: {kind} {name!r} is there with another {argument!r} ({difference}); delete it, choose another "
            f"name, or use it as it is with ?declare=passive"
        )
    if code == 406 and CONSUMER_TIMEOUT in text:
        return BrokerUnavailable(
            f"{url}: a task ran longer than the server's consumer_timeout, and is delivered again: raise "
            f"consumer_timeout in rabbitmq.conf ({text})"
        )
    no_writing = _NO_WRITING.search(text) if code == 403 else None
    if no_writing is not None:
        exchange = no_writing.group(1)
        remedy = f"grant write on {'^' + re.escape(exchange) + '$'} (rabbitmqctl set_permissions, the second pattern)"
        return NoRight(f"{url}: {text} ({code}); {remedy}", "" if exchange == "amq.default" else exchange)
    remedy = f"; {_REMEDIES[code]}" if code in _REMEDIES else ""
    # A right on one queue: what else is settled must not wait until it is granted.
    kind = ConfigError if code == 403 and "access to" in text else CODES.get(code, BrokerError)
    return kind(f"{url}: {text or 'closed by the server'} ({code}){remedy}")


def of_driver(url: str, error: BaseException) -> PenstockError:
    """What an error of the driver or the socket means."""
    if isinstance(error, PenstockError):
        return error
    for ancestor in type(error).__mro__:
        ours = DRIVER.get(ancestor)
        if ours is not None:
            return ours(f"{url}: {str(error) or type(error).__name__}")
    return BrokerError(f"{url}: {type(error).__name__}: {error}")
