"""Reading a spool: the append-only file of checksummed blocks that one process wrote while it was traced.

The format is drawn in ``csrc/records/spool_format.h``. A spool may end anywhere, because its process may have been
killed: what is damaged is skipped and counted, never an error.
"""

from __future__ import annotations

import json
import mmap
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qmeter_native.errors import CaptureError, CaptureNotFoundError, ForeignCaptureError, NewerSchemaError
from qmeter_native.model.table import Table
from qmeter_native.model.tables import KernelClassTable
from qmeter_native.storage.spool_records import (
    BLOCK_HEADER,
    BLOCK_MAGIC,
    RECORD_DTYPES,
    RECORD_TABLES,
    SPOOL_VERSION,
    RecordKind,
)

__all__ = ["SpoolContents", "is_being_written", "read_spool"]

_HEADER_CRC_BYTES: Final = 24
_KINDS: Final = frozenset(kind.value for kind in RecordKind)
_ABSENT: Final[dict[str, int]] = {"process": 0, "range_id": -1}
"""Columns of tables that records do not have, and what fills them until spools are joined."""


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
        records_unknown: Records of a kind that this version does not know.
    """

    path: Path
    identity: dict[str, Any]
    tables: dict[str, Table]
    stats: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_blocks: int = 0
    blocks_lost: int = 0
    records_unknown: int = 0


@dataclass(frozen=True, slots=True)
class _Block:
    kind: int
    sequence: int
    count: int
    payload: memoryview


def read_spool(path: str | Path) -> SpoolContents:
    """Read a spool file as far as it is sound.

    Raises:
        CaptureNotFoundError: There is no such file.
        ForeignCaptureError: No block of it is a spool's.
        NewerSchemaError: A newer program wrote it.
    """
    path = Path(path)
    try:
        data = path.read_bytes() if path.stat().st_size == 0 else _map(path)
    except FileNotFoundError:
        raise CaptureNotFoundError(f"there is no spool at {path}", "Check the path.") from None
    except OSError as error:
        raise CaptureError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from error
    with memoryview(data) as view:
        blocks, is_torn = _sound_blocks(path, data, view)
        try:
            return _contents(path, blocks, is_torn)
        finally:
            for block in blocks:
                block.payload.release()


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


def _sound_blocks(path: Path, data: bytes | mmap.mmap, view: memoryview) -> tuple[list[_Block], bool]:
    """All blocks with right checksums, and whether anything but a block follows the last of them."""
    walked = list(_walk(path, data, view))
    if not walked and len(view) > 0:
        raise ForeignCaptureError(f"{path} is no spool of qmeter-native: it has no sound block", "Check the path.")
    last_end = walked[-1][1] if walked else 0
    return [block for block, _ in walked], last_end < len(view)


def _walk(path: Path, data: bytes | mmap.mmap, view: memoryview) -> Iterator[tuple[_Block, int]]:
    """Each sound block with the offset of its end; after damage, goes on at the next magic number."""
    offset = data.find(BLOCK_MAGIC)
    while 0 <= offset <= len(view) - BLOCK_HEADER.itemsize:
        payload_start = offset + BLOCK_HEADER.itemsize
        header = np.frombuffer(view[offset:payload_start], BLOCK_HEADER)[0]
        payload = view[payload_start : payload_start + int(header["payload_bytes"])]
        if zlib.crc32(view[offset : offset + _HEADER_CRC_BYTES]) == header["header_crc"]:
            if header["version"] > SPOOL_VERSION:
                raise NewerSchemaError(
                    f"{path} is a spool of version {header['version']}; this program reads up to {SPOOL_VERSION}",
                    "Update qmeter-native.",
                )
            if len(payload) == header["payload_bytes"] and zlib.crc32(payload) == header["payload_crc"]:
                end = payload_start + len(payload)
                yield _Block(int(header["kind"]), int(header["sequence"]), int(header["count"]), payload), end
                offset = data.find(BLOCK_MAGIC, end)
                continue
        payload.release()
        offset = data.find(BLOCK_MAGIC, offset + 1)


def _contents(path: Path, blocks: list[_Block], is_torn: bool) -> SpoolContents:
    payloads: dict[int, list[memoryview]] = defaultdict(list)
    unknown = 0
    for block in blocks:
        if block.kind in _KINDS:
            payloads[block.kind].append(block.payload)
        else:
            unknown += block.count
    strings = _strings(payloads[RecordKind.STRINGS])
    stats = [json.loads(bytes(payload)) for payload in payloads[RecordKind.STATS]]
    num_expected = max((block.sequence + 1 for block in blocks), default=0)
    return SpoolContents(
        path=path,
        identity=next((json.loads(bytes(payload)) for payload in payloads[RecordKind.IDENTITY]), {}),
        tables=_tables(payloads, strings),
        stats={entry.get("name", ""): entry for entry in stats},
        num_blocks=len(blocks),
        blocks_lost=num_expected - len({block.sequence for block in blocks}) + is_torn,
        records_unknown=unknown,
    )


def _strings(payloads: list[memoryview]) -> dict[int, str]:
    """Strings by id; each entry is ``{uint32 id, uint32 length, bytes}``."""
    strings = {0: ""}
    for payload in payloads:
        offset = 0
        while offset + 8 <= len(payload):
            number, length = (int(word) for word in np.frombuffer(payload[offset : offset + 8], "<u4"))
            offset += 8
            strings[number] = bytes(payload[offset : offset + length]).decode("utf-8", "replace")
            offset += length
    return strings


def _tables(payloads: dict[int, list[memoryview]], strings: dict[int, str]) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for kind, dtype in RECORD_DTYPES.items():
        records = [np.frombuffer(payload, dtype, len(payload) // dtype.itemsize) for payload in payloads[kind]]
        if kind is RecordKind.CLASS:
            tables[KernelClassTable.NAME] = _classes(records, payloads[RecordKind.KERNEL], strings)
        else:
            tables[RECORD_TABLES[kind].NAME] = _table(RECORD_TABLES[kind], records, strings)
    return tables


def _table(table: type[Table], records: list[NDArray[Any]], strings: dict[int, str]) -> Table:
    """Join blocks column by column, so that no second copy of all records is ever made."""
    num_rows = sum(len(part) for part in records)
    columns: dict[str, NDArray[Any]] = {}
    for spec in table.columns():
        dtype = spec.metadata["dtype"]
        if spec.name in _ABSENT:
            columns[spec.name] = np.full(num_rows, _ABSENT[spec.name], dtype)
            continue
        parts = [part[spec.name] for part in records]
        joined = np.concatenate(parts) if parts else np.empty(0, "u4")
        columns[spec.name] = _texts(joined, strings) if dtype.hasobject else joined.astype(dtype, copy=False)
    return table(**columns)


def _texts(ids: NDArray[Any], strings: dict[int, str]) -> NDArray[Any]:
    texts = np.empty(len(ids), object)
    texts[:] = [strings.get(number, f"<lost string {number}>") for number in ids.tolist()]
    return texts


def _classes(
    records: list[NDArray[Any]], kernel_payloads: list[memoryview], strings: dict[int, str]
) -> KernelClassTable:
    """Classes in order of their ids. Ids that kernels use but whose definition was lost get a class that says so."""
    kernel_dtype = RECORD_DTYPES[RecordKind.KERNEL]
    defined = np.concatenate(records) if records else np.empty(0, RECORD_DTYPES[RecordKind.CLASS])
    highest = int(defined["class_id"].max()) if len(defined) else -1
    for payload in kernel_payloads:
        used = np.frombuffer(payload, kernel_dtype, len(payload) // kernel_dtype.itemsize)["class_id"]
        highest = max(highest, int(used.max())) if len(used) else highest
    columns: dict[str, NDArray[Any]] = {}
    for spec in KernelClassTable.columns():
        columns[spec.name] = np.zeros(highest + 1, spec.metadata["dtype"])
        if spec.name != "name":
            columns[spec.name][defined["class_id"]] = defined[spec.name]
    columns["name"][:] = "<lost kernel class>"
    columns["name"][defined["class_id"]] = _texts(defined["name"], strings)
    return KernelClassTable(**columns)
