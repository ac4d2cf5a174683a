"""What tracing costs a vLLM server, on a CUDA GPU: ``overhead-h200.json``.

    python tools/bench_overhead.py --out docs/results --cycles 12

Engines run side by side on one GPU, one of them busy at a time: ``base`` and ``base2`` were never injected (their
difference is what two processes differ by anyway), ``traced`` has the injected library and our worker class, ``energy``
our worker class alone. A cycle runs each mode once, the next in the opposite order (ABBA), so that drift cancels. A
figure is the mean over cycles of mode / base - 1 of that cycle, with its 95 % interval. Every mode is the product as
users get it: ``full`` and ``duty10`` record kernels, step markers and steps, and sample energy; ``stopped`` is the same
engine after tracing was switched off; ``energy`` records steps and samples energy. ``torch`` and ``proton`` are peers
in engines of their own.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.attribution.student_t import t_quantile_975  # noqa: E402
from qmeter_native.capture.control import CONTROL_FILE, ControlBlock, DutyCycle  # noqa: E402
from qmeter_native.capture.launch_environment import traced_environment  # noqa: E402
from qmeter_native.capture.no_tracing import record_no_tracing  # noqa: E402
from qmeter_native.capture.session import Session, SessionOptions  # noqa: E402
from qmeter_native.engines.model_shapes import shape_of  # noqa: E402
from qmeter_native.storage.schema import SPOOL_FOLDER  # noqa: E402
from tools.overhead_engine import Engine, Load  # noqa: E402
from tools.results import Metric, write_result  # noqa: E402

MODEL: Final = "llama-3.1-8b"
DUTY: Final = DutyCycle(0.05, 0.5)
"""A tenth, in periods so short that a run of two seconds sees several; runs begin at a random moment of a period."""
OVERHEADS: Final = {
    "full": "tpot_overhead",
    "duty10": "duty10_overhead",
    "energy": "energy_only_overhead",
    "stopped": "residual_after_stop",
    "base2": "two_baselines_differ",
    "torch": "torch_profiler_overhead",
    "proton": "proton_overhead",
}
"""The metric that each mode's overhead is, without its batch size."""
SETTLE_S: Final = 0.15
"""After a switch: the library looks every 20 ms, and CUPTI takes a few ms."""
MIN_CYCLES: Final = 5
"""Fewer say too little for an interval."""


Mode = tuple[str, Engine, Callable[[], None], Callable[[], None]]
"""Name, engine, what to do before a run, what after."""


def cycles(modes: Sequence[Mode], load: Load, count: int) -> dict[str, list[float]]:
    """TPOT of each mode in each cycle; every other cycle in the opposite order."""
    found: dict[str, list[float]] = {name: [] for name, *_ in modes}
    for cycle in range(count):
        for name, engine, before, after in modes if cycle % 2 == 0 else list(reversed(modes)):
            before()
            found[name].append(engine.run(load))
            after()
    return found


def overhead(mode: Sequence[float], base: Sequence[float]) -> Metric:
    """Mean of the paired ratios less one, with its 95 % interval."""
    ratios = [one / other - 1 for one, other in zip(mode, base, strict=True)]
    count = len(ratios)
    mean = statistics.fmean(ratios)
    half = t_quantile_975(count - 1) * statistics.stdev(ratios) / math.sqrt(count)
    return Metric(mean, "1", mean - half, mean + half, count)


def overheads(modes: Sequence[Mode], load: Load, count: int) -> dict[str, Metric]:
    """What each mode takes more than ``base``, by the metric's name, and the TPOT of ``base`` itself."""
    cycles(modes, load, 1)  # warm-up
    found = cycles(modes, load, count)
    metrics = {f"base_tpot_b{load.batch}": Metric.of_repeats(found["base"], "s")}
    for name, tpot_s in found.items():
        if name != "base":
            metrics[f"{OVERHEADS[name]}_b{load.batch}"] = overhead(tpot_s, found["base"])
    print({key: f"{metric.value:.5f} {metric.unit}" for key, metric in metrics.items()}, file=sys.stderr, flush=True)
    return metrics


