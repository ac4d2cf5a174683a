"""The quantization methods that need no calibration data. Data: one row a method."""

from __future__ import annotations

from typing import Any, Final

from qmeter_native.errors import UsageError
from qmeter_native.quantization.method import Method

__all__ = ["METHODS", "method_named", "method_names"]


def _gptq(bits: int) -> dict[str, Any]:
    return {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": 128,
        "desc_act": False,
        "sym": True,
        "lm_head": False,
        "checkpoint_format": "gptq",
    }


def _bitsandbytes(kind: str, is_nested: bool) -> dict[str, Any]:
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

_AWQ: Final = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
_HQQ: Final = {
    "quant_method": "hqq",
    "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}},
}
_LLM_INT8: Final = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}
_FP8: Final = {"quant_method": "fp8", "activation_scheme": "dynamic"}
_FP8_BLOCK: Final = {**_FP8, "weight_block_size": [128, 128]}
_QOQ: Final = {"quant_method": "qoq", "group_size": -1}
_QOQ_GROUP: Final = {"quant_method": "qoq", "group_size": 128}

_ROWS: Final = (
    Method("gptq", "W4A16-INT g128", _gptq(4)),
    Method("gptq-8bit", "W8A16-INT g128", _gptq(8)),
    Method("awq", "W4A16-INT g128 zp", _AWQ),
    Method("hqq", "W4A16-INT g64 HQQ", _HQQ),
    Method("nf4", "W4A16-NF4 g64", _bitsandbytes("nf4", True)),
    Method("fp4", "W4A16-FP4 g64", _bitsandbytes("fp4", False)),
    Method("int8-weight-only", "W8A16-INT", _compressed("int-quantized", _INT8_CHANNEL)),
    Method("int8", "W8A8-INT", _compressed("int-quantized", _INT8_CHANNEL, _per_token("int"))),
    Method("llm-int8", "W8A8-INT", _LLM_INT8),
    Method("fp8", "W8A8-FP tensor", _FP8),
    Method("fp8-channel", "W8A8-FP", _compressed("float-quantized", _FP8_CHANNEL, _per_token("float"))),
    Method("fp8-block", "W8A8-FP b128", _FP8_BLOCK),
    Method("mxfp4", "W4A16-MXFP4 g32", _compressed("mxfp4-pack-quantized", _MXFP4_GROUP)),
    Method("nvfp4", "W4A16-NVFP4 g16", _compressed("nvfp4-pack-quantized", _NVFP4_GROUP)),
    Method("w4a8-fp", "W4A8-FP g128", _compressed("pack-quantized", _INT4_GROUP, _per_token("float"))),
    Method("qoq", "W4A8-INT", _QOQ),
    Method("qoq-group", "W4A8-INT g128", _QOQ_GROUP),
)

METHODS: Final = {method.name: method for method in _ROWS}


def method_names() -> tuple[str, ...]:
    """All methods, in the order of the table."""
    return tuple(METHODS)


def method_named(name: str) -> Method:
    """The method called ``name``.

    Raises:
        UsageError: There is none.
    """
    if name not in METHODS:
        raise UsageError(f"no quantization method is called {name!r}", f"There are {', '.join(METHODS)}.")
    return METHODS[name]
