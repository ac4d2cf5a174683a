"""How long attribution and the report take, and in how much memory, on captures of a million and ten million kernels.

Each measurement is a fresh process that reads a written capture, attributes it and renders the JSON report; its time
is the whole process's, from start to exit.

    python tools/bench_analysis.py
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.storage import write_capture  # noqa: E402
from tests.factories import synthetic_capture  # noqa: E402
from tools.results import Metric, cpu_name, write_result  # noqa: E402

RESULT = ROOT / "docs" / "results" / "analysis-scale.json"
REPEATS = 3
ANALYSIS = """
import sys
from pathlib import Path
from qmeter_native.attribution.report import attribute
from qmeter_native.reporters.json_report import report_json
from qmeter_native.storage import read_capture

print(len(report_json(attribute(read_capture(Path(sys.argv[1])), "bench"))))
"""


def main() -> None:
    """Measure and write the result file."""
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "1e6.qmt", Path(folder) / "1e7.qmt"
        per_kernel = [_write(1_000_000, small), _write(10_000_000, large)][-1]
        of_small = [_analyse(small) for _ in range(REPEATS)]
        of_large = [_analyse(large) for _ in range(REPEATS)]
    metrics = {
        "seconds_1e6": Metric.of_repeats([seconds for seconds, _ in of_small], "s"),
        "seconds_1e7": Metric.of_repeats([seconds for seconds, _ in of_large], "s"),
        "peak_rss_gib_1e7": Metric.of_repeats([gib for _, gib in of_large], "GiB"),
        "bytes_per_kernel_disk": Metric(per_kernel, "B"),
    }
    for key, metric in metrics.items():
        print(f"{key}: {metric.value:.3f} {metric.unit} [{metric.low}, {metric.high}]")
    write_result(
        RESULT,
        "analysis-scale",
        metrics,
        device=cpu_name(),
        command="python tools/bench_analysis.py",
        packages=("numpy", "polars"),
    )


def _write(num_kernels: int, path: Path) -> float:
    """Write a synthetic capture in a process of its own, so that its memory is given back; bytes a kernel on disk."""
    child = os.fork()
    if child == 0:
        write_capture(synthetic_capture(num_kernels), path)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"{path} could not be written")
    return sum(file.stat().st_size for file in path.glob("kernel*")) / num_kernels


def _analyse(path: Path) -> tuple[float, float]:
    """Seconds and peak resident GiB of one analysis."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", ANALYSIS, str(path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        raise SystemExit(f"the analysis of {path} failed")
    return seconds, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
