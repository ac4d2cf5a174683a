"""What this machine can measure, what not, and what to do about it. Changes nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmeter_native.capture.checkup.finding import Finding, State
from qmeter_native.capture.checkup.gpu import counter_finding, cupti_finding, nvml_findings
from qmeter_native.capture.checkup.host import (
    container_finding,
    disk_finding,
    mps_finding,
    profiler_findings,
    rapl_findings,
    vm_finding,
)
from qmeter_native.capture.checkup.software import extension, package_findings, program_finding

__all__ = ["Checkup", "Finding", "State", "check_up"]

_VERDICT: Final = "This machine can measure"
_GPU_NAME: Final = re.compile(r"GPU \d+")


@dataclass(frozen=True, slots=True)
class Checkup:
    """What can be measured here, and the findings that this rests on."""

    verdicts: tuple[Finding, ...]
    findings: tuple[Finding, ...]


def check_up(folder: Path | None = None) -> Checkup:
    """Look at extension, NVIDIA's libraries, host and software; ``folder`` is where captures would go."""
    native, compiled = extension()
    nvidia = [] if native is None else [*nvml_findings(native), cupti_finding(native)]
    nvidia.append(counter_finding())
    has_gpu = any(_GPU_NAME.fullmatch(finding.name) for finding in nvidia)
    software = [program_finding(), compiled, *package_findings(has_gpu)]
    host = [*rapl_findings(), container_finding(), vm_finding(), *profiler_findings()]
    host.append(disk_finding(folder or Path.cwd()))
    mps = mps_finding()
    findings = [*software, *nvidia, *host, *([mps] if mps else [])]
    return Checkup(verdicts_of(findings), tuple(findings))


def verdicts_of(findings: list[Finding]) -> tuple[Finding, ...]:
    """What the findings add up to: one line for each signal, with what it still lacks."""
    states = {finding.name: finding.state for finding in findings}
    gpus = [finding for finding in findings if _GPU_NAME.fullmatch(finding.name)]
    cpus = [finding for finding in findings if finding.name.startswith("RAPL")]

    def verdict(name: str, using: str, needs: dict[str, bool]) -> Finding:
        lacking = [what for what, is_there in needs.items() if not is_there]
        detail = f"needs {', '.join(lacking)}" if lacking else using
        return Finding(_VERDICT, name, State.ABSENT if lacking else State.OK, detail)

    def is_ok(name: str) -> bool:
        return states.get(name) is State.OK

    native = {"the extension": is_ok("extension")}
    gpu = {**native, "an NVIDIA GPU": bool(gpus)}
    torch = {"torch": is_ok("torch")}
    has_gpu_energy, has_cpu_energy = (any(one.state is State.OK for one in group) for group in (gpus, cpus))
    return (
        verdict("served requests", "transformers, embedded", {**torch, "transformers": is_ok("transformers")}),
        verdict("time per kernel on GPUs", "CUPTI", {**gpu, "CUPTI": is_ok("CUPTI")}),
        verdict("time per operator on CPUs", "torch.profiler", torch),
        verdict("energy of GPUs", "NVML", {**gpu, "an energy reading": has_gpu_energy}),
        verdict("energy of CPUs", "RAPL", {**native, "a readable RAPL counter": has_cpu_energy}),
        verdict("hardware counters of GPUs", "permitted", {**gpu, "permission": is_ok("hardware counters")}),
    )
