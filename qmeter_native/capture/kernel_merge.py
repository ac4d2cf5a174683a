"""The kernels of one process, in order of time, in chunks: as many as fit memory, however many there are.

CUPTI delivers buffer by buffer, so a spool is nearly in order: a kernel may only start before kernels that were
written a few blocks earlier. Blocks are read by their earliest start, and what starts before all that was not read yet
is final.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.capture.device_map import mapped_devices
from qmeter_native.capture.stamps import judge_stamps
from qmeter_native.model.tables import KernelTable
from qmeter_native.storage.kernel_blocks import KERNEL_RECORD, KernelBlock, KernelBlocks
from qmeter_native.storage.schema import PART_ROWS

__all__ = ["KernelMerge", "KernelSource"]

_COPIED: Final = tuple(name for name in KERNEL_RECORD.names or () if name not in ("class_id", "device"))


@dataclass(frozen=True, slots=True)
class KernelSource:
    """The kernels of one spool, and what its numbers mean in the capture.

    Attributes:
        kernels: Where they are.
        class_ids: int32, the capture's class by the spool's.
        devices: int16, see `qmeter_native.capture.device_map.kernel_devices`.
    """

    kernels: KernelBlocks
    class_ids: NDArray[Any]
    devices: NDArray[Any] | None


class KernelMerge:
    """Iterate over it once; then its attributes say what was seen.

    Attributes:
        num_implausible: Kernels left out for their stamps.
        last_end_ns: End of the last kernel; 0 if there is none.
    """

    def __init__(self, sources: Sequence[KernelSource], process: int, chunk_rows: int = PART_ROWS) -> None:
        self._blocks = sorted(
            ((source, block) for source in sources for block in source.kernels.blocks),
            key=lambda pair: pair[1].first_start_ns,
        )
        self._process = process
        self._chunk_rows = chunk_rows
        self.num_implausible = 0
        self.last_end_ns = 0

    def __iter__(self) -> Iterator[KernelTable]:
        """Chunks of up to ``chunk_rows`` kernels (more only where as many run side by side), each sorted by start.

        A chunk begins after all kernels of the ones before, but for single long kernels about whose stamps more had
        to be known.
        """
        carried = KernelTable.empty()
        position = 0
        while position < len(self._blocks) or len(carried):
            end = self._chunk_end(position, self._chunk_rows - len(carried))
            chunk = _sorted(self._read(carried, self._blocks[position:end]))
            position = end
            next_start_ns = self._blocks[end][1].first_start_ns if end < len(self._blocks) else None
            chunk, carried = self._split(chunk, next_start_ns)
            if len(chunk):
                self.last_end_ns = max(self.last_end_ns, int(chunk.end_ns.max()))
                yield chunk

    def _chunk_end(self, position: int, num_rows: int) -> int:
        """The block at which ``num_rows`` more would be too many; at least one block is taken."""
        end = position
        while end < len(self._blocks) and (end == position or self._blocks[end][1].num_rows <= num_rows):
            num_rows -= self._blocks[end][1].num_rows
            end += 1
        return end

    def _split(self, chunk: KernelTable, next_start_ns: int | None) -> tuple[KernelTable, KernelTable]:
        """What is final and plausible, and what must wait for kernels that start at ``next_start_ns`` or later."""
        verdicts = judge_stamps(chunk, next_start_ns)
        cut = len(chunk) if next_start_ns is None else int(np.searchsorted(chunk.start_ns, next_start_ns))
        is_odd = verdicts.is_implausible[:cut] | verdicts.is_open[:cut]
        waiting = np.concatenate([np.flatnonzero(verdicts.is_open[:cut]), np.arange(cut, len(chunk))])
        self.num_implausible += int(verdicts.is_implausible[:cut].sum())
        final = chunk.slice(0, cut)
        return final.take(~is_odd) if is_odd.any() else final, chunk.take(waiting)

    def _read(self, carried: KernelTable, blocks: Sequence[tuple[KernelSource, KernelBlock]]) -> KernelTable:
        num_rows = len(carried) + sum(block.num_rows for _, block in blocks)
        columns = {
            spec.name: np.empty(num_rows, spec.metadata["dtype"])
            for spec in KernelTable.columns()
            if spec.name not in ("process", "range_id")
        }
        for name, values in columns.items():
            values[: len(carried)] = getattr(carried, name)
        row = len(carried)
        for source, block in blocks:
            records = source.kernels.records(block)
            rows = slice(row, row + len(records))
            for name in _COPIED:
                columns[name][rows] = records[name]
            columns["class_id"][rows] = source.class_ids[records["class_id"]]
            columns["device"][rows] = mapped_devices(records["device"], source.devices)
            source.kernels.file.release_before(block.block.end)
            row += len(records)
        columns["process"] = np.broadcast_to(np.int16(self._process), num_rows)
        columns["range_id"] = np.broadcast_to(np.int32(-1), num_rows)
        return KernelTable(**columns)


def _sorted(kernels: KernelTable) -> KernelTable:
    start = kernels.start_ns
    if np.all(start[:-1] <= start[1:]):
        return kernels
    order = np.argsort(start, kind="stable")
    columns = {}
    for spec in KernelTable.columns():
        values = getattr(kernels, spec.name)
        columns[spec.name] = values if values.strides == (0,) else values[order]
    return KernelTable(**columns)
