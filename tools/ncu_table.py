"""Nsight Compute as a reference: its command line, and its table of metrics."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

__all__ = ["DRAM_METRICS", "find_ncu", "ncu_command", "parse_ncu"]

DRAM_METRICS = ("dram__bytes_read.sum", "dram__bytes_write.sum")


def find_ncu() -> Path | None:
    """The program, on the path or where NVIDIA's packages put it."""
    found = shutil.which("ncu")
    if found is not None:
        return Path(found)
    places = ("/usr/local/cuda*/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu", "/usr/local/NVIDIA-Nsight-Compute*/ncu")
    return next((path for place in places for path in sorted(Path("/").glob(place[1:]), reverse=True)), None)


def ncu_command(ncu: Path, program: Sequence[str]) -> list[str]:
    """Measure DRAM bytes of each kernel while the program has the profiler on; caches and clocks are left alone."""
    return [
        str(ncu),
        *("--profile-from-start", "off", "--cache-control", "none", "--clock-control", "none"),
        *("--metrics", ",".join(DRAM_METRICS), "--csv", "--print-units", "base"),
        *program,
    ]


def parse_ncu(text: str) -> list[dict[str, float | str]]:
    """Kernels in the order in which they ran: ``{name, <metric>: value …}``.

    Args:
        text: What ``ncu --csv`` printed, the program's own output in it.

    Raises:
        SystemExit: There is no table.
    """
    lines = text.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith('"ID",')), None)
    if start is None:
        raise SystemExit(f"ncu printed no table:\n{text[-3000:]}")
    kernels: dict[str, dict[str, float | str]] = {}
    for row in csv.DictReader(line for line in lines[start:] if line.startswith('"')):
        kernel = kernels.setdefault(row["ID"], {"name": row["Kernel Name"]})
        kernel[row["Metric Name"]] = float(row["Metric Value"].replace(",", ""))
    return list(kernels.values())
