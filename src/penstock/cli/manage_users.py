"""`penstock users`: who may do what at a broker."""

from __future__ import annotations

from typing import Any

import click

from penstock.cli.administering import F, ask, data_option, read_password, show_generated
from penstock.cli.target import Target
from penstock.cli.terminal import clean, echo_json, table

HEADS = ("user", "tags", "password", "namespace", "configure", "write", "read")


@click.group()
def users() -> None:
    """Users of a broker, their tags and permissions."""


def password_options(command: F) -> F:
    for option, text in (
        ("--no-password", "None: the user signs in by token or certificate only."),
        ("--generate", "Make one up, and print it."),
        ("--password-stdin", "Read it from standard input."),
    ):
        command = click.option(option, is_flag=True, help=text)(command)
    return command


def chosen_password(password_stdin: bool, generate: bool, no_password: bool) -> dict[str, object]:
    """The arguments that say what the password is."""
    if password_stdin + generate + no_password > 1:
        raise click.UsageError("give one of --password-stdin, --generate and --no-password")
    if generate:
        return {"generate": True}
    return {} if no_password else {"password": read_password(password_stdin)}


@users.command()
@click.argument("name")
@password_options
@data_option
@click.pass_obj
def add(target: Target, /, name: str, data: str | None, **password: bool) -> None:
    """Add a user, who may do nothing yet. Asks for the password."""
    answer = ask(target, data, "users add", {"name": name, **chosen_password(**password)})
    click.echo(f"added user {clean(name)!r}; it may do nothing yet: penstock users permit, or tag", err=True)
    show_generated(answer)


@users.command(name="list")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(target: Target, data: str | None, as_json: bool) -> None:
    """List the users, and what each may do."""
    found = ask(target, data, "users list", {})
    if as_json:
        echo_json(found)
    elif not found:
        click.echo("no users")
    else:
        click.echo(table(HEADS, [cells for user in found for cells in rows(user)]))


@users.command()
@click.argument("name")
@password_options
@data_option
@click.pass_obj
def password(target: Target, /, name: str, data: str | None, **password: bool) -> None:
    """Change a user's password. Who signed in with the former one is signed out."""
    answer = ask(target, data, "users password", {"name": name, **chosen_password(**password)})
    click.echo(f"changed the password of {clean(name)!r}", err=True)
    show_generated(answer)


@users.command()
@click.argument("name")
@click.argument("tags", nargs=-1, metavar="[TAG]...")
@data_option
@click.pass_obj
def tag(target: Target, name: str, tags: tuple[str, ...], data: str | None) -> None:
    """Give a user these tags and no others: administrator, monitoring."""
    ask(target, data, "users tag", {"name": name, "tags": tags})
    click.echo(f"{clean(name)!r} has the tags {clean(', '.join(tags))}" if tags else f"{clean(name)!r} has no tags")


@users.command()
@click.argument("name")
@click.argument("configure")
@click.argument("write")
@click.argument("read")
@click.option("--namespace", default="/", show_default=True, metavar="NAME", help="Where; * is everywhere.")
@data_option
@click.pass_obj
def permit(target: Target, name: str, configure: str, write: str, read: str, namespace: str, data: str | None) -> None:
    """Say what a user may do in a namespace.

    CONFIGURE, WRITE and READ are regular expressions, each of which must match the whole name of a queue: '.*' for all,
    '' for none.
    """
    arguments = {"name": name, "namespace": namespace, "configure": configure, "write": write, "read": read}
    ask(target, data, "users permit", arguments)
    click.echo(f"{clean(name)!r} may, in {clean(namespace)!r}: {clean(said(arguments))}")


@users.command()
@click.argument("name")
@click.option(
    "--namespace", default="/", show_default=True, metavar="NAME", help="Where; * is what was permitted everywhere."
)
@data_option
@click.pass_obj
def forbid(target: Target, name: str, namespace: str, data: str | None) -> None:
    """Take back what a user was permitted in a namespace."""
    ask(target, data, "users forbid", {"name": name, "namespace": namespace})
    click.echo(f"{clean(name)!r} has no permission of its own in {clean(namespace)!r} any more")


@users.command()
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@data_option
@click.pass_obj
def delete(target: Target, name: str, yes: bool, data: str | None) -> None:
    """Delete a user, with its permissions and tokens. Its connections are refused from then on."""
    if not yes:
        click.confirm(f"Delete user {clean(name)!r}, with its permissions and tokens?", abort=True, err=True)
    ask(target, data, "users delete", {"name": name})
    click.echo(f"deleted user {clean(name)!r}")


def said(permission: dict[str, Any]) -> str:
    return ", ".join(f"{right} {permission[right]!r}" for right in ("configure", "write", "read"))


def rows(user: dict[str, Any]) -> list[list[str]]:
    """A line for each permission; the user is named in the first."""
    who = [clean(user["user"]), clean(", ".join(user["tags"])) or "–", "yes" if user["password"] else "no"]
    given = [[clean(one[head]) for head in HEADS[3:]] for one in user["permissions"]] or [["–"] * 4]
    return [(who if at == 0 else ["", "", ""]) + cells for at, cells in enumerate(given)]
