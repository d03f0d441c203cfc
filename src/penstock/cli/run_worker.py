"""`penstock worker`."""

from __future__ import annotations

import click

from penstock.cli.metrics_options import metrics_options
from penstock.cli.target import Target
from penstock.metrics.place import Place

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


@click.command()
@click.option(
    "-c", "--concurrency", type=int, metavar="N", help="Processes, threads or coroutines. [default: one per core]"
)
@click.option(
    "-P", "--pool", metavar="NAME", help="prefork, threads, asyncio or solo. [default: the setting worker_pool]"
)
@click.option(
    "-Q", "--queues", metavar="NAMES", default="", help="Comma-separated, most wanted first. [default: all of the app]"
)
@click.option("-n", "--name", metavar="NAME", help="Its name; %h is the host, %p the process id.")
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
@click.option("-B", "--beat", "with_beat", is_flag=True, help="Run a beat as well, which publishes periodic tasks.")
@click.option("--burst", is_flag=True, help="Stop when nothing is ready to run.")
@click.option("--max-tasks-per-child", type=int, metavar="N", help="Replace a child after so many tasks.")
@click.option("--max-memory-per-child", type=int, metavar="KIB", help="Replace a child that has grown beyond this.")
@metrics_options
@click.pass_context
def worker(
    ctx: click.Context,
    concurrency: int | None,
    pool: str | None,
    queues: str,
    name: str | None,
    loglevel: str,
    with_beat: bool,
    burst: bool,
    max_tasks_per_child: int | None,
    max_memory_per_child: int | None,
    metrics: Place | None,
) -> None:
    """Run tasks until stopped.

    TERM or Ctrl-C finishes what runs and hands back the rest; a second Ctrl-C gives up what runs, too: it is delivered
    again. HUP replaces the children.
    """
    target: Target = ctx.obj
    app = target.app()
    from penstock.worker import Worker, WorkerOptions
    from penstock.worker.log import show_log

    show_log(loglevel)  # what engines warn of when they are opened belongs into it, too
    options = WorkerOptions(
        concurrency=concurrency,
        pool=pool,
        queues=tuple(part.strip() for part in queues.split(",") if part.strip()),
        name=name,
        loglevel=loglevel,
        beat=with_beat,
        burst=burst,
        max_tasks_per_child=max_tasks_per_child,
        max_memory_per_child=max_memory_per_child,
        metrics=metrics,
    )
    ctx.exit(Worker(app, options).run())
