"""What the broker and its clients say to each other: docs/protocol.md. Pure; no sockets."""

OLDEST, NEWEST = 1, 1
"""Versions of the protocol that this release speaks."""
PORT = 7419
