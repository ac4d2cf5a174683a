"""Spools → capture: what every traced run ends with, and what recovers a run whose process was killed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from qmeter_native import __version__
from qmeter_native.capture.session_state import STATE_NAME, SessionState
from qmeter_native.capture.stamps import implausible_stamps
from qmeter_native.errors import CaptureNotFoundError, DamagedCaptureError, ForeignCaptureError
from qmeter_native.model.activity_kind import ActivityKind
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import LossReport, Manifest, ProcessInfo, Validity
from qmeter_native.model.tables import KernelClassTable, KernelTable
from qmeter_native.storage.schema import SCHEMA_VERSION, SPOOL_FOLDER, SPOOL_SUFFIX
from qmeter_native.storage.spool import SpoolContents, read_spool
from qmeter_native.storage.spool_join import join_spools
from qmeter_native.storage.writer import write_capture

__all__ = ["WRITE_FAILED", "Stats", "finalize", "is_unfinished"]

WRITE_FAILED = "spool_write_failed"
"""Code of the validity entry that says that a process could not write all that it recorded."""

Stats = Mapping[str, dict[str, Any]]
"""The last statistics of each collector of one process, by the collector's name."""


def is_unfinished(path: Path) -> bool:
    """Whether the spools of a capture are still there: its processes run, or were killed before they could finalize."""
    return any((path / SPOOL_FOLDER).glob(f"*{SPOOL_SUFFIX}"))


def finalize(path: Path, unwritten: Mapping[str, Stats] | None = None) -> Capture:
    """Join the spools of a capture, write its tables and manifest, and remove the spools.

    Args:
        path: The capture.
        unwritten: By name of a spool file, statistics that its process has and the file does not: the disk was full.

    Raises:
        CaptureNotFoundError: There is no spool under ``path``.
        DamagedCaptureError: No spool tells what was being traced.
        CaptureError: The tables cannot be written; the spools stay.
    """
    files = sorted((path / SPOOL_FOLDER).glob(f"*{SPOOL_SUFFIX}"))
    if not files:
        raise CaptureNotFoundError(f"{path} has no spool to finalize", "Check the path.")
    spools = [contents for contents in map(_read_or_none, files) if contents is not None]
    spools = [replace(spool, stats={**spool.stats, **(unwritten or {}).get(spool.path.name, {})}) for spool in spools]
    states = [SessionState.from_dict(spool.stats[STATE_NAME]) for spool in spools if STATE_NAME in spool.stats]
    if not states:
        raise DamagedCaptureError(
            f"{path}: no spool tells what was traced; its process died before it wrote that",
            "Nothing can be recovered; trace again.",
        )
    capture = _capture(spools, states[0])
    write_capture(capture, path)
    shutil.rmtree(path / SPOOL_FOLDER)
    return capture


def _read_or_none(file: Path) -> SpoolContents | None:
    """A spool's contents, or None for a file that is not one: its process died before the first block."""
    try:
        return read_spool(file)
    except ForeignCaptureError:
        return None


def _capture(spools: Sequence[SpoolContents], state: SessionState) -> Capture:
    on_manifest_devices = [_with_manifest_devices(spool, state.cuda_devices) for spool in spools]
    tables = cast("dict[str, Any]", join_spools(on_manifest_devices))
    is_implausible = implausible_stamps(tables["kernels"])
    tables["kernels"] = tables["kernels"].take(~is_implausible)
    manifest = _manifest(spools, state, tables)
    loss = replace(manifest.loss, implausible_timestamps=int(is_implausible.sum()))
    return Capture(manifest=replace(manifest, loss=loss), **tables)


def _with_manifest_devices(spool: SpoolContents, cuda_devices: Sequence[int]) -> SpoolContents:
    """CUPTI numbers devices by CUDA ordinal; the capture by manifest index. CPU operators carry the index already.

    An ordinal that no device is known for becomes -1, which attribution reports as an unlisted device.
    """
    kernels = cast(KernelTable, spool.tables["kernels"])
    if not cuda_devices or not len(kernels):
        return spool
    classes = cast(KernelClassTable, spool.tables["kernel_classes"])
    is_operator = classes.kind[kernels.class_id] == ActivityKind.OPERATOR
    ordinals = np.where(kernels.device < len(cuda_devices), kernels.device, len(cuda_devices))
    device = np.where(is_operator, kernels.device, np.asarray([*cuda_devices, -1], "i2")[ordinals])
    return replace(spool, tables={**spool.tables, "kernels": replace(kernels, device=device.astype("i2"))})


