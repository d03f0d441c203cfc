"""`penstock broker status`, `set`, `backup`, `restore` and `check`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from penstock.cli.administering import Administered
from penstock.cli.target import Target
from penstock.cli.terminal import clean, count, duration, echo_json, faint, fields, heading, size, table
from penstock.errors import ConfigError

broker_option = click.option(
    "-b", "--broker", "url", metavar="URL", help="The broker: penstock://… [default: -b or -A before the command]"
)


def reach(target: Target, url: str | None) -> Any:
    """The engine of a running broker. Raises `ConfigError` where there is none."""
    if url is not None:
        from penstock.cli.bare_app import BareApp

        engine: Any = BareApp("penstock", broker=url).engine
    else:
        if not target.named:
            raise ConfigError("name the broker: penstock broker status -b penstock://user@host/")
        engine = target.queues().engine
    if not isinstance(engine, Administered):
        raise ConfigError(f"{engine.url} is no penstock broker: name one with -b penstock://…")
    return engine


def ask(target: Target, url: str | None, command: str, arguments: Mapping[str, Any]) -> Any:
    engine = reach(target, url)
    try:
        return engine.run(engine.administer(command, arguments))
    finally:
        if url is not None:
            engine.close()


@click.command()
@broker_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(target: Target, url: str | None, as_json: bool) -> None:
    """Show what a broker does: queues, clients, memory. Needs the tag monitoring."""
    found = ask(target, url, "broker status", {})
    if as_json:
        echo_json(found)
        return
    click.echo(heading(f"penstock broker {found['version']}") + f", process {found['pid']}")
    memory = found["memory"]
    holding = [f"{count(memory[name])} {name.replace('_', ' ')}" for name in HOLDERS if memory[name]]
    click.echo(
        fields(
            [
                (
                    "data",
                    f"{clean(found['data'])}, survives {SURVIVES.get(found['durability'], '?')}",
                ),
                ("up", f"{duration(found['uptime'])}, {found['cpu_seconds']:.1f} s of CPU"),
                ("clients", f"{count(found['connections'])} of {count(found['max_connections'])}"),
                ("refused", f"{count(found['sign_ins_refused'])} sign-ins"),
                ("memory", f"{size(memory['resident'])}{faint(' · ' + ' · '.join(holding)) if holding else ''}"),
            ]
        )
    )
    for space in found["namespaces"]:
        click.echo(
            f"\n{heading('namespace ' + clean(space['namespace']))}, {size(space['bytes'])} on disk, "
            f"{count(space['workers'])} workers"
        )
        click.echo(table(QUEUE_HEADS, [_queue(one) for one in space["queues"]], right=range(1, len(QUEUE_HEADS))))
    if found["clients"]:
        click.echo()
        click.echo(table(CLIENT_HEADS, [_client(one) for one in found["clients"]], right=range(3, len(CLIENT_HEADS))))


SURVIVES: Mapping[str, str] = MappingProxyType({"power": "loss of power", "process": "the death of processes"})
HOLDERS = ("leases", "watched_results", "parked_steps", "blocked_publishes", "unread_by_clients")
QUEUE_HEADS = (
    "queue",
    "depth",
    "limit",
    "ready",
    "leased",
    "delayed",
    "dead",
    "bytes",
    "in/s",
    "out/s",
    "oldest",
    "consumers",
)
CLIENT_HEADS = ("user", "from", "client", "workers", "credit", "unsettled", "published/s", "settled/s", "unread")


def _queue(one: Mapping[str, Any]) -> Sequence[str]:
    return (
        clean(f"{one['namespace']}/{one['name']}" if one["namespace"] else one["name"])
        + (" (paused)" if one["paused"] else ""),
        count(one["depth"]),
        count(one["max_length"]),
        count(one["ready"]),
        count(one["leased"]),
        count(one["delayed"]),
        count(one["dead"]),
        size(one["bytes"]),
        _rate(one["rate_in"]),
        _rate(one["rate_out"]),
        duration(one["oldest_age"]),
        count(one["consumers"]),
    )


def _client(one: Mapping[str, Any]) -> Sequence[str]:
    return (
        clean(one["user"]),
        clean(one["address"]),
        clean(one["client"]),
        count(one["workers"]),
        count(one["credit"]),
        count(one["unsettled"]),
        _rate(one["publish_rate"]),
        _rate(one["settle_rate"]),
        size(one["unread_bytes"]),
    )


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"


@click.command(name="set")
@click.argument("settings", nargs=-1, required=True, metavar="NAME=VALUE…")
@broker_option
@click.pass_obj
def set_(target: Target, settings: Sequence[str], url: str | None) -> None:
    """Change heartbeat, slow or max_connections of a running broker, until it is started anew."""
    given: dict[str, float | int] = {}
    for text in settings:
        name, mark, value = text.partition("=")
        try:
            given[name.replace("-", "_")] = int(value) if value.isdigit() else float(value)
        except ValueError:
            raise click.UsageError(f"{text!r}: write NAME=NUMBER" if mark else f"{text!r}: write NAME=VALUE") from None
    for name, value in ask(target, url, "broker set", given).items():
        click.echo(f"{name} = {value:g}")


@click.command()
@click.argument("place")
@broker_option
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="The data folder, on this machine.")
@click.pass_obj
def backup(target: Target, place: str, url: str | None, data: Path | None) -> None:
    """Copy all data, while the broker runs: with --data into the folder PLACE; else PLACE is a name, and the copy is
    made below the broker's own folder."""
    if data is None:
        made = ask(target, url, "broker backup", {"name": place})
        click.echo(
            f"backed up into {clean(made['folder'])} on the broker's machine ({len(made['databases'])} databases)"
        )
        return
    from penstock.server.backup import backup as make

    found = make(data, Path(place).absolute())
    click.echo(f"backed up into {place} ({len(found)} databases)")


@click.command()
@click.argument("place", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, metavar="DIR", help="A folder without data.")
def restore(place: Path, data: Path) -> None:
    """Put a backup into an empty data folder, for a broker to be started with."""
    from penstock.server.backup import restore as put_back

    found = put_back(place, data)
    click.echo(f"restored {len(found)} databases into {data}; start it: penstock broker --data {data}")


@click.command()
@broker_option
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Check the files of this folder instead.")
@click.pass_obj
def check(target: Target, url: str | None, data: Path | None) -> None:
    """Does the broker serve (exit code 0)? Or, with --data: are its files whole?

    With a user in -b it signs in and asks something; without one it is enough that the broker answers.
    """
    if data is not None:
        from penstock.server.backup import check as examine
        from penstock.server.backup import databases

        found = list(databases(data))
        if not found:
            raise ConfigError(f"there is no broker's data in {data}")
        for name in found:
            examine(data / name)
            click.echo(f"{name}: whole")
        return
    began = time.monotonic()
    if url is not None and not names_a_user(url):
        from penstock.engines.server.knock import knock

        knock(url)
        click.echo(f"it answers, in {(time.monotonic() - began) * 1000:.0f} ms; nobody signed in")
        return
    engine = reach(target, url)
    engine.run(engine.coordinator.workers())
    click.echo(f"{engine.url} serves: signed in and answered in {(time.monotonic() - began) * 1000:.0f} ms")
    if url is not None:
        engine.close()


def names_a_user(url: str) -> bool:
    from penstock.engines.server.settings import read_settings

    settings = read_settings(url)
    return settings.address.user is not None or "cert" in settings.address.options


COMMANDS = (status, set_, backup, restore, check)
