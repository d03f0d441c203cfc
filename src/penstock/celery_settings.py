"""Settings of Celery, and arguments of its app, that are none here: what to use instead, and what its old upper-case
names are called now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

_URL = "it is part of broker_url or result_backend, or an option of that URL: see the page of the engine"
_NO_BACKEND = "there is no such result backend: results are kept by the broker, or by what result_backend names"
_ALWAYS = "it is always so"
_NOTHING_WAITS = "nothing waits in a worker's memory"
_LOGGING = "set up the logging module in your own module, or penstock worker --loglevel"
_NO_EVENTS = "there are no event messages: see penstock watch, and observers"
_NO_CURRENT = "there is no current app: import the one that you mean"
_CONTROL = "there are no control queues: commands ask the broker"

INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "result_accept_content": "results are read as arguments are: write accept_content",
        "enable_utc": "times are Unix times and aware dates, everywhere",
        "include": "write imports",
        **dict.fromkeys(("broker_host", "broker_port", "broker_user", "broker_password", "broker_vhost"), _URL),
        **dict.fromkeys(("broker_transport", "broker_transport_options", "broker_use_ssl"), _URL),
        **dict.fromkeys(("broker_heartbeat", "broker_heartbeat_checkrate", "broker_login_method"), _URL),
        "broker_read_url": "reading and publishing go by one broker_url",
        "broker_write_url": "reading and publishing go by one broker_url",
        "broker_failover_strategy": "give several hosts in one broker_url, with commas",
        "broker_connection_timeout": "write publish_timeout for publishes; a worker tries until the broker is back",
        "broker_connection_retry": "a worker tries until the broker is back",
        "broker_connection_retry_on_startup": "a worker tries until the broker is back",
        "broker_connection_max_retries": "a worker tries until the broker is back; a publish until publish_timeout",
        "broker_channel_error_retry": "a worker tries until the broker is back",
        "broker_native_delayed_delivery_queue_type": "delays wait in the broker, in quorum queues on RabbitMQ",
        "broker_pool_limit": "a process has one connection, or a few, that all its threads share",
        "broker_pool_acquire_timeout": "a process has one connection, or a few, that all its threads share",
        "result_cache_max": "results are not cached",
        "result_chord_expires": "write result_expires",
        "result_failure_expires": "write result_expires; what failed is kept as a dead letter besides",
        "result_persistent": "results are as durable as the server that keeps them",
        "result_extended": "results have the name and queue of their task; arguments are not kept",
        "result_chord_join_timeout": "chords wait for nothing: the last member publishes the body",
        "result_chord_retry_interval": "chords wait for nothing: the last member publishes the body",
        "result_backend_always_retry": "a worker keeps what it has run, and tries until the server of results is back",
        "result_backend_max_retries": "a worker keeps what it has run, and tries until the server of results is back",
        "task_acks_on_failure": "a task that failed is acknowledged, and kept as a dead letter",
        "task_acks_on_timeout": "a task that ran into its time limit is acknowledged, and kept as a dead letter",
        "task_acks_on_failure_or_timeout": "a task that failed is acknowledged, and kept as a dead letter",
        "task_reject_on_worker_lost": "it is always so: a task whose worker dies is delivered again; see max_attempts",
        "task_retry_on_worker_lost": "it is always so: a task whose worker dies is delivered again; see max_attempts",
        "task_create_missing_queue_type": "queues of RabbitMQ are quorum queues",
        "task_create_missing_queue_exchange_type": "write task_routes",
        "task_default_delivery_mode": "write durability",
        "task_default_queue_type": "queues of RabbitMQ are quorum queues",
        "task_default_exchange": "write task_default_queue, or task_routes",
        "task_default_exchange_type": "write task_routes",
        "task_default_routing_key": "write task_default_queue, or task_routes",
        "task_protocol": "messages have one format, with its version in it",
        "task_publish_retry": "a publish tries until publish_timeout",
        "task_publish_retry_policy": "a publish tries until publish_timeout",
        "task_queue_max_priority": "every queue has the priorities 0 to 9, on every engine; 9 is served first",
        "task_remote_tracebacks": "the traceback of the worker is always there: result.traceback",
        "task_repr_maxlevels": "arguments are not shown in the log",
        "task_send_sent_event": _NO_EVENTS,
        "task_store_errors_even_if_ignored": "failures are kept as dead letters, whether results are or not",
        "task_allow_error_cb_on_chord_header": "see how a chord fails in the manual",
        "worker_agent": "workers have no plug-in of this kind",
        "worker_autoscaler": "start more workers, or fewer",
        "worker_cancel_long_running_tasks_on_connection_loss": "a task whose lease is lost sees self.cancelled",
        "worker_consumer": "workers have no plug-in of this kind",
        "worker_deduplicate_successful_tasks": "a task that has ended is recognised where the broker knows ids",
        "worker_detect_quorum_queues": _ALWAYS,
        "worker_disable_prefetch": _NOTHING_WAITS,
        "worker_disable_rate_limits": "leave out rate_limit, or set it to 0 by task_annotations",
        "worker_enable_prefetch_count_reduction": _NOTHING_WAITS,
        "worker_enable_remote_control": _CONTROL,
        "worker_enable_soft_shutdown_on_idle": "a warm stop hands back what has not started",
        "worker_eta_task_limit": "tasks with a countdown wait in the broker",
        "worker_lost_wait": "what a dead worker held is delivered again when that is seen, or its lease has ended",
        "worker_pool_putlocks": _NOTHING_WAITS,
        "worker_pool_restarts": "send the worker HUP",
        "worker_pool_start_method": "children are forked",
        "worker_prefetch_multiplier": "a worker reserves about 5 ms of work, and hands back what it cannot start",
        "worker_proc_alive_timeout": "a child that does not come up is replaced",
        "worker_redirect_stdouts": "what tasks print goes where the worker prints",
        "worker_redirect_stdouts_level": "what tasks print goes where the worker prints",
        "worker_send_task_events": _NO_EVENTS,
        "worker_soft_shutdown_timeout": "a warm stop waits for what runs; a second Ctrl-C, or QUIT, gives it up",
        "worker_state_db": "revocations are kept by the broker",
        "worker_timer": "delays wait in the broker",
        "worker_timer_precision": "delays wait in the broker",
        "beat_max_loop_interval": "a beat sleeps until something is due, or is changed",
        "beat_cron_starting_deadline": "write max_late in the entry of beat_schedule",
        "beat_scheduler": "schedules are changed by penstock beat add, or app.timetable",
    }
)
"""Lower-case name → the remedy."""

ARGUMENTS: Mapping[str, str] = MappingProxyType(
    {
        "backend": "write result_backend, or leave results to the broker",
        "changes": "write settings as keywords, or call app.configure(…)",
        **dict.fromkeys(("config_source", "config_source_silent"), "call app.config_from_object(…)"),
        "set_as_current": _NO_CURRENT,
        "fixups": "Django is looked after where it is used: config_from_object, autodiscover_tasks, delay_on_commit",
        "loader": "call app.config_from_object(…) and app.autodiscover_tasks(…)",
        "task_cls": "write base=… at the tasks",
        "tasks": "tasks are made by @app.task",
        "autofinalize": "tasks are there at once",
        "strict_typing": "arguments are always checked",
        **dict.fromkeys(("amqp", "events", "log", "control"), "there is no such part: see the page Coming from Celery"),
    }
)
"""Argument of Celery's app → the remedy."""

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "redis_": _URL,
        "database_": "write result_backend='postgresql://…', or leave results to the broker",
        "result_backend_": _URL,
        "result_exchange": "results need no exchange: see result_backend",
        **dict.fromkeys(("cache_", "cassandra_", "s3_", "azureblockblob_", "gcs_", "couchbase_"), _NO_BACKEND),
        **dict.fromkeys(("arangodb_", "mongodb_", "cosmosdbsql_", "elasticsearch_"), _NO_BACKEND),
        "event_": _NO_EVENTS,
        "control_": _CONTROL,
        "worker_log_": _LOGGING,
        "worker_task_log_": _LOGGING,
        "worker_hijack_root_logger": _LOGGING,
        "beat_": "the broker keeps the timetable, for any number of beats",
    }
)
"""How names begin → the remedy of all of them."""

