"""What CUPTI's Activity API costs and whether it loses anything, on a CUDA GPU: ``cupti-h200.json``.

    python tools/cupti_probe.py --out docs/results

Compiles ``tools/cupti_probe/`` with nvcc and replays a CUDA graph of 440 kernels of 8 us, 20 times a synchronisation
(``pipelined``) or once (``sync``), in a process of its own for each configuration, since CUPTI cannot be removed from a
process. Baselines are run between the others. The decisions 7 and 8 rest on its figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from qmeter_native.capture.cupti_paths import cupti_search_dirs  # noqa: E402
from tools.cupti_probe_metrics import MODES, Groups, Record, metrics_of  # noqa: E402
from tools.results import write_result  # noqa: E402

TOOLKIT: Final = Path("/usr/local/cuda")
BASELINE_EVERY: Final = 3
"""Configurations between two baselines: the GPU's clock drifts by 0.1 % in a minute."""

VARIANTS: Final = {
    "base": ("attach=none",),
    "subscribed": ("attach=subscribed",),
    "kernels": (),
    "kernels_copies": ("copies=1",),
    "base_markers": ("attach=none", "markers=1"),
    "kernels_markers": ("markers=1",),
    "kernels_launches": ("launches=1",),
    "device_buffer_32mb": ("device_buffer_bytes=33554432",),
    "activity_buffer_16mb": ("activity_buffer_bytes=16777216",),
    "pinned": ("pinned=1",),
}
"""Arguments of a replay with kernels recorded, by the name that follows the mode's."""

RECORDED_NAMES: Final = {
    **{f"P_base{n}": "pipelined_base" for n in range(5)},
    "P_sub_only": "pipelined_subscribed",
    "P_k": "pipelined_kernels",
    "P_k_mem": "pipelined_kernels_copies",
    "P_base_m2": "pipelined_base_markers",
    "P_k_m2": "pipelined_kernels_markers",
    "P_k_RD": "pipelined_kernels_launches",
    "P_k_dev32": "pipelined_device_buffer_32mb",
    "P_k_buf16": "pipelined_activity_buffer_16mb",
    "P_k_pinned": "pipelined_pinned",
    "P_onoff": "pipelined_switching",
    **{f"base{n}": "sync_base" for n in range(10)},
    "A_sub_only": "sync_subscribed",
    "A_k": "sync_kernels",
    "A_k_again": "sync_kernels",
    "A_k_mem": "sync_kernels_copies",
    "B_base_markers2": "sync_base_markers",
    "B_k_markers2": "sync_kernels_markers",
    "B_k_RD_launch": "sync_kernels_launches",
    "A_k_dev32": "sync_device_buffer_32mb",
    "A_k_buf16": "sync_activity_buffer_16mb",
    "A_k_pinned": "sync_pinned",
    "C_onoff": "sync_switching",
    "P_D_late": "late_enable",
    "P_CD_late": "late_load",
    "G_clock": "clock",
    "F_soak": "soak",
}
"""Configurations of the recordings of 2026-11-24, made before this program, by the names they had there."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """One process. ``arguments`` are the compiled program's, the experiment first."""

    name: str
    arguments: tuple[str, ...]


def plan() -> Iterator[Configuration]:
    """All configurations in the order in which they run."""
    for mode, batch in MODES.items():
        base, *others = (
            Configuration(f"{mode}_{name}", ("replay", f"batch={batch}", *arguments))
            for name, arguments in VARIANTS.items()
        )
        for index, configuration in enumerate(others):
            if index % BASELINE_EVERY == 0:
                yield base
            yield configuration
        yield base
        yield Configuration(f"{mode}_switching", ("switching", f"batch={batch}"))
    yield Configuration("late_enable", ("late",))
    yield Configuration("late_load", ("late", "late=1"))
    yield Configuration("clock", ("clock",))
    yield Configuration("soak", ("soak", "kernel_ns=0", "flush_period_ms=500"))


def compile_probe(binary: Path) -> None:
    """Build ``tools/cupti_probe/``. CUPTI's headers are the toolkit's, or else the wheel's."""
    compiler = shutil.which("nvcc") or str(TOOLKIT / "bin" / "nvcc")
    folder, csrc = ROOT / "tools" / "cupti_probe", ROOT / "csrc"
    sources = [*sorted(folder.glob("*.c*")), *(csrc / "base" / f"{name}.cpp" for name in ("json", "shared_library"))]
    headers = [
        TOOLKIT / "extras" / "CUPTI" / "include",
        *(Path(path).parent / "include" for path in cupti_search_dirs()),
    ]
    # Searched last, so that nothing of a wheel hides what nvcc brings itself.
    searched_last = [f"-Xcompiler=-idirafter,{header}" for header in headers]
    options = ["-O2", "-std=c++17", "-arch=native", "-I", str(csrc), "-I", str(folder), *searched_last]
    subprocess.run([compiler, *options, *map(str, sources), "-ldl", "-lpthread", "-o", str(binary)], check=True)


