"""What each setting by itself must be, and how that is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any


def _lease(value: object) -> bool:
    return _positive(value) and isinstance(value, (int, float)) and 0.5 <= value <= 3600


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _part(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 100)


def _count(value: object) -> bool:
    return type(value) is int and value >= 1


def _none_or_count(value: object) -> bool:
    return value is None or _count(value)


def is_url(value: object) -> bool:
    return value is None or (isinstance(value, str) and "://" in value)


def _texts(value: Sequence[object]) -> bool:
    return all(isinstance(one, str) for one in value)


def is_secret(value: object) -> bool:
    return value is None or isinstance(value, str)


def _switch(value: object) -> bool:
    return isinstance(value, bool)


Rule = tuple[Callable[[Any], bool], str]
_SWITCH: Rule = (_switch, "True or False")
_SECONDS: Rule = (_positive, "a number of seconds above 0")
_DIGESTS = frozenset({"sha256", "sha384", "sha512"})
RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "broker_url": (is_url, "a URL such as sqlite:///queue.db"),
        "result_backend": (is_url, "a URL such as redis://localhost:6379/1"),
        "durability": (lambda value: value in (None, "power", "process", "strict"), "'power', 'process' or 'strict'"),
        "publish_timeout": _SECONDS,
        "publish_retry_budget": (_part, "retries for each publish, such as 0.1, or None for no bound"),
        "lease": _SECONDS,
        "result_expires": _SECONDS,
        "max_attempts": (_count, "at least 1"),
        "result_max_bytes": (_count, "at least 1"),
        "compression_min_bytes": (_count, "at least 1"),
        "inflate_max_bytes": (_count, "at least 1"),
        "inflate_max_ratio": (_count, "at least 1"),
        "accept_content": (lambda value: bool(value) and _texts(value), "a list of serializers, such as ['json']"),
        "security_key": (is_secret, "PEM, or the path of a PEM file"),
        "security_key_password": (is_secret, "a string"),
        "security_certificate": (is_secret, "PEM, or the path of a PEM file"),
        "security_cert_store": (_texts, "paths of PEM files, or PEM"),
        "security_digest": (lambda value: value in _DIGESTS, "'sha256', 'sha384' or 'sha512'"),
        "security_accept_unsigned": _SWITCH,
        "worker_concurrency": (_none_or_count, "at least 1, or None for one per CPU"),
        "worker_max_tasks_per_child": (_none_or_count, "at least 1, or None for no end"),
        "worker_max_memory_per_child": (_none_or_count, "at least 1 (in KiB), or None for no end"),
        "worker_direct": _SWITCH,
        "task_inherit_parent_priority": _SWITCH,
        "timezone": (lambda value: isinstance(value, str) and value != "", "a name such as 'Europe/Berlin'"),
        "beat_lease": (_lease, "0.5 to 3600 seconds"),
        "pressure_grace": (_positive, "seconds above 0"),
        "task_create_missing_queues": _SWITCH,
        "task_ignore_result": _SWITCH,
        "task_acks_late": _SWITCH,
        "task_track_started": _SWITCH,
        "task_always_eager": _SWITCH,
        "task_eager_propagates": _SWITCH,
        "task_store_eager_result": _SWITCH,
    }
)
