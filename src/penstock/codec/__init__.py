"""The only reader and writer of message bodies and result values."""

from penstock.codec.arguments import Arguments
from penstock.codec.compression import NONE, Bounds, compression_of, inflate
from penstock.codec.failures import Failure, failure, inherited, read_failure, rebuild, summary
from penstock.codec.formats import serializer
from penstock.codec.gathered import (
    JOINABLE,
    around,
    check_encoded,
    check_fate,
    fate_in,
    fate_item,
    joinable,
    parted,
    spread,
    together,
    transcoded,
)
from penstock.codec.pipeline import Pipeline
from penstock.codec.reading import Reader
from penstock.codec.returns import Returned
from penstock.codec.trust import ROOM, Trust, unsigned_result
from penstock.codec.values import JSON, Format

__all__ = [
    "JOINABLE",
    "JSON",
    "NONE",
    "ROOM",
    "Arguments",
    "Bounds",
    "Failure",
    "Format",
    "Pipeline",
    "Reader",
    "Returned",
    "Trust",
    "around",
    "check_encoded",
    "check_fate",
    "compression_of",
    "failure",
    "fate_in",
    "fate_item",
    "inflate",
    "inherited",
    "joinable",
    "parted",
    "read_failure",
    "rebuild",
    "serializer",
    "spread",
    "summary",
    "together",
    "transcoded",
    "unsigned_result",
]
