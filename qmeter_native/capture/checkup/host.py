"""The host: CPU energy, what surrounds the process, disk, and other tools in the way."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from qmeter_native.capture.checkup.finding import Finding, State

__all__ = ["container_finding", "disk_finding", "mps_finding", "profiler_findings", "rapl_findings", "vm_finding"]

_TOPIC: Final = "Host"
_LOW_DISK_BYTES: Final = 2 * 1024**3
"""About 10^8 kernels, spool and capture together."""

_INJECTORS: Final = {
    "CUDA_INJECTION64_PATH": "loads a tool into every CUDA process",
    "CUDA_INJECTION32_PATH": "loads a tool into every CUDA process",
    "NVTX_INJECTION64_PATH": "loads a tool at the first NVTX call",
    "NSYS_PROFILING_SESSION_ID": "Nsight Systems is profiling this session",
    "NV_COMPUTE_PROFILER_PERFWORKS_DIR": "Nsight Compute is profiling this session",
}
"""Environment variables by which other profilers enter a process, and what each means."""


def rapl_findings(root: Path = Path("/")) -> list[Finding]:
    """Each CPU package's energy counter."""
    powercap = root / "sys/class/powercap"
    counters = sorted(powercap.glob("intel-rapl:[0-9]*/energy_uj"))
    counters = [path for path in counters if path.parent.name.count(":") == 1]  # intel-rapl:0:0 is part of a package
    if not counters:
        advice = "No joules of CPUs here. Virtual machines and containers often hide the counter; try on the host."
        return [Finding(_TOPIC, "RAPL", State.ABSENT, f"no CPU energy counter under {powercap}", advice)]
    return [_rapl_finding(path) for path in counters]


def _rapl_finding(path: Path) -> Finding:
    name = f"RAPL {path.parent.name}"
    try:
        int(path.read_text())
    except PermissionError:
        advice = f"sudo chmod a+r {path} (until the next reboot), or give Python the capability CAP_DAC_READ_SEARCH."
        return Finding(_TOPIC, name, State.BROKEN, f"{path} is readable by root only", advice)
    except (OSError, ValueError) as error:
        return Finding(_TOPIC, name, State.BROKEN, f"{path}: {error}")
    return Finding(_TOPIC, name, State.OK, f"{path} is readable")


def container_finding(root: Path = Path("/")) -> Finding:
    """Whether this is a container."""
    marks = [mark for mark in (".dockerenv", "run/.containerenv") if (root / mark).exists()]
    if not marks and not os.environ.get("KUBERNETES_SERVICE_HOST"):
        return Finding(_TOPIC, "container", State.OK, "none seen")
    detail = "yes; other containers may use the same GPU and CPU, and their joules count here"
    return Finding(_TOPIC, "container", State.ABSENT, detail, "Make sure that nobody else uses the device you measure.")


def vm_finding(root: Path = Path("/")) -> Finding:
    """Whether this is a virtual machine."""
    try:
        is_virtual = " hypervisor" in (root / "proc/cpuinfo").read_text()
    except OSError:
        is_virtual = False
    if not is_virtual:
        return Finding(_TOPIC, "virtual machine", State.OK, "none seen")
    detail = "yes; CPU energy is usually hidden, a GPU that is passed through whole measures as on the host"
    return Finding(_TOPIC, "virtual machine", State.ABSENT, detail)


def mps_finding(environ: Mapping[str, str] | None = None) -> Finding | None:
    """CUDA MPS, if this environment uses it: several processes run on the GPU at once."""
    environ = os.environ if environ is None else environ
    pipe = environ.get("CUDA_MPS_PIPE_DIRECTORY")
    if not pipe:
        return None
    advice = "Kernel times hold; joules are those of all clients of the GPU. Stop MPS for a clean attribution."
    return Finding(_TOPIC, "CUDA MPS", State.BROKEN, f"CUDA_MPS_PIPE_DIRECTORY={pipe}", advice)


def profiler_findings(environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Other profilers that the environment loads: CUPTI serves one at a time."""
    environ = os.environ if environ is None else environ
    advice = "Unset it while tracing: CUPTI serves one tool at a time."
    found = [
        Finding(_TOPIC, "other profiler", State.BROKEN, f"{name}={environ[name]} {meaning}", advice)
        for name, meaning in _INJECTORS.items()
        if environ.get(name)
    ]
    return found or [Finding(_TOPIC, "other profilers", State.OK, "none in the environment")]


def disk_finding(folder: Path) -> Finding:
    """Room for captures in ``folder``."""
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1024**3:.1f} GiB free in {folder}"
    if free >= _LOW_DISK_BYTES:
        return Finding(_TOPIC, "disk", State.OK, detail)
    return Finding(_TOPIC, "disk", State.BROKEN, detail, "Write captures to another disk with --output.")
