"""How fast and in how much memory the spool of a traced process becomes a capture: ten and a hundred million kernels.

Each measurement is a fresh process: its rate is that of `finalize`, from the closed spool to the manifest on disk, its
memory the peak of the whole process. The spool's pages are in the system's cache.

    python tools/bench_finalize.py
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.spools import synthetic_spool  # noqa: E402
from tools.results import Metric, cpu_name, write_result  # noqa: E402

RESULT: Final = ROOT / "docs" / "results" / "finalize-scale.json"
FINALIZE: Final = """
import sys, time
from pathlib import Path
from qmeter_native.capture.finalize import finalize

begin = time.perf_counter()
finalize(Path(sys.argv[1]))
print(time.perf_counter() - begin)
"""
READ: Final = """
import sys, time
from pathlib import Path
from qmeter_native.storage import read_capture

begin = time.perf_counter()
read_capture(Path(sys.argv[1]))
print(time.perf_counter() - begin)
"""


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description="Measure finalizing.")
    parser.add_argument("--folder", type=Path, help="where to work: 12 GB of space; by default the system's")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        metrics = {
            **measure(Path(folder), "1e7", 10_000_000, arguments.repeats),
            **measure(Path(folder), "1e8", 100_000_000, 1),
        }
    for key, metric in metrics.items():
        print(f"{key}: {metric.value:.6g} {metric.unit} [{metric.low}, {metric.high}]")
    write_result(
        RESULT,
        "finalize-scale",
        metrics,
        device=cpu_name(),
        command="python tools/bench_finalize.py",
        packages=("numpy", "polars"),
    )


def measure(folder: Path, label: str, num_kernels: int, repeats: int) -> dict[str, Metric]:
    """Finalize the same spool ``repeats`` times, and read the capture as often."""
    spool = in_a_child(folder / f"{label}.qms", num_kernels)
    spool_bytes = spool.stat().st_size
    capture = folder / f"{label}.qmt"
    finalized, read = [], []
    for _ in range(repeats):
        shutil.rmtree(capture, ignore_errors=True)
        (capture / "spool").mkdir(parents=True)
        os.link(spool, capture / "spool" / spool.name)
        finalized.append(run(FINALIZE, capture))
        read.append(run(READ, capture))
    kernel_bytes = sum(file.stat().st_size for file in capture.glob("kernel*.parquet"))
    shutil.rmtree(capture)
    spool.unlink()
    return {
        f"finalize_kernels_per_s_{label}": Metric.of_repeats(
            [num_kernels / seconds for seconds, _ in finalized], "1/s"
        ),
        f"peak_rss_gib_{label}": Metric.of_repeats([gib for _, gib in finalized], "GiB"),
        f"read_seconds_{label}": Metric.of_repeats([seconds for seconds, _ in read], "s"),
        f"bytes_per_kernel_disk_{label}": Metric(kernel_bytes / num_kernels, "B"),
        f"bytes_per_kernel_spool_{label}": Metric(spool_bytes / num_kernels, "B"),
    }


def in_a_child(path: Path, num_kernels: int) -> Path:
    """Write the spool in a process of its own, so that its memory is given back."""
    child = os.fork()
    if child == 0:
        synthetic_spool(path, num_kernels)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"{path} could not be written")
    return path


def run(program: str, capture: Path) -> tuple[float, float]:
    """Seconds that a program measured, and its peak resident GiB."""
    child = subprocess.Popen([sys.executable, "-c", program, str(capture)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        raise SystemExit(f"{capture} could not be measured")
    return float(said), usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
