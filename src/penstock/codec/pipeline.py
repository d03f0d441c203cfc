"""The one way out of, and into, the app for arguments and results.

    out   serialize (`Arguments`, `Returned`) → compress → sign
    in    look at the size → verify → inflate, bounded → parse (`Arguments`, `Returned`)

So nothing is inflated or parsed that is not trusted, where an app has keys; and where it has none, what inflates is
bounded all the same. The plain way (JSON, not compressed, not signed) passes through none of this.
"""

from __future__ import annotations

from penstock.codec.compression import compressor
from penstock.codec.reading import Reader
from penstock.codec.trust import SIGNED, Trust, unsigned_result, wrapped_value
from penstock.codec.values import Format


class Pipeline:
    """What an app's settings make of that way. Immutable."""

    def __init__(self, reader: Reader, smallest: int, trust: Trust | None = None) -> None:
        """`smallest`: bytes below which nothing is compressed. `trust`: signs and verifies, for an app with keys."""
        self.reader = reader
        self.trust = trust
        self._smallest = smallest

    def serializer(self, name: str) -> Format:
        """The format of that name. Raises `ConfigError` for one that is unknown, not installed or not accepted."""
        return self.reader.serializer(name)

    def compress(self, data: bytes, form: str, compression: str | None) -> tuple[bytes, str]:
        """`data` in the format `form`, compressed where that makes it shorter, and its content type."""
        if compression is None or len(data) < self._smallest:
            return data, form
        packed = compressor(compression).compress(data)
        # What shrinks too well would be taken for a bomb.
        if len(packed) >= len(data) or len(data) > self.reader.bounds.most(len(packed)):
            return data, form
        return packed, f"{form}+{compression}"

    def result_out(self, task_id: str, data: bytes, form: str, compression: str | None) -> tuple[bytes, str]:
        """The result of a task as it is stored, and its content type. Raises `EncodeError` for what nobody would look
        at."""
        data, content_type = self.compress(data, form, compression)
        if self.trust is None:
            return data, content_type
        return self.trust.wrap("result", task_id, data, content_type), content_type + SIGNED

    def result_in(self, task_id: str, data: bytes, content_type: str) -> tuple[bytes, str]:
        """The way back, up to what `Returned.decode` reads. Raises `SignatureError`."""
        if self.trust is not None:
            return self.trust.result(task_id, data, content_type)
        return unsigned_result(data, content_type)

    def part_out(self, task_id: str, run: int, data: bytes, form: str, compression: str | None) -> tuple[bytes, str]:
        """The same for what a run of a task publishes. Signed for this run, not for a place in it."""
        data, content_type = self.compress(data, form, compression)
        if self.trust is None:
            return data, content_type
        return self.trust.wrap("partial", f"{task_id}/{run}", data, content_type), content_type + SIGNED

    def part_in(self, task_id: str, run: int, data: bytes, content_type: str) -> tuple[bytes, str]:
        """The way back. Raises `SignatureError`."""
        if self.trust is not None:
            return self.trust.partial(task_id, run, data, content_type)
        return unsigned_result(data, content_type)

    def state_out(self, kind: str, name: str, data: bytes) -> bytes:
        """A value for the shared state that is believed when it is read again. Raises `EncodeError` for what nobody
        would look at."""
        return data if self.trust is None else self.trust.wrap(kind, name, data)

    def state_in(self, kind: str, name: str, data: bytes) -> bytes:
        """The way back. Raises `SignatureError` unless it was stored as just that, by somebody whom this app
        believes."""
        wrapped = wrapped_value(data)
        if self.trust is None:
            return data if wrapped is None else wrapped
        if wrapped is None and self.trust.believes_unsigned:
            return data
        return self.trust.unwrap(kind, name, data)