def _manifest(spools: Sequence[SpoolContents], state: SessionState, tables: dict[str, Any]) -> Manifest:
    end_ns = state.end_ns or _last_stamp(tables, state.start_ns)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        qmeter_version=__version__,
        start_ns=state.start_ns,
        end_ns=end_ns,
        measure_start_ns=state.measure_start_ns or state.start_ns,
        measure_end_ns=state.measure_end_ns or end_ns,
        devices=tuple(state.devices),
        processes=tuple(_process(index, spool.identity) for index, spool in enumerate(spools)),
        engine=state.engine,
        workload=state.workload,
        loss=_loss(spools),
        validity=(*state.validity, *_validity(spools, state)),
        overhead=_overhead(spools),
        tracer={**state.tracer, **_merged(spools, "kernel_tracer")},
        sampler=_merged(spools, "energy_sampler"),
        software=state.software,
    )


def _last_stamp(tables: dict[str, Any], start_ns: int) -> int:
    """When a killed process was last heard of."""
    columns = (("kernels", "end_ns"), ("power", "time_ns"), ("energy", "high_ns"), ("steps", "end_ns"))
    stamps = [int(getattr(tables[name], column).max()) for name, column in columns if len(tables[name])]
    return max([start_ns, *stamps])


def _process(index: int, identity: dict[str, Any]) -> ProcessInfo:
    return ProcessInfo(
        index=index,
        host=str(identity.get("host", "")),
        boot_id=str(identity.get("boot_id", "")),
        pid=int(identity.get("pid", 0)),
        rank=identity.get("rank"),
        command=str(identity.get("command", "")),
    )


def _merged(spools: Sequence[SpoolContents], name: str) -> dict[str, Any]:
    """A collector's last statistics; of the first process that has them."""
    found = next((spool.stats[name] for spool in spools if name in spool.stats), {})
    return {key: value for key, value in found.items() if key != "name"}


def _loss(spools: Sequence[SpoolContents]) -> LossReport:
    def total(collector: str, key: str) -> int:
        return sum(int(spool.stats.get(collector, {}).get(key, 0)) for spool in spools)

    return LossReport(
        dropped_records=total("kernel_tracer", "dropped_records"),
        zero_timestamps=total("kernel_tracer", "zero_timestamps"),
        reversed_timestamps=total("kernel_tracer", "reversed_timestamps"),
        unknown_records=total("kernel_tracer", "unknown_records") + sum(spool.records_unknown for spool in spools),
        spool_blocks_lost=sum(spool.blocks_lost for spool in spools),
        spool_records_dropped=total("spool", "dropped_records"),
        missed_samples=total("energy_sampler", "missed_samples"),
    )


def _overhead(spools: Sequence[SpoolContents]) -> dict[str, Any]:
    """CPU seconds of the meter's own threads, by collector."""
    tracer, sampler = _merged(spools, "kernel_tracer"), _merged(spools, "energy_sampler")
    figures = {
        "sampler_cpu_ns": sampler.get("cpu_ns"),
        "sampler_blocked_ns": sampler.get("blocked_ns"),
        "decode_ns": tracer.get("decode_ns"),
        "callback_ns": tracer.get("callback_ns"),
    }
    return {key: value for key, value in figures.items() if value is not None}


def _validity(spools: Sequence[SpoolContents], state: SessionState) -> list[Validity]:
    found = []
    if not state.end_ns:
        found.append(
            Validity("recovered", "The traced process ended without closing its capture; what it had written was kept.")
        )
    for spool in spools:
        error = spool.stats.get("spool", {}).get("error")
        if error:
            found.append(Validity(WRITE_FAILED, f"Records after this were lost: {error}", spool.path.name))
        for index in spool.stats.get("energy_sampler", {}).get("devices_lost", []):
            found.append(Validity("device_lost", "The GPU stopped answering during the run.", f"device {index}"))
    return found
