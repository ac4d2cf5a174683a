"""What attribution says about a capture. Reporters print it; they compute nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from qmeter_native.model.coverage import Coverage
from qmeter_native.model.estimate import Estimate
from qmeter_native.model.explanation import RequestExplanation
from qmeter_native.model.kernel_choice import KernelChoice
from qmeter_native.model.manifest import DeviceInfo, EngineInfo, LossReport, Validity
from qmeter_native.model.op_family import OpFamily
from qmeter_native.model.power_model import EnergyMode
from qmeter_native.model.static_policy import StaticPolicy
from qmeter_native.model.work import WorkSummary

__all__ = [
    "REPORT_SCHEMA_VERSION",
    "AttributionReport",
    "Balance",
    "ComponentRow",
    "Distribution",
    "EnergyBalance",
    "KernelRow",
    "LatencyParts",
    "PhaseRow",
    "ProcessRow",
    "RequestBalance",
    "RequestRow",
    "TimeBalance",
    "Totals",
]

REPORT_SCHEMA_VERSION = 3
"""Version of the JSON document that `report --json` prints. 1: first version. 2: coverage of traced windows, requested
and observed kernels, explained requests, the work model. 3: dynamic, static and marginal joules, components, layers."""


@dataclass(frozen=True, slots=True)
class TimeBalance:
    """Time of one device, in integer nanoseconds: ``busy + idle_in_steps + idle_between_steps + untraced =
    wall``.

    Attributes:
        device: DeviceInfo.index.
        wall_ns: Length of the measured window.
        busy_ns: Union of all kernel intervals inside the window.
        idle_in_steps_ns: No kernel ran, inside an engine step (launch gaps).
        idle_between_steps_ns: No kernel ran, outside any step (host).
        untraced_ns: Kernels were not recorded: nothing is known of that time. 0 where all was traced.
        kernels_ns: Sum of what was given to kernels; equals ``busy_ns``.
        assigned_ns: Busy time given to requests.
        unassigned_ns: Busy time of no request: kernels outside steps, and the meter's own markers.
        overlapped_ns: Busy time in which two or more kernels ran, shared 1/n.
        residual_ns: ``wall - kernels - idle - untraced``; 0 when the balance closes.
        request_residual_ns: ``busy - assigned - unassigned``; 0 when it closes.
    """

    device: int
    wall_ns: int
    busy_ns: int
    idle_in_steps_ns: int
    idle_between_steps_ns: int
    kernels_ns: int
    assigned_ns: int
    unassigned_ns: int
    overlapped_ns: int
    residual_ns: int
    request_residual_ns: int
    untraced_ns: int = 0

    @property
    def unassigned_share(self) -> float:
        """Part of busy time that belongs to no request; 0 if nothing was busy."""
        return self.unassigned_ns / self.busy_ns if self.busy_ns else 0.0

    @property
    def is_closed(self) -> bool:
        """Nothing is left over."""
        return not self.residual_ns and not self.request_residual_ns


@dataclass(frozen=True, slots=True)
class EnergyBalance:
    """Energy of one device, in joules: ``kernels + static + idle + meter + unattributed = measured``.

    All fields but ``device`` and ``method`` are None where the device has no energy source; ``reason`` says why.

    Attributes:
        measured_j: What the sensor saw in the measured window (gross).
        kernels_j: Given to kernel classes, markers left out.
        static_j: Idle and active power in busy time, unless the static policy gave it to kernels; then 0.
        idle_j: Idle power in idle time.
        meter_j: The step markers' part, and what counter phases drew beyond the model.
        unattributed_j: Measured, but given to nobody; negative where the model says more than was measured.
        residual_j: ``measured - kernels - static - idle - meter - unattributed``.
        raw_residual_fraction: Share of energy that the model placed wrongly before it was scaled to the windows:
            Σ|E_w - model_w| / Σ E_w, where the model says what the sensor should have read.
        raw_residual_p95: 95th percentile over windows of |E_w - model_w| / E_w.
        sampling_j: Of ``unattributed_j``, what the sensor should have read less what was spent, by the model: a sensor
            that looks at some of the time twice or not at all counts some work too often. 0 of one that sees all alike.
        num_windows: Energy windows used.
        mode: ``counters``, ``shapes`` or ``time``: how the work behind most dynamic joules is known.
        profile: Where the power model came from: ``calibrated`` with the date, or ``datasheet defaults``.
        static_policy: Who gets static joules.
        resolved_share: Part of kernels' dynamic joules whose class the windows tell apart from others.
    """

    device: int
    method: str
    reason: str | None = None
    measured_j: float | None = None
    kernels_j: float | None = None
    static_j: float | None = None
    idle_j: float | None = None
    meter_j: float | None = None
    unattributed_j: float | None = None
    residual_j: float | None = None
    raw_residual_fraction: float | None = None
    raw_residual_p95: float | None = None
    sampling_j: float | None = None
    num_windows: int = 0
    mode: EnergyMode | None = None
    profile: str | None = None
    static_policy: StaticPolicy = StaticPolicy.SEPARATE
    resolved_share: float | None = None

    TOLERANCE: ClassVar[float] = 1e-9
    """Largest part of the largest term of the balance that may be left over if it counts as closed."""

    @property
    def sampling_share(self) -> float:
        """``sampling_j`` over what was measured; 0 if either is missing."""
        return (self.sampling_j or 0.0) / self.measured_j if self.measured_j else 0.0

    @property
    def is_closed(self) -> bool:
        """Nothing is left over but rounding; also True where nothing was measured."""
        if self.residual_j is None or self.measured_j is None:
            return True
        terms = (self.measured_j, self.kernels_j, self.static_j, self.idle_j, self.meter_j, self.unattributed_j)
        return abs(self.residual_j) <= self.TOLERANCE * max(abs(term) for term in terms if term is not None)


@dataclass(frozen=True, slots=True)
class RequestBalance:
    """Elapsed time of requests: ``queue + steps + gaps + host = end-to-end`` for each.

    ``max_residual_ns`` is the largest difference; None with a ``reason`` if there are no requests or no steps.
    """

    num_requests: int
    max_residual_ns: int | None
    reason: str | None = None

    @property
    def is_closed(self) -> bool:
        """Every request's parts add up; also True where there is nothing to add."""
        return not self.max_residual_ns


