"""Try every load of calibration on a GPU: what it launches, how long, at what rate and power; then a few windows.

    python tools/load_smoke.py --out /tmp/smoke

Never stops at a load that fails. Prints one line a load, then the energy problem that eight short windows yield.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qmeter_native.calibration.load_kernels import LoadCheck, all_loads, chosen_loads
from qmeter_native.calibration.load_plan import LoadPlan, PilotLoad, PlanOptions, plan_loads
from qmeter_native.calibration.load_session import chip_of, record_loads, traced_loads
from qmeter_native.calibration.load_windows import load_problem
from qmeter_native.model.power_model import PowerFeature


def main() -> int:
    """Parse the arguments, check the loads, run the windows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for captures; must not have them yet")
    parser.add_argument("--device", type=int, default=0, help="CUDA ordinal")
    parser.add_argument("--only", default="", help="names of loads, comma separated")
    parser.add_argument("--no-counters", action="store_true", help="do not sample hardware counters")
    parser.add_argument("--full", action="store_true", help="the small plan's windows all, not eight of them")
    parser.add_argument("--skip-windows", action="store_true", help="check the loads alone")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    checks = check_all(options)
    chosen, reasons = chosen_loads(checks)
    print(f"\n{len(chosen)} kinds: {', '.join(check.kernel.name for check in chosen)}")
    for name, reason in reasons.items():
        print(f"  left out: {name}: {reason}")
    if options.skip_windows:
        return 0
    try:
        run_windows(options, chosen)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def check_all(options: argparse.Namespace) -> list[LoadCheck]:
    """Trace every load alone, and print what each is."""
    names = set(filter(None, options.only.split(",")))
    kernels = [kernel for kernel in all_loads() if not names or kernel.name in names]
    checks = traced_loads(
        options.out / "checks.qmt", options.device, lambda text: print(f"  {text}", flush=True), kernels
    )
    for check in checks:
        print(describe(check))
    (options.out / "checks.json").write_text(json.dumps([record(check) for check in checks], indent=1))
    return checks


def describe(check: LoadCheck) -> str:
    """One line."""
    if check.reason is not None:
        return f"FAILED {check.kernel.name:20} {check.kernel.shape:40} {check.reason}"
    work, time_s = check.kernel.work, check.time_s
    flop = sum(work.get(f, 0) for f in (PowerFeature.FP16_FLOP, PowerFeature.FP8_FLOP, PowerFeature.INT8_OP))
    rates = f"{work.get(PowerFeature.DRAM_BYTES, 0) / time_s / 1e9:7.0f} GB/s {flop / time_s / 1e12:7.1f} TFLOP/s"
    return (
        f"ok     {check.kernel.name:20} {check.kernel.shape:40} {time_s * 1e6:8.1f} us {rates}  {check.class_key[:90]}"
    )


def record(check: LoadCheck) -> dict[str, object]:
    """Plain JSON."""
    return {
        "name": check.kernel.name,
        "shape": check.kernel.shape,
        "data": check.kernel.data,
        "class": check.class_key,
        "time_s": check.time_s,
        "reason": check.reason,
        "work": {feature.value: amount for feature, amount in check.kernel.work.items()},
    }


def run_windows(options: argparse.Namespace, chosen: list[LoadCheck]) -> None:
    """Eight windows of 2 s, and the problem that they yield."""

    def planner(pilots: Mapping[str, PilotLoad], idle_w: float) -> LoadPlan:
        few = dict(list(pilots.items())[:4])
        plan = plan_loads(
            few, idle_w, PlanOptions(window_s=2.0, soak_s=2.0, num_mixtures=2, num_capped=1, num_interventions=1)
        )
        return LoadPlan(plan.windows if options.full else (*plan.windows[:8], plan.windows[-1]))

    capture = record_loads(
        options.out / "loads.qmt",
        options.device,
        chosen,
        planner,
        lambda text: print(f"  {text}", flush=True),
        lambda window, plan: print(f"  {window.number}/{len(plan.windows)} {window.range_name}", flush=True),
        has_counters=not options.no_counters,
    )
    print(f"validity: {[entry.message for entry in capture.manifest.validity]}")
    print(f"kernels {len(capture.kernels)}, edges {len(capture.energy)}, clocks {len(capture.clocks)}")
    print(f"counters {len(capture.counters)}, throttles {len(capture.throttles)}")
    print(f"sampler: {json.dumps(capture.manifest.sampler, default=str)[:600]}")
    device = capture.manifest.devices[0]
    loads = load_problem(capture, device.index, chip_of(device))
    document = loads.to_dict()
    (options.out / "problem.json").write_text(json.dumps(document, indent=1))
    for name, kind in document["kinds"].items():
        print(f"{name:20} {kind['mode']:9}", {key: f"{amount:.3g}" for key, amount in kind["work"].items()})
    for row in document["windows"]:
        print(describe_window(row))


def describe_window(row: dict[str, Any]) -> str:
    """One line."""
    window, length_s, energy_j = row["window"], row["length_s"], row["energy_j"]
    units = {kind: round(count, 2) for kind, count in row["units"].items()}
    return (
        f"{window['group']:22} {window['side']:1} {length_s:.3f} s {energy_j / length_s:6.1f} W "
        f"(plan {window['target_w']:.0f}) +- {row['error_j'] / energy_j:.4f} idle {row['idle_w']:.1f} W "
        f"busy {row['busy_s'] / length_s:.3f} clock {row['clock']:.4f} cap {row['cap_w']:.0f} "
        f"throttled {row['throttled']:.3f} {row['temperature_c']} C {window['slot_s']} {window['counts']} -> {units}"
    )


if __name__ == "__main__":
    sys.exit(main())
