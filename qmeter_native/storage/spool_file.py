"""A spool's file: where its sound blocks are.

The format is drawn in ``csrc/records/spool_format.h``. A spool may end anywhere, because its process may have been
killed: what is damaged is skipped and counted, never an error.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.errors import CaptureError, CaptureNotFoundError, ForeignCaptureError, NewerSchemaError
from qmeter_native.storage.spool_records import BLOCK_HEADER, BLOCK_MAGIC, SPOOL_VERSION

__all__ = ["Block", "SpoolFile", "is_being_written"]

_HEADER_CRC_BYTES: Final = 24
_RELEASED_BYTES: Final = 1 << 25
"""Pages are given back each 32 MiB: a spool of gigabytes is read in the memory of one of megabytes."""


@dataclass(frozen=True, slots=True)
class Block:
    """One sound block: what its payload is, its number in the file, its records and where its payload lies."""

    kind: int
    sequence: int
    count: int
    start: int
    end: int


class SpoolFile:
    """A spool mapped into memory as it was when it was opened, even if its process still appends to it.

    Raises:
        CaptureNotFoundError: There is no such file.
        CaptureError: It cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._data = b"" if self.path.stat().st_size == 0 else _map(self.path)
        except FileNotFoundError:
            raise CaptureNotFoundError(f"there is no spool at {path}", "Check the path.") from None
        except OSError as error:
            raise CaptureError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from error
        self._bytes = np.frombuffer(self._data, np.uint8)
        self._released = 0

    def __len__(self) -> int:
        return len(self._bytes)

    def payload(self, block: Block) -> NDArray[np.uint8]:
        """The bytes of a block, a read-only view of the file."""
        return self._bytes[block.start : block.end]

    def records(self, block: Block, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The records of a block, a read-only view of the file; an incomplete one at its end is left out."""
        return np.frombuffer(self._data, dtype, (block.end - block.start) // dtype.itemsize, block.start)

    def columns(self, blocks: Sequence[Block], dtype: np.dtype[Any]) -> dict[str, NDArray[Any]]:
        """The records of all ``blocks``, in their order, as one array a field."""
        num_rows = sum((block.end - block.start) // dtype.itemsize for block in blocks)
        columns = {name: np.empty(num_rows, dtype[name]) for name in dtype.names or ()}
        row = 0
        for block in blocks:
            records = self.records(block, dtype)
            for name, values in columns.items():
                values[row : row + len(records)] = records[name]
            row += len(records)
            self.release_before(block.end)
        return columns

    def sound_blocks(self) -> Iterator[Block]:
        """Each block with right checksums, in the file's order; after damage, goes on at the next magic number.

        Raises:
            ForeignCaptureError: There is something in the file, and none of it is a spool's block.
            NewerSchemaError: A newer program wrote it.
        """
        offset = self._data.find(BLOCK_MAGIC)
        last_end = 0
        while 0 <= offset <= len(self) - BLOCK_HEADER.itemsize:
            block = self._block_at(offset)
            if block is not None:
                yield block
                last_end = block.end
                self.release_before(last_end)
            offset = self._data.find(BLOCK_MAGIC, offset + 1 if block is None else last_end)
        if not last_end and len(self):
            raise ForeignCaptureError(
                f"{self.path} is no spool of qmeter-native: it has no sound block", "Check the path."
            )

    def release_before(self, offset: int) -> None:
        """Give back the memory of what has been read before ``offset``; it can still be read again."""
        if offset < self._released:
            self._released = 0
        if isinstance(self._data, mmap.mmap) and offset - self._released >= _RELEASED_BYTES:
            begin, end = (at // mmap.PAGESIZE * mmap.PAGESIZE for at in (self._released, offset))
            self._data.madvise(mmap.MADV_DONTNEED, begin, end - begin)
            self._released = offset

    def _block_at(self, offset: int) -> Block | None:
        start = offset + BLOCK_HEADER.itemsize
        header = np.frombuffer(self._data, BLOCK_HEADER, 1, offset)[0]
        if zlib.crc32(self._bytes[offset : offset + _HEADER_CRC_BYTES].data) != header["header_crc"]:
            return None
        if header["version"] > SPOOL_VERSION:
            raise NewerSchemaError(
                f"{self.path} is a spool of version {header['version']}; this program reads up to {SPOOL_VERSION}",
                "Update qmeter-native.",
            )
        end = start + int(header["payload_bytes"])
        if end > len(self) or zlib.crc32(self._bytes[start:end].data) != header["payload_crc"]:
            return None
        return Block(int(header["kind"]), int(header["sequence"]), int(header["count"]), start, end)


def is_being_written(path: Path) -> bool:
    """Whether the process that writes the spool ``path`` still runs: it holds a lock on the file that ends with it.

    False where the file system has no locks.
    """
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
