"""Stands in for vLLM 0.26 where it is not installed: the classes that ours are made from, and the data they pass."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from qmeter_native import _native
from qmeter_native.capture import engine_recorder
from qmeter_native.storage.spool import SpoolContents, read_spool

VERSION = "0.26.0"
UUID = "12345678-0000-0000-0000-000000000000"
STREAM = 7
_OURS = tuple(f"qmeter_native.engines.vllm.{name}" for name in ("worker", "scheduler"))


@dataclass
class NewRequestData:
    req_id: str
    prompt_token_ids: list[int] | None
    num_computed_tokens: int = 0
    prefill_token_ids: list[int] | None = None
    prompt_embeds: Any = None


@dataclass
class CachedRequestData:
    req_ids: list[str] = field(default_factory=list)
    num_computed_tokens: list[int] = field(default_factory=list)
    num_output_tokens: list[int] = field(default_factory=list)
    resumed_req_ids: set[str] = field(default_factory=set)


@dataclass
class SchedulerOutput:
    scheduled_new_reqs: list[NewRequestData] = field(default_factory=list)
    scheduled_cached_reqs: CachedRequestData = field(default_factory=CachedRequestData)
    num_scheduled_tokens: dict[str, int] = field(default_factory=dict)
    scheduled_spec_decode_tokens: dict[str, list[int]] = field(default_factory=dict)
    finished_req_ids: set[str] = field(default_factory=set)
    preempted_req_ids: set[str] | None = None

    @property
    def total_num_scheduled_tokens(self) -> int:
        return sum(self.num_scheduled_tokens.values())


def new(name: str, prompt: int, scheduled: int, *, computed: int = 0, outputs: int = 0) -> SchedulerOutput:
    """A batch with one request that is new, or (with ``outputs``) resumed as model runner V2 gets it."""
    data = NewRequestData(name, [1] * prompt, computed, [1] * (prompt + outputs))
    return SchedulerOutput([data], num_scheduled_tokens={name: scheduled})


def cached(**requests: tuple[int, int]) -> SchedulerOutput:
    """A batch of requests that were scheduled before: ``name=(computed, scheduled)``."""
    computed = [each[0] for each in requests.values()]
    data = CachedRequestData(list(requests), computed, [1] * len(requests))
    return SchedulerOutput(
        scheduled_cached_reqs=data,
        num_scheduled_tokens={name: scheduled for name, (_, scheduled) in requests.items()},
    )


def batch(*parts: SchedulerOutput, **changes: Any) -> SchedulerOutput:
    """Several of the above in one batch."""
    lists = CachedRequestData()
    for part in parts:
        lists.req_ids += part.scheduled_cached_reqs.req_ids
        lists.num_computed_tokens += part.scheduled_cached_reqs.num_computed_tokens
        lists.num_output_tokens += part.scheduled_cached_reqs.num_output_tokens
    return SchedulerOutput(
        [data for part in parts for data in part.scheduled_new_reqs],
        lists,
        {name: number for part in parts for name, number in part.num_scheduled_tokens.items()},
        **changes,
    )


def vllm_config(**changes: Any) -> SimpleNamespace:
    """What ours read of ``VllmConfig``; ``scheduler_cls`` and ``async_scheduling`` may be changed, and the whole."""
    hf_config = SimpleNamespace(to_dict=lambda: {"hidden_size": 64, "quantization_config": {"quant_method": "gptq"}})
    scheduler = {"scheduler_cls": None, "async_scheduling": True, "max_num_batched_tokens": 8192}
    scheduler.update({key: changes.pop(key) for key in list(changes) if key in scheduler})
    values = {
        "model_config": SimpleNamespace(
            model="a/model", quantization="gptq_marlin", dtype="torch.bfloat16", hf_config=hf_config
        ),
        "cache_config": SimpleNamespace(cache_dtype="auto", block_size=16),
        "parallel_config": SimpleNamespace(
            tensor_parallel_size=1, data_parallel_size=1, data_parallel_index=0, world_size=1
        ),
        "scheduler_config": SimpleNamespace(**scheduler),
        "compilation_config": SimpleNamespace(
            cudagraph_mode=SimpleNamespace(name="FULL_AND_PIECEWISE"), cudagraph_capture_sizes=[1, 2, 4, 8]
        ),
        "load_config": SimpleNamespace(load_format="auto"),
        "use_v2_model_runner": True,
    }
    return SimpleNamespace(**{**values, **changes})


class MacheteLinearKernel:
    """Named as vLLM's."""


class GPTQMarlinLinearMethod:
    def __init__(self) -> None:
        self.kernel = MacheteLinearKernel()


class ModelRunner:
    """Model runner V2: between the two calls of a step it keeps the batch, padded to a graph's size."""

    def __init__(self, sizes: list[int]) -> None:
        self.execute_model_state: Any = None
        backend = SimpleNamespace(get_name=lambda: "FLASH_ATTN")
        self.attn_groups = [[SimpleNamespace(backend=backend)]]
        self._sizes = sizes

    def get_model(self) -> Any:
        layers = [SimpleNamespace(quant_method=GPTQMarlinLinearMethod()) for _ in range(3)]
        return SimpleNamespace(modules=lambda: [*layers, SimpleNamespace()])

    def execute(self, output: SchedulerOutput) -> None:
        total = output.total_num_scheduled_tokens
        padded = min((size for size in self._sizes if size >= total), default=total)
        self.execute_model_state = SimpleNamespace(input_batch=SimpleNamespace(num_tokens_after_padding=padded))


