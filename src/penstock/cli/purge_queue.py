"""`penstock purge`."""

from __future__ import annotations

import click

from penstock.cli.target import Target
from penstock.cli.terminal import clean
from penstock.errors import UnknownQueue
from penstock.spelling import hint


@click.command()
@click.argument("queue")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def purge(ctx: click.Context, queue: str, yes: bool) -> None:
    """Drop a queue's waiting tasks, for good.

    Running tasks go on. Who waits for a dropped task sees it REVOKED.
    """
    target: Target = ctx.obj
    app = target.queues()
    engine, namespace = app.engine, app.conf.namespace
    queue = app.conf.real_name(queue)
    known = {info.name: info for info in engine.run(engine.inspect.queues(namespace))}
    info = known.get(queue)
    if info is None:
        raise UnknownQueue(f"there is no queue {queue!r}{hint(queue, known)}")
    if not yes:
        waiting = "all" if info.ready is None or info.delayed is None else f"{info.ready + info.delayed:,}"
        click.confirm(f"Drop {waiting} waiting tasks of {clean(queue)!r} at {clean(engine.url)}?", abort=True, err=True)
    gone = engine.run(engine.inspect.purge(queue, namespace))
    click.echo(f"dropped {gone:,} tasks")
