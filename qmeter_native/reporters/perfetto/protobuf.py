"""Protocol Buffers' wire format, as much as a trace needs: single fields, and whole columns of messages at once.

A column of messages is a uint8 array with one encoded message a row, all of the same length. That works because a
varint may be padded (``0x81 0x00`` is 1), which every decoder accepts, so that numpy writes millions of them.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "bytes_field",
    "double_column",
    "message_column",
    "rows_of",
    "text_field",
    "uint_column",
    "uint_field",
    "varint",
]

Rows = NDArray[np.uint8]

_VARINT, _FIXED64, _LENGTH = 0, 1, 2


def varint(value: int) -> bytes:
    """A non-negative integer, seven bits a byte."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _tag(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)


def uint_field(number: int, value: int) -> bytes:
    """An integer, boolean or enum field."""
    return _tag(number, _VARINT) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    """A field of bytes, or of a message that is already encoded."""
    return _tag(number, _LENGTH) + varint(len(value)) + value


def text_field(number: int, value: str) -> bytes:
    """A string field."""
    return bytes_field(number, value.encode("utf-8", "replace"))


def rows_of(num_rows: int, *parts: bytes | Rows) -> Rows:
    """``num_rows`` rows of all ``parts`` side by side: bytes are the same in each row, columns go in as they are."""
    columns = [
        np.broadcast_to(np.frombuffer(part, np.uint8), (num_rows, len(part))) if isinstance(part, bytes) else part
        for part in parts
    ]
    return np.concatenate(columns, axis=1)


def uint_column(number: int, values: NDArray[Any], width: int) -> Rows:
    """An integer field with another value in each row, padded to ``width`` bytes (7 bits each).

    Raises:
        ValueError: A value is negative or does not fit.
    """
    if len(values) and (int(values.min()) < 0 or int(values.max()) >> (7 * width)):
        raise ValueError(f"field {number}: a value does not fit into {7 * width} bits")
    shifts = np.arange(width, dtype=np.uint64) * np.uint64(7)
    encoded = (values.astype(np.uint64)[:, None] >> shifts & np.uint64(0x7F)).astype(np.uint8)
    encoded[:, :-1] |= 0x80
    return rows_of(len(values), _tag(number, _VARINT), encoded)


def double_column(number: int, values: NDArray[Any]) -> Rows:
    """A double field with another value in each row."""
    encoded = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(len(values), struct.calcsize("d"))
    return rows_of(len(values), _tag(number, _FIXED64), encoded)


def message_column(number: int, rows: Rows) -> Rows:
    """A message field with the encoded message of each row."""
    return rows_of(len(rows), _tag(number, _LENGTH) + varint(rows.shape[1]), rows)
