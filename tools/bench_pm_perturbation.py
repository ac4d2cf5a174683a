"""What PM sampling costs the GPU that it samples, and whether it shares its clock: ``pm-perturbation-h200.json``.

    python tools/bench_pm_perturbation.py --captures /tmp/pm --out docs/results/pm-perturbation-h200.json

Four experiments, each in this process:

- power: cycles through the states of a session (none, enabled, sampling every 50 us, stopped, disabled, sampling every
  10 us), idle and under a paced load, by the energy counter; ``*_extra_w`` is above the same cycle without a session;
- alignment: PM sampling, kernel records and CUDA graphs at once; the lag between their stamps, and what was lost;
- decode: CPU time of a sample by number of metrics;
- outside: the rate of a replayed CUDA graph before and after a counter phase against runs without one.

Captures and raw figures stay in the folder given; ``--analyse`` computes the result from them again, without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.attribution.kernel_counters import kernel_counters  # noqa: E402
from qmeter_native.attribution.stamp_lag import stamp_lag_ns  # noqa: E402
from qmeter_native.capture.session import Session, SessionOptions  # noqa: E402
from qmeter_native.model.capture import Capture  # noqa: E402
from qmeter_native.storage.reader import read_capture  # noqa: E402
from tools.pm_power import StateWindow, power_metrics  # noqa: E402
from tools.pm_sampling import edge_load, fresh, open_sampler, paced_load, sampling  # noqa: E402
from tools.results import Metric, write_result  # noqa: E402

EXPERIMENTS = ("power", "alignment", "decode", "outside")
ALIGNED_US = (50, 20, 10)
"""Sample intervals of the second experiment."""
SETTLE_S = 1.0
"""Of a load before anything is measured, and of a session before it ends."""
FIGURES = "figures.json"
"""What is in no capture, in the folder of the captures: by experiment."""


def measure_power(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One capture of all states; ranges name the windows."""
    options = SessionOptions(device="cuda", kernels=False, edge_period_s=0.2, counter_cpu_share=0.5)
    with Session(fresh(folder / "power.qmt"), options) as session:
        load = paced_load()
        load.run(arguments.seconds)
        for cycle in range(arguments.cycles):
            print(f"power: cycle {cycle + 1} of {arguments.cycles}", file=sys.stderr, flush=True)
            _power_cycle(session, load, cycle, arguments.seconds)
    return {}


def _power_cycle(session: Session, load: Any, cycle: int, seconds: float) -> None:
    works: dict[str, Callable[[float], Any]] = {"idle": time.sleep, "load": load.run}

    def record(state: str, first: str = "idle") -> None:
        for name in (first, *(other for other in works if other != first)):
            with session.range(StateWindow.range_name(state, name, cycle)):
                works[name](seconds)

    record("none")
    sampler = open_sampler(session, interval_ns=50_000)
    try:
        record("enabled")
        for name, work in works.items():
            sampler.start()
            with session.range(StateWindow.range_name("started_50us", name, cycle)):
                work(seconds)
            sampler.stop()
        record("stopped", first="load")
    finally:
        sampler.close()
    record("disabled")
    with sampling(session, interval_ns=10_000, metrics="memory"):
        record("started_10us")
    time.sleep(seconds)


