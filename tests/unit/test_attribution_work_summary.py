"""The work model applied to captures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qmeter_native.attribution.report import attribute
from qmeter_native.engines.model_shapes import shape_of
from qmeter_native.model.manifest import EngineInfo
from qmeter_native.model.phase import Phase
from qmeter_native.model.work import WorkRow, WorkSummary
from qmeter_native.storage.reader import read_capture
from tests.decoders import CUBLAS, FLASH_3, MACHETE, PREPARE, Decoder, Run
from tests.factories import CaptureBuilder

FIXTURE = Path(__file__).parents[1] / "data" / "h200-llama-3.1-8b.qmt"
LLAMA = {**shape_of("llama-3.1-8b").config, "num_hidden_layers": 3}
STEP = [name for name, _, _ in Decoder().step()]


def engine(**effective: Any) -> EngineInfo:
    return EngineInfo("vllm", "0.26.0", "llama", {}, {"hf_config": LLAMA, "dtype": "bfloat16", **effective})


def summary(run: Run, info: EngineInfo | None = None) -> WorkSummary:
    work = attribute(run.capture(engine() if info is None else info), "run").work
    assert work is not None
    return work


def row(work: WorkSummary, role: str) -> WorkRow:
    return next(row for row in work.rows if row.role == role)


def decoding(*steps: list[str], batch: int = 5, num_padded: int = -1) -> Run:
    run = Run()
    for number, names in enumerate(steps):
        run.step(names, num_padded=num_padded)
        for request in range(batch):
            run.builder.ride(number, request, context_len=100)
    return run


def test_work_adds_up_over_layers_and_steps() -> None:
    work = summary(decoding(STEP, STEP))
    down = row(work, "down_proj")
    assert (down.calls, down.num_layers) == (2 * 3, 3)
    assert down.flops == 2 * 3 * 5 * 2 * 4096 * 14336
    assert down.least_bytes == 2 * 3 * 2 * (4096 * 14336 + 5 * 14336 + 5 * 4096)
    assert down.time_s == pytest.approx(60e-9)
    assert down.flops_per_s == pytest.approx(down.flops / 60e-9)
    assert row(work, "lm_head").flops == 2 * 5 * 2 * 4096 * 128256
    assert row(work, "attention").flops == 2 * 3 * 4 * 5 * 101 * 4096


def test_the_lm_head_computes_a_row_for_each_draft_too() -> None:
    run = Run()
    run.step(STEP)
    run.builder.ride(0, 0, num_scheduled=4, num_draft=3, context_len=100)
    run.builder.ride(0, 1, Phase.PREFILL, num_scheduled=8, num_sampled=0)
    assert row(summary(run), "lm_head").flops == 4 * 2 * 4096 * 128256


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_compute_type_is_read_from_the_models_configuration_too(key: str) -> None:
    info = EngineInfo("vllm", "0.26.0", "llama", {}, {"hf_config": {**LLAMA, "torch_dtype": None, key: "float32"}})
    down = row(summary(decoding(STEP), info), "down_proj")
    assert down.least_bytes == 3 * 4 * (4096 * 14336 + 5 * 14336 + 5 * 4096)


def test_of_no_kernels_no_share_is_known() -> None:
    work = attribute(CaptureBuilder(1_000).build(), "empty").work
    assert work is not None
    assert (work.family_known, work.step_known, work.layer_known) == (None, None, None)


def test_all_time_is_in_rows_where_everything_is_known() -> None:
    work = summary(decoding(STEP, STEP))
    assert (work.family_known, work.step_known, work.layer_known) == (1.0, 1.0, 1.0)
    assert sum(row.time_share for row in work.rows) == pytest.approx(1.0)
    assert work.reason is None
    assert work.notes == ()


def test_rows_say_who_wrote_the_kernels() -> None:
    step = [name for name, _, _ in Decoder(qkv=(MACHETE,)).step()]
    work = summary(decoding(step))
    assert row(work, "qkv_proj").implementation == "Machete"
    assert row(work, "o_proj").implementation == "cuBLAS"
    assert row(work, "attention").implementation == "FlashAttention 3"


def test_padding_is_stated_apart() -> None:
    work = summary(decoding(STEP, num_padded=8))
    assert work.padding_share == 3 / 8
    assert row(work, "o_proj").flops == 3 * 5 * 2 * 4096 * 4096
    assert row(work, "o_proj").padding_flops == 3 * 3 * 2 * 4096 * 4096
    assert row(work, "lm_head").padding_flops == 0
    assert summary(decoding(STEP)).padding_share is None


def test_packed_weights_move_fewer_bytes() -> None:
    gptq = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    work = summary(decoding(STEP), engine(quantization="gptq", quantization_config=gptq))
    moved = row(work, "o_proj").least_bytes
    assert moved == 3 * (4096 * 4096 // 2 + 4096 * 32 * 2 + 2 * 5 * 4096 * 2)


def test_a_rank_does_its_part() -> None:
    work = summary(decoding(STEP), engine(tensor_parallel=2))
    assert row(work, "down_proj").flops == 3 * 5 * 2 * 4096 * 7168


def test_a_step_that_cannot_be_placed_is_told() -> None:
    odd = [name for name in STEP if name != FLASH_3]
    work = summary(decoding(STEP, odd))
    assert work.notes == ("1 steps are not placed: it has 0 groups of attention kernels, and the model 3 layers.",)
    assert row(work, "down_proj").calls == 3
    assert work.step_known == 1.0
    assert work.layer_known == pytest.approx(len(STEP) / (len(STEP) + len(odd)))


def test_an_unknown_format_leaves_bytes_out() -> None:
    work = summary(decoding(STEP), engine(quantization="torchao"))
    assert row(work, "o_proj").flops is not None
    assert {row.least_bytes for row in work.rows} == {None}
    assert work.notes == (
        "Least bytes are missing: the work model does not know the quantization 'torchao' with this configuration.",
    )


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (EngineInfo("vllm", "1", "x"), "the engine did not say which model it runs"),
        (engine(hf_config={"model_type": "mamba"}), "the work model does not know the architecture 'mamba'"),
        (
            engine(hf_config={**LLAMA, "model_type": "mixtral", "num_local_experts": 8}),
            "the work model does not place the kernels of a mixture of experts",
        ),
        (
            engine(hf_config={**LLAMA, "num_hidden_layers": 4}),
            "no step could be placed; of the most, it has 3 groups of attention kernels, and the model 4 layers",
        ),
    ],
)
def test_without_rows_there_is_a_reason(info: EngineInfo, reason: str) -> None:
    work = summary(decoding(STEP), info)
    assert work.rows == ()
    assert work.reason == reason
    assert work.layer_known == 0.0
    assert work.step_known == 1.0


def test_a_capture_without_steps_has_a_reason() -> None:
    work = attribute(CaptureBuilder(changes={"engine": engine()}).kernel(0, 10, CUBLAS).build(), "run").work
    assert work is not None
    assert work.reason == "no engine steps were recorded"
    assert work.step_known == 0.0


def test_an_eager_mixed_step_counts_prompts_and_decodes() -> None:
    mixed = [name for name, _, _ in Decoder(attention=(PREPARE, FLASH_3)).step()]
    run = Run().step(mixed)
    run.builder.ride(0, 0, Phase.PREFILL, num_scheduled=300, context_len=200, num_sampled=0)
    run.builder.ride(0, 1, context_len=99)
    work = summary(run)
    assert row(work, "attention").flops == 3 * 4 * 4096 * (300 * 200 + 300 * 301 // 2 + 100)
    assert row(work, "lm_head").flops == 2 * 4096 * 128256
    assert row(work, "o_proj").flops == 3 * 301 * 2 * 4096 * 4096


def test_a_recorded_run_stays_below_what_the_gpu_can() -> None:
    work = attribute(read_capture(FIXTURE), "h200").work
    assert work is not None
    assert min(work.family_known, work.step_known, work.layer_known) > 0.99
    for each in work.rows:
        assert (each.flops_per_s or 0) < 989e12, each.role  # bf16, dense, the datasheet's
        assert (each.bytes_per_s or 0) < 4.8e12, each.role
    head = row(work, "lm_head")
    assert head.bytes_per_s is not None
    assert head.bytes_per_s > 3e12
