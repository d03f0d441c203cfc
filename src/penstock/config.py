"""The settings of an app: one frozen tree, checked when the app is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypedDict

from msgspec import Struct

from penstock.codec.formats import DEFAULT_ACCEPT, accepted
from penstock.errors import ConfigError, UnknownQueue
from penstock.message import DEFAULT_QUEUE, NORMAL
from penstock.options import Errors, check_errors, check_limits, check_priority
from penstock.queue import Queue, check_name
from penstock.spelling import hint, without_password


class Settings(TypedDict, total=False):
    """What `Penstock(…)` takes besides its name and broker; see `Config`."""

    broker_url: str | None
    result_backend: str | None
    namespace: str
    imports: Sequence[str]
    durability: Literal["power", "process", "strict"] | None
    publish_timeout: float
    lease: float
    max_attempts: int
    task_default_queue: str
    task_queues: Sequence[Queue | str]
    task_create_missing_queues: bool
    task_default_priority: int
    task_serializer: str
    task_compression: str | None
    task_ignore_result: bool
    task_acks_late: bool
    task_track_started: bool
    task_time_limit: float | None
    task_soft_time_limit: float | None
    result_serializer: str | None
    result_compression: str | None
    result_expires: float | timedelta
    result_max_bytes: int
    result_exceptions: Errors
    accept_content: Sequence[str]
    compression_min_bytes: int
    inflate_max_bytes: int
    inflate_max_ratio: int
    security_key: str | None
    security_key_password: str | None
    security_certificate: str | None
    security_cert_store: str | Sequence[str]
    security_digest: Literal["sha256", "sha384", "sha512"]
    security_accept_unsigned: bool
    worker_concurrency: int | None


class Config(Struct, frozen=True, kw_only=True):
    """The settings of an app. Times in seconds. Celery's names mean what they mean there.

    `broker_url` is where tasks wait, and their results; `None`: see `penstock.locate`. `result_backend` is another
    URL for results (see `penstock.result_url`). `namespace` keeps apps on one broker apart. `durability`: what an
    accepted task survives, "power" or "process"; "strict": power, and a server that is not set up for it is refused
    instead of warned of; `None`: the engine's best.
    `lease`: a worker that was not heard of for so long is taken for dead. `result_exceptions` are rebuilt as their own
    class when a task raised them.

    `accept_content` are the serializers that are read here. `inflate_max_bytes` and `inflate_max_ratio` bound what
    comes out of a compressed body or result. `security_…` are the key that signs here and those that are accepted (see
    `penstock.security`).
    """

    broker_url: str | None = None
    result_backend: str | None = None
    namespace: str = ""
    imports: tuple[str, ...] = ()
    durability: str | None = None
    publish_timeout: float = 5.0
    lease: float = 30.0
    max_attempts: int = 3
    task_default_queue: str = DEFAULT_QUEUE
    task_queues: tuple[Queue, ...] = ()
    task_create_missing_queues: bool = True
    task_default_priority: int = NORMAL
    task_serializer: str = "json"
    task_compression: str | None = None
    task_ignore_result: bool = False
    task_acks_late: bool = True
    task_track_started: bool = False
    task_time_limit: float | None = None
    task_soft_time_limit: float | None = None
    result_serializer: str | None = None
    result_compression: str | None = None
    result_expires: float = 86_400.0
    result_max_bytes: int = 1 << 30
    result_exceptions: Errors = ()
    accept_content: tuple[str, ...] = DEFAULT_ACCEPT
    compression_min_bytes: int = 1024
    inflate_max_bytes: int = 64 << 20
    inflate_max_ratio: int = 200
    security_key: str | None = None
    security_key_password: str | None = None
    security_certificate: str | None = None
    security_cert_store: tuple[str, ...] = ()
    security_digest: str = "sha256"
    security_accept_unsigned: bool = False
    worker_concurrency: int | None = None

    def __post_init__(self) -> None:
        for name, (fits, rule) in _RULES.items():
            value = getattr(self, name)
            if not fits(value):
                shown = without_password(value) if fits is _url and isinstance(value, str) else value
                if fits is _secret:
                    shown = type(value).__name__
                raise ConfigError(f"{name} must be {rule}, not {shown!r}")
        check_name("namespace", self.namespace, empty=True)
        check_name("queue", self.task_default_queue)
        check_priority(self.task_default_priority)
        check_limits(self.task_time_limit, self.task_soft_time_limit)
        check_errors("result_exceptions", self.result_exceptions)
        for form in (self.task_serializer, self.result_serializer or self.task_serializer):
            accepted(form, self.accept_content)

    def __repr__(self) -> str:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        for name in ("broker_url", "result_backend"):
            fields[name] = fields[name] and without_password(fields[name])
        for name in ("security_key", "security_key_password"):
            fields[name] = fields[name] and "***"
        return f"Config({', '.join(f'{name}={value!r}' for name, value in fields.items())})"

    @property
    def queues(self) -> tuple[Queue, ...]:
        """The declared queues, the default one among them."""
        if any(queue.name == self.task_default_queue for queue in self.task_queues):
            return self.task_queues
        return (Queue(self.task_default_queue), *self.task_queues)

    def check_queue(self, name: str) -> str:
        """The name. Raises `UnknownQueue` for an undeclared one, unless missing queues are created."""
        if not self.task_create_missing_queues:
            known = [queue.name for queue in self.queues]
            if name not in known:
                raise UnknownQueue(
                    f"queue {name!r} is not declared{hint(name, known)}; add it to task_queues, or set "
                    "task_create_missing_queues=True"
                )
        return name

    def task_defaults(self) -> dict[str, Any]:
        """The options of a task that says nothing."""
        return {
            "queue": self.task_default_queue,
            "priority": self.task_default_priority,
            "serializer": self.task_serializer,
            "compression": self.task_compression,
            "ignore_result": self.task_ignore_result,
            "acks_late": self.task_acks_late,
            "track_started": self.task_track_started,
            "time_limit": self.task_time_limit,
            "soft_time_limit": self.task_soft_time_limit,
            "max_attempts": self.max_attempts,
        }


def read_config(given: Mapping[str, Any]) -> Config:
    """Raises `ConfigError` for an unknown setting ("did you mean") or a bad value."""
    known = Config.__struct_fields__
    for name in given:
        if name not in known:
            raise ConfigError(f"unknown setting {name!r}{hint(name, known)}")
    values = dict(given)
    expires = values.get("result_expires")
    if isinstance(expires, timedelta):
        values["result_expires"] = expires.total_seconds()
    if isinstance(values.get("security_cert_store"), str):
        values["security_cert_store"] = (values["security_cert_store"],)
    for name in ("task_queues", "imports", "accept_content"):
        if isinstance(values.get(name, ()), str):
            raise ConfigError(f"{name} must be a list, not the string {values[name]!r}")
    for name in ("imports", "accept_content", "security_cert_store"):
        if name in values:
            values[name] = tuple(values[name])
    if "task_queues" in values:
        values["task_queues"] = _queues(values["task_queues"])
    return Config(**values)


def _queues(given: Sequence[Queue | str]) -> tuple[Queue, ...]:
    queues = tuple(queue if isinstance(queue, Queue) else Queue(queue) for queue in given)
    names = [queue.name for queue in queues]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"queue {name!r} is declared twice in task_queues")
    return queues


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _count(value: object) -> bool:
    return type(value) is int and value >= 1


def _url(value: object) -> bool:
    return value is None or (isinstance(value, str) and "://" in value)


def _texts(value: Sequence[object]) -> bool:
    return all(isinstance(one, str) for one in value)


def _secret(value: object) -> bool:
    return value is None or isinstance(value, str)


def _switch(value: object) -> bool:
    return isinstance(value, bool)


Rule = tuple[Callable[[Any], bool], str]
_SWITCH: Rule = (_switch, "True or False")
_SECONDS: Rule = (_positive, "a number of seconds above 0")
_DIGESTS = frozenset({"sha256", "sha384", "sha512"})
_RULES: dict[str, Rule] = {
    "broker_url": (_url, "a URL such as sqlite:///queue.db"),
    "result_backend": (_url, "a URL such as redis://localhost:6379/1"),
    "durability": (lambda value: value in (None, "power", "process", "strict"), "'power', 'process' or 'strict'"),
    "publish_timeout": _SECONDS,
    "lease": _SECONDS,
    "result_expires": _SECONDS,
    "max_attempts": (_count, "at least 1"),
    "result_max_bytes": (_count, "at least 1"),
    "worker_concurrency": (lambda value: value is None or _count(value), "at least 1, or None for one per CPU"),
    "compression_min_bytes": (_count, "at least 1"),
    "inflate_max_bytes": (_count, "at least 1"),
    "inflate_max_ratio": (_count, "at least 1"),
    "accept_content": (lambda value: bool(value) and _texts(value), "a list of serializers, such as ['json']"),
    "security_key": (_secret, "PEM, or the path of a PEM file"),
    "security_key_password": (_secret, "a string"),
    "security_certificate": (_secret, "PEM, or the path of a PEM file"),
    "security_cert_store": (_texts, "paths of PEM files, or PEM"),
    "security_digest": (lambda value: value in _DIGESTS, "'sha256', 'sha384' or 'sha512'"),
    "security_accept_unsigned": _SWITCH,
    "task_create_missing_queues": _SWITCH,
    "task_ignore_result": _SWITCH,
    "task_acks_late": _SWITCH,
    "task_track_started": _SWITCH,
}
