"""Measures the native core on a CUDA GPU and writes ``native-core.json``.

    python tools/bench_native_core.py --out docs/results

A million real activity records (a small network, eager and as CUDA graphs, with copies and memsets) are traced; their
raw buffers are kept and decoded again through libcupti's own iterator. Then the energy sampler runs at its default
rates beside the same load. ``--dry-run`` does all this on the fakes of ``tests/fakes``, to test the program itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from qmeter_native import _native  # noqa: E402
from qmeter_native.capture.cupti_paths import cupti_search_dirs  # noqa: E402
from qmeter_native.storage.spool import read_spool  # noqa: E402
from qmeter_native.storage.spool_join import join_spools  # noqa: E402
from qmeter_native.storage.table_files import write_table  # noqa: E402
from tools.cupti_buffer import save_buffer  # noqa: E402
from tools.results import Metric, cpu_name, write_result  # noqa: E402

MAX_BUFFERS: Final = 64
"""Raw buffers kept, of 4 MiB each: about a million kernels."""

NUM_WINDOWS: Final = 3
"""Windows in which the sampler's share of a core is taken."""


class Load(Protocol):
    """Something that makes activity records. Its ``device`` is what it runs on."""

    device: str

    def run(self) -> None:
        """Make some thousands of records, and wait for them."""

    @property
    def options(self) -> dict[str, Any]:
        """Options of a tracer that sees them."""

    @property
    def sampler_options(self) -> dict[str, Any]:
        """Options of a sampler of its device."""


class GpuLoad:
    """A small network on the first GPU: layers of matrix products, norms and activations."""

    NUM_LAYERS: Final = 32
    HIDDEN: Final = 512
    GRAPH_REPLAYS: Final = 20

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self.device = f"{torch.cuda.get_device_name()}, {cpu_name()}"
        self._graph: Any = None

    options = property(lambda self: {"search_dirs": cupti_search_dirs()})
    sampler_options = property(lambda self: {})

    def run(self) -> None:
        """One eager pass and some replays of its graph."""
        if self._graph is None:
            self._prepare()
        self._step()
        for _ in range(self.GRAPH_REPLAYS):
            self._graph.replay()
        self._torch.cuda.synchronize()

    def _prepare(self) -> None:
        """Only once the tracer runs: graphs that were captured before it are not seen node by node."""
        torch = self._torch
        shape = (self.HIDDEN, self.HIDDEN)
        self._weights = [torch.randn(shape, device="cuda", dtype=torch.float16) for _ in range(2 * self.NUM_LAYERS)]
        self._input = torch.randn((16, self.HIDDEN)).half().pin_memory()
        self._state = torch.zeros((16, self.HIDDEN), device="cuda", dtype=torch.float16)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            self._step()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step()

    def _step(self) -> None:
        torch = self._torch
        self._state.zero_()
        self._state.copy_(self._input, non_blocking=True)
        x = self._state
        for up, down in zip(self._weights[::2], self._weights[1::2], strict=True):
            normed = torch.nn.functional.rms_norm(x, (self.HIDDEN,))
            x = x + torch.nn.functional.silu(normed @ up) @ down
            x = torch.clamp(x, -4, 4)
        self._state.copy_(x)


class FakeLoad:
    """The same by number on the fakes of CUPTI and NVML."""

    def __init__(self) -> None:
        from tests.fakes.build import build_fake
        from tests.fakes.fake_cupti import MEMCPY, FakeCupti
        from tests.fakes.fake_nvml import FakeNvml

        self.device = f"fakes of CUPTI and NVML, {cpu_name()}"
        self._memcpy = MEMCPY
        self._cupti = FakeCupti(build_fake("fake_cupti.cpp", "libcupti.so.13"))
        self._nvml = FakeNvml(build_fake("fake_nvml.cpp", "libnvidia-ml.so.1"))
        self._nvml.reset()
        self._time_ns = 1_700_000_000_000_000_000

    options = property(lambda self: {"cupti_path": self._cupti.path})
    sampler_options = property(lambda self: {"nvml_path": self._nvml.path})

    def run(self) -> None:
        """8000 graph nodes of 400 classes, and a copy."""
        for layer in range(400):
            fields = {"start": self._time_ns, "end": self._time_ns + 700 + layer, "stream": 7}
            self._cupti.emit(count=20, name=f"kernel_{layer % 9}", grid=(layer, 1, 1), graph_node=layer, **fields)
            self._time_ns += 20_000
        self._cupti.emit(self._memcpy, bytes=4096, copy_kind=1, **fields)


def trace(load: Load, num_records: int, spool_path: Path) -> tuple[Any, dict[str, Any]]:
    """Trace until ``num_records`` are decoded. Returns the closed tracer, with its raw buffers, and its statistics."""
    spool = _native.Spool(str(spool_path), identity="{}")
    tracer = _native.KernelTracer(spool, keep_raw_buffers=MAX_BUFFERS, **load.options)
    while tracer.stats()["kernels"] < num_records:
        for _ in range(10):
            load.run()
        tracer.flush()
    tracer.close()
    spool.close()
    if spool.stats()["dropped_records"] or tracer.stats()["error"]:
        raise SystemExit(f"the trace is not whole: {spool.stats()}, {tracer.stats()}")
    return tracer, tracer.stats()


