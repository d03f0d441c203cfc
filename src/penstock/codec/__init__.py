"""The only reader and writer of message bodies and result values."""

from penstock.codec.arguments import Arguments
from penstock.codec.compression import Bounds, compression_of, inflate
from penstock.codec.failures import Failure, failure, read_failure, rebuild, summary
from penstock.codec.formats import serializer
from penstock.codec.pipeline import Pipeline
from penstock.codec.reading import Reader
from penstock.codec.returns import Returned
from penstock.codec.trust import Trust, unsigned_result
from penstock.codec.values import Format

__all__ = [
    "Arguments",
    "Bounds",
    "Failure",
    "Format",
    "Pipeline",
    "Reader",
    "Returned",
    "Trust",
    "compression_of",
    "failure",
    "inflate",
    "read_failure",
    "rebuild",
    "serializer",
    "summary",
    "unsigned_result",
]
