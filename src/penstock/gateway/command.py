"""`penstock gateway`, and its tokens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from penstock.app import Penstock
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from penstock.gateway.gateway import Authenticate

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Target(Protocol):
    """What `penstock -A` names."""

    def app(self) -> Penstock: ...


tokens_option = click.option(
    "--tokens",
    "tokens",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="PENSTOCK_GATEWAY_TOKENS",
    metavar="FILE",
    help="The file of tokens; see penstock gateway token add.",
)


@click.group(invoke_without_command=True)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8000, show_default=True, metavar="PORT")
@tokens_option
@click.option("--insecure-no-auth", is_flag=True, help="Let everybody on this machine do everything. For a trial.")
@click.option(
    "--expose", multiple=True, metavar="GLOB", help="Tasks that may be called; may be given often. [default: *]"
)
@click.option("--wait", type=float, default=0.0, show_default=True, metavar="S", help="How long calls wait unasked.")
@click.option("--max-wait", type=float, default=45.0, show_default=True, metavar="S", help="The longest wait.")
@click.option("--max-body", type=int, default=1 << 20, show_default=True, metavar="BYTES")
@click.option(
    "--cors-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of https://HOST ask, exactly that; may be given often.",
)
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="TOML with more settings, which win; read again when it changes.",
)
@click.option("--rate", type=float, metavar="N", help="Requests a second of one client. [default: no limit]")
@click.option("--burst", type=int, default=50, show_default=True, metavar="N", help="With --rate: at once.")
@click.option("--timeout", type=float, default=15.0, show_default=True, metavar="S", help="For a request to come.")
@click.option("--max-connections", type=int, default=10_000, show_default=True, metavar="N")
@click.option(
    "--max-users", type=int, default=200, show_default=True, metavar="N", help="Users of the broker at a time."
)
@click.option(
    "--proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Believe this one's X-Forwarded-For; may be given often.",
)
@click.option("--tls-cert", metavar="FILE", help="Certificate chain, PEM.")
@click.option("--tls-key", metavar="FILE", help="Its private key, PEM.")
@click.option("--allow-plain", is_flag=True, help="Listen without TLS where others than this machine reach it.")
@click.option("--grace", type=float, default=30.0, show_default=True, metavar="S", help="Seconds to end in order.")
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
@click.pass_context
def gateway(
    ctx: click.Context,
    host: str,
    port: int,
    tokens: Path | None,
    insecure_no_auth: bool,
    expose: tuple[str, ...],
    wait: float,
    max_wait: float,
    max_body: int,
    cors_origins: tuple[str, ...],
    settings_file: Path | None,
    rate: float | None,
    burst: int,
    timeout: float,
    max_connections: int,
    max_users: int,
    proxies: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    allow_plain: bool,
    grace: float,
    loglevel: str,
) -> None:
    """Serve tasks over HTTP, to who has a token; where the broker is penstock://, and no --tokens are given, to its
    users.

    TERM or Ctrl-C ends in order: what waits is answered, what runs is finished; a second one at once.
    """
    if ctx.invoked_subcommand is not None:
        return
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together", ctx)
    from penstock.gateway.asgi import asgi_app
    from penstock.gateway.banner import banner
    from penstock.gateway.settings import GatewaySettings
    from penstock.gateway.settings_file import SettingsFile
    from penstock.gateway.users import BrokerUsers, serves
    from penstock.loopback import is_loopback
    from penstock.worker.log import name_log, show_log

    if tokens is not None and insecure_no_auth:
        raise click.UsageError("give --tokens FILE or --insecure-no-auth, not both", ctx)
    if insecure_no_auth and not is_loopback(host):
        raise click.UsageError(
            f"--insecure-no-auth lets everybody who reaches {host} run your tasks: it is only for --host 127.0.0.1", ctx
        )
    if not is_loopback(host) and tls_cert is None and not allow_plain:
        raise click.UsageError(
            f"secrets would cross the network in plain to {host}: give --tls-cert and --tls-key, or --allow-plain "
            "where a proxy in front has TLS",
            ctx,
        )
    target: Target = ctx.obj
    app = target.app()
    if tokens is None and not insecure_no_auth and not serves(app):
        raise click.UsageError(
            "give --tokens FILE (make it with penstock gateway token add); or, for a trial on this machine only, "
            "--insecure-no-auth",
            ctx,
        )
    show_log(loglevel)
    name_log("gateway")
    settings = GatewaySettings(
        expose=expose or ("*",),
        wait=wait,
        max_wait=max_wait,
        max_body=max_body,
        body_timeout=timeout,
        rate=rate,
        burst=burst,
        cors_origins=cors_origins,
    )
    file = None if settings_file is None else SettingsFile(settings_file, settings)
    try:
        from penstock.gateway.serving import Place, serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the gateway needs a server that is not installed ({error.name}): pip install 'penstock[gateway]'"
        ) from error
    place = Place(host, port, timeout, max_connections, grace, tls_cert, tls_key, proxies)
    authenticate = _lets_in(app, tokens, insecure_no_auth, max_users)
    settings = settings if file is None else file.read()
    served = asgi_app(app, authenticate, settings)
    click.echo(banner(app, authenticate, settings), err=True)
    try:
        ctx.exit(serve(served, place, lambda line: click.echo(line, err=True), file))
    finally:
        if isinstance(authenticate, BrokerUsers):
            authenticate.close()


def _lets_in(app: Penstock, tokens: Path | None, everybody: bool, max_users: int) -> Authenticate:
    """What decides who is let in. What is wrong with the broker is said now, not at the first request."""
    from penstock.gateway.anybody import anybody
    from penstock.gateway.tokens import TokenFile
    from penstock.gateway.users import BrokerUsers

    if tokens is None and not everybody:
        from penstock.engines.server.knock import knock

        knock(app.broker_url)
        return BrokerUsers(app, max_users)
    _ = app.engine
    if tokens is not None:
        return TokenFile(tokens)
    click.secho("NO TOKENS: everybody on this machine can run every task of this app", fg="red", bold=True, err=True)
    return anybody


@gateway.group()
def token() -> None:
    """Tokens for the gateway's clients."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help="call:GLOB, queue:GLOB, read, revoke, inspect, metrics; may be given often.",
)
@click.option(
    "--expires", default="30d", show_default=True, metavar="TIME", help="How long it lives: 90m, 12h, 30d, 2w."
)
@tokens_option
@click.pass_context
def add(ctx: click.Context, name: str, scopes: tuple[str, ...], expires: str, tokens: Path | None) -> None:
    """Make a token for the client NAME, and print it, this once."""
    from penstock.gateway.tokens import moment
    from penstock.server.access.tokens import read_life

    made, text = _file(ctx, tokens).add(name, scopes, read_life(expires))
    click.echo(f"a token of {made.name!r} until {moment(made.expires)}, which is shown this once:", err=True)
    click.echo(text)


@token.command(name="list")
@tokens_option
@click.pass_context
def list_(ctx: click.Context, tokens: Path | None) -> None:
    """List tokens, without their secrets."""
    from penstock.gateway.tokens import moment

    now = time.time()
    for one in _file(ctx, tokens).all():
        state = f"{'until' if one.expires > now else 'expired'} {moment(one.expires)}"
        click.echo(f"{one.id}  {one.name!r}  {state}  {' '.join(one.scopes)!r}")


@token.command()
@click.argument("token_id", metavar="ID")
@tokens_option
@click.pass_context
def remove(ctx: click.Context, token_id: str, tokens: Path | None) -> None:
    """Remove a token, in force within a second. ID is the middle of pst_ID_SECRET."""
    gone = _file(ctx, tokens).remove(token_id)
    click.echo(f"removed the token of {gone.name!r}")


def _file(ctx: click.Context, tokens: Path | None):  # type: ignore[no-untyped-def]
    if tokens is None:
        raise click.UsageError("give --tokens FILE, where the gateway's tokens are kept", ctx)
    from penstock.gateway.tokens import TokenFile

    return TokenFile(tokens)
