"""What is said first on a new connection, by either way."""

from __future__ import annotations

import logging
import socket
import time
from importlib.metadata import version

from penstock.engines.server.settings import Settings
from penstock.protocol import NEWEST, OLDEST
from penstock.protocol.replies import Welcome
from penstock.protocol.requests import Hello

GREETING = 10.0
"""Seconds that a broker may take to let us in: passwords are slow on purpose."""
CLOCKS_APART = 5.0

log = logging.getLogger("penstock.engine")


def hello(settings: Settings, session: int) -> Hello:
    return Hello(
        OLDEST,
        NEWEST,
        f"penstock {version('penstock')} on {socket.gethostname()}"[:60],
        settings.namespace,
        settings.address.user or "",
        settings.address.password or "",
        session,
        time=time.time(),
        address=settings.client,
    )


def compare_clocks(settings: Settings, welcome: Welcome) -> None:
    apart = time.time() - welcome.time
    if abs(apart) > CLOCKS_APART:
        log.warning(
            "%s: this machine's clock is %+.0f s off the broker's, and countdowns and expiries with it",
            settings.public,
            apart,
        )
