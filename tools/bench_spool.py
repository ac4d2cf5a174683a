"""Soak, size and losses of traced CUDA graphs, on a CUDA GPU: ``spool-h200.json``.

    python tools/bench_spool.py --out docs/results --nodes 33000000

1. ``qmeter-native trace -- python tools/graph_replay.py`` replays the nodes twice: not traced, then traced. Every node
   must be in the capture, with good stamps; the program's own resident memory may not grow without bound.
2. The same program is killed with SIGKILL in mid-run: how much of its last second is missing.
3. How long it took to make the capture of the first run from its spools: kernels per second.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.capture.launch import LaunchOptions, launch  # noqa: E402
from qmeter_native.storage.reader import read_capture  # noqa: E402
from tools.results import Metric, write_result  # noqa: E402

PROGRAM: Final = ROOT / "tools" / "graph_replay.py"


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="spool-h200")
    parser.add_argument("--nodes", type=int, default=33_000_000)
    parser.add_argument("--kill-after", type=float, default=12.0, help="seconds until the killed run is killed")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="qmeter-spool-"))
    try:
        metrics = soak(folder, arguments.nodes)
        metrics.update(killed(folder, arguments.kill_after))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    import torch

    command = "python tools/bench_spool.py " + " ".join(sys.argv[1:])
    write_result(
        arguments.out / f"{arguments.name}.json",
        arguments.name,
        metrics,
        device=torch.cuda.get_device_name(0),
        command=command,
        packages=("torch", "polars"),
    )


def replay(*arguments: str) -> dict[str, Any]:
    """Run the program; what it printed."""
    done = subprocess.run([sys.executable, str(PROGRAM), *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return printed_by(done.stdout)


def printed_by(output: str) -> dict[str, Any]:
    """The program's line in its output."""
    found: dict[str, Any] = json.loads(next(line for line in output.splitlines() if line.startswith('{"nodes"')))
    return found


def soak(folder: Path, nodes: int) -> dict[str, Metric]:
    """A long traced run beside one that is not."""
    bare = replay("--nodes", str(nodes // 10))
    path, printed = folder / "soak.qmt", folder / "printed"
    command = ("bash", "-c", f"{sys.executable} {PROGRAM} --nodes {nodes} > {printed}")
    result = launch(path, LaunchOptions(command, idle_s=0))
    traced = printed_by(printed.read_text())
    capture = result.capture
    kernel_bytes = sum(file.stat().st_size for file in path.glob("kernel*.parquet"))
    loss = capture.manifest.loss
    bad_stamps = loss.zero_timestamps + loss.reversed_timestamps + loss.implausible_timestamps
    is_node = capture.kernels.graph_node != 0
    return {
        "num_kernels": Metric(len(capture.kernels), "1"),
        "num_graph_nodes": Metric(int(is_node.sum()), "1"),
        "num_graph_nodes_launched": Metric(traced["nodes"], "1"),
        "num_lost": Metric(loss.total, "1"),
        "num_bad_stamps": Metric(bad_stamps, "1"),
        "bytes_per_kernel_disk": Metric(kernel_bytes / len(capture.kernels), "B"),
        "finalize_kernels_per_s": Metric(len(capture.kernels) / result.finalize_s, "1/s"),
        "rss_growth_mib": Metric(traced["end"]["resident_mib"] - bare["end"]["resident_mib"], "MiB"),
        "rss_growth_after_start_mib": Metric(traced["end"]["resident_mib"] - traced["settled"]["resident_mib"], "MiB"),
        "gpu_memory_growth_mib": Metric(traced["settled"]["gpu_free_mib"] - traced["end"]["gpu_free_mib"], "MiB"),
        "node_s": Metric(bare["seconds"] / bare["nodes"], "s"),
        "traced_node_s": Metric(traced["seconds"] / traced["nodes"], "s"),
    }


def killed(folder: Path, kill_after_s: float) -> dict[str, Metric]:
    """A run whose traced process is killed; the last record against the moment of the kill."""
    path = folder / "killed.qmt"
    command = [sys.executable, "-m", "qmeter_native", "trace", "--output", str(path), "--idle", "0", "--"]
    command += [sys.executable, str(PROGRAM), "--nodes", "1000000000000"]
    launcher = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    time.sleep(kill_after_s)
    victim = traced_process(path)
    kill_ns = time.time_ns()
    os.kill(victim, signal.SIGKILL)
    launcher.wait(120)
    capture = read_capture(path)
    lost_s = (kill_ns - int(capture.kernels.end_ns.max())) / 1e9
    return {
        "lost_after_sigkill_s": Metric(max(0.0, lost_s), "s"),
        "num_kernels_of_killed": Metric(len(capture.kernels), "1"),
    }


def traced_process(path: Path) -> int:
    """Pid of the process that the injected library writes a spool for."""
    names = [file.name for file in (path / "spool").glob("*-cuda*.qms")]
    found = [match for name in names if (match := re.fullmatch(r".*-(\d+)-cuda\d+\.qms", name))]
    if not found:
        raise SystemExit(f"no traced process has a spool in {path}")
    return int(found[0].group(1))


if __name__ == "__main__":
    main()
