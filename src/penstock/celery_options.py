"""Options of Celery's tasks and calls that are none here: what to write instead."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from penstock.spelling import hint

_ALWAYS_AGAIN = "it is always so: a task whose worker dies is delivered again; see max_attempts"
_KEPT = "a task that failed is acknowledged, and kept as a dead letter"
_MODEL = "an argument that is annotated with a Pydantic model is one; say the rest in the model's configuration"
_DURABLE = "calls are always durable, and an error where they go nowhere"
_HERE = "a task belongs to the app that it is declared with, and is there at once"
_MIDDLEWARE = "write middleware: Penstock(…, running=[…])"
_BY_ITSELF = "a call that a task makes knows its parent by itself"
_CHAINED = "compose calls as a canvas: task.s(…), chain, group, chord"
_ONE_CONNECTION = "a process has one connection, or a few, that all its threads share"
_TIMEOUT = "a publish tries until publish_timeout"

TASK: Mapping[str, str] = MappingProxyType(
    {
        "typing": "arguments are always checked",
        "trail": _BY_ITSELF,
        "send_events": "there are no event messages: see penstock watch, and observers",
        "store_errors_even_if_ignored": "failures are kept as dead letters, whether results are or not",
        "backend": "results of an app are in one place: write its setting result_backend",
        **dict.fromkeys(("acks_on_failure", "acks_on_timeout", "acks_on_failure_or_timeout"), _KEPT),
        **dict.fromkeys(("reject_on_worker_lost", "retry_on_worker_lost"), _ALWAYS_AGAIN),
        "resultrepr_maxsize": "arguments and results are not shown in the log",
        **dict.fromkeys(("Strategy", "Request"), _MIDDLEWARE),
        "retry_kwargs": "write max_retries and default_retry_delay",
        **dict.fromkeys(("pydantic", "pydantic_strict", "pydantic_context", "pydantic_dump_kwargs"), _MODEL),
        **dict.fromkeys(("exchange", "routing_key"), "write queue; or task_routes, which may name an exchange"),
        **dict.fromkeys(("delivery_mode", "immediate", "mandatory"), _DURABLE),
        **dict.fromkeys(("shared", "lazy", "filter", "abstract"), _HERE),
    }
)
"""Option of `@app.task` → the remedy."""

CALL: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("link", "link_error"), "write task.s(…), link to that, and publish it"),
        "shadow": "write headers",
        **dict.fromkeys(("retry", "retry_policy", "timeout", "confirm_timeout"), _TIMEOUT),
        **dict.fromkeys(("add_to_parent", "root_id", "parent_id", "retries"), _BY_ITSELF),
        **dict.fromkeys(("group_id", "group_index", "chord", "chain", "replaced_task_nesting"), _CHAINED),
        **dict.fromkeys(
            ("producer", "publisher"), "a process has one connection, or a few, that all its threads share"
        ),
        **dict.fromkeys(("router", "route_name", "task_type"), "write task_routes"),
        **dict.fromkeys(("reply_to", "result_cls"), "results find their way by the id"),
        **dict.fromkeys(("delivery_mode", "mandatory", "immediate", "declare"), _DURABLE),
        **dict.fromkeys(("content_type", "content_encoding"), "write serializer and compression"),
        "expiration": "write expires",
        "throw": "write the setting task_eager_propagates, or result.get()",
        **dict.fromkeys(("logfile", "loglevel"), "set up the logging module"),
    }
)
"""Option of `apply_async` → the remedy."""


def unknown_task_option(name: str, known: Collection[str]) -> str:
    """Why there is no such option of a task, and what to write."""
    return _unknown("task", TASK, name, known)


def unknown_call_option(name: str, known: Collection[str]) -> str:
    """Why there is no such option of a call, and what to write."""
    return _unknown("call", CALL, name, known)


def _unknown(what: str, remedies: Mapping[str, str], name: str, known: Collection[str]) -> str:
    if name in remedies:
        return f"Celery's {what} option {name!r} is none here: {remedies[name]}"
    return f"unknown {what} option {name!r}{hint(name, known)}"
