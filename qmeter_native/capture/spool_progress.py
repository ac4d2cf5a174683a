"""How far a trace is, from the headers of its spools' blocks: payloads are not read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final

import numpy as np

from qmeter_native.storage.schema import SPOOL_SUFFIX
from qmeter_native.storage.spool_records import BLOCK_HEADER, BLOCK_MAGIC, RecordKind

__all__ = ["SpoolCounts", "SpoolProgress"]

_OF_CUDA: Final = re.compile(rf"-\d+-cuda\d+{re.escape(SPOOL_SUFFIX)}$")
"""``<host>-<pid>-cuda<N>.qms``, as the injected library names them."""


@dataclass(frozen=True, slots=True)
class SpoolCounts:
    """What the spools of a running trace hold: spools of CUDA processes, kernels, bytes in all."""

    num_traced: int
    num_kernels: int
    num_bytes: int


@dataclass(slots=True)
class _Position:
    offset: int = 0
    num_kernels: int = 0


class SpoolProgress:
    """Counts what is in the spools of a folder, each block once. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._positions: dict[Path, _Position] = {}
        self._lock = Lock()

    def update(self) -> SpoolCounts:
        """Look at what was written since the last time."""
        with self._lock:
            num_bytes = 0
            for path in self._folder.glob(f"*{SPOOL_SUFFIX}"):
                try:
                    with path.open("rb") as file:
                        num_bytes += _advance(file, self._positions.setdefault(path, _Position()))
                except OSError:  # it was removed meanwhile
                    continue
            return SpoolCounts(
                num_traced=sum(_OF_CUDA.search(path.name) is not None for path in self._positions),
                num_kernels=sum(position.num_kernels for position in self._positions.values()),
                num_bytes=num_bytes,
            )


def _advance(file: BinaryIO, position: _Position) -> int:
    """Go from header to header, up to the first block that is not whole yet; returns the file's size."""
    size = file.seek(0, 2)
    while position.offset + BLOCK_HEADER.itemsize <= size:
        file.seek(position.offset)
        header = np.frombuffer(file.read(BLOCK_HEADER.itemsize), BLOCK_HEADER)[0]
        end = position.offset + BLOCK_HEADER.itemsize + int(header["payload_bytes"])
        if header["magic"].tobytes() != BLOCK_MAGIC or end > size:
            break
        if header["kind"] == RecordKind.KERNEL:
            position.num_kernels += int(header["count"])
        position.offset = end
    return size
