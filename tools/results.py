"""Result files of the programs in ``tools/``, ``docs/results/*.json``, and the machine that they ran on.

The form is `qmeter_native.calibration.result_document`'s.
"""

from __future__ import annotations

import platform
from os import cpu_count
from pathlib import Path

from qmeter_native.calibration.result_document import Metric, software_line, write_result

__all__ = ["Metric", "cpu_name", "software_line", "write_result"]


def cpu_name() -> str:
    """Model and number of this machine's processors."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{model}, {cpu_count()} cores"
