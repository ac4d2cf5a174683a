"""One vLLM engine that serves batches on demand, for ``bench_overhead.py``: JSON lines in on fd 3, out on fd 4.

Requests: ``{"op": "run", "batch": n, "input_len": n, "output_len": n}`` answers ``{"tpot_s": …, "wall_s": …}``, where
TPOT is the mean over the batch of (last - first token) / (tokens - 1) by the engine core's own clock;
``{"op": "profile", "on": bool}`` starts or stops the profiler that the engine was started with, and ``{"op": "quit"}``
ends it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any


def main() -> None:
    """Start the engine, say so, and serve requests until told to quit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kv-cache-gib", type=float, default=9.0)
    parser.add_argument("--max-batch", type=int, default=128)
    parser.add_argument("--plugin", action="store_true", help="our worker and scheduler classes")
    parser.add_argument("--profiler", choices=("torch", "proton"))
    parser.add_argument("--profile-folder", default="/tmp/qmeter-profiles")
    arguments = parser.parse_args()
    with os.fdopen(3) as requests, os.fdopen(4, "w") as answers:
        engine = _engine(arguments)
        _say(answers, {"ready": True})
        for line in requests:
            request = json.loads(line)
            if request["op"] == "quit":
                break
            _say(answers, _serve(engine, arguments.profiler, request))


def _say(answers: Any, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _engine(arguments: argparse.Namespace) -> Any:
    from vllm import LLM

    options: dict[str, Any] = {}
    if arguments.plugin:
        options["worker_cls"] = "qmeter_native.engines.vllm.worker.QmeterWorker"
        options["scheduler_cls"] = "qmeter_native.engines.vllm.scheduler.QmeterScheduler"
    if arguments.profiler == "proton":
        options["worker_cls"] = "tools.overhead_peers.ProtonWorker"
    if arguments.profiler == "torch":
        options["profiler_config"] = {
            "profiler": "torch",
            "torch_profiler_dir": arguments.profile_folder,
            "torch_profiler_with_stack": False,
            "torch_profiler_dump_cuda_time_total": False,
            "ignore_frontend": True,
        }
    return LLM(
        model=arguments.model,
        load_format="dummy",
        skip_tokenizer_init=True,
        max_model_len=2048,
        max_num_seqs=arguments.max_batch,
        gpu_memory_utilization=0.1,
        kv_cache_memory_bytes=int(arguments.kv_cache_gib * 2**30),
        enable_prefix_caching=False,
        disable_log_stats=False,
        compilation_config={"cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 128]},
        **options,
    )


def _serve(engine: Any, profiler: str | None, request: dict[str, Any]) -> dict[str, Any]:
    if request["op"] == "profile":
        return _profile(engine, profiler, request["on"])
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=request["output_len"], ignore_eos=True, detokenize=False, temperature=0.0)
    prompts = [
        {
            "prompt_token_ids": [
                1000 + (index * 7919 + position * 31) % 20000 for position in range(request["input_len"])
            ]
        }
        for index in range(request["batch"])
    ]
    begin = time.monotonic()
    outputs = engine.generate(prompts, parameters, use_tqdm=False)
    wall_s = time.monotonic() - begin
    spans = [output.metrics.last_token_ts - output.metrics.first_token_ts for output in outputs]
    return {"tpot_s": sum(spans) / len(spans) / (request["output_len"] - 1), "wall_s": wall_s}


def _profile(engine: Any, profiler: str | None, is_on: bool) -> dict[str, Any]:
    begin = time.monotonic()
    if profiler == "torch":
        engine.start_profile() if is_on else engine.stop_profile()
    else:
        engine.collective_rpc("proton_activate" if is_on else "proton_deactivate")
    return {"took_s": time.monotonic() - begin}


if __name__ == "__main__":
    main()
