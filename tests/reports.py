"""Hand-made reports for the tests of reporters: what attribution would say, without attribution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qmeter_native.model.coverage import Coverage, ScaledFamily
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.explanation import ExplainedPart, RequestExplanation
from qmeter_native.model.kernel_choice import KernelChoice, ObservedKernels
from qmeter_native.model.manifest import DeviceInfo, EngineInfo, LossReport, Validity
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.power_model import EnergyMode
from qmeter_native.model.report import (
    AttributionReport,
    Balance,
    ComponentRow,
    Distribution,
    EnergyBalance,
    KernelRow,
    LatencyParts,
    PhaseRow,
    ProcessRow,
    RequestBalance,
    RequestRow,
    TimeBalance,
    Totals,
)
from qmeter_native.model.work import LayerRow, WorkRow, WorkSummary

METHOD = "attributed: windows between counter ticks, shared by busy time"
NO_SENSOR = "device 0 has no energy source: no powercap domain is readable"


def estimate(value: float, spread: float = 0.02, **changes: Any) -> Estimate:
    """An attributed figure with an interval of ± ``spread`` and a board gain of 5 %."""
    values = {"method": METHOD, "systematic": 0.05, **changes}
    return Estimate(value, value * (1 - spread), value * (1 + spread), **values)


def kernel(name: str, share: float, **changes: Any) -> KernelRow:
    """A kernel class with ``share`` of 10 s, and of 3 kJ dynamic and 1 kJ static."""
    values: dict[str, Any] = {
        "display_name": name,
        "op_family": OpFamily.GEMM,
        "scheme": "W4A16-INT g128",
        "phase_shares": {"prefill": 0.12, "decode": 0.88, "none": 0.0},
        "calls": 51_200,
        "time_s": 10.0 * share,
        "overlapped_s": 0.0,
        "time_share": share,
        "energy_j": estimate(3_000.0 * share),
        "dynamic_j": estimate(3_000.0 * share),
        "static_j": estimate(1_000.0 * share),
        "marginal_j": estimate(3_500.0 * share / 51_200),
        "components_j": {"dram": 1_500.0 * share, "tensor": 1_500.0 * share},
        "is_resolved": True,
        "mode": EnergyMode.SHAPES,
        "energy_share": estimate(share),
        "j_per_launch": estimate(3_000.0 * share / 51_200),
        "num_configs": 3,
    }
    return KernelRow(name=name, **{**values, **changes})


def request(number: int, **changes: Any) -> RequestRow:
    """A finished request whose parts add up."""
    e2e_ns = 1_500_000_000 + number * 1_000_003
    values: dict[str, Any] = {
        "name": f"req-{number:02d}",
        "num_prompt_tokens": 512,
        "num_output_tokens": 128,
        "is_finished": True,
        "ttft_s": 0.210,
        "tpot_s": 0.0101,
        "e2e_s": e2e_ns / 1e9,
        "elapsed": LatencyParts(10_000_000, 200_000_000, e2e_ns - 240_000_000, 20_000_000, 10_000_000, e2e_ns, 0),
        "elapsed_reason": None,
        "share_prefill_s": 0.012,
        "share_decode_s": 0.14,
        "share_energy_j": estimate(62.0),
    }
    return RequestRow(request=number, **{**values, **changes})


def time_balance(device: int = 0, **changes: Any) -> TimeBalance:
    """12 s of wall time, 10 s of them busy; closed."""
    values = {
        "wall_ns": 12_000_000_000,
        "busy_ns": 10_000_000_000,
        "idle_in_steps_ns": 1_500_000_000,
        "idle_between_steps_ns": 500_000_000,
        "kernels_ns": 10_000_000_000,
        "assigned_ns": 9_950_000_000,
        "unassigned_ns": 50_000_000,
        "overlapped_ns": 120_000_000,
        "residual_ns": 0,
        "request_residual_ns": 0,
    }
    return TimeBalance(device, **{**values, **changes})


def energy_balance(device: int = 0, **changes: Any) -> EnergyBalance:
    """5 kJ, 3 of them in kernels; closed."""
    values = {
        "measured_j": 5_000.0,
        "kernels_j": 3_000.0,
        "static_j": 1_000.0,
        "idle_j": 880.0,
        "meter_j": 2.0,
        "unattributed_j": 118.0,
        "residual_j": 0.0,
        "raw_residual_fraction": 0.031,
        "raw_residual_p95": 0.062,
        "sampling_j": 12.0,
        "num_windows": 118,
        "mode": EnergyMode.SHAPES,
        "profile": "datasheet defaults",
        "resolved_share": 0.91,
    }
    return EnergyBalance(device, **{"method": METHOD, **values, **changes})


def device(index: int = 0, **changes: Any) -> DeviceInfo:
    """An H200 with a counter."""
    values = {"energy_source": "nvml_total_energy", "idle_power_w": 76.4, "idle_window_s": 2.0, **changes}
    return DeviceInfo(index, "cuda", "NVIDIA H200", f"GPU-{index}", **values)


def coverage(untraced_ns: int, device: int = 0) -> Coverage:
    """Of 12 s, all but ``untraced_ns`` traced in six windows."""
    method = "estimated: traced share scaled to the measured window"
    families = (ScaledFamily("gemm", Estimate(7.0, 6.8, 7.2, method)),)
    return Coverage(device, 12_000_000_000 - untraced_ns, untraced_ns, 6, Estimate(10.0, 9.8, 10.2, method), families)


def explanation() -> RequestExplanation:
    """1.5 s of a request, two families of decode too small to be told apart."""
    parts = (
        ExplainedPart("queue", None, None, 100_000_000),
        ExplainedPart("kernels", "prefill", OpFamily.GEMM, 200_000_000),
        ExplainedPart("idle_in_steps", "prefill", None, 50_000_000),
        ExplainedPart("kernels", "decode", OpFamily.GEMM, 900_000_000),
        ExplainedPart("kernels", "decode", OpFamily.KV_CACHE, 700_000),
        ExplainedPart("kernels", "decode", OpFamily.METER, 300_000),
        ExplainedPart("idle_in_steps", "decode", None, 149_000_000),
        ExplainedPart("gaps", None, None, 60_000_000),
        ExplainedPart("host", None, None, 40_000_000),
    )
    return RequestExplanation(3, "req-03", "p50 of end-to-end time", 0, 1_500_000_000, parts, 128, 0, True)


def kernel_choice() -> KernelChoice:
    """GPTQ that ran in Marlin."""
    observed = (
        ObservedKernels("Marlin", "W4A16-INT", 51_200, 4.5, 0.9),
        ObservedKernels("cuBLAS", None, 51_200, 0.5, 0.1),
    )
    return KernelChoice("gptq", ("Machete", "Marlin"), observed, False, "gptq ran in Marlin.")


def work() -> WorkSummary:
    """Two roles, one of them not modelled."""
    rows = (
        WorkRow(
            *("qkv_proj", OpFamily.GEMM, "Marlin", 32, 9_600, 1.5, 0.15, 4_000_000, 3_000_000, 1_000_000),
            *(412e12, 2.1e12, estimate(600.0)),
        ),
        WorkRow("norm", OpFamily.NORM, None, 32, 19_200, 0.3, 0.03, None, None, 0, None, None, estimate(40.0)),
    )
    return WorkSummary(rows, 1.0, 0.998, 0.992, 0.11, notes=("a note",), layers=(LayerRow(0, 0.05, estimate(20.0)),))


def process(index: int) -> ProcessRow:
    """A worker on the device of its number."""
    return ProcessRow(index, 4_000 + index, index, "host", "vllm serve", (index,), 62_155, 1_200)


def report(**changes: Any) -> AttributionReport:
    """A complete report of one GPU."""
    values: dict[str, Any] = {
        "name": "run.qmt",
        "devices": (device(),),
        "engine": EngineInfo(
            "transformers",
            "5.23.0",
            "shape:llama-3.1-8b",
            {"quantization": None, "attention": "flash"},
            {"quantization": "none", "attention": "sdpa", "dtype": "bfloat16"},
        ),
        "balance": Balance((time_balance(),), (energy_balance(),), RequestBalance(64, 0)),
        "totals": totals(),
        "kernels": tuple(kernel(name, share) for name, share in _KERNELS),
        "phases": (
            PhaseRow("prefill", 32_768, 2.1, 0.21, estimate(900.0), estimate(900.0 / 32_768)),
            PhaseRow("decode", 8_192, 7.85, 0.785, estimate(3_050.0), estimate(3_050.0 / 8_192)),
            PhaseRow("none", 0, 0.05, 0.005, estimate(50.0), Estimate.missing("this phase has no tokens", METHOD)),
        ),
        "requests": tuple(request(number) for number in range(8)),
        "loss": LossReport(),
        "software": {"python": "3.12.3", "torch": "2.13.0"},
        "components": (
            ComponentRow("dram", Estimate(1_500.0, method="modelled: a power model"), 0.3),
            ComponentRow("tensor", Estimate(1_500.0, method="modelled: a power model"), 0.3),
            ComponentRow("static", estimate(1_000.0), 0.2),
            ComponentRow("idle", estimate(880.0), 0.176),
        ),
    }
    return AttributionReport(**{**values, **changes})


def totals(**changes: Any) -> Totals:
    """64 requests of 512 + 128 tokens in 12 s."""
    values: dict[str, Any] = {
        "wall_s": 12.0,
        "num_requests": 64,
        "num_finished": 64,
        "num_prompt_tokens": 32_768,
        "num_output_tokens": 8_192,
        "num_steps": 310,
        "num_kernels": 124_310,
        "request_throughput": 64 / 12,
        "output_throughput": 8_192 / 12,
        "total_token_throughput": 40_960 / 12,
        "ttft_s": Distribution(64, 0.212, 0.201, 0.312, 0.404),
        "tpot_s": Distribution(64, 0.0101, 0.0100, 0.0112, 0.0131),
        "itl_s": Distribution(8_128, 0.0101, 0.0098, 0.0121, 0.0181),
        "e2e_s": Distribution(64, 1.503, 1.498, 1.702, 1.811),
        "energy_gross_j": estimate(5_000.0, 0.001, method="measured"),
        "energy_dynamic_j": estimate(3_000.0),
        "energy_static_j": estimate(1_000.0),
        "energy_memory_j": Estimate(700.0, method="measured: integral of NVML's memory-scope power"),
        "energy_idle_j": estimate(916.8, 0.01, method="estimated: idle power before the run times wall time"),
        "energy_active_j": estimate(4_083.2, method="estimated: gross minus idle"),
        "average_power_w": estimate(416.7, 0.001, method="measured"),
        "j_per_output_token": estimate(5_000 / 8_192, 0.001, method="measured"),
        "j_per_input_token": estimate(5_000 / 32_768, 0.001, method="measured"),
        "j_per_total_token": estimate(5_000 / 40_960, 0.001, method="measured"),
        "j_per_request": estimate(5_000 / 64, 0.001, method="measured"),
    }
    return Totals(**{**values, **changes})


def report_without_energy() -> AttributionReport:
    """The same run on a device without a sensor."""
    full = report()
    absent = Estimate.missing(NO_SENSOR)
    energies = ("energy_j", "dynamic_j", "static_j", "marginal_j", "energy_share", "j_per_launch")
    figures = (
        "energy_gross_j", "energy_dynamic_j", "energy_static_j", "energy_memory_j", "energy_idle_j", "energy_active_j",
        "average_power_w",
        "j_per_output_token", "j_per_input_token", "j_per_total_token", "j_per_request",
    )  # fmt: skip
    return replace(
        full,
        devices=(device(energy_source=None, energy_absent_reason=NO_SENSOR, idle_power_w=None, idle_window_s=None),),
        balance=replace(full.balance, energy=(EnergyBalance(0, "absent", NO_SENSOR),)),
        totals=replace(full.totals, **dict.fromkeys(figures, absent)),
        components=(),
        kernels=tuple(
            replace(row, components_j={}, is_resolved=None, mode=None, **dict.fromkeys(energies, absent))
            for row in full.kernels
        ),
        phases=tuple(replace(row, energy_j=absent, j_per_token=absent) for row in full.phases),
        requests=tuple(replace(row, share_energy_j=absent) for row in full.requests),
        validity=(Validity("energy_absent", NO_SENSOR, "device 0"),),
    )


def report_of_devices(num_devices: int) -> AttributionReport:
    """One report of several GPUs; the last one's time does not close by 7 ns."""
    full = report()
    indices = range(num_devices)
    times = [time_balance(index) for index in indices]
    times[-1] = replace(times[-1], residual_ns=-7)
    return replace(
        full,
        devices=tuple(device(index) for index in indices),
        balance=Balance(tuple(times), tuple(energy_balance(index) for index in indices), full.balance.requests),
    )


_KERNELS = (
    ("void marlin::Marlin<__nv_bfloat16, 1125899906909960, 256, 1, 8, 8, true, 4, 8, false>", 0.45),
    ("nvjet_tst_128x64_64x8_2x1_v_bz_TNT", 0.25),
    ("void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4, false, false>>", 0.15),
    ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>", 0.08),
    ("Memcpy DtoH", 0.05),
    ("[bold]a name that looks like markup[/bold] \x1b[31mand like an escape", 0.0195),
    ("qmeter_step_marker", 0.0005),
)
