"""The embedded engine on a CPU: every token is accounted for, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")

from qmeter_native.engines.model_source import BUILTIN_MODEL
from qmeter_native.engines.options import EngineOptions
from qmeter_native.engines.step_recorder import StepRecorder
from qmeter_native.engines.transformers_engine import TransformersEngine
from qmeter_native.errors import EngineError, UsageError
from qmeter_native.model.phase import Phase
from qmeter_native.workload.load_generator import LoadResult, run_workload, warm_up
from qmeter_native.workload.workload import Workload
from tests.engines import KeepingSink

# 40-token prompts and 64 tokens a step: prompts are cut in chunks, and prefill rides with decode.
WORKLOAD = Workload(num_requests=6, arrival="poisson", rate_hz=100.0, input_len=40, output_len=9)
OPTIONS = EngineOptions(
    "shape:tiny", device="cpu", max_concurrency=6, max_context_len=WORKLOAD.context_len, max_batch_tokens=64
)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[TransformersEngine, KeepingSink, LoadResult]]:
    sink = KeepingSink()
    with TransformersEngine(OPTIONS, sink) as engine:
        warm_up(engine, WORKLOAD)
        assert sink.steps == []
        yield engine, sink, run_workload(engine, WORKLOAD)


Served = tuple[TransformersEngine, KeepingSink, LoadResult]


def test_output_lengths_are_exact(served: Served) -> None:
    result = served[2]
    assert result.failure is None
    assert result.requests.is_finished.all()
    assert result.requests.num_output_tokens.tolist() == [WORKLOAD.output_len] * WORKLOAD.num_requests


def test_each_request_computes_its_prompt_and_all_but_its_last_token(served: Served) -> None:
    for request in range(WORKLOAD.num_requests):
        rows = served[1].rows_of(request)
        assert sum(row.num_scheduled for row in rows) == WORKLOAD.input_len + WORKLOAD.output_len - 1
        assert sum(row.num_sampled for row in rows) == WORKLOAD.output_len
        assert sum(row.num_scheduled for row in rows if row.phase is Phase.PREFILL) == WORKLOAD.input_len


def test_a_context_is_what_was_computed_before(served: Served) -> None:
    for request in range(WORKLOAD.num_requests):
        rows = served[1].rows_of(request)
        assert rows[0].context_len == 0
        for before, after in pairwise(rows):
            assert after.context_len == before.context_len + before.num_scheduled
        assert all(row.num_cached == 0 and row.num_draft == 0 for row in rows)


def test_steps_are_numbered_and_follow_each_other(served: Served) -> None:
    steps = served[1].steps
    assert [step.step for step in steps] == list(range(len(steps)))
    assert all(step.start_ns <= step.end_ns for step in steps)
    assert all(before.end_ns <= after.start_ns for before, after in pairwise(steps))
    assert all(step.num_markers == 0 for step in steps)


def test_no_step_has_more_tokens_than_asked_for(served: Served) -> None:
    assert max(sum(row.num_scheduled for row in step.requests) for step in served[1].steps) <= 64


def test_clients_get_a_token_after_the_step_that_sampled_it(served: Served) -> None:
    _, sink, result = served
    for request in range(WORKLOAD.num_requests):
        sampled = [
            step.end_ns for step in sink.steps for row in step.requests if row.request == request and row.num_sampled
        ]
        times = result.output_tokens.time_ns[result.output_tokens.request == request]
        assert len(sampled) == len(times)
        assert all(end_ns <= time_ns for end_ns, time_ns in zip(sampled, times, strict=True))


def test_the_engine_says_what_it_was_asked_for_and_what_it_runs_with(served: Served) -> None:
    info = served[0].info
    assert info.requested["attention"] == "auto"
    assert info.effective["attention"].endswith("sdpa")
    assert info.effective["dtype"] == "float32"
    assert info.effective["quantization"] is None
    assert info.effective["cuda_graphs"] == {"varlen": False, "decode": False}
    assert info.effective["max_batch_tokens"] == 64
    assert info.effective["num_blocks"] >= 6 * 2
    assert info.effective["architecture"]["num_hidden_layers"] == 2


def test_a_request_longer_than_the_room_for_it_is_refused(served: Served) -> None:
    with pytest.raises(EngineError, match="max_context_len"):
        served[0].submit(99, [5] * 48, 2)


def test_a_cancelled_request_does_not_stop_the_others(served: Served) -> None:
    engine = served[0]
    engine.submit(-10, [5] * 4, 40)
    engine.submit(-11, [6] * 4, 3)
    engine.cancel(-10)
    tokens = 0
    while tokens < 3:
        chunk = engine.receive(1.0)
        tokens += len(chunk.tokens) if chunk is not None and chunk.request == -11 else 0
    assert tokens == 3


def test_after_close_receive_and_submit_say_that_the_engine_has_stopped() -> None:
    engine = TransformersEngine(OPTIONS)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="stopped"):
        engine.receive(0.01)
    with pytest.raises(EngineError, match="no more requests"):
        engine.submit(0, [3, 4], 1)


def test_an_engine_that_fails_in_mid_run_says_why_and_keeps_what_was_served(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    forward, calls = LlamaForCausalLM.forward, []

    def failing_forward(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise RuntimeError("the device is lost")
        return forward(*args, **kwargs)

    with TransformersEngine(OPTIONS) as engine:
        monkeypatch.setattr(LlamaForCausalLM, "forward", failing_forward)
        result = run_workload(engine, Workload(num_requests=2, input_len=8, output_len=9))
    assert result.failure == "the device is lost"
    assert result.requests.num_output_tokens.tolist() == [3, 3]
    assert result.requests.error.tolist() == ["the device is lost"] * 2


def test_the_built_in_model_continues_source_code() -> None:
    prompt = b"    def __init__(self, name):\n        self.na"
    with TransformersEngine(
        EngineOptions(BUILTIN_MODEL, device="cpu", max_concurrency=1, max_context_len=64)
    ) as engine:
        engine.submit(0, list(prompt), 4)
        answer: list[int] = []
        while len(answer) < 4:
            chunk = engine.receive(1.0)
            answer += chunk.tokens if chunk is not None else ()
    assert bytes(answer).startswith(b"me =")


def test_prefix_caching_is_recorded_as_cached_tokens() -> None:
    sink = KeepingSink()
    options = EngineOptions(
        "shape:tiny", device="cpu", max_concurrency=1, max_context_len=80, page_size=16, prefix_caching=True
    )
    with TransformersEngine(options, sink) as engine:
        for request in (0, 1):
            engine.submit(request, list(range(10, 74)), 2)
            while (chunk := engine.receive(1.0)) is None or not chunk.is_finished:
                pass
    first, second = sink.rows_of(0), sink.rows_of(1)
    assert sum(row.num_cached for row in first) == 0
    assert sum(row.num_cached for row in second) >= 16
    assert sum(row.num_cached + row.num_scheduled for row in second) == 64 + 1


def test_a_model_with_fewer_positions_than_asked_for_is_refused() -> None:
    with pytest.raises(EngineError, match="1024 positions"):
        TransformersEngine(EngineOptions(BUILTIN_MODEL, max_context_len=2000))


def test_cuda_without_a_gpu_is_an_error_that_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError, match="no CUDA GPU"):
        TransformersEngine(EngineOptions("shape:tiny", device="cuda"))


def test_a_transformers_without_the_seam_is_named() -> None:
    with pytest.raises(EngineError, match=r"transformers .* scheduler\.schedule_batch"):
        StepRecorder(SimpleNamespace(scheduler=object()), KeepingSink(), int)


def test_flash_attention_that_is_not_here_is_an_error_that_names_its_package() -> None:
    with pytest.raises(EngineError, match="flash_attn"):
        TransformersEngine(EngineOptions("shape:tiny", device="cpu", attention="flash_attention_2"))


def test_a_cache_too_small_for_one_request_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot hold one request"):
        TransformersEngine(EngineOptions("shape:tiny", device="cpu", max_context_len=48, page_size=16, num_blocks=2))


@pytest.mark.parametrize(
    "fields", [{"device": "tpu"}, {"dtype": "int8"}, {"attention": "fast"}, {"num_blocks": 0}, {"compile_level": 4}]
)
def test_options_that_make_no_sense_are_a_usage_error(fields: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        EngineOptions("shape:tiny", **fields)  # type: ignore[arg-type]