def measure_alignment(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """A capture for each interval: kernels in graphs and samples in one spool."""
    stats = {}
    for interval_us in ALIGNED_US:
        with Session(fresh(folder / f"alignment-{interval_us}us.qmt"), SessionOptions(device="cuda")) as session:
            load = edge_load()
            load.run(SETTLE_S)
            count = None if interval_us >= 50 else 4  # for more bursts: DRAM, L2 and SM activity come first
            with sampling(session, interval_ns=interval_us * 1000, count=count, is_kept=True) as sampler:
                load.run(arguments.phase)
            stats[str(interval_us)] = sampler.stats()
            time.sleep(SETTLE_S)
    return stats


def measure_decode(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """CPU nanoseconds of a sample by number of metrics, while the paced load runs."""
    found = {}
    with Session(fresh(folder / "decode.qmt"), SessionOptions(device="cuda", kernels=False)) as session:
        load = paced_load()
        for count in (2, 4, 6, 8, 12):
            with sampling(session, interval_ns=100_000, count=count) as sampler:
                load.run(2 * SETTLE_S)
            stats = sampler.stats()
            num_metrics = str(sampler.info()["num_metrics"])
            if stats["samples"]:
                found[num_metrics] = (stats["decode_ns"] + stats["evaluate_ns"]) / stats["samples"]
    return found


def measure_outside(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Replays a second before and after the middle, with a counter phase in it and without, in ABBA order."""
    rates: dict[str, list[float]] = {"with": [], "without": []}
    with Session(fresh(folder / "outside.qmt"), SessionOptions(device="cuda")) as session:
        load = _small_kernels()
        load.run(SETTLE_S)
        for cycle in range(arguments.cycles):
            print(f"outside: {cycle + 1} of {arguments.cycles}", file=sys.stderr, flush=True)
            for kind in ("with", "without", "without", "with")[:: 1 if cycle % 2 == 0 else -1]:
                rates[kind].append(_outside_rate(session, load, kind == "with", arguments))
    return rates


def _outside_rate(session: Session, load: Any, has_phase: bool, arguments: argparse.Namespace) -> float:
    """Replays a second outside the phase; the middle takes as long without one."""

    def rate(seconds: float) -> tuple[int, float]:
        before = load.num_replays
        took_s = load.run(seconds)
        return load.num_replays - before, took_s

    first = rate(arguments.outside)
    phase = Thread(target=_phase, args=(session, arguments.phase)) if has_phase else None
    if phase is not None:
        phase.start()
    load.run(arguments.phase + SETTLE_S)  # a session takes half a second to set up; decoding may go on after it
    last = rate(arguments.outside)
    if phase is not None:
        phase.join()
    return (first[0] + last[0]) / (first[1] + last[1])


def _phase(session: Session, seconds: float) -> None:
    with sampling(session, interval_ns=50_000, is_kept=True):
        time.sleep(seconds)


def _small_kernels() -> Any:
    """A graph of 100 kernels of some 60 us, one after another without pause: 6 ms a replay tell rates to 0.1 %."""
    import torch

    from qmeter_native.calibration.load_slots import LoadSlots

    values = torch.randn(1 << 25, device="cuda")
    launches: dict[str, Callable[[], Any]] = {
        "scale": lambda: values.mul_(1.0001),
        "add": lambda: values.add_(0.0001),
    }
    for launch in launches.values():
        launch()
    return LoadSlots(launches, {"scale": 50, "add": 50}, 0.0, seed=0)


def alignment_metrics(interval_us: int, capture: Capture, stats: dict[str, Any]) -> dict[str, Metric]:
    """Lag of stamps, what was lost, and the share of DRAM bytes that classes explain, at one sample interval."""
    device = capture.manifest.devices[0].index
    lag = stamp_lag_ns(capture, device)
    metrics = {}
    if lag.value is None or lag.low is None or lag.high is None:
        print(f"alignment at {interval_us} us: {lag.reason}", file=sys.stderr)
    else:
        scale = [figure / 1e9 for figure in (lag.value, lag.low, lag.high)]
        metrics[f"stamp_lag_{interval_us}us_s"] = Metric(scale[0], "s", scale[1], scale[2], stats["samples"])
    failures = stats["overflows"] + stats["decode_failures"] + stats["evaluate_failures"]
    metrics[f"samples_{interval_us}us"] = Metric(stats["samples"], "1")
    metrics[f"failures_{interval_us}us"] = Metric(failures, "1")
    metrics[f"lost_samples_{interval_us}us"] = Metric(stats["lost_samples"], "1")
    metrics[f"lost_kernels_{interval_us}us"] = Metric(capture.manifest.loss.total, "1")
    counters = kernel_counters(capture, device)
    if counters is not None:
        metrics[f"dram_misfit_{interval_us}us"] = Metric(float(counters.misfit[0]), "1", n=counters.num_samples)
    return metrics


def outside_metrics(rates: dict[str, list[float]]) -> dict[str, Metric]:
    """``phase_cost_outside``: part of the rate that is lost before and after a phase, paired in order."""
    costs = [1 - one / other for one, other in zip(rates["with"], rates["without"], strict=True)]
    return {"phase_cost_outside": Metric.of_repeats(costs, "1")}


def analyse(folder: Path) -> dict[str, Metric]:
    """All metrics of the captures and figures in a folder."""
    figures = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
    metrics: dict[str, Metric] = {}
    if "power" in figures:
        capture = read_capture(folder / "power.qmt")
        metrics |= power_metrics(capture, capture.manifest.devices[0].index)
    for interval_us, stats in figures.get("alignment", {}).items():
        capture = read_capture(folder / f"alignment-{interval_us}us.qmt")
        metrics |= alignment_metrics(int(interval_us), capture, stats)
    for count, cost_ns in figures.get("decode", {}).items():
        metrics[f"decode_{count}_metrics_s"] = Metric(cost_ns / 1e9, "s")
    if "outside" in figures:
        metrics |= outside_metrics(figures["outside"])
    return metrics


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    """Run the experiments wanted; one that fails leaves the others' figures alone."""
    programs = {
        "power": measure_power,
        "alignment": measure_alignment,
        "decode": measure_decode,
        "outside": measure_outside,
    }
    path = folder / FIGURES
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in arguments.only or EXPERIMENTS:
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            figures[name] = programs[name](folder, arguments)
        except Exception as error:  # the GPU's time is dear: the next experiment may go well
            print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        path.write_text(json.dumps(figures), encoding="utf-8")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", type=Path, required=True, help="folder for captures, or with them")
    parser.add_argument("--out", type=Path, default=Path("docs/results/pm-perturbation-h200.json"))
    parser.add_argument("--only", nargs="*", choices=EXPERIMENTS)
    parser.add_argument("--cycles", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a window of the power experiment")
    parser.add_argument("--phase", type=float, default=3.0, help="seconds of a counter phase")
    parser.add_argument("--outside", type=float, default=5.0, help="seconds before and after a phase")
    parser.add_argument("--analyse", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    arguments.captures.mkdir(parents=True, exist_ok=True)
    if not arguments.analyse:
        measure(arguments.captures, arguments)
    metrics = analyse(arguments.captures)
    for key, metric in metrics.items():
        print(f"{key:32} {metric.value:12.6g} {metric.unit}")
    first = next(iter(sorted(arguments.captures.glob("*.qmt"))))
    write_result(
        arguments.out,
        arguments.out.stem,
        metrics,
        device=read_capture(first).manifest.devices[0].name,
        command="python tools/bench_pm_perturbation.py " + " ".join(sys.argv[1:]),
        packages=("torch", "nvidia-cuda-cupti"),
    )


if __name__ == "__main__":
    main()