@dataclass(frozen=True, slots=True)
class Balance:
    """The three balances, one entry a device for time and energy."""

    time: tuple[TimeBalance, ...]
    energy: tuple[EnergyBalance, ...]
    requests: RequestBalance

    def failures(self) -> tuple[str, ...]:
        """One sentence for each balance that does not close; empty if all do."""
        found = []
        for time in self.time:
            if time.residual_ns:
                found.append(f"time of device {time.device} does not close: {time.residual_ns} ns are left over")
            if time.request_residual_ns:
                found.append(f"busy time of device {time.device} is not all shared out: {time.request_residual_ns} ns")
        for energy in self.energy:
            if not energy.is_closed:
                found.append(f"energy of device {energy.device} does not close: {energy.residual_j} J are left over")
        if not self.requests.is_closed:
            found.append(f"a request's latency does not add up: {self.requests.max_residual_ns} ns")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Summary of a sample in SI units, percentiles by linear interpolation; None fields where the sample is empty."""

    count: int
    mean: float | None
    median: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of the measured window. Latencies by vLLM's definitions; see ``docs/terms.md``.

    ``energy_gross_j`` is what sensors saw. Of it ``energy_dynamic_j`` is what kernels caused, ``energy_static_j`` idle
    and active power in busy time, ``energy_idle_j`` idle power in idle time; ``energy_active_j`` is gross less idle.
    ``energy_memory_j`` is what the memory's own sensor saw of gross, idle memory included.
    """

    wall_s: float
    num_requests: int
    num_finished: int
    num_prompt_tokens: int
    num_output_tokens: int
    num_steps: int
    num_kernels: int
    request_throughput: float
    output_throughput: float
    total_token_throughput: float
    ttft_s: Distribution
    tpot_s: Distribution
    itl_s: Distribution
    e2e_s: Distribution
    energy_gross_j: Estimate
    energy_dynamic_j: Estimate
    energy_static_j: Estimate
    energy_memory_j: Estimate
    energy_idle_j: Estimate
    energy_active_j: Estimate
    average_power_w: Estimate
    j_per_output_token: Estimate
    j_per_input_token: Estimate
    j_per_total_token: Estimate
    j_per_request: Estimate


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel class as reports rank it: all launch configurations of a name together.

    Attributes:
        name: Kernel or operator name as the vendor gives it.
        display_name: The same, shortened for a table.
        op_family: What it is for.
        scheme: Quantization scheme or number format as far as its name tells, such as ``W4A16-INT``.
        phase_shares: Share of its time by phase: ``prefill``, ``decode``, ``none``; sums to 1.
        calls: Number of launches.
        time_s: Time given to it (overlaps shared).
        overlapped_s: Of its own running time, the part in which others ran too.
        time_share: ``time_s`` over the busy time of all devices.
        energy_j: Joules by the static policy: dynamic, and static where kernels get it.
        dynamic_j: What its launches caused, at the clocks they ran at.
        static_j: Its part of idle and active power, by time.
        marginal_j: What one more launch would have cost; at the power limit, the limit's power for its time.
        components_j: ``dynamic_j`` by part of the machine, modelled: ``dram``, ``l2``, ``tensor``, ``sm``; ``unknown``
            where only the time is known. Empty without an energy source.
        is_resolved: The windows tell most of its joules apart from those of other kernels; None without joules.
        mode: How its work is known; None without joules.
        energy_share: ``energy_j`` over all kernels' joules.
        j_per_launch: ``energy_j / calls``.
        num_configs: Launch configurations seen.
    """

    name: str
    display_name: str
    op_family: OpFamily
    scheme: str | None
    phase_shares: dict[str, float]
    calls: int
    time_s: float
    overlapped_s: float
    time_share: float
    energy_j: Estimate
    dynamic_j: Estimate
    static_j: Estimate
    marginal_j: Estimate
    components_j: dict[str, float]
    is_resolved: bool | None
    mode: EnergyMode | None
    energy_share: Estimate
    j_per_launch: Estimate
    num_configs: int

    @property
    def mean_s(self) -> float | None:
        """Mean time of a launch; None if none lies inside the measured window."""
        return self.time_s / self.calls if self.calls else None


@dataclass(frozen=True, slots=True)
class ComponentRow:
    """Joules of one part of the machine.

    Attributes:
        component: ``dram``, ``l2``, ``tensor``, ``sm``, ``unknown``: kernels' dynamic joules, modelled; ``static``,
            ``idle``.
        energy_j: Joules of traced time.
        share: Of gross energy; None if that is not known.
    """

    component: str
    energy_j: Estimate
    share: float | None


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """One phase (``prefill``, ``decode``, or ``none`` for work of no request)."""

    phase: str
    num_tokens: int
    time_s: float
    time_share: float
    energy_j: Estimate
    j_per_token: Estimate


@dataclass(frozen=True, slots=True)
class LatencyParts:
    """A request's elapsed time, exactly: the parts add up to ``end_to_end_ns``.

    Attributes:
        queue_ns: From sending to the first step it rode.
        prefill_steps_ns: Whole steps it rode in prefill.
        decode_steps_ns: Whole steps it rode in decode.
        gaps_ns: Between steps it rode.
        host_ns: From its last step's end to the last chunk at the client.
        end_to_end_ns: Client send to last chunk.
        residual_ns: What is left over; 0.
    """

    queue_ns: int
    prefill_steps_ns: int
    decode_steps_ns: int
    gaps_ns: int
    host_ns: int
    end_to_end_ns: int
    residual_ns: int


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request: what it waited (elapsed) and what it used (share). The two are never added.

    ``elapsed`` is None, with ``elapsed_reason``, if it did not finish or rode no recorded step. Of a request that no
    client recorded only its shares are known: ``name``, tokens and ``is_finished`` are None too.
    """

    request: int
    name: str | None
    num_prompt_tokens: int | None
    num_output_tokens: int | None
    is_finished: bool | None
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None
    elapsed: LatencyParts | None
    elapsed_reason: str | None
    share_prefill_s: float
    share_decode_s: float
    share_energy_j: Estimate


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One traced process.

    Attributes:
        process: ProcessInfo.index.
        pid, rank, host, command: As in `ProcessInfo`.
        devices: DeviceInfo.index of the devices it ran kernels on.
        num_kernels: Kernels recorded, in the measured window or not.
        clock_offset_ns: CUPTI's clock less CLOCK_REALTIME there; None if it was not measured.
    """

    process: int
    pid: int
    rank: int | None
    host: str
    command: str
    devices: tuple[int, ...]
    num_kernels: int
    clock_offset_ns: int | None


@dataclass(frozen=True, slots=True)
class AttributionReport:
    """The whole answer. ``kernels`` is ranked by time; ``coverage`` has one entry a device.

    ``static_policy`` says who got the static joules of busy time in ``energy_j`` of kernels, phases, requests, roles
    and layers.
    """

    name: str
    devices: tuple[DeviceInfo, ...]
    engine: EngineInfo | None
    balance: Balance
    totals: Totals
    kernels: tuple[KernelRow, ...]
    phases: tuple[PhaseRow, ...]
    requests: tuple[RequestRow, ...]
    loss: LossReport
    validity: tuple[Validity, ...] = ()
    software: dict[str, object] = field(default_factory=dict)
    coverage: tuple[Coverage, ...] = ()
    kernel_choice: KernelChoice | None = None
    explanations: tuple[RequestExplanation, ...] = ()
    work: WorkSummary | None = None
    processes: tuple[ProcessRow, ...] = ()
    components: tuple[ComponentRow, ...] = ()
    static_policy: StaticPolicy = StaticPolicy.SEPARATE
