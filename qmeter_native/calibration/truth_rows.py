"""Rows of the truth test's result file: what runs measured, from files and from captures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from qmeter_native.calibration.load_session import chip_of
from qmeter_native.calibration.load_windows import load_problem
from qmeter_native.calibration.truth import truth_row
from qmeter_native.capture.open import open_capture
from qmeter_native.devices.default_profile import default_profile
from qmeter_native.errors import CaptureError
from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo
from qmeter_native.model.power_model import EnergyMode

__all__ = ["LOADS", "measured_row", "read_rows"]

LOADS: Final = "loads.qmt"
"""The capture of a run's windows, in the folder of its captures."""
_ROW_KEYS: Final = frozenset({"profile", "kinds", "windows"})
"""Of a row of a result file; see `truth_row`."""


def read_rows(paths: Sequence[Path]) -> tuple[str, list[dict[str, Any]], list[str]]:
    """Device, rows and notes of earlier runs of the truth test: result files, captures, or folders of captures.

    Raises:
        CaptureError: A file cannot be read, has no rows, or is of another model of GPU.
    """
    device, rows, notes = "", [], []
    for path in paths:
        name, found, remarks = _of_capture(path) if path.is_dir() else _of_file(path)
        if device and name != device:
            raise CaptureError(f"{path} is of {name}, the files before of {device}", "Put one GPU's runs together.")
        device = name
        rows += found
        notes += [note for note in remarks if note not in notes]
    return device, rows, notes


def _of_file(path: Path) -> tuple[str, list[dict[str, Any]], list[str]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _foreign(path, f"it cannot be read: {error}") from error
    except ValueError as error:
        raise _foreign(path, "it is no JSON") from error
    is_truth = isinstance(document, dict) and isinstance(document.get("device"), str)
    rows = document.get("rows") if is_truth else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= _ROW_KEYS for row in rows):
        raise _foreign(path, f"it has no device, or no rows with {', '.join(sorted(_ROW_KEYS))}")
    return document["device"], rows, document.get("notes", [])


def _foreign(path: Path, why: str) -> CaptureError:
    return CaptureError(f"{path} is no result file of the truth test: {why}", "Give files or captures of --verify.")


def _of_capture(path: Path) -> tuple[str, list[dict[str, Any]], list[str]]:
    """Also of a run that was killed: what its spool holds is made a capture of first."""
    capture = open_capture(path / LOADS if (path / LOADS).is_dir() else path)
    busiest = int(np.bincount(capture.kernels.device).argmax()) if len(capture.kernels) else -1
    device = next((info for info in capture.manifest.devices if info.index == busiest), None)
    if device is None or capture.manifest.workload.get("name") != "loads":
        raise CaptureError(f"{path} is no capture of the truth test", "Give files or captures of --verify.")
    row, notes = measured_row(capture, device)
    return device.name, [row], notes


def measured_row(capture: Capture, device: DeviceInfo) -> tuple[dict[str, Any], list[str]]:
    """What a run measured on a device, and what weakens it."""
    prior = default_profile(device.name, device.uuid or "", device.properties.get("compute_capability"))
    loads = load_problem(capture, device.index, chip_of(device), prior.power_model.reference_mhz)
    left_out: dict[str, str] = capture.manifest.workload.get("left_out", {})
    notes = [f"The load {name} was left out: {reason}." for name, reason in left_out.items()]
    notes += [entry.message for entry in capture.manifest.validity]
    modes = {mode.value: loads.problem.modes.count(mode) for mode in EnergyMode}
    counts = ", ".join(f"{mode} ({count})" for mode, count in modes.items() if count)
    return truth_row(loads, prior), [*notes, f"Work of kinds is known by {counts}."]
