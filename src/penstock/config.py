"""The settings of an app: one frozen tree, checked when it is made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, NoReturn, TypedDict

from msgspec import Struct

from penstock.beat.written import MOST, Written, read_written
from penstock.by_name import ByName, by_name
from penstock.codec.compression import compression_of
from penstock.codec.formats import DEFAULT_ACCEPT, accepted
from penstock.errors import ConfigError, UnknownQueue
from penstock.exchanges import bound, several
from penstock.keys import KeyLike
from penstock.limit import TaskLimit, rate_of
from penstock.message import DEFAULT_QUEUE, NORMAL
from penstock.options import (
    Errors,
    TaskOptions,
    check_errors,
    check_limits,
    check_options,
    check_priority,
    read_options,
)
from penstock.pressure.readings import limits_of
from penstock.pressure.webhook_url import check_webhook
from penstock.queue import DIRECT, Broadcast, Exchange, Queue, check_name
from penstock.routing import FIXED, Route, Routes, asks, fixed, read_routes
from penstock.schedules.zones import zone
from penstock.sources import unknown
from penstock.spelling import hint, without_password

Annotations = Mapping[Any, Mapping[str, Any]]
"""Options of tasks, by name, glob, or compiled regular expression."""


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
    task_queues: Sequence[Queue | Broadcast | str | Mapping[str, Any]]
    task_create_missing_queues: bool
    task_routes: Routes | None
    task_annotations: Annotations | Sequence[Annotations] | None
    task_default_priority: int
    task_default_rate_limit: str | float | None
    task_inherit_parent_priority: bool
    task_serializer: str
    task_compression: str | None
    task_ignore_result: bool
    task_acks_late: bool
    task_track_started: bool
    task_time_limit: float | None
    task_soft_time_limit: float | None
    result_serializer: str | None
    result_compression: str | None
    task_always_eager: bool
    task_eager_propagates: bool
    task_store_eager_result: bool
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
    worker_pool: str | None
    worker_max_tasks_per_child: int | None
    worker_max_memory_per_child: int | None
    worker_direct: bool
    timezone: str
    beat_schedule: Mapping[str, Mapping[str, Any]]
    beat_lease: float
    pressure_grace: float
    pressure_warn_at: float | None
    pressure_warn_age: float | None
    pressure_warn_times: float | None
    pressure_warn_stuck: float | None
    pressure_webhook: str | None


class Config(Struct, kw_only=True):
    """The settings of an app, frozen. Times in seconds. Celery's names mean what they mean there.

    `broker_url` is where tasks wait, and their results; `None`: see `penstock.locate`. `result_backend` is another
    URL for results (see `penstock.result_url`). `namespace` keeps apps on one broker apart. `durability`: what an
    accepted task survives, "power" or "process"; "strict": power, and a server that is not set up for it is refused
    instead of warned of; `None`: the engine's best.
    `lease`: a worker that was not heard of for so long is taken for dead. `task_routes`: see `penstock.routing`.
    `task_annotations` change options of tasks by their names. `task_default_rate_limit` is that of each task that has
    none, such as "10/s". `task_always_eager` runs calls where they are made (see
    `penstock.eager`); `result_exceptions` are rebuilt as their own class when
    a task raised them. `worker_direct`: each worker has a queue of its own, too.
    `timezone` is that of wall-clock schedules that name none; `beat_schedule` is the app's timetable; a beat that was
    not heard of for `beat_lease` leads no longer. For `pressure_grace` seconds without a live worker, the last known
    rate sets the bound of a queue with `max_latency`; then its `max_length` does. `pressure_warn_…` say when workers
    raise alarms (see `penstock.pressure.readings`), `None` never; `pressure_webhook` is a URL that is told of them.

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
    task_queues: tuple[Queue | Broadcast, ...] = ()
    task_create_missing_queues: bool = True
    task_routes: tuple[Route, ...] = ()
    task_annotations: tuple[ByName[Mapping[str, Any]], ...] = ()
    task_default_priority: int = NORMAL
    task_default_rate_limit: str | float | None = None
    task_inherit_parent_priority: bool = False
    task_serializer: str = "json"
    task_compression: str | None = None
    task_ignore_result: bool = False
    task_acks_late: bool = True
    task_track_started: bool = False
    task_time_limit: float | None = None
    task_soft_time_limit: float | None = None
    result_serializer: str | None = None
    result_compression: str | None = None
    task_always_eager: bool = False
    task_eager_propagates: bool = False
    task_store_eager_result: bool = False
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
    worker_pool: str | None = None
    worker_max_tasks_per_child: int | None = None
    worker_max_memory_per_child: int | None = None
    worker_direct: bool = False
    timezone: str = "UTC"
    beat_schedule: Mapping[str, Written] = {}
    beat_lease: float = 10.0
    pressure_grace: float = 300.0
    pressure_warn_at: float | None = 0.7
    pressure_warn_age: float | None = 300.0
    pressure_warn_times: float | None = 3.0
    pressure_warn_stuck: float | None = 300.0
    pressure_webhook: str | None = None

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
        for queue in self.queues:
            if queue.alias == self.task_default_queue:
                raise ConfigError(f"task_default_queue={queue.alias!r} is an alias: write {queue.name!r}")
        check_priority(self.task_default_priority)
        rate_of(self.task_default_rate_limit)
        check_limits(self.task_time_limit, self.task_soft_time_limit)
        check_errors("result_exceptions", self.result_exceptions)
        for form in (self.task_serializer, self.result_serializer or self.task_serializer):
            accepted(form, self.accept_content)
        for compression in (self.task_compression, self.result_compression):
            compression_of(compression)
        self._check_packing("task_annotations", self.task_annotations)
        self._check_packing("task_routes", self.task_routes)
        zone(self.timezone)
        limits_of(self)
        check_webhook(self.pressure_webhook)

    def _check_packing(self, setting: str, tables: Iterable[object]) -> None:
        """What tables say of serializers and compressions can be done here; functions are asked later."""
        for said in (said for table in tables if isinstance(table, ByName) for said in table.values()):
            try:
                accepted(said.get("serializer") or self.task_serializer, self.accept_content)
                compression_of(said.get("compression"))
            except ConfigError as error:
                raise ConfigError(f"{setting}: {error}") from error

    def __repr__(self) -> str:
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        for name in ("broker_url", "result_backend"):
            fields[name] = fields[name] and without_password(fields[name])
        for name in ("security_key", "security_key_password", "pressure_webhook"):
            fields[name] = fields[name] and "***"
        return f"Config({', '.join(f'{name}={value!r}' for name, value in fields.items())})"

    def __getattr__(self, name: str) -> Any:
        """Only what is no setting gets here."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name in ("update", "setdefault"):
            raise AttributeError(f"app.conf is frozen, and has no {name}(): call app.configure(…)")
        raise AttributeError(unknown(name, self.__struct_fields__))

    def __setattr__(self, name: str, _value: object) -> NoReturn:
        # msgspec's own `frozen` would not say what to do instead.
        raise AttributeError(f"app.conf is frozen: call app.configure({name}=…), or give {name} when the app is made")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("app.conf is frozen: a setting cannot be taken away")

    @property
    def queues(self) -> tuple[Queue, ...]:
        """The declared queues, the default one among them."""
        declared = tuple(queue for queue in self.task_queues if isinstance(queue, Queue))
        if any(queue.name == self.task_default_queue for queue in declared):
            return declared
        return (Queue(self.task_default_queue), *declared)

    @property
    def broadcasts(self) -> tuple[Broadcast, ...]:
        """What is declared to go to each worker."""
        return tuple(one for one in self.task_queues if isinstance(one, Broadcast))

    @property
    def copies(self) -> bool:
        """Some calls may go to several queues."""
        return any(isinstance(one, Broadcast) or one.exchange is not None for one in self.task_queues)

    def real_name(self, queue: str) -> str:
        """The queue's own name, where it is called by its alias."""
        return next((one.name for one in self.task_queues if isinstance(one, Queue) and one.alias == queue), queue)

    def address(self, name: str) -> str:
        """What goes into a message for the queue or broadcast `name`. Raises `UnknownQueue`."""
        for broadcast in self.broadcasts:
            if name == broadcast.name:
                return several(name, broadcast=broadcast)
        return self.check_queue(name)

    def exchange_address(self, exchange: str, routing_key: str) -> str:
        """What goes into a message that is published to an exchange. Raises `UnknownQueue`."""
        return bound(self.queues, exchange, routing_key)

    def check_queue(self, name: str) -> str:
        """The queue's own name. Raises `UnknownQueue` for an undeclared one, unless missing queues are created, and for
        a broadcast, which is none."""
        name = self.real_name(name)
        if any(name == broadcast.name for broadcast in self.broadcasts):
            raise UnknownQueue(f"{name!r} is a broadcast, and has a queue for each worker")
        if not self.task_create_missing_queues:
            known = [queue.name for queue in self.queues]
            if name not in known and not (self.worker_direct and name.endswith(DIRECT)):
                raise UnknownQueue(
                    f"queue {name!r} is not declared{hint(name, known)}; add it to task_queues, or set "
                    "task_create_missing_queues=True"
                )
        return name

    def annotation(self, task: str) -> dict[str, Any]:
        """The options that `task_annotations` give a task: what is said of its very name is the last word."""
        said = [value for table in self.task_annotations for value in table.every(task)]
        return {option: value for values in said for option, value in values.items()}

    def task_options(self, task: str, declared: Mapping[str, Any]) -> TaskOptions:
        """The options of a task that declares these: annotations change them, and what is left open is decided by
        `task_routes`, if no function is among them, and by the settings. Raises `ConfigError`, `UnknownQueue`."""
        said = {**self.fixed_route(task), **declared, **self.annotation(task)}
        if said.get("queue") is not None:
            said["queue"] = self.address(said["queue"])
        chosen = read_options(TaskOptions, {**self.task_defaults(), **said})
        chosen.policy()
        accepted(chosen.serializer or self.task_serializer, self.accept_content)
        compression_of(chosen.compression)
        return chosen

    def limit_of(self, task: str) -> tuple[TaskLimit | None, KeyLike | None]:
        """The limit and the partitions of a task that is not known here, as far as settings say something of them."""
        if not self.task_annotations and self.task_default_rate_limit is None:
            return None, None
        said = self.annotation(task)
        options = read_options(TaskOptions, {"rate_limit": self.task_default_rate_limit, **said})
        return options.limit(), options.partition

    def fixed_route(self, task: str) -> dict[str, Any]:
        """What the routes say once and for all of a task; nothing, if a function has a say."""
        found = {} if asks(self.task_routes) else fixed(self.task_routes, task)
        return {name: value for name, value in found.items() if name in FIXED}

    def asks_routes(self, task: str, own: Collection[str]) -> bool:
        """Each call of a task that says `own` of itself must be asked for: what its route says is not all in its
        options."""
        return asks(self.task_routes) or bool(fixed(self.task_routes, task).keys() - FIXED - set(own))

    def task_defaults(self) -> dict[str, Any]:
        """The options of a task that says nothing."""
        return {
            "queue": self.task_default_queue,
            "priority": self.task_default_priority,
            "rate_limit": self.task_default_rate_limit,
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
            raise ConfigError(unknown(name, known))
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
            if not isinstance(values[name], Iterable):
                raise ConfigError(f"{name} must be a list, not {values[name]!r}")
            values[name] = tuple(values[name])
    if "task_queues" in values:
        values["task_queues"] = _queues(values["task_queues"])
    values["task_routes"] = read_routes(values.get("task_routes"))
    values["task_annotations"] = _annotations(values.get("task_annotations"))
    if "beat_schedule" in values:
        values["beat_schedule"] = _timetable(values["beat_schedule"], values.get("timezone", Config().timezone))
    return Config(**values)


def _queues(given: Sequence[Queue | Broadcast | str | Mapping[str, Any]]) -> tuple[Queue | Broadcast, ...]:
    declared = tuple(_queue(one) for one in given)
    queues = [one for one in declared if isinstance(one, Queue)]
    names = [*(one.name for one in declared), *(queue.alias for queue in queues if queue.alias)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"queue {name!r} is declared twice in task_queues")
    exchanges = {queue.exchange for queue in queues if queue.exchange is not None}
    kinds = [exchange.name for exchange in exchanges]
    for name in kinds:
        if kinds.count(name) > 1:
            raise ConfigError(f"exchange {name!r} is of two types in task_queues")
    return declared


def _queue(given: Queue | Broadcast | str | Mapping[str, Any]) -> Queue | Broadcast:
    if isinstance(given, Queue | Broadcast):
        return given
    if isinstance(given, str):
        return Queue(given)
    if not isinstance(given, Mapping):
        raise ConfigError(f"task_queues: a name, a Queue, or a dictionary of its fields, not {given!r}")
    for field in given:
        if field not in Queue.__struct_fields__:
            raise ConfigError(f"task_queues: a queue has no {field!r}{hint(str(field), Queue.__struct_fields__)}")
    if "name" not in given:
        raise ConfigError(f"task_queues: {dict(given)!r} has no name")
    exchange = given.get("exchange")
    return Queue(**{**given, "exchange": Exchange(**exchange) if isinstance(exchange, Mapping) else exchange})


def _annotations(given: Any) -> tuple[ByName[Mapping[str, Any]], ...]:
    if given is None:
        return ()
    tables = (given,) if isinstance(given, Mapping) else given
    if not isinstance(tables, Sequence) or not all(isinstance(table, Mapping | ByName) for table in tables):
        raise ConfigError(
            f"task_annotations is a dictionary by task name, such as {{'mail.*': {{'max_retries': 5}}}}, not {given!r}"
        )
    return tuple(
        table if isinstance(table, ByName) else by_name("task_annotations", table, _options_of) for table in tables
    )


def _options_of(where: str, said: Any) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where} must be a dictionary of task options, not {said!r}")
    check_options(where, TaskOptions, said)
    return said


def _timetable(given: Mapping[str, Mapping[str, Any]], tz: str) -> dict[str, Written]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"beat_schedule must be a dict of schedules by name, not {type(given).__name__}")
    if len(given) > MOST:
        raise ConfigError(f"beat_schedule has {len(given):,} schedules; at most {MOST:,} are allowed")
    return {name: read_written(name, one, tz) for name, one in given.items()}


def _lease(value: object) -> bool:
    return _positive(value) and isinstance(value, (int, float)) and 0.5 <= value <= 3600


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


def _count(value: object) -> bool:
    return type(value) is int and value >= 1


def _none_or_count(value: object) -> bool:
    return value is None or _count(value)


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
