"""Reading a spool: the append-only file of checksummed blocks that one process wrote while it was traced."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.table import Table
from qmeter_native.model.tables import KernelClassTable, KernelTable
from qmeter_native.storage.kernel_blocks import KERNEL_RECORD, KernelBlock, KernelBlocks
from qmeter_native.storage.spool_file import Block, SpoolFile, is_being_written
from qmeter_native.storage.spool_records import RECORD_DTYPES, RECORD_TABLES, RecordKind

__all__ = ["SpoolContents", "is_being_written", "read_spool", "scan_spool"]

_KINDS: Final = frozenset(kind.value for kind in RecordKind)


@dataclass(frozen=True, slots=True)
class SpoolContents:
    """What could be read of one spool.

    Attributes:
        path: The file.
        identity: JSON of the first block: host, boot_id, pid, …; empty if that block is lost.
        tables: Tables by name; ``process`` is 0, ``range_id`` -1, and ``class_id`` indexes this spool's own
            ``kernel_classes``. Rows are in the order in which they were written.
        stats: Last statistics of each collector, by its name.
        num_blocks: Blocks read.
        blocks_lost: Blocks missing in the sequence, plus one if the file ends in a torn block.
        is_torn: The file ends in a torn block.
        records_unknown: Records of a kind that this version does not know.
    """

    path: Path
    identity: dict[str, Any]
    tables: dict[str, Table]
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_blocks: int = 0
    blocks_lost: int = 0
    is_torn: bool = False
    records_unknown: int = 0


def read_spool(path: str | Path) -> SpoolContents:
    """Read a spool file as far as it is sound.

    Raises:
        CaptureNotFoundError: There is no such file.
        ForeignCaptureError: No block of it is a spool's.
        NewerSchemaError: A newer program wrote it.
    """
    contents, kernels = scan_spool(path)
    return replace(contents, tables={**contents.tables, KernelTable.NAME: kernels.table()})


def scan_spool(path: str | Path) -> tuple[SpoolContents, KernelBlocks]:
    """Read a spool as `read_spool` does, all but its kernels: of these, only where they are."""
    file = SpoolFile(path)
    blocks: list[Block] = []
    kernels: list[KernelBlock] = []
    for block in file.sound_blocks():
        blocks.append(block)
        if block.kind == RecordKind.KERNEL and block.end - block.start >= KERNEL_RECORD.itemsize:
            kernels.append(KernelBlock.of(file, block))
    return _contents(file, blocks, kernels), KernelBlocks(file, kernels)


def _contents(file: SpoolFile, blocks: Sequence[Block], kernels: Sequence[KernelBlock]) -> SpoolContents:
    by_kind: dict[int, list[Block]] = defaultdict(list)
    for block in blocks:
        by_kind[block.kind].append(block)
    texts = [json.loads(file.payload(block).tobytes()) for block in by_kind[RecordKind.IDENTITY]]
    stats = [json.loads(file.payload(block).tobytes()) for block in by_kind[RecordKind.STATS]]
    num_expected = max((block.sequence + 1 for block in blocks), default=0)
    is_torn = (blocks[-1].end if blocks else 0) < len(file)
    return SpoolContents(
        path=file.path,
        identity=texts[0] if texts else {},
        tables=_tables(file, by_kind, max((block.highest_class for block in kernels), default=-1)),
        stats={entry.get("name", ""): entry for entry in stats},
        num_blocks=len(blocks),
        blocks_lost=num_expected - len({block.sequence for block in blocks}) + is_torn,
        is_torn=is_torn,
        records_unknown=sum(block.count for block in blocks if block.kind not in _KINDS),
    )


def _tables(file: SpoolFile, by_kind: dict[int, list[Block]], highest_class: int) -> dict[str, Table]:
    strings = _strings([file.payload(block) for block in by_kind[RecordKind.STRINGS]])
    tables: dict[str, Table] = {KernelTable.NAME: KernelTable.empty()}
    for kind, table in RECORD_TABLES.items():
        if kind is RecordKind.KERNEL:
            continue
        records = file.columns(by_kind[kind], RECORD_DTYPES[kind])
        if kind is RecordKind.CLASS:
            tables[table.NAME] = _classes(records, highest_class, strings)
        else:
            tables[table.NAME] = _table(table, records, strings)
    return tables


def _strings(payloads: Sequence[NDArray[np.uint8]]) -> dict[int, str]:
    """Strings by id; each entry is ``{uint32 id, uint32 length, bytes}``."""
    strings = {0: ""}
    for payload in map(np.ndarray.tobytes, payloads):
        offset = 0
        while offset + 8 <= len(payload):
            number, length = (int.from_bytes(payload[at : at + 4], "little") for at in (offset, offset + 4))
            offset += 8
            strings[number] = payload[offset : offset + length].decode("utf-8", "replace")
            offset += length
    return strings


def _table(table: type[Table], records: dict[str, NDArray[Any]], strings: dict[int, str]) -> Table:
    columns: dict[str, NDArray[Any]] = {}
    for spec in table.columns():
        dtype = spec.metadata["dtype"]
        if spec.name == "process":  # a spool does not know its number among the others
            num_rows = len(next(iter(records.values())))
            columns[spec.name] = np.broadcast_to(np.zeros(1, dtype), num_rows)
        elif dtype.hasobject:
            columns[spec.name] = _texts(records[spec.name], strings)
        else:
            columns[spec.name] = records[spec.name].astype(dtype, copy=False)
    return table(**columns)


def _texts(ids: NDArray[Any], strings: dict[int, str]) -> NDArray[Any]:
    texts = np.empty(len(ids), object)
    texts[:] = [strings.get(number, f"<lost string {number}>") for number in ids.tolist()]
    return texts


def _classes(defined: dict[str, NDArray[Any]], highest_used: int, strings: dict[int, str]) -> KernelClassTable:
    """Classes in order of their ids. Ids that kernels use but whose definition was lost get a class that says so."""
    highest = max(defined["class_id"].astype(np.int64).max(initial=-1), highest_used)
    columns: dict[str, NDArray[Any]] = {}
    for spec in KernelClassTable.columns():
        columns[spec.name] = np.zeros(highest + 1, spec.metadata["dtype"])
        if spec.name != "name":
            columns[spec.name][defined["class_id"]] = defined[spec.name]
    columns["name"][:] = "<lost kernel class>"
    columns["name"][defined["class_id"]] = _texts(defined["name"], strings)
    return KernelClassTable(**columns)
