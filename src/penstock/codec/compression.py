"""Compression of bodies and results, and inflation that stops before it grows too large.

Nobody who can write to a queue may make a worker use more memory than its app allows: how much comes out is bounded by
size and by ratio while it comes out, so that a bomb costs no more than an honest message.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from msgspec import Struct

from penstock.errors import ConfigError, DecodeError
from penstock.spelling import hint

NONE = "none"
"""The name that switches compression off for a task or a call."""
SMALL = 1 << 20
"""Bytes that may come out of however little: the ratio is looked at beyond."""
_PIECE = 1 << 20
_LZMA_MEMORY = 40 << 20
"""What xz may need besides what comes out; its presets 0 to 7 need less."""
_ZSTD_WINDOW = 8 << 20
_ZSTD_PIECE = 256
"""Bytes in, of which each four can be 128 KiB: 8 MiB out."""


class Bounds(Struct, frozen=True):
    """How much may come out: `max_bytes`, and beyond `SMALL` no more than `max_ratio` times what went in."""

    max_bytes: int = 64 << 20
    max_ratio: int = 200

    def most(self, packed: int) -> int:
        """The most bytes that may come out of so many."""
        return min(self.max_bytes, max(SMALL, packed * self.max_ratio))


class Algorithm(NamedTuple):
    """`inflate(data, most)` raises `TooLarge` before more than about `most` bytes came out, `Damaged`, or whatever its
    library does when `data` is damaged."""

    compress: Callable[[bytes], bytes]
    inflate: Callable[[bytes, int], bytes]


class Damaged(ValueError):
    """The data ends early, or goes on after its end."""


class TooLarge(ValueError):
    """More comes out than may."""


def compressor(name: str) -> Algorithm:
    """The algorithm that an app asks for. Raises `ConfigError` for an unknown one, and for one whose library is not
    installed."""
    made = _ALGORITHMS.get(name)
    if made is None:
        raise ConfigError(f"unknown compression {name!r}{hint(name, (*_ALGORITHMS, NONE))}")
    try:
        return made()
    except ModuleNotFoundError as error:
        remedy = f"pip install 'penstock[{name}]'" if name in _EXTRAS else "this Python was built without it"
        raise ConfigError(f"compression {name!r} needs {error.name}, which is not installed: {remedy}") from error


def compression_of(name: str | None) -> str | None:
    """The compression that options and settings ask for, if any. Raises `ConfigError` as `compressor` does."""
    if name is None or name == NONE:
        return None
    compressor(name)
    return name


def inflate(name: str, data: bytes, bounds: Bounds) -> bytes:
    """Raises `DecodeError` for what is damaged, or would grow beyond `bounds`."""
    if name not in _ALGORITHMS:
        raise DecodeError(f"compression {name[:40]!r} is not known here")
    most = bounds.most(len(data))
    try:
        return compressor(name).inflate(data, most)
    except ConfigError as error:
        raise DecodeError(str(error)) from error
    except TooLarge:
        raise DecodeError(
            f"{len(data):,} bytes of {name} inflate to more than {most:,} (inflate_max_bytes={bounds.max_bytes:,}, "
            f"inflate_max_ratio={bounds.max_ratio})"
        ) from None
    except Exception as error:  # each library has its own errors
        raise DecodeError(f"the {name} data is damaged: {error}") from error


def _zlib() -> Algorithm:
    import zlib

    return Algorithm(zlib.compress, lambda data, most: _ended(zlib.decompressobj(), data, most))


def _gzip() -> Algorithm:
    import gzip
    import zlib

    # Without the time of day, so that equal bodies are equal.
    return Algorithm(
        lambda data: gzip.compress(data, 6, mtime=0),
        lambda data, most: _ended(zlib.decompressobj(16 + zlib.MAX_WBITS), data, most),
    )


def _bzip2() -> Algorithm:
    import bz2

    return Algorithm(bz2.compress, lambda data, most: _ended(bz2.BZ2Decompressor(), data, most))


def _lzma() -> Algorithm:
    import lzma

    return Algorithm(
        lzma.compress,
        lambda data, most: _ended(lzma.LZMADecompressor(lzma.FORMAT_XZ, _LZMA_MEMORY), data, most),
    )


def _ended(decompressor: Any, data: bytes, most: int) -> bytes:
    """What comes out of a decompressor of the standard library."""
    # What would come out beyond one byte too many stays compressed.
    inflated: bytes = decompressor.decompress(data, most + 1)
    if len(inflated) > most:
        raise TooLarge
    if not decompressor.eof or decompressor.unused_data:
        raise Damaged("it goes on after its end" if decompressor.eof else "it ends early")
    return inflated


def _zstd() -> Algorithm:
    import zstandard

    return Algorithm(
        lambda data: zstandard.ZstdCompressor().compress(data), lambda data, most: _inflate_zstd(zstandard, data, most)
    )


def _inflate_zstd(zstandard: ModuleType, data: bytes, most: int) -> bytes:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    # What the frame says of its size is allocated at once, so that is looked at first.
    said = zstandard.get_frame_parameters(data).content_size
    if said == zstandard.CONTENTSIZE_UNKNOWN:
        return _inflate_zstd_stream(decompressor.decompressobj(), data, most)
    if said > most:
        raise TooLarge
    inflated: bytes = decompressor.decompress(data, max_output_size=most, allow_extra_data=False)
    return inflated


def _inflate_zstd_stream(decompressor: Any, data: bytes, most: int) -> bytes:
    pieces, size, at = [], 0, 0
    # The library has no limit here: so little goes in at a time that only so much can come out.
    while at < len(data) and not decompressor.eof:
        pieces.append(decompressor.decompress(data[at : at + _ZSTD_PIECE]))
        at += _ZSTD_PIECE
        size += len(pieces[-1])
        if size > most:
            raise TooLarge
    if not decompressor.eof or decompressor.unused_data or at < len(data):
        raise Damaged("it goes on after its end" if decompressor.eof else "it ends early")
    return b"".join(pieces)


def _brotli() -> Algorithm:
    import brotli

    # The library's default of 11 is for files that are compressed once and read for years.
    return Algorithm(
        lambda data: brotli.compress(data, quality=5), lambda data, most: _inflate_brotli(brotli, data, most)
    )


def _inflate_brotli(brotli: ModuleType, data: bytes, most: int) -> bytes:
    decompressor = brotli.Decompressor()
    pieces, size, given = [], 0, data
    while not decompressor.is_finished():
        # The limit is a rough one: it is looked at between blocks of growing size.
        piece = decompressor.process(given, output_buffer_limit=_PIECE)
        if not piece and decompressor.can_accept_more_data() and not decompressor.is_finished():
            raise Damaged("it ends early")
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise TooLarge
        given = b""
    return b"".join(pieces)


_ALGORITHMS: dict[str, Callable[[], Algorithm]] = {
    "zlib": _zlib,
    "gzip": _gzip,
    "bzip2": _bzip2,
    "lzma": _lzma,
    "zstd": _zstd,
    "brotli": _brotli,
}
_EXTRAS = frozenset({"zstd", "brotli"})
NAMES = tuple(_ALGORITHMS)
