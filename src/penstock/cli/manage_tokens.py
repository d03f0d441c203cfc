"""`penstock tokens`: secrets with an expiry, in place of passwords."""

from __future__ import annotations

import time
from typing import Any

import click

from penstock.cli.administering import ask, data_option
from penstock.cli.target import Target
from penstock.cli.terminal import clean, duration, echo_json, moment, table

HEADS = ("token", "user", "created", "expires", "")


@click.group()
def tokens() -> None:
    """Tokens, which a client gives in place of its user's password."""


@tokens.command()
@click.argument("user", required=False)
@click.option(
    "--expires", default="30d", show_default=True, metavar="TIME", help="How long it lives: 90m, 12h, 30d, 2w."
)
@data_option
@click.pass_obj
def create(target: Target, user: str | None, expires: str, data: str | None) -> None:
    """Create a token of USER, else of who asks, and print it."""
    from penstock.server.access.tokens import read_life

    answer = ask(target, data, "tokens create", {"user": user, "life": read_life(expires)})
    click.echo(
        f"a token of {clean(answer['user'])!r} until {moment(answer['expires'])}, which is shown this once:", err=True
    )
    click.echo(clean(answer["token"]))


@tokens.command(name="list")
@click.argument("user", required=False)
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(target: Target, user: str | None, data: str | None, as_json: bool) -> None:
    """List tokens, without their secrets: of USER, else all that you may see."""
    found = ask(target, data, "tokens list", {"user": user})
    if as_json:
        echo_json(found)
    elif not found:
        click.echo("no tokens")
    else:
        now = time.time()
        click.echo(table(HEADS, [row(token, now) for token in found]))


@tokens.command()
@click.argument("token", metavar="ID")
@data_option
@click.pass_obj
def revoke(target: Target, token: str, data: str | None) -> None:
    """Revoke a token. Who signed in with it is signed out. ID is the middle of pst_ID_SECRET."""
    ask(target, data, "tokens revoke", {"id": token})
    click.echo(f"revoked token {clean(token)!r}")


def row(token: dict[str, Any], now: float) -> list[str]:
    left = token["expires"] - now
    state = f"in {duration(left)}" if left > 0 else click.style("expired", fg="red")
    return [clean(token["id"]), clean(token["user"]), moment(token["created"]), moment(token["expires"]), state]
