"""`penstock queues pause` and `penstock queues resume`."""

from __future__ import annotations

import click

from penstock.cli.target import Target
from penstock.cli.terminal import clean, count
from penstock.errors import UnknownQueue
from penstock.spelling import hint


@click.command()
@click.argument("queue")
@click.pass_obj
def pause(target: Target, queue: str) -> None:
    """Let workers start nothing more of a queue, until it is resumed.

    What runs goes on, and the queue accepts new tasks up to its bound. The broker keeps the pause.
    """
    app = target.queues()
    name = _known(target, queue)
    changed = app.pause_queue(name)
    depth = app.engine.run(app.broker.depth(name, app.conf.namespace))
    state = "paused" if changed else "was paused already"
    click.echo(f"{clean(name)} {state}; {count(depth)} tasks in it")


@click.command()
@click.argument("queue")
@click.pass_obj
def resume(target: Target, queue: str) -> None:
    """Let workers go on with a paused queue."""
    name = _known(target, queue)
    changed = target.queues().resume_queue(name)
    click.echo(f"{clean(name)} {'resumed' if changed else 'was not paused'}")


def _known(target: Target, queue: str) -> str:
    """The queue's own name. Raises `UnknownQueue` for one that is neither declared nor there."""
    app = target.queues()
    name = app.conf.real_name(queue)
    there = app.engine.run(app.engine.inspect.queues(app.conf.namespace))
    known = {info.name for info in there} | {declared.name for declared in app.conf.queues}
    if name not in known:
        raise UnknownQueue(f"there is no queue {queue!r}{hint(queue, known)}")
    return name
