"""Methods that quantize activations or caches too. Data: one row a method.

Whose kernels vLLM 0.26 takes: the order of candidates in ``vllm/model_executor/kernels/linear/__init__.py`` and what
each takes (``scaled_mm/``, ``mixed_precision/`` beside it), with the packages that vLLM itself brings. Attention:
``_get_backend_priorities`` of ``vllm/platforms/cuda.py`` and ``supports_kv_cache_dtype`` of the backends.
"""

from __future__ import annotations

from typing import Final

from qmeter_native.quantization import method_configs as configs
from qmeter_native.quantization.method import ARCHITECTURES, Method, VllmServing

__all__ = ["ACTIVATIONS", "CACHES"]

_FP8: Final = (8, 9)
"""Tensor cores multiply E4M3 from Ada on."""

# vLLM's csrc/libtorch_stable/quantization/w8a8/cutlass/c3x/scaled_mm_helper.hpp refuses INT8 from 10.0 on.
_INT8: Final = dict.fromkeys(("sm_80", "sm_89", "sm_90"), ("CUTLASS scaled-mm",))
# scaled_mm/marlin.py: below 8.9. scaled_mm/flashinfer.py wants one scale for all inputs; ours are by token.
_FP8_KERNELS: Final = {**dict.fromkeys(ARCHITECTURES, ("CUTLASS scaled-mm",)), "sm_80": ("Marlin",)}
# scaled_mm/flashinfer.py: on 9.0 FlashInfer's below 32 tokens, else DeepGEMM; cutlass.py has blocks from 9.0 on.
_FP8_BLOCK: Final = {
    "sm_80": ("Marlin",),
    "sm_89": ("Triton scaled-mm",),
    "sm_90": ("DeepGEMM", "FlashInfer GEMM"),
    "sm_100": ("DeepGEMM",),
}
# v1/attention/backends/flash_attn.py: FP8 caches with FlashAttention 3 on 9.x only; FlashInfer comes next.
_FP8_ATTENTION: Final = {**dict.fromkeys(ARCHITECTURES, ("FlashInfer attention",)), "sm_90": ("FlashAttention 3",)}
# v1/attention/backends/triton_attn.py alone has scales by token and head.
_TRITON: Final = dict.fromkeys(ARCHITECTURES, ("Triton attention",))
_CUBLAS: Final = dict.fromkeys(ARCHITECTURES, ("cuBLAS",))

_NO_FP8: Final = "Before 8.9 vLLM multiplies 16-bit activations with the FP8 weights (Marlin): W8A16-FP."
_NO_QOQ: Final = "vLLM 0.26 has no QoQ: its checkpoints are QServe's."
_NO_INT8: Final = "The embedded engine's kernels need 8.0; vLLM's CUTLASS runs from 7.5 to 9.0."

ACTIVATIONS: Final = (
    Method(
        "llm-int8",
        "W8A8-INT",
        configs.LLM_INT8,
        "bitsandbytes",
        vllm=VllmServing(dict.fromkeys(ARCHITECTURES, ("bitsandbytes",)), needs="bitsandbytes>=0.46.1"),
        elsewhere="bitsandbytes runs from 7.5 on; the embedded engine's kernels need 8.0.",
        summary="8-bit integers on both sides; inputs beyond a threshold are multiplied in 16 bits.",
    ),
    Method(
        "rtn-w8a8",
        "W8A8-INT",
        configs.INT8,
        vllm=VllmServing(_INT8),
        elsewhere=_NO_INT8,
        summary="8-bit integers, a scale an output channel and one a token, rounded to nearest.",
    ),
    Method(
        "smoothquant",
        "W8A8-INT",
        configs.INT8,
        "smoothquant",
        vllm=VllmServing(_INT8),
        elsewhere=_NO_INT8,
        summary="The same after outliers of activations have been moved into the weights.",
    ),
    Method(
        "fp8",
        "W8A8-FP tensor",
        configs.FP8,
        minimum=_FP8,
        vllm=VllmServing(_FP8_KERNELS),
        elsewhere=_NO_FP8,
        summary="E4M3 with one scale a matrix, and one a token found as it runs.",
    ),
    Method(
        "fp8-channel",
        "W8A8-FP",
        configs.FP8_CHANNEL,
        minimum=_FP8,
        vllm=VllmServing(_FP8_KERNELS),
        elsewhere=_NO_FP8,
        summary="E4M3 with a scale an output channel, and one a token found as it runs.",
    ),
    Method(
        "fp8-block",
        "W8A8-FP b128",
        configs.FP8_BLOCK,
        minimum=_FP8,
        vllm=VllmServing(_FP8_BLOCK, dtype="bfloat16"),
        elsewhere=_NO_FP8,
        summary="DeepSeek's E4M3 with a scale for 128 x 128 weights and for 128 inputs of a token.",
    ),
    Method(
        "fp8-kv8",
        "W8A8KV8-FP",
        configs.FP8_CHANNEL,
        kv="fp8",
        minimum=_FP8,
        vllm=VllmServing(_FP8_KERNELS, _FP8_ATTENTION, ("--kv-cache-dtype", "fp8")),
        elsewhere=_NO_FP8,
        summary="fp8-channel, with keys and values in E4M3 too.",
    ),
    Method(
        "w4a8-fp",
        "W4A8-FP g128",
        configs.W4A8_FP,
        minimum=_FP8,
        # mixed_precision/cutlass.py and _is_fp8_w4a8_sm90: exactly 9.0, outputs in bfloat16.
        vllm=VllmServing({"sm_90": ("CUTLASS W4A8",)}, dtype="bfloat16"),
        elsewhere="vLLM serves it on 9.0 only; before 8.9 the embedded engine has no kernel for it.",
        summary="4-bit integers in groups of 128 with E4M3 activations, a scale a token.",
    ),
    Method(
        "qoq",
        "W4A8KV4-INT g128",
        configs.QOQ_GROUP,
        "qoq",
        kv="int4",
        why_not_vllm=_NO_QOQ,
        elsewhere="The embedded engine's kernels need 8.0.",
        summary="QServe's 4-bit weights in two levels of scales, 8-bit activations, 4-bit cache.",
    ),
    Method(
        "qoq-channel",
        "W4A8KV4-INT",
        configs.QOQ_CHANNEL,
        "qoq",
        kv="int4",
        why_not_vllm=_NO_QOQ,
        elsewhere="The embedded engine's kernels need 8.0.",
        summary="QoQ with one scale an output channel.",
    ),
)
"""In the order of the table."""

CACHES: Final = (
    Method(
        "kv8",
        "W16A16KV8-INT",
        {},
        "none",
        kv="int8",
        vllm=VllmServing(_CUBLAS, _TRITON, ("--kv-cache-dtype", "int8_per_token_head")),
        elsewhere="vLLM's Triton attention runs on older GPUs too.",
        summary="Only keys and values in 8-bit integers, a scale a token and head.",
    ),
    Method(
        "kv4",
        "W16A16KV4-INT",
        {},
        "none",
        kv="int4",
        vllm=VllmServing(_CUBLAS, _TRITON, ("--kv-cache-dtype", "int4_per_token_head")),
        elsewhere="vLLM's Triton attention runs on older GPUs too.",
        summary="Only keys and values in 4-bit integers, scale and zero point a token and head.",
    ),
)
"""Weights and activations stay as they are."""
