"""The life of a broker process: open, say that it serves, obey signals, end in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable

from penstock.errors import ConfigError
from penstock.server.access.book import Credential
from penstock.server.broker import Broker
from penstock.server.listening import Listeners
from penstock.server.metrics import BrokerMetrics
from penstock.server.peer import Peer
from penstock.server.settings import BrokerSettings, bind_of
from penstock.server.supervision import inherited_sockets, notify, watchdog_interval

EXIT_BROKEN = 1

log = logging.getLogger("penstock.broker")


def run(settings: BrokerSettings, say: Callable[[str], None]) -> int:
    """Serve until told to stop; returns the exit code. `say` shows a line to who started it. Raises `ConfigError` and
    `StoreError` when it cannot begin."""
    settings.check()
    try:
        os.makedirs(settings.data, mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--data {settings.data} cannot be made: {error.strerror}") from error
    _raise_file_limit()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(settings, say))


async def _serve(settings: BrokerSettings, say: Callable[[str], None]) -> int:
    inherited = inherited_sockets()
    for listener in inherited:
        settings.check_bind(bind_of(listener))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for caught in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(caught, stopping.set)
    broker = Broker(settings, stopping.set)
    metrics: BrokerMetrics | None = None
    listeners = Listeners(settings, lambda: Peer(broker))
    loop.add_signal_handler(signal.SIGHUP, _reload, listeners)
    try:
        await listeners.open(inherited)
        if settings.metrics is not None:
            metrics = BrokerMetrics(broker, settings.metrics)
        _welcome(broker, listeners, say)
        if metrics is not None:
            metrics.start()
            say(f"  metrics: {metrics.url}")
        notify(f"READY=1\nSTATUS=serving on {', '.join(listeners.addresses)}")
        watched = _keep_watchdog(loop)
        gc.collect()
        gc.freeze()  # what is there now is there to stay
        await stopping.wait()
        watched.cancel()
    finally:
        notify("STOPPING=1")
        listeners.close()
        log.info("stopping")
        if metrics is not None:
            await metrics.close()
        await broker.close()
    log.info("stopped")
    return EXIT_BROKEN if broker.broken is not None else 0


def _keep_watchdog(loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
    """Tell systemd that the loop goes round, as often as it wants."""

    async def tell() -> None:
        interval = watchdog_interval()
        while interval is not None:
            notify("WATCHDOG=1")
            await asyncio.sleep(interval)

    return loop.create_task(tell())


def _welcome(broker: Broker, listeners: Listeners, say: Callable[[str], None]) -> None:
    say(f"penstock broker: {broker.settings.data}, survives {_survives(broker.settings.durability)}")
    for address in listeners.addresses:
        say(f"  listening on {address}")
    credential = broker.book.bootstrap()
    if credential is not None:
        url = sign_in_url(listeners.addresses[0], credential)
        say("  There is no administrator yet. Make one, with this one-time credential (24 h):")
        say(f"    penstock -b '{url}' users add admin")
        say("  or here, as the owner of the files:")
        say(f"    penstock users add admin --data {broker.settings.data}")
    log.info("serving %s on %s", broker.settings.data, ", ".join(listeners.addresses))


def sign_in_url(address: str, credential: Credential) -> str:
    """The URL of somebody who signs in at an address of `Listeners`."""
    scheme, _, place = address.partition("://")
    who = f"{credential.user}:{credential.secret}"
    return f"penstock://{who}@localhost/?socket={place}" if scheme == "unix" else f"{scheme}://{who}@{place}/"


def _survives(durability: str) -> str:
    return "loss of power" if durability == "power" else "the death of processes, not loss of power"


def _reload(listeners: Listeners) -> None:
    notify("RELOADING=1")
    try:
        listeners.reload()
    except ConfigError as error:
        log.error("not reloaded: %s", error)
    notify("READY=1")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform != "win32" and importlib.util.find_spec("uvloop") is not None:
        import uvloop

        return uvloop.new_event_loop
    return asyncio.new_event_loop


def _raise_file_limit() -> None:
    """A connection is a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < 4096:
        log.warning("this process may have %d files open, and so about as many connections (ulimit -n)", soft)