def write_model(folder: Path) -> Path:
    """A folder with the ``config.json`` of the shape: weights are vLLM's dummies, since only time is measured."""
    config = {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", **shape_of(MODEL).config}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def nothing() -> None:
    """Before and after a run that needs no switch."""


def our_engines(model: Path, capture: Path) -> dict[str, Engine]:
    """The engines of our modes, ready."""
    plain = dict(os.environ)
    engines = {
        "base": Engine("base", model, plain),
        "base2": Engine("base2", model, plain),
        "traced": Engine("traced", model, traced_environment(plain, capture, kernels=True), "--plugin"),
        "energy": Engine("energy", model, traced_environment(plain, capture, kernels=False), "--plugin"),
    }
    for engine in engines.values():
        engine.answer()
    return engines


def our_modes(engines: Mapping[str, Engine], control: ControlBlock, is_detailed: bool) -> list[Mode]:
    """Baseline and full tracing; in detail also the others."""

    def on() -> None:
        control.run()
        time.sleep(SETTLE_S)

    def off() -> None:
        control.stop()
        time.sleep(SETTLE_S)

    def duty() -> None:
        control.cycle(DUTY)
        time.sleep(SETTLE_S + random.uniform(0, DUTY.period_s))

    modes: list[Mode] = [("base", engines["base"], nothing, nothing), ("full", engines["traced"], on, off)]
    if is_detailed:
        modes += [
            ("base2", engines["base2"], nothing, nothing),
            ("energy", engines["energy"], nothing, nothing),
            ("duty10", engines["traced"], duty, off),
            ("stopped", engines["traced"], off, nothing),
        ]
    return modes


def measure_ours(arguments: argparse.Namespace, model: Path, folder: Path) -> dict[str, Metric]:
    """Our modes against ``base``, and how many kernels were recorded and lost meanwhile."""
    path = folder / "overhead.qmt"
    session = Session(path, SessionOptions(device="cuda", kernels=False))
    record_no_tracing(session.spool, session.state.start_ns)
    control = ControlBlock(path / SPOOL_FOLDER / CONTROL_FILE)
    random.seed(0)
    engines = our_engines(model, path)
    metrics: dict[str, Metric] = {}
    for batch in arguments.batches:
        is_detailed = batch == arguments.detailed_batch
        load = Load(batch, arguments.input_len, arguments.output_len)
        count = arguments.detailed_cycles if is_detailed else arguments.cycles
        metrics.update(overheads(our_modes(engines, control, is_detailed), load, count))
    for engine in engines.values():
        engine.close()
    capture = session.close()
    metrics["num_kernels"] = Metric(len(capture.kernels), "1")
    metrics["num_lost"] = Metric(capture.manifest.loss.total, "1")
    metrics["num_missed_samples"] = Metric(capture.manifest.loss.missed_samples, "1")
    return metrics


def measure_peers(arguments: argparse.Namespace, model: Path, keep: Callable[[dict[str, Metric]], None]) -> None:
    """Each peer, in an engine of its own, against one that nobody profiles; ``keep`` gets each figure at once."""
    plain = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    base = Engine("base", model, plain)
    peers = [Engine(peer, model, plain, "--profiler", peer) for peer in arguments.peers]
    for engine in (base, *peers):
        engine.answer()
    load = Load(arguments.detailed_batch, arguments.input_len, arguments.output_len)
    for peer in peers:

        def switch(is_on: bool, engine: Engine = peer) -> Callable[[], None]:
            return lambda: print(engine.name, is_on, engine.ask(op="profile", on=is_on), file=sys.stderr, flush=True)

        modes: list[Mode] = [("base", base, nothing, nothing), (peer.name, peer, switch(True), switch(False))]
        found = overheads(modes, load, arguments.peer_cycles)
        keep({key: metric for key, metric in found.items() if not key.startswith("base_")})  # ours has that already
    for engine in (base, *peers):
        engine.close()


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--name", default="overhead-h200")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 128, 32])
    parser.add_argument("--detailed-batch", type=int, default=32)
    parser.add_argument("--input-len", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=320)
    parser.add_argument("--cycles", type=int, default=12)
    parser.add_argument("--detailed-cycles", type=int, default=20)
    parser.add_argument("--peer-cycles", type=int, default=8)
    parser.add_argument("--peers", nargs="*", default=["torch", "proton"])
    parser.add_argument("--merge", action="store_true", help="keep the metrics of an existing result file")
    arguments = parser.parse_args()
    if min(arguments.cycles, arguments.detailed_cycles, arguments.peer_cycles) < MIN_CYCLES:
        parser.error(f"an interval needs {MIN_CYCLES} cycles at least")
    folder = Path(tempfile.mkdtemp(prefix="qmeter-overhead-"))
    result = arguments.out / f"{arguments.name}.json"
    metrics: dict[str, Metric] = {}
    if arguments.merge and result.exists():
        metrics = {key: Metric(**value) for key, value in json.loads(result.read_text())["metrics"].items()}
    model = write_model(folder / "model")
    command = "python tools/bench_overhead.py " + " ".join(sys.argv[1:])
    try:
        if arguments.batches:
            metrics.update(measure_ours(arguments, model, folder))
        _write(result, metrics, command)
        if arguments.peers:

            def keep(found: dict[str, Metric]) -> None:
                metrics.update(found)
                _write(result, metrics, command)

            measure_peers(arguments, model, keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, metrics: dict[str, Metric], command: str) -> None:
    import torch

    write_result(
        path,
        path.stem,
        metrics,
        device=torch.cuda.get_device_name(0),
        command=command,
        packages=("torch", "triton", "vllm"),
    )


if __name__ == "__main__":
    main()
