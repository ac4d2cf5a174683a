"""DRAM bytes of kernels by our counters against Nsight Compute's: ``counters-vs-ncu-h200.json``.

    python tools/bench_counters.py --captures /tmp/counters --out docs/results/counters-vs-ncu-h200.json

The same isolated loops of one kernel each run in a session with PM sampling and kernel records, and under ``ncu`` with
its control of caches and clocks off. ``--analyse`` computes the result from the folder again, without a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.attribution.kernel_counters import kernel_counters  # noqa: E402
from qmeter_native.capture.session import Session, SessionOptions  # noqa: E402
from qmeter_native.model.capture import Capture  # noqa: E402
from qmeter_native.model.counter_quantity import CounterQuantity  # noqa: E402
from qmeter_native.model.power_model import PowerFeature  # noqa: E402
from qmeter_native.storage.reader import read_capture  # noqa: E402
from tools.counter_loops import WARMUP, loops  # noqa: E402
from tools.ncu_table import DRAM_METRICS, find_ncu, ncu_command, parse_ncu  # noqa: E402
from tools.pm_sampling import fresh, sampling  # noqa: E402
from tools.results import Metric, write_result  # noqa: E402

CAPTURE, LOOPS, NCU = "counters.qmt", "loops.json", "ncu.csv"
"""Files in the folder of captures."""
SHORTEST_S = 5e-6
LONG_S = 20e-6
MIN_LAUNCHES = 200
LAUNCHES = 12
"""Of each loop under Nsight Compute."""
NOTES = (
    "An error is |ours / Nsight Compute's - 1| of bytes read and written by one launch of a loop's kernel.",
    "dram_error_20us: the worst of the kernels of 20 us and longer; dram_error_5us: the worst of those of 5 to 20 us;"
    " *_median: their medians. low and high are the least and the largest error of any of them.",
    "Ours is the mean over all launches of a loop from samples that know nothing of kernels; Nsight Compute's is the"
    f" mean over {LAUNCHES} launches. known_bytes is what the kernel must move at least.",
)


@dataclass(frozen=True, slots=True)
class LoopBytes:
    """What one launch of a loop's kernel moves, by our counters.

    Attributes:
        name: Of the loop.
        kernel: Of the kernel.
        duration_s: Mean of a launch.
        num_launches: That samples saw.
        read_bytes, write_bytes: Of a launch.
        error_bytes: Standard error of their sum.
        all_bytes: Everything counted during the loop, over its launches.
        known_bytes: What it must move at least; None if not known.
    """

    name: str
    kernel: str
    duration_s: float
    num_launches: int
    read_bytes: float
    write_bytes: float
    error_bytes: float
    all_bytes: float
    known_bytes: float | None


def measure_ours(folder: Path, seconds: float, interval_us: int) -> None:
    """Run every loop in a session, each in a range ``loop:<position>``; which of them failed goes into a file."""
    import torch

    failures = {}
    with Session(fresh(folder / CAPTURE), SessionOptions(device="cuda")) as session:
        with sampling(session, interval_ns=interval_us * 1000, metrics="memory", is_kept=True) as sampler:
            for position, loop in enumerate(loops()):
                try:
                    launch = loop.build(0)
                    for _ in range(WARMUP):
                        launch()
                    torch.cuda.synchronize()
                    with session.range(f"loop:{position}"):
                        _launch_for(launch, seconds)
                    del launch
                except Exception as error:  # a load that this GPU or torch does not take
                    failures[position] = f"{type(error).__name__}: {error}"
                torch.cuda.empty_cache()
        print("PM sampling:", sampler.stats(), file=sys.stderr)
    (folder / LOOPS).write_text(json.dumps({"failures": failures}), encoding="utf-8")


def _launch_for(launch: Any, seconds: float) -> None:
    """Launch for so long, and 200 times at least, never more than 100 ahead of the GPU."""
    import torch

    begin, count = time.monotonic(), 0
    while time.monotonic() - begin < seconds or count < MIN_LAUNCHES:
        for _ in range(100):
            launch()
        torch.cuda.synchronize()
        count += 100


def loop_bytes(capture: Capture) -> dict[int, LoopBytes]:
    """By position, the loops that ran as one kernel class, each from the samples of its own range."""
    found: dict[int, LoopBytes] = {}
    every = loops()
    names = set()
    for row in np.argsort(capture.ranges.start_ns):
        prefix, _, position = str(capture.ranges.name[row]).partition(":")
        if prefix != "loop" or every[int(position)].name in names:
            continue
        loop = every[int(position)]
        bytes_ = _of_range(capture, int(capture.ranges.start_ns[row]), int(capture.ranges.end_ns[row]))
        if isinstance(bytes_, str):
            print(f"left out: {loop.name}: {bytes_}", file=sys.stderr)
            continue
        names.add(loop.name)
        found[int(position)] = replace(bytes_, name=loop.name, known_bytes=loop.work.get(PowerFeature.DRAM_BYTES))
    return found


def _of_range(capture: Capture, start_ns: int, end_ns: int) -> LoopBytes | str:
    """What the one kernel class of a range moves, or why there is none."""
    device = capture.manifest.devices[0].index
    part = replace(capture, manifest=replace(capture.manifest, measure_start_ns=start_ns, measure_end_ns=end_ns))
    counters = kernel_counters(part, device)
    if counters is None:
        return "too few samples"
    seen = np.flatnonzero(counters.num_launches)
    measured = np.flatnonzero(counters.is_measured)
    if len(measured) != 1 or counters.num_launches[seen].sum() > 1.02 * counters.num_launches[measured].sum():
        return f"{len(seen)} kernel classes ran"
    only = int(measured[0])
    columns = [
        counters.quantities.index(quantity)
        for quantity in (CounterQuantity.DRAM_READ_BYTES, CounterQuantity.DRAM_WRITE_BYTES)
    ]
    read, write = counters.per_launch[only, columns].tolist()
    return LoopBytes(
        name="",
        kernel=str(capture.kernel_classes.name[only]),
        duration_s=float(counters.mean_s[only]),
        num_launches=int(counters.num_launches[only]),
        read_bytes=read,
        write_bytes=write,
        error_bytes=float(np.hypot(*counters.error[only, columns])),
        all_bytes=float(counters.total[columns].sum()) / int(counters.num_launches[only]),
        known_bytes=None,
    )


def measure_ncu(folder: Path, ncu: Path, positions: Sequence[int]) -> None:
    """Run the same loops under Nsight Compute; its table goes into a file."""
    program = [sys.executable, str(ROOT / "tools" / "counter_loops.py"), "--launches", str(LAUNCHES)]
    program += ["--only", ",".join(map(str, positions))]
    done = subprocess.run(ncu_command(ncu, program), capture_output=True, text=True, check=False, timeout=540)
    (folder / NCU).write_text(json.dumps(list(positions)) + "\n" + done.stdout, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"ncu failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def ncu_bytes(text: str) -> dict[int, tuple[float, float]]:
    """By position, bytes read and written by one launch: means over the launches of each loop.

    Args:
        text: Positions as JSON in the first line, then what ``ncu`` printed.
    """
    first, _, table = text.partition("\n")
    positions, kernels = json.loads(first), parse_ncu(table)
    if len(kernels) != LAUNCHES * len(positions):
        raise SystemExit(f"ncu saw {len(kernels)} kernels, not {LAUNCHES} of each of {len(positions)} loops")
    means: dict[int, tuple[float, float]] = {}
    for number, position in enumerate(positions):
        rows = kernels[number * LAUNCHES : (number + 1) * LAUNCHES]
        read, write = (statistics.fmean(float(row[metric]) for row in rows) for metric in DRAM_METRICS)
        means[position] = (read, write)
    return means


def compare(ours: Mapping[int, LoopBytes], theirs: Mapping[int, tuple[float, float]]) -> list[dict[str, Any]]:
    """A row for each loop that both measured."""
    rows = []
    for position, one in ours.items():
        if position not in theirs or one.duration_s < SHORTEST_S:
            continue
        read, write = theirs[position]
        error = abs((one.read_bytes + one.write_bytes) / (read + write) - 1)
        rows.append({**asdict(one), "ncu_read_bytes": read, "ncu_write_bytes": write, "error": error})
    return sorted(rows, key=lambda row: row["duration_s"])


def metrics_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
    """Worst and median errors of the longer kernels and of the shorter ones."""
    metrics = {}
    for key, errors in {
        "dram_error_20us": [row["error"] for row in rows if row["duration_s"] >= LONG_S],
        "dram_error_5us": [row["error"] for row in rows if row["duration_s"] < LONG_S],
    }.items():
        if errors:
            metrics[key] = Metric(max(errors), "1", min(errors), max(errors), len(errors))
            metrics[f"{key}_median"] = Metric.of_repeats(errors, "1")
    return metrics


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", type=Path, required=True, help="folder for captures, or with them")
    parser.add_argument("--out", type=Path, default=Path("docs/results/counters-vs-ncu-h200.json"))
    parser.add_argument("--seconds", type=float, default=1.0, help="of each loop")
    parser.add_argument("--interval", type=int, default=20, help="microseconds between samples")
    parser.add_argument("--ncu", type=Path, default=find_ncu())
    parser.add_argument("--analyse", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    arguments.captures.mkdir(parents=True, exist_ok=True)
    if not arguments.analyse:
        measure_ours(arguments.captures, arguments.seconds, arguments.interval)
    capture = read_capture(arguments.captures / CAPTURE)
    ours = loop_bytes(capture)
    for one in ours.values():
        known = f"{one.known_bytes / 2**20:9.2f}" if one.known_bytes else "        -"
        moved = (one.read_bytes + one.write_bytes) / 2**20
        print(f"{one.name:20} {one.duration_s * 1e6:8.1f} us {moved:9.2f} MiB, at least {known} MiB", flush=True)
    if not arguments.analyse:
        if arguments.ncu is None:
            raise SystemExit("ncu is not installed; --ncu says where it is")
        measure_ncu(arguments.captures, arguments.ncu, list(ours))
    rows = compare(ours, ncu_bytes((arguments.captures / NCU).read_text(encoding="utf-8")))
    metrics = metrics_of(rows)
    for row in rows:
        print(f"{row['name']:20} {row['duration_s'] * 1e6:8.1f} us {row['error']:8.2%}")
    write_result(
        arguments.out,
        arguments.out.stem,
        metrics,
        device=capture.manifest.devices[0].name,
        command="python tools/bench_counters.py " + " ".join(sys.argv[1:]),
        packages=("torch", "triton", "nvidia-cuda-cupti"),
        rows=rows,
        notes=NOTES,
    )


if __name__ == "__main__":
    main()
