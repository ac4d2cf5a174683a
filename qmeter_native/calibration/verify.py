"""``calibrate --verify``: run the truth test on a GPU, or put together runs of it that were made before."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, Final

from qmeter_native.calibration.gpu import Gpu
from qmeter_native.calibration.load_kernels import LoadCheck, all_loads, chosen_loads
from qmeter_native.calibration.load_plan import IDLE_SETTLE_S, SETTLE_S, LoadPlan, PilotLoad, PlanOptions, plan_loads
from qmeter_native.calibration.load_session import record_loads, traced_loads
from qmeter_native.calibration.load_window import LoadWindow
from qmeter_native.calibration.result_document import Metric, write_result
from qmeter_native.calibration.synthetic import coverage
from qmeter_native.calibration.truth import Truth, recompute, wilson_interval
from qmeter_native.calibration.truth_picture import truth_picture
from qmeter_native.calibration.truth_rows import LOADS, measured_row, read_rows
from qmeter_native.calibration.truth_targets import Verdict, verdicts
from qmeter_native.errors import UsageError
from qmeter_native.model.capture import Capture

__all__ = ["KINDS", "VerifyOptions", "VerifyResult", "run_verify", "truth_plan"]

Show = Callable[[str, str, float, "float | None"], None]
"""Is told the step, its figures, how much of it is done, and of how much; None where that is not known."""

KINDS: Final = (
    "fp16_gemm_large",
    "fp16_gemm_m128",
    "fp16_gemm_m16",
    "fp8_gemm_m16",
    "int8_gemm_large",
    "int8_gemm_m32",
    "int4_gemm_m16",
    "w4a16_gemm_m16",
    "w8a16_gemm_m16",
    "attention_prefill",
    "attention_decode",
    "rms_norm",
    "silu_and_mul",
    "copy",
)
"""What serving runs. Each more takes a run 11 s: with these, two runs of 560 s make the whole test."""
_STEP: Final = "truth test"
_CASES_PER_KIND: Final = 40
"""Of made-up GPUs: 240 cases in all."""
_SCALES: Final = [percent / 100 for percent in range(100, 9, -1)]
"""How much of the test's mixtures and interventions a run may take: as much as fits, and at least a tenth."""
_WINDOWS_OF_INTERVENTION: Final = 4


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What to run.

    Attributes:
        budget_s: How long this run may take, roughly; fewer windows where it is short.
        part: (i, n): the i-th of n runs that share the test's mixtures and interventions.
        rows: Of earlier runs: result files, captures of loads, or folders of ``folder``'s kind, also of a run that was
            killed. With them nothing is run: they are put together.
        output: Result file to write; a picture ``.svg`` goes beside it. None writes none.
        folder: Where captures stay; None to throw them away.
        kinds: Names of the loads.
    """

    budget_s: float = 900.0
    part: tuple[int, int] = (1, 1)
    rows: tuple[Path, ...] = ()
    output: Path | None = None
    folder: Path | None = None
    kinds: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        known = {kernel.name for kernel in all_loads()}
        if unknown := [name for name in self.kinds if name not in known]:
            raise UsageError(f"there is no load {unknown[0]!r}", f"Choose among {', '.join(sorted(known))}.")
        index, count = self.part
        if not 1 <= index <= count:
            raise UsageError(f"there is no part {index} of {count}", "Give --part I/N with I from 1 to N.")
        if not self.budget_s > 0:
            raise UsageError(f"a truth test cannot take {self.budget_s:g} seconds", "Give a positive --budget.")


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What came out.

    Attributes:
        device: The GPU's name.
        truth: The figures and what they come from.
        metrics: The figures, ``coverage_synthetic`` among them.
        verdicts: Beside their targets.
        notes: What weakens them, in sentences.
        written: Files.
    """

    device: str
    truth: Truth
    metrics: Mapping[str, Metric]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    written: tuple[Path, ...]


def run_verify(gpu: Gpu | None, options: VerifyOptions, stop: Event, show: Show) -> VerifyResult:
    """Run the test, or put its runs together, and write the result file and its picture.

    Args:
        gpu: From `find_gpu`; may be None where ``options.rows`` are given.
        options: What to run.
        stop: Ends the run before its next window; what was measured until then counts.
        show: Is told where it is.

    Raises:
        CaptureError: Too few mixtures were measured for a test, or a file or capture is none of one.
        DeviceError: The GPU is lost, or has no energy counter.
        UsageError: There is neither a GPU nor a file.
    """
    if options.rows:
        device, rows, notes = read_rows(options.rows)
    elif gpu is not None:
        device = gpu.name
        row, notes = _measured(gpu, options, stop, show)
        rows = [row]
    else:
        raise UsageError("the truth test needs a GPU, or the files of earlier runs", "Give --device or --rows.")
    if options.output is not None:  # before the analysis: a run that is too short for figures is worth keeping
        _write(options.output, device, rows, {}, notes)
    show(_STEP, "figures", 0, None)
    found = recompute(rows)
    metrics = {**found.metrics, "coverage_synthetic": synthetic_coverage()}
    written = [] if options.output is None else _write(options.output, device, rows, metrics, notes, found)
    return VerifyResult(device, found, metrics, tuple(verdicts(metrics)), tuple(notes), tuple(written))


