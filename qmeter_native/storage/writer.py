"""Writing a capture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from qmeter_native.errors import CaptureError, ForeignCaptureError
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import ProcessInfo
from qmeter_native.model.table import Table
from qmeter_native.model.tables import TABLES, RangeTable
from qmeter_native.storage.manifest import TableFile, crc32_of, manifest_json
from qmeter_native.storage.schema import MANIFEST_FILE, SCHEMA_VERSION, table_file

__all__ = ["write_capture"]


def write_capture(capture: Capture, path: str | Path) -> None:
    """Write ``capture`` as the folder ``path``, which may exist as long as it holds no finished capture.

    Every file is written under a temporary name and renamed; the manifest comes last, so a folder with a manifest is
    a whole capture. If writing fails, spools that are already there stay as they are.

    Raises:
        ValueError: A row names a process that the manifest does not list.
        ForeignCaptureError: ``path`` is a file.
        CaptureError: ``path`` already holds a capture, or cannot be written (no space, no permission).
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ForeignCaptureError(f"{path} is a file; no capture can be written there", "Choose another name.")
    if (path / MANIFEST_FILE).exists():
        raise CaptureError(f"{path} already holds a capture", "Choose another name, or remove it first.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        files = [_write(part, path / name, process) for part, name, process in _parts(capture)]
        manifest = replace(capture.manifest, schema_version=SCHEMA_VERSION)
        _replace_text(path / MANIFEST_FILE, manifest_json(manifest, files))
    except OSError as error:
        raise CaptureError(
            f"the capture {path} cannot be written: {error.strerror or error}",
            "Make room or choose another folder. What was spooled before stays readable.",
        ) from error


def _parts(capture: Capture) -> Iterator[tuple[Table, str, ProcessInfo | None]]:
    """Each table that has rows, or each process's part of it, with its file name.

    Ranges stay whole: kernels name them by row.
    """
    known = [process.index for process in capture.manifest.processes]
    for kind in TABLES:
        table: Table = getattr(capture, kind.NAME)
        process_of_row = getattr(table, "process", None)
        if len(table) == 0:
            continue
        if process_of_row is None or kind is RangeTable:
            yield table, table_file(kind.NAME, None), None
            continue
        if not np.isin(process_of_row, known).all():
            raise ValueError(f"{kind.NAME} has rows of a process that the manifest does not list")
        for process in capture.manifest.processes:
            is_its_row = process_of_row == process.index
            if is_its_row.any():
                part = table if is_its_row.all() else table.take(np.flatnonzero(is_its_row))
                yield part, table_file(kind.NAME, process), process


def _write(table: Table, path: Path, process: ProcessInfo | None) -> TableFile:
    from qmeter_native.storage.table_files import write_table

    temporary = path.with_suffix(".tmp")
    try:
        write_table(table, temporary)
        _sync(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return TableFile(
        table=type(table).NAME,
        file=path.name,
        rows=len(table),
        bytes=path.stat().st_size,
        crc32=crc32_of(path),
        process=None if process is None else process.index,
    )


def _replace_text(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        _sync(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
