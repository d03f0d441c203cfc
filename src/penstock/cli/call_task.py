"""`penstock call`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from penstock.cli.show_result import show
from penstock.cli.target import Target
from penstock.cli.terminal import clean, echo_json
from penstock.errors import EncodeError, ResultTimeout, TaskError, UnknownTask
from penstock.spelling import hint

if TYPE_CHECKING:
    from penstock.app import Penstock
    from penstock.result import AsyncResult
    from penstock.task import Task

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
PATIENCE = 2.0
"""Seconds of waiting after which one may ask whether anybody is there to do the work."""
_NUMBER = re.compile(r"-\d|-\.\d|-Infinity")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", metavar="TASK")
@click.argument("arguments", nargs=-1, metavar="[VALUE | NAME=VALUE]...")
@click.option("-q", "--queue", metavar="NAME", help="[default: the task's]")
@click.option("--countdown", type=float, metavar="SECONDS", help="Run it no sooner than in so many seconds.")
@click.option("--expires", type=float, metavar="SECONDS", help="Do not start it later than that.")
@click.option("--priority", type=int, metavar="0-9", help="9 is served first.")
@click.option("--id", "task_id", metavar="ID", help="Choose the id: a second call with it is recognised as a repeat.")
@click.option("-w", "--wait", is_flag=True, help="Wait for the result, and show it.")
@click.option("--timeout", type=float, metavar="SECONDS", help="With --wait: give up waiting (not the task).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def call(
    ctx: click.Context,
    /,
    name: str,
    arguments: tuple[str, ...],
    wait: bool,
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Call a task by name and print the call's id.

    A VALUE is JSON, or else plain text: penstock call tasks.add 4 4; penstock call tasks.greet Ada loud=true. Text that
    looks like something else goes in JSON's quotes: '"4"'.
    """
    target: Target = ctx.obj
    if name.startswith("-"):
        raise click.UsageError(f"no option {name}; options of penstock itself, such as -A, go before the command")
    app = target.queues() if target.given else target.app()
    task = find_task(app, name, known_only=target.name is not None)
    args, kwargs = read_arguments(arguments, task)
    given = {option: value for option, value in options.items() if value is not None}
    try:
        result = app.send_task(name, args, kwargs, **given)
    except EncodeError:
        raise
    except TypeError as error:  # the arguments do not fit the function
        raise TaskError(str(error)) from error
    if not wait:
        if as_json:
            echo_json({"id": result.id, "task": name})
        else:
            click.echo(result.id)
        return
    if not as_json:
        click.echo(result.id, err=True)
    wait_for(app, result, timeout)
    ctx.exit(show(result, as_json=as_json, value_only=True))


def wait_for(app: Penstock, result: AsyncResult[Any], timeout: float | None) -> None:
    """Wait for the end; say so when nobody is there to bring it about."""
    soon = PATIENCE if timeout is None else min(PATIENCE, timeout)
    try:
        result.get(soon, propagate=False)
        return
    except ResultTimeout:
        if timeout is not None and timeout <= soon:
            raise
    if not app.engine.run(app.engine.coordinator.workers()):
        click.echo(
            "no worker is running: the task waits (start one: penstock -A … worker; Ctrl-C: stop waiting)", err=True
        )
    result.get(None if timeout is None else timeout - soon, propagate=False)


def find_task(app: Penstock, name: str, known_only: bool) -> Task[..., Any] | None:
    """The task, or with only a broker at hand nothing: then the worker must know it. Raises `UnknownTask`."""
    task = app.tasks.get(name)
    if task is None and known_only:
        raise UnknownTask(f"{app.name} has no task {clean(name)!r}{hint(name, app.tasks)}")
    return task


def read_arguments(texts: Sequence[str], task: Task[..., Any] | None) -> tuple[list[Any], dict[str, Any]]:
    """Positional and named arguments. Raises `click.UsageError` for what looks like a mistyped option."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    parameters = task.codec.signature.parameters if task is not None else {}
    kinds = [parameter.annotation for parameter in parameters.values()]
    for text in texts:
        if text.startswith("-") and len(text) > 1 and not _NUMBER.match(text):
            raise click.UsageError(f"no option {text}; if it is an argument, quote it as JSON: '\"{text}\"'")
        named = _NAMED.fullmatch(text)
        if named:
            name, value = named.groups()
            kwargs[name] = read_value(value, parameters[name].annotation if name in parameters else Any)
        else:
            args.append(read_value(text, kinds[len(args)] if len(args) < len(kinds) else Any))
    return args, kwargs


def read_value(text: str, kind: Any = Any) -> Any:
    """JSON where it is JSON, else the text. For a parameter that is a `str`, 4 means "4"."""
    if kind is str and not text.startswith('"'):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
