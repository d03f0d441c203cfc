"""Options of the commands that serve metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from penstock.errors import ConfigError


def metrics_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives `command` the options, and as `metrics` the `Place` that they come to; `None` without a port."""

    @click.option("--metrics-port", type=int, metavar="PORT", help="Serve metrics for Prometheus, at /metrics.")
    @click.option("--metrics-host", default="127.0.0.1", show_default=True, metavar="HOST", help="Where to.")
    @click.option(
        "--metrics-token-file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Only to who sends the token in it.",
    )
    @click.option("--metrics-anonymous", is_flag=True, help="To everybody who reaches it.")
    @wraps(command)
    def wrapped(
        *args: Any,
        metrics_port: int | None,
        metrics_host: str,
        metrics_token_file: Path | None,
        metrics_anonymous: bool,
        **others: Any,
    ) -> Any:
        from penstock.metrics.place import Place, read_token

        place = None
        if metrics_port is not None:
            token = read_token(metrics_token_file) if metrics_token_file is not None else None
            place = Place(metrics_port, metrics_host, token, metrics_anonymous)
        elif metrics_token_file is not None or metrics_anonymous:
            raise ConfigError("--metrics-token-file and --metrics-anonymous need --metrics-port: give it, too")
        return command(*args, metrics=place, **others)

    return wrapped
