"""Which kernels vLLM really runs for each quantization method: ``methods-observed-h200.json``.

    python tools/observe_methods.py --captures /tmp/methods --budget 1500
    python tools/observe_methods.py --captures /tmp/methods --only fp8-block kv4 --again
    python tools/observe_methods.py --captures /tmp/methods --analyse
    python tools/observe_methods.py --dry-run

For each method that vLLM serves on this GPU it writes a checkpoint of two layers of an 8B model with random codes,
starts a server without CUDA graphs, asks a little of it, and compares whose kernels ran with those that the registry
says. The result is written after each method; the next run goes on with those that it has not. ``--dry-run`` says what
would be done, on any machine.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from qmeter_native.engines.vllm.command import serve_command, vllm_program  # noqa: E402
from qmeter_native.errors import MissingExtraError, QmeterError  # noqa: E402
from qmeter_native.quantization.method import Method  # noqa: E402
from qmeter_native.quantization.method_listing import architecture_of  # noqa: E402
from qmeter_native.quantization.methods import METHODS, method_named  # noqa: E402
from tools.observed_kernels import Observation, observation, refused  # noqa: E402
from tools.pm_sampling import fresh  # noqa: E402
from tools.results import Metric, write_result  # noqa: E402

SHAPE: Final = "shape:llama-3.1-8b"
_LAYERS: Final = 2
_VOCABULARY: Final = 32_000
"""Less than the model's 128256: the embedding is not what is looked at."""
_PORT: Final = 8000
_STARTUP_S: Final = 300.0
_H200: Final = (9, 0)
NOTES: Final = (
    "Two layers, eager, 8 requests of 256 tokens with 32 answered: prefill and decode of 1 to 2048 tokens.",
    "observed: whose matrix products ran, with their share of the products' time, the LM head's among them.",
    "is_as_expected: one of the expected ran, and beside them only plain products (cuBLAS, PyTorch); likewise attention"
    " where the method decides it.",
)


def served(only: Sequence[str] | None = None) -> list[Method]:
    """The methods that vLLM serves, or those of them that are named."""
    chosen = METHODS.values() if only is None else map(method_named, only)
    return [method for method in chosen if method.vllm is not None]


def server_command(method: Method, folder: Path) -> list[str]:
    """How vLLM is started for a checkpoint of the method."""
    assert method.vllm is not None
    return serve_command(
        str(folder),
        dtype=method.vllm.dtype or "bfloat16",
        max_model_len=1024,
        port=_PORT,
        cuda_graphs=False,
        extra_args=[*method.vllm.flags, "--max-num-seqs", "8", "--gpu-memory-utilization", "0.4"],
    )


def write_layers(method: Method, folder: Path) -> None:
    """Write the method's checkpoint of two layers, if it is not there."""
    import torch

    from qmeter_native.engines.model_source import resolve_model
    from qmeter_native.quantization.checkpoint_process import write_in_a_process

    if folder.is_dir():
        return
    config = resolve_model(SHAPE).config
    config.num_hidden_layers, config.vocab_size = _LAYERS, _VOCABULARY
    config.bos_token_id, config.eos_token_id = 1, 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": device, "seed": 0}
    write_in_a_process(folder, config, method, progress=lambda done, total: None, **options)


def record(method: Method, path: Path) -> None:
    """Leave a capture of a served method.

    Raises:
        QmeterError: The checkpoint cannot be written, or the server did not do what was asked of it.
    """
    from qmeter_native.capture.launch import LaunchOptions, launch
    from qmeter_native.capture.server_load import ServerLoad
    from qmeter_native.capture.session import SessionOptions
    from qmeter_native.engines.vllm.command import with_plugin
    from qmeter_native.model.manifest import EngineInfo
    from qmeter_native.quantization.checkpoint_writer import WEIGHTS_SOURCE
    from qmeter_native.workload.workload import Workload

    folder = path.parent / f"{method.name}-checkpoint"
    write_layers(method, folder)
    command, reason = with_plugin(server_command(method, folder))
    workload = Workload(num_requests=8, input_len=256, output_len=32)
    options = LaunchOptions(
        command=tuple(command),
        session=SessionOptions(device="cuda"),
        load=ServerLoad(f"http://localhost:{_PORT}", workload, _STARTUP_S),
        engine=EngineInfo("vllm", "", SHAPE, {"quantization": method.name}, {}, WEIGHTS_SOURCE),
        idle_s=0.5,
        log=True,
        notes=() if reason is None else (("no_plugin", reason),),
    )
    result = launch(fresh(path), options)
    if result.failure is not None:
        raise result.failure


