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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.capture.control import CONTROL_FILE, ControlBlock, DutyCycle  # noqa: E402
from qmeter_native.capture.launch_environment import traced_environment  # noqa: E402
from qmeter_native.capture.no_tracing import record_no_tracing  # noqa: E402
from qmeter_native.capture.session import Session, SessionOptions  # noqa: E402
from qmeter_native.engines.model_shapes import shape_of  # noqa: E402
from qmeter_native.storage.schema import SPOOL_FOLDER  # noqa: E402
from tools.results import Metric, write_result  # noqa: E402

MODEL: Final = "llama-3.1-8b"
DUTY: Final = DutyCycle(0.05, 0.5)
"""A tenth, in periods so short that a run of two seconds sees several; runs begin at a random moment of a period."""
T_95: Final = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
"""Two-sided 95 % quantiles of Student's t by degrees of freedom from 1; beyond them the normal one plus 2.5 / n."""


@dataclass(frozen=True, slots=True)
class Load:
    """One run: ``batch`` requests at once."""

    batch: int
    input_len: int
    output_len: int


class Engine:
    """A vLLM engine in a process of its own."""

    def __init__(self, name: str, model: Path, environment: dict[str, str], *switches: str) -> None:
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        command = f'exec "$0" "$@" 3<&{requests} 4>&{answers}'
        server = [sys.executable, str(ROOT / "tools" / "overhead_server.py"), "--model", str(model), *switches]
        self.name = name
        self.log = Path(tempfile.gettempdir()) / f"qmeter-overhead-{name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", command, *server],
                env=environment,
                pass_fds=(requests, answers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(requests)
        os.close(answers)
        self._in = os.fdopen(self._answers)
        self._out = os.fdopen(self._requests, "w")

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        line = self._in.readline()
        if not line:
            raise SystemExit(f"engine {self.name} died; the end of its log:\n{self.log.read_text()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self._out.write(json.dumps(request) + "\n")
        self._out.flush()
        return self.answer()

    def run(self, load: Load) -> float:
        """Serve a load; mean TPOT in seconds."""
        answer = self.ask(op="run", batch=load.batch, input_len=load.input_len, output_len=load.output_len)
        return float(answer["tpot_s"])

    def close(self) -> None:
        """Let the engine end."""
        try:
            self._out.write('{"op": "quit"}\n')
            self._out.flush()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()


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
    quantile = T_95[count - 2] if count - 2 < len(T_95) else 1.96 + 2.5 / count
    half = quantile * statistics.stdev(ratios) / math.sqrt(count)
    return Metric(mean, "1", mean - half, mean + half, count)


def write_model(folder: Path) -> Path:
    """A folder with the ``config.json`` of the shape: weights are vLLM's dummies, since only time is measured."""
    config = {"architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", **shape_of(MODEL).config}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def nothing() -> None:
    """Before and after a run that needs no switch."""


def measure_ours(arguments: argparse.Namespace, model: Path, folder: Path) -> dict[str, Metric]:
    """Our modes against ``base``, and how many kernels were recorded and lost meanwhile."""
    path = folder / "overhead.qmt"
    session = Session(path, SessionOptions(device="cuda", kernels=False))
    record_no_tracing(session.spool, session.state.start_ns)
    control = ControlBlock(path / SPOOL_FOLDER / CONTROL_FILE)
    random.seed(0)
    plain = dict(os.environ)
    traced_env = traced_environment(plain, path, kernels=True)
    engines = {
        "base": Engine("base", model, plain),
        "base2": Engine("base2", model, plain),
        "traced": Engine("traced", model, traced_env, "--plugin"),
        "energy": Engine("energy", model, traced_environment(plain, path, kernels=False), "--plugin"),
    }
    for engine in engines.values():
        engine.answer()
    base, base2, traced, energy = engines.values()

    def switch(action: Callable[[], None]) -> Callable[[], None]:
        def after_a_while() -> None:
            action()
            time.sleep(0.15)  # the library looks every 20 ms, and CUPTI takes a few ms

        return after_a_while

    on, off = switch(control.run), switch(control.stop)

    def duty() -> None:
        control.cycle(DUTY)
        time.sleep(0.15 + random.uniform(0, DUTY.period_s))

    metrics: dict[str, Metric] = {}
    for batch in arguments.batches:
        load = Load(batch, arguments.input_len, arguments.output_len)
        modes: list[Mode] = [("base", base, nothing, nothing), ("full", traced, on, off)]
        if batch == arguments.detailed_batch:
            modes += [
                ("base2", base2, nothing, nothing),
                ("energy", energy, nothing, nothing),
                ("duty10", traced, duty, off),
                ("stopped", traced, off, nothing),
            ]
        cycles(modes, load, 1)  # warm-up
        count = arguments.detailed_cycles if batch == arguments.detailed_batch else arguments.cycles
        found = cycles(modes, load, count)
        metrics[f"base_tpot_b{batch}"] = Metric.of_repeats(found["base"], "s")
        metrics[f"tpot_overhead_b{batch}"] = overhead(found["full"], found["base"])
        if batch == arguments.detailed_batch:
            metrics[f"duty10_overhead_b{batch}"] = overhead(found["duty10"], found["base"])
            metrics[f"energy_only_overhead_b{batch}"] = overhead(found["energy"], found["base"])
            metrics[f"residual_after_stop_b{batch}"] = overhead(found["stopped"], found["base"])
            metrics[f"two_baselines_differ_b{batch}"] = overhead(found["base2"], found["base"])
        print({key: f"{100 * metric.value:.2f} %" for key, metric in metrics.items()}, file=sys.stderr, flush=True)
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
    batch = arguments.detailed_batch
    load = Load(batch, arguments.input_len, arguments.output_len)
    for peer in peers:

        def switch(is_on: bool, engine: Engine = peer) -> Callable[[], None]:
            return lambda: print(engine.name, is_on, engine.ask(op="profile", on=is_on), file=sys.stderr, flush=True)

        modes: list[Mode] = [("base", base, nothing, nothing), (peer.name, peer, switch(True), switch(False))]
        cycles(modes, load, 1)
        found = cycles(modes, load, arguments.peer_cycles)
        name = {"torch": "torch_profiler"}.get(peer.name, peer.name)
        keep({f"{name}_overhead_b{batch}": overhead(found[peer.name], found["base"])})
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
