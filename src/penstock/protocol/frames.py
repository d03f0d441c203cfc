"""Frames: a length of four bytes (big-endian), and that many bytes of MessagePack: an array that begins with its
kind."""

from __future__ import annotations

import struct

import msgspec

MAX_FRAME = 16 << 20
"""Bytes of one frame."""
HELLO_FRAME = 4 << 10
"""Bytes of a frame of somebody who has not signed in."""
_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_TLS = (b"\x16\x03", b"\x15\x03")


class FrameError(Exception):
    """What came is no frame, or too long. The text tells the other side why it is cut off."""


def frame(item: object) -> bytes:
    """One frame of a request or a reply."""
    data = bytearray(4)
    _encoder.encode_into(item, data, 4)
    _LENGTH.pack_into(data, 0, len(data) - 4)
    return bytes(data)


class Frames:
    """Cuts a stream into frames. `limit` may be raised once the other side is known."""

    __slots__ = ("_rest", "_seen", "limit")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self.limit = limit
        self._rest = bytearray()
        self._seen = False

    def feed(self, data: bytes) -> list[memoryview]:
        """The bodies of the frames that are complete now; they are to be read before the next call. Raises
        `FrameError` as soon as a length shows that what follows is no frame."""
        if not self._seen:
            self._look(data)
        if self._rest:
            self._rest += data
            if len(self._rest) < 4 or len(self._rest) - 4 < self._length(self._rest, 0):
                return []
            data, self._rest = bytes(self._rest), bytearray()
        whole = memoryview(data)
        bodies = []
        start, size = 0, len(data)
        while size - start >= 4:
            length = self._length(data, start)
            end = start + 4 + length
            if end > size:
                break
            bodies.append(whole[start + 4 : end])
            start = end
        if start < size:
            self._rest += whole[start:]
        return bodies

    def _length(self, data: bytes | bytearray, start: int) -> int:
        length: int = _LENGTH.unpack_from(data, start)[0]
        if not 0 < length <= self.limit:
            raise FrameError(f"a frame of {length:,} bytes; at most {self.limit:,} are taken")
        return length

    def _look(self, data: bytes) -> None:
        self._seen = True
        if data[:2] in _TLS:
            raise FrameError("this is TLS, and this end is not: use penstock:// for a port without TLS")
        if data[:4] in (b"GET ", b"POST", b"HEAD", b"PUT "):
            raise FrameError("this is HTTP, and this end speaks the protocol of penstock brokers")

    @property
    def waiting(self) -> int:
        """Bytes of a frame that is not complete."""
        return len(self._rest)
