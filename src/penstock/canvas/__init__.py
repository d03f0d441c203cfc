"""Calls composed of calls: chains, groups and chords, as one stored graph."""

from penstock.canvas.calls import Canvas, Signature, chain, chord, group
from penstock.canvas.chunks import chunks

__all__ = ["Canvas", "Signature", "chain", "chord", "chunks", "group"]
