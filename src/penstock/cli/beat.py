"""`penstock beat`: publish periodic tasks, and look at the timetable and change it."""

from __future__ import annotations

from typing import get_args

import click

from penstock.beat.line import CatchUp
from penstock.beat.timetable import Listed
from penstock.cli.call_task import find_task, read_arguments
from penstock.cli.check_beat import SILENT
from penstock.cli.run_worker import LEVELS
from penstock.cli.target import Target
from penstock.cli.terminal import clean, columns, duration, echo_json, faint, moment, short, table
from penstock.errors import ConfigError, EncodeError, TaskError
from penstock.signature import Signature

HEADS = ("name", "task", "schedule", "next", "from")


@click.group(invoke_without_command=True)
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
@click.pass_context
def beat(ctx: click.Context, loglevel: str) -> None:
    """Publish periodic tasks when they are due, until stopped; or list and change them.

    Any number may run: one leads, the others stand by to take over.
    """
    if ctx.invoked_subcommand is not None:
        return
    target: Target = ctx.obj
    app = target.app()
    from penstock.beat.beat import Beat, catch_signals
    from penstock.worker.log import name_log, show_log

    show_log(loglevel)
    name_log("beat")
    if app.engine.broker.features.durability == "memory":
        raise ConfigError(
            f"{app.engine.url} lives in one process only: run the beat in the worker's (penstock worker -B -P "
            "threads), or take a broker URL such as sqlite:///queue.db"
        )
    runs = Beat(app)
    catch_signals(runs)
    ctx.exit(runs.run())


@beat.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(target: Target, as_json: bool) -> None:
    """What is due next, and who leads."""
    app = target.app()
    found, leader = app.timetable.list(), app.timetable.leader()
    now = app.clock.time()
    if as_json:
        from msgspec import to_builtins

        echo_json({"schedules": to_builtins(found), "leader": to_builtins(leader)})
        return
    if found:
        click.echo(table(HEADS, [row(one, now) for one in sorted(found, key=_next)]))
    else:
        click.echo("no schedules")
    if leader is None:
        click.echo(faint("no beat has led yet: start one, penstock beat, or penstock worker -B"))
    else:
        silent = max(0.0, now - leader.seen)
        said = f"led by {clean(leader.holder)}, last seen {duration(silent)} ago"
        click.echo(faint(said) if silent < SILENT else click.style(f"{said}: does a beat run?", fg="red"))


def row(one: Listed, now: float) -> list[str]:
    width = max(20, columns() // 4)
    if one.paused:
        coming = click.style("paused", fg="yellow")
    else:
        coming = "never" if one.next is None else f"{moment(one.next)} (in {duration(one.next - now)})"
    origin = "code" if one.origin == "app" else "added"
    return [short(one.name, width), short(one.task, width), short(one.schedule, width), coming, origin]


def _next(one: Listed) -> tuple[float, str]:
    return (float("inf") if one.next is None else one.next, one.name)


@beat.command(context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("schedule")
@click.argument("task")
@click.argument("arguments", nargs=-1, metavar="[VALUE | NAME=VALUE]...")
@click.option("-q", "--queue", metavar="NAME", help="[default: the task's]")
@click.option("--tz", metavar="ZONE", help="Whose clock; e.g. Europe/Berlin. [default: the app's timezone]")
@click.option("--jitter", type=float, default=0.0, metavar="SECONDS", help="Spread ticks over so long.")
@click.option("--catch-up", type=click.Choice(get_args(CatchUp)), default="latest", show_default=True)
@click.option("--max-late", type=float, metavar="SECONDS", help="Do not publish a tick later than that.")
@click.pass_obj
def add(
    target: Target,
    /,
    name: str,
    schedule: str,
    task: str,
    arguments: tuple[str, ...],
    queue: str | None,
    tz: str | None,
    jitter: float,
    catch_up: CatchUp,
    max_late: float | None,
) -> None:
    """Add a schedule, in force from now on.

    SCHEDULE is a cron line, or words: penstock beat add report '0 4 * * mon' tasks.report; penstock beat add poll
    'every 10 minutes' tasks.poll url=…
    """
    from penstock.schedules import read_schedule

    app = target.app()
    args, kwargs = read_arguments(arguments, find_task(app, task, known_only=True))
    options = {} if queue is None else {"queue": queue}
    try:
        app.timetable.add(
            name,
            read_schedule(schedule, tz or app.conf.timezone),
            Signature(task, tuple(args), kwargs, options),
            jitter=jitter,
            catch_up=catch_up,
            max_late=max_late,
        )
    except EncodeError:
        raise
    except TypeError as error:  # the arguments do not fit the function
        raise TaskError(str(error)) from error


@beat.command()
@click.argument("name")
@click.pass_obj
def pause(target: Target, name: str) -> None:
    """Publish no ticks of a schedule until it is resumed."""
    target.app().timetable.pause(name)


@beat.command()
@click.argument("name")
@click.pass_obj
def resume(target: Target, name: str) -> None:
    """Go on with a paused schedule, from now."""
    target.app().timetable.resume(name)


@beat.command()
@click.argument("name")
@click.pass_obj
def trigger(target: Target, name: str) -> None:
    """Publish a schedule's call now, besides its ticks; prints the call's id."""
    click.echo(target.app().timetable.trigger(name).id)


@beat.command()
@click.argument("name")
@click.pass_obj
def remove(target: Target, name: str) -> None:
    """Remove a schedule that was added at run time."""
    target.app().timetable.remove(name)