class Worker:
    """``vllm.v1.worker.gpu_worker.Worker``. ``calls`` tells what it was asked to do."""

    def __init__(self, config: Any = None, rank: int = 0) -> None:
        self.vllm_config = config or vllm_config()
        self.parallel_config = self.vllm_config.parallel_config
        self.rank = rank
        self.calls: list[str] = []

    def init_device(self) -> None:
        self.device = SimpleNamespace(type="cuda", index=1)
        self.model_runner = ModelRunner(self.vllm_config.compilation_config.cudagraph_capture_sizes)

    def compile_or_warm_up_model(self) -> str:
        self.execute_model(new("_warmup_", 2, 2))
        self.sample_tokens(None)
        return "times"

    def execute_model(self, scheduler_output: SchedulerOutput) -> Any:
        self.calls.append("execute_model")
        if scheduler_output.total_num_scheduled_tokens == 0:
            return "nothing to do"
        self.model_runner.execute(scheduler_output)
        return None

    def sample_tokens(self, grammar_output: Any) -> Any:
        self.calls.append("sample_tokens")
        self.model_runner.execute_model_state = None
        return "output"

    def shutdown(self) -> None:
        self.calls.append("shutdown")


@dataclass(eq=False)
class Request:
    request_id: str
    arrival_time: float
    num_prompt_tokens: int = 4
    num_output_tokens: int = 0
    reason: str | None = None

    def get_finished_reason(self) -> str | None:
        return self.reason


class Scheduler:
    """``vllm.v1.core.sched.scheduler.Scheduler``; the test decides by ``next_output`` what it schedules."""

    def __init__(self, *, vllm_config: Any) -> None:
        self.vllm_config = vllm_config
        self.requests: dict[str, Request] = {}
        self.finished_req_ids: set[str] = set()
        self.next_output = SchedulerOutput()
        self.is_shut_down = False

    def add_request(self, request: Request) -> None:
        self.requests.setdefault(request.request_id, request)

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        output, self.next_output = self.next_output, SchedulerOutput()
        output.finished_req_ids, self.finished_req_ids = self.finished_req_ids, set()
        return output

    def update_from_output(self, scheduler_output: SchedulerOutput, model_runner_output: dict[str, int]) -> str:
        """``model_runner_output``: new tokens by request; a negative number is its last ones."""
        for name, tokens in model_runner_output.items():
            self.requests[name].num_output_tokens += abs(tokens)
            if tokens < 0:
                self._finish(name, "length")
        return "outputs"

    def finish_requests(self, request_ids: str | Iterable[str] | None, finished_status: str) -> list[str]:
        names = [request_ids] if isinstance(request_ids, str) else list(request_ids or self.requests)
        for name in names:
            self._finish(name, finished_status)
        return names

    def shutdown(self) -> None:
        self.is_shut_down = True

    def _finish(self, name: str, reason: str) -> None:
        self.requests.pop(name).reason = reason
        self.finished_req_ids.add(name)


class AsyncScheduler(Scheduler):
    """``vllm.v1.core.sched.async_scheduler.AsyncScheduler``."""


class Native:
    """The extension, with markers that are noted instead of launched; from ``refused`` on they are refused."""

    Spool = _native.Spool
    NativeFault = _native.NativeFault

    def __init__(self, refused: int | None = None) -> None:
        self.markers: list[tuple[int, int]] = []
        self._refused = refused

    def StepMarker(self) -> SimpleNamespace:
        return SimpleNamespace(launch=self._launch)

    def _launch(self, stream: int, sequence: int) -> None:
        if self._refused is not None and sequence >= self._refused:
            raise _native.NativeFault("cuLaunchKernel failed", "invalid")
        self.markers.append((stream, sequence))


def install(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    version: str = VERSION,
    is_injected: bool = True,
    refused_marker: int | None = None,
) -> SimpleNamespace:
    """Make the stubs importable as vLLM and torch, import our modules anew on top of them, and record to ``folder``.

    Returns:
        ``worker`` and ``scheduler``, our modules, and ``markers``: stream and number of each launched marker.
    """
    native = Native(refused_marker)
    monkeypatch.setattr(engine_recorder, "load_native", lambda: native)
    monkeypatch.setattr(engine_recorder, "_current", None)
    monkeypatch.setenv("QMETER_SPOOL_DIR", str(folder))
    if is_injected:
        monkeypatch.setenv("CUDA_INJECTION64_PATH", "/libqmeter_inject.so")
    else:
        monkeypatch.delenv("CUDA_INJECTION64_PATH", raising=False)
    modules: dict[str, dict[str, Any]] = {
        "vllm": {"__version__": version},
        "vllm.v1": {},
        "vllm.v1.worker": {},
        "vllm.v1.worker.gpu_worker": {"Worker": Worker},
        "vllm.v1.core": {},
        "vllm.v1.core.sched": {},
        "vllm.v1.core.sched.scheduler": {"Scheduler": Scheduler},
        "vllm.v1.core.sched.async_scheduler": {"AsyncScheduler": AsyncScheduler},
        "torch": {
            "cuda": SimpleNamespace(
                current_stream=lambda device: SimpleNamespace(cuda_stream=STREAM),
                get_device_properties=lambda device: SimpleNamespace(uuid=UUID),
                is_initialized=lambda: True,
            )
        },
    }
    for name, attributes in modules.items():
        module = ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    for name in _OURS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    worker, scheduler = (importlib.import_module(name) for name in _OURS)
    for name in _OURS:  # nobody else may find what was built on stubs
        monkeypatch.delitem(sys.modules, name)
    return SimpleNamespace(worker=worker, scheduler=scheduler, markers=native.markers)


def spool(folder: Path) -> SpoolContents:
    """The one spool that was written to ``folder``."""
    (path,) = folder.iterdir()
    return read_spool(path)


def notes(contents: SpoolContents) -> list[str]:
    """Codes of the validity entries in a spool."""
    return [entry["code"] for entry in contents.stats["engine"]["validity"]]
