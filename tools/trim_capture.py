"""Cuts a capture down to its measured window, for a fixture.

    python tools/trim_capture.py big.qmt small.qmt

Kept: kernels, steps and chunks of the measured window and 50 ms around it, readings of energy, power and clocks of 3 s
around it, the requests that the load generator sent and kernel classes that are still named. What was lost before the
window stays counted. Folders are cut off absolute paths in the manifest, the server's log is left behind.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from qmeter_native.model.capture import Capture
from qmeter_native.model.manifest import DeviceInfo, EngineInfo, Manifest, ProcessInfo
from qmeter_native.model.table import Table
from qmeter_native.storage.reader import read_capture
from qmeter_native.storage.writer import write_capture

NEAR_NS: Final = 50_000_000
READINGS_NS: Final = 3_000_000_000
ABSOLUTE_PATH: Final = re.compile(r"(?<![\w:/.])/(?:[\w.+-]+/)+")


def trimmed(capture: Capture) -> Capture:
    """The same run, less what is outside its measured window."""
    manifest = capture.manifest
    start_ns, end_ns = manifest.measure_start_ns, manifest.measure_end_ns

    def near(times: NDArray[Any], margin_ns: int) -> NDArray[Any]:
        return (times >= start_ns - margin_ns) & (times < end_ns + margin_ns)

    requests = capture.requests.take(near(capture.requests.send_ns, 0))
    steps = capture.steps.take(near(capture.steps.start_ns, NEAR_NS))
    is_ridden = np.isin(capture.step_requests.step, steps.step)
    kernels = capture.kernels.take(near(capture.kernels.start_ns, NEAR_NS))
    used, class_id = np.unique(kernels.class_id, return_inverse=True)
    chunks = capture.output_tokens
    cut: dict[str, Table] = {
        "kernels": replace(kernels, class_id=class_id.astype("i4")),
        "kernel_classes": capture.kernel_classes.take(used),
        "steps": steps,
        "step_requests": capture.step_requests.take(is_ridden),
        "requests": capture.requests.take(
            np.isin(capture.requests.request, capture.step_requests.request[is_ridden])
            | np.isin(capture.requests.request, requests.request)
        ),
        "output_tokens": chunks.take(np.isin(chunks.request, requests.request)),
        "engine_requests": capture.engine_requests.take(np.isin(capture.engine_requests.request, requests.request)),
        "energy": capture.energy.take(near(capture.energy.high_ns, READINGS_NS)),
        "power": capture.power.take(near(capture.power.time_ns, READINGS_NS)),
        "clocks": capture.clocks.take(near(capture.clocks.time_ns, READINGS_NS)),
    }
    return replace(capture, manifest=without_folders(manifest), **cut)  # type: ignore[arg-type]


def without_folders(manifest: Manifest) -> Manifest:
    """The manifest with only the last part of each absolute path in its texts."""
    document = shortened(asdict(manifest))
    return Manifest(
        **{
            **{spec.name: document[spec.name] for spec in fields(Manifest)},
            "devices": tuple(DeviceInfo(**each) for each in document["devices"]),
            "processes": tuple(ProcessInfo(**each) for each in document["processes"]),
            "engine": None if manifest.engine is None else EngineInfo(**document["engine"]),
            "loss": manifest.loss,
            "validity": tuple(entry for entry in manifest.validity if entry.code != "unsent_requests"),
        }
    )


def shortened(value: Any) -> Any:
    """``value`` with its texts shortened, at any depth."""
    if isinstance(value, str):
        return ABSOLUTE_PATH.sub("", value)
    if isinstance(value, dict):
        return {key: shortened(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(shortened(each) for each in value)
    return value


def main() -> None:
    """Parse the command line, read, cut, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    write_capture(trimmed(read_capture(arguments.capture)), arguments.output)


if __name__ == "__main__":
    main()