def observe(method: Method, path: Path, is_recorded: bool) -> tuple[Observation, str]:
    """What a method does, and on which GPU: served now, or as a capture has it."""
    from qmeter_native.attribution.report import attribute
    from qmeter_native.benchmark.gpu import find_capability
    from qmeter_native.storage.reader import read_capture

    if not is_recorded:
        name, capability = find_capability() or ("no GPU", _H200)
        try:
            record(method, path)
        except QmeterError as error:
            return refused(method, architecture_of(capability) or "unknown", error.what), name
    capture = read_capture(path)
    device = capture.manifest.devices[0]
    major, _, minor = str(device.properties.get("compute_capability", "9.0")).partition(".")
    architecture = architecture_of((int(major), int(minor or 0))) or "unknown"
    return observation(method, architecture, attribute(capture, method.name)), device.name


def earlier_rows(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of a result that is there, by method."""
    if not path.is_file():
        return {}
    return {row["method"]: row for row in json.loads(path.read_text(encoding="utf-8")).get("rows", [])}


def write(path: Path, rows: dict[str, dict[str, Any]], device: str) -> None:
    """Write the result as far as it goes, in the order of the registry."""
    ordered = [rows[name] for name in METHODS if name in rows]
    misses = [f"{row['method']}: {row['reason']}" for row in ordered if not row["is_as_expected"]]
    write_result(
        path,
        path.stem,
        {
            "num_methods": Metric(len(ordered), "1"),
            "num_observed_as_expected": Metric(len(ordered) - len(misses), "1"),
            "num_served": Metric(len(served()), "1"),
        },
        device=device,
        command="python tools/observe_methods.py " + shlex.join(sys.argv[1:]),
        packages=("torch", "vllm", "bitsandbytes", "nvidia-cuda-cupti"),
        rows=ordered,
        notes=[*NOTES, *(f"Miss: {miss}." for miss in misses)],
    )


def dry_run(methods: Sequence[Method], captures: Path) -> None:
    """Print what would be started, and what is expected of it on an H200."""
    architecture = architecture_of(_H200)
    for method in methods:
        assert method.vllm is not None
        assert architecture is not None
        found = refused(method, architecture, "dry run")
        expected = " or ".join(found.expected) or "a refusal"
        attention = f"; attention {' or '.join(found.expected_attention)}" if found.expected_attention else ""
        print(f"{method.name:16} expects {expected}{attention}")
        try:
            command = shlex.join(server_command(method, captures / f"{method.name}-checkpoint"))
        except MissingExtraError as error:
            command = f"{error.what}; flags: {' '.join(method.vllm.flags) or 'none'}"
        print(f"{'':16} {command}")


def main(words: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captures", type=Path, default=Path("methods-observed"), help="folder for captures")
    parser.add_argument("--out", type=Path, default=Path("docs/results/methods-observed-h200.json"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="methods  [default: all that vLLM serves]")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="begin no further method after this time")
    parser.add_argument("--again", action="store_true", help="methods too that the result has")
    parser.add_argument("--analyse", action="store_true", help="serve nothing: read the captures that are there")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    arguments = parser.parse_args(words)
    methods, begin = served(arguments.only), time.monotonic()
    if arguments.dry_run:
        dry_run(methods, arguments.captures)
        return
    if not arguments.analyse:
        vllm_program()  # else every method would be a miss
    arguments.captures.mkdir(parents=True, exist_ok=True)
    rows = earlier_rows(arguments.out)
    for method in methods:
        path = arguments.captures / f"{method.name}.qmt"
        is_done = not path.exists() if arguments.analyse else method.name in rows and not arguments.again
        if is_done:
            continue
        if arguments.budget is not None and time.monotonic() - begin > arguments.budget:
            print(f"{method.name} and what follows is left for the next run")
            break
        found, device = observe(method, path, arguments.analyse)
        rows[method.name] = found.to_dict()
        write(arguments.out, rows, device)
        print(f"{'✓' if found.is_as_expected else '✗'} {method.name:16} {found.reason or ', '.join(found.observed)}")


if __name__ == "__main__":
    main()
