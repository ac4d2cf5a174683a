"""The compiled extension. Imported lazily, by `qmeter_native.capture` only. No call holds the GIL while it waits."""

from collections.abc import Sequence
from typing import Any

class NativeFault(Exception):
    """The one exception of the extension; `qmeter_native.capture` turns it into the errors of our tree.

    ``args[0]`` is the message (what, where), ``args[1]`` a short code: ``not_found``, ``forbidden``, ``taken``,
    ``device_lost``, ``io``, ``invalid``, ``unsupported``.
    """

def record_layouts() -> dict[str, dict[str, Any]]:
    """Layout of each spool record: ``{name: {"kind": int, "size": int, "fields": [(name, numpy format, offset)]}}``."""

class Spool:
    """Append-only file of checksummed blocks, written by a thread of its own. Safe to use from any thread."""

    def __init__(
        self,
        path: str,
        *,
        identity: str,
        block_bytes: int = 262144,
        queue_bytes: int = 67108864,
        flush_period_ns: int = 500_000_000,
    ) -> None:
        """Create ``path``. ``identity`` is JSON text, stored in the first block. Raises NativeFault("io")."""

    def intern(self, text: str) -> int:
        """Id of a string, stable in this spool; written before any record that uses it."""

    def write_string(self, text: str) -> int:
        """Id of a string that will not come again, such as a request's: nothing of it stays in memory."""

    def define_class(
        self,
        name: str,
        kind: int,
        grid: tuple[int, int, int] = ...,
        block: tuple[int, int, int] = ...,
        static_shared_bytes: int = 0,
        dynamic_shared_bytes: int = 0,
        registers: int = 0,
    ) -> int:
        """Id of a kernel class, stable in this spool."""

    def append(self, kind: int, rows: Any) -> None:
        """Append records of one kind from a C-contiguous buffer whose size is a multiple of the record's."""

    def append_stats(self, json: str) -> None:
        """Append a statistics block: JSON text with a ``name``. Of each name the last block counts."""

    def sync(self) -> None:
        """Return when everything appended so far is in the file (fdatasync)."""

    def stats(self) -> dict[str, Any]:
        """``blocks, bytes, records, dropped_records, error`` (None or the text of the first write error)."""

    def close(self) -> None:
        """Write what is queued and close. Idempotent."""

class EnergySampler:
    """One thread that reads energy, power and clocks into a spool. Constructed = running."""

    def __init__(
        self,
        spool: Spool | None,
        *,
        power_period_ns: int = 50_000_000,
        clock_period_ns: int = 100_000_000,
        edge_period_ns: int = 1_000_000_000,
        counter_cpu_share: float = 0.007,
        nvml_path: str | None = None,
        powercap_root: str = "/sys/class/powercap",
        nvml_devices: Sequence[int] | None = None,
        use_nvml: bool = True,
        use_rapl: bool = True,
    ) -> None:
        """Start sampling. Missing sources are no error: `sources` says what is absent and why.

        ``counter_cpu_share`` is what the calls of one energy counter may take of a core (0 to 1): where a call burns
        more, edges come less often than ``edge_period_ns``.
        """

    def sources(self) -> list[dict[str, Any]]:
        """One entry a device: ``{index, kind, name, uuid, driver, energy, reason, readings: {name: {ok, reason,
        call_cost_ns}}, properties}``; ``index`` is what the records' ``device`` holds. CPU packages come after GPUs."""

    def latest(self) -> list[dict[str, Any]]:
        """Newest readings a device for live display: ``{index, power_mw | None, energy_uj | None, sm_mhz | None,
        temperature_c | None}``; ``energy_uj`` counts from the sampler's start."""

    def idle_power_mw(self, index: int) -> float | None:
        """Mean power of a device since construction or the last `mark_idle`."""

    def mark_idle(self) -> None:
        """Begin a new window for `idle_power_mw`."""

    def stats(self) -> dict[str, Any]:
        """``samples, missed_samples, cpu_ns, blocked_ns, jitter_p50_ns, jitter_p99_ns, jitter_max_ns, counter_calls,
        counter_resets, edges, missed_edges, errors: {text: count}, devices_lost: [index]``.

        ``edges`` counts counter edges recorded, ``missed_edges`` those not found where they were predicted.
        """

    def close(self) -> None:
        """Take a last counter edge, drain the ring, stop. Idempotent."""

class KernelTracer:
    """CUPTI Activity into a spool. Constructed = running; every failure is undone."""

    def __init__(
        self,
        spool: Spool | None,
        *,
        cupti_path: str | None = None,
        search_dirs: Sequence[str] = (),
        buffer_bytes: int = 4194304,
        buffer_budget_bytes: int = 268435456,
        flush_period_ms: int = 1000,
        keep_raw_buffers: int = 0,
        is_paused: bool = False,
    ) -> None:
        """Find CUPTI, subscribe, enable kernels, copies and memsets unless ``is_paused``.

        Raises NativeFault: ``not_found`` (lists where it looked), ``taken`` (names the other subscriber as far as it
        can be told), ``forbidden``, ``unsupported``.
        """

    def info(self) -> dict[str, Any]:
        """``path, version, how, kinds, record_bytes``; the last is None until two kernels in a row were decoded."""

    def flush(self) -> None:
        """Hand all complete records to the spool; call after synchronising the device."""

    def pause(self) -> None:
        """Stop recording, stay subscribed. From the first pause on, trace windows are recorded. Idempotent."""

    def resume(self) -> None:
        """Record again. Idempotent. Raises NativeFault if CUPTI refuses."""

    def stats(self) -> dict[str, Any]:
        """``kernels, graph_nodes, memcpys, memsets, dropped_records, zero_timestamps, reversed_timestamps,
        unknown_records, buffers_in_use_max, buffers_denied, decode_ns, callback_ns, error``."""

    def benchmark_decode(self, repeats: int) -> dict[str, Any]:
        """Decode the kept raw buffers again through libcupti's own iterator into memory, ``repeats`` times:
        ``{records, seconds: [...], bytes_per_record, raw_bytes}``. Needs ``keep_raw_buffers`` > 0."""

    def raw_buffers(self) -> list[bytes]:
        """The kept raw buffers."""

    def close(self) -> None:
        """Flush, disable, unsubscribe. Idempotent; never raises for what CUPTI refuses at shutdown."""