def decode_metrics(tracer: Any, stats: dict[str, Any], repeats: int) -> dict[str, Metric]:
    """Figures of decoding the kept buffers again, and of decoding while tracing."""
    result = tracer.benchmark_decode(repeats)
    num_records = stats["kernels"] + stats["memcpys"] + stats["memsets"]
    return {
        "decode_records_per_s_core": Metric.of_repeats([result["records"] / s for s in result["seconds"]], "1/s"),
        "bytes_per_record_memory": Metric(result["bytes_per_record"], "B", n=result["records"]),
        "records_decoded": Metric(result["records"], "1"),
        "raw_bytes_per_record": Metric(result["raw_bytes"] / result["records"], "B", n=result["records"]),
        "traced_records": Metric(num_records, "1"),
        "traced_graph_nodes": Metric(stats["graph_nodes"], "1"),
        "live_callback_ns_per_record": Metric(stats["callback_ns"] / num_records, "ns", n=num_records),
        "dropped_records": Metric(stats["dropped_records"], "1"),
        "bad_timestamps": Metric(stats["zero_timestamps"] + stats["reversed_timestamps"], "1"),
    }


def disk_metrics(spool_path: Path, work_dir: Path) -> dict[str, Metric]:
    """Size of the kernels and their classes as a capture's Parquet files."""
    tables = join_spools([read_spool(spool_path)])
    num_kernels = len(tables["kernels"])
    total = 0
    for name in ("kernels", "kernel_classes"):
        file = work_dir / f"{name}.parquet"
        write_table(tables[name], file)
        total += file.stat().st_size
    return {
        "bytes_per_kernel_disk": Metric(total / num_kernels, "B", n=num_kernels),
        "bytes_per_kernel_spool": Metric(spool_path.stat().st_size / num_kernels, "B", n=num_kernels),
        "kernel_classes": Metric(len(tables["kernel_classes"]), "1"),
    }


def sampler_metrics(load: Load, seconds: float, spool_path: Path) -> dict[str, Metric]:
    """The sampler at its default rates while the load runs now and then."""
    spool = _native.Spool(str(spool_path), identity="{}")
    sampler = _native.EnergySampler(spool, **load.sampler_options)
    shares = [cpu_share(sampler, seconds / NUM_WINDOWS, load.run) for _ in range(NUM_WINDOWS)]
    sampler.close()
    spool.close()
    stats = sampler.stats()
    return {
        "sampler_core_share": Metric.of_repeats(shares, "1"),
        "sampler_blocked_share": Metric(stats["blocked_ns"] / (seconds * 1e9), "1"),
        "sampler_samples": Metric(stats["samples"], "1"),
        "sampler_missed_samples": Metric(stats["missed_samples"], "1"),
        **{
            f"sampler_jitter_{point}_s": Metric(stats[f"jitter_{point}_ns"] / 1e9, "s", n=stats["samples"])
            for point in ("p50", "p99", "max")
        },
    }


def cpu_share(sampler: Any, seconds: float, work: Callable[[], None]) -> float:
    """CPU time of the sampler's thread over wall time, in one window."""
    begin, cpu_ns = time.monotonic(), sampler.stats()["cpu_ns"]
    while time.monotonic() < begin + seconds:
        work()
        time.sleep(0.05)
    return float((sampler.stats()["cpu_ns"] - cpu_ns) / ((time.monotonic() - begin) * 1e9))


def main() -> None:
    """Measure all and write the result."""
    parser = argparse.ArgumentParser(description="Measure the native core.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results", help="folder of native-core.json")
    parser.add_argument("--records", type=int, default=1_000_000, help="activity records to trace")
    parser.add_argument("--repeats", type=int, default=9, help="times the kept buffers are decoded")
    parser.add_argument("--sampler-seconds", type=float, default=36, help="how long the sampler runs")
    parser.add_argument("--save-buffer", action="store_true", help="also write OUT/cupti-buffer.json.gz")
    parser.add_argument("--dry-run", action="store_true", help="use the fakes of tests/fakes")
    arguments = parser.parse_args()
    load: Load = FakeLoad() if arguments.dry_run else GpuLoad()
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder)
        tracer, stats = trace(load, arguments.records, work_dir / "kernels.spool")
        metrics = decode_metrics(tracer, stats, arguments.repeats)
        metrics |= disk_metrics(work_dir / "kernels.spool", work_dir)
        metrics |= sampler_metrics(load, arguments.sampler_seconds, work_dir / "energy.spool")
    info = tracer.info()
    if arguments.save_buffer:
        save_buffer(tracer.raw_buffers()[0], info, arguments.out / "cupti-buffer.json.gz")
    write_result(
        arguments.out / "native-core.json",
        "native-core",
        metrics,
        device=f"{load.device}, CUPTI {info['version']} ({info['record_bytes']} bytes a kernel record)",
        command=f"python tools/bench_native_core.py --records {arguments.records} --repeats {arguments.repeats}",
        packages=("torch", "nvidia-cuda-cupti", "numpy", "polars"),
    )
    for key, metric in metrics.items():
        print(f"{key:28} {metric.value:.6g} {metric.unit}")


if __name__ == "__main__":
    main()
