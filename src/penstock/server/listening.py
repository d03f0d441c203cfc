"""The sockets of a broker: those it binds, and those that it was started with."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable

from penstock.errors import ConfigError
from penstock.server.peer import HELLO_PATIENCE, Peer
from penstock.server.settings import Bind, BrokerSettings

BACKLOG = 1_024

log = logging.getLogger("penstock.broker")


class Listeners:
    def __init__(self, settings: BrokerSettings, make_peer: Callable[[], Peer]) -> None:
        self._settings = settings
        self._make_peer = make_peer
        self._context = settings.tls.context() if settings.tls else None
        self._servers: list[asyncio.Server] = []
        self._paths: list[str] = []
        self.addresses: list[str] = []
        """Where it listens, for people."""

    async def open(self, inherited: list[socket.socket]) -> None:
        """Listen on `inherited` sockets if there are some, else on all that is bound. Raises `ConfigError`."""
        loop = asyncio.get_running_loop()
        sockets = inherited or [self._bound(bind) for bind in self._settings.binds]
        for listener in sockets:
            local = listener.family == socket.AF_UNIX
            context = None if local else self._context
            if local:
                server = await loop.create_unix_server(self._make_peer, sock=listener, backlog=BACKLOG)
            else:
                # A client whose handshake does not end is none yet: nobody else would count it, or cut it off.
                patience = HELLO_PATIENCE if context is not None else None
                server = await loop.create_server(
                    self._make_peer, sock=listener, backlog=BACKLOG, ssl=context, ssl_handshake_timeout=patience
                )
            self._servers.append(server)
            self.addresses.append(_shown(listener, context))

    def _bound(self, bind: Bind) -> socket.socket:
        try:
            if bind.path:
                return self._unix(bind.path)
            family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
            return socket.create_server((bind.host, bind.port), family=family, backlog=BACKLOG)
        except OSError as error:
            raise ConfigError(_trouble(bind, error)) from error

    def _unix(self, path: str) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise ConfigError(f"{path} is there, and no socket: choose another path")
            if _answers(path):
                raise OSError(errno.EADDRINUSE, "in use")
            os.unlink(path)  # left by one that was killed
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(path)
            os.chmod(path, 0o660)
        except BaseException:
            listener.close()
            raise
        self._paths.append(path)
        return listener

    def reload(self) -> None:
        """Read the certificates again; connections that are there keep theirs. Raises `ConfigError`, and keeps what
        it had."""
        tls = self._settings.tls
        if tls is None or self._context is None:
            return
        tls.context()  # whether the new ones fit: what is loaded below cannot be undone
        self._context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            self._context.load_verify_locations(tls.client_ca)
        log.info("the certificates were read again")

    def close(self) -> None:
        """Take no more connections."""
        for server in self._servers:
            server.close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def _trouble(bind: Bind, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{bind} is taken by another program: choose another --bind, or stop that one"
    if error.errno == errno.EACCES:
        return f"{bind} may not be used by this user: choose a port above 1023, or a folder that it may write to"
    return f"{bind} cannot be used: {error.strerror or error}"


def _shown(listener: socket.socket, context: ssl.SSLContext | None) -> str:
    if listener.family == socket.AF_UNIX:
        return f"unix://{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'penstocks' if context else 'penstock'}://{shown}:{port}"
