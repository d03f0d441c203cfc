"""Which engine serves a URL, and how one is opened. The only place that picks engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from penstock.clock import Clock
from penstock.config import Config
from penstock.engine import Engine
from penstock.errors import ConfigError, Unsupported
from penstock.locate import prepare_folder
from penstock.queue import Bounds, Queue
from penstock.spelling import hint

ENGINES: Mapping[str, str] = MappingProxyType(
    {
        "memory": "penstock.engines.memory",
        "sqlite": "penstock.engines.sqlite",
        **dict.fromkeys(("redis", "rediss", "unix", "sentinel"), "penstock.engines.redis"),
        **dict.fromkeys(("postgresql", "postgres"), "penstock.engines.postgres"),
        **dict.fromkeys(("penstock", "penstocks"), "penstock.engines.server"),
        **dict.fromkeys(("amqp", "amqps", "pyamqp", "rpc", "rpcs"), "penstock.engines.rabbitmq"),
        "django-db": "penstock.contrib.django",
    }
)
"""URL scheme → module with `open_engine(url, *, clock, queues, …) -> Engine`, imported at first use; the last part of
its name is the extra with its driver. Others come by the entry point group `penstock.engines`."""
BROKER_SETTINGS = ("durability",)
RESULT_SETTINGS = ("result_expires", "result_max_bytes")
"""What an opener may honour by taking it as a keyword. One that it does not take, and the app sets, is refused."""
DEFAULTS = Config()
GROUP = "penstock.engines"


def opened(
    url: str,
    honoured: Sequence[str],
    *,
    conf: Config,
    clock: Clock,
    queues: Sequence[Queue],
    bounds: Callable[[], Bounds | None],
) -> Engine:
    """The engine of `url`. `honoured`: the settings in `conf` that it must take, or may not have been set. `bounds`
    gives those that change to an engine that asks for them, where a queue has such.

    Raises `ConfigError` for a URL that no engine serves, `Unsupported` for a setting that this one does not honour,
    and `BrokerError` when it cannot be opened.
    """
    from inspect import signature

    prepare_folder(url)
    opener = _opener(url)
    takes = signature(opener).parameters
    settings: dict[str, Any] = {"clock": clock, "queues": queues}
    settings |= {"namespace": conf.namespace} if "namespace" in takes else {}  # else: bounds hold in each
    if "bounds" in takes and any(queue.governed for queue in queues):
        settings["bounds"] = bounds()
    for name in honoured:
        value = getattr(conf, name)
        if name in takes:
            if value is not None:
                settings[name] = value
        elif value != getattr(DEFAULTS, name):
            raise Unsupported(f"{name}={value!r}: engines of {_scheme(url)}:// do not honour it; leave it out")
    return opener(url, **settings)


def _opener(url: str) -> Callable[..., Engine]:
    from importlib import import_module
    from importlib.metadata import entry_points

    scheme = _scheme(url)
    module = ENGINES.get(scheme)
    if module is not None:
        try:
            return cast("Callable[..., Engine]", import_module(module).open_engine)
        except ModuleNotFoundError as error:
            extra = module.rpartition(".")[2]
            raise ConfigError(
                f"{scheme}:// needs a driver that is not installed ({error.name}): pip install 'penstock[{extra}]'"
            ) from error
    plugged = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme in plugged:
        return cast("Callable[..., Engine]", plugged[scheme].load())
    raise ConfigError(f"no engine serves {scheme}:// URLs{hint(scheme, {*ENGINES, *plugged})}")


def _scheme(url: str) -> str:
    return url.partition("://")[0]
