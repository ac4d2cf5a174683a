"""Totals of the measured window."""

from __future__ import annotations

from collections.abc import Sequence

from qmeter_native.attribution.energy_pool import EnergyPool
from qmeter_native.attribution.kernel_names import KernelNames
from qmeter_native.attribution.latency import Latencies, distribution, inter_token_latencies, sent_inside
from qmeter_native.attribution.steps import StepSpans
from qmeter_native.attribution.usage import DeviceUsage
from qmeter_native.model.capture import Capture
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.report import Totals
from qmeter_native.model.tables import RequestTable
from qmeter_native.units import ns_to_s

__all__ = ["totals"]


def totals(
    capture: Capture,
    names: KernelNames,
    usages: Sequence[DeviceUsage],
    spans: StepSpans,
    latencies: Latencies,
    pool: EnergyPool,
) -> Totals:
    """Totals of the requests sent inside the measured window.

    Tokens and energy count everything received and spent, latencies and throughput finished requests.
    """
    manifest = capture.manifest
    is_inside = sent_inside(manifest, capture.requests)
    requests = capture.requests.take(is_inside)
    wall_s = ns_to_s(manifest.measure_end_ns - manifest.measure_start_ns)
    in_window = (spans.start_ns >= manifest.measure_start_ns) & (spans.start_ns < manifest.measure_end_ns)
    finished = requests.take(requests.is_finished)
    num_prompt, num_output = int(finished.num_prompt_tokens.sum()), int(finished.num_output_tokens.sum())

    def per_second(count: int) -> float:
        return count / wall_s if wall_s > 0 else 0.0

    return Totals(
        wall_s=wall_s,
        num_requests=len(requests),
        num_finished=len(finished),
        num_prompt_tokens=_prompt_tokens(requests),
        num_output_tokens=int(requests.num_output_tokens.sum()),
        num_steps=int(in_window.sum()),
        num_kernels=sum(int(usage.calls[~names.is_meter].sum()) for usage in usages),
        request_throughput=per_second(len(finished)),
        output_throughput=per_second(num_output),
        total_token_throughput=per_second(num_prompt + num_output),
        ttft_s=distribution(latencies.ttft_s[is_inside]),
        tpot_s=distribution(latencies.tpot_s[is_inside]),
        itl_s=distribution(inter_token_latencies(requests, capture.output_tokens)),
        e2e_s=distribution(latencies.e2e_s[is_inside]),
        energy_gross_j=pool.gross,
        energy_dynamic_j=pool.dynamic,
        energy_static_j=pool.static,
        energy_memory_j=pool.memory,
        energy_idle_j=pool.idle,
        energy_active_j=pool.active(),
        average_power_w=pool.gross.over(wall_s, "the measured window is empty"),
        **_energy_per(requests, pool.gross),
    )


def _prompt_tokens(requests: RequestTable) -> int:
    """Tokens of the prompts that were answered at all."""
    return int(requests.num_prompt_tokens[requests.first_token_ns > 0].sum())


def _energy_per(requests: RequestTable, gross: Estimate) -> dict[str, Estimate]:
    prompt, output = _prompt_tokens(requests), int(requests.num_output_tokens.sum())
    return {
        "j_per_output_token": gross.over(output, "no output token was received"),
        "j_per_input_token": gross.over(prompt, "no prompt was answered"),
        "j_per_total_token": gross.over(prompt + output, "no token was processed"),
        "j_per_request": gross.over(int(requests.is_finished.sum()), "no request finished"),
    }