class StepMarker:
    """Launches an empty kernel called ``qmeter_step_marker`` on a stream. Its activity record is a step's edge."""

    def __init__(self, *, cuda_path: str | None = None) -> None:
        """Load the kernel into the current context. Raises NativeFault."""

    def launch(self, stream: int, sequence: int) -> None:
        """Launch one thread block of ``1 + sequence % 1024`` threads, so that a lost marker is noticed."""

    def close(self) -> None: ...

def find_cupti(search_dirs: Sequence[str] = ()) -> dict[str, Any]:
    """Where CUPTI is: ``{path, version, how, tried: [(path, why not)]}``; ``path`` None if nowhere."""

def probe_nvml(path: str | None = None) -> dict[str, Any]:
    """What NVML says, without sampling: ``{path, driver, version, devices: [{index, name, uuid, mig, readings}],
    error}``; ``error`` None or a sentence."""

def clock_pair() -> tuple[int, int]:
    """CLOCK_REALTIME and CLOCK_MONOTONIC, read together, in nanoseconds."""

def pm_chips(search_dirs: Sequence[str] = ()) -> list[str]:
    """Chips whose metrics CUPTI knows, such as ``GH100``; needs no GPU. Raises NativeFault."""

def check_metrics(chip: str, metrics: Sequence[str], search_dirs: Sequence[str] = ()) -> dict[str, Any]:
    """Whether ``metrics`` of a chip can be PM-sampled together; needs no GPU: ``{passes, config_bytes, unknown:
    [name]}``; ``passes`` is None where some are unknown. Raises NativeFault."""

class PmSampler:
    """PM sampling of one GPU into a spool. Constructed = enabled, which alone raises the GPU's power, and not started.

    Samples become kCounter records, and each session one kCounterWindow record when it is closed.
    """

    def __init__(
        self,
        spool: Spool | None,
        *,
        device: int,
        uuid: str,
        metrics: Sequence[tuple[int, str, float]],
        interval_ns: int = 50_000,
        hardware_buffer_bytes: int = 536870912,
        image_samples: int = 2048,
        decode_budget: float = 1.0,
        max_samples: int = 0,
        cupti_path: str | None = None,
        cuda_path: str | None = None,
        search_dirs: Sequence[str] = (),
    ) -> None:
        """Set up a session.

        Args:
            spool: Where samples go; None to count them only.
            device: ``DeviceInfo.index``, stored in the records.
            uuid: NVML's UUID of the GPU; found among CUDA's devices in this process.
            metrics: (CounterQuantity, metric name, factor by which its value is multiplied).
            interval_ns: Between samples, from 1000. With a SYSCLK trigger (GA100) it is turned into cycles.
            hardware_buffer_bytes: On the GPU's side; what does not fit between two decodes is lost and counted.
            image_samples: Samples that one counter data image holds, at most. A burst lasts 80 % of so many intervals;
                39 KB each with eight metrics.
            decode_budget: Most CPU seconds a second that decoding may take between `start` and `stop`. With bursts it
                says how soon the next one follows; with 0 there is only one.
            max_samples: Of a `start`, after which sampling ends by itself; 0 for no limit.

        Raises NativeFault: ``not_found``, ``unsupported`` (chip, version, metrics that need more than one pass, which
        it names), ``forbidden`` (counters need a permission: says which), ``taken`` (another session), ``invalid``.
        """

    def info(self) -> dict[str, Any]:
        """``chip, trigger ("gpu_time" or "sysclk"), mode, interval_ns, interval_cycles | None, num_metrics,
        config_bytes, image_bytes, num_sms, path, version, setup_ns``.

        ``mode`` is ``"continuous"`` where decoding keeps up with sampling, else ``"bursts"``: the GPU samples in short
        sub-bursts, and not while they are decoded. The former may become the latter while sampling.
        """

    def start(self) -> None:
        """Begin sampling. Idempotent. Raises NativeFault."""

    def stop(self) -> None:
        """End sampling, decode what is left. The session stays enabled. Idempotent."""

    def stats(self) -> dict[str, Any]:
        """``bursts, samples, sampled_ns, dropped_first, dropped_long, overflows, full_images, decode_failures,
        evaluate_failures, lost_samples, decode_ns (CPU), evaluate_ns (CPU), start_ns, stop_ns, error``.

        ``bursts`` are starts of CUPTI's session that have ended, ``sampled_ns`` the sum of the lengths of the samples
        recorded. ``dropped_first`` are the first samples of bursts and older ones, ``dropped_long`` those longer than
        1.5 intervals. ``full_images`` are decodes that filled the image. ``lost_samples`` are missing in bursts, not
        between them.
        """

    def close(self) -> None:
        """Stop, decode, disable, write the counter window. Idempotent; never raises."""
