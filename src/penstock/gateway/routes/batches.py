"""`POST /v1/batches`: many calls in one publish, all of them or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstock.broker import Accepted
from penstock.broker import Answer as BrokerAnswer
from penstock.errors import AlreadyQueued
from penstock.gateway.answering import Answer, answer_json
from penstock.gateway.calls import read_batch
from penstock.gateway.gateway import Asked, Context
from penstock.gateway.private_ids import make_private
from penstock.gateway.problems import Refused, problem, refusal
from penstock.gateway.repeats import Repeat, Request, mark
from penstock.gateway.routes.calling import accepted
from penstock.gateway.routes.common import links, read_json, rules
from penstock.gateway.showing import address
from penstock.gateway.steps import Plan, Step, on
from penstock.message import Message
from penstock.refusals import on_behalf_of


def call_many(context: Context, asked: Asked) -> Plan[Answer]:
    """202, with the id of each. A unique task that is there already has an error in its place."""
    app, settings, caller = context.app, context.settings, asked.caller
    asked.request.arguments(())
    calls = read_batch((yield from read_json(context, asked))).calls
    features = app.engine.broker.features
    most = min(settings.max_calls, features.max_batch) if features.whole_batches else 1
    if not 1 <= len(calls) <= most:
        raise Refused.field("calls", f"has {len(calls):,} calls; from 1 to {most:,} go into one batch here")
    held = rules(context, asked)
    messages = [
        context.tasks.find(one.task, caller.scopes).message(app.client, one, held, f"calls[{place}].")
        for place, one in enumerate(calls)
    ]
    key = asked.request.headers.get("idempotency-key")
    request = Request(key, caller.name, [one.options for one in calls])
    repeat = mark(messages, request, features, settings.idempotency, first=1)
    make_private(app, messages)
    client = app.client
    publish = Step(lambda: client.engine.run(client.publish(messages)), lambda: client.apublish(messages))
    with on_behalf_of(caller.name):
        answers: Sequence[BrokerAnswer] = yield publish
    here = links(asked)
    shown = [_shown(context, *pair, here) for pair in zip(messages, answers, strict=True)]
    if repeat is not None:
        yield from _check(context, repeat, answers, [one.get("id", "") for one in shown])
    return answer_json(202, {"tasks": shown})


def _check(context: Context, repeat: Repeat, answers: Sequence[BrokerAnswer], ids: Sequence[str]) -> Plan[None]:
    """Refuse the key of another batch. What that one had not, was accepted: take it back."""
    try:
        repeat.check(ids)
    except Refused:
        keys = [answer.key for answer in answers if isinstance(answer, Accepted)]
        if keys:
            app = context.app
            yield on(app.engine, lambda: app.engine.coordinator.revoke(keys))
        raise


def _shown(context: Context, message: Message, answer: BrokerAnswer, here: str) -> dict[str, Any]:
    client = context.app.client
    try:
        task_id = context.app.broker.public_id(client.key_of(message, answer))
    except AlreadyQueued as error:
        refused = refusal(error)
        assert refused is not None  # the table has it
        return {"error": problem(refused)}
    return accepted(task_id, address(here, task_id))
