"""``quantization_config`` of the methods' checkpoints. Data, and what builds it."""

from __future__ import annotations

from typing import Any, Final

__all__ = [
    "AWQ",
    "FP8",
    "FP8_BLOCK",
    "FP8_CHANNEL",
    "HQQ",
    "INT4_WEIGHT_ONLY",
    "INT8",
    "INT8_WEIGHT_ONLY",
    "LLM_INT8",
    "MXFP4",
    "NVFP4",
    "QOQ_CHANNEL",
    "QOQ_GROUP",
    "W4A8_FP",
    "bitsandbytes",
    "gptq",
]


def gptq(bits: int, desc_act: bool = False) -> dict[str, Any]:
    """Symmetric integers in groups of 128."""
    return {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": 128,
        "desc_act": desc_act,
        "sym": True,
        "lm_head": False,
        "checkpoint_format": "gptq",
    }


def bitsandbytes(kind: str, is_nested: bool) -> dict[str, Any]:
    """``nf4`` or ``fp4`` in blocks of 64; nested: scales are quantized again."""
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": is_nested,
    }


def _compressed(layout: str, weights: dict[str, Any], inputs: dict[str, Any] | None = None) -> dict[str, Any]:
    """A configuration of compressed-tensors; weights and inputs are symmetric and, but for bits, of one type."""
    group = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def _per_token(kind: str) -> dict[str, Any]:
    return {"num_bits": 8, "type": kind, "strategy": "token", "dynamic": True, "symmetric": True}


_INT8_CHANNEL: Final = {"num_bits": 8, "type": "int", "strategy": "channel"}
_INT4_GROUP: Final = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
_FP8_CHANNEL: Final = {"num_bits": 8, "type": "float", "strategy": "channel"}
_MXFP4_GROUP: Final = {"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}
_NVFP4_GROUP: Final = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}

AWQ: Final = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
HQQ: Final = {
    "quant_method": "hqq",
    "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}},
}
LLM_INT8: Final = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}

# vLLM takes weights without inputs in pack-quantized only: _get_scheme_from_parts in
# vllm/model_executor/layers/quantization/compressed_tensors/compressed_tensors.py.
INT8_WEIGHT_ONLY: Final = _compressed("pack-quantized", _INT8_CHANNEL)
INT4_WEIGHT_ONLY: Final = _compressed("pack-quantized", _INT4_GROUP)
MXFP4: Final = _compressed("mxfp4-pack-quantized", _MXFP4_GROUP)
NVFP4: Final = _compressed("nvfp4-pack-quantized", _NVFP4_GROUP)

INT8: Final = _compressed("int-quantized", _INT8_CHANNEL, _per_token("int"))
FP8: Final = {"quant_method": "fp8", "activation_scheme": "dynamic"}
FP8_BLOCK: Final = {**FP8, "weight_block_size": [128, 128]}
FP8_CHANNEL: Final = _compressed("float-quantized", _FP8_CHANNEL, _per_token("float"))
W4A8_FP: Final = _compressed("pack-quantized", _INT4_GROUP, _per_token("float"))
QOQ_CHANNEL: Final = {"quant_method": "qoq", "group_size": -1}
QOQ_GROUP: Final = {"quant_method": "qoq", "group_size": 128}
