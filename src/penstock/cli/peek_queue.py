"""`penstock peek`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from penstock.broker import Peeked
from penstock.cli.target import Target
from penstock.cli.terminal import clean, columns, count, duration, echo_json, faint, moment, short, table
from penstock.codec.readable import arguments, decoded
from penstock.message import Message

HEADS = ("id", "state", "task", "prio", "age", "due", "tries", "arguments")
PARTITION = len(HEADS) - 1
STATES = {"ready": "ready", "leased": "running", "delayed": "delayed"}


@click.command()
@click.argument("queue")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def peek(ctx: click.Context, queue: str, limit: int, as_json: bool) -> None:
    """Look at a queue's tasks without taking them."""
    target: Target = ctx.obj
    app = target.queues()
    engine, queue = app.engine, app.conf.real_name(queue)
    found = engine.run(engine.inspect.peek(queue, limit, app.conf.namespace))
    if as_json:
        echo_json([as_data(peeked) for peeked in found])
        return
    if not found:
        click.echo(f"nothing in queue {clean(queue)!r}")
        return
    now = time.time()
    click.echo(shown(found, now))
    depth = engine.run(app.broker.depth(queue, app.conf.namespace))
    if depth is None or depth > len(found):
        click.echo(faint(f"the first {len(found):,} of {count(depth)}; more with --limit"))


def shown(found: Sequence[Peeked], now: float) -> str:
    """A table; with the partitions, where there are any."""
    heads, rows = list(HEADS), [row(peeked, now) for peeked in found]
    partitions = [peeked.message.partition if peeked.message is not None else "" for peeked in found]
    if any(partitions):
        heads.insert(PARTITION, "partition")
        for cells, partition in zip(rows, partitions, strict=True):
            cells.insert(PARTITION, short(partition, 30))
    return table(heads, rows, right=(3, 4, 5, 6))


def row(peeked: Peeked, now: float) -> list[str]:
    message = peeked.message
    due = "–" if peeked.due is None else f"in {duration(max(0.0, peeked.due - now))}"
    start = [clean(peeked.id), STATES.get(peeked.state, clean(peeked.state))]
    if message is None:
        return [*start, "(cannot be read)", "?", "?", due, "?", ""]
    return [
        *start,
        short(message.task, 60),
        str(message.priority),
        duration(max(0.0, now - message.sent)) if message.sent else "?",
        due,
        str(message.retries + message.attempts),
        short(arguments(message), max(20, columns() - 90)),
    ]


def as_data(peeked: Peeked) -> dict[str, Any]:
    return {"id": peeked.id, "state": peeked.state, "due": peeked.due, **message_data(peeked.message)}


def message_data(message: Message | None) -> dict[str, Any]:
    if message is None:
        return {"task": None}
    values = decoded(message)
    return {
        "task": message.task,
        "queue": message.queue,
        "priority": message.priority,
        "partition": message.partition,
        "retries": message.retries,
        "attempts": message.attempts,
        "sent": message.sent,
        "eta": message.eta,
        "expires": message.expires,
        "args": None if values is None else values[0],
        "kwargs": None if values is None else values[1],
    }


def message_fields(message: Message) -> list[tuple[str, str]]:
    return [
        ("task", clean(message.task)),
        ("arguments", clean(arguments(message))),
        ("sent", moment(message.sent) if message.sent else "?"),
        ("retries", f"{message.retries} after errors, {message.attempts} deliveries that never came back"),
    ]
