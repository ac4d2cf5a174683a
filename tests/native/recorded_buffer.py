"""A raw activity buffer that a GPU's CUPTI filled, and what numpy alone reads in it."""

from __future__ import annotations

import base64
import ctypes
import gzip
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tests.fakes.fake_cupti import CONCURRENT_KERNEL, MEMCPY

__all__ = ["RecordedBuffer"]


def _record(num_bytes: int, **fields: tuple[str, int]) -> np.dtype[Any]:
    """Structure of ``num_bytes`` from the format and the offset of each field."""
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": num_bytes})


_NAME_OFFSET: Final = 104

# Offsets and sizes of CUpti_ActivityKernel10 and CUpti_ActivityMemcpy6 in cupti_activity.h of CUDA 13.0; fields are
# called as the columns of our tables in which they end.
_RECORDS: Final = {
    CONCURRENT_KERNEL: _record(
        216,
        registers=("u2", 6),
        start_ns=("u8", 16),
        end_ns=("u8", 24),
        device=("u4", 40),
        stream=("u4", 48),
        grid_x=("i4", 52),
        grid_y=("i4", 56),
        grid_z=("i4", 60),
        block_x=("i4", 64),
        block_y=("i4", 68),
        block_z=("i4", 72),
        static_shared_bytes=("i4", 76),
        dynamic_shared_bytes=("i4", 80),
        correlation=("u4", 92),
        name=("u8", _NAME_OFFSET),
        graph_node=("u8", 144),
        graph=("u4", 156),
    ),
    MEMCPY: _record(
        96,
        copy_kind=("u1", 4),
        copied_bytes=("u8", 8),
        start_ns=("u8", 16),
        end_ns=("u8", 24),
        device=("u4", 32),
        stream=("u4", 40),
        correlation=("u4", 44),
        graph_node=("u8", 64),
        graph=("u4", 72),
    ),
}


@dataclass(frozen=True, slots=True)
class RecordedBuffer:
    """A file that `tools.cupti_buffer.save_buffer` wrote.

    Attributes:
        document: The file's content.
        kinds: CUPTI's kind of each record, in the buffer's order.
        records: The records of each kind; ``name`` of a kernel is an index in the document's ``names``.
        live: The buffer with pointers to names in this process, as it was when CUPTI handed it over.
        names: The memory to which they point.
    """

    document: dict[str, Any]
    kinds: NDArray[np.int64]
    records: dict[int, NDArray[Any]]
    live: bytes
    names: list[Any]

    @classmethod
    def load(cls, path: Path) -> RecordedBuffer:
        with gzip.open(path) as file:
            document = json.load(file)
        buffer = base64.b64decode(document["buffer"])
        places = list(_walk(buffer))
        records = {
            kind: np.frombuffer(b"".join(buffer[start:end] for of_kind, start, end in places if of_kind == kind), dtype)
            for kind, dtype in _RECORDS.items()
        }
        names = [ctypes.create_string_buffer(name.encode()) for name in document["names"]]
        live = bytearray(buffer)
        for kind, start, _ in places:
            if kind == CONCURRENT_KERNEL:
                (index,) = struct.unpack_from("<Q", buffer, start + _NAME_OFFSET)
                struct.pack_into("<Q", live, start + _NAME_OFFSET, ctypes.addressof(names[index]))
        return cls(document, np.array([kind for kind, _, _ in places]), records, bytes(live), names)

    def column(self, field: str) -> NDArray[np.int64]:
        """A field of all records, in the buffer's order; 0 in those of a kind that does not have it."""
        values = np.zeros(len(self.kinds), np.int64)
        for kind, records in self.records.items():
            if field in (records.dtype.names or ()):
                values[self.kinds == kind] = records[field]
        return values


def _walk(buffer: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, start and end of each record."""
    start = 0
    while start < len(buffer):
        (kind,) = struct.unpack_from("<I", buffer, start)
        end = start + _RECORDS[kind].itemsize
        yield kind, start, end
        start = end
