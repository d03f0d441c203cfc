"""One call in the place of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from msgspec.structs import replace

from penstock.canvas.calls import Canvas, Signature
from penstock.errors import UnknownTask
from penstock.message import Message, Options
from penstock.options import CallOptions, read_options
from penstock.request import EARLIER, earlier_runs
from penstock.retry import afresh
from penstock.spelling import hint

if TYPE_CHECKING:
    from penstock.app import Penstock

OPTIONS = frozenset({"countdown", "eta", "expires", "headers", "ignore_result", "time_limit", "soft_time_limit"})
"""What it may have; the rest stays that of the call which it replaces."""


def fits(call: Canvas[Any]) -> TypeGuard[Signature[Any]]:
    """Whether the same message can carry it: one task, where the other was."""
    return isinstance(call, Signature) and not (call.links or call.errors or call.options.keys() - OPTIONS)


def replacement(app: Penstock, message: Message, call: Signature[Any], now: float) -> Message:
    """`message` with another task, one that `fits`, and its arguments: with the same id, in the same place.

    Raises `UnknownTask`, `ConfigError` for options, `TypeError` and `EncodeError` for arguments.
    """
    task = app.tasks.get(call.task)
    if task is None:
        raise UnknownTask(f"no task {call.task!r} is registered here{hint(call.task, app.tasks)}")
    options = read_options(CallOptions, call.options)
    ours = message.options or Options()
    place = None if ours.place is None else replace(ours.place, head=None, tail=None)
    body, content_type = task.body(call.args, call.kwargs)
    return replace(
        message,
        task=task.name,
        body=body,
        content_type=content_type,
        retries=0,
        eta=options.start(now),
        expires=message.expires if options.expires is None else options.end(now, None),
        headers={**(afresh(message).headers or {}), **(options.headers or {}), **_earlier(message)} or None,
        options=replace(
            ours,
            place=place,
            time_limit=options.time_limit,
            soft_time_limit=options.soft_time_limit,
            ignore_result=ours.ignore_result if options.ignore_result is None else options.ignore_result,
        ),
    )


def _earlier(message: Message) -> dict[str, str]:
    """Its retries begin anew; the numbers of its runs do not."""
    earlier = message.retries + earlier_runs(message)
    return {EARLIER: str(earlier)} if earlier else {}
