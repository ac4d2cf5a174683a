"""Where a spool's kernels are: they are most of a spool, and are read block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.tables import KernelTable
from qmeter_native.storage.spool_file import Block, SpoolFile
from qmeter_native.storage.spool_records import RECORD_DTYPES, RecordKind

__all__ = ["KERNEL_RECORD", "KernelBlock", "KernelBlocks"]

KERNEL_RECORD: Final = RECORD_DTYPES[RecordKind.KERNEL]


@dataclass(frozen=True, slots=True)
class KernelBlock:
    """A block of kernel records: where it is, how many it has, its earliest start and its highest class."""

    block: Block
    num_rows: int
    first_start_ns: int
    highest_class: int

    @classmethod
    def of(cls, file: SpoolFile, block: Block) -> KernelBlock:
        """Look at a block of ``file`` that has at least one kernel."""
        records = file.records(block, KERNEL_RECORD)
        return cls(block, len(records), int(records["start_ns"].min()), int(records["class_id"].max()))


@dataclass(frozen=True, slots=True)
class KernelBlocks:
    """The kernels of one spool, in the order in which they were written."""

    file: SpoolFile
    blocks: Sequence[KernelBlock]

    @property
    def num_rows(self) -> int:
        """Kernels in all blocks."""
        return sum(block.num_rows for block in self.blocks)

    def records(self, block: KernelBlock) -> NDArray[Any]:
        """The records of one block (`KERNEL_RECORD`), a view of the file."""
        return self.file.records(block.block, KERNEL_RECORD)

    def table(self) -> KernelTable:
        """All kernels; ``process`` is 0 and ``range_id`` -1."""
        columns = self.file.columns([block.block for block in self.blocks], KERNEL_RECORD)
        absent = {"process": np.zeros(self.num_rows), "range_id": np.full(self.num_rows, -1)}
        return KernelTable.from_columns(**columns, **absent)
