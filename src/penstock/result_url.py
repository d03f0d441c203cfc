"""Where results are kept, from the setting `result_backend` and the broker's URL. Pure."""

from __future__ import annotations

from pathlib import Path

from penstock.errors import ConfigError
from penstock.locate import broker_url
from penstock.spelling import without_password

AMQP = ("amqp", "amqps", "pyamqp")


def result_url(given: str | None, broker: str, folder: Path) -> str | None:
    """The URL of the engine that keeps results; `None`: the broker's engine. `broker` is resolved already.

    `rpc://` without a host is on the broker's server. `amqp://…` means `rpc://…`: what Celery once had under that name
    kept a queue for each task until somebody asked, for which RabbitMQ pays in memory and each publish by a
    declaration; one reply queue for each client is what took its place. Raises `ConfigError`.
    """
    if given is None or given == "":
        return None
    scheme, mark, rest = given.partition("://")
    if not mark:
        raise ConfigError(
            f"result_backend={without_password(given)!r} is not a URL, such as redis://localhost:6379/1 or sqlite:///results.db"
        )
    if scheme == "rpc" and not rest.strip("/"):
        return _reply_queue(broker)
    if scheme in AMQP:
        return _rpc(scheme, rest)
    url = broker_url(given, folder)
    return None if url == broker else url


def _reply_queue(broker: str) -> str:
    scheme, _, rest = broker.partition("://")
    if scheme not in AMQP:
        raise ConfigError(
            f"result_backend='rpc://' sends results through RabbitMQ, but the broker is {scheme}://, which keeps "
            "results itself: leave result_backend out, or name the server: rpc://user:password@host:5672/"
        )
    return _rpc(scheme, rest)


def _rpc(scheme: str, rest: str) -> str:
    # A server that is spoken to in TLS stays so.
    return f"{'rpcs' if scheme == 'amqps' else 'rpc'}://{rest}"
