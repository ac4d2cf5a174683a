"""NVIDIA's libraries: NVML, CUPTI, and the permission to read hardware counters."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from qmeter_native.capture.checkup.finding import Finding, State
from qmeter_native.capture.cupti_paths import cupti_search_dirs
from qmeter_native.devices.profile_store import find_profile, profile_path
from qmeter_native.errors import ProfileError

__all__ = ["counter_finding", "cupti_finding", "nvml_findings", "profile_finding"]

_TOPIC: Final = "NVIDIA"
_CAP_SYS_ADMIN: Final = 21
"""Number of the capability in linux/capability.h."""
_NO_DRIVER: Final = (
    "Without an NVIDIA GPU there is nothing to do. With one: install its driver; in a container, start it with "
    "`--gpus all`."
)


def nvml_findings(native: Any) -> list[Finding]:
    """NVML and driver, then each device: the readings that work, with what a call costs, and those that do not."""
    found = native.probe_nvml()
    if found["error"]:
        return [Finding(_TOPIC, "NVML", State.ABSENT, found["error"], _NO_DRIVER)]
    library = f"{found['path']}, driver {found['driver']}, devices: {len(found['devices'])}"
    findings = [Finding(_TOPIC, "NVML", State.OK, library)]
    for device in found["devices"]:
        findings += _device_findings(device)
    return findings


def _device_findings(device: dict[str, Any]) -> list[Finding]:
    name = f"GPU {device['index']}"
    works = [f"{key} {_cost(entry['call_cost_ns'])}" for key, entry in device["readings"].items() if entry["ok"]]
    fails = {key: entry["reason"] for key, entry in device["readings"].items() if not entry["ok"]}
    energy = device["energy"]
    state = State.OK if energy else State.BROKEN
    advice = None if energy else "Without an energy source the report has times only."
    source = f"energy from {energy}" if energy else f"no energy: {device['reason']}"
    findings = [Finding(_TOPIC, name, state, f"{device['name']}, {source}", advice)]
    findings.append(profile_finding(f"{name} profile", device["uuid"]))
    if works:
        findings.append(Finding(_TOPIC, f"{name} readings", State.OK, f"{', '.join(works)} a call"))
    if device["mig"]:
        advice = "Energy is known for the whole board only; use a GPU without MIG to attribute it."
        findings.append(Finding(_TOPIC, f"{name} MIG", State.BROKEN, "partitioned", advice))
    return findings + [Finding(_TOPIC, f"{name} {key}", State.ABSENT, str(reason)) for key, reason in fails.items()]


def profile_finding(name: str, uuid: str, folder: Path | None = None) -> Finding:
    """Whether the GPU with that UUID was calibrated, and what its profile lacks; ``folder`` as in `find_profile`."""
    advice = "`qmeter-native calibrate` measures it in under 3 minutes."
    try:
        profile = find_profile(uuid, folder)
    except ProfileError as error:
        return Finding(_TOPIC, name, State.BROKEN, error.what, error.hint)
    if profile is None:
        return Finding(_TOPIC, name, State.ABSENT, "not calibrated: joules of kernels rest on its datasheet", advice)
    detail = f"{profile_path(uuid, folder)}, {profile.date or 'no date'}"
    if profile.power_model.source != "calibrated":
        return Finding(_TOPIC, name, State.BROKEN, f"{detail}, without a power model of its own", advice)
    return Finding(_TOPIC, name, State.OK, detail)


def _cost(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds >= 1e6 else f"{nanoseconds / 1e3:.1f} µs"


def cupti_finding(native: Any, search_dirs: Sequence[str] | None = None) -> Finding:
    """Where CUPTI is and how it was found, or where it was looked for."""
    found = native.find_cupti(cupti_search_dirs() if search_dirs is None else search_dirs)
    if found["path"]:
        detail = f"{found['path']}, version {found['version']}, found by: {found['how']}"
        return Finding(_TOPIC, "CUPTI", State.OK, detail)
    tried = "; ".join(f"{path}: {why}" for path, why in found["tried"])
    advice = "To trace kernels on a GPU: pip install 'qmeter-native[cuda]', or set QMETER_CUPTI_PATH to libcupti.so."
    return Finding(_TOPIC, "CUPTI", State.ABSENT, f"not found; tried {tried or 'nothing'}", advice)


def counter_finding(root: Path = Path("/")) -> Finding:
    """Whether this process may read hardware counters (CUPTI PM sampling); tracing kernels needs no permission."""
    params = root / "proc/driver/nvidia/params"
    try:
        restricted = re.search(r"^RmProfilingAdminOnly:\s*(\d+)", params.read_text(), re.MULTILINE)
    except OSError:
        return Finding(_TOPIC, "hardware counters", State.ABSENT, f"no {params}: the driver is not loaded")
    if restricted is None or restricted[1] == "0":
        return Finding(_TOPIC, "hardware counters", State.OK, "open to all users")
    if _is_admin(root):
        return Finding(_TOPIC, "hardware counters", State.OK, "for administrators only, and this process is one")
    advice = (
        "Kernel times and energy work without. For counters an administrator sets "
        "`options nvidia NVreg_RestrictProfilingToAdminUsers=0` in /etc/modprobe.d and reboots; or run as root."
    )
    return Finding(_TOPIC, "hardware counters", State.BROKEN, "for administrators only (RmProfilingAdminOnly)", advice)


def _is_admin(root: Path) -> bool:
    """Root, or the capability CAP_SYS_ADMIN is effective."""
    try:
        capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)", (root / "proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        capabilities = None
    has_capability = capabilities is not None and bool(int(capabilities[1], 16) >> _CAP_SYS_ADMIN & 1)
    return has_capability or (capabilities is None and os.geteuid() == 0)
