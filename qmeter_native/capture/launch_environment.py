"""The environment in which a command is traced: by it the CUDA driver loads our library into each of its processes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qmeter_native.capture.control import CONTROL_FILE
from qmeter_native.capture.cupti_paths import cupti_search_dirs
from qmeter_native.capture.inject_library import inject_library
from qmeter_native.errors import DeviceError
from qmeter_native.storage.schema import SPOOL_FOLDER

__all__ = ["INJECTION", "SPOOL_DIR", "check_no_profiler", "traced_environment"]

SPOOL_DIR: Final = "QMETER_SPOOL_DIR"
"""Where the processes of the command leave their spools."""

INJECTION: Final = "CUDA_INJECTION64_PATH"
"""What the CUDA driver loads into each process; set where kernels are traced."""

_NSIGHT_VARIABLES: Final = ("NSYS_PROFILING_SESSION_ID", "QUADD_INJECTION_PROXY", "NV_TPS_LAUNCH_UUID")
"""Set in programs that Nsight Systems or Nsight Compute launch."""


def check_no_profiler(environment: Mapping[str, str]) -> None:
    """Refuse to trace where another profiler is to be loaded.

    Raises:
        DeviceError: Naming it.
    """
    other = environment.get(INJECTION)
    hint = "Run without the other profiler, or trace energy alone with --no-kernels."
    if other:
        raise DeviceError(f"another profiler is attached: {INJECTION} is {other}", hint)
    for name in _NSIGHT_VARIABLES:
        if environment.get(name):
            raise DeviceError(f"another profiler is attached: Nsight set {name}", hint)


def traced_environment(
    environment: Mapping[str, str], path: Path, *, kernels: bool, cupti_path: str | None = None
) -> dict[str, str]:
    """``environment`` and what tells injected libraries and engine plugins of the capture ``path``.

    Args:
        environment: To start from.
        path: The capture, which may be relative.
        kernels: Trace kernels. Without, nothing is injected; an engine's plugin still records its steps.
        cupti_path: A libcupti to use instead of the one that would be found.

    Raises:
        DeviceError: Another profiler is to be loaded already.
        NativeError: The injected library was not built.
    """
    spools = path.absolute() / SPOOL_FOLDER
    variables = {SPOOL_DIR: str(spools)}
    if kernels:
        check_no_profiler(environment)
        variables |= {
            INJECTION: str(inject_library()),
            "QMETER_CONTROL": str(spools / CONTROL_FILE),
            "QMETER_CUPTI_DIRS": os.pathsep.join(cupti_search_dirs()),
        }
        if cupti_path:
            variables["QMETER_CUPTI_PATH"] = cupti_path
    return {**environment, **variables}