def find_cupti() -> str:
    """The wheel's CUPTI, the toolkit's, or else whatever the loader finds."""
    folders = [*map(Path, cupti_search_dirs()), TOOLKIT / "lib64", TOOLKIT / "extras" / "CUPTI" / "lib64"]
    name = "libcupti.so.13"
    return next((str(folder / name) for folder in folders if (folder / name).exists()), name)


def run_plan(binary: Path) -> Iterator[dict[str, Any]]:
    """Run every configuration; one record each."""
    cupti = find_cupti()
    for configuration in plan():
        command = [str(binary), *configuration.arguments, f"cupti={cupti}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if not done.stdout.startswith("{"):
            raise SystemExit(f"{configuration.name}: exit status {done.returncode}\n{done.stderr[-2000:]}")
        print(f"{configuration.name}: {done.stdout[:160].strip()}", file=sys.stderr, flush=True)
        yield {"name": configuration.name, **json.loads(done.stdout)}


def read_recordings(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Records of ``--keep``, or of 2026-11-24, in this program's names. What it does not know is left out."""
    known = {configuration.name for configuration in plan()}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["name"] in RECORDED_NAMES:
                yield _translated(record)
            elif record["name"] in known:
                yield record


def _translated(record: dict[str, Any]) -> dict[str, Any]:
    """A record of 2026-11-24. Its switching counted a batch of replays as one."""
    translated = {**record, "name": RECORDED_NAMES[record["name"]]}
    if record["name"] == "P_onoff":
        translated["expected"] = [expected * MODES["pipelined"] for expected in record["expected"]]
    return translated


def grouped(records: Sequence[Record]) -> Groups:
    """Records by configuration. Exits if one failed or is missing."""
    groups: dict[str, list[Record]] = {configuration.name: [] for configuration in plan()}
    for record in records:
        if "error" in record or "failure" in record:
            raise SystemExit(f"{record['name']}: {record.get('error') or record['failure']}")
        groups[record["name"]].append(record)
    if missing := [name for name, group in groups.items() if not group]:
        raise SystemExit(f"not measured: {', '.join(missing)}")
    return groups


def measure() -> tuple[list[dict[str, Any]], str]:
    """Records of all configurations, and the name of the GPU and of its software."""
    import pynvml

    pynvml.nvmlInit()  # held open, NVML keeps the driver's state up between the processes
    name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
    cuda = pynvml.nvmlSystemGetCudaDriverVersion()
    with tempfile.TemporaryDirectory() as folder:
        compile_probe(Path(folder) / "cupti_probe")
        records = list(run_plan(Path(folder) / "cupti_probe"))
    cupti = next(record["cupti_version"] for record in records if "cupti_version" in record)
    versions = f"CUDA {cuda // 1000}.{cuda % 1000 // 10}, CUPTI {cupti // 10000}.{cupti // 100 % 100}.{cupti % 100}"
    return records, f"{name}, driver {pynvml.nvmlSystemGetDriverVersion()}, {versions}"


def main() -> None:
    """Measure or read, and write the result."""
    parser = argparse.ArgumentParser(description="Measure what CUPTI costs.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results", help="folder of cupti-h200.json")
    parser.add_argument("--keep", type=Path, help="also write what each process saw to this file")
    parser.add_argument("--from-recording", type=Path, nargs="+", help="do not measure: read what --keep wrote")
    parser.add_argument("--device", help="what the recording was made on: GPU, driver, CUDA and CUPTI")
    arguments = parser.parse_args()
    if arguments.from_recording and not arguments.device:
        parser.error("--from-recording needs --device: a recording does not say what it was made on")
    if arguments.from_recording:
        records, device = list(read_recordings(arguments.from_recording)), arguments.device
    else:
        records, device = measure()
    if arguments.keep:
        arguments.keep.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    write_result(
        arguments.out / "cupti-h200.json",
        "cupti-h200",
        metrics_of(grouped(records)),
        device=device,
        command="python tools/cupti_probe.py --out docs/results",
    )


if __name__ == "__main__":
    main()
