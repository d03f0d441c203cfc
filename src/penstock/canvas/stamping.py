"""Stamps that depend on the part: `canvas.stamp(visitor=…)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penstock.canvas.calls import Canvas, Signature, chain, chord, group
from penstock.errors import ConfigError


class StampingVisitor:
    """Goes through all parts of a canvas, links included. Subclass it; `on_signature` gives the stamps of one task."""

    def on_signature(self, sig: Signature[Any], **headers: str) -> Any:
        """The stamps of `sig`, which has `headers` so far: a dict of strings."""
        raise NotImplementedError

    def on_chain_start(self, sig: chain) -> None: ...

    def on_chain_end(self, sig: chain) -> None: ...

    def on_group_start(self, sig: group) -> None: ...

    def on_group_end(self, sig: group) -> None: ...

    def on_chord_header_start(self, sig: chord) -> None: ...

    def on_chord_header_end(self, sig: chord) -> None: ...

    def on_chord_body(self, sig: chord) -> None: ...

    def on_callback(self, sig: Canvas[Any]) -> None: ...

    def on_errback(self, sig: Signature[Any]) -> None: ...

    def stamps(self, sig: Signature[Any]) -> dict[str, str]:
        """What `on_signature` gives. Raises `ConfigError` unless it maps strings to strings."""
        given = self.on_signature(sig, **(sig.options.get("headers") or {}))
        pairs: Any = given.items() if isinstance(given, Mapping) else [(given, given)]
        if not all(isinstance(name, str) and isinstance(text, str) for name, text in pairs):
            raise ConfigError(
                f"{type(self).__name__}.on_signature returns a dict of strings, as {{'order': '77'}} is, not {given!r}"
            )
        return dict(given)

    def go_through(self, sig: Canvas[Any]) -> None:
        """Meet all parts of `sig`, in order, then what follows it."""
        self._go_inside(sig)
        for call in sig.links:
            self.on_callback(call)
            self.go_through(call)
        for error in sig.errors:
            self.on_errback(error)
            self.go_through(error)

    def _go_inside(self, sig: Canvas[Any]) -> None:
        match sig:
            case Signature():
                sig.stamp(None, **self.stamps(sig))
            case chain():
                self.on_chain_start(sig)
                self._go_on(sig)
                self.on_chain_end(sig)
            case group():
                self.on_group_start(sig)
                self._go_on(sig)
                self.on_group_end(sig)
            case chord():
                self.on_chord_header_start(sig)
                self.go_through(sig.header)
                self.on_chord_header_end(sig)
                if sig.body is not None:
                    self.on_chord_body(sig)
                    self.go_through(sig.body)
            case _:
                self._go_on(sig)

    def _go_on(self, sig: Canvas[Any]) -> None:
        for part in sig.parts():
            self.go_through(part)
