"""`penstock`: what is common to all commands, and how their errors end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

import click

from penstock.cli.target import ImportFailed, Target
from penstock.cli.terminal import clean
from penstock.errors import BrokerUnavailable, ConfigError, PenstockError, QueueFull, ResultTimeout

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "worker": ("penstock.cli.run_worker:worker", "Run tasks until stopped."),
        "beat": ("penstock.cli.beat:beat", "Publish periodic tasks; list and change them."),
        "call": ("penstock.cli.call_task:call", "Call a task by name."),
        "result": ("penstock.cli.show_result:result", "Show what became of a call."),
        "watch": ("penstock.cli.watch_tasks:watch", "Watch tasks run, with their progress."),
        "queues": ("penstock.cli.show_queues:queues", "Show depth, bound, age and rates of queues; pause them."),
        "pressure": ("penstock.cli.show_pressure:pressure", "Watch how full queues are, how long tasks wait, and why."),
        "plan": ("penstock.cli.plan_load:plan", "Threads and queue length for a load, and the slowest tasks."),
        "peek": ("penstock.cli.peek_queue:peek", "Look at a queue's tasks without taking them."),
        "purge": ("penstock.cli.purge_queue:purge", "Drop a queue's waiting tasks."),
        "dead": ("penstock.cli.dead_letters:dead", "List, show, retry or drop dead letters."),
        "users": ("penstock.cli.manage_users:users", "Users of a broker, and what they may do."),
        "tokens": ("penstock.cli.manage_tokens:tokens", "Tokens in place of passwords."),
        "namespaces": ("penstock.cli.manage_namespaces:namespaces", "Namespaces of a broker."),
        "doctor": ("penstock.cli.doctor:doctor", "Check the set-up, and say what to fix."),
        "broker": ("penstock.cli.run_broker:broker", "Serve the queues to other processes and machines."),
        "gateway": ("penstock.gateway.command:gateway", "Serve tasks over HTTP."),
        "service": ("penstock.cli.service:service", "Run a broker or a worker in the background, as a service."),
        "demo": ("penstock.cli.demo.command:demo", "See it work, on your own machine."),
    }
)
"""Command → where it is, and its line in the help: a worker should not wait for the imports of the others."""

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_YET = 3
EXIT_TRY_LATER = 75
"""As `EX_TEMPFAIL` of sysexits.h: nothing was done, the same may work later."""
EXIT_INTERRUPTED = 130


class Commands(click.Group):
    """Imports a command when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from penstock.spelling import hint

            raise click.UsageError(f"No such command {args[0]!r}{hint(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import platform

        import penstock

        click.echo(f"penstock {penstock.__version__}, Python {platform.python_version()}")
        ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The app can also be named by the environment: PENSTOCK_APP=tasks; its queue by PENSTOCK_BROKER_URL.",
)
@click.option(
    "-A", "--app", "app", metavar="MODULE[:NAME]", help="The module that makes your app, e.g. tasks, or pkg.mod:app."
)
@click.option(
    "-b", "--broker", metavar="URL", help="Instead of -A, where no tasks are needed: e.g. sqlite:///queue.db."
)
@click.option("--namespace", default="", metavar="NAME", help="With --broker: the namespace to look at.")
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version, help="Show the version."
)
@click.pass_context
def cli(ctx: click.Context, app: str | None, broker: str | None, namespace: str) -> None:
    """Asynchronous work for Python: call a function later, anywhere; it is never lost."""
    ctx.obj = Target(app, broker, namespace, os.environ, os.getcwd())
    ctx.call_on_close(ctx.obj.close)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point. Ends the process with 0, or a code that says what kind of failure it was."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 failed, 2 wrong usage or set-up, 3 not ended yet, 75 try again later, 130 Ctrl-C
    (`result` has 4, too: unknown)."""
    try:
        code: Any = cli.main(arguments, prog_name="penstock", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    except click.NoSuchOption as error:
        misplaced = error.option_name in ("-A", "--app", "-b", "--broker", "--namespace")
        _complain(
            error,
            f"{error.option_name} goes before the command: penstock {error.option_name} … COMMAND"
            if misplaced
            else None,
        )
        return EXIT_USAGE
    except click.ClickException as error:
        _complain(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return EXIT_INTERRUPTED
    except PenstockError as error:
        return report(error)
    return code if isinstance(code, int) else 0


def report(error: PenstockError) -> int:
    """Print the error as one line, and return its exit code. A module that does not import shows its own traceback."""
    if isinstance(error, ImportFailed):
        click.echo(clean(error.traceback, keep="\n").rstrip(), err=True)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {clean(str(error))}", err=True)
    if isinstance(error, QueueFull | BrokerUnavailable):
        return EXIT_TRY_LATER
    if isinstance(error, ResultTimeout):
        return EXIT_NOT_YET
    return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED


def _complain(error: click.ClickException, remedy: str | None = None) -> None:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {clean(remedy or error.format_message())}", err=True)
