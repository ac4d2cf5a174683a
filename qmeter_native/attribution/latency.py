"""Latency of requests by vLLM's definitions (its ``benchmarks/serve.py``).

TTFT is the first chunk less the send; E2E the last chunk less the send; TPOT ``(E2E - TTFT) / (output tokens - 1)``
of requests with more than one output token; ITL every gap between two chunks of a request, pooled over requests. Only
finished requests count. Percentiles interpolate linearly, as numpy's do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qmeter_native.model.manifest import Manifest
from qmeter_native.model.report import Distribution
from qmeter_native.model.tables import OutputTokenTable, RequestTable
from qmeter_native.units import NS_PER_S

__all__ = ["Latencies", "distribution", "inter_token_latencies", "request_latencies", "sent_inside"]

_Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies in seconds, float64, one entry a row of the request table; NaN where there is none."""

    ttft_s: _Array
    tpot_s: _Array
    e2e_s: _Array


def request_latencies(requests: RequestTable) -> Latencies:
    """TTFT, TPOT and E2E of each request."""
    is_timed = requests.is_finished & (requests.first_token_ns > 0) & (requests.last_token_ns > 0)
    ttft_s = np.where(is_timed, (requests.first_token_ns - requests.send_ns) / NS_PER_S, np.nan)
    e2e_s = np.where(is_timed, (requests.last_token_ns - requests.send_ns) / NS_PER_S, np.nan)
    later_tokens = np.maximum(requests.num_output_tokens - 1, 1)
    decode_ns = requests.last_token_ns - requests.first_token_ns
    has_more = is_timed & (requests.num_output_tokens > 1)
    return Latencies(ttft_s, np.where(has_more, decode_ns / later_tokens / NS_PER_S, np.nan), e2e_s)


def sent_inside(manifest: Manifest, requests: RequestTable) -> _Array:
    """Mask of the requests that were sent inside the measured window."""
    inside: _Array = (requests.send_ns >= manifest.measure_start_ns) & (requests.send_ns < manifest.measure_end_ns)
    return inside


def inter_token_latencies(requests: RequestTable, chunks: OutputTokenTable) -> _Array:
    """All gaps between consecutive chunks of finished requests, in seconds, float64."""
    finished = np.isin(chunks.request, requests.request[requests.is_finished])
    chunks = chunks.take(finished)
    order = np.lexsort((chunks.time_ns, chunks.request))
    request, time_ns = chunks.request[order], chunks.time_ns[order]
    gaps: _Array = np.diff(time_ns)[request[1:] == request[:-1]] / NS_PER_S
    return gaps


def distribution(sample: _Array) -> Distribution:
    """Summary of a sample; NaNs are left out."""
    sample = sample[~np.isnan(sample)]
    if len(sample) == 0:
        return Distribution(0, None, None, None, None)
    median, p90, p99 = (float(value) for value in np.percentile(sample, [50, 90, 99]))
    return Distribution(len(sample), float(sample.mean()), median, p90, p99)
