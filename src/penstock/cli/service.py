"""`penstock service`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from msgspec import to_builtins

from penstock.cli.services import environment_file
from penstock.cli.services.definition import (
    BIND,
    DATA,
    OPTIONS,
    Service,
    check_path,
    check_user,
    kind_of,
    options_value,
    variables,
)
from penstock.cli.services.manager import Manager, Status
from penstock.cli.services.pid_files import PidFiles
from penstock.cli.services.systemd import BOOTED, Systemd
from penstock.cli.target import APP_VARIABLE, Target
from penstock.cli.terminal import clean, echo_json, fields, heading, moment, size
from penstock.errors import ConfigError
from penstock.locate import VARIABLE
from penstock.spelling import without_password

MANAGERS = ("system", "user", "files")
SHOWN = frozenset({APP_VARIABLE, DATA, OPTIONS, BIND})
"""Variables whose values are no secrets."""
MODE = 0o600

name_argument = click.argument("name", metavar="SERVICE")
manager_option = click.option(
    "--manager",
    type=click.Choice(MANAGERS),
    help="The machine's systemd, yours, or pid files. [default: where it is installed]",
)
timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Without systemd: how long to wait for its end."
)


@click.group(short_help="Run a broker or a worker in the background, as a service.")
def service() -> None:
    """Run a broker or a worker in the background, as a service.

    SERVICE is broker or worker, or one of several: worker-mail.
    """


@service.command()
@name_argument
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS OF THE COMMAND]")
@click.option(
    "--manager",
    type=click.Choice(MANAGERS),
    help="The machine's systemd, yours, or pid files. [default: systemd where it runs]",
)
@click.option("--as", "user", metavar="USER", help="Who runs it, under the machine's systemd.")
@click.option(
    "-e", "--env", "given", multiple=True, metavar="NAME[=VALUE]", help="Into its environment file; may be repeated."
)
@click.option("--folder", type=click.Path(path_type=Path), metavar="DIRECTORY", help="Of a worker. [default: this one]")
@click.option("--socket", "sockets", is_flag=True, help="systemd opens the broker's sockets.")
@click.option("--dry-run", is_flag=True, help="Only print what would be written.")
@click.pass_context
def install(
    ctx: click.Context,
    name: str,
    options: Sequence[str],
    manager: str | None,
    user: str | None,
    given: Sequence[str],
    folder: Path | None,
    sockets: bool,
    dry_run: bool,
) -> None:
    """Write what the system needs to run it, and have it started at boot; not yet now.

    What was in its environment file stays, unless -A, --env or the options say something else.
    """
    chosen = manager_named(manager or usual_manager())
    broker = kind_of(name) == "broker"
    if broker and folder is not None:
        raise ConfigError(f"--folder is a worker's; a broker's data is elsewhere with --env {DATA}=…")
    if not broker and sockets:
        raise ConfigError("--socket is a broker's: a worker has no sockets")
    path = chosen.environment_file(name)
    wanted = {} if broker else of_worker(ctx.obj)
    new = variables(given, os.environ) | ({OPTIONS: options_value(options)} if options else {})
    named = ctx.find_root().params["app"]
    new |= {APP_VARIABLE: named} if named and not broker else {}
    environment = {**chosen.defaults(name), **wanted, **environment_file.read(path), **new}
    if not broker and APP_VARIABLE not in environment:
        raise ConfigError(f"a worker needs your app: penstock -A MODULE service install {name}")
    one = Service(
        name=name,
        program=(sys.executable, "-P", "-m", "penstock.cli"),
        folder=None if broker else check_path("--folder", (folder or Path()).absolute()),
        user=None if user is None else check_user(user),
        environment=environment,
    )
    if dry_run:
        show_plan(chosen, one, sockets)
        return
    chosen.plan(one, sockets)  # refuses what cannot be, before anything is written
    environment_file.write_file(path, environment_file.render(environment), MODE)
    click.echo(clean(chosen.install(one, sockets)))
    click.echo(f"its options and secrets: {clean(str(path))}; start it with: penstock service start {name}")


def of_worker(target: Target) -> dict[str, str]:
    """What a worker is told of the shell in which it is installed: it is to find the same app and queue."""
    found = {} if target.name is None else {APP_VARIABLE: target.name}
    return found | ({VARIABLE: os.environ[VARIABLE]} if os.environ.get(VARIABLE) else {})


def show_plan(manager: Manager, one: Service, sockets: bool) -> None:
    for file in manager.plan(one, sockets):
        click.echo(f"{heading(f'==> {file.path}')}\n{file.text}")
    shown = {name: masked(name, value) for name, value in one.environment.items()}
    click.echo(f"{heading(f'==> {manager.environment_file(one.name)}')}\n{environment_file.render(shown)}", nl=False)


def masked(name: str, value: str) -> str:
    if name in SHOWN:
        return value
    return without_password(value) if name == VARIABLE else "***"


@service.command()
@name_argument
@manager_option
def start(name: str, manager: str | None) -> None:
    """Start it. A broker is started when it serves."""
    click.echo(clean(found_manager(name, manager).start(name), keep="\n"))


@service.command()
@name_argument
@manager_option
@timeout_option
def stop(name: str, manager: str | None, timeout: float | None) -> None:
    """Stop it warmly: what it runs ends first. Says what still runs when that takes too long."""
    click.echo(clean(found_manager(name, manager).stop(name, timeout)))


@service.command()
@name_argument
@manager_option
@timeout_option
def restart(name: str, manager: str | None, timeout: float | None) -> None:
    """Stop it, and start it again: with new code, and what is in its environment file now."""
    click.echo(clean(found_manager(name, manager).restart(name, timeout), keep="\n"))


@service.command()
@name_argument
@manager_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def status(ctx: click.Context, name: str, manager: str | None, as_json: bool) -> None:
    """Say whether it runs, since when, its memory, and where its log is.

    Exit code: 1 when it does not run.
    """
    told = found_manager(name, manager).status(name)
    if as_json:
        echo_json(to_builtins(told))
    else:
        show_status(told)
    ctx.exit(0 if told.running else 1)


@service.command()
@name_argument
@manager_option
@click.option("--purge", is_flag=True, help="Its environment file, too.")
def uninstall(name: str, manager: str | None, purge: bool) -> None:
    """Stop it and remove it. The broker's data and the log stay."""
    chosen = found_manager(name, manager)
    click.echo(clean(chosen.uninstall(name)))
    path = chosen.environment_file(name)
    if purge:
        path.unlink(missing_ok=True)
    elif path.exists():
        click.echo(f"its options and secrets stay: {clean(str(path))} (--purge removes them)")


