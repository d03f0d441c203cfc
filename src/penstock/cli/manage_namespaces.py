"""`penstock namespaces`: what keeps the users of one broker apart."""

from __future__ import annotations

import click

from penstock.cli.administering import ask, data_option
from penstock.cli.target import Target
from penstock.cli.terminal import clean, echo_json, table


@click.group()
def namespaces() -> None:
    """Namespaces of a broker: queues of the same name in two of them are two queues."""


@namespaces.command()
@click.argument("name")
@data_option
@click.pass_obj
def add(target: Target, name: str, data: str | None) -> None:
    """Add a namespace, in which nobody may do anything yet."""
    ask(target, data, "namespaces add", {"name": name})
    click.echo(f"added namespace {clean(name)!r}")


@namespaces.command(name="list")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(target: Target, data: str | None, as_json: bool) -> None:
    """List the namespaces, and who has permissions there."""
    found = ask(target, data, "namespaces list", {})
    if as_json:
        echo_json(found)
    else:
        cells = [[clean(one["namespace"]), clean(", ".join(one["users"])) or "–"] for one in found]
        click.echo(table(("namespace", "users"), cells))


@namespaces.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@data_option
@click.pass_obj
def delete(target: Target, name: str, yes: bool, data: str | None) -> None:
    """Delete a namespace, and the permissions in it. Its queues stay in the store, where nobody reaches them."""
    if not yes:
        click.confirm(f"Delete namespace {clean(name)!r}, and all permissions in it?", abort=True, err=True)
    ask(target, data, "namespaces delete", {"name": name})
    click.echo(f"deleted namespace {clean(name)!r}")
