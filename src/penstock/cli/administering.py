"""How the commands of administration reach the access database: in a data folder, or through a running broker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import click

from penstock.cli.target import Target
from penstock.cli.terminal import clean
from penstock.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
MOST_TYPED = 4_096
"""Characters that are read of a password; one that is longer is too long."""


@runtime_checkable
class Administered(Protocol):
    """An engine of a broker that keeps users and rights."""

    def administer(self, command: str, arguments: Mapping[str, object]) -> Coroutine[Any, Any, Any]:
        """The answer of a command of `penstock.server.access.commands`."""
        ...


def data_option(command: F) -> F:
    return click.option(
        "--data", metavar="DIR", help="The broker's data folder, instead of a running broker (-b penstock://…)."
    )(command)


def ask(target: Target, data: str | None, command: str, arguments: Mapping[str, object]) -> Any:
    """The answer of `command`. Raises what it raises, and `ConfigError` where there are no users and rights."""
    if data is not None:
        if target.given:
            raise click.UsageError("either --data, or a broker (-b, -A): they may not know the same users")
        return ask_folder(data, command, arguments)
    if not target.named:
        raise ConfigError(
            "say whose users: of a running broker, penstock -b penstock://…, or of its data folder, --data DIR"
        )
    engine = target.queues().engine
    if not isinstance(engine, Administered):
        raise ConfigError(
            f"{engine.url} has no users and rights of its own: name a broker, penstock -b penstock://…, or its data "
            "folder, --data DIR"
        )
    return engine.run(engine.administer(command, arguments))


def ask_folder(data: str, command: str, arguments: Mapping[str, object]) -> object:
    from penstock.server.access.book import Book
    from penstock.server.access.commands import run

    book = Book(data)
    try:
        return run(book, command, arguments, None)
    finally:
        book.close()


def read_password(from_stdin: bool) -> str:
    """A password that is typed twice, or the first line of standard input."""
    if from_stdin:
        return sys.stdin.readline(MOST_TYPED).rstrip("\r\n")
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to type a password in: --password-stdin or --generate")
    typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return typed


def show_generated(answer: Mapping[str, Any]) -> None:
    """A generated password, alone on standard output; only now, since only its hash is kept."""
    if answer["generated"] is not None:
        click.echo("its password, which is shown this once:", err=True)
        click.echo(clean(answer["generated"]))
