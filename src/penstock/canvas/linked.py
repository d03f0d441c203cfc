"""Links as options of a call, and who cannot follow them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Union

from penstock.errors import ConfigError
from penstock.options import CallSettings

if TYPE_CHECKING:
    from penstock.canvas.calls import Canvas, Signature

Calls = Union["Canvas[Any]", Iterable["Canvas[Any]"], None]


class LinkedSettings(CallSettings, total=False):
    """What a call takes that may have links: `CallSettings`, and one or several canvases."""

    link: Calls
    link_error: Calls


def short_text(call: Signature[Any]) -> str:
    """A call as it would be written, as a name."""
    text = repr(call)
    return text if len(text) <= 100 else f"{text[:80]}…"


def refuse_links(call: Signature[Any]) -> None:
    """For those who publish single calls: raise `ConfigError` for links, which nobody would follow."""
    if call.links or call.errors:
        raise ConfigError(
            f"{call!r} has links, which only a canvas follows: let it be a task that publishes that canvas"
        )