def synthetic_coverage(cases_per_kind: int = _CASES_PER_KIND) -> Metric:
    """How often true joules of made-up kernels lie in their 95 % intervals."""
    counts = coverage(cases_per_kind).values()
    hits, total = sum(hit for hit, _ in counts), sum(number for _, number in counts)
    return Metric(hits / total, "1", *wilson_interval(hits, total), n=len(counts) * cases_per_kind)


def truth_plan(pilots: Mapping[str, PilotLoad], idle_w: float, part: tuple[int, int], left_s: float) -> LoadPlan:
    """The test's plan in the time that is left: all kinds alone, and as many mixtures and interventions as fit.

    Args:
        pilots: Each kind alone.
        idle_w: Power with nothing running.
        part: Which of how many runs.
        left_s: Seconds for the plan's windows.
    """
    full = PlanOptions(part=part)
    window_s = full.window_s + SETTLE_S
    fixed_s = full.soak_s + SETTLE_S + full.num_brackets * (full.window_s + IDLE_SETTLE_S)
    fixed_s += len(pilots) * len(full.duties) * window_s
    for scale in _SCALES:
        mixtures, capped = (max(1, round(scale * count / part[1])) for count in (full.num_mixtures, full.num_capped))
        interventions = max(1, math.floor(scale * full.num_interventions / part[1]))
        num_windows = mixtures + capped + _WINDOWS_OF_INTERVENTION * interventions
        if fixed_s + num_windows * window_s <= left_s:
            break
    few = replace(
        full,
        num_mixtures=mixtures * part[1],
        num_capped=capped * part[1],
        num_interventions=interventions * part[1],
    )
    return plan_loads(pilots, idle_w, few)


def _measured(gpu: Gpu, options: VerifyOptions, stop: Event, show: Show) -> tuple[dict[str, Any], list[str]]:
    begin_s = time.monotonic()
    kept = nullcontext(options.folder) if options.folder is not None else TemporaryDirectory(prefix="qmeter-verify-")
    with kept as name:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        kernels = [kernel for kernel in all_loads() if kernel.name in options.kinds]
        checks = traced_loads(folder / "checks.qmt", gpu.ordinal, lambda text: show("loads", text, 0, None), kernels)
        capture = _recorded(folder / LOADS, gpu, checks, options, begin_s, stop, show)
    return measured_row(capture, next(info for info in capture.manifest.devices if info.uuid == gpu.uuid))


def _recorded(
    path: Path, gpu: Gpu, checks: list[LoadCheck], options: VerifyOptions, begin_s: float, stop: Event, show: Show
) -> Capture:
    chosen, left_out = chosen_loads(checks)

    def planner(pilots: Mapping[str, PilotLoad], idle_w: float) -> LoadPlan:
        return truth_plan(pilots, idle_w, options.part, options.budget_s - (time.monotonic() - begin_s))

    def on_window(window: LoadWindow, plan: LoadPlan) -> None:
        if stop.is_set():
            raise KeyboardInterrupt  # what `record_loads` keeps its windows at
        done_s = sum(before.length_s + SETTLE_S for before in plan.windows[: window.number])
        show(_STEP, f"{window.number}/{len(plan.windows)} {window.group or window.role.value}", done_s, plan.length_s)

    def progress(text: str) -> None:
        show("loads", text, 0, None)

    return record_loads(path, gpu.ordinal, chosen, planner, progress, on_window, left_out=left_out)


def _write(
    path: Path,
    device: str,
    rows: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, Metric],
    notes: Sequence[str],
    found: Truth | None = None,
) -> list[Path]:
    write_result(
        path,
        "truth test of joules",
        metrics,
        device=device,
        command="qmeter-native calibrate --verify",
        packages=("torch", "triton", "numpy"),
        rows=rows,
        notes=notes,
    )
    if found is None:
        return [path]
    picture = path.with_suffix(".svg")
    picture.write_text(truth_picture(found, f"Truth test of joules, {device}"), encoding="utf-8")
    return [path, picture]
