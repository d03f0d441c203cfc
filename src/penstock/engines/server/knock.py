"""Whether a broker answers, for those who have no user there: health checks."""

from __future__ import annotations

import socket

import msgspec

from penstock.engines.server.settings import Settings, read_settings
from penstock.errors import BrokerUnavailable
from penstock.protocol.frames import HELLO_FRAME, FrameError, Frames, frame
from penstock.protocol.replies import Refused
from penstock.protocol.requests import Hello

NO_VERSION = Hello(0, 0, "check")
"""A client that speaks nothing: it is turned away before a name or a password is looked at, let alone throttled."""
_decoder = msgspec.msgpack.Decoder(Refused)


def knock(url: str) -> None:
    """Returns when the broker at `url` has answered. Raises `BrokerUnavailable` when it does not within the URL's
    `timeout`, or is no broker, and `ConfigError` for a URL that cannot be used."""
    settings = read_settings(url)
    try:
        with _connected(settings) as connection:
            connection.sendall(frame(NO_VERSION))
            _decoder.decode(_first_frame(connection))
    except (OSError, FrameError, msgspec.MsgspecError) as error:
        raise BrokerUnavailable(f"{settings.public} does not answer as a broker does: {error}") from error


def _connected(settings: Settings) -> socket.socket:
    if settings.socket is not None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(settings.timeout)
        try:
            connection.connect(settings.socket)
        except BaseException:
            connection.close()
            raise
        return connection
    host, port = settings.address.hosts[0]
    connection = socket.create_connection((host, port), settings.timeout)
    if settings.tls is None:
        return connection
    return settings.tls.wrap_socket(connection, server_hostname=host)


def _first_frame(connection: socket.socket) -> memoryview:
    frames = Frames(HELLO_FRAME)
    while data := connection.recv(HELLO_FRAME):
        bodies = frames.feed(data)
        if bodies:
            return bodies[0]
    raise ConnectionError("it closed the connection")
