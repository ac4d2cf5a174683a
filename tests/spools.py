"""Builders of spools for tests and benchmarks: `SpoolFile` block by block, `synthetic_spool` at any size."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.capture.session_state import SessionState
from qmeter_native.model.capture import Capture
from qmeter_native.model.table import Table
from qmeter_native.storage.spool_records import BLOCK_MAGIC, RECORD_DTYPES, RECORD_TABLES, RecordKind
from tests.factories import synthetic_capture

BLOCK_BYTES = 262_144
"""What the native writer fills a block with."""

_PIECE_KERNELS = 2_000_000


class SpoolFile:
    """Writes blocks as the native writer does."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.num_blocks = 0

    def block(self, kind: int, payload: bytes, count: int = 1, version: int = 1) -> SpoolFile:
        head = BLOCK_MAGIC + struct.pack(
            "<HHIIII", version, kind, self.num_blocks, count, len(payload), zlib.crc32(payload)
        )
        self.blocks.append(head + struct.pack("<I", zlib.crc32(head)) + payload)
        self.num_blocks += 1
        return self

    def identity(self, pid: int, **values: Any) -> SpoolFile:
        document = {"format": "qmeter-spool", "version": 1, "host": "host", "boot_id": "boot", "pid": pid, **values}
        return self.block(RecordKind.IDENTITY, json.dumps(document).encode())

    def stats(self, name: str, **values: Any) -> SpoolFile:
        return self.block(RecordKind.STATS, json.dumps({"name": name, **values}).encode())

    def session(self, state: SessionState) -> SpoolFile:
        return self.block(RecordKind.STATS, json.dumps(state.to_dict()).encode())

    def strings(self, **texts: str) -> SpoolFile:
        entries = [(int(number[1:]), text.encode()) for number, text in texts.items()]
        return self.block(
            RecordKind.STRINGS, b"".join(struct.pack("<II", number, len(text)) + text for number, text in entries)
        )

    def records(self, kind: RecordKind, *rows: dict[str, Any]) -> SpoolFile:
        records = np.zeros(len(rows), RECORD_DTYPES[kind])
        for record, row in zip(records, rows, strict=True):
            for name, value in row.items():
                record[name] = value
        return self.array(kind, records)

    def array(self, kind: RecordKind, records: NDArray[Any]) -> SpoolFile:
        return self.block(kind, records.tobytes(), len(records))

    def kernels(self, *starts: int, class_id: int = 0, **values: int) -> SpoolFile:
        rows = [{"start_ns": start, "end_ns": start + 1, "class_id": class_id, **values} for start in starts]
        return self.records(RecordKind.KERNEL, *rows)

    def write(self, path: Path) -> Path:
        path.write_bytes(b"".join(self.blocks))
        return path


def synthetic_spool(path: Path, num_kernels: int) -> Path:
    """Write the spool of a process that serves as in `synthetic_capture`, kernels in the order in which they end."""
    spool = SpoolFile()
    with path.open("wb") as file:
        spool.identity(100)
        first = synthetic_capture(min(num_kernels, _PIECE_KERNELS))
        spool.stats("session", **_state(first))
        for kind, records in _class_blocks(first):
            spool.block(kind, records)
        for piece in _pieces(first, num_kernels):
            for kind, table in RECORD_TABLES.items():
                if kind not in (RecordKind.CLASS, RecordKind.REQUEST_ID):
                    _append(spool, kind, getattr(piece, table.NAME))
            file.writelines(spool.blocks)
            spool.blocks.clear()
        spool.stats("spool", dropped_records=0, error=None)
        file.writelines(spool.blocks)
    return path


def _state(capture: Capture) -> dict[str, Any]:
    manifest = capture.manifest
    state = SessionState(manifest.start_ns, list(manifest.devices), cuda_devices=[0], engine=manifest.engine)
    return {**asdict(replace(state, end_ns=manifest.end_ns, measure_start_ns=manifest.measure_start_ns))}


def _class_blocks(capture: Capture) -> Iterator[tuple[RecordKind, bytes]]:
    classes = capture.kernel_classes
    texts = [name.encode() for name in classes.name.tolist()]
    entries = [struct.pack("<II", number, len(text)) + text for number, text in enumerate(texts, 1)]
    yield RecordKind.STRINGS, b"".join(entries)
    records = _records(RecordKind.CLASS, classes)
    records["class_id"], records["name"] = np.arange(len(classes)), 1 + np.arange(len(classes))
    yield RecordKind.CLASS, records.tobytes()


def _pieces(first: Capture, num_kernels: int) -> Iterator[Capture]:
    """Captures one after the other in time, each with requests and steps of its own."""
    written = 0
    shift_ns = num_requests = num_steps = 0
    while written < num_kernels:
        piece = first if written == 0 else synthetic_capture(min(num_kernels - written, _PIECE_KERNELS), seed=written)
        yield _moved(piece, shift_ns, num_requests, num_steps)
        shift_ns += piece.manifest.end_ns - piece.manifest.start_ns
        num_requests += len(piece.requests)
        num_steps += len(piece.steps)
        written += len(piece.kernels)


def _moved(capture: Capture, shift_ns: int, first_request: int, first_step: int) -> Capture:
    moved = {}
    for table in set(RECORD_TABLES.values()):
        rows: Any = getattr(capture, table.NAME, None)
        if rows is None or table.NAME == "kernel_classes":
            continue
        offsets = {"step": first_step, "request": first_request}
        columns = [spec.name for spec in table.columns()]
        offsets |= {name: shift_ns for name in columns if name.endswith("_ns")}
        moved[table.NAME] = replace(
            rows, **{name: getattr(rows, name) + offsets[name] for name in columns if name in offsets}
        )
    kernels = moved["kernels"]
    moved["kernels"] = kernels.take(np.argsort(kernels.end_ns, kind="stable"))
    return replace(capture, **moved)


def _records(kind: RecordKind, table: Table) -> NDArray[Any]:
    records = np.zeros(len(table), RECORD_DTYPES[kind])
    for name in records.dtype.names or ():
        values = getattr(table, name, None)
        if values is not None and not values.dtype.hasobject:
            records[name] = values
    return records


def _append(spool: SpoolFile, kind: RecordKind, table: Table) -> None:
    records = _records(kind, table)
    per_block = BLOCK_BYTES // records.dtype.itemsize
    for first in range(0, len(records), per_block):
        spool.array(kind, records[first : first + per_block])
