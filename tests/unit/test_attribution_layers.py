"""Kernels find their layer and role by the order in which they ran."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qmeter_native.attribution.classify import op_family
from qmeter_native.attribution.layers import KernelPlaces, kernel_places, layer_agreement
from qmeter_native.attribution.steps import kernel_steps, step_spans
from qmeter_native.model.capture import Capture
from qmeter_native.model.op_family import OpFamily
from qmeter_native.storage.reader import read_capture
from qmeter_native.work.role import UNKNOWN_ROLE, Role
from tests.decoders import (
    ADD_NORM,
    ALL_REDUCE,
    CLEAR_COUNTER,
    COMBINE,
    CUBLAS,
    CUBLAS_FP8,
    FLASH_3,
    FP8_GEMM,
    FP8_QUANT,
    INPUTS,
    MACHETE,
    NAMELESS_ROPE,
    NEIGHBOURS_FIRST_NORM,
    NEIGHBOURS_NORM,
    NEIGHBOURS_SILU,
    PREPARE,
    SPLIT_K,
    SPLIT_K_REDUCE,
    Decoder,
    Run,
)

DATA = Path(__file__).parents[1] / "data"
FIXTURE = DATA / "h200-llama-3.1-8b.qmt"

COMPILED: dict[str, Any] = {
    "first_norm": (NEIGHBOURS_FIRST_NORM,),
    "rope": (NAMELESS_ROPE,),
    "activation": (NEIGHBOURS_SILU,),
    "norm": (NEIGHBOURS_NORM,),
}
"""As vLLM 0.26 compiles a decoder around Machete: Inductor names its kernels after the products beside them."""

DECODERS = {
    "Machete, decode": Decoder(
        **COMPILED,
        qkv=("Memset", MACHETE),
        attention=(FLASH_3, COMBINE),
        output=("Memset", MACHETE),
        gate_up=(MACHETE,),
        down=("Memset", MACHETE),
    ),
    "Machete, prefill and decode": Decoder(
        **COMPILED,
        qkv=(MACHETE,),
        attention=(FLASH_3, CLEAR_COUNTER),
        output=("Memset", MACHETE),
        gate_up=("Memset", MACHETE),
        down=(MACHETE,),
        opening=("Memcpy HtoD", CLEAR_COUNTER, *INPUTS, PREPARE, CLEAR_COUNTER),
    ),
    "cuBLAS FP8, quantized by what comes before": Decoder(
        first_norm=("triton_red_fused__to_copy_embedding_rms_norm_static_scaled_fp8_quant_scaled_mm_0",),
        norm=("triton_red_fused_fused_add_rms_norm_static_scaled_fp8_quant_scaled_mm_2",),
        qkv=(CUBLAS_FP8,),
        output=("triton_poi_fused_static_scaled_fp8_quant_0", CUBLAS_FP8),
        gate_up=(CUBLAS_FP8,),
        activation=("triton_poi_fused_mul_scaled_mm_silu_slice_static_scaled_fp8_quant_1",),
        down=(CUBLAS_FP8,),
    ),
    "full graph": Decoder(),
    "piecewise, eager attention with a plan in each layer": Decoder(attention=(PREPARE, FLASH_3), opening=INPUTS),
    "split KV": Decoder(attention=(FLASH_3, COMBINE)),
    "prefill and decode apart, then merged": Decoder(attention=(FLASH_3, FLASH_3, "merge_attn_states_kernel")),
    "FP8, quantized before each product": Decoder(
        qkv=(FP8_QUANT, FP8_GEMM),
        output=(FP8_QUANT, FP8_GEMM),
        gate_up=(FP8_QUANT, FP8_GEMM),
        down=(FP8_QUANT, FP8_GEMM),
    ),
    "Machete with an order of groups": Decoder(
        qkv=("permute_cols_kernel(int4 const*)", MACHETE), output=(MACHETE,), gate_up=(MACHETE,), down=(MACHETE,)
    ),
    "split K": Decoder(qkv=(SPLIT_K, SPLIT_K_REDUCE), down=("Memset", SPLIT_K, SPLIT_K_REDUCE)),
    "tensor parallel": Decoder(output=(CUBLAS, ALL_REDUCE), down=(CUBLAS, ALL_REDUCE)),
    "no cache write of its own": Decoder(cache=()),
    "nothing fused": Decoder(
        qkv=(CUBLAS, CUBLAS, SPLIT_K, SPLIT_K_REDUCE),
        gate_up=(CUBLAS, SPLIT_K, SPLIT_K_REDUCE),
        norm=("void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>", ADD_NORM),
    ),
    "QKV fused, gate and up not": Decoder(gate_up=(CUBLAS, CUBLAS)),
    "gate and up fused, QKV not": Decoder(qkv=(CUBLAS, CUBLAS, CUBLAS)),
    "unpacked weights": Decoder(qkv=("void kDequantizeBlockwise<__nv_bfloat16, 512, 64, 8, 2>", CUBLAS)),
    "many layers": Decoder(num_layers=48),
}


def places_of(capture: Capture, num_layers: int) -> KernelPlaces:
    return kernel_places(capture, kernel_steps(capture, step_spans(capture)), num_layers)


def names(decoder: Decoder) -> list[str]:
    return [name for name, _, _ in decoder.step()]


def is_kernel(capture: Capture) -> np.ndarray:
    return ~np.isin(capture.kernels.class_id, np.flatnonzero(capture.kernel_classes.name == "qmeter_step_marker"))


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_every_kernel_of_a_step_finds_its_place(decoder: Decoder) -> None:
    capture = Run().step(names(decoder)).step(names(decoder)).capture()
    places = places_of(capture, decoder.num_layers)
    found = [
        (capture.kernel_classes.name[capture.kernels.class_id[row]], int(places.layer[row]), Role(places.role[row]))
        for row in np.flatnonzero(is_kernel(capture))
    ]
    assert found == [(name, layer, Role[role.upper()]) for name, layer, role in decoder.step() * 2]
    assert places.is_placed.all()
    assert places.reasons == {}


def test_markers_and_kernels_outside_steps_have_no_place() -> None:
    run = Run().step(names(Decoder()))
    run.builder.kernel(run.now - 5, run.now, CUBLAS)
    capture = run.capture()
    places = places_of(capture, 3)
    assert (places.role[~is_kernel(capture)] == UNKNOWN_ROLE).all()
    assert places.role[capture.kernels.start_ns.argmax()] == UNKNOWN_ROLE


def test_a_copy_on_another_stream_does_not_disturb_the_order() -> None:
    run = Run().step(names(Decoder()))
    for start in range(55, 300, 40):
        run.builder.kernel(start, start + 3, "Memcpy DtoH", stream=13)
    capture = run.capture()
    places = places_of(capture, 3)
    on_side = capture.kernels.stream == 13
    assert places.is_placed.all()
    assert set(places.role[on_side].tolist()) == {Role.OTHER}
    assert set(places.layer[on_side].tolist()) == {-1}


def test_a_step_with_too_few_attentions_is_left_unknown_and_counted() -> None:
    short = [name for name in names(Decoder()) if name != FLASH_3]
    capture = Run().step(names(Decoder())).step([*short, FLASH_3]).step(names(Decoder())).capture()
    places = places_of(capture, 3)
    assert places.is_placed.tolist() == [True, False, True]
    assert places.reasons == {"it has 1 groups of attention kernels, and the model 3 layers": 1}
    unknown = kernel_steps(capture, step_spans(capture)) == 1
    assert (places.role[unknown] == UNKNOWN_ROLE).all()
    assert (places.layer[unknown] == -1).all()


def test_a_mixture_of_experts_is_left_unknown() -> None:
    capture = Run().step(names(Decoder(gate_up=("fused_moe_kernel",), down=("fused_moe_kernel",)))).capture()
    places = places_of(capture, 3)
    assert not places.is_placed.any()
    assert list(places.reasons) == ["it has a mixture of experts, whose layers are not resolved"]


def test_layers_that_do_not_repeat_are_left_unknown() -> None:
    step = names(Decoder())
    step.insert(step.index(FLASH_3) + 2, CUBLAS)
    places = places_of(Run().step(step).capture(), 3)
    assert list(places.reasons) == ["the matrix products between its attention kernels fit no dense decoder layer"]


def test_a_step_cut_off_before_its_last_products_is_left_unknown() -> None:
    step = names(Decoder())
    last = len(step) - 1 - step[::-1].index(FLASH_3)
    places = places_of(Run().step(step[: last + 2]).capture(), 3)
    assert list(places.reasons) == ["matrix products of its first or last layer are missing"]


def test_a_step_that_samples_nothing_has_no_head() -> None:
    step = Decoder(head=()).step()
    capture = Run().step([name for name, _, role in step if role != "sampling"]).capture()
    places = places_of(capture, 3)
    assert places.is_placed.all()
    assert Role.LM_HEAD not in places.role.tolist()
    assert Role.FINAL_NORM in places.role.tolist()


def test_a_graph_node_keeps_one_place() -> None:
    step = names(Decoder())
    again = Run().step(step, graph=3).step(step, graph=3).step(step, graph=4).capture()
    assert places_of(again, 3).is_placed.all()
    moved = Run().step(step, graph=3).step([*INPUTS, *step], graph=3).capture()
    places = places_of(moved, 3)
    assert places.is_placed.tolist() == [True, False]
    assert places.reasons == {"a node of a CUDA graph would have two places": 1}


def test_known_layers_are_compared_where_both_are_known() -> None:
    capture = Run().step(names(Decoder())).capture()
    places = places_of(capture, 3)
    assert layer_agreement(places, places.layer) == 1.0
    wrong = np.where(places.layer == 2, 1, places.layer)
    in_layers = np.count_nonzero(places.layer >= 0)
    assert layer_agreement(places, wrong) == pytest.approx(1 - np.count_nonzero(places.layer == 2) / in_layers)
    assert layer_agreement(places, np.full_like(places.layer, -1)) is None


def test_a_capture_without_steps_has_no_places() -> None:
    capture = Run().capture()
    assert places_of(capture, 3).reasons == {}


def test_a_recorded_run_is_placed_whole() -> None:
    capture = read_capture(FIXTURE)
    steps = kernel_steps(capture, step_spans(capture))
    places = kernel_places(capture, steps, 32)
    assert places.is_placed.all()
    assert ((places.role >= 0) == (steps >= 0)).all()
    for role in (Role.QKV_PROJ, Role.O_PROJ, Role.GATE_UP_PROJ, Role.DOWN_PROJ, Role.ATTENTION, Role.KV_WRITE):
        calls = np.bincount(places.layer[places.role == role], minlength=32)
        assert len(calls) == 32
        assert set(calls.tolist()) == {calls[0]}, role
        assert calls[0] >= len(capture.steps)
    assert np.count_nonzero(places.role == Role.LM_HEAD) == len(capture.steps)


VLLM_STEPS = json.loads((DATA / "h200-vllm-machete-steps.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("step", VLLM_STEPS["steps"].values(), ids=VLLM_STEPS["steps"])
def test_a_recorded_step_of_vllm_is_placed(step: list[int]) -> None:
    capture = Run().step([VLLM_STEPS["names"][index] for index in step]).capture()
    places = places_of(capture, 3)
    rows = np.flatnonzero(is_kernel(capture))
    families = [op_family(capture.kernel_classes.name[capture.kernels.class_id[row]]) for row in rows]
    roles, layers = [Role(role) for role in places.role[rows]], places.layer[rows].tolist()
    assert OpFamily.OTHER not in families
    assert {layers.count(layer) for layer in range(3)} == {layers.count(0)}
    products = [role for role, family in zip(roles, families, strict=True) if family is OpFamily.GEMM]
    linear = [Role.QKV_PROJ, Role.O_PROJ, Role.GATE_UP_PROJ, Role.DOWN_PROJ]
    assert products == [*linear * 3, Role.LM_HEAD]
    once = (Role.INPUT_NORM, Role.ROPE, Role.KV_WRITE, Role.POST_NORM, Role.ACTIVATION)
    assert [roles.count(role) for role in once] == [3] * 5
    assert roles.count(Role.FINAL_NORM) == 1
    assert roles.count(Role.ATTENTION) == 7
    assert roles.count(Role.SAMPLING) == 8
