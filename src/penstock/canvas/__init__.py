"""Calls composed of calls: chains, groups and chords, as one stored graph."""

from penstock.canvas.calls import Canvas, Signature, chain, chord, group
from penstock.canvas.chunks import chunks
from penstock.canvas.plain import maybe_signature
from penstock.canvas.stamping import StampingVisitor

__all__ = ["Canvas", "Signature", "StampingVisitor", "chain", "chord", "chunks", "group", "maybe_signature"]