_OLD: Mapping[str, str] = MappingProxyType(
    {
        "CELERYBEAT_SCHEDULE": "beat_schedule",
        "CELERY_DISABLE_RATE_LIMITS": "worker_disable_rate_limits",
        "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
        "CELERY_ENABLE_REMOTE_CONTROL": "worker_enable_remote_control",
        "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
        "CELERY_MESSAGE_COMPRESSION": "task_compression",
        "CELERY_REDIRECT_STDOUTS": "worker_redirect_stdouts",
        "CELERY_REDIRECT_STDOUTS_LEVEL": "worker_redirect_stdouts_level",
        "CELERY_RESULT_DBURI": "result_backend",
        "CELERY_SEND_EVENTS": "worker_send_task_events",
        "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
        "CELERY_TASK_RESULT_EXPIRES": "result_expires",
        "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
        "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
        "CELERYD_WORKER_LOST_WAIT": "worker_lost_wait",
    }
)
"""Upper-case names that did not only get another beginning."""
_BEGINNINGS = (
    ("CELERYBEAT_", ("beat_",)),
    ("CELERYD_", ("worker_",)),
    ("CELERY_", ("", "task_", "result_", "worker_")),
    ("BROKER_", ("broker_",)),
)
"""Old beginnings, and what may be in their place now."""


def new_name(name: str, known: Collection[str]) -> str | None:
    """What the upper-case name of a setting is called now: a known setting, or one of Celery's that is none here;
    `None` for a name that is no setting's."""
    if not name.isupper():
        return None
    if name in _OLD:
        return _OLD[name]
    if name.lower() in known:
        return name.lower()
    for old, places in _BEGINNINGS:
        if name.startswith(old):
            rest = name.removeprefix(old).lower()
            for place in places:
                if place + rest in known or instead(place + rest) is not None:
                    return place + rest
    return None


def instead(name: str) -> str | None:
    """What takes the place of a setting of Celery, or an argument of its app, that is none here; `None` for a name that
    Celery has not either."""
    if name in INSTEAD or name in ARGUMENTS:
        return INSTEAD.get(name) or ARGUMENTS[name]
    longest = max((start for start in FAMILIES if name.startswith(start)), key=len, default=None)
    return None if longest is None else FAMILIES[longest]
