"""Spools → capture: what every traced run ends with, and what recovers a run whose process was killed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from qmeter_native.capture.device_map import kernel_devices
from qmeter_native.capture.kernel_merge import KernelMerge, KernelSource
from qmeter_native.capture.run_manifest import run_manifest
from qmeter_native.capture.run_notes import WRITE_FAILED, run_notes
from qmeter_native.capture.run_tables import join_requests_of, join_tables
from qmeter_native.capture.traced_run import Stats, TracedRun, spool_files
from qmeter_native.model.tables import TABLES
from qmeter_native.storage.schema import SPOOL_FOLDER
from qmeter_native.storage.spool_join import join_classes
from qmeter_native.storage.writer import CaptureWriter, capture_writer

__all__ = ["WRITE_FAILED", "Stats", "finalize", "is_unfinished"]


def is_unfinished(path: Path) -> bool:
    """Whether the spools of a capture are still there: its processes run, or were killed before they could finalize."""
    return bool(spool_files(path))


def finalize(path: Path, unwritten: Mapping[str, Stats] | None = None) -> None:
    """Join the spools of a capture, write its tables and manifest, and remove the spools.

    A spool whose process still runs is read as far as it is written, and left to it.

    Args:
        path: The capture.
        unwritten: By name, the spools that the caller has closed, with statistics that they could not hold any more
            because the disk was full.

    Raises:
        CaptureNotFoundError: There is no spool under ``path``.
        DamagedCaptureError: No spool tells what was being traced.
        CaptureError: The tables cannot be written; the spools stay.
    """
    run = TracedRun.read(path, unwritten or {})
    with capture_writer(path) as writer:
        kernels = _write_kernels(run, writer)
        joined = join_requests_of(run)
        tables = join_tables(run, joined, kernels)
        for kind in TABLES:
            writer.write(tables[kind.NAME], run.processes.infos)
        notes = run_notes(run, cast("dict[str, Any]", tables), joined)
        writer.finish(run_manifest(run, tables, kernels, notes))
    _remove(path, run)


def _write_kernels(run: TracedRun, writer: CaptureWriter) -> list[KernelMerge]:
    """Write the kernels of each process; what was seen of them, by the process's index."""
    _, class_ids = join_classes(run.spools)
    sources = [
        KernelSource(kernels, ids, kernel_devices(spool, run.state))
        for spool, kernels, ids in zip(run.spools, run.kernels, class_ids, strict=True)
    ]
    merges = []
    for info in run.processes.infos:
        of_process = zip(run.processes.of_spool, sources, strict=True)
        merges.append(KernelMerge([source for process, source in of_process if process == info.index], info.index))
        for chunk in merges[-1]:
            writer.write(chunk, run.processes.infos)
    return merges


def _remove(path: Path, run: TracedRun) -> None:
    """Remove the spools whose processes are over, and with the last of them all that they shared."""
    for file in run.finished:
        file.unlink()
    if not spool_files(path):
        shutil.rmtree(path / SPOOL_FOLDER)
