"""What operators and programs ask of the gateway itself: what there is, and how much waits."""

from __future__ import annotations

from collections.abc import Sequence

import penstock
from penstock.errors import UnknownQueue
from penstock.gateway.answering import Answer, answer_json, tagged
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.openapi import described
from penstock.gateway.problems import Refused
from penstock.gateway.routes.common import need
from penstock.gateway.scopes import INSPECT
from penstock.gateway.steps import Plan, on
from penstock.queue import QueueInfo


def info(context: Context, asked: Asked) -> Plan[Answer]:
    """What this gateway is, and what its caller may do with it."""
    asked.request.arguments(())
    app, scopes, settings = context.app, asked.caller.scopes, context.settings
    features = app.engine.broker.features
    document = {
        "app": app.name,
        "user": asked.caller.name,
        "penstock": penstock.__version__,
        "engine": features.engine,
        "durability": features.durability,
        "tasks": context.tasks.names(scopes),
        "scopes": scopes.texts(),
        "limits": {
            "wait": settings.max_wait,
            "body": settings.max_body,
            "calls": settings.max_calls,
            "delay": settings.max_delay,
            "priority": settings.max_priority,
        },
    }
    return answer_json(200, document)
    yield  # a plan, of no steps


def openapi(context: Context, asked: Asked) -> Plan[Answer]:
    """What its caller may call, in OpenAPI 3.1."""
    asked.request.arguments(())
    tasks = {name: context.tasks.find(name, asked.caller.scopes) for name in context.tasks.names(asked.caller.scopes)}
    document = described(context.app.name, tasks, context.settings, asked.request.root, context.schemes)
    return tagged(answer_json(200, document), asked.request.headers.get("if-none-match"))
    yield


def backlog(context: Context, asked: Asked) -> Plan[Answer]:
    """How much of a queue is to be done, for what decides about the number of workers."""
    need(asked.caller, INSPECT)
    asked.request.arguments(())
    app = context.app
    try:
        name = app.conf.check_queue(asked.name)
    except UnknownQueue:
        name = asked.name
    queues: Sequence[QueueInfo] = yield on(app.engine, lambda: app.engine.inspect.queues(app.conf.namespace))
    found = next((queue for queue in queues if queue.name == name), None)
    if found is None:
        raise Refused(404, "unknown-queue", "there is no queue of this name: nothing was ever published to it")
    document = {
        "queue": found.name,
        "backlog": found.depth if found.ready is None else found.ready + (found.leased or 0),
        "ready": found.ready,
        "leased": found.leased,
        "delayed": found.delayed,
        "depth": found.depth,
        "dead": found.dead,
        "oldest_age": found.oldest_age,
        "max_length": found.max_length,
        "paused": found.paused,
    }
    return answer_json(200, document)
