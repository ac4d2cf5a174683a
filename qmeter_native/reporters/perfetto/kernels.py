"""Kernels: a track for each device, process and stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.attribution.classify import op_family
from qmeter_native.attribution.display_name import display_name
from qmeter_native.attribution.steps import kernel_steps
from qmeter_native.model.tables import KernelClassTable, KernelTable
from qmeter_native.reporters.perfetto.packets import Slices
from qmeter_native.reporters.perfetto.stage import PHASES, Stage

__all__ = ["kernel_slices"]

_Array = NDArray[Any]


def kernel_slices(stage: Stage) -> Slices:
    """Every activity of the window, with kernel, family, phase, step, grid and block as arguments."""
    capture = stage.capture
    rows = stage.window.touches(capture.kernels.start_ns, capture.kernels.end_ns)
    kernels = capture.kernels.take(rows)
    step = kernel_steps(capture, stage.spans)[rows]
    phase = np.where(step >= 0, stage.step_phases()[step], 0) if len(capture.steps) else np.zeros(len(rows), np.int64)
    classes, texts = capture.kernel_classes, stage.texts
    names = classes.name.tolist()
    by_class = {
        "kernel": texts.values(names),
        "family": texts.values(op_family(name).value for name in names),
        "grid": texts.values(_shapes(classes, "grid")),
        "block": texts.values(_shapes(classes, "block")),
    }
    step_texts = texts.values([*map(str, capture.steps.step.tolist()), "none"])  # row -1 is the last: no step
    return Slices(
        start_ns=kernels.start_ns,
        end_ns=kernels.end_ns,
        track=_tracks(stage, kernels),
        name=texts.names(map(display_name, names))[kernels.class_id],
        texts={
            **{texts.key(key): values[kernels.class_id] for key, values in by_class.items()},
            texts.key("phase"): texts.values(PHASES)[phase],
            texts.key("step"): step_texts[step],
        },
    )


def _shapes(classes: KernelClassTable, what: str) -> list[str]:
    """``64 × 2 × 1`` for each class; ``none`` where there is no grid."""
    axes = [getattr(classes, f"{what}_{axis}").tolist() for axis in "xyz"]
    return [" × ".join(map(str, shape)) if shape[0] else "none" for shape in zip(*axes, strict=True)]


def _tracks(stage: Stage, kernels: KernelTable) -> _Array:
    """Track of each kernel. Kernels that overlap on one stream (branches of a graph) get another lane of it."""
    place = np.stack([kernels.device, kernels.process, kernels.stream]).astype(np.int64)
    places, number = np.unique(place, axis=1, return_inverse=True)
    tracks = np.zeros(len(kernels), np.int64)
    has_processes = len(stage.capture.manifest.processes) > 1
    for index, (device, process, stream) in enumerate(places.T.tolist()):
        rows = np.flatnonzero(number.ravel() == index)
        pid = f" of process {stage.capture.manifest.processes[process].pid}" if has_processes else ""
        parent = stage.device_tracks.get(device, 0)
        tracks[rows] = stage.lanes(f"stream {stream}{pid}", parent, kernels.start_ns[rows], kernels.end_ns[rows])
    return tracks
