"""Totals of the measured window."""

from __future__ import annotations

from collections.abc import Sequence

from qmeter_native.attribution.energy_pool import EnergyPool
from qmeter_native.attribution.latency import Latencies, distribution, inter_token_latencies
from qmeter_native.attribution.steps import StepSpans
from qmeter_native.attribution.usage import DeviceUsage, KernelNames
from qmeter_native.model.capture import Capture
from qmeter_native.model.report import Totals
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
    """Totals. Tokens and energy count everything received and spent, latencies and throughput finished requests."""
    manifest, requests = capture.manifest, capture.requests
    wall_s = ns_to_s(manifest.measure_end_ns - manifest.measure_start_ns)
    is_started = requests.first_token_ns > 0
    prompt = int(requests.num_prompt_tokens[is_started].sum())
    output = int(requests.num_output_tokens.sum())
    finished = requests.is_finished
    finished_output = int(requests.num_output_tokens[finished].sum())
    finished_prompt = int(requests.num_prompt_tokens[finished].sum())
    in_window = (spans.start_ns >= manifest.measure_start_ns) & (spans.start_ns < manifest.measure_end_ns)
    gross = pool.gross

    def per_second(count: int) -> float:
        return count / wall_s if wall_s > 0 else 0.0

    return Totals(
        wall_s=wall_s,
        num_requests=len(requests),
        num_finished=int(finished.sum()),
        num_prompt_tokens=prompt,
        num_output_tokens=output,
        num_steps=int(in_window.sum()),
        num_kernels=sum(int(usage.calls[~names.is_meter].sum()) for usage in usages),
        request_throughput=per_second(int(finished.sum())),
        output_throughput=per_second(finished_output),
        total_token_throughput=per_second(finished_prompt + finished_output),
        ttft_s=distribution(latencies.ttft_s),
        tpot_s=distribution(latencies.tpot_s),
        itl_s=distribution(inter_token_latencies(requests, capture.output_tokens)),
        e2e_s=distribution(latencies.e2e_s),
        energy_gross_j=gross,
        energy_idle_j=pool.idle,
        energy_active_j=pool.active(),
        average_power_w=gross.over(wall_s, "the measured window is empty"),
        j_per_output_token=gross.over(output, "no output token was received"),
        j_per_input_token=gross.over(prompt, "no prompt was answered"),
        j_per_total_token=gross.over(prompt + output, "no token was processed"),
        j_per_request=gross.over(int(finished.sum()), "no request finished"),
    )
