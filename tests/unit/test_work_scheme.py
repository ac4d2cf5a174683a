"""Bytes of weights, inputs and cache by quantization."""

from __future__ import annotations

from typing import Any

import pytest

from qmeter_native.work.role import Role
from qmeter_native.work.scheme import Scheme, WeightLayout, read_scheme

N, K = 6144, 4096
WEIGHTS = N * K


def scheme_of(method: str | None, config: dict[str, Any] | None = None, kv: str | None = None) -> Scheme:
    scheme, reason = read_scheme(method, config, "bfloat16", kv)
    assert scheme is not None, reason
    return scheme


def compressed(**weights: Any) -> dict[str, Any]:
    inputs = weights.pop("inputs", None)
    group = {"weights": weights, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("method", "config", "weight_bytes", "activation_bits"),
    [
        (None, None, 2 * WEIGHTS, 16),
        ("gptq", {"bits": 4, "group_size": 128, "sym": True}, WEIGHTS // 2 + N * 32 * 2, 16),
        ("auto_gptq", {"quant_method": "gptq", "bits": 4, "group_size": 128}, WEIGHTS // 2 + N * 32 * 2, 16),
        ("gptq_marlin", {"bits": 4, "group_size": 128, "sym": False}, WEIGHTS // 2 + N * 32 * 5 // 2, 16),
        ("gptq", {"bits": 4, "group_size": 128, "desc_act": True}, WEIGHTS // 2 + N * 32 * 2 + K * 4, 16),
        ("gptq", {"bits": 8, "group_size": -1}, WEIGHTS + N * 2, 16),
        ("awq", {"bits": 4, "group_size": 128, "zero_point": True}, WEIGHTS // 2 + N * 32 * 5 // 2, 16),
        ("awq_marlin", {"w_bit": 4, "q_group_size": 64}, WEIGHTS // 2 + N * 64 * 5 // 2, 16),
        ("fp8", None, WEIGHTS + 4, 8),
        ("fp8", {"weight_block_size": [128, 128]}, WEIGHTS + 48 * 32 * 4, 8),
        ("fbgemm_fp8", {}, WEIGHTS + N * 4, 8),
        ("mxfp4", {}, WEIGHTS // 2 + WEIGHTS // 32, 16),
        ("modelopt_fp4", {"quant_algo": "NVFP4"}, WEIGHTS // 2 + WEIGHTS // 16 + 4, 4),
        ("modelopt", {"quant_algo": "W4A16_NVFP4"}, WEIGHTS // 2 + WEIGHTS // 16 + 4, 16),
        ("modelopt", {"quant_algo": "FP8"}, WEIGHTS + 4, 8),
        ("modelopt", {"quant_algo": "FP8_PB_WO"}, WEIGHTS + 48 * 32 * 4, 16),
        ("modelopt", {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN"}, WEIGHTS + N * 4, 8),
        (
            "hqq",
            {"quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64}}},
            WEIGHTS // 2 + WEIGHTS // 64 * 4,
            16,
        ),
        ("qoq", {"group_size": 128}, WEIGHTS // 2 + N * 32 * 3 // 2 + N * 2, 8),
        ("qoq", {"group_size": -1}, WEIGHTS // 2 + N * 5 // 2, 8),
        ("bitsandbytes", {"load_in_4bit": True}, WEIGHTS // 2 + WEIGHTS // 64 * 4, 16),
        (
            "bitsandbytes",
            {"load_in_4bit": True, "bnb_4bit_use_double_quant": True},
            WEIGHTS // 2 + WEIGHTS // 64 + WEIGHTS // 64 // 256 * 4,
            16,
        ),
        ("bitsandbytes", {"load_in_8bit": True}, WEIGHTS + N * 4, 8),
        (None, compressed(num_bits=4, type="int", strategy="group", group_size=128), WEIGHTS // 2 + N * 32 * 2, 16),
        (
            None,
            compressed(num_bits=4, type="float", strategy="tensor_group", group_size=16),
            WEIGHTS // 2 + WEIGHTS // 16 + 4,
            16,
        ),
        (
            None,
            compressed(
                num_bits=4,
                type="int",
                strategy="group",
                group_size=128,
                inputs={"num_bits": 8, "type": "float", "strategy": "token"},
            ),
            WEIGHTS // 2 + N * 32 * 2,
            8,
        ),
        (
            None,
            compressed(num_bits=8, type="float", strategy="channel", inputs={"num_bits": 8, "strategy": "token"}),
            WEIGHTS + N * 4,
            8,
        ),
    ],
)
def test_a_matrix_has_the_bytes_of_its_format(
    method: str | None, config: dict[str, Any] | None, weight_bytes: int, activation_bits: int
) -> None:
    scheme = scheme_of(method, config)
    assert scheme.weight.num_bytes(N, K) == weight_bytes
    assert scheme.activation_bits == activation_bits


def test_symmetric_w4_g128_takes_0_5156_bytes_a_weight() -> None:
    assert scheme_of("gptq", {"bits": 4, "group_size": 128}).weight.num_bytes(N, K) / WEIGHTS == 0.515625


def test_the_head_stays_unquantized_unless_said() -> None:
    gptq = {"bits": 4, "group_size": 128}
    assert scheme_of("gptq", gptq).weight_of(Role.LM_HEAD) == WeightLayout(16)
    assert scheme_of("gptq", {**gptq, "lm_head": True}).weight_of(Role.LM_HEAD).bits == 4
    assert scheme_of("fp8").input_bytes(Role.LM_HEAD, K) == 2 * K
    assert scheme_of("fp8").input_bytes(Role.O_PROJ, K) == K


def test_blocks_of_unknown_size_are_not_guessed() -> None:
    group = {"weights": {"num_bits": 8, "type": "float", "strategy": "block"}}
    scheme, reason = read_scheme("compressed-tensors", {"config_groups": {"group_0": group}}, "bfloat16")
    assert scheme is None
    assert "compressed-tensors" in (reason or "")


def test_scales_of_inputs_count() -> None:
    assert scheme_of("fp8", {"weight_block_size": [128, 128]}).input_bytes(Role.O_PROJ, K) == K + 32 * 4
    assert scheme_of("fbgemm_fp8").input_bytes(Role.O_PROJ, K) == K + 4


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        (None, 16),
        ("auto", 16),
        ("bfloat16", 16),
        ("fp8", 8),
        ("fp8_e5m2", 8),
        ("int4_per_token_head", 4),
        ("odd", None),
    ],
)
def test_the_cache_has_the_engines_format(name: str | None, bits: int | None) -> None:
    assert scheme_of(None, None, name).kv_bits == bits


@pytest.mark.parametrize(
    ("method", "config", "dtype"),
    [
        ("torchao", {}, "bfloat16"),
        (None, {"quant_method": "compressed-tensors", "config_groups": {}}, "bfloat16"),
        (None, None, "float64"),
        (None, None, None),
        (None, None, "auto"),
    ],
)
def test_an_unknown_format_has_a_reason(method: str | None, config: dict[str, Any] | None, dtype: str | None) -> None:
    scheme, reason = read_scheme(method, config, dtype)
    assert scheme is None
    assert reason
