"""`penstock dead`: the tasks that were given up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from penstock import apart
from penstock.broker import DeadLetter
from penstock.cli.peek_queue import message_data, message_fields
from penstock.cli.target import Target
from penstock.cli.terminal import clean, columns, duration, echo_json, fields, moment, short, table
from penstock.codec.readable import arguments
from penstock.errors import TaskError

HEADS = ("id", "queue", "task", "died", "reason", "arguments")
MOST = 1000
"""Dead letters read at once."""


@click.group()
def dead() -> None:
    """List, show, retry or drop dead letters: tasks that were given up."""


@dead.command(name="list")
@click.argument("queue", required=False)
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(target: Target, queue: str | None, limit: int, as_json: bool) -> None:
    """The newest first."""
    found = letters(target, queue, limit)
    if as_json:
        echo_json([as_data(letter) for letter in found])
    elif not found:
        click.echo("no dead letters")
    else:
        now = time.time()
        click.echo(table(HEADS, [row(letter, now) for letter in found]))


@dead.command()
@click.argument("task_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(target: Target, task_id: str, as_json: bool) -> None:
    """All that is known of one."""
    letter = next((one for one in letters(target, None, MOST) if one.id == task_id), None)
    if letter is None:
        raise TaskError(f"{task_id} is not among the newest {MOST:,} dead letters; see penstock dead list")
    if as_json:
        echo_json(as_data(letter))
        return
    lines = [("id", clean(letter.id)), ("queue", clean(letter.queue)), ("died", moment(letter.died))]
    lines.append(("reason", clean(letter.reason)))
    if letter.message is None:
        lines.append(("message", f"cannot be read: {len(letter.raw):,} bytes, {clean(repr(letter.raw[:60]))}"))
    else:
        lines += message_fields(letter.message)
    trace = target.queues().AsyncResult(letter.id).traceback
    if trace:
        lines.append(("traceback", clean(trace.rstrip(), keep="\n")))
    click.echo(fields(lines))


@dead.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "all_", is_flag=True, help="All that there are now.")
@click.option("-q", "--queue", metavar="NAME", help="With --all: only those of this queue.")
@click.pass_obj
def retry(target: Target, ids: tuple[str, ...], all_: bool, queue: str | None) -> None:
    """Put them back into their queues, with fresh counts."""
    app = target.queues()
    chosen = choose(target, ids, all_, queue)
    done = sum(app.engine.run(apart.retry_dead(app.engine, app.results, part)) for part in parts(chosen))
    told("put back", done, len(chosen))


@dead.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "all_", is_flag=True, help="All that there are now.")
@click.option("-q", "--queue", metavar="NAME", help="With --all: only those of this queue.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def drop(target: Target, ids: tuple[str, ...], all_: bool, queue: str | None, yes: bool) -> None:
    """Delete them, for good."""
    engine = target.queues().engine
    chosen = choose(target, ids, all_, queue)
    if chosen and not yes:
        click.confirm(f"Delete {len(chosen):,} dead letters at {clean(engine.url)}?", abort=True, err=True)
    done = sum(engine.run(engine.inspect.drop_dead(part)) for part in parts(chosen))
    told("deleted", done, len(chosen))


def letters(target: Target, queue: str | None, limit: int) -> Sequence[DeadLetter]:
    app = target.queues()
    return app.engine.run(app.engine.inspect.dead_letters(queue, limit, app.conf.namespace))


def choose(target: Target, ids: tuple[str, ...], all_: bool, queue: str | None) -> list[str]:
    """The ids meant. All of them are read first: what is retried may die again meanwhile, and is not meant."""
    if bool(ids) == all_ or (queue and not all_):
        raise click.UsageError("give either ids, or --all (with --queue NAME for one queue)")
    return list(ids) if ids else [letter.id for letter in letters(target, queue, 1 << 30)]


def parts(ids: list[str]) -> list[list[str]]:
    """One transaction each: a long one would hold up everybody."""
    return [ids[at : at + MOST] for at in range(0, len(ids), MOST)]


def told(what: str, done: int, asked: int) -> None:
    click.echo(f"{what} {done:,} of {asked:,}" if asked else "no dead letters")
    if done < asked:
        raise TaskError(f"{asked - done:,} were not there (any more); see penstock dead list")


def row(letter: DeadLetter, now: float) -> list[str]:
    width = max(16, (columns() - 85) // 2)
    message = letter.message
    return [
        clean(letter.id),
        clean(letter.queue),
        short(message.task, 40) if message else "(cannot be read)",
        f"{duration(max(0.0, now - letter.died))} ago",
        short(letter.reason, width),
        short(arguments(message), width) if message else "",
    ]


def as_data(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "died": letter.died,
        **message_data(letter.message),
        "queue": letter.queue,
    }
