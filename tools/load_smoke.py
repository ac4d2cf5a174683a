"""Try every load of calibration on a GPU: what it launches, how long, at what rate and power; then a few windows.

    python tools/load_smoke.py --out /tmp/smoke

Never stops at a load that fails. Prints one line a load, then the energy problem that eight short windows yield.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from qmeter_native.calibration.load_kernels import LoadCheck, all_loads, check_loads, chosen_loads, trace_loads
from qmeter_native.capture.session import Session, SessionOptions
from qmeter_native.model.power_model import PowerFeature


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for captures; must not have them yet")
    parser.add_argument("--device", type=int, default=0, help="CUDA ordinal")
    parser.add_argument("--only", default="", help="names of loads, comma separated")
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
    names = set(filter(None, options.only.split(",")))
    kernels = [kernel for kernel in all_loads() if not names or kernel.name in names]
    session = Session(options.out / "checks.qmt", SessionOptions(device="cuda"))
    failures = trace_loads(kernels, options.device, session, lambda text: print(f"  {text}", flush=True))
    checks = check_loads(session.close(), kernels, failures)
    for check in checks:
        print(describe(check))
    (options.out / "checks.json").write_text(json.dumps([record(check) for check in checks], indent=1))
    return checks


def describe(check: LoadCheck) -> str:
    if check.reason is not None:
        return f"FAILED {check.kernel.name:20} {check.kernel.shape:40} {check.reason}"
    work, time_s = check.kernel.work, check.time_s
    flop = sum(work.get(f, 0) for f in (PowerFeature.FP16_FLOP, PowerFeature.FP8_FLOP, PowerFeature.INT8_OP))
    rates = f"{work.get(PowerFeature.DRAM_BYTES, 0) / time_s / 1e9:7.0f} GB/s {flop / time_s / 1e12:7.1f} TFLOP/s"
    return (
        f"ok     {check.kernel.name:20} {check.kernel.shape:40} {time_s * 1e6:8.1f} us {rates}  {check.class_key[:90]}"
    )


def record(check: LoadCheck) -> dict[str, object]:
    return {
        "name": check.kernel.name,
        "shape": check.kernel.shape,
        "class": check.class_key,
        "time_s": check.time_s,
        "reason": check.reason,
        "work": {feature.value: amount for feature, amount in check.kernel.work.items()},
    }


def run_windows(options: argparse.Namespace, chosen: list[LoadCheck]) -> None:
    print("windows are not there yet")


if __name__ == "__main__":
    sys.exit(main())
