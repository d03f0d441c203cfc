"""Compression: round trips, what is damaged, and bombs that come to nothing."""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import subprocess
import sys
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from penstock.codec import Arguments, Bounds, Pipeline, Reader, compression_of, inflate
from penstock.codec.compression import NAMES, NONE, SMALL, compressor
from penstock.codec.values import json
from penstock.errors import ConfigError, DecodeError

BOUNDS = Bounds(max_bytes=8 << 20, max_ratio=50)
GROWN = 48 << 20
"""Bytes by which a process may grow over a bomb of five times as many."""


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=3000))
def test_what_goes_in_comes_out(name: str, data: bytes) -> None:
    assert inflate(name, compressor(name).compress(data), BOUNDS) == data


@pytest.mark.parametrize("name", NAMES)
def test_what_is_cut_short_or_goes_on_is_damaged(name: str) -> None:
    packed = compressor(name).compress(bytes(range(256)) * 20)
    for damaged in (b"", packed[:1], packed[: len(packed) // 2], packed[:-1], packed + b"\0", packed + packed, b"junk"):
        with pytest.raises(DecodeError, match=f"the {name} data is damaged"):
            inflate(name, damaged, BOUNDS)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_data_or_an_error(name: str, data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        assert len(inflate(name, data, BOUNDS)) <= BOUNDS.most(len(data))


@pytest.mark.parametrize("name", NAMES)
def test_both_bounds_hold_to_the_byte(name: str) -> None:
    data = bytes(SMALL + 1)
    packed = compressor(name).compress(data)
    assert inflate(name, packed, Bounds(SMALL + 1, 1 << 20)) == data
    with pytest.raises(DecodeError, match=rf"inflate to more than {SMALL:,} \(inflate_max_bytes={SMALL:,}, "):
        inflate(name, packed, Bounds(SMALL, 1 << 20))
    with pytest.raises(DecodeError, match=f"more than {SMALL:,} .*inflate_max_ratio=2"):
        inflate(name, packed, Bounds(1 << 30, 2))


def bomb(name: str) -> bytes:
    """256 MiB of zeros in the algorithm `name`, made in pieces."""
    piece, count = bytes(1 << 20), 256
    makers = {
        "zlib": zlib.compressobj(9),
        "gzip": zlib.compressobj(9, wbits=31),
        "bzip2": bz2.BZ2Compressor(),
        "lzma": lzma.LZMACompressor(preset=0),
        "zstd": zstandard.ZstdCompressor(level=1).compressobj(),
    }
    if name == "brotli":
        maker = brotli.Compressor(quality=1)
        return b"".join(maker.process(piece) for _ in range(count)) + maker.finish()
    maker = makers[name]
    return b"".join(maker.compress(piece) for _ in range(count)) + maker.flush()


INFLATE = """
import resource, sys
from penstock.codec import Bounds, inflate
from penstock.errors import DecodeError
name, data = sys.argv[1], sys.stdin.buffer.read()
inflate(name, bytes.fromhex(sys.argv[2]), Bounds())  # loads the library
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    inflate(name, data, Bounds(8 << 20, 1 << 30))
except DecodeError as error:
    print(error)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_ends_as_an_error_in_little_memory(name: str) -> None:
    small = compressor(name).compress(b"x").hex()
    ended = subprocess.run([sys.executable, "-c", INFLATE, name, small], input=bomb(name), capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
    said, grown = ended.stdout.decode().splitlines()
    assert "inflate to more than 8,388,608" in said
    assert int(grown) < GROWN


def test_what_a_frame_says_of_its_size_is_not_believed() -> None:
    honest = zstandard.ZstdCompressor().compress(bytes(5000))
    assert zstandard.get_frame_parameters(honest).content_size == 5000
    liar = zstandard.ZstdCompressor().compress(bytes(1 << 28))[:40]
    with pytest.raises(DecodeError, match="inflate to more than"):
        inflate("zstd", liar, BOUNDS)


def test_a_stream_of_unknown_size_is_read() -> None:
    out = io.BytesIO()
    with zstandard.ZstdCompressor().stream_writer(out, closefd=False) as writer:
        writer.write(b"hello" * 100)
    stream = out.getvalue()
    assert zstandard.get_frame_parameters(stream).content_size == zstandard.CONTENTSIZE_UNKNOWN
    assert inflate("zstd", stream, BOUNDS) == b"hello" * 100
    for damaged in (stream[:-1], stream + b"\0", stream + stream, stream + bytes(1000)):
        with pytest.raises(DecodeError, match=r"the zstd data is damaged: it (ends early|goes on)"):
            inflate("zstd", damaged, BOUNDS)


def test_a_dictionary_that_would_take_all_memory_is_refused() -> None:
    big = lzma.compress(b"x", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}])
    with pytest.raises(DecodeError, match="the lzma data is damaged: Memory usage limit"):
        inflate("lzma", big, BOUNDS)
    wide = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    out = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    with pytest.raises(DecodeError, match="the zstd data is damaged"):
        inflate("zstd", out.compress(b"x") + out.flush(), BOUNDS)


# -- in the pipeline


PIPELINE = Pipeline(Reader(bounds=BOUNDS), 100)
CODEC = Arguments("t", lambda x: None, reader=PIPELINE.reader)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_compressed_and_read_again(name: str) -> None:
    body, content_type = PIPELINE.compress(CODEC.encode(("text " * 100,), {}), "json", name)
    assert content_type == f"json+{name}"
    assert len(body) < 200
    assert CODEC.decode(body, content_type) == (("text " * 100,), {})


@pytest.mark.parametrize(
    "data",
    [b"x" * 99, bytes(range(256)), b"x" * (8 << 20)],
    ids=["below the threshold", "not made shorter", "would be taken for a bomb"],
)
def test_what_is_better_left_alone_is(data: bytes) -> None:
    assert PIPELINE.compress(data, "json", "zlib") == (data, "json")


@pytest.mark.parametrize("name", NAMES)
def test_bombs_in_bombs_are_not_unwrapped(name: str) -> None:
    pack = compressor(name).compress
    inner = pack(json.encode(([bytes(3 << 20).decode()], {})))
    with pytest.raises(DecodeError, match=f"compression '{name}\\+{name}' is not known here"):
        CODEC.decode(pack(inner), f"json+{name}+{name}")
    with pytest.raises(DecodeError, match=r"the body is not \[\[positional"):
        CODEC.decode(pack(pack(pack(b"[[1],{}]"))), f"json+{name}")


def test_nesting_that_would_exhaust_the_stack_is_an_error() -> None:
    deep = compressor("zlib").compress(b"[[" + b"[" * 500_000 + b"]" * 500_000 + b"],{}]")
    with pytest.raises(DecodeError):
        Arguments("t", lambda x: None, reader=Reader(bounds=Bounds(max_ratio=10_000))).decode(deep, "json+zlib")


@pytest.mark.parametrize("content_type", ["json+", "json+nothing", "+zlib", "json+zlib+", "json+" + "z" * 100_000])
def test_a_content_type_that_is_none_is_an_error(content_type: str) -> None:
    with pytest.raises(DecodeError) as raised:
        CODEC.decode(compressor("zlib").compress(b"[[1],{}]"), content_type)
    assert len(str(raised.value)) < 300


def test_names_are_checked_where_they_are_written() -> None:
    assert compression_of(None) is None
    assert compression_of(NONE) is None
    assert compression_of("zstd") == "zstd"
    with pytest.raises(ConfigError, match="unknown compression 'gzp'; did you mean 'gzip'"):
        compression_of("gzp")


def test_an_algorithm_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("zstd", "zstandard"), ("brotli", "brotli")):
        packed = compressor(name).compress(b"x")
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigError, match=rf"pip install 'penstock\[{name}\]'"):
            compressor(name)
        with pytest.raises(DecodeError, match=rf"pip install 'penstock\[{name}\]'"):
            inflate(name, packed, BOUNDS)
