"""Writing a capture, whole or table by table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from qmeter_native.errors import CaptureError, ForeignCaptureError
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import Manifest, ProcessInfo
from qmeter_native.model.table import Table
from qmeter_native.model.tables import TABLES, RangeTable
from qmeter_native.storage.manifest import TableFile, crc32_of, manifest_json
from qmeter_native.storage.schema import MANIFEST_FILE, PART_ROWS, SCHEMA_VERSION, table_file

__all__ = ["CaptureWriter", "capture_writer", "write_capture"]


def write_capture(capture: Capture, path: str | Path) -> None:
    """Write ``capture`` as the folder ``path``, which may exist as long as it holds no finished capture.

    Every file is written under a temporary name and renamed; the manifest comes last, so a folder with a manifest is
    a whole capture. If writing fails, spools that are already there stay as they are.

    Raises:
        ValueError: A row names a process that the manifest does not list.
        ForeignCaptureError: ``path`` is a file.
        CaptureError: ``path`` already holds a capture, or cannot be written (no space, no permission).
    """
    with capture_writer(path) as writer:
        for kind in TABLES:
            writer.write(getattr(capture, kind.NAME), capture.manifest.processes)
        writer.finish(capture.manifest)


@contextmanager
def capture_writer(path: str | Path) -> Iterator[CaptureWriter]:
    """Write a capture table by table. What was written is removed if the body raises, or did not finish it.

    Raises:
        ForeignCaptureError: ``path`` is a file.
        CaptureError: ``path`` already holds a capture, or cannot be written (no space, no permission).
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ForeignCaptureError(f"{path} is a file; no capture can be written there", "Choose another name.")
    if (path / MANIFEST_FILE).exists():
        raise CaptureError(f"{path} already holds a capture", "Choose another name, or remove it first.")
    writer = CaptureWriter(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield writer
    except OSError as error:
        raise CaptureError(
            f"the capture {path} cannot be written: {error.strerror or error}",
            "Make room or choose another folder. What was spooled before stays readable.",
        ) from error
    finally:
        writer.close()


class CaptureWriter:
    """Writes the files of a capture in a thread of its own, one after the other. See `capture_writer`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "capture-writer")
        self._under_way: Future[None] | None = None
        self._files: list[TableFile] = []
        self._num_parts: Counter[tuple[str, int | None]] = Counter()
        self._is_finished = False

    def write(self, table: Table, processes: tuple[ProcessInfo, ...]) -> None:
        """Write rows of a table, after those that were written before; each process's have files of their own.

        Returns when the files before are written: of what is given here, the last may still be under way, and must
        not be changed.

        Ranges stay whole: kernels name them by row.

        Raises:
            ValueError: A row names a process that is not in ``processes``.
            OSError: A file cannot be written.
        """
        process_of_row = getattr(table, "process", None)
        if process_of_row is None or isinstance(table, RangeTable):
            self._write_rows(table, None)
            return
        if not np.isin(process_of_row, [process.index for process in processes]).all():
            raise ValueError(f"{table.NAME} has rows of a process that the manifest does not list")
        for process in processes:
            is_its_row = process_of_row == process.index
            self._write_rows(table if is_its_row.all() else table.take(np.flatnonzero(is_its_row)), process)

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest. The capture is whole then."""
        self._wait()
        _replace_text(
            self._path / MANIFEST_FILE, manifest_json(replace(manifest, schema_version=SCHEMA_VERSION), self._files)
        )
        self._is_finished = True

    def close(self) -> None:
        """Remove what was written, unless it was finished. Idempotent."""
        self._thread.shutdown()
        if not self._is_finished:
            for file in self._files:
                (self._path / file.file).unlink(missing_ok=True)

    def _write_rows(self, table: Table, process: ProcessInfo | None) -> None:
        for first in range(0, len(table), PART_ROWS):
            part = table.slice(first, first + PART_ROWS)
            key = (table.NAME, None if process is None else process.index)
            path = self._path / table_file(table.NAME, process, self._num_parts[key])
            self._num_parts[key] += 1
            self._wait()
            self._under_way = self._thread.submit(self._write_file, part, path, process)

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _write_file(self, table: Table, path: Path, process: ProcessInfo | None) -> None:
        from qmeter_native.storage.table_files import write_table

        temporary = path.with_suffix(".tmp")
        try:
            write_table(table, temporary)
            _sync(temporary)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        self._files.append(
            TableFile(
                table=type(table).NAME,
                file=path.name,
                rows=len(table),
                bytes=path.stat().st_size,
                crc32=crc32_of(path),
                process=None if process is None else process.index,
            )
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
