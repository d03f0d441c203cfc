"""The serializers by their names, and which of them an app accepts."""

from __future__ import annotations

from collections.abc import Collection

from penstock.codec.values import JSON, MSGPACK, PICKLE, YAML, Format, json, msgpack
from penstock.errors import ConfigError
from penstock.spelling import hint

NAMES = (JSON, MSGPACK, YAML, PICKLE)
DEFAULT_ACCEPT = (JSON, MSGPACK)


def serializer(name: str) -> Format:
    """The format of that name. Raises `ConfigError` for an unknown one, and for one whose library is not installed."""
    if name == JSON:
        return json
    if name == MSGPACK:
        return msgpack
    if name == YAML:
        return _yaml()
    if name == PICKLE:
        from penstock.codec.pickled import pickle

        return pickle
    raise ConfigError(f"unknown serializer {name!r}{hint(name, NAMES)}")


def accepted(name: str, accept: Collection[str]) -> Format:
    """The same, if it is one of `accept`. Raises `ConfigError`."""
    form = serializer(name)
    if name in accept:
        return form
    why = (
        "whoever can write to the queue could run code with it, so it must be asked for, and signed"
        if name == PICKLE
        else "this app's own workers would refuse it"
    )
    raise ConfigError(f"serializer {name!r} is not in accept_content: {why}")


def _yaml() -> Format:
    try:
        from penstock.codec.yaml_text import plain
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"serializer 'yaml' needs a library that is not installed ({error.name}): pip install 'penstock[yaml]'"
        ) from error
    return plain