def show_status(told: Status) -> None:
    state = click.style("running", fg="green") if told.running else click.style("stopped", fg="yellow")
    since = "" if told.since is None else f" since {moment(told.since)}"
    rows = [(told.service, state + since)]
    rows += [("pid", str(told.pid))] if told.pid is not None else []
    rows += [("memory", size(told.memory))] if told.running else []
    rows += [("manager", told.manager), ("log", clean(told.log))]
    rows += [("note", clean(told.note))] if told.note else []
    click.echo(fields(rows))


def manager_named(name: str) -> Manager:
    if name == "files":
        return PidFiles(Path.home(), os.environ)
    return Systemd(name, Path.home(), os.environ)


def usual_manager() -> str:
    if not BOOTED.exists():
        return "files"
    return "system" if os.geteuid() == 0 else "user"


def found_manager(name: str, wanted: str | None) -> Manager:
    """Where it is installed. Raises `ConfigError` when that is nowhere, or in several places."""
    kind_of(name)
    candidates = [manager_named(one) for one in ([wanted] if wanted else MANAGERS)]
    found = [one for one in candidates if one.installed(name)]
    if not found:
        raise ConfigError(f"{name} is not installed{f' under {wanted}' if wanted else ''}: penstock service install …")
    if len(found) > 1:
        raise ConfigError(f"{name} is installed under {', '.join(one.name for one in found)}: say which with --manager")
    return found[0]
