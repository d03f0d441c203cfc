"""`penstock broker`."""

from __future__ import annotations

from pathlib import Path

import click

from penstock.cli.look_at_broker import COMMANDS
from penstock.cli.metrics_options import metrics_options
from penstock.cli.run_worker import LEVELS
from penstock.metrics.place import Place


@click.group(invoke_without_command=True, commands=COMMANDS)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PENSTOCK_BROKER_DATA",
    metavar="DIR",
    help="Where everything is kept.",
)
@click.option(
    "--bind",
    "binds",
    multiple=True,
    envvar="PENSTOCK_BROKER_BIND",
    metavar="URL",
    help="tcp://HOST:PORT or unix:///PATH; may be given often. [default: tcp://127.0.0.1:7419]",
)
@click.option("--tls-cert", envvar="PENSTOCK_BROKER_TLS_CERT", metavar="FILE", help="Certificate chain, PEM.")
@click.option("--tls-key", envvar="PENSTOCK_BROKER_TLS_KEY", metavar="FILE", help="Its private key, PEM.")
@click.option(
    "--tls-client-ca",
    envvar="PENSTOCK_BROKER_TLS_CLIENT_CA",
    metavar="FILE",
    help="Let in only clients with a certificate of this authority.",
)
@click.option("--allow-plain", is_flag=True, help="Listen without TLS where others than this machine reach it.")
@click.option(
    "--durability",
    type=click.Choice(("power", "process")),
    default="power",
    show_default=True,
    help="What is survived.",
)
@click.option("--heartbeat", type=float, default=10.0, show_default=True, metavar="S", help="Seconds of silence.")
@click.option("--max-connections", type=int, default=20_000, show_default=True, metavar="N")
@click.option("--slow", type=float, default=0.1, show_default=True, metavar="S", help="Log what takes so long.")
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    metavar="ADDRESS",
    help="Believe this address when it says for whom it signs in; local: Unix sockets. May be given often.",
)
@click.option("--grace", type=float, default=10.0, show_default=True, metavar="S", help="Seconds to end in order.")
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="INFO", show_default=True)
@metrics_options
@click.pass_context
def broker(
    ctx: click.Context,
    data: Path | None,
    binds: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    allow_plain: bool,
    durability: str,
    heartbeat: float,
    max_connections: int,
    slow: float,
    gateways: tuple[str, ...],
    grace: float,
    loglevel: str,
    metrics: Place | None,
) -> None:
    """Serve the embedded engine to other processes and machines (penstock://).

    TERM or Ctrl-C ends in order; HUP reads the certificates again.
    """
    if ctx.invoked_subcommand is not None:
        return
    if data is None:
        raise click.UsageError("give --data DIR, the folder where everything is kept", ctx)
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together", ctx)
    if tls_client_ca is not None and tls_cert is None:
        raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key", ctx)
    from penstock.server.running import run
    from penstock.server.settings import Bind, BrokerSettings, Tls, parse_bind
    from penstock.worker.log import name_log, show_log

    show_log(loglevel)
    name_log("broker")
    settings = BrokerSettings(
        data=data,
        binds=tuple(parse_bind(one) for text in binds for one in text.split()) or (Bind("127.0.0.1", 7419),),
        tls=Tls(tls_cert, tls_key, tls_client_ca) if tls_cert and tls_key else None,
        allow_plain=allow_plain,
        durability="process" if durability == "process" else "power",
        heartbeat=heartbeat,
        max_connections=max_connections,
        slow=slow,
        grace=grace,
        gateways=gateways,
        metrics=metrics,
    )
    ctx.exit(run(settings, lambda line: click.echo(line, err=True)))
